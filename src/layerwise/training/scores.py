"""Metrics of any network's raw outputs, measured after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from layerwise.errors import NetworkError, SettingError, did_you_mean

Metric = Callable[[Tensor, Tensor], Any]
Metrics = str | Sequence[str] | Mapping[str, Metric]

_IN_ROWS = ("epoch", "train_loss", "valid_loss", "loss", "lr", "seconds")


def accuracy(
    outputs: Tensor,
    y: Tensor,
    w: Tensor | None = None,
    *,
    cut: float = 0.0,
    each: bool = False,
    ignore: int = -100,
) -> float:
    """Share of rows whose answer is right.

    Parameters
    ----------
    outputs : (N, classes), the largest of which is the answer; or (N,) or (N, 1), where above
        ``cut`` is yes
    y : class indices (N,), probabilities (N, classes), or 0 and 1 in the shape of the outputs
    w : row weights (N,)
    cut : 0 for logits, 0.5 for probabilities
    each : whether every column is a yes or no of its own
    ignore : the class index that does not count

    Examples
    --------
    >>> import torch
    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    0.5
    """
    if not y.is_floating_point() and outputs.dim() == y.dim() + 1 and outputs.shape[1] > 1:
        return _mean(outputs.argmax(dim=1) == y, w, y != ignore)
    _check_shapes("accuracy", outputs, y)
    if outputs.dim() > 1 and outputs.shape[1] > 1 and not each:
        return _mean(outputs.argmax(dim=1) == y.argmax(dim=1), w)
    if bool(((y < 0) | (y > 1)).any()):
        raise NetworkError(
            f"accuracy takes a y of 0 and 1, or of classes, and y goes from {float(y.min()):.3g} "
            f"to {float(y.max()):.3g}; of numbers take rmse or mae"
        )
    return _mean((outputs > cut) == (y > 0.5), w)


def rmse(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> float:
    """Root of the mean squared error; outputs and y of one shape."""
    _check_shapes("rmse", outputs, y)
    return _mean((outputs.double() - y.double()).square(), w) ** 0.5


def mae(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> float:
    """Mean absolute error; outputs and y of one shape."""
    _check_shapes("mae", outputs, y)
    return _mean((outputs.double() - y.double()).abs(), w)


def _check_shapes(name: str, outputs: Tensor, y: Tensor) -> None:
    if outputs.shape != y.shape:
        raise NetworkError(
            f"{name} compares outputs {tuple(outputs.shape)} with y {tuple(y.shape)}, which have "
            "to be of one shape; give y that of the outputs, or a function of (outputs, y)"
        )


def _mean(each: Tensor, w: Tensor | None, counts: Tensor | None = None) -> float:
    """The mean over rows (N, …), weighted; only of the entries that count."""
    weight = torch.ones_like(each, dtype=torch.double) if counts is None else counts.double()
    if w is not None:
        weight = weight * w.reshape(-1, *[1] * (each.dim() - 1))
    return float((each * weight).sum() / weight.sum())


NAMED: dict[str, Callable[..., float]] = {"accuracy": accuracy, "rmse": rmse, "mae": mae}
MODES = {"accuracy": "max", "rmse": "min", "mae": "min"}


def score_of(
    metrics: Metrics, w: Tensor | None = None, kind: str = "", ignore: int = -100
) -> Callable[[Tensor, Tensor], dict[str, float]] | None:
    """All metrics of (outputs, y) as one function; None if there are none.

    Parameters
    ----------
    metrics : names, or functions of (outputs, y) by name
    w : row weights of these rows, which the metrics that have names here count
    kind : of the loss, which says whether outputs are logits, probabilities or numbers
    ignore : the class index that does not count

    Raises
    ------
    SettingError
        For a name that is unknown or taken.
    """
    found: dict[str, Any] = {}
    for name in names_of(metrics):
        found[name] = metrics[name] if isinstance(metrics, Mapping) else _named(name, w)
        if not callable(found[name]):
            raise SettingError(f"metric {name!r} has to be a function of (outputs, y)")
        if name in _IN_ROWS:
            raise SettingError(f"the history has its own {name!r}; give the metric another name")
    if not isinstance(metrics, Mapping) and "accuracy" in found:
        yes_or_no = kind.startswith("binary_cross_entropy")
        cut = 0.0 if kind in ("", "cross_entropy", "binary_cross_entropy_with_logits") else 0.5
        found["accuracy"] = lambda outputs, y: accuracy(
            outputs, y, w, cut=cut, each=yes_or_no, ignore=ignore
        )
    if not found:
        return None
    return lambda outputs, y: {name: _number(name, one, outputs, y) for name, one in found.items()}


def names_of(metrics: Metrics) -> list[str]:
    """What the metrics are called."""
    return [metrics] if isinstance(metrics, str) else list(metrics)


def _named(name: str, w: Tensor | None) -> Callable[[Tensor, Tensor], float]:
    if name not in NAMED:
        raise SettingError(f"unknown metric {name!r}. {did_you_mean(name, NAMED)}")
    return lambda outputs, y: NAMED[name](outputs, y, w)


def _number(name: str, metric: Metric, outputs: Any, y: Any) -> float:
    if getattr(metric, "__module__", "") == __name__ and not isinstance(outputs, Tensor):
        raise NetworkError(
            f"{name} takes outputs that are one tensor, and the network gives a "
            f"{type(outputs).__name__}; give a function of (outputs, y)"
        )
    value = metric(outputs, y)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise SettingError(
            f"metric {name!r} has to give one number; it gave {type(value).__name__}"
            + (f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else "")
        ) from None


def higher_is_better(monitor: str, mode: str | None, metrics: Metrics = ()) -> bool:
    """Whether what decides on the best epoch should go up.

    Raises
    ------
    SettingError
        For a monitor that is not measured, a mode that is neither, or none for a metric of the
        user's own.
    """
    if mode not in (None, "min", "max"):
        raise SettingError(f"mode has to be 'min' or 'max'; got {mode!r}")
    if monitor == "loss":
        if mode == "max":
            raise SettingError("the loss is to become small; mode='max' is for a metric")
        return False
    if monitor not in names_of(metrics):
        told = did_you_mean(monitor, ["loss", *names_of(metrics)])
        if monitor in NAMED:
            told = f"Add it: metrics={monitor!r}"
        raise SettingError(f"monitor {monitor!r} is not among the metrics. {told}")
    known = None if isinstance(metrics, Mapping) else MODES.get(monitor)
    if known is None and mode is None:
        raise SettingError(f"say which way is better for {monitor!r}: mode='min' or mode='max'")
    return (mode or known) == "max"
