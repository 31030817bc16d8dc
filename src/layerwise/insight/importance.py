"""How much a model needs each raw column: its answers with the column shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.errors import DataError, SettingError, did_you_mean
from layerwise.insight.drawing import shortened
from layerwise.insight.frames import frame_of
from layerwise.insight.subject import Score, subject_of
from layerwise.text import count, html_grid, number, width, wrapped

if TYPE_CHECKING:
    from layerwise.insight.displays import ImportanceDisplay

SIGMAS = 1.96  # of a normal distribution hold 95 %
OTHERS = 200  # samples of the rows, for the intervals


@dataclass(frozen=True, repr=False, eq=False)
class Importance:
    """How much worse a metric becomes when a column is shuffled; prints as a chart.

    Attributes
    ----------
    columns : the raw columns, the most important first
    importances : array of shape (n_columns, n_repeats): the metric with the column shuffled against
        the metric as it is, so that more is more important, also of metrics that should be high
    intervals : array of shape (n_columns, 2): 95 % intervals of the mean, from its spread over
        other shuffles and other rows of the same number (a bootstrap)
    metric, score : what is measured, and what it is with no column shuffled
    n_rows, rows : how many rows, and which: "test", "validation", "training" or "given"
    """

    columns: tuple[str, ...]
    importances: np.ndarray
    intervals: np.ndarray
    metric: str
    score: float
    n_rows: int
    rows: str

    @property
    def importances_mean(self) -> np.ndarray:
        """Array of shape (n_columns,): the mean over the repeats."""
        return np.asarray(self.importances.mean(axis=1))

    @property
    def importances_std(self) -> np.ndarray:
        """Array of shape (n_columns,): the standard deviation over the repeats."""
        return np.asarray(self.importances.std(axis=1))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "metric": self.metric, "score": self.score, "rows": self.rows, "n_rows": self.n_rows,
            "columns": self._rows(),
        }  # fmt: skip

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each column."""
        return frame_of(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        found = zip(
            self.columns, self.importances_mean, self.importances_std, self.intervals.tolist()
        )
        return [
            {"column": name, "importance": float(mean), "std": float(std), "low": low, "high": high}
            for name, mean, std, (low, high) in found
        ]

    def plot(self, ax: Any = None, *, most: int = 20) -> ImportanceDisplay:
        """Points with their intervals, the most important on top, with matplotlib."""
        from layerwise.insight.displays import ImportanceDisplay

        return ImportanceDisplay(self).plot(ax, most=most)

    def __str__(self) -> str:
        cells = [[row["column"], *_figures(row)] for row in self._rows()]
        name = min(max(max(len(c[0]) for c in cells), 6), 24)
        right = [max(len(c[i]) for c in cells) for i in (1, 2)]
        room = max(width() - name - sum(right) - 6, 8)
        # From the least low to the greatest high end, so that 0 has its place.
        low = min(0.0, float(self.intervals.min()), float(self.importances_mean.min()))
        high = max(float(self.intervals.max()), float(self.importances_mean.max()), low + 1e-300)
        lines = [wrapped(self.heading), ""]
        for (column, mean, interval), value, ends in zip(
            cells, self.importances_mean, self.intervals
        ):
            bar = _bar(value, ends, low, high, room)
            lines.append(
                f"{shortened(column, name):<{name}}  {bar}  {mean:>{right[0]}}  "
                f"{interval:>{right[1]}}"
            )
        lines += ["", wrapped("━ 95 % interval, ● mean, │ no importance")]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["column", "importance", "95 % interval"]
        cells = [[row["column"], *_figures(row)] for row in self._rows()]
        return f"<p>{escape(self.heading)}</p>" + html_grid(header, cells)

    @property
    def heading(self) -> str:
        """What the numbers are, in a sentence."""
        worse = f"how much worse {self.metric.replace('_', ' ')} gets when a column is shuffled"
        kind = f"{self.rows} row" if self.rows != "given" else "row"
        return (
            f"{worse}; it is {number(self.score)} on {count(self.n_rows, kind)} "
            f"({self.importances.shape[1]} times)"
        )


def _figures(row: dict[str, Any]) -> list[str]:
    return [number(row["importance"]), f"{number(row['low'])} to {number(row['high'])}"]


def _bar(mean: float, ends: np.ndarray, low: float, high: float, room: int) -> str:
    """The interval as a line, the mean as a point, and a tick where 0 is."""

    def place(value: float) -> int:
        if not np.isfinite(value):
            return 0
        return min(max(round((value - low) / (high - low) * (room - 1)), 0), room - 1)

    line = [" "] * room
    line[place(0.0)] = "│"
    for i in range(place(ends[0]), place(ends[1]) + 1):
        line[i] = "━"
    line[place(mean)] = "●"
    return "".join(line)


def importance(
    model: Any,
    data: Any = None,
    y: Any = None,
    *,
    columns: Sequence[str] | None = None,
    metric: str | None = None,
    n_repeats: int = 10,
    max_rows: int | None = 2000,
    random_state: int = 0,
) -> Importance:
    """Shuffle each raw column among the rows and see how much worse the answers become.

    A category, a date or a number with gaps is one column, however many inputs of the network are
    made from it. Two columns that tell the same share their importance, and shuffled alone neither
    may seem to matter. Source: Breiman (2001), Random Forests; the permutations are those of
    scikit-learn's ``permutation_importance``.

    Parameters
    ----------
    model : a run, a `layerwise.Model`, or a fitted estimator
    data : rows with the target column that the model was not trained on: a path, a DataFrame, …;
        without it a run takes the rows it was measured on
    y : the answers, if they are not a column of data
    columns : only these; all that the model uses by default
    metric : one of the task's (rmse, mae, r2, …; log_loss, accuracy, roc_auc, …); by default rmse
        or log_loss
    n_repeats : shuffles of each column
    max_rows : at most so many rows, drawn at random; None for all
    random_state : of rows and shuffles; no global random state is touched

    Raises
    ------
    SettingError
        For a model that is none, a metric the task does not have, fewer than 2 repeats.
    DataError
        For rows the model cannot read, or fewer than two.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from layerwise import train
    >>> iris = load_iris(as_frame=True).frame
    >>> run = train(iris, "target", baselines=False, hidden_layer_sizes=(16,))
    >>> importance(run).columns[0].startswith("petal")
    True
    """
    if n_repeats < 2:
        raise SettingError(f"n_repeats has to be at least 2, to tell a spread; got {n_repeats}")
    subject = subject_of(model, data, y).sample(max_rows, random_state)
    found, part = subject.model, subject.part
    if len(part) < 2:
        raise DataError("shuffling needs at least 2 rows")
    known = found.encoder.names
    for name in columns or ():
        if name not in known:
            raise SettingError(f"{name!r} is no column the model uses. {did_you_mean(name, known)}")
    chosen = list(columns or known)
    score = Score.of(found.target, part.y, metric)
    shuffles = _shuffles(len(part), n_repeats, random_state)
    others = OTHERS if score.quick else n_repeats
    weights = _weightings(part.weight, len(part), others, random_state)
    before = score(subject.outputs(), weights)
    importances = np.zeros((len(chosen), n_repeats))
    errors = np.zeros(len(chosen))
    several = subject.repeated(n_repeats)  # all shuffles of a column in one pass
    for i, column in enumerate(chosen):
        outputs = several.outputs(part.table[column].take(np.concatenate(shuffles)))
        shuffled = np.array([score(one, weights) for one in np.split(outputs, n_repeats)])
        worse = score.sign * (shuffled - before)
        importances[i] = worse[:, 0]
        # other rows would give other means, and so would other shuffles
        rows, orders = worse[:, 1:].mean(axis=0), worse[:, 0]
        errors[i] = np.sqrt(np.nanvar(rows, ddof=1) + orders.var(ddof=1) / n_repeats)
    mean, half = importances.mean(axis=1), SIGMAS * errors
    order = np.argsort(-mean, kind="stable")
    intervals = np.column_stack([mean - half, mean + half])
    return Importance(
        tuple(chosen[i] for i in order), importances[order], intervals[order],
        score.name, float(before[0]),
        len(part), subject.rows,
    )  # fmt: skip


def _shuffles(n: int, n_repeats: int, random_state: int) -> list[np.ndarray]:
    """The orders that scikit-learn's permutation_importance would draw, alike for each column."""
    seed = np.random.RandomState(random_state).randint(np.iinfo(np.int32).max + 1)
    drawn, order, shuffled = np.random.RandomState(seed), np.arange(n), np.arange(n)
    orders = []
    for _ in range(n_repeats):
        drawn.shuffle(order)
        shuffled = shuffled[order]  # there each shuffle begins from the one before
        orders.append(shuffled)
    return orders


def _weightings(w: np.ndarray | None, n: int, others: int, random_state: int) -> np.ndarray:
    """Weights of shape (1 + others, n): the rows as they are, and drawn with putting back."""
    drawn = np.random.default_rng(random_state).multinomial(n, np.full(n, 1 / n), size=others)
    counts = np.vstack([np.ones(n), drawn])
    return counts if w is None else counts * w
