"""The summary of any module: its layers as they are called, up to one that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerwise.engine.torch import Inputs, first, to_device
from layerwise.errors import NetworkError, SettingError
from layerwise.network.keep import copy_if_lazy, kept
from layerwise.network.layers import InputLayer
from layerwise.network.mistakes import explain
from layerwise.network.summary import LayerRow, Note, Summary, shape_words, widths
from layerwise.network.walk import Visit, Walk, leaves, walk, words
from layerwise.training.source import device_of, to_tensor, types_for

_ROWS = 32  # as many show the shapes; all rows of a large X need not pass


def summary(model: nn.Module, X: Any = None, *, n_rows: int | None = None) -> Summary:
    """Layers, output shapes, parameters, and the capacity against the rows, as a table.

    The model is called once in evaluation mode, and stays as it was: modes, buffers, gradients,
    random state, and lazy layers, which are given their weights in a copy. A layer that refuses
    its input ends the pass, not the summary: its row is marked, and ``error`` says why.

    Parameters
    ----------
    model : any module
    X : rows to send through: a tensor, an array, a DataFrame of numbers, or for several inputs a
        tuple or a dict of such. Arrays and frames get the type of the model's weights; tensors
        stay as they are. Without X the layers stand in the order in which the model has them,
        without shapes.
    n_rows : of the training data, to compare the parameters with; that of X, where it has more
        than one row, if None

    Raises
    ------
    SettingError
        If the model is no ``nn.Module``.
    DataError
        If X is not made of numbers.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(10, 18), nn.ReLU(), nn.Linear(18, 5))
    >>> found = summary(model, torch.zeros(4, 10), n_rows=455)
    >>> print(found)
        layer             output   parameters    share
    ──────────────────────────────────────────────────
    0   Linear(10, 18)   (N, 18)          198   67.6 %
    1   ReLU()           (N, 18)            0
    2   Linear(18, 5)     (N, 5)           95   32.4 %
    <BLANKLINE>
    10 inputs → hidden 18 → 5 outputs
    293 parameters, all trainable
    293 parameters for 455 rows: 0.64 a row; fewer than rows, and still enough to
      learn some by heart; keep rows to judge it on
    >>> print(summary(nn.Sequential(nn.Linear(10, 18), nn.Linear(20, 5)), torch.zeros(4, 10)).error)
    layer '1' (Linear(20, 5)) takes 20 features and gets 18, shape (4, 18), from layer '0' \
(Linear(10, 18)): make it Linear(18, 5), or let layer '0' give 20
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model has to be an nn.Module; got {type(model).__name__}")
    found, inputs = Walk(), None
    if X is not None:
        inputs = _tensors_of(X, model)
        whole, axis = first(inputs), 0
        if isinstance(inputs, torch.Tensor) and inputs.dim():
            inputs = inputs[:_ROWS]
        with kept(model), torch.no_grad():
            model = copy_if_lazy(model)
            found = walk(model.eval(), inputs)
        axis, _ = _batch(found, inputs)
        if n_rows is None and whole.dim() > axis and whole.shape[axis] > 1:
            n_rows = whole.shape[axis]
    rows = tuple(_rows(model, found, inputs))
    return Summary(
        rows,
        _shape(model, found, inputs),
        tuple(_remarks(model, rows)),
        n_rows or 0,
        None if found.error is None else explain(found),
    )


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """How many parameters a model has; shared ones count once.

    Parameters
    ----------
    model : any module
    trainable : count only those that training adjusts (``requires_grad``)

    Raises
    ------
    NetworkError
        If a lazy layer has no weights yet.

    Examples
    --------
    >>> count_parameters(nn.Sequential(nn.Linear(10, 18), nn.Linear(18, 20), nn.Linear(20, 5)))
    683
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise NetworkError(
                f"{name!r} has no size yet: send rows through the model once, model(X), or let "
                "layerwise.summary(model, X) count them"
            )
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _tensors_of(X: Any, model: nn.Module) -> Inputs:
    """X as the model takes it, on the model's device.

    Arrays and frames become floats of the weights' type; where the model has an embedding, their
    whole numbers stay whole.
    """
    types = types_for(model, classes=False)

    def tensor(value: Any, name: str) -> torch.Tensor:
        return to_tensor(value, types.floats, whole=types.whole_inputs, name=name)

    found: Inputs
    if isinstance(X, Mapping):
        found = {str(name): tensor(x, str(name)) for name, x in X.items()}
    elif isinstance(X, tuple):
        found = tuple(tensor(x, f"X[{i}]") for i, x in enumerate(X))
    else:
        found = tensor(X, "X")
    return to_device(found, device_of(model))


# ---------------------------------------------------------------- rows


def _rows(model: nn.Module, found: Walk, inputs: Inputs | None) -> Iterator[LayerRow]:
    """A row for each call, for what is never called, and for parameters of the modules around."""
    total = max(sum(p.numel() for p in model.parameters() if not is_lazy(p)), 1)
    counted: set[nn.Parameter] = set()
    called: set[nn.Module] = set()
    around = _around(model)
    axis, n = _batch(found, inputs)

    def row(name: str, layer: str, owner: list[nn.Parameter], **told: Any) -> LayerRow:
        own = [p for p in owner if p not in counted and not is_lazy(p)]
        counted.update(own)
        size = sum(p.numel() for p in own)
        trainable = sum(p.numel() for p in own if p.requires_grad)
        told.setdefault("output", None)
        return LayerRow(
            name, layer, parameters=size, trainable=trainable, share=size / total, **told
        )

    def outer(name: str) -> Iterator[LayerRow]:
        """The rows of the modules around this layer, before the first of their layers."""
        for place in [one for one in around if f"{name}.".startswith(f"{one}.") or not one]:
            module = around.pop(place)
            own = dict(module.named_parameters(recurse=False))
            yield row(place, f"{type(module).__name__}: {', '.join(own)}", list(own.values()))

    for visit in found.visits:
        yield from outer(visit.name)
        output = visit.output
        shape = None if output is None else _shape_of(output, axis, n)
        parameters = list(visit.module.parameters())
        note: Note = "repeated" if visit.module in called and parameters else ""
        note = "fails" if visit is found.failed else note
        called.add(visit.module)
        yield row(visit.name, words(visit.module), parameters, output=shape, note=note)
    for name, module in leaves(model):
        parameters = list(module.parameters())
        if module in called or (inputs is not None and not parameters and found.error is None):
            continue
        note = "lazy" if any(map(is_lazy, parameters)) else ""
        if inputs is not None and not isinstance(module, nn.ParameterList | nn.ParameterDict):
            note = "not called" if found.error is None else "not reached"
        yield from outer(name)
        yield row(name, words(module), parameters, note=note)
    yield from outer("")


def _around(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that have layers inside and parameters of their own, by name."""
    inside = {one for _, leaf in leaves(model) for one in leaf.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if module not in inside and any(True for _ in module.parameters(recurse=False))
    }


def _batch(found: Walk, inputs: Inputs | None) -> tuple[int, int]:
    """Which dimension counts the rows, and how many there are; recurrent layers may want (L, N)."""
    if inputs is None or not first(inputs).dim():
        return 0, -1
    for visit in found.visits:
        if isinstance(visit.module, nn.RNNBase) and not visit.module.batch_first and visit.inputs:
            x = visit.inputs[0]
            return (1, x.shape[1]) if x.dim() == 3 else (0, -1)
    return 0, len(first(inputs))


def _shape_of(output: torch.Tensor, axis: int, n: int) -> tuple[int | str, ...]:
    """The shape with N for the rows; where a layer drops the steps before it, N comes first."""
    shape: list[int | str] = list(output.shape)
    for place in (axis, 0):
        if place < len(shape) and shape[place] == n:
            shape[place] = "N"
            break
    return tuple(shape)


# ---------------------------------------------------------------- sentences


def _shape(model: nn.Module, found: Walk, inputs: Inputs | None) -> str:
    """Inputs, hidden layers and outputs, if linear layers follow each other; else both shapes."""
    if inputs is None:
        in_order = all(
            isinstance(m, nn.Sequential) for m in model.modules() if list(m.children())
        ) or isinstance(model, nn.Linear)
        visits = [Visit(name, module, ()) for name, module in leaves(model)] if in_order else []
    else:
        visits = found.visits
    line = "" if found.error is not None else _chain(visits)
    if line or inputs is None or found.error is not None or not isinstance(inputs, torch.Tensor):
        return line
    if not isinstance(found.outputs, torch.Tensor):
        return ""
    axis, n = _batch(found, inputs)
    x, y = (shape_words(_shape_of(one, axis, n)) for one in (inputs, found.outputs))
    return f"input {x} → output {y}"


def _chain(visits: list[Visit]) -> str:
    """The line of `widths` where all weights but vectors are those of linear layers in a row."""
    linear, columns, seen = [], None, set()
    for visit in visits:
        module = visit.module
        if isinstance(module, nn.Linear):
            linear.append((module.in_features, module.out_features))
            source = id(visit.inputs[0]) if visit.inputs else id(visit)
            if source in seen:  # branches, not a chain
                return ""
            seen.add(source)
        elif isinstance(module, InputLayer) and visit is visits[0]:
            columns = module.n_numbers + len(module.n_codes)
        elif any(is_lazy(p) or p.dim() > 1 for p in module.parameters()):
            return ""
    return widths(linear, columns)


def _remarks(model: nn.Module, rows: tuple[LayerRow, ...]) -> Iterator[str]:
    """What the rows alone do not tell: sharing, and layers without weights."""
    names = [row.name for row in rows if row.note == "repeated"]
    for name in dict.fromkeys(names):
        own = sum(row.parameters for row in rows if row.name == name)
        where = f"layer {name!r}" if name else "the layer"
        yield f"{where} is called {names.count(name) + 1} times; its {own:,} parameters count once"
    first_name: dict[nn.Parameter, str] = {}
    shared = [
        f"{name} is {first_name[p]}"
        for name, p in model.named_parameters(remove_duplicate=False)
        if first_name.setdefault(p, name) != name
    ]
    if shared:
        yield f"shared, and counted once: {', '.join(shared)}"
    lazy = [repr(row.name) for row in rows if row.note == "lazy"]
    if lazy:
        yield f"without weights until rows have passed: {', '.join(lazy)}; give X to count them"
