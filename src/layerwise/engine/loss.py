"""Losses on the network's raw outputs, with exact row weights.

Each is a function ``(outputs, y, w) -> scalar``: the mean over the batch's rows of weight times the
row's loss. Weights have mean 1 over the training rows, so a batch's expected gradient is that of
the whole weighted table. Without weights it is torch's own loss with ``reduction="mean"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Any, Any, Tensor | None], Tensor]


def _weighted(rows: Tensor, w: Tensor) -> Tensor:
    """Mean over rows of weight times loss; rows (N,) or (N, k), w (N,)."""
    if rows.dim() > 1:
        rows = rows.mean(dim=1)
    return (rows * w).mean()


def mse(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
    """Squared error; outputs and y (N, k)."""
    if w is None:
        return F.mse_loss(outputs, y)
    return _weighted(F.mse_loss(outputs, y, reduction="none"), w)


def l1(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
    """Absolute error; outputs and y (N, k)."""
    if w is None:
        return F.l1_loss(outputs, y)
    return _weighted(F.l1_loss(outputs, y, reduction="none"), w)


def huber(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
    """Squared below 1 (one deviation of the target), absolute beyond; outputs and y (N, k)."""
    if w is None:
        return F.huber_loss(outputs, y)
    return _weighted(F.huber_loss(outputs, y, reduction="none"), w)


def bce(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
    """Binary cross-entropy on logits; outputs and y (N, k), y of 0 and 1."""
    if w is None:
        return F.binary_cross_entropy_with_logits(outputs, y)
    return _weighted(F.binary_cross_entropy_with_logits(outputs, y, reduction="none"), w)


def cross_entropy(outputs: Tensor, y: Tensor, w: Tensor | None = None) -> Tensor:
    """Cross-entropy on logits; outputs (N, n_classes), y (N,) of class indices."""
    if w is None:
        return F.cross_entropy(outputs, y)
    return _weighted(F.cross_entropy(outputs, y, reduction="none"), w)


LOSSES: dict[str, Loss] = {
    "mse": mse, "l1": l1, "huber": huber, "bce": bce, "cross_entropy": cross_entropy,
}  # fmt: skip


def weights_of(loss: Loss, n: int, y: Any, w: Tensor | None) -> tuple[float, float]:
    """What a batch's loss is multiplied by to give its sum, and the sum of weights it stands for.

    A loss that divides by weights of its own, such as those of the classes, says both in a method
    ``weights(y, w)``.
    """
    own = getattr(loss, "weights", None)
    if own is not None:
        return own(y, w)
    return n, n if w is None else float(w.sum())
