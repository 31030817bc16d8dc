"""The application, and the flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise._version import __version__

app = typer.Typer(
    help="Train, explain and ship fully connected neural networks for tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices.")]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder or a .layerwise file.")
]
Encoding = Annotated[str, typer.Option(help="Of text files, e.g. latin-1.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"layerwise {__version__}")
        raise typer.Exit


@app.callback()
def _layerwise(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
