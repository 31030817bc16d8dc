"""``layerwise doctor``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from layerwise.cli.app import Json, Quiet, app
from layerwise.cli.data import Target, parse_data, with_data
from layerwise.cli.output import notice, print_result
from layerwise.cli.settings import parse_settings, with_settings


class FailOn(StrEnum):
    """From which severity on the command fails."""

    error = "error"
    warning = "warning"
    never = "never"

    def code(self, findings: Iterable[Mapping[str, Any]]) -> int:
        """The exit code: 4 where a finding, as plain values, is as grave as that."""
        counted = {FailOn.error: ("error",), FailOn.warning: ("error", "warning")}.get(self, ())
        return 4 if any(one["severity"] in counted for one in findings) else 0


@app.command()
@with_settings
@with_data()
def doctor(
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE|RUN", help="A table, as for train, or a run folder."),
    ] = None,
    target: Target = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="From which severity on to end with exit code 4.")
    ] = FailOn.error,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make the safest mend and show what it changes.")
    ] = False,
    tests: Annotated[
        bool, typer.Option("--tests", help="Also try: some rows by heart, shuffled labels, …")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Say what would keep a training from working, or what did: houses.csv --target price."""
    from layerwise.prepare import Question

    say = (lambda text: None) if quiet else notice
    if table is not None and (Path(table) / "run.json").exists():
        from layerwise.checkup import check_run

        found, tried = check_run(table), None
    else:
        from layerwise.checkup import check_table, try_mend

        question = Question(
            source=table, target=target, **parse_data(given), settings=parse_settings(given)
        )
        found = check_table(question, say, tests=tests)
        tried = try_mend(question, found, say) if fix else None
        if fix and tried is None:
            say("nothing was found that a flag could mend")
    if as_json:
        said = {"findings": found.to_json(), "not_looked_at": found.skipped}
        if found.trials:
            said["trials"] = [one.to_json() for one in found.trials]
        if tried is not None:
            said["fix"] = tried.to_json()
        print_result(said, as_json)
    else:
        print_result("\n\n".join([str(found), *([str(tried)] if tried else [])]), as_json)
    return fail_on.code(one.to_json() for one in found)
