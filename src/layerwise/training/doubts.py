"""What would train, and surely not as meant: told in a sentence each, with the mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerwise.engine.torch import Inputs
from layerwise.network.walk import Walk


def head_doubts(kind: str, found: Walk) -> Iterator[str]:
    """Softmax or sigmoid twice, probabilities without a logarithm, logits cut at 0.

    Parameters
    ----------
    kind : of the loss, as in ``torch.nn.functional``
    found : a walk with gradients enabled whose outputs are one tensor
    """
    last, title = _last_step(found)
    if kind == "cross_entropy" and last == "Softmax":
        yield (
            f"softmax twice: the network ends in {title} and cross-entropy has the softmax inside. "
            "It learns slowly and its loss cannot reach 0. Let the network give logits, and take "
            "the softmax of its answers"
        )
    elif kind == "nll_loss" and last != "LogSoftmax" and bool((found.outputs > 0).any()):
        yield (
            "NLLLoss takes log-probabilities, which are never above 0, and the network ends in "
            f"{title}: end it with nn.LogSoftmax(dim=1), or take nn.CrossEntropyLoss()"
        )
    elif kind == "binary_cross_entropy_with_logits" and last == "Sigmoid":
        yield (
            f"sigmoid twice: the network ends in {title} and BCEWithLogitsLoss has the sigmoid "
            "inside. Let the network give logits, and take the sigmoid of its answers"
        )
    elif kind in ("cross_entropy", "binary_cross_entropy_with_logits") and last == "Relu":
        yield (
            f"the network ends in {title}, so its logits are never below 0, and it cannot say no. "
            "Leave the activation after the last layer out"
        )


def target_doubts(kind: str, y: Tensor) -> Iterator[str]:
    """Numbers for cross-entropy that are no probabilities."""
    if kind != "cross_entropy" or not y.is_floating_point():
        return
    sums = y.sum(dim=1).flatten(1) if y.dim() > 2 else y.sum(dim=1, keepdim=True)
    off = ((sums - 1).abs() > 1e-3).any(dim=1).nonzero()
    if len(off):
        row = int(off[0])
        yield (
            f"y, row {row + 1} sums to {float(sums[row, 0]):g}; cross-entropy takes probabilities. "
            "For several labels at once take nn.BCEWithLogitsLoss()"
        )


_SHAPING = ("View", "UnsafeView", "Squeeze", "Unsqueeze", "Reshape", "T", "Transpose", "Select")


def _last_step(found: Walk) -> tuple[str, str]:
    """The last operation as autograd names it, and the layer or function that did it."""
    node = found.outputs.grad_fn
    while node is not None and _operation(node) in _SHAPING and node.next_functions:
        node = node.next_functions[0][0]
    name = "" if node is None else _operation(node)
    for visit in reversed(found.visits):
        if visit.output is not None and visit.output.grad_fn is node and node is not None:
            return name, visit.title
    return name, f"a {name.lower()} of its own forward" if name else "its forward"


def _operation(node: Any) -> str:
    """``SoftmaxBackward0`` as ``Softmax``."""
    return str(node.name()).rpartition("Backward")[0]


class Pairs(TorchFunctionMode):
    """Notes, while active, whether (N, 1) meets (N,) and both are stretched to (N, N)."""

    def __init__(self) -> None:
        super().__init__()
        self.doubts: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at the shapes before and after."""
        result = func(*args, **(kwargs or {}))
        sizes = [tuple(one.shape) for one in args if isinstance(one, Tensor)]
        if isinstance(result, Tensor) and len(sizes) == 2 and not self.doubts:
            n = result.shape[0] if result.dim() == 2 else 0
            if n > 1 and result.shape == (n, n) and sorted(sizes, key=len) == [(n,), (n, 1)]:
                self.doubts = [
                    "the loss stretches (N, 1) and (N,) to (N, N) and compares every row with "
                    "every other. If that is not meant, give y a column, y[:, None], or take one off"
                ]
        return result


def linear_doubts(found: Walk) -> Iterator[str]:
    """Linear layers in a row, which are one linear layer."""
    for stack in _linear_stacks(found):
        shapes = [tuple(visit.module.weight.shape) for visit in stack]  # (out, in)
        a, b = shapes[0][1], shapes[-1][0]
        if min(out for out, _ in shapes[:-1]) < min(a, b):
            continue  # a bottleneck: a map of low rank, which one layer would not be
        names = [repr(visit.name) for visit in stack]
        given = sum(p.numel() for visit in stack for p in visit.module.parameters())
        yield (
            f"layers {', '.join(names[:-1])} and {names[-1]} are linear with nothing between: "
            f"together they are one Linear({a}, {b}), so {given:,} parameters do the work of "
            f"{a * b + b:,}. Put an activation between them, such as nn.ReLU()"
        )


def _linear_stacks(found: Walk) -> Iterator[list[Any]]:
    """Runs of linear layers of which each takes exactly what the one before it gave."""
    stack: list[Any] = []
    for visit in found.visits:
        if isinstance(visit.module, nn.Linear):
            if stack and visit.inputs[0] is stack[-1].output:
                stack.append(visit)
                continue
            if len(stack) > 1:
                yield stack
            stack = [visit]
    if len(stack) > 1:
        yield stack


def scale_doubts(found: Walk, head: Inputs, X: Inputs, names: Sequence[str]) -> Iterator[str]:
    """Whether the columns that a linear layer gets are far from the scale that training wants.

    The measure is each column's root mean square; above 20, or above 5 and 100 times the median
    column's, the large columns drown the others and dictate the learning rate.

    Parameters
    ----------
    found : a walk over ``head``, the first rows of X
    X : all rows there are to see
    names : of the columns
    """
    if not isinstance(X, Tensor) or X.dim() != 2 or not X.is_floating_point():
        return
    entry = next((v for v in found.visits if v.inputs and v.inputs[0] is head), None)
    if entry is None or not isinstance(entry.module, nn.Linear):
        return
    size = X.double().square().mean(dim=0).sqrt()
    top, middle = float(size.max()), float(size.median())
    if top <= 20 and not (top > 5 and top > 100 * middle):
        return
    column = int(size.argmax())
    name = repr(names[column]) if column < len(names) else str(column)
    yield (
        f"column {name} of X has values around {top:.3g}, half of the columns at most "
        f"{middle:.3g}: large columns drown the others and force a tiny learning rate. Scale them "
        "with the training rows' mean and deviation, e.g. by StandardScaler"
    )
