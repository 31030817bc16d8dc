"""One forward and one backward pass, measured layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.torch import Inputs
from layerwise.errors import NetworkError, SettingError
from layerwise.insight.drawing import drawing, table
from layerwise.insight.measures import (
    Size,
    Values,
    joined,
    numbers,
    saturated_share,
    squares,
    values_of,
)
from layerwise.insight.picture import picture
from layerwise.network.keep import copy_if_lazy, generators, kept
from layerwise.network.mistakes import explain
from layerwise.network.walk import Visit, walk, words
from layerwise.storage import write_whole
from layerwise.training.checks import check_batch
from layerwise.training.losses import loss_of
from layerwise.training.source import rows_of

Gradients = dict[Tensor, Tensor | None]


@dataclass(frozen=True)
class LayerTrace:
    """One call of one layer, or one input of the network.

    Attributes
    ----------
    name : as in ``named_modules``; of an input "X", or its name
    layer : what it is, e.g. "Linear(10, 18)"; empty for an input
    shape : of its output
    values : of its output
    units : for each unit (a column of a table, a channel of an image) the root mean square of
        its values, over rows and places
    dead : how many units are exactly 0 for every row
    saturated : share of values at which the activation is flat; None for what is no such
        activation, see `saturated_share`
    gradient : of the loss with respect to the output; None if the loss does not depend on it
    ratio : the gradient's root mean square over that of the last layer
    weight, bias : the layer's parameters; None if it has none, or is called again
    weight_gradient, bias_gradient : of the loss; None where they do not learn
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    values: Values
    units: tuple[float, ...]
    dead: int
    saturated: float | None = None
    gradient: Size | None = None
    ratio: float | None = None
    weight: Size | None = None
    bias: Size | None = None
    weight_gradient: Size | None = None
    bias_gradient: Size | None = None

    @property
    def kind(self) -> str:
        """The layer without its sizes, e.g. "Linear"; "input" for an input."""
        return self.layer.partition("(")[0] or "input"


@dataclass(frozen=True, repr=False)
class Trace:
    """A pass on show: numbers in ``rows``, and ways to look at them.

    Attributes
    ----------
    rows : one `LayerTrace` for each call of a layer, in order
    inputs : one for each input of the network
    loss : of the rows that passed
    n_rows : how many passed
    first_to_last : norm of the first weight matrix's gradient over that of the last; None with
        fewer than two. Below about 0.001 gradients vanish on their way back (Zhang et al., 2021)
    doubts : sentences on what would train, and surely not as meant
    """

    rows: tuple[LayerTrace, ...]
    inputs: tuple[LayerTrace, ...]
    loss: float
    n_rows: int
    first_to_last: float | None = None
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return table(self)

    __repr__ = __str__

    def drawing(self) -> str:
        """The pass drawn for a terminal: histograms forward, gradients backward."""
        return drawing(self)

    def svg(self) -> str:
        """The pass as a picture: an ``<svg>`` element that needs nothing beside it."""
        return picture(self)

    def save(self, path: str | Path) -> None:
        """Write the picture to a file that ends in .svg.

        Raises
        ------
        SettingError
            For another ending.
        OutputError
            If the file cannot be written.
        """
        if Path(path).suffix.lower() != ".svg":
            raise SettingError(f"a trace is saved as an .svg file; got {str(path)!r}")
        write_whole(path, self.svg() + "\n")

    def _repr_html_(self) -> str:
        told = "".join(f"<p>{escape(doubt)}</p>" for doubt in self.doubts)
        return f'<div style="overflow-x:auto">{self.svg()}</div>{told}'


def trace(model: nn.Module, X: Any, y: Any, loss: Any) -> Trace:
    """Send rows through a network and the loss's gradient back, and measure every layer.

    It is the pass that training would make: in training mode, with dropout and the statistics of
    the batch, in one batch of all the rows given. Dropout draws from a fixed seed, so the same
    model and rows give the same trace. The model stays as it was: weights, gradients, modes,
    buffers, hooks, random state.

    What a ``forward`` computes between its layers, such as ``torch.relu(x)`` or ``a + b``, is no
    layer and has no row; ``nn.ReLU()`` has one. Parameters of a module that has layers inside have
    no row either.

    Parameters
    ----------
    model : any module
    X : rows: a tensor, an array, a DataFrame of numbers, or for several inputs a tuple or a dict
    y : targets, as the loss wants them
    loss : a loss of ``torch.nn``, a function of (outputs, y), or a name, as in `layerwise.fit`

    Raises
    ------
    NetworkError
        If a layer refuses its input, or the loss the outputs: the sentence names both shapes.
    DataError
        If X and y are not rows of numbers, or differ in length.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> found = trace(model, torch.rand(8, 2), torch.rand(8, 1), "mse")
    >>> [(row.name, row.kind, row.shape) for row in found.rows]
    [('0', 'Linear', (8, 3)), ('1', 'ReLU', (8, 3)), ('2', 'Linear', (8, 1))]
    >>> found.rows[0].values.zeros, found.rows[2].ratio
    (0.0, 1.0)
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model has to be an nn.Module; got {type(model).__name__}")
    compute, model = loss_of(loss), copy_if_lazy(model)
    rows, names = rows_of((X, y), model, loss)
    doubts = check_batch(model, rows, loss, compute, names)
    with kept(model), torch.enable_grad():
        model.train()
        _seed(model)
        roots = _roots(rows.X)
        seen: list[_Seen] = []
        found = walk(model, _like(rows.X, roots), lambda visit: seen.append(_look(visit, seen)))
        if found.error is not None:
            raise NetworkError(explain(found)) from None
        value = compute(found.outputs, rows.y, None)
        wanted: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        wanted += [x for x in roots.values() if x.requires_grad]
        gradients = torch.autograd.grad(value, wanted, allow_unused=True)
        gradient_of: Gradients = dict(zip(wanted, gradients))
    visits = [one.visit for one in seen]
    layers = [replace(one.forward, gradient=joined(one.gradients)) for one in seen]
    return Trace(
        rows=_with_ratios(_with_parameters(layers, visits, gradient_of)),
        inputs=tuple(_input(name, x, gradient_of.get(x)) for name, x in roots.items()),
        loss=float(value.detach()),
        n_rows=len(rows),
        first_to_last=_first_to_last(visits, gradient_of),
        doubts=tuple(doubts),
    )


# ---------------------------------------------------------------- forward


@dataclass(eq=False)
class _Seen:
    """A visit, measured when its layer was left; the gradients come later, through hooks."""

    visit: Visit
    axis: int
    forward: LayerTrace
    gradients: list[tuple[float, int]] = field(default_factory=list)


def _look(visit: Visit, seen: list[_Seen]) -> _Seen:
    """Measure a layer's output now: what comes after may change it in place."""
    axis = _unit_axis(visit, seen[-1] if seen else None)
    output = visit.output
    values = torch.zeros(0) if output is None else output.detach()
    told = _measured(visit.name, words(visit.module), values, axis)
    one = _Seen(visit, axis, replace(told, saturated=saturated_share(visit.module, visit.inputs)))
    note = one.gradients.append
    for tensor in visit.outputs:
        if tensor.requires_grad:
            # a hook stays with these values, also if the tensor is changed in place later
            tensor.register_hook(lambda gradient: note(squares(gradient)))
    return one


def _measured(name: str, layer: str, output: Tensor, axis: int) -> LayerTrace:
    by_unit = numbers(output)
    by_unit = by_unit.movedim(axis, -1) if by_unit.dim() > 1 else by_unit[:, None]
    by_unit = by_unit.reshape(-1, by_unit.shape[-1])
    units = by_unit.square().mean(dim=0).sqrt() if len(by_unit) else by_unit.sum(dim=0)
    dead = int((by_unit == 0).all(dim=0).sum()) if len(by_unit) else 0
    values = values_of(by_unit.flatten())
    return LayerTrace(name, layer, tuple(output.shape), values, tuple(units.tolist()), dead)


_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_UNITS_LAST = (
    nn.Linear, nn.Bilinear, nn.RNNBase, nn.LayerNorm, nn.Embedding, nn.EmbeddingBag,
    nn.MultiheadAttention,
)  # fmt: skip


def _unit_axis(visit: Visit, before: _Seen | None) -> int:
    """The dimension that counts units: channels of images, else the last one."""
    dims = 0 if visit.output is None else visit.output.dim()
    if isinstance(visit.module, _CHANNELS_FIRST) and dims > 1:
        return 1
    if isinstance(visit.module, _UNITS_LAST):
        return -1
    if before is not None and len(before.forward.shape) == dims:
        return before.axis
    return 1 if dims > 3 else -1


# ---------------------------------------------------------------- backward


def _with_parameters(
    rows: list[LayerTrace], visits: list[Visit], gradient_of: Gradients
) -> list[LayerTrace]:
    """The rows with sizes of parameters and their gradients, where a layer is called first."""
    met: set[nn.Module] = set()
    for i, visit in enumerate(visits):
        if visit.module in met:
            continue
        met.add(visit.module)
        named = list(visit.module.named_parameters())
        biases = [p for name, p in named if "bias" in name]
        weights = [p for name, p in named if "bias" not in name]

        def gradient(parameters: list[nn.Parameter]) -> Size | None:
            found = (gradient_of.get(p) for p in parameters)
            return joined(squares(one) for one in found if one is not None)

        rows[i] = replace(
            rows[i],
            weight=joined(map(squares, weights)),
            bias=joined(map(squares, biases)),
            weight_gradient=gradient(weights),
            bias_gradient=gradient(biases),
        )
    return rows


def _with_ratios(rows: list[LayerTrace]) -> tuple[LayerTrace, ...]:
    sizes = [row.gradient.rms for row in rows if row.gradient is not None]
    if not sizes or not sizes[-1]:
        return tuple(rows)
    return tuple(
        row if row.gradient is None else replace(row, ratio=row.gradient.rms / sizes[-1])
        for row in rows
    )


def _first_to_last(visits: list[Visit], gradient_of: Gradients) -> float | None:
    """Of layers whose weights are more than a vector."""
    norms = []
    for module in dict.fromkeys(visit.module for visit in visits):
        found = [gradient_of.get(p) for p in module.parameters() if p.dim() > 1]
        size = joined(squares(one) for one in found if one is not None)
        norms += [size.norm] if size else []
    return norms[0] / norms[-1] if len(norms) > 1 and norms[-1] else None


# ---------------------------------------------------------------- the pass


def _seed(model: nn.Module) -> None:
    """The same random numbers for each trace; the caller puts the states back."""
    torch.default_generator.manual_seed(0)
    for device in {p.device for p in model.parameters() if p.device.type == "cuda"}:
        torch.cuda.default_generators[device.index].manual_seed(0)
    for generator in generators(model):
        generator.manual_seed(0)


def _roots(X: Inputs) -> dict[str, Tensor]:
    """Copies of the inputs by name; the gradient with respect to them is asked for too."""
    if isinstance(X, Tensor):
        named = {"X": X}
    else:
        named = dict(X) if isinstance(X, dict) else {f"X[{i}]": x for i, x in enumerate(X)}
    return {
        name: x.detach().clone().requires_grad_(x.is_floating_point()) for name, x in named.items()
    }


def _like(X: Inputs, roots: dict[str, Tensor]) -> Inputs:
    """What the model is called with; copies again, which a ``forward`` may change in place."""
    copies = {name: x.clone() for name, x in roots.items()}
    if isinstance(X, dict):
        return copies
    return copies["X"] if isinstance(X, Tensor) else tuple(copies.values())


def _input(name: str, x: Tensor, gradient: Tensor | None) -> LayerTrace:
    told = _measured(name, "", x, 1 if x.dim() > 3 else -1)
    return replace(told, gradient=None if gradient is None else joined([squares(gradient)]))
