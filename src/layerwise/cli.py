"""The commands, thin: parse, call, print. Results on stdout, everything else on stderr.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from layerwise._version import __version__
from layerwise.errors import LayerwiseError, OutputError, SettingError
from layerwise.training.recipe import SETTINGS, check

app = typer.Typer(
    help="Train, explain and ship fully connected neural networks for tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices.")]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder or a .layerwise file.")
]
Encoding = Annotated[str, typer.Option(help="Of text files, e.g. latin-1.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"layerwise {__version__}")
        raise typer.Exit


@app.callback()
def _layerwise(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# ---------------------------------------------------------------- settings as flags


def _flag_name(name: str) -> str:
    return str(SETTINGS[name].metadata.get("flag", name)).replace("_", "-")


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that takes ``**settings`` one flag for each entry of the recipe."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    from layerwise.training.recipe import Recipe

    defaults = Recipe()
    for name, entry in SETTINGS.items():
        default = getattr(defaults, name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        choices = entry.metadata.get("choices")
        several = isinstance(default, dict)
        option = typer.Option(
            f"--{_flag_name(name)}",
            help=entry.metadata["help"],
            show_default=False if several or default is None else shown,
            metavar="NAME=VALUE" if several else "|".join(choices) if choices else _metavar(name),
            rich_help_panel="Network and training",
        )
        kind: Any = list[str] | None if several else str | None
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, option],
            )
        )
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _metavar(name: str) -> str:
    kind = str(SETTINGS[name].type)
    return (
        "N,N,…" if "tuple" in kind else "N" if "int" in kind else "X" if "float" in kind else "NAME"
    )


def _parse_settings(said: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, numbers as numbers, each within its limits."""
    settings: dict[str, Any] = {}
    for name, value in said.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            settings[name] = _pairs(value, _flag_name(name))
        elif value.lower() == "none" and SETTINGS[name].metadata.get("optional"):
            settings[name] = None
        else:
            settings[name] = value if name == "hidden_layer_sizes" else _number(value)
        try:
            check(name, settings[name])
        except SettingError as error:
            raise SettingError(f"--{_flag_name(name)}: {error}") from None
    return settings


def _number(text: str) -> Any:
    """Text as JSON would read it (a number, true, a list), or as it is."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


_PAIRS = {"as": "COLUMN=ROLE", "class-weight": "balanced or CLASS=WEIGHT,CLASS=WEIGHT"}


def _pairs(entries: list[str] | None, flag: str) -> dict[str, Any]:
    pairs = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise SettingError(f"--{flag} takes {_PAIRS.get(flag, 'NAME=VALUE')}; got {entry!r}")
        pairs[name] = _number(value)
    return pairs


# ---------------------------------------------------------------- commands


@app.command()
@_with_settings
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
    report = None if quiet else _notice
    try:
        if resume is not None:
            _refuse_others(context)
            run = runs.resume(resume, callbacks=callbacks, report=report)
        else:
            run = runs.train(
                table, target, sql=sql, task=task, valid=_share(valid), test=_share(test),
                weights=weights, class_weight=_class_weight(class_weight), group=group, time=time,
                roles={k: str(v) for k, v in _pairs(role, "as").items()}, drop=drop or [],
                schema=schema, missing=missing or [], encoding=encoding, baselines=baselines,
                random_state=random_state, out=out or _run_folder(table or sql or "table", sql),
                callbacks=callbacks, report=report, **_parse_settings(settings),
            )  # fmt: skip
    finally:
        if progress:
            progress.close()
    _print(run.record if as_json else show_training(run), as_json)
    stopped = run.history.stopped
    if stopped.startswith("diverged"):
        raise LayerwiseError(
            f"training {stopped} The weights of epoch {run.history.best_epoch} are kept."
        )
    if run.record["status"] == "interrupted":
        _notice(f"epoch {run.history.best_epoch} is kept; go on with: "
                f"layerwise train --resume {shlex.quote(str(run.folder))}")  # fmt: skip
    interrupted = run.record["status"] == "interrupted" or run.record.get("interrupted")
    return 130 if interrupted else 0


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
        _notice("reading CSV from standard input; end it with Ctrl-D")
    model = load(run)
    rows = model.read(table, also=keep or [], encoding=encoding)
    if not quiet:
        for notice in model.encoder.notices(rows):
            _notice(notice)
    columns = answer_columns(model, rows, probabilities=probabilities, keep=keep or [])
    if out is not None:
        changed = write_answers(columns, out)
        if as_json:
            _print({"rows": rows.n_rows, "file": str(out)}, as_json)
        elif not quiet:
            _notice(f"{rows.n_rows:,} row{'s' * (rows.n_rows != 1)} in {out}")
    elif as_json:
        _print({name: list(cells) for name, cells in columns.items()}, as_json)
        return
    else:
        text, changed = as_csv(columns)
        _write(text)
    if changed and not quiet:
        _notice(f"{changed:,} cells began as a formula does (= + - @) and got a ' before it")


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
    result = evaluation(model, table, encoding, (lambda text: None) if quiet else _notice)
    _print(result if as_json else show_evaluation(result), as_json)


@app.command("inspect")
def inspect_run(run: RunArgument, as_json: Json = False) -> None:
    """Show layers, parameters, columns, target, metrics, and which epoch was kept."""
    from layerwise.model.file import load
    from layerwise.show import description, show_description

    model = load(run)
    _print(description(model) if as_json else show_description(model), as_json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders.")],
    as_json: Json = False,
) -> None:
    """Put runs side by side: runs/*."""
    from layerwise.folder import load_record
    from layerwise.show import comparison, show_comparison

    found = comparison({str(path): load_record(path) for path in runs})
    _print(found if as_json else show_comparison(found), as_json)


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
    roles = {name: str(value) for name, value in _pairs(role, "as").items()}
    if target is not None:
        roles[target] = "target"
    found = infer_schema(rows, roles, words)
    if out is not None:
        storage.write_whole(out, found.to_toml(rows.source))
        _notice(f"written to {out}; edit it and train with --schema {out}")
    if out is None or as_json:
        _print(found.to_json() if as_json else show_schema(rows, found), as_json)


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
        _write(text)
        return
    storage.write_whole(out, text)
    if not quiet:
        beside = f" and {out.with_suffix('.layerwise')}" if predict_only else ""
        rows = " NEW_ROWS.csv" if predict_only else ""
        _notice(f"written to {out}{beside}; next: python {shlex.quote(str(out))}{rows}")


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


# ---------------------------------------------------------------- small things


def _notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _print(result: Any, as_json: bool) -> None:
    text = json.dumps(_finite(result), ensure_ascii=False, default=str) if as_json else result
    _write(f"{text}\n")


def _write(text: str) -> None:
    """Write a result to stdout, all of it; that a reader such as ``head`` has gone is no error."""
    if sys.stdout is None:
        raise OutputError("standard output is closed, so the result cannot be shown")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _drop_output()
        raise OutputError(f"standard output cannot be written: {error.strerror}") from None


def _drop_output() -> None:
    """Leave nothing in the buffer of stdout that Python would fail to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(said: str) -> Any:
    """A share of the rows, or the path of a table."""
    number = _number(said)
    return number if isinstance(number, int | float) and not isinstance(number, bool) else said


def _class_weight(said: str | None) -> Any:
    if said is None or said == "balanced":
        return said
    return _pairs(said.split(","), "class-weight")


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
