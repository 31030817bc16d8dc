"""The recipe's settings as flags, and text from the command line as values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from layerwise.errors import SettingError
from layerwise.training.recipe import SETTINGS, Recipe, check


def flag_name(name: str) -> str:
    """The flag of a setting, without its dashes."""
    return str(SETTINGS[name].metadata.get("flag", name)).replace("_", "-")


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that takes ``**settings`` one flag for each entry of the recipe."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    defaults = Recipe()
    for name, entry in SETTINGS.items():
        default = getattr(defaults, name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        choices = entry.metadata.get("choices")
        several = isinstance(default, dict)
        option = typer.Option(
            f"--{flag_name(name)}",
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


def parse_settings(said: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, numbers as numbers, each within its limits."""
    settings: dict[str, Any] = {}
    for name, value in said.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            settings[name] = pairs(value, flag_name(name))
        elif value.lower() == "none" and SETTINGS[name].metadata.get("optional"):
            settings[name] = None
        else:
            settings[name] = value if name == "hidden_layer_sizes" else number(value)
        try:
            check(name, settings[name])
        except SettingError as error:
            raise SettingError(f"--{flag_name(name)}: {error}") from None
    return settings


def number(text: str) -> Any:
    """Text as JSON would read it (a number, true, a list), or as it is."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


_PAIRS = {"as": "COLUMN=ROLE", "class-weight": "balanced or CLASS=WEIGHT,CLASS=WEIGHT"}


def pairs(entries: list[str] | None, flag: str) -> dict[str, Any]:
    """``NAME=VALUE`` of a flag that can be repeated, values as JSON reads them."""
    found = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise SettingError(f"--{flag} takes {_PAIRS.get(flag, 'NAME=VALUE')}; got {entry!r}")
        found[name] = number(value)
    return found


def share(said: str) -> Any:
    """A share of the rows, or the path of a table."""
    value = number(said)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else said


def class_weight(said: str | None) -> Any:
    """``balanced``, or a weight for each class."""
    if said is None or said == "balanced":
        return said
    return pairs(said.split(","), "class-weight")
