"""``layerwise cv``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from layerwise.cli.app import Json, Quiet, app
from layerwise.cli.data import Table, Target, parse_data, with_data
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import parse_settings, with_settings


@app.command()
@with_settings
@with_data(without=("test",))
def cv(
    table: Table = None,
    target: Target = None,
    folds: Annotated[int, typer.Option(help="Each is tested once.", min=2)] = 5,
    repeats: Annotated[int, typer.Option(help="How often the rows are dealt anew.", min=1)] = 1,
    baselines: Annotated[
        bool, typer.Option(help="Fit constant, linear model and trees too.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Cross-validate: every row is tested by what was learnt without it."""
    from layerwise.selection.cross_validation import cross_validate
    from layerwise.text import number

    def told(entry: dict[str, Any]) -> None:
        scores = ", ".join(
            f"{name.replace('_', ' ')} {number(value)}"
            for name, value in entry["metrics"]["network"].items()
        )
        again = f"{entry['repeat']}." if repeats > 1 else ""
        notice(f"fold {again}{entry['fold']}: {scores}  {entry['seconds']:.1f} s")

    data = parse_data(given)
    found = cross_validate(
        table, target, folds=folds, repeats=repeats, baselines=baselines,
        report=None if quiet else notice, progress=None if quiet else told,
        **data, **parse_settings(given),
    )  # fmt: skip
    print_result(found.to_json() if as_json else str(found), as_json)
