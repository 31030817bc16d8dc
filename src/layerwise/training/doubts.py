"""What would train, and surely not as meant: told in a sentence each, with the mend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerwise.engine.torch import Inputs, first, take
from layerwise.network.walk import Visit, Walk, _tensors, walk

_LIMITS = {"Softmax": (0, 1), "Sigmoid": (0, 1), "Tanh": (-1, 1), "Relu": (0, math.inf)}
_WITHIN = {"cross_entropy": "softmax", "binary_cross_entropy_with_logits": "sigmoid"}
_NAMES = {"cross_entropy": "cross-entropy", "binary_cross_entropy_with_logits": "BCEWithLogitsLoss"}
_NUMBERS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def head_doubts(kind: str, found: Walk, y: Tensor) -> Iterator[str]:
    """A last step that does not go with the loss, or keeps the outputs from where y is.

    Parameters
    ----------
    kind : of the loss, as in ``torch.nn.functional``
    found : a walk with gradients enabled whose outputs are one tensor
    y : all there is to see
    """
    last, title = _last_step(found)
    outputs = found.outputs
    if kind in _WITHIN and last in _LIMITS:
        yield _no_logits(kind, last, title)
    elif last == "Softmax" and outputs.shape[-1] == 1 and bool((outputs == 1).all()):
        yield (
            f"the network ends in {title} over one output, which is always 1, so nothing is "
            "learnt. Leave it out and take nn.BCEWithLogitsLoss(), or give an output to each class"
        )
    elif kind == "nll_loss" and not _log_probabilities(outputs):
        yield (
            "NLLLoss takes log-probabilities, whose exponentials sum to 1, and the network ends in "
            f"{title}: end it with nn.LogSoftmax(dim=1), or take nn.CrossEntropyLoss()"
        )
    elif kind == "kl_div" and bool((outputs > 0).any()):
        yield (
            "KLDivLoss takes log-probabilities, which are never above 0, and the network ends in "
            f"{title}: end it with nn.LogSoftmax(dim=1)"
        )
    elif kind in _NUMBERS and len(y):
        yield from _reach_doubts(last, title, outputs, y)


def _no_logits(kind: str, last: str, title: str) -> str:
    inside, name = _WITHIN[kind], _NAMES[kind]
    if last.lower() == inside:
        slowly = " It learns slowly and its loss cannot reach 0." if inside == "softmax" else ""
        return (
            f"{inside} twice: the network ends in {title} and {name} has the {inside} inside."
            f"{slowly} Let the network give logits, and take the {inside} of its answers"
        )
    low, high = _LIMITS[last]
    if high == math.inf:
        told = "are never below 0, and it cannot say no"
    else:
        told = f"stay within {low} to {high}, and it can never be sure"
    return (
        f"the network ends in {title}, so its logits {told}: {name} has the {inside} inside. "
        "Leave the activation after the last layer out"
    )


def _log_probabilities(outputs: Tensor) -> bool:
    return bool(((outputs.exp().sum(dim=1) - 1).abs() < 0.01).all())


def _reach_doubts(last: str, title: str, outputs: Tensor, y: Tensor) -> Iterator[str]:
    """Numbers that the last activation cannot give, or that are far from where training starts."""
    low, high = _LIMITS.get(last, (-math.inf, math.inf))
    least, most = float(y.min()), float(y.max())
    if least < low - 1e-6 or most > high + 1e-6:
        gives = f"{low} to {high}" if high < math.inf else "nothing below 0"
        yield (
            f"the network ends in {title}, which gives {gives}, and y goes from {least:.3g} to "
            f"{most:.3g}. Leave the activation after the last layer out"
        )
    size, start = float(_size(y)), float(_size(outputs.detach()))
    if last in ("Addmm", "Mm") and size > 100 and size > 20 * start:
        yield (
            f"y has values around {size:.3g} and the network starts around {start:.2g}, a long way "
            "for steps of the usual size. Scale y with the training rows' mean and deviation, and "
            "the answers back"
        )


def _size(values: Tensor, **dims: Any) -> Tensor:
    """Root mean square."""
    return values.double().square().mean(**dims).sqrt()


def target_doubts(kind: str, y: Tensor) -> Iterator[str]:
    """Numbers for cross-entropy that are no probabilities."""
    if kind != "cross_entropy" or not y.is_floating_point():
        return
    sums = y.sum(dim=1).flatten(1) if y.dim() > 2 else y.sum(dim=1, keepdim=True)
    off = ((sums - 1).abs() > 1e-3).nonzero()
    if len(off):
        row, place = off[0].tolist()
        yield (
            f"y, row {row + 1} sums to {float(sums[row, place]):g}; cross-entropy takes "
            "probabilities. For several labels at once take nn.BCEWithLogitsLoss()"
        )


_SHAPING = (
    "View", "UnsafeView", "Squeeze", "Unsqueeze", "Reshape", "T", "Transpose", "Permute", "Select",
    "Slice", "Clone", "ToCopy",
)  # fmt: skip


def _last_step(found: Walk) -> tuple[str, str]:
    """The last operation as autograd names it, and the layer or function that did it."""
    node = _step(found.outputs)
    name = "" if node is None else _operation(node)
    for visit in found.visits:
        if node is not None and visit.output is not None and _step(visit.output) is node:
            return name, visit.title
    return name, f"a {name.lower()} of its own forward" if name else "its forward"


def _step(output: Tensor) -> Any:
    """What made these values, beneath what only gave them another shape."""
    node = output.grad_fn
    while node is not None and _operation(node) in _SHAPING and node.next_functions:
        node = node.next_functions[0][0]
    return node


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
                    "every other. If that is not meant, give y a column, y[:, None], or take one "
                    "off"
                ]
        return result


def linear_doubts(found: Walk) -> Iterator[str]:
    """Linear layers in a row, which are one linear layer."""
    for stack in _linear_stacks(found):
        sizes: list[Any] = [visit.module.out_features for visit in stack]
        a, b = stack[0].module.in_features, sizes[-1]
        if min(sizes[:-1]) < min(a, b):
            continue  # a bottleneck: a map of low rank, which one layer would not be
        names = [repr(visit.name) for visit in stack]
        given = sum(p.numel() for visit in stack for p in visit.module.parameters())
        yield (
            f"layers {', '.join(names[:-1])} and {names[-1]} are linear with no activation "
            f"between: together they are one Linear({a}, {b}), so {given:,} parameters do the "
            f"work of {a * b + b:,}. Put an activation between them, such as nn.ReLU()"
        )


def _linear_stacks(found: Walk) -> Iterator[list[Visit]]:
    """Runs of linear layers of which each takes what the one before it gave, and nobody else."""
    uses = _uses(found.outputs)
    stack: list[Visit] = []
    for visit in found.visits:
        if not isinstance(visit.module, nn.Linear):
            continue
        if stack and visit.inputs[0] is stack[-1].output and _only(stack[-1].output, uses):
            stack.append(visit)
            continue
        if len(stack) > 1:
            yield stack
        stack = [visit]
    if len(stack) > 1:
        yield stack


def _only(output: Tensor | None, uses: Counter[Any]) -> bool:
    """Whether a linear layer's values go on as they are, and to one place."""
    # A function that works in place, such as F.relu(x, inplace=True), gives the same tensor; and
    # what comes out of frozen layers, which are there for what they have learnt, has no history.
    node = None if output is None else output.grad_fn
    return node is not None and uses[node] == 1 and _operation(node) in ("Addmm", "Mm", *_SHAPING)


def _uses(outputs: Any) -> Counter[Any]:
    """How many steps of the pass take each step's values."""
    todo = [tensor.grad_fn for tensor in _tensors(outputs) if tensor.grad_fn is not None]
    uses, seen = Counter(todo), set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            taken = [one for one, _ in node.next_functions if one is not None]
            uses.update(taken)
            todo += taken
    return uses


def scale_doubts(found: Walk, head: Inputs, X: Inputs, names: Sequence[str]) -> Iterator[str]:
    """Whether what a first linear layer or convolution gets is far from the scale training wants.

    The measure is the root mean square, of each column in a table; above 20, or above 5 and 100
    times the median column's, large columns drown the others and dictate the learning rate.

    Parameters
    ----------
    found : a walk over ``head``, the first rows of X
    X : all rows there are to see
    names : of the columns
    """
    if not isinstance(X, Tensor) or not X.is_floating_point():
        return
    entry = next((v for v in found.visits if v.inputs and v.inputs[0] is head), None)
    if entry is None:
        return
    if isinstance(entry.module, nn.modules.conv._ConvNd):
        size, most = float(_size(X)), float(X.max())
        if size > 20:
            yield (
                f"X has values around {size:.3g}, up to {most:.3g}, which force a tiny learning "
                f"rate: bring them to about 1, such as X / {most:.3g}"
            )
    if not isinstance(entry.module, nn.Linear) or X.dim() != 2:
        return
    columns = _size(X, dim=0)
    top, middle = float(columns.max()), float(columns.median())
    if top <= 20 and not (top > 5 and top > 100 * middle):
        return
    column = int(columns.argmax())
    name = repr(names[column]) if column < len(names) else str(column)
    yield (
        f"column {name} of X has values around {top:.3g}, half of the columns at most "
        f"{middle:.3g}: large columns drown the others and force a tiny learning rate. Scale them "
        "with the training rows' mean and deviation, e.g. by StandardScaler"
    )


@torch.no_grad()
def mixing_doubts(model: nn.Module, found: Walk, few: Inputs) -> Iterator[str]:
    """Whether a row's outputs change with the other rows of its batch, in evaluation mode.

    The last half of the rows is run again behind copies of itself in place of the first half.
    """
    n = len(first(few))
    half, outputs = n // 2, next(_tensors(found.outputs), None)
    if half == 0 or outputs is None or outputs.shape[:1] != (n,) or outputs.is_complex():
        return
    if outputs.shape == (n, n):
        return  # rows are compared with each other because that is meant
    rows = torch.arange(n, device=outputs.device)
    other = walk(model, take(few, (rows - n + half) % half + n - half))
    if other.error is not None or _same(outputs, next(_tensors(other.outputs)), half):
        return
    if not _same(outputs, next(_tensors(walk(model, few).outputs)), n):
        return  # it draws random numbers or remembers: no two answers are the same
    pairs = zip(found.visits, other.visits)
    guilty = next((a for a, b in pairs if _mixes(a, b, half, n)), None)
    mend = "a reshape, a softmax over dim=0 or a mean over the batch does that; keep dimension 0"
    if guilty is not None and isinstance(guilty.module, nn.modules.batchnorm._BatchNorm):
        return  # without running statistics that is what it does
    if guilty is not None and getattr(guilty.module, "batch_first", True) is False:
        mend = f"{guilty.title} takes the rows for steps in time: give it batch_first=True"
    elif guilty is not None:
        mend = f"{guilty.title} mixes dimension 0, the rows"
    yield f"the answers to a row change with the other rows of its batch: {mend}"


def _mixes(a: Visit, b: Visit, half: int, n: int) -> bool:
    """Whether the same rows went in and other ones came out."""
    if a.output is None or b.output is None or a.output.shape[:1] != (n,):
        return False
    into = zip(a.inputs, b.inputs)
    alike = all(_same(x, y, half) for x, y in into if x.shape[:1] == (n,))
    return alike and not _same(a.output, b.output, half)


def _same(a: Tensor, b: Tensor, rows: int) -> bool:
    """Whether the last rows are the same but for rounding."""
    if a.shape != b.shape:
        return False
    a, b = a[-rows:].double(), b[-rows:].double()
    near = 1e-3 * float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=near, equal_nan=True)
