"""``layerwise importance``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from layerwise.cli.app import Json, RunArgument, app
from layerwise.cli.output import print_result
from layerwise.errors import SettingError


@app.command()
def importance(
    run: RunArgument,
    table: Annotated[
        str | None,
        typer.Argument(help="Rows with the target; by default those the run was measured on."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="How the answer goes with this column, instead.")
    ] = None,
    row: Annotated[
        int | None, typer.Option(help="Which columns made the answer of this row, instead.", min=1)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="rmse, r2, log_loss, accuracy, …; else the task's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Shuffles of each column.", min=2)] = 10,
    rows: Annotated[int, typer.Option(help="At most so many rows, drawn at random.", min=2)] = 2000,
    random_state: Annotated[int, typer.Option(help="Of rows and shuffles.")] = 0,
    as_json: Json = False,
) -> None:
    """Show which columns a model needs: each one shuffled, on rows it was not trained on."""
    if column is not None and row is not None:
        raise SettingError("one question at a time: --column or --row")
    subject = _subject(run, table)
    found: Any
    if column is not None:
        from layerwise.insight.dependence import partial_dependence

        found = partial_dependence(subject, column, table, max_rows=rows, random_state=random_state)
    elif row is not None:
        found = _row(subject, table, row)
    else:
        from layerwise.insight import importance as shuffling

        found = shuffling.importance(
            subject, table, metric=metric, n_repeats=repeats, max_rows=rows,
            random_state=random_state,
        )  # fmt: skip
    print_result(found.to_json() if as_json else str(found), as_json)


def _subject(run: Any, table: str | None) -> Any:
    """The run of a folder, which knows its rows, or the model of a file."""
    from layerwise.model.file import load
    from layerwise.run import Run

    if run.is_dir():
        return Run.load(run)
    if table is None:
        raise SettingError(f"{run} is a model without its rows: name a table with the target")
    return load(run)


def _row(subject: Any, table: str | None, row: int) -> Any:
    """The parts of one row's answer; rows are counted from 1, as tables have them."""
    import numpy as np

    from layerwise.insight.attribution import attribute
    from layerwise.insight.subject import model_of

    rows = subject.rows().measured.table if table is None else model_of(subject).read(table)
    if row > rows.n_rows:
        raise SettingError(f"there are {rows.n_rows:,} rows, and --row is {row}")
    return attribute(subject, rows.take(np.array([row - 1])))
