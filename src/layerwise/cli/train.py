"""``layerwise train``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerwise.cli.app import Json, Quiet, app
from layerwise.cli.data import Table, Target, parse_data, with_data
from layerwise.cli.doctor import FailOn
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import parse_settings, with_settings
from layerwise.errors import LayerwiseError, SettingError

if TYPE_CHECKING:
    from layerwise.run import Run


@app.command()
@with_settings
@with_data()
def train(
    context: typer.Context,
    table: Table = None,
    target: Target = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/TABLE-TIME")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, to the same bytes.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(help="fast, default or best (compares recipes); flags count over it."),
    ] = "default",
    baselines: Annotated[
        bool, typer.Option(help="Fit constant, linear model and trees too.")
    ] = True,
    page: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html into the run folder.")
    ] = True,
    fail_on: Annotated[
        FailOn, typer.Option(help="From which finding of the doctor on to end with exit code 4.")
    ] = FailOn.never,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
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
            data = parse_data(given)
            run = runs.train(
                table, target, **data, baselines=baselines, preset=preset,
                out=out or run_folder(table or data["sql"] or "table", data["sql"]),
                callbacks=callbacks, report=report, **parse_settings(given),
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
    return 130 if interrupted else fail_on.code(run.record.get("findings", ()))


def _write_report(run: Run, say: Callable[[str], None] | None) -> None:
    """Once the result is shown; a run is no worse for a page that could not be made."""
    try:
        path = run.report()
    except Exception as error:
        notice(f"no report was made: {error}")
        return
    if say:
        say(f"report: {path}")


def _refuse_others(context: typer.Context) -> None:
    """A run that goes on keeps its table and settings: no other flag counts beside --resume."""
    given = [
        parameter for parameter in context.command.params
        if getattr(context.get_parameter_source(str(parameter.name)), "name", "") == "COMMANDLINE"
        and parameter.name not in ("resume", "page", "as_json", "quiet", "fail_on")
    ]  # fmt: skip
    if given:
        names = [p.opts[0] if p.opts[0].startswith("-") else str(p.name).upper() for p in given]
        raise SettingError(
            f"--resume goes on with the run's own table and settings; leave out {', '.join(names)}"
        )


def run_folder(source: str, sql: str | None) -> Path:
    """A new folder under runs, named after the table and the time."""
    from datetime import datetime

    stem = "query" if sql else Path(source).name.split(".")[0].replace("*", "") or "table"
    stem = "stdin" if source == "-" else stem
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder
