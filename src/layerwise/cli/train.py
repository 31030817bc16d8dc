"""``layerwise train``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerwise.cli.app import Encoding, Json, Quiet, app
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import class_weight as read_class_weight
from layerwise.cli.settings import pairs, parse_settings, share, with_settings
from layerwise.errors import LayerwiseError, SettingError

if TYPE_CHECKING:
    from layerwise.run import Run


@app.command()
@with_settings
def train(
    context: typer.Context,
    table: Annotated[
        str | None,
        typer.Argument(
            help="CSV, TSV, JSON lines or Parquet, also .gz or a quoted glob; - for stdin."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Column to predict.")] = None,
    sql: Annotated[str | None, typer.Option(help="A query over files, instead of TABLE.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/TABLE-TIME")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, to the same bytes.")
    ] = None,
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    valid: Annotated[str, typer.Option(help="Share or file of validation rows.")] = "0.15",
    test: Annotated[str, typer.Option(help="Share or file of test rows.")] = "0.2",
    group: Annotated[
        str | None, typer.Option(help="Column whose equal values stay together.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column by which the latest rows are tested.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Column of row weights.")] = None,
    class_weight: Annotated[
        str | None, typer.Option(help="balanced, or CLASS=WEIGHT,CLASS=WEIGHT.")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="COLUMN=ROLE", help="What a column is, e.g. zip=category."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Column to ignore; can be repeated.")
    ] = None,
    schema: Annotated[Path | None, typer.Option(help="Schema file to enforce.")] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="Word that is a gap; can be repeated.")
    ] = None,
    encoding: Encoding = "utf-8",
    baselines: Annotated[
        bool, typer.Option(help="Fit constant, linear model and trees too.")
    ] = True,
    random_state: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    page: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html into the run folder.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Train a network on a table: houses.csv --target price."""
    from layerwise import run as runs
    from layerwise.show import show_training

    progress = None
    callbacks: list[Callable[..., Any]] = []
    if not quiet:
        from layerwise.progress import Progress

        progress = Progress(sys.stderr)
        callbacks.append(progress)
    report = None if quiet else notice
    try:
        if resume is not None:
            _refuse_others(context)
            run = runs.resume(resume, callbacks=callbacks, report=report)
        else:
            run = runs.train(
                table, target, sql=sql, task=task, valid=share(valid), test=share(test),
                weights=weights, class_weight=read_class_weight(class_weight), group=group,
                time=time, roles={k: str(v) for k, v in pairs(role, "as").items()}, drop=drop or [],
                schema=schema, missing=missing or [], encoding=encoding, baselines=baselines,
                random_state=random_state, out=out or _run_folder(table or sql or "table", sql),
                callbacks=callbacks, report=report, **parse_settings(settings),
            )  # fmt: skip
    finally:
        if progress:
            progress.close()
    print_result(run.record if as_json else show_training(run), as_json)
    if page:
        _write_report(run, report)
    stopped = run.history.stopped
    if stopped.startswith("diverged"):
        raise LayerwiseError(
            f"training {stopped} The weights of epoch {run.history.best_epoch} are kept."
        )
    if run.record["status"] == "interrupted":
        notice(f"epoch {run.history.best_epoch} is kept; go on with: "
                f"layerwise train --resume {shlex.quote(str(run.folder))}")  # fmt: skip
    interrupted = run.record["status"] == "interrupted" or run.record.get("interrupted")
    return 130 if interrupted else 0


def _write_report(run: Run, say: Callable[[str], None] | None) -> None:
    """Once the result is shown; a run is no worse for a page that could not be made."""
    try:
        path = run.report()
    except LayerwiseError as error:
        notice(f"no report was made: {error}")
        return
    if say:
        say(f"report: {path}")


def _refuse_others(context: typer.Context) -> None:
    """A run that goes on keeps its table and settings: no other flag counts beside --resume."""
    given = [
        parameter for parameter in context.command.params
        if getattr(context.get_parameter_source(str(parameter.name)), "name", "") == "COMMANDLINE"
        and parameter.name not in ("resume", "as_json", "quiet")
    ]  # fmt: skip
    if given:
        names = [p.opts[0] if p.opts[0].startswith("-") else str(p.name).upper() for p in given]
        raise SettingError(
            f"--resume goes on with the run's own table and settings; leave out {', '.join(names)}"
        )


def _run_folder(source: str, sql: str | None) -> Path:
    """A new folder under runs, named after the table and the time."""
    from datetime import datetime

    stem = "query" if sql else Path(source).name.split(".")[0].replace("*", "") or "table"
    stem = "stdin" if source == "-" else stem
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder
