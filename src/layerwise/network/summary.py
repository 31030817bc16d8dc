"""Layers, shapes, parameters and capacity of a plan, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from layerwise.network.plan import Layer, array_shapes, n_inputs

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name, what it is, the shape that comes out, and its parameters."""

    name: str
    layer: str
    output: tuple[str, int]
    parameters: int
    share: float


def summarise(plan: Sequence[Layer]) -> list[LayerRow]:
    """One row for each layer of the plan.

    Examples
    --------
    >>> from layerwise.network.plan import design
    >>> for row in summarise(design(4, [], 1, hidden_layer_sizes=(2,))):
    ...     print(row.name, row.layer, row.output, row.parameters)
    0 Linear(4, 2) ('N', 2) 10
    1 ReLU() ('N', 2) 0
    2 Linear(2, 1) ('N', 1) 3
    """
    counts = [0] * len(plan)
    for name, shape in array_shapes(plan).items():
        place, _, array = name.partition(".")
        if array not in _BUFFERS:
            counts[int(place)] += prod(shape)
    total = max(sum(counts), 1)
    width = n_inputs(plan)
    rows = []
    for i, layer in enumerate(plan):
        if layer["type"] == "Linear":
            width = layer["out_features"]
        elif layer["type"] == "InputLayer":
            widths = zip(layer["n_codes"], layer["embedding"])
            width = layer["n_numbers"] + sum(w or n for n, w in widths)
        rows.append(LayerRow(str(i), _words(layer), ("N", width), counts[i], counts[i] / total))
    return rows


def count_parameters(plan: Sequence[Layer]) -> int:
    """How many numbers training adjusts."""
    return sum(row.parameters for row in summarise(plan))


def _words(layer: Layer) -> str:
    if layer["type"] == "InputLayer":
        one_hot = sum(1 for w in layer["embedding"] if not w)
        parts = [f"{layer['n_numbers']} numbers"] if layer["n_numbers"] else []
        parts += [f"{one_hot} one-hot"] if one_hot else []
        embedded = len(layer["embedding"]) - one_hot
        parts += [f"{embedded} embedded"] if embedded else []
        return f"InputLayer({', '.join(parts)})"
    shown = [v for k, v in layer.items() if k not in ("type", "eps")]
    return (
        f"{layer['type']}({', '.join(str(v) if isinstance(v, int) else f'{v:g}' for v in shown)})"
    )
