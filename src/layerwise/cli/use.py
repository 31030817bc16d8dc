"""``layerwise predict`` and ``layerwise evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Encoding, Json, Quiet, RunArgument, app
from layerwise.cli.output import notice, print_result, write
from layerwise.errors import SettingError


@app.command()
def predict(
    run: RunArgument,
    table: Annotated[str, typer.Argument(help="New rows, as for train; - for CSV on stdin.")] = "-",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".csv, .tsv, .jsonl or .parquet; else stdout."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", "-p", help="A column for each class's probability.")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(help="Input column to put beside; can be repeated.")
    ] = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer new rows: RUN new.csv -o out.csv. The target column need not be there."""
    from layerwise import storage
    from layerwise.model.answers import answer_columns, as_csv, check_suffix, write_answers
    from layerwise.model.file import load

    if out is not None:
        check_suffix(out)
        storage.check_file_output(out)
        for source in (table, run):
            if out.exists() and out.is_file() and Path(source).exists() and out.samefile(source):
                raise SettingError(f"--out {out} would write over what is read; name another file")
    if table == "-" and not quiet and sys.stdin is not None and sys.stdin.isatty():
        notice("reading CSV from standard input; end it with Ctrl-D")
    model = load(run)
    rows = model.read(table, also=keep or [], encoding=encoding)
    if not quiet:
        for one in model.encoder.notices(rows):
            notice(one)
    columns = answer_columns(model, rows, probabilities=probabilities, keep=keep or [])
    if out is not None:
        changed = write_answers(columns, out)
        if as_json:
            print_result({"rows": rows.n_rows, "file": str(out)}, as_json)
        elif not quiet:
            notice(f"{rows.n_rows:,} row{'s' * (rows.n_rows != 1)} in {out}")
    elif as_json:
        print_result({name: list(cells) for name, cells in columns.items()}, as_json)
        return
    else:
        text, changed = as_csv(columns)
        write(text)
    if changed and not quiet:
        notice(f"{changed:,} cells began as a formula does (= + - @) and got a ' before it")


@app.command()
def evaluate(
    run: RunArgument,
    table: Annotated[str, typer.Argument(help="Rows with the target, as for train.")],
    encoding: Encoding = "utf-8",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on rows with answers: RUN test.csv."""
    from layerwise.model.file import load
    from layerwise.show import evaluation, show_evaluation

    model = load(run)
    result = evaluation(model, table, encoding, (lambda text: None) if quiet else notice)
    print_result(result if as_json else show_evaluation(result), as_json)
