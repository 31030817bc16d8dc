"""Backpropagation and the update by hand, one call each: for those who want to see it happen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.torch import call
from layerwise.errors import NetworkError, NetworkWarning, SettingError
from layerwise.training.checks import check_batch, check_model, check_rows
from layerwise.training.losses import loss_of
from layerwise.training.source import rows_of


def backward(
    model: nn.Module, X: Any, y: Any, loss: str | nn.Module | Callable[..., Any]
) -> tuple[float, dict[str, dict[str, Tensor]]]:
    """One forward and one backward pass: the loss, and its gradient for each layer's parameters.

    Old gradients are cleared first. The new ones stay on the parameters' ``grad`` as well, where
    `update` and every optimizer look for them.

    Parameters
    ----------
    model : in the mode it is in
    X, y : tensors, arrays or frames of numbers of N rows; X may be a tuple or dict of inputs
    loss : a loss of ``torch.nn``, a function of (outputs, y), or a name, as for `layerwise.fit`

    Returns
    -------
    loss : float
    gradients : for each layer's name its parameters' names and gradients, of the parameters' shapes

    Raises
    ------
    NetworkError
        If model, data and loss do not fit each other, naming the layer and both shapes.
    DataError
        For rows with NaN or infinity.

    Examples
    --------
    The slope of ``(2x - 0)^2`` at the weight 2 for x = 3 is ``2 · (2 · 3) · 3``:

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> backward(model, [[3.0]], [[0.0]], nn.MSELoss())
    (36.0, {'': {'weight': tensor([[36.]])}})
    """
    check_model(model)
    compute = loss_of(loss)
    rows, names = rows_of((X, y), model, loss)
    check_rows(rows, names)
    for doubt in check_batch(model, rows, loss, compute, names):
        warnings.warn(doubt, NetworkWarning, stacklevel=2)
    for parameter in model.parameters():
        parameter.grad = None
    with torch.enable_grad():
        value = compute(call(model, rows.X), rows.y, None)
    value.backward()
    gradients: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            layer, _, kind = name.rpartition(".")
            gradients.setdefault(layer, {})[kind] = parameter.grad
    return value.item(), gradients


@torch.no_grad()  # else the update itself would be recorded, which PyTorch refuses for leaves
def update(model: nn.Module, lr: float) -> None:
    """One step of gradient descent by hand: every parameter minus ``lr`` times its gradient.

    Parameters
    ----------
    model : with gradients on its parameters, as `backward` leaves them
    lr : the learning rate

    Raises
    ------
    NetworkError
        If no parameter has a gradient.
    SettingError
        If ``lr`` is not a finite number.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> _ = backward(model, [[3.0]], [[0.0]], nn.MSELoss())
    >>> update(model, lr=0.01)
    >>> round(model.weight.item(), 2)
    1.64
    """
    if isinstance(lr, bool) or not isinstance(lr, Real) or not math.isfinite(lr):
        raise SettingError(f"lr has to be a number; got {lr!r}")
    gradients: list[tuple[Tensor, Tensor]] = [
        (p, p.grad) for p in model.parameters() if p.grad is not None
    ]
    if not gradients:
        raise NetworkError(
            "no parameter has a gradient: call layerwise.backward(model, X, y, loss)"
        )
    for parameter, gradient in gradients:
        parameter -= lr * gradient
