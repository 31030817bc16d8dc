"""The flags that say which rows are learnt from, shared by the commands that train."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from layerwise.cli.app import Encoding
from layerwise.cli.settings import class_weight, pairs, share

Table = Annotated[
    str | None,
    typer.Argument(help="CSV, TSV, JSON lines or Parquet, also .gz or a quoted glob; - for stdin."),
]
Target = Annotated[str | None, typer.Option("--target", "-t", help="Column to predict.")]

_FLAGS: dict[str, tuple[Any, Any]] = {
    "sql": (
        Annotated[str | None, typer.Option(help="A query over files, instead of TABLE.")], None,
    ),
    "task": (Annotated[str, typer.Option(help="auto, classification or regression.")], "auto"),
    "valid": (Annotated[str, typer.Option(help="Share or file of validation rows.")], "0.15"),
    "test": (Annotated[str, typer.Option(help="Share or file of test rows.")], "0.2"),
    "group": (
        Annotated[str | None, typer.Option(help="Column whose equal values stay together.")], None,
    ),
    "time": (
        Annotated[str | None, typer.Option(help="Column by which the latest rows are tested.")],
        None,
    ),
    "weights": (Annotated[str | None, typer.Option(help="Column of row weights.")], None),
    "class_weight": (
        Annotated[str | None, typer.Option(help="balanced, or CLASS=WEIGHT,CLASS=WEIGHT.")], None,
    ),
    "roles": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--as", metavar="COLUMN=ROLE", help="What a column is, e.g. zip=category."
            ),
        ],
        None,
    ),
    "drop": (
        Annotated[list[str] | None, typer.Option(help="Column to ignore; can be repeated.")], None,
    ),
    "schema": (Annotated[Path | None, typer.Option(help="Schema file to enforce.")], None),
    "missing": (
        Annotated[list[str] | None, typer.Option(help="Word that is a gap; can be repeated.")],
        None,
    ),
    "encoding": (Encoding, "utf-8"),
    "random_state": (Annotated[int, typer.Option(help="Of everything random.")], 0),
}  # fmt: skip


def with_data(without: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command that takes ``**given`` the flags of the data, but for some.

    They stand before ``--json``.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        flags = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (annotation, default) in _FLAGS.items()
            if name not in without
        ]
        own = list(signature.parameters.values())
        at = next(i for i, p in enumerate(own) if p.name == "as_json")
        rest = [
            p if p.kind is p.VAR_KEYWORD else p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in own[at:]
        ]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own[:at], *flags, *rest]
        )
        return command

    return add


def parse_data(given: dict[str, Any]) -> dict[str, Any]:
    """Take the data's flags out of all that was given, as `layerwise.train` wants them."""
    said = {name: given.pop(name) for name in _FLAGS if name in given}
    read = {
        "valid": share, "test": share, "class_weight": class_weight,
        "roles": lambda text: {k: str(v) for k, v in pairs(text, "as").items()},
        "drop": list, "missing": list,
    }  # fmt: skip
    return {
        name: read[name](value if value is not None or name == "class_weight" else [])
        if name in read
        else value
        for name, value in said.items()
    }
