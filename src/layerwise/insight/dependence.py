"""What the model answers when one raw column takes one value after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.data.table import Column
from layerwise.errors import DataError, SettingError, did_you_mean
from layerwise.insight.drawing import figure
from layerwise.insight.frames import frame_of
from layerwise.insight.subject import Subject, subject_of
from layerwise.text import count, grid, width

if TYPE_CHECKING:
    from layerwise.insight.displays import PartialDependenceDisplay

MOST_LEVELS = 20


@dataclass(frozen=True, repr=False, eq=False)
class PartialDependence:
    """The answers against one column, all else as it is in the rows; prints as a chart.

    Attributes
    ----------
    column : the raw column
    kind : "number", "text", "boolean" or "datetime"
    values : what the column was set to
    average : array of shape (n_values, n_answers): the mean answer over the rows
    individual : array of shape (n_rows, n_values, n_answers): of each row
    answers : what the answers are: the target's name, or for each class its probability
    counts : how many of the rows have about this value: of a category exactly it, of a number or
        date this one before all others
    """

    column: str
    kind: str
    values: tuple[Any, ...]
    average: np.ndarray
    individual: np.ndarray
    answers: tuple[str, ...]
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values, without those of single rows."""
        return {
            "column": self.column, "kind": self.kind, "values": [_plain(v) for v in self.values],
            "answers": list(self.answers), "average": self.average.tolist(),
            "counts": list(self.counts), "n_rows": len(self.individual),
        }  # fmt: skip

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each value."""
        return frame_of([
            {self.column: value, **dict(zip(self.answers, row)), "rows": n}
            for value, row, n in zip(self.values, self.average.tolist(), self.counts)
        ])  # fmt: skip

    def plot(self, ax: Any = None, *, individual: int = 30) -> PartialDependenceDisplay:
        """The mean, and thin lines for some single rows, with matplotlib."""
        from layerwise.insight.displays import PartialDependenceDisplay

        return PartialDependenceDisplay([self]).plot(ax, individual=individual)

    def __str__(self) -> str:
        shown = self.average
        picked = np.arange(len(self.values))
        if len(picked) > MOST_LEVELS:  # a chart of a screen's height
            picked = np.linspace(0, len(picked) - 1, MOST_LEVELS).round().astype(int)
        header = [self.column, *self.answers, *[""] * (shown.shape[1] == 1), "rows"]
        low, high = float(shown.min()), float(shown.max())
        room = max(width() - 50, 10)
        rows = []
        for i in picked:
            bar = []
            if shown.shape[1] == 1:
                place = (shown[i, 0] - low) / (high - low) if high > low else 0.5
                bar = [f"{'█' * round(1 + place * (room - 1)):<{room}}"]
            cells = [figure(value) for value in shown[i]]
            rows.append([_word(self.values[i]), *cells, *bar, f"{self.counts[i]:,}"])
        told = f"mean answer over {count(len(self.individual), 'row')}, one value for all of them"
        return f"{told}\n\n{grid(header, rows)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from layerwise.text import html_grid

        rows = [
            [_word(value), *map(figure, row), f"{n:,}"]
            for value, row, n in zip(self.values, self.average, self.counts)
        ]
        return html_grid([self.column, *self.answers, "rows"], rows)


def partial_dependence(
    model: Any,
    column: str,
    data: Any = None,
    y: Any = None,
    *,
    n_points: int = 30,
    max_rows: int | None = 500,
    random_state: int = 0,
) -> PartialDependence:
    """Set one raw column to a value in all rows, average the answers, and take the next value.

    Numbers and dates go in equal steps from the 5th to the 95th percentile, as scikit-learn's
    ``partial_dependence`` has them, or over their own values where those are few; of a category
    the most frequent levels are taken. The other columns stay, so where columns hang together the
    rows may become such as there are none; the lines of single rows (``individual``) show where
    the mean hides what differs. Source: Friedman (2001); Goldstein et al. (2015).

    Parameters
    ----------
    model : a run, a `layerwise.Model`, or a fitted estimator
    column : a raw column that the model uses
    data, y : rows, as for `importance`; a run takes the rows it was measured on by default
    n_points : values of a number or a date
    max_rows : at most so many rows, drawn at random; None for all
    random_state : of the rows

    Raises
    ------
    SettingError
        For a column the model does not use.
    DataError
        If the column has only gaps in these rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from layerwise import train
    >>> iris = load_iris(as_frame=True).frame
    >>> run = train(iris, "target", baselines=False, hidden_layer_sizes=(16,))
    >>> found = partial_dependence(run, "petal length (cm)", n_points=5)
    >>> found.average.shape, found.answers
    ((5, 3), ('P(0)', 'P(1)', 'P(2)'))
    """
    if n_points < 2:
        raise SettingError(f"n_points has to be at least 2; got {n_points}")
    subject = subject_of(model, data, y).sample(max_rows, random_state)
    known = subject.model.encoder.names
    if column not in known:
        raise SettingError(f"{column!r} is no column the model uses. {did_you_mean(column, known)}")
    cells = subject.part.table[column]
    present = cells.take(~cells.missing)
    if not len(present):
        raise DataError(f"column {column!r} has only gaps in these rows")
    values = _values(present, n_points)
    several = subject.repeated(len(values))
    n = len(cells)
    outputs = several.outputs(_column(present, np.repeat(values, n)))
    names, answers = _answers(subject, outputs)
    individual = answers.reshape(len(values), n, -1).transpose(1, 0, 2)
    return PartialDependence(
        column, cells.kind, _written(present, values), individual.mean(axis=0), individual,
        names, tuple(_counts(present, values)),
    )  # fmt: skip


def _values(column: Column, n_points: int) -> np.ndarray:
    """The values to try, as the column keeps them."""
    if column.kind == "text":
        levels, counts = np.unique(column.values, return_counts=True)
        return np.asarray(levels[np.argsort(-counts, kind="stable")[:MOST_LEVELS]])
    distinct = np.unique(column.values)
    if column.kind == "boolean" or len(distinct) < n_points:
        return distinct
    numbers = column.values.astype(np.float64) if column.kind == "number" else (
        column.values.astype(np.int64).astype(np.float64)
    )  # fmt: skip
    # as scikit-learn finds them, so that the two agree
    from scipy.stats.mstats import mquantiles

    low, high = mquantiles(numbers, prob=(0.05, 0.95))
    if not high > low:
        low, high = numbers.min(), numbers.max()
    steps = np.linspace(low, high, n_points)
    return steps if column.kind == "number" else steps.astype(np.int64).astype("datetime64[us]")


def _column(column: Column, values: np.ndarray) -> Column:
    return Column(column.name, column.kind, values.astype(column.values.dtype), column.levels)


def _written(column: Column, values: np.ndarray) -> tuple[Any, ...]:
    """The values as people write them."""
    if column.kind == "text":
        return tuple(column.levels[code] for code in values)
    if column.kind == "boolean":
        return tuple(bool(value) for value in values)
    return tuple(values.tolist()) if column.kind == "number" else tuple(values)


def _counts(column: Column, values: np.ndarray) -> list[int]:
    """How many rows each value is nearest to; of categories, how many have it."""
    if column.kind in ("text", "boolean"):
        return [int(np.sum(column.values == value)) for value in values]
    places = column.values.astype(np.float64)
    steps = values.astype(np.float64)
    nearest = np.searchsorted((steps[1:] + steps[:-1]) / 2, places)
    return np.bincount(nearest, minlength=len(steps)).tolist()


def _answers(subject: Subject, outputs: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and numbers: those of the target, or the probabilities of the classes."""
    target = subject.model.target
    if target.is_regression:
        decoded = target.decode(outputs).reshape(len(outputs), -1)
        n = decoded.shape[1]
        names = [target.name] if n == 1 else [f"{target.name} {k + 1}" for k in range(n)]
        return tuple(names), decoded
    probabilities = target.probabilities(outputs)
    labels = target.classes.tolist()
    if target.task == "binary":
        return (f"P({labels[1]})",), probabilities[:, 1:]
    return tuple(f"P({label})" for label in labels), probabilities


def _word(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]")).replace("T00:00:00", "")
    return figure(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, np.datetime64) else value
