"""The commands, thin: parse, call, print.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from layerwise.cli import train, cv, search, use, look, importance, doctor, report, code  # noqa: F401, I001  in the order of --help
from layerwise.cli.app import app

__all__ = ["app"]
