"""Every setting of a training with its default, limits and one line of help: one table.

The command line's flags, the estimators' checks, the model file and the run folder are derived
from it. No torch is imported here, so that ``--help`` stays fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any

from layerwise.errors import SettingError, did_you_mean
from layerwise.network.plan import ACTIVATIONS, NORMS

SCHEDULES = ("constant", "cosine", "linear", "exponential", "step", "one_cycle")
ENGINES = ("auto", "native", "torch")
LOSS_NAMES = ("auto", "mse", "l1", "huber", "bce", "cross_entropy")


def _setting(default: Any, help: str, **limits: Any) -> Any:
    metadata = {"help": help, **limits}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """The settings of one training.

    Limits are in the fields' metadata: ``low`` and ``high`` (``open`` names the sides that are not
    included), ``choices``, ``words`` allowed beside numbers, ``optional`` for None.

    Examples
    --------
    >>> Recipe(hidden_layer_sizes=(64, 32), dropout=0.1).hidden_layer_sizes
    (64, 32)
    >>> Recipe(dropout=2)
    Traceback (most recent call last):
        ...
    layerwise.errors.SettingError: dropout has to be at least 0 and below 1; got 2
    """

    hidden_layer_sizes: tuple[int, ...] = _setting(
        (256, 128),
        "Units of each hidden layer, e.g. 128,64; 0 for a linear model.",
        low=1,
        flag="hidden",
    )
    members: int = _setting(
        5,
        "Networks whose answers are averaged, each on its own folds of the rows.",
        low=1,
        high=1000,
    )
    activation: str = _setting(
        "silu", "Function after each hidden layer.", choices=tuple(ACTIVATIONS)
    )
    bins: int | str = _setting(
        "auto",
        "Bins by which each number also enters; auto is 16 from 500 training rows, 0 is none.",
        low=0,
        high=1024,
        words=("auto",),
    )
    dropout: float | str = _setting(
        "auto",
        "Share of hidden values set to zero while training; auto is 0.1 from 200 training rows.",
        low=0,
        high=1,
        open="high",
        words=("auto",),
    )
    norm: str | None = _setting(
        None, "Normalisation after each hidden layer.", choices=tuple(NORMS), optional=True
    )
    loss: str = _setting("auto", "What is minimised; auto follows the task.", choices=LOSS_NAMES)
    optimizer: str = _setting("adamw", "adamw, adam, sgd, rmsprop or any class of torch.optim.")
    optimizer_options: dict[str, Any] = _setting(
        {}, "More arguments of the optimizer, e.g. nesterov=true.", flag="optimizer-option"
    )
    lr: float | str = _setting(
        "auto",
        "Learning rate; auto follows optimizer and rows.",
        low=0,
        open="low",
        words=("auto",),
    )
    momentum: float = _setting(0.9, "Momentum of sgd and rmsprop.", low=0, high=1, open="high")
    weight_decay: float | str = _setting(
        "auto",
        "Weight decay, not of biases and norms; auto is 0.01 for adamw, else 0.0001.",
        low=0,
        words=("auto",),
    )
    schedule: str = _setting(
        "auto",
        "How the rate goes on; auto is cosine from 200 training rows, else constant.",
        choices=("auto", *SCHEDULES),
    )
    warmup: float | str = _setting(
        "auto",
        "Share of all steps in which the rate climbs to its value; auto is 0.02 of auto's cosine.",
        low=0,
        high=1,
        open="high",
        words=("auto",),
    )
    clip_norm: float | None = _setting(
        None, "Limit of the gradients' norm.", low=0, open="low", optional=True
    )
    clip_value: float | None = _setting(
        None, "Limit of each gradient's entry.", low=0, open="low", optional=True
    )
    batch_size: int | str = _setting(
        "auto",
        "Rows of a step; auto takes 32 to 256 by the number of rows.",
        low=1,
        words=("auto",),
    )
    epochs: int = _setting(200, "Passes over the training rows, at most.", low=1)
    patience: int | None = _setting(
        10,
        "Stop after so many epochs without gain on the validation rows; 0 never stops early.",
        low=0,
        optional=True,
    )
    min_delta: float = _setting(0.0, "What counts as a gain of the monitored value.", low=0)
    monitor: str = _setting(
        "loss", "What decides on the best epoch: loss, or a metric of the task."
    )
    time_limit: float | None = _setting(
        None,
        "Time for all of it, in seconds or e.g. 60s, 5m, 1h; keeps the best.",
        low=0,
        open="low",
        optional=True,
    )
    dtype: str = _setting(
        "auto",
        "Precision; auto takes float64 for small tables, else float32.",
        choices=("auto", "float32", "float64"),
    )
    device: str = _setting("cpu", "cpu, cuda, or auto for the fastest there is.")
    engine: str = _setting(
        "auto",
        "What computes: native, torch, or auto for native where it can run the network.",
        choices=ENGINES,
    )
    threads: int = _setting(
        1,
        "CPU threads of torch; with 1 the result is the same to the byte everywhere.",
        low=1,
        high=1024,
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = check(entry.name, getattr(self, entry.name))
            object.__setattr__(self, entry.name, value)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {**asdict(self), "hidden_layer_sizes": list(self.hidden_layer_sizes)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Recipe:
        """The recipe back from `to_json`, or from settings that a user gave by name."""
        for name in state:
            if name not in SETTINGS:
                raise SettingError(f"unknown setting {name!r}. {did_you_mean(name, SETTINGS)}")
        return cls(**state)


PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"members": 2, "epochs": 60, "patience": 6},
    "default": {},
    "best": {"members": 10},
}
COMPARING = {"best"}  # a few recipes before it trains (`layerwise.shortlist`)


def with_preset(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's settings, under those that a user gave by name.

    Examples
    --------
    >>> with_preset("fast", {"patience": 3})
    {'members': 2, 'epochs': 60, 'patience': 3}
    """
    if name not in PRESETS:
        raise SettingError(f"unknown preset {name!r}. {did_you_mean(name, PRESETS)}")
    return {**PRESETS[name], **settings}


SETTINGS: dict[str, Field[Any]] = {entry.name: entry for entry in fields(Recipe)}


def check(name: str, value: Any) -> Any:
    """The value of one setting if it is within its limits, in its proper type.

    Raises
    ------
    SettingError
        Naming the setting, what was found and what is expected.
    """
    limits = SETTINGS[name].metadata
    if value is None and limits.get("optional"):
        return None
    if name == "hidden_layer_sizes":
        return _sizes(name, value)
    if name == "optimizer_options":
        if not isinstance(value, Mapping):
            raise SettingError(f"{name} has to be a dict of names and values; got {value!r}")
        return {str(key): _plain(f"{name} {key}", one) for key, one in value.items()}
    if name == "time_limit" and isinstance(value, str):
        value = _seconds(value)
    if "choices" in limits:
        if value not in limits["choices"]:
            known = did_you_mean(str(value), limits["choices"])
            raise SettingError(f"unknown {name} {value!r}. {known}")
        return value
    if isinstance(value, str):
        if "low" not in limits or value in limits.get("words", ()):
            return value
        return _number(name, value, limits)
    if "low" not in limits:
        raise SettingError(f"{name} has to be a name; got {value!r}")
    return _number(name, value, limits)


def _number(name: str, value: Any, limits: Mapping[str, Any]) -> int | float:
    whole = "int" in str(SETTINGS[name].type)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or math.isnan(number) or (whole and number % 1 != 0):
        what = "a whole number" if whole else "a number"
        what += "" if limits.get("open") == "low" else " of"
        raise SettingError(f"{name} has to be {what}{_range(limits)}; got {value!r}")
    low, high, side = limits["low"], limits.get("high", math.inf), limits.get("open", "")
    below = number <= low if side == "low" else number < low
    above = number >= high if side == "high" else number > high
    if below or above or math.isinf(number):
        raise SettingError(f"{name} has to be{_range(limits)}; got {value!r}")
    return int(number) if whole else number


def _seconds(said: str) -> float | str:
    """``"90s"``, ``"2m"`` or ``"1h"`` in seconds; other text as it is."""
    number, unit = said.strip()[:-1], said.strip()[-1:]
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (KeyError, ValueError):
        return said


def _plain(name: str, value: Any) -> Any:
    """A value that the model file can hold: numbers, texts, lists of them."""
    if hasattr(value, "tolist"):  # NumPy's and torch's
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if not isinstance(value, str | int | float | None):
        raise SettingError(f"{name} has to be a number, a text or a list of them; got {value!r}")
    return value


def _range(limits: Mapping[str, Any]) -> str:
    low = "above" if limits.get("open") == "low" else "at least"
    words = f" {low} {limits['low']}"
    if "high" in limits:
        words += f" and {'below' if limits.get('open') == 'high' else 'at most'} {limits['high']}"
    return words + "".join(f", or {word!r}" for word in limits.get("words", ()))


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Units of each hidden layer, from a number, a list of them or text such as ``"128, 64"``."""
    said = value
    if isinstance(value, str):
        parts = value.replace(";", ",").split(",")
        value = [part for part in parts if part.strip()] or [value]  # "" is no linear model
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    try:
        sizes = [float(one) for one in value]
        whole = [int(one) for one in sizes]
    except (TypeError, ValueError, OverflowError):
        whole, sizes = [0], [0.5]
    if whole == [0] and sizes == [0]:
        return ()
    if whole != sizes or any(one < 1 for one in whole):
        raise SettingError(
            f"{name} has to be whole numbers of at least 1, e.g. 128,64 (0 for a linear model); "
            f"got {said!r}"
        )
    return tuple(whole)


SMALL = 200  # below so many training rows a step takes them all, in float64
BINNED = 500  # from so many on numbers enter by bins too: of fewer rows a bin holds too few
BINS = 16
# Rows of a step, by the training rows there are: of few, small steps, so that there are enough.
_STEPS = ((1000, 32), (2500, 64), (6000, 128), (math.inf, 256))

# Where torch's own default is far from Adam's, that default is kept.
_RATES = {"sgd": 0.01, "asgd": 0.01, "adagrad": 0.01, "rprop": 0.01, "adadelta": 1.0, "lbfgs": 1.0}


def settle(recipe: Recipe, n_rows: int) -> Recipe:
    """The recipe with a value for everything it leaves open ("auto") but the loss and the device.

    Small tables are trained in float64 with all rows in each step, at a higher rate, so that their
    result depends neither on the order of the rows nor on a row standing twice or with weight 2.

    Examples
    --------
    >>> settled = settle(Recipe(), 3000)
    >>> settled.batch_size, settled.lr, settled.dtype
    (128, 0.003, 'float32')
    >>> settled.bins, settled.dropout, settled.schedule
    (16, 0.1, 'cosine')
    """
    small = n_rows < SMALL
    by_rows = next(size for below, size in _STEPS if n_rows < below)
    rows = n_rows if small else by_rows
    size = rows if recipe.batch_size == "auto" else recipe.batch_size
    optimizer = recipe.optimizer.lower()
    rate = _RATES.get(optimizer, 0.005 if small else 0.003)
    decay = 1e-2 if optimizer == "adamw" else 1e-4
    bins = BINS if n_rows >= BINNED and recipe.hidden_layer_sizes else 0  # linear stays linear
    auto = recipe.schedule == "auto"
    cosine = auto and not small
    settled: dict[str, Any] = {
        "bins": bins if recipe.bins == "auto" else recipe.bins,
        "dropout": (0.0 if small else 0.1) if recipe.dropout == "auto" else recipe.dropout,
        "schedule": ("cosine" if cosine else "constant") if auto else recipe.schedule,
        "warmup": (0.02 if cosine else 0.0) if recipe.warmup == "auto" else recipe.warmup,
        "batch_size": max(min(int(size), n_rows), 1),
        "lr": rate if recipe.lr == "auto" else recipe.lr,
        "weight_decay": decay if recipe.weight_decay == "auto" else recipe.weight_decay,
        "dtype": ("float64" if small else "float32") if recipe.dtype == "auto" else recipe.dtype,
    }
    same = all(getattr(recipe, name) == value for name, value in settled.items())
    return recipe if same else replace(recipe, **settled)
