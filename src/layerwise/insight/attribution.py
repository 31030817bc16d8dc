"""Which columns made a single answer what it is: integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.data.table import Column
from layerwise.data.target import Target
from layerwise.errors import SettingError
from layerwise.insight.drawing import figure, shortened
from layerwise.insight.frames import frame_of
from layerwise.insight.subject import model_of
from layerwise.network.layers import InputLayer
from layerwise.text import html_grid, width, wrapped

if TYPE_CHECKING:
    from layerwise.insight.displays import AttributionDisplay
    from layerwise.model.model import Model

STEPS = 128
_CHUNK = 16  # rows whose whole paths pass at once


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """What each raw column adds to the answer of each row; prints as a chart.

    The values of a row sum to ``answer - base``, but for `gap`.

    Attributes
    ----------
    columns : the raw columns, in the model's order
    values : array of shape (n_rows, n_columns), in the units of the answer
    cells : array of shape (n_rows, n_columns) of str: what the rows have there
    answer : array of shape (n_rows,): what is explained
    base : array of shape (n_rows,): the same for the baseline
    what : what the answer is: the target, or the log-odds or log-probability of a class
    gap : the largest difference between a row's sum and ``answer - base``, from the steps taken
    """

    columns: tuple[str, ...]
    values: np.ndarray
    cells: np.ndarray
    answer: np.ndarray
    base: np.ndarray
    what: tuple[str, ...]
    gap: float

    def to_json(self) -> list[dict[str, Any]]:
        """A dict for each row, as plain values."""
        return [
            {"what": self.what[i], "answer": float(self.answer[i]), "base": float(self.base[i]),
             "columns": dict(zip(self.columns, self.values[i].tolist()))}
            for i in range(len(self.values))
        ]  # fmt: skip

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each row and a column for each raw column."""
        return frame_of([dict(zip(self.columns, row)) for row in self.values.tolist()])

    def plot(self, row: int = 0, ax: Any = None, *, most: int = 15) -> AttributionDisplay:
        """Bars for one row, the longest on top, with matplotlib."""
        from layerwise.insight.displays import AttributionDisplay

        return AttributionDisplay(self).plot(row, ax, most=most)

    def order(self, row: int) -> list[int]:
        """The columns of a row, those that matter most first."""
        return np.argsort(-np.abs(self.values[row]), kind="stable").tolist()

    def __str__(self) -> str:
        shown = min(len(self.values), 5)
        parts = [self._row(i) for i in range(shown)]
        if shown < len(self.values):
            parts.append(f"… and {len(self.values) - shown:,} rows more")
        return "\n\n".join(parts)

    __repr__ = __str__

    def _row(self, i: int, most: int = 10) -> str:
        """One row: bars to the left and right of 0."""
        order = self.order(i)
        labels = [shortened(f"{self.columns[k]} = {self.cells[i, k]}", 34) for k in order[:most]]
        name = max(map(len, labels))
        largest = float(np.abs(self.values[i]).max()) or 1.0
        room = max((width() - name - 12) // 2, 5)
        lines = [wrapped(f"row {i + 1}: {self.heading(i)}")]
        for label, k in zip(labels, order):
            value = self.values[i, k]
            bar = "█" * round(abs(value) / largest * room)
            left, right = (bar, "") if value < 0 else ("", bar)
            lines.append(f"{label:<{name}} {left:>{room}}│{right:<{room}} {_signed(value):>9}")
        if len(order) > most:
            rest = float(self.values[i, order[most:]].sum())
            label = f"{len(order) - most} more"
            lines.append(f"{label:<{name}} {'':>{room}}│{'':<{room}} {_signed(rest):>9}")
        return "\n".join(line.rstrip() for line in lines)

    def heading(self, row: int) -> str:
        """The answer of a row and what it is explained against."""
        return (
            f"{self.what[row]} is {figure(self.answer[row])}, of the baseline "
            f"{figure(self.base[row])}; of the difference each column has its part"
        )

    def _repr_html_(self) -> str:
        parts = []
        for i in range(min(len(self.values), 5)):
            rows = [
                [self.columns[k], self.cells[i, k], _signed(self.values[i, k])]
                for k in self.order(i)
            ]
            parts.append(f"<p>{escape(f'row {i + 1}: {self.heading(i)}')}</p>")
            parts.append(html_grid(["column", "value", "part"], rows, left=2))
        return "".join(parts)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{figure(value)}"


def attribute(
    model: Any,
    data: Any,
    *,
    baseline: Any = None,
    label: Any = None,
    steps: int = STEPS,
) -> Attribution:
    """Explain single answers: the part that each raw column has in them.

    The row is reached from a baseline in a straight line, and the gradients on the way are summed
    up. The parts then sum exactly to the difference of the two answers (completeness), and a column
    that changes nothing has none. Source: Sundararajan, Taly & Yan (2017), integrated gradients.
    The line runs from the outputs of the input layer on, where categories are numbers; the parts of
    all inputs that come from one raw column are summed.

    Parameters
    ----------
    model : a run, a `layerwise.Model`, or a fitted estimator
    data : the rows to explain, as for ``predict``
    baseline : what they are compared with: one row, as for ``predict``; by default the middle of
        the training rows (numbers at their median, no category at all)
    label : the class to explain; by default the one the model answers
    steps : on the way from baseline to row; more make `Attribution.gap` smaller

    Raises
    ------
    SettingError
        For a class the model does not know, or a baseline of several rows.
    DataError
        For rows the model cannot read.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from layerwise import train
    >>> iris = load_iris(as_frame=True).frame
    >>> run = train(iris, "target", baselines=False, hidden_layer_sizes=(16,))
    >>> found = attribute(run, iris.head(2))
    >>> found.values.shape, found.what[0]
    ((2, 4), 'log-probability of 0')
    >>> bool(abs(found.values.sum(axis=1) - (found.answer - found.base)).max() <= found.gap)
    True
    """
    if steps < 1:
        raise SettingError(f"steps has to be at least 1; got {steps}")
    found = model_of(model)
    table = found.read(data)
    X = found.encoder.transform(table, np.float64)
    start = np.zeros((1, X.shape[1]))
    if baseline is not None:
        start = found.encoder.transform(found.read(baseline), np.float64)
        if len(start) != 1:
            raise SettingError(f"the baseline has to be one row; got {len(start):,}")
    places = places_of(found)
    network = found.network().double().eval()
    chosen = _classes(found.target, found.outputs(table), label)
    pieces = [
        _integrate(network, found.target, X[i : i + _CHUNK], start, chosen[i : i + _CHUNK],
                   list(places.values()), steps)
        for i in range(0, len(X), _CHUNK)
    ]  # fmt: skip
    values, answer, base = (
        (np.concatenate(one) for one in zip(*pieces)) if pieces
        else (np.zeros((0, len(places))), np.zeros(0), np.zeros(0))
    )  # fmt: skip
    gap = float(np.abs(values.sum(axis=1) - (answer - base)).max()) if len(values) else 0.0
    cells = [_cells(table[name]) for name in places]
    return Attribution(
        tuple(places), values, np.array(cells, dtype=object).T, answer, base,
        tuple(_what(found.target, k) for k in chosen), gap,
    )  # fmt: skip


def _cells(column: Column) -> list[str]:
    """The cells as people would say them; a gap is empty."""
    if column.kind == "number":
        return ["" if np.isnan(value) else figure(value) for value in column.values.tolist()]
    return ["" if cell is None else cell for cell in column.texts()]


def places_of(model: Model) -> dict[str, list[int]]:
    """For each raw column, the columns of the encoder's matrix that are made from it."""
    found: dict[str, list[int]] = {}
    place = 0
    for step in model.encoder.numeric:
        found[step.name] = list(range(place, place + len(step.features)))
        place += len(step.features)
    for category in model.encoder.categories:
        found[category.name] = [place]
        place += 1
    return {name: found[name] for name in model.encoder.names}


def _classes(target: Target, outputs: np.ndarray, label: Any) -> np.ndarray:
    """Of each row the class that is explained, or the output, as an index."""
    if label is not None:
        known = target.classes.tolist()
        if label not in known:
            raise SettingError(f"label {label!r} is none of the classes {known}")
        return np.full(len(outputs), known.index(label))
    if target.task == "binary":
        return (outputs[:, 0] > 0).astype(np.int64)
    return outputs.argmax(axis=1)


def _what(target: Target, k: int) -> str:
    if target.is_regression:
        return target.name if target.n_outputs == 1 else f"{target.name} {k + 1}"
    kind = "log-probability" if target.task == "multiclass" else "log-odds"
    return f"{kind} of {target.classes[k]}"


def _answer(target: Target, outputs: Tensor, chosen: Tensor) -> Tensor:
    """What is explained, of shape (n,), from raw outputs (n, n_outputs)."""
    if target.task == "binary":
        return outputs[:, 0] * (2 * chosen - 1)
    picked = outputs.log_softmax(dim=1) if target.task == "multiclass" else outputs
    picked = picked.gather(1, chosen[:, None])[:, 0]
    if not target.is_regression:
        return picked
    mean, scale = torch.from_numpy(target.mean), torch.from_numpy(target.scale)
    return picked * scale[chosen] + mean[chosen]


def _integrate(
    network: nn.Module, target: Target, X: np.ndarray, start: np.ndarray, classes: np.ndarray,
    places: Sequence[list[int]], steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Parts of shape (n, n_columns), and the answers of rows and baseline."""
    rows, chosen = torch.from_numpy(X), torch.from_numpy(classes)
    base = torch.from_numpy(start).expand_as(rows)
    n = len(rows)
    # Every column alone moved from the baseline to the row: what it changes in the inner inputs.
    moved = base.repeat(len(places), 1, 1)
    for i, place in enumerate(places):
        moved[i, :, place] = rows[:, place]
    with torch.no_grad(), _Paths(network) as paths:
        origin, goal = paths.inner(base), paths.inner(rows)
        alone = paths.inner(moved.reshape(-1, rows.shape[1]))
        middle = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        way = [
            (a + middle[:, None, None] * (b - a)).reshape(steps * n, -1)
            for a, b in zip(origin, goal)
        ]
        with torch.enable_grad():
            way = [one.requires_grad_() for one in way]
            told = _answer(target, paths.outer(way, rows), chosen.repeat(steps))
            gradients = torch.autograd.grad(told.sum(), way)
        parts = torch.zeros(n, len(places), dtype=torch.float64)
        for a, each, gradient in zip(origin, alone, gradients):
            mean = gradient.reshape(steps, n, -1).mean(dim=0)
            parts += ((each.reshape(len(places), n, -1) - a) * mean).sum(dim=2).T
        answer = _answer(target, paths.outer(goal, rows), chosen)
        before = _answer(target, paths.outer(origin, rows), chosen)
    return parts.numpy(), answer.numpy(), before.numpy()


class _Paths:
    """A network parted behind its input layers: of several members each has its own.

    Where there is none, the inner inputs are the matrix itself.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.layers = [m for m in network.modules() if isinstance(m, InputLayer)]
        self.given: list[Tensor] | None = None

    def __enter__(self) -> _Paths:
        self.handles = [
            layer.register_forward_hook(self._put(i)) for i, layer in enumerate(self.layers)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _put(self, i: int) -> Any:
        return lambda module, args, output: None if self.given is None else self.given[i]

    def inner(self, X: Tensor) -> list[Tensor]:
        """What the input layers make of the rows."""
        self.given = None
        return [layer(X) for layer in self.layers] or [X]

    def outer(self, inner: Sequence[Tensor], rows: Tensor) -> Tensor:
        """What the network makes of these outputs of its input layers."""
        if not self.layers:
            return self.network(inner[0])
        self.given = list(inner)
        try:
            return self.network(rows[:1].expand(len(inner[0]), -1))
        finally:
            self.given = None
