"""Metrics of any network's raw outputs, measured after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from layerwise.errors import SettingError, did_you_mean

Metric = Callable[[Tensor, Tensor], Any]


def accuracy(outputs: Tensor, y: Tensor, w: Tensor | None = None, cut: float = 0.0) -> float:
    """Share of rows whose answer is right.

    Parameters
    ----------
    outputs : (N, classes), the largest of which is the answer; or (N,) or (N, 1), where above
        ``cut`` is yes
    y : class indices (N,), probabilities (N, classes), or 0 and 1 in the shape of the outputs
    w : row weights (N,)
    cut : 0 for logits, 0.5 for probabilities

    Examples
    --------
    >>> import torch
    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    0.5
    """
    if not y.is_floating_point() and outputs.dim() == y.dim() + 1:
        right = outputs.argmax(dim=1) == y
    elif outputs.dim() > 1 and outputs.shape[1] > 1 and cut == 0:
        right = outputs.argmax(dim=1) == y.argmax(dim=1)
    else:
        right = (outputs > cut) == (y > 0.5)
    return _mean(right.double(), w)


def rmse(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> float:
    """Root of the mean squared error; outputs and y of one shape."""
    return _mean((outputs.double() - y.double()).square(), w) ** 0.5


def mae(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> float:
    """Mean absolute error; outputs and y of one shape."""
    return _mean((outputs.double() - y.double()).abs(), w)


def _mean(each: Tensor, w: Tensor | None) -> float:
    rows = each.reshape(len(each), -1).mean(dim=1)
    return float(rows.mean() if w is None else (rows * w).sum() / w.sum())


NAMED: dict[str, Callable[..., float]] = {"accuracy": accuracy, "rmse": rmse, "mae": mae}
MODES = {"accuracy": "max", "rmse": "min", "mae": "min"}


def score_of(
    metrics: str | Sequence[str] | Mapping[str, Metric], w: Tensor | None, loss_kind: str = ""
) -> Callable[[Tensor, Tensor], dict[str, float]] | None:
    """All metrics of (outputs, y) as one function; None if there are none.

    Parameters
    ----------
    metrics : names, or functions of (outputs, y) by name
    w : row weights of these rows, which the metrics that have names here count
    loss_kind : whether outputs are probabilities, as ``binary_cross_entropy`` takes them

    Raises
    ------
    SettingError
        For a name that is unknown.
    """
    asked = [metrics] if isinstance(metrics, str) else metrics
    found: dict[str, Any] = {}
    for name in asked:
        if isinstance(asked, Mapping):
            found[str(name)] = asked[name]
        elif name not in NAMED:
            raise SettingError(f"unknown metric {name!r}. {did_you_mean(name, NAMED)}")
        elif name == "accuracy":
            cut = 0.5 if loss_kind == "binary_cross_entropy" else 0.0
            found[name] = lambda outputs, y, cut=cut: accuracy(outputs, y, w, cut)
        else:
            found[name] = lambda outputs, y, name=name: NAMED[name](outputs, y, w)
    for name, function in found.items():
        if not callable(function):
            raise SettingError(f"metric {name!r} has to be a function of (outputs, y)")
    if not found:
        return None
    return lambda outputs, y: {name: float(one(outputs, y)) for name, one in found.items()}


def higher_is_better(monitor: str, mode: str | None) -> bool:
    """Whether what decides on the best epoch should go up.

    Raises
    ------
    SettingError
        For a mode that is neither, or a metric of the user's own without one.
    """
    if mode not in (None, "min", "max"):
        raise SettingError(f"mode has to be 'min' or 'max'; got {mode!r}")
    if monitor == "loss":
        return False
    mode = mode or MODES.get(monitor)
    if mode is None:
        raise SettingError(f"say which way is better for {monitor!r}: mode='min' or mode='max'")
    return mode == "max"
