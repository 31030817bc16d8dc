"""``layerwise search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from layerwise.cli.app import Json, Quiet, app
from layerwise.cli.data import Table, Target, parse_data, with_data
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import parse_settings, with_settings
from layerwise.cli.train import run_folder


@app.command()
@with_settings
@with_data(without=("valid",))
def search(
    table: Table = None,
    target: Target = None,
    trials: Annotated[int, typer.Option(help="How many settings are tried.", min=1)] = 30,
    folds: Annotated[int, typer.Option(help="Of the training rows.", min=2)] = 4,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; one that was begun goes on.", show_default="runs/TABLE-TIME"),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Fit constant, linear model and trees too.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Search for good settings, then train with the best; what is set is not searched."""
    from layerwise.selection.search import Trial, words
    from layerwise.selection.search import search as find
    from layerwise.show import show_training
    from layerwise.text import number

    def told(trial: Trial, best: Trial | None) -> None:
        value = "" if trial.value is None else number(trial.value)
        mark = "best" if best is not None and best.number == trial.number else trial.state
        mark = "" if mark == "complete" else mark
        notice(f"{trial.number:>4}  {value:>9}  {mark:<6}  {words(trial.settings)}")

    data, settings = parse_data(given), parse_settings(given)
    limit = settings.pop("time_limit", None)
    found = find(
        table, target, trials=trials, folds=folds, time_limit=limit, baselines=baselines,
        out=out or run_folder(table or data["sql"] or "table", data["sql"]),
        report=None if quiet else notice, progress=None if quiet else told, **data, **settings,
    )  # fmt: skip
    text = f"{found}\n\n{show_training(found.run)}"
    print_result(found.to_json() if as_json else text, as_json)
