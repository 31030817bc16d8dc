"""``layerwise inspect``, ``compare`` and ``schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Encoding, Json, RunArgument, app
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import pairs


@app.command("inspect")
def inspect_run(
    run: RunArgument,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show each layer over the epochs; RUN is a folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show layers, parameters, columns, target, metrics, and which epoch was kept."""
    if layers:
        from layerwise.run import Run

        found = Run.load(run).layers
        print_result(found.to_json() if as_json else str(found), as_json)
        return
    from layerwise.folder import RECORD, load_record
    from layerwise.model.file import load
    from layerwise.show import description, show_description, show_findings

    model = load(run)
    found = load_record(run).get("findings", []) if (Path(run) / RECORD).exists() else []
    if as_json:
        print_result(description(model) | ({"findings": found} if found else {}), as_json)
        return
    print_result("\n\n".join(filter(None, [show_description(model), show_findings(found)])), False)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders.")],
    as_json: Json = False,
) -> None:
    """Put runs side by side: runs/*."""
    from layerwise.folder import load_record
    from layerwise.show import comparison, show_comparison

    found = comparison({str(path): load_record(path) for path in runs})
    print_result(found if as_json else show_comparison(found), as_json)


@app.command()
def schema(
    table: Annotated[str, typer.Argument(help="The table, as for train.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write an editable TOML file.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Column to predict.")] = None,
    role: Annotated[
        list[str] | None, typer.Option("--as", metavar="COLUMN=ROLE", help="What a column is.")
    ] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="Word that is a gap; can be repeated.")
    ] = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Show what each column is and why."""
    from layerwise import storage
    from layerwise.data.files import read_table
    from layerwise.data.schema import infer_schema
    from layerwise.data.table import MISSING
    from layerwise.show import show_schema

    if out is not None:
        storage.check_file_output(out)
    words = [*MISSING, *(missing or [])]
    rows = read_table(table, missing=words, encoding=encoding)
    roles = {name: str(value) for name, value in pairs(role, "as").items()}
    if target is not None:
        roles[target] = "target"
    found = infer_schema(rows, roles, words)
    if out is not None:
        storage.write_whole(out, found.to_toml(rows.source))
        notice(f"written to {out}; edit it and train with --schema {out}")
    if out is None or as_json:
        print_result(found.to_json() if as_json else show_schema(rows, found), as_json)
