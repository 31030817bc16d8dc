"""Layers, shapes, parameters and capacity as a value that prints; of a plan, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import prod
from typing import Literal

from layerwise.network.plan import Layer, array_shapes, input_width, n_inputs
from layerwise.text import count, grid, html_grid, wrapped

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "edges")

Note = Literal["", "repeated", "lazy", "fails", "not reached", "not called"]


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes
    ----------
    name : as in ``named_modules``, e.g. "encoder.0"
    layer : what it is, e.g. "Linear(10, 18)"
    output : the shape that comes out, "N" standing for the rows; None if it is not known
    parameters, trainable : how many it has, and how many of them training adjusts; 0 where they
        are counted in a row above
    share : of all parameters
    note : "repeated" for a layer that is called again, "lazy" for one that has no weights yet,
        "fails" for the one that refused its input, "not reached" for those after it, and
        "not called" for one that the model has and did not use
    """

    name: str
    layer: str
    output: tuple[int | str, ...] | None
    parameters: int
    trainable: int
    share: float
    note: Note = ""


@dataclass(frozen=True, repr=False)
class Summary:
    """A network's layers in the order of their calls; prints as a table.

    Attributes
    ----------
    rows : one for each call of a layer
    shape : inputs, hidden layers and outputs in a line; empty where a network has no such line
    remarks : sentences on what the rows do not tell
    n_rows : of the data, to compare the parameters with; 0 if there are none
    error : the sentence on the layer that failed, or None
    """

    rows: tuple[LayerRow, ...]
    shape: str = ""
    remarks: tuple[str, ...] = ()
    n_rows: int = 0
    error: str | None = None

    @property
    def total(self) -> int:
        """All parameters, each counted once."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """The parameters that training adjusts."""
        return sum(row.trainable for row in self.rows)

    def __str__(self) -> str:
        header, cells = self._cells()
        table = grid(header, cells, left=2) if cells else "no layers"
        return "\n".join([table, "", *map(wrapped, self._sentences())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        told = "".join(f"<p>{escape(one)}</p>" for one in self._sentences())
        return html_grid(*self._cells(), left=2) + told

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table; columns that would tell nothing are left out."""
        shapes = any(row.output for row in self.rows) or self.error is not None
        frozen = self.trainable != self.total
        header = ["", "layer", *["output"] * shapes, "parameters", *["trainable"] * frozen, "share"]
        cells = [
            [row.name, row.layer, *[_output(row)] * shapes, _parameters(row),
             *[_trainable(row)] * frozen, f"{100 * row.share:.1f} %" if row.parameters else ""]
            for row in self.rows
        ]  # fmt: skip
        return header, cells

    def _sentences(self) -> list[str]:
        trained = f"{self.trainable:,} of them trainable"
        if self.trainable in (0, self.total):
            trained = "all trainable" if self.trainable else "none of them trainable"
        total = count(self.total, "parameter")
        told = [self.shape, f"{total}, {trained}" if self.total else "no parameters"]
        if any(row.note == "lazy" for row in self.rows):
            told[1] = f"{total} so far"
        adjusted = "parameter" if self.trainable == self.total else "trainable parameter"
        told += [*self.remarks, capacity(self.trainable, self.n_rows, adjusted), self.error or ""]
        return [one for one in told if one]


def capacity(parameters: int, n_rows: int, called: str = "parameter") -> str:
    """What so many parameters mean for so many rows; empty if there are none of either.

    Examples
    --------
    >>> capacity(683, 20_000)
    '683 parameters for 20,000 rows: 0.034 a row; too few to learn rows by heart'
    """
    if not parameters or not n_rows:
        return ""
    each = parameters / n_rows
    if each >= 1:
        means = "enough to learn the rows by heart, so judge it on rows it has not seen"
    elif each >= 0.1:
        means = "fewer than rows, and still enough to learn some by heart; keep rows to judge it on"
    else:
        means = "too few to learn rows by heart"
    figure = f"{each:,.0f}" if each >= 100 else f"{each:.2g}"
    return f"{count(parameters, called)} for {count(n_rows, 'row')}: {figure} a row; {means}"


def widths(linear: Sequence[tuple[int, int]], columns: int | None = None) -> str:
    """Inputs, hidden layers and outputs of linear layers that follow each other, in a line.

    Parameters
    ----------
    linear : inputs and outputs of each; the answer is empty unless each takes what the last gave
    columns : of the table, where an input layer makes the inputs from them

    Examples
    --------
    >>> widths([(10, 18), (18, 20), (20, 5)])
    '10 inputs → hidden 18, 20 → 5 outputs'
    >>> widths([(10, 1)])
    '10 inputs → 1 output, no hidden layer: a linear model'
    """
    if not linear or any(a[1] != b[0] for a, b in pairwise(linear)):
        return ""
    parts = [] if columns is None else [count(columns, "column")]
    parts.append(count(linear[0][0], "input"))
    if linear[1:]:
        parts.append(f"hidden {', '.join(f'{one:,}' for _, one in linear[:-1])}")
    parts.append(count(linear[-1][1], "output"))
    return " → ".join(parts) + (", no hidden layer: a linear model" if not linear[1:] else "")


def shape_words(shape: Sequence[int | str]) -> str:
    """A shape as Python writes it, e.g. ``(N, 18)``."""
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _output(row: LayerRow) -> str:
    if row.output is not None:
        return shape_words(row.output)
    return {"fails": "✗ fails"}.get(row.note, row.note if row.note.startswith("not") else "")


def _parameters(row: LayerRow) -> str:
    return {"repeated": "as above", "lazy": "?"}.get(row.note, f"{row.parameters:,}")


def _trainable(row: LayerRow) -> str:
    if row.trainable in (0, row.parameters):
        return "" if not row.parameters else "yes" if row.trainable else "no"
    return f"{row.trainable:,}"


# ---------------------------------------------------------------- of a plan


def summarise(plan: Sequence[Layer], *, n_rows: int = 0) -> Summary:
    """The summary of a plan, one row for each layer.

    Examples
    --------
    >>> from layerwise.network.plan import design
    >>> for row in summarise(design(4, [], 1, hidden_layer_sizes=(2,))).rows:
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
    columns = width if plan[0]["type"] == "InputLayer" else None
    rows, linear = [], []
    for i, layer in enumerate(plan):
        if layer["type"] == "Linear":
            linear.append((layer["in_features"], layer["out_features"]))
            width = layer["out_features"]
        elif layer["type"] == "InputLayer":
            width = input_width(layer)
        share = counts[i] / total
        rows.append(LayerRow(str(i), _words(layer), ("N", width), counts[i], counts[i], share))
    return Summary(tuple(rows), widths(linear, columns), n_rows=n_rows)


def _words(layer: Layer) -> str:
    if layer["type"] == "InputLayer":
        one_hot = sum(1 for w in layer["embedding"] if not w)
        parts = [f"{layer['n_numbers']} numbers"] if layer["n_numbers"] else []
        binned = sum(1 for n in layer.get("bins", ()) if n)
        parts += [f"{binned} in bins too"] if binned else []
        parts += [f"{one_hot} one-hot"] if one_hot else []
        embedded = len(layer["embedding"]) - one_hot
        parts += [f"{embedded} embedded"] if embedded else []
        return f"InputLayer({', '.join(parts)})"
    shown = [v for k, v in layer.items() if k not in ("type", "eps")]
    return (
        f"{layer['type']}({', '.join(str(v) if isinstance(v, int) else f'{v:g}' for v in shown)})"
    )
