"""Reading autograd's graph: what made a tensor, of which weights, and who else uses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from layerwise.network.walk import Visit

# They give the same values another shape or type.
SHAPING = frozenset((
    "View", "UnsafeView", "Squeeze", "Unsqueeze", "Reshape", "T", "Transpose", "Permute", "Select",
    "Slice", "Clone", "ToCopy", "Alias", "ReshapeAlias", "AsStrided", "Expand", "Index",
))  # fmt: skip
LINEAR = ("Addmm", "Mm")
_MATRICES = (*LINEAR, "Bmm", "Baddbmm", "Addmv", "Mv", "Convolution")
# The least and the greatest that an activation gives, as far as autograd's name for it says.
LIMITS = {
    "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf), "Hardsigmoid": (0.0, 1.0), "LogSigmoid": (-math.inf, 0.0),
    "LogSoftmax": (-math.inf, 0.0), "Threshold": (0.0, math.inf), "Abs": (0.0, math.inf),
    "Exp": (0.0, math.inf),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Step:
    """The last operation behind a tensor that changed its values.

    Attributes
    ----------
    operation : as autograd names it, such as "Softmax" or "Addmm"; "" for a tensor without history
    where : the path of the module that did it; of the layer below, if it was a function
    node : autograd's own
    """

    operation: str
    where: str
    node: Any

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value it can give."""
        if self.operation in ("Hardtanh", "Clamp"):
            low = getattr(self.node, "_saved_min_val", getattr(self.node, "_saved_min", None))
            high = getattr(self.node, "_saved_max_val", getattr(self.node, "_saved_max", None))
            return _number(low, -math.inf), _number(high, math.inf)
        return LIMITS.get(self.operation, (-math.inf, math.inf))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def operation(node: Any) -> str:
    """``SoftmaxBackward0`` as ``Softmax``."""
    name = str(node.name())
    return name.rpartition("Backward")[0] or name


def made_by(node: Any) -> Any:
    """The node beneath what only gave its values another shape."""
    while node is not None and operation(node) in SHAPING and node.next_functions:
        node = node.next_functions[0][0]
    return node


def last_step(tensor: Tensor, visits: list[Visit], names: dict[int, str]) -> Step:
    """What made a tensor's values, and where.

    Parameters
    ----------
    tensor : with a history
    visits : the calls of the model's layers in the same pass
    names : of the model's parameters by id
    """
    node = made_by(tensor.grad_fn)
    if node is None:
        return Step("", "", None)
    for visit in visits:
        if visit.output is not None and made_by(visit.output.grad_fn) is node:
            return Step(operation(node), visit.name, node)
    return Step(operation(node), layer_below(node, names), node)


def layer_below(node: Any, names: dict[int, str]) -> str:
    """The path of the layer with the nearest weights beneath a node; "forward" if there is none."""
    for one in beneath(node):
        variable = getattr(one, "variable", None)
        if variable is not None and variable.dim() > 1 and id(variable) in names:
            return names[id(variable)].rpartition(".")[0]
    return "forward"


def beneath(node: Any) -> Iterator[Any]:
    """A node and all it came of, the nearest first."""
    todo, seen = [node], {node}
    while todo:
        following = []
        for one in todo:
            yield one
            for other, _ in one.next_functions:
                if other is not None and other not in seen:
                    seen.add(other)
                    following.append(other)
        todo = following


def is_last(tensor: Tensor, outputs: Tensor) -> bool:
    """Whether no product of matrices stands between a tensor and the outputs."""
    todo, met = [outputs.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in met:
            continue
        if node is tensor.grad_fn:
            return True
        met.add(node)
        if operation(node) not in _MATRICES:
            todo += [one for one, _ in node.next_functions]
    return False


def uses(node: Any) -> Counter[Any]:
    """How many steps of the pass take each step's values."""
    counted: Counter[Any] = Counter()
    for one in beneath(node):
        counted.update(other for other, _ in one.next_functions if other is not None)
    return counted


def leaves(node: Any) -> list[Tensor]:
    """The tensors that a result was made of and that could learn."""
    found = (getattr(one, "variable", None) for one in beneath(node))
    return [one for one in found if isinstance(one, Tensor)]


def linear_runs(outputs: Tensor, names: dict[int, str]) -> list[list[str]]:
    """Paths of linear layers that follow each other with nothing but affine steps between.

    Parameters
    ----------
    outputs : of a pass in evaluation mode, in which dropout does nothing
    names : of the model's parameters by id

    Returns
    -------
    Each run of two or more, in the order of the pass.
    """
    if outputs.grad_fn is None:
        return []
    counted = uses(outputs.grad_fn)
    below: dict[Any, Any] = {}
    nodes = [one for one in beneath(outputs.grad_fn) if operation(one) in LINEAR]
    for node in nodes:
        other = _linear_below(_input_of(node), counted)
        if other is not None:
            below[node] = other
    runs = []
    for top in (node for node in nodes if node not in below.values()):
        run = [top]
        while run[-1] in below:
            run.append(below[run[-1]])
        paths = [layer_below(one, names) for one in reversed(run)]
        paths = list(dict.fromkeys(path for path in paths if path))
        if len(paths) > 1:
            runs.append(paths)
    return runs[::-1]


def _input_of(node: Any) -> Any:
    """Of ``x @ W.T + b`` the node that made x: the one that is not the bias and not the weight."""
    given = node.next_functions
    return given[1][0] if operation(node) == "Addmm" else given[0][0]


def _linear_below(node: Any, counted: Counter[Any]) -> Any:
    while node is not None and counted[node] == 1:
        name = operation(node)
        if name in LINEAR:
            return node
        if name == "NativeBatchNorm" or name in SHAPING - {"Select", "Slice", "Index", "Expand"}:
            node = node.next_functions[0][0]
        elif name == "Add" and _bias(node) is not None:  # a linear layer with its bias apart
            node = _bias(node)
        else:
            return None
    return None


def _bias(node: Any) -> Any:
    """Of ``h + b`` with b a parameter the node that made h."""
    (one, _), (other, _) = node.next_functions
    for here, there in ((one, other), (other, one)):
        if there is not None and hasattr(there, "variable") and not hasattr(here, "variable"):
            return here
    return None
