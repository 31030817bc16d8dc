"""``layerwise code``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Quiet, RunArgument, app
from layerwise.cli.output import notice, write
from layerwise.errors import SettingError


@app.command()
def code(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The script's file; else stdout.")
    ] = None,
    predict_only: Annotated[
        bool, typer.Option("--predict-only", help="The trained network alone, to answer new rows.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as one plain PyTorch script: RUN -o train.py."""
    from layerwise import storage
    from layerwise.code.script import predict_script, train_script
    from layerwise.folder import load_record
    from layerwise.model import file as model_file
    from layerwise.run import Run

    if out is not None:
        storage.check_file_output(out)
        if out.suffix != ".py":
            raise SettingError(f"--out {out}: name a file that ends in .py")
    if not predict_only:
        whole = Run.load(run)
        text = train_script(whole.model, whole.record)
    else:
        model = model_file.load(run)
        record = load_record(run) if run.is_dir() else None
        saved = run / model_file.NAME if run.is_dir() else run
        text = predict_script(model, saved if out is None else None, record)
        if out is not None and not _same_file(saved, out.with_suffix(".layerwise")):
            storage.write_whole(out.with_suffix(".layerwise"), saved.read_bytes())
    if out is None:
        write(text)
        return
    storage.write_whole(out, text)
    if not quiet:
        beside = f" and {out.with_suffix('.layerwise')}" if predict_only else ""
        rows = " NEW_ROWS.csv" if predict_only else ""
        notice(f"written to {out}{beside}; next: python {shlex.quote(str(out))}{rows}")


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
