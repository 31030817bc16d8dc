"""What a search tries: for each setting the values it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwise.errors import SettingError, did_you_mean
from layerwise.training.recipe import SETTINGS, check

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Between:
    """Numbers from low to high; ``log`` looks at their powers of ten alike."""

    low: float
    high: float
    log: bool = False


Choices = list[Any]
Space = dict[str, Between | Choices]


def default_space(n_rows: int) -> Space:
    """The settings that matter for tables, with sensible ranges for so many training rows.

    Examples
    --------
    >>> default_space(300)["batch_size"]
    [16, 32, 64]
    """
    sizes = [size for size in (16, 32, 64, 128, 256, 512) if 4 * size <= n_rows] or [16]
    return {
        "width": [32, 64, 128, 256],
        "depth": [1, 2, 3, 4],
        "activation": ["relu", "silu", "selu", "mish"],
        "lr": Between(3e-4, 2e-2, log=True),
        "weight_decay": Between(1e-4, 1e-1, log=True),
        "dropout": Between(0.0, 0.4),
        "batch_size": sizes,
        **({"bins": [0, 8, 16, 32]} if n_rows >= 500 else {}),
    }


def read_space(said: Mapping[str, Any]) -> Space:
    """A space as a user writes it: a list of choices, or (low, high) or (low, high, "log").

    Raises
    ------
    SettingError
        For a setting that does not exist, or values outside its limits.

    Examples
    --------
    >>> read_space({"lr": (1e-4, 1e-2, "log"), "activation": ["relu", "tanh"]})["lr"]
    Between(low=0.0001, high=0.01, log=True)
    """
    found: Space = {}
    for name, values in said.items():
        if name not in SETTINGS and name not in ("width", "depth"):
            raise SettingError(
                f"the space has an unknown setting {name!r}. "
                f"{did_you_mean(name, [*SETTINGS, 'width', 'depth'])}"
            )
        if isinstance(values, Between):
            found[name] = values
        elif isinstance(values, tuple):
            if len(values) not in (2, 3) or not values[0] < values[1]:
                raise SettingError(
                    f"{name} has to be (low, high) or (low, high, 'log') with low below high, or a "
                    f"list of choices; got {values!r}"
                )
            found[name] = Between(float(values[0]), float(values[1]), values[2:] == ("log",))
        elif isinstance(values, list) and values:
            found[name] = values
        else:
            raise SettingError(f"{name} has to be a list of choices or (low, high); got {values!r}")
        for value in _ends(found[name]):
            check(*_setting(name, value))
    return found


def _ends(values: Between | Choices) -> list[Any]:
    return [values.low, values.high] if isinstance(values, Between) else values


def _setting(name: str, value: Any) -> tuple[str, Any]:
    """Width and depth as the setting that they make."""
    return ("hidden_layer_sizes", [value, value]) if name in ("width", "depth") else (name, value)


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A point of the space."""
    point: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, Between):
            point[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
        else:
            texts = {repr(value): value for value in values}  # what the storage can hold
            point[name] = texts[trial.suggest_categorical(name, list(texts))]
    return point


def settings_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as settings of the recipe.

    Examples
    --------
    >>> settings_of({"width": 64, "depth": 2, "lr": 0.01})
    {'lr': 0.01, 'hidden_layer_sizes': (64, 64)}
    """
    rest = {name: value for name, value in point.items() if name not in ("width", "depth")}
    if "width" in point or "depth" in point:
        rest["hidden_layer_sizes"] = (int(point.get("width", 128)),) * int(point.get("depth", 2))
    return rest
