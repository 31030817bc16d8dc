"""Anybody's loss as layerwise's own: a function of outputs, y and exact row weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import LOSSES, Loss
from layerwise.errors import NetworkError, SettingError, did_you_mean

ELEMENTWISE = {
    nn.MSELoss: "mse_loss", nn.L1Loss: "l1_loss", nn.SmoothL1Loss: "smooth_l1_loss",
    nn.HuberLoss: "huber_loss", nn.BCELoss: "binary_cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits", nn.KLDivLoss: "kl_div",
    nn.PoissonNLLLoss: "poisson_nll_loss", nn.SoftMarginLoss: "soft_margin_loss",
}  # fmt: skip
CLASSES = {nn.CrossEntropyLoss: "cross_entropy", nn.NLLLoss: "nll_loss"}
_KINDS = ELEMENTWISE | CLASSES
_INDICES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, nn.MultiLabelMarginLoss)
_NAMES = {
    "mse": "mse_loss", "l1": "l1_loss", "huber": "huber_loss",
    "bce": "binary_cross_entropy_with_logits", "cross_entropy": "cross_entropy",
}  # fmt: skip


def kind_of(loss: Any) -> str:
    """The loss's name in ``torch.nn.functional``; "" for one of the user's own.

    Examples
    --------
    >>> kind_of(nn.CrossEntropyLoss()), kind_of("mse"), kind_of(lambda outputs, y: 0)
    ('cross_entropy', 'mse_loss', '')
    """
    if isinstance(loss, str):
        return _NAMES.get(loss, "")
    if getattr(loss, "__module__", "") == "torch.nn.functional":
        return str(loss.__name__)
    return _KINDS.get(type(loss), "")


def keeps_integers(loss: Any) -> bool:
    """Whether integers of y stay integers: as class indices, or for a loss of the user's own."""
    if isinstance(loss, nn.modules.loss._Loss):
        return isinstance(loss, _INDICES)
    return kind_of(loss) in ("", *CLASSES.values(), "multi_margin_loss", "multilabel_margin_loss")


def loss_of(loss: str | nn.Module | Callable[..., Any]) -> Loss:
    """The loss as a function ``(outputs, y, w=None) -> scalar``.

    Parameters
    ----------
    loss : a loss of ``torch.nn``; a function of (outputs, y) that gives one number for the batch,
        or one for each row, whose mean is taken; or a name: mse, l1, huber, bce, cross_entropy

    Returns
    -------
    A function whose value without weights is that of the loss itself, and with weights ``w`` of
    shape (N,) the mean over the rows of weight times the row's loss. A loss that divides by weights
    of its own (``CrossEntropyLoss(weight=…)``, or one that ignores an index) divides by the sum of
    both weights' products instead, as PyTorch does with its own.

    Raises
    ------
    SettingError
        For a class instead of an instance, or a name that is unknown.
    NetworkError
        From the function: if row weights are given to a loss that says one number for the batch.

    Examples
    --------
    >>> outputs, y = torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [2.0]])
    >>> loss_of(nn.MSELoss())(outputs, y)
    tensor(2.)
    >>> loss_of(nn.MSELoss())(outputs, y, torch.tensor([2.0, 0.0]))
    tensor(0.)
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise SettingError(f"unknown loss {loss!r}. {did_you_mean(loss, LOSSES)}")
        return LOSSES[loss]
    if inspect.isclass(loss):
        name = f"nn.{loss.__name__}" if loss.__module__.startswith("torch.nn") else loss.__name__
        raise SettingError(f"loss is the class {name}; give an instance: loss={name}()")
    if not callable(loss):
        data = "; data and target are one argument: (X, y)" if hasattr(loss, "shape") else ""
        raise SettingError(
            f"loss has to be a loss of torch.nn, a function or a name; got {type(loss).__name__}"
            f"{data}"
        )
    modules: dict[str, Any] = {name: kind for kind, name in _KINDS.items()}
    if kind_of(loss) in modules and not isinstance(loss, nn.Module):  # such as F.mse_loss
        return loss_of(modules[kind_of(loss)]())
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and loss.reduction == "mean":
        return ClassLoss(loss)
    if isinstance(loss, nn.modules.loss._Loss) and hasattr(loss, "reduction"):
        return _torch_loss(loss)
    return _any_loss(loss)


class ClassLoss:
    """``CrossEntropyLoss`` or ``NLLLoss`` with row weights, class weights and an ignored index.

    torch's mean divides by the sum of the class weights of the rows that count; so does this one,
    each times its row's weight.
    """

    def __init__(self, loss: Any) -> None:
        self.loss = self.module = loss
        self.rows = _each_row(loss)
        self.plain = loss.weight is None

    def __call__(self, outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
        """The weighted mean over rows."""
        if w is None:
            return torch.as_tensor(self.loss(outputs, y))
        w = _over(w, y)
        if self._counts_alike(y):
            return (self.rows(outputs, y) * w).mean()
        return (self.rows(outputs, y) * w).sum() / (self._own(y) * w).sum()

    def weights(self, y: Tensor, w: Tensor | None) -> tuple[float, float]:
        """What the mean is multiplied by to give its sum, and the sum of weights behind it."""
        own = self._own(y)
        if w is None:
            return float(own.sum()), float(own.sum())
        total = float((own * _over(w, y)).sum())
        return float(own.numel()) if self._counts_alike(y) else total, total

    def _counts_alike(self, y: Tensor) -> bool:
        return self.plain and (y.is_floating_point() or not (y == self.loss.ignore_index).any())

    def _own(self, y: Tensor) -> Tensor:
        """The loss's own weight of each row: that of its class, 0 where it is ignored."""
        if y.is_floating_point():  # probabilities: torch divides by the number of rows
            return torch.ones(y.shape[:1] + y.shape[2:], device=y.device)
        known = y != self.loss.ignore_index
        if self.plain:
            return known.float()
        return self.loss.weight[torch.where(known, y, 0)] * known


def _torch_loss(loss: Any) -> Loss:
    """A loss of torch whose elements are averaged or summed."""
    rows = _each_row(loss)

    def weighted(outputs: Any, y: Any, w: Tensor | None = None) -> Tensor:
        if w is None:
            value = loss(outputs, y)
            return value if value.dim() == 0 else value.mean()
        each = rows(outputs, y)
        if each.dim() > 1:
            # one number a row, so that every reduction is a matter of rows from here on
            each = each.flatten(1)
            whole = loss.reduction in ("sum", "batchmean")
            each = each.sum(dim=1) if whole else each.mean(dim=1)
        return (each * w).sum() if loss.reduction == "sum" else (each * w).mean()

    vars(weighted)["module"] = loss  # for an engine that knows it
    return weighted


def _any_loss(loss: Callable[..., Any]) -> Loss:
    """A function of (outputs, y): one number for the batch, or one for each row."""

    def weighted(outputs: Any, y: Any, w: Tensor | None = None) -> Tensor:
        value = loss(outputs, y)
        if not isinstance(value, Tensor):
            raise NetworkError(f"the loss gave {type(value).__name__}; it has to be a tensor")
        if w is None:
            return value if value.dim() == 0 else value.mean()
        if value.dim() == 0:
            raise NetworkError(
                "this loss gives one number for the batch, so row weights cannot count in it; "
                "let it return one loss for each row, of shape (N,)"
            )
        each = value.flatten(1).mean(dim=1) if value.dim() > 1 else value
        return (each * w).mean()

    return weighted


def _each_row(loss: Any) -> Any:
    """The same loss without its mean."""
    each = copy.copy(loss)
    each.reduction = "none"
    return each


def _over(w: Tensor, y: Tensor) -> Tensor:
    """Row weights for y with more dimensions, such as classes of pixels."""
    dims = y.dim() - (2 if y.is_floating_point() else 1)
    return w.reshape(-1, *[1] * max(dims, 0))
