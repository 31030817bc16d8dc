"""``layerwise report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Quiet, app
from layerwise.cli.output import notice


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page's file.", show_default="RUN/report.html"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page on a run: RUN -o report.html."""
    from layerwise import storage
    from layerwise.run import Run

    if out is not None:
        storage.check_file_output(out)
    written = Run.load(run).report(out)
    if not quiet:
        notice(f"written to {written}; open it in a browser")
