"""What the loss of a step tells of itself: its kind, the outputs and the targets, from its graph.

Whoever calls ``F.mse_loss`` or writes the formula down has no loss module to put a hook on; the
graph that autograd keeps for ``backward`` has all of it, until ``backward`` has run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_KINDS = {
    "MseLoss": "mse_loss", "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss",
    "NllLoss": "cross_entropy", "BinaryCrossEntropy": "binary_cross_entropy",
    "BinaryCrossEntropyWithLogits": "binary_cross_entropy_with_logits",
}  # fmt: skip
_BODY = ("Addmm", "Mm", "Bmm", "Convolution")  # from here on it is the network
_SHAPES = (
    "View",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Select",
    "Slice",
    "UnsafeView",
    "T",
    "Expand",
)
_NEAR = 24  # a loss has few operations after the network; penalties on the weights may add some


@dataclass(frozen=True)
class Reading:
    """A loss read from its graph.

    Attributes
    ----------
    kind : as in ``torch.nn.functional``
    outputs, y : what was compared, in the shapes they had before one was stretched to the other
    reduction : "mean" or "sum"
    """

    kind: str
    outputs: Tensor
    y: Tensor
    reduction: str = "mean"


def read_loss(loss: Tensor, outputs: Any = None) -> Reading | None:
    """Find the loss in the graph of a scalar that is about to run ``backward``.

    Parameters
    ----------
    loss : the scalar
    outputs : what the model returned for this batch, if that is known

    Returns
    -------
    The reading, or None for a loss of another kind.

    Examples
    --------
    >>> out, y = torch.randn(8, 1, requires_grad=True), torch.randn(8)
    >>> read_loss(F.mse_loss(out[:, 0], y)).kind
    'mse_loss'
    >>> scores = out * 2
    >>> read_loss((scores[:, 0] - y).abs().mean(), scores).kind
    'l1_loss'
    """
    given = outputs if isinstance(outputs, Tensor) else None
    for node in _near(loss.grad_fn):
        name = node.name().rpartition("Backward")[0]
        if name in _KINDS:
            return _saved(_KINDS[name], node, given)
        if name in ("Pow", "Abs") and (found := _difference(name, node, given)):
            return found
    return None


def mean_loss(kind: str, outputs: Tensor, y: Tensor) -> float | None:
    """The mean of a kind of loss without weights; None where it cannot be computed."""
    try:
        with torch.no_grad():
            return float(getattr(F, kind)(outputs, y))
    except (RuntimeError, ValueError, IndexError, AttributeError):
        return None


def _near(start: Any) -> Iterator[Any]:
    """The nodes of the graph nearest to the loss, breadth first."""
    todo, seen = deque([start]), set[Any]()
    while todo and len(seen) < _NEAR:
        node = todo.popleft()
        if node is None or node in seen or node.name().startswith(_BODY):
            continue
        seen.add(node)
        yield node
        todo.extend(one for one, _ in node.next_functions)


def _saved(kind: str, node: Any, given: Tensor | None) -> Reading:
    values, y = _unstretched(node._saved_self), _unstretched(node._saved_target)
    reduction = "sum" if getattr(node, "_saved_reduction", 1) == 2 else "mean"
    if kind == "cross_entropy":
        # What is saved are log-probabilities. Where the network itself made them it is NLLLoss.
        above = node.next_functions[0][0]
        own = given is not None and given.grad_fn is above
        if own or above is None or not above.name().startswith("LogSoftmax"):
            kind = "nll_loss"
        elif given is not None and given.shape == values.shape:
            values = given.detach()
    return Reading(kind, values.detach(), y.detach(), reduction)


def _difference(name: str, node: Any, given: Tensor | None) -> Reading | None:
    """``((outputs - y) ** 2).mean()`` and the like: y is the outputs less the difference."""
    below = node.next_functions[0][0]
    if below is None or not below.name().startswith("SubBackward"):
        return None
    if name == "Pow" and node._saved_exponent != 2:
        return None
    first, second = ((one is not None) for one, _ in below.next_functions)
    off = node._saved_self.detach()
    if first and second:
        return None
    kind = "mse_loss" if name == "Pow" else "l1_loss"
    path = below.next_functions[0 if first else 1][0]
    if given is None or _beneath_shapes(path) is not _beneath_shapes(given.grad_fn):
        return None  # something else than the outputs is compared, such as their logarithm
    outputs = given.detach()
    if outputs.numel() == off.numel():
        outputs = outputs.reshape(off.shape)
    elif outputs.shape[0] != off.shape[0]:
        return None
    y = outputs - off if first else outputs + off
    if y.shape != outputs.shape and y.dim() == 2:  # one was stretched to the other
        y = y[0] if outputs.dim() == 2 else y[:, :1]
    return Reading(kind, given.detach(), y)


def _beneath_shapes(node: Any) -> Any:
    """What made the values, beneath what only gave them another shape."""
    while node is not None and node.name().startswith(_SHAPES) and node.next_functions:
        node = node.next_functions[0][0]
    return node


def _unstretched(values: Tensor) -> Tensor:
    """Without the dimensions that broadcasting added or repeated."""
    if values.dim() == 2 and len(values) > 1:
        if values.stride(0) == 0:
            return values[0]
        if values.stride(1) == 0 and values.shape[1] > 1:
            return values[:, :1]
    return values
