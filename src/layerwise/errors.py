"""What layerwise raises: a few classes under one, each with the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LayerwiseError(Exception):
    """Base of all errors that layerwise raises on purpose; the message is for the user."""

    exit_code = 1


class SettingError(LayerwiseError, ValueError, TypeError):
    """A setting, flag or argument is unknown or outside its limits.

    Like scikit-learn's parameter error it is both a ``ValueError`` and a ``TypeError``.
    """

    exit_code = 2


class DataError(LayerwiseError, ValueError):
    """A table, column, row or cell is not what it has to be."""

    exit_code = 3


class NetworkError(LayerwiseError, ValueError):
    """A network does not fit its data, its loss or itself: shapes, types or places differ."""


class ModelFileError(LayerwiseError, ValueError):
    """A model file or run folder is missing, damaged, foreign or too new."""


class OutputError(LayerwiseError, OSError):
    """Something cannot be written: no permission, no space, a folder in the way."""


class TrainingError(LayerwiseError, ArithmeticError):
    """Training cannot go on, e.g. because the loss is not a finite number any more."""


class DataWarning(UserWarning):
    """The data are usable, and there is something to know about them."""


class NetworkWarning(UserWarning):
    """The network would train, and surely not as it was meant."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known name, or lists the known ones."""
    known = [str(one) for one in known]
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    if len(known) > 12:
        return f"Known are {', '.join(known[:12])} and {len(known) - 12} more."
    return f"Known are {', '.join(known)}." if known else "There are none."
