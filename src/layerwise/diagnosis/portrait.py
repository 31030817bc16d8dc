"""A network on its rows at one moment: its loss, its answers, its units and its gradients.

The graph of a pass names every activation, whether a module or a function did it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from layerwise.diagnosis.calls import ForwardCalls
from layerwise.diagnosis.case import Case
from layerwise.diagnosis.copying import copied, random_states_kept
from layerwise.engine.torch import call, first, take
from layerwise.network.walk import Visit, walk
from layerwise.training.losses import loss_of

MOST = 2048  # rows are enough to tell a dead unit
BEYOND = 5.0  # |z| from where the slope of a sigmoid is below 1 %
_LIMITS = {"Relu": 0.0, "Sigmoid": 1 / (1 + math.exp(-BEYOND)), "Tanh": math.tanh(BEYOND)}
_PRODUCTS = ("Addmm", "Mm", "Bmm", "Convolution")


@dataclass(frozen=True)
class Units:
    """What an activation inside the network gave.

    Attributes
    ----------
    where : the activation's module, or the layer before a function
    kind : Relu, Sigmoid or Tanh
    n : how many units it has
    dead : of ReLU, the units that are 0 for every row
    beyond : of sigmoid and tanh, the share of values whose ``|z|`` is above 5
    """

    where: str
    kind: str
    n: int
    dead: int = 0
    beyond: float = 0.0


@dataclass(eq=False)
class Portrait:
    """What is seen of a network on some rows.

    Attributes
    ----------
    n_rows : that it was seen on
    loss : in evaluation mode; NaN where it cannot be computed
    outputs : in evaluation mode, (n_rows, …); None if there are none
    y : the same rows' targets
    units : of each hidden activation, in order
    gradients : norm of the loss's gradient of each trainable weight matrix, by its layer, in order
    norm : of all gradients together
    dropout_on : the rate of dropout that evaluation mode does not switch off; 0 if there is none
    modes_differ : whether training and evaluation mode give other answers
    """

    n_rows: int
    loss: float = math.nan
    outputs: Tensor | None = None
    y: Any = None
    units: list[Units] = field(default_factory=list)
    gradients: dict[str, float] = field(default_factory=dict)
    norm: float = math.nan
    dropout_on: float = 0.0
    modes_differ: bool = False


_KEPT: WeakKeyDictionary[Case, Portrait | None] = WeakKeyDictionary()


def portrait(case: Case) -> Portrait | None:
    """The network of a case on at most 2048 of its rows; None if it cannot be run on them.

    The case's model is copied and stays as it is. Each case is looked at once.
    """
    if case not in _KEPT:
        with random_states_kept(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                _KEPT[case] = _portrait(case)
            except Exception:  # whatever the model raises is told by the rules of the first batch
                _KEPT[case] = None
    return _KEPT[case]


def _portrait(case: Case) -> Portrait | None:
    if not isinstance(case.X, Tensor | tuple | dict):
        return None
    X, y = _few(case.X), None if case.y is None else _few(case.y)
    model, _, _ = copied(case.model, None)
    compute = None if case.loss is None or y is None else loss_of(_averaged(case.loss))
    n = len(first(X))
    found = Portrait(n, y=y)
    model.eval()
    forward = ForwardCalls()
    with torch.no_grad(), forward:
        calm = call(model, X)
    if not isinstance(calm, Tensor):
        return None
    found.outputs = calm
    found.dropout_on = max((p for p, drops in forward.dropout if drops), default=0.0)
    if compute is not None:
        with torch.no_grad():
            found.loss = _number(compute, calm, y)
    model.train()
    with torch.no_grad():
        found.modes_differ = not _alike(calm, call(model, X))
    for module in model.modules():  # batch norm as in training, and every unit at work
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    model.zero_grad(set_to_none=True)
    seen = walk(model, X)
    if seen.error is not None or not isinstance(seen.outputs, Tensor):
        return found
    found.units = list(_units(seen.outputs, seen.visits))
    if compute is not None:
        _backward(found, compute, seen.outputs, y, model, seen.visits)
    return found


def _averaged(loss: Any) -> Any:
    """The same loss as a mean over the rows."""
    if getattr(loss, "reduction", "mean") == "mean" or not isinstance(loss, nn.Module):
        return loss
    loss = copy(loss)
    loss.reduction = "mean"
    return loss


def _few(values: Any) -> Any:
    """At most 2048 rows, evenly from all of them, since they may be sorted."""
    n = len(first(values))
    return values if n <= MOST else take(values, torch.arange(0, n, -(-n // MOST)))


def _alike(a: Any, b: Any) -> bool:
    return not isinstance(b, Tensor) or (
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    )


def _number(compute: Any, outputs: Tensor, y: Any) -> float:
    try:
        return float(compute(outputs, y))
    except Exception:  # a loss of the user's own may fail in its own ways; rules on it tell that
        return math.nan


def _backward(
    found: Portrait, compute: Any, outputs: Tensor, y: Any, model: nn.Module, visits: list[Visit]
) -> None:
    """Fill in the gradients."""
    try:
        compute(outputs, y).backward()
    except Exception:  # told by the rules of the first batch
        return
    names = {parameter: name for name, parameter in model.named_parameters()}
    given = [(p, p.grad) for p in names if p.grad is not None]
    found.norm = math.sqrt(sum(float(g.double().square().sum()) for _, g in given))
    order = [p for visit in visits for p in visit.module.parameters(recurse=False)]
    order = [*dict.fromkeys(p for p in order if p in names), *names]
    for parameter in dict.fromkeys(order):
        if parameter.requires_grad and parameter.dim() >= 2 and parameter.grad is not None:
            layer = names[parameter].rpartition(".")[0]
            found.gradients[layer] = float(parameter.grad.norm())


def _units(outputs: Tensor, visits: list[Visit]) -> Iterator[Units]:
    """The activations that a product of the network takes, from the first to the last."""
    made: dict[Any, Visit] = {}
    for visit in visits:  # dropout that is off hands on what it gets: the first one made it
        if visit.output is not None and visit.output.grad_fn is not None:
            made.setdefault(visit.output.grad_fn, visit)
    todo: list[tuple[Any, bool]] = [(outputs.grad_fn, False)]
    met: set[Any] = set()
    found = []
    while todo:
        node, hidden = todo.pop(0)
        if node is None or (node, hidden) in met or (node, True) in met:
            continue
        met.add((node, hidden))
        name = node.name().rpartition("Backward")[0]
        if hidden and name in _LIMITS:
            found.append((node, name))
        inside = hidden or name in _PRODUCTS
        todo += [(one, inside) for one, _ in node.next_functions]
    for node, name in dict.fromkeys(reversed(found)):
        values = node._saved_result.detach()
        if values.dim() < 2:
            continue
        values = values.reshape(-1, values.shape[-1])
        where = _place(node, made)
        if name == "Relu":
            dead = int((values == 0).all(dim=0).sum())
            yield Units(where, name, values.shape[1], dead=dead)
        else:
            low = 1 - _LIMITS[name] if name == "Sigmoid" else -_LIMITS[name]
            out = (values > _LIMITS[name]) | (values < low)
            yield Units(where, name, values.shape[1], beyond=float(out.double().mean()))


def _place(node: Any, made: dict[Any, Visit]) -> str:
    """The module of an activation, or the nearest layer before a function."""
    while node is not None:
        if node in made:
            return made[node].name
        node = next((one for one, _ in node.next_functions if one is not None), None)
    return "forward"
