"""Columns to one matrix of numbers, learnt on training rows only.

The encoder is a plan: one step for each input column, its state plain JSON. It fills a matrix of
shape (n_rows, n_numbers + n_categories): first everything numeric, scaled; then one column of whole
codes for each category, which the network's first module turns into one-hot columns or embeddings.

A category's codes are 1, 2, … for what the training rows had (``missing`` and ``other`` among them
if they occurred); 0 is what they never had, and adds nothing to the network's sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from layerwise.data.schema import Schema
from layerwise.data.table import Column, Table
from layerwise.errors import DataError

MISSING_LEVEL = "(missing)"
FLOAT_MAX = float(np.finfo(np.float64).max)
MAX_LEVELS = 1000  # the most frequent ones; the rest is grouped as other


def weighted_quantiles(values: np.ndarray, weight: np.ndarray | None, q: list[float]) -> np.ndarray:
    """Quantiles with linear interpolation; weight 2 counts exactly like the row twice.

    For whole weights the result is ``np.quantile(np.repeat(values, weight), q)``; other weights
    interpolate the same formula (position ``(sum(weight) - 1) q`` in the sorted rows).

    Parameters
    ----------
    values : float array of shape (n_rows,), without NaN; without weights also (n_columns, n_rows)
    weight : float array of shape (n_rows,), positive, or None for ones
    q : shares in [0, 1]

    Examples
    --------
    >>> weighted_quantiles(np.array([1.0, 5.0]), np.array([3.0, 1.0]), [0.5, 1.0]).tolist()
    [1.0, 5.0]
    """
    n = values.shape[-1]
    # The middle of 0.1, 0.2 must not depend on how the rows are given: one formula for both.
    if weight is None:
        place = (n - 1) * np.asarray(q)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, n - 1)
        ordered = np.partition(values, sorted({*low.tolist(), *high.tolist()}))
        below, above = ordered[..., low], ordered[..., high]
    else:
        order = np.argsort(values, kind="stable")
        cumulated = np.cumsum(weight[order])
        place = np.maximum(cumulated[-1] - 1, 0) * np.asarray(q)
        low = np.floor(place)
        below = values[order[np.minimum(np.searchsorted(cumulated, low, "right"), n - 1)]]
        above = values[order[np.minimum(np.searchsorted(cumulated, low + 1, "right"), n - 1)]]
    half = (above / 2 - below / 2) * (place - low)  # halves, so that -1e308 to 1e308 is finite
    return np.asarray(below + half + half)


def smooth_clip(x: np.ndarray) -> np.ndarray:
    """Squash to (-3, 3) and leave the middle nearly as it is: ``x / sqrt(1 + (x / 3)^2)``.

    Source: Holzmüller, Grinsztajn, Steinwart (NeurIPS 2024), RealMLP.
    """
    x = np.clip(x, -1e6, 1e6)
    return np.asarray(x / np.sqrt(1 + (x / 3) ** 2))


QUARTILES = [0.25, 0.5, 0.75]


def robust_scale(
    values: np.ndarray, weight: np.ndarray | None, quartiles: np.ndarray | None = None
) -> tuple[float, float]:
    """Median and a width that outliers do not move; the width of a constant is 0.

    The width is the interquartile range. Where more than half the rows are alike that is 0, and
    the root mean square distance from the median is taken. Quartiles that are known come along.
    """
    if quartiles is None:
        quartiles = weighted_quantiles(values, weight, QUARTILES)
    low, middle, high = quartiles
    width = 2 * min(float(high / 2 - low / 2), FLOAT_MAX / 2)
    if width <= 0 and values.min() < values.max():
        # Equal values count as one with the sum of their weights: neither the order of the rows
        # nor a row given twice shows in the last digit.
        distinct, inverse = np.unique(values, return_inverse=True)
        counts = np.bincount(inverse, weight)
        scale = float(np.abs(distinct).max())
        spread = np.average((distinct / scale - middle / scale) ** 2, weights=counts)
        width = min(scale * float(np.sqrt(spread)), FLOAT_MAX)
    return float(middle), width


def _scaled(values: np.ndarray, center: Any, width: Any) -> np.ndarray:
    """Centred, divided by the width and smoothly clipped; zeros where the width is 0.

    ``values`` (n_rows,) with a center and a width, or (n_rows, n_columns) with one for each column.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scaled = (values - center) / width
        wide = np.isinf(width * np.float64(2))
        if wide.any():
            scaled = np.where(wide, values / width - center / width, scaled)
        return np.where(np.equal(width, 0), 0.0, smooth_clip(scaled))


@dataclass(frozen=True)
class NumberStep:
    """A number: gaps take the median; scaled by median and quartiles, smoothly clipped."""

    name: str
    center: float
    width: float
    gaps: bool
    low: float
    high: float

    type: ClassVar[str] = "number"

    @classmethod
    def learn(
        cls, column: Column, weight: np.ndarray | None, quartiles: np.ndarray | None = None
    ) -> NumberStep:
        """Learn centre, width and range from the rows that are not gaps."""
        missing, values = column.missing, column.values
        gaps = bool(missing.any())
        if gaps:
            values = values[~missing]
            weight = None if weight is None else weight[~missing]
        center, width = robust_scale(values, weight, quartiles)
        return cls(column.name, center, width, gaps, float(values.min()), float(values.max()))

    @property
    def features(self) -> list[str]:
        """Names of the columns it fills."""
        return [self.name, f"{self.name} {MISSING_LEVEL}"] if self.gaps else [self.name]

    def fill(self, column: Column, out: np.ndarray) -> None:
        """Write the features of shape (n_rows, n_features) into ``out``."""
        fill_numbers([self], [column], [0], out)

    def notices(self, column: Column) -> list[str]:
        """What is new in these rows against the training rows."""
        found = _new_gaps(self.name, column, self.gaps)
        return found + _outside(self.name, column, self.low, self.high)


def fill_numbers(
    steps: Sequence[NumberStep], columns: Sequence[Column], places: Sequence[int], out: np.ndarray
) -> None:
    """Write the features of many numbers, each from its place in ``out`` on.

    A block of rows at a time: calls of NumPy count in small tables, memory in large ones.
    """
    center = np.array([step.center for step in steps])
    width = np.array([step.width for step in steps])
    for start in range(0, len(out), _BLOCK):
        part = slice(start, start + _BLOCK)
        values = np.empty((len(out[part]), len(steps)))
        for i, column in enumerate(columns):
            values[:, i] = column.values[part]
        missing = np.isnan(values)
        out[part, places] = _scaled(np.where(missing, center, values), center, width)
        for i, (step, place) in enumerate(zip(steps, places)):
            if step.gaps:
                out[part, place + 1] = missing[:, i]


_BLOCK = 8192


@dataclass(frozen=True)
class BooleanStep:
    """True and false as 1 and -1, a gap as 0."""

    name: str
    gaps: bool

    type: ClassVar[str] = "boolean"

    @classmethod
    def learn(cls, column: Column, weight: np.ndarray | None) -> BooleanStep:
        """Learn whether there are gaps."""
        return cls(column.name, bool(column.missing.any()))

    @property
    def features(self) -> list[str]:
        """Names of the columns it fills."""
        return [self.name, f"{self.name} {MISSING_LEVEL}"] if self.gaps else [self.name]

    def fill(self, column: Column, out: np.ndarray) -> None:
        """Write the features of shape (n_rows, n_features) into ``out``."""
        out[:, 0] = np.where(column.missing, 0, 2.0 * column.values - 1)
        if self.gaps:
            out[:, 1] = column.missing

    def notices(self, column: Column) -> list[str]:
        """What is new in these rows against the training rows."""
        return _new_gaps(self.name, column, self.gaps)


_CYCLES = {"month": 12.0, "day of month": 31.0, "weekday": 7.0, "time of day": 86400.0}


def _cycles(moments: np.ndarray) -> dict[str, np.ndarray]:
    """Where each moment stands in its year, month, week and day; each counted from 0."""
    days, months = moments.astype("datetime64[D]"), moments.astype("datetime64[M]")
    return {
        "month": months.astype(np.int64) % 12,
        "day of month": (days - months.astype("datetime64[D]")).astype(np.int64),
        "weekday": (days.astype(np.int64) + 3) % 7,
        "time of day": (moments - days) / np.timedelta64(1, "s"),
    }


@dataclass(frozen=True)
class DateStep:
    """A date: scaled linear time, and sine and cosine of those cycles that vary in training."""

    name: str
    center: float
    width: float
    cycles: list[str]
    gaps: bool
    low: str
    high: str

    type: ClassVar[str] = "date"

    @classmethod
    def learn(cls, column: Column, weight: np.ndarray | None) -> DateStep:
        """Learn the scale of linear time and which cycles vary."""
        missing = column.missing
        moments = column.values[~missing]
        seconds = moments.astype(np.int64) / 1e6
        center, width = robust_scale(seconds, None if weight is None else weight[~missing])
        cycles = [name for name, place in _cycles(moments).items() if np.unique(place).size > 1]
        return cls(
            column.name,
            center,
            width,
            cycles,
            bool(missing.any()),
            str(moments.min()),
            str(moments.max()),
        )

    @property
    def features(self) -> list[str]:
        """Names of the columns it fills."""
        names = [self.name]
        for cycle in self.cycles:
            names += [f"{self.name} {cycle} sin", f"{self.name} {cycle} cos"]
        return [*names, f"{self.name} {MISSING_LEVEL}"] if self.gaps else names

    def fill(self, column: Column, out: np.ndarray) -> None:
        """Write the features of shape (n_rows, n_features) into ``out``."""
        missing = column.missing
        moments = np.where(missing, np.datetime64(0, "us"), column.values)
        seconds = np.where(missing, self.center, moments.astype(np.int64) / 1e6)
        out[:, 0] = _scaled(seconds, self.center, self.width)
        places = _cycles(moments)
        for i, cycle in enumerate(self.cycles):
            angle = 2 * np.pi * places[cycle] / _CYCLES[cycle]
            out[:, 1 + 2 * i] = np.where(missing, 0, np.sin(angle))
            out[:, 2 + 2 * i] = np.where(missing, 0, np.cos(angle))
        if self.gaps:
            out[:, -1] = missing

    def notices(self, column: Column) -> list[str]:
        """What is new in these rows against the training rows."""
        low, high = np.datetime64(self.low, "us"), np.datetime64(self.high, "us")
        found = _new_gaps(self.name, column, self.gaps)
        return found + _outside(self.name, column, low, high)


@dataclass(frozen=True)
class CategoryStep:
    """A category: the codes of its levels, rare ones as other."""

    name: str
    levels: list[str]
    gaps: bool
    other: bool
    rare: float  # twice the share of the training rows that the rare levels had
    codes: dict[str, int] = field(init=False, repr=False, compare=False)

    type: ClassVar[str] = "category"

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", {level: i + 1 for i, level in enumerate(self.levels)})

    @classmethod
    def learn(cls, column: Column, weight: np.ndarray | None) -> CategoryStep:
        """Learn the levels that are frequent enough to learn from.

        A level counts as rare with fewer than 2 rows, in large tables with less than one row in
        1,000 up to 20 rows; weights count as rows.
        """
        known = column.values >= 0
        if weight is None:
            weight = np.ones(len(column))
        counts = np.bincount(column.values[known], weight[known], len(column.levels))
        enough = float(np.clip(weight.sum() / 1000, 2, 20))
        rare = counts < enough if np.sum(counts > 0) > 2 else counts <= 0
        rare[np.argsort(-counts, kind="stable")[MAX_LEVELS:]] = True
        kept = [level for level, few in zip(column.levels, rare) if not few]
        other = len(kept) < int(np.sum(counts > 0))
        share = 2 * float(counts[rare].sum() / weight.sum())
        return cls(column.name, kept, bool((~known).any()), other, share)

    @property
    def n_codes(self) -> int:
        """How many codes there are besides 0."""
        return len(self.levels) + self.other + self.gaps

    def fill(self, column: Column, out: np.ndarray) -> None:
        """Write the codes of shape (n_rows,) into ``out``."""
        other = len(self.levels) + 1 if self.other else 0
        missing = self.n_codes if self.gaps else other
        codes = [self.codes.get(level, other) for level in column.levels]
        out[:] = np.array([*codes, missing])[column.values]

    def notices(self, column: Column) -> list[str]:
        """What is new in these rows against the training rows."""
        used = np.zeros(len(column.levels), bool)
        used[column.values[column.values >= 0]] = True
        new = [x for x, u in zip(column.levels, used) if u and x not in self.codes]
        found = _new_gaps(self.name, column, self.gaps)
        cells = int(np.isin(column.values, [column.levels.index(level) for level in new]).sum())
        # Rare levels are grouped as other, so a few cells that were not learnt are as in training.
        if new and cells > (self.rare * len(column) if self.other else 0):
            some = ", ".join(repr(level) for level in new[:3]) + (" …" if len(new) > 3 else "")
            found.append(
                f"column {self.name!r}: {cells:,} of {len(column):,} cells have "
                f"{'levels' if len(new) > 1 else 'a level'} not learnt ({some})"
            )
        return found


def _new_gaps(name: str, column: Column, known: bool) -> list[str]:
    gaps = int(column.missing.sum())
    if known or not gaps:
        return []
    return [f"column {name!r}: {gaps:,} gap{'s' * (gaps > 1)}; the training rows had none"]


def _outside(name: str, column: Column, low: Any, high: Any) -> list[str]:
    """A sentence if more than one value in twenty is out of the training rows' range."""
    outside = int(np.sum((column.values < low) | (column.values > high)))
    if outside <= 0.05 * max(len(column), 20):
        return []
    ends = (f"{low:g}", f"{high:g}") if column.kind == "number" else (str(low), str(high))
    first, last = (end.removesuffix("T00:00:00.000000") for end in ends)
    return [
        f"column {name!r}: {outside:,} of {len(column):,} values lie outside the training rows' "
        f"range {first} to {last}"
    ]


def _quartiles(table: Table, schema: Schema) -> dict[str, np.ndarray]:
    """Quartiles of the numbers without gaps, all at once: so small tables take less time."""
    columns = [table[entry.name] for entry in schema.inputs if entry.role == "number"]
    if not columns or not 0 < table.n_rows * len(columns) <= 2**20:
        return {}
    values = np.array([column.values for column in columns])
    whole = np.flatnonzero(np.isfinite(values).all(axis=1))
    found = weighted_quantiles(values[whole], None, QUARTILES)
    return {columns[i].name: row for i, row in zip(whole, found)}


Step = NumberStep | BooleanStep | DateStep | CategoryStep
_STEPS: dict[str, Any] = {
    step.type: step for step in (NumberStep, BooleanStep, DateStep, CategoryStep)
}


@dataclass(frozen=True)
class Encoder:
    """The fitted plan from input columns to the network's matrix.

    Examples
    --------
    >>> from layerwise.data.files import read_table
    >>> from layerwise.data.schema import infer_schema
    >>> table = read_table({"size": [1.0, 2.0, 3.0], "town": ["Ulm", "Bonn", "Ulm"]})
    >>> encoder = Encoder.fit(table, infer_schema(table))
    >>> encoder.feature_names
    ['size', 'town']
    >>> encoder.transform(table, dtype=float).round(2).tolist()
    [[-0.95, 2.0], [0.0, 1.0], [0.95, 2.0]]
    """

    steps: tuple[Step, ...]

    @classmethod
    def fit(cls, table: Table, schema: Schema, weight: np.ndarray | None = None) -> Encoder:
        """Learn from these rows, which should be the training rows and nothing else.

        Parameters
        ----------
        table : with the schema's input columns, each of the kind its role asks for
        weight : float array of shape (n_rows,) or None; weight 2 is the row twice, 0 is no row
        """
        if weight is not None and not weight.all():
            table, weight = table.take(weight > 0), weight[weight > 0]
        if weight is not None:
            weight = weight / min(1.0, float(weight.mean()))  # shares count as rows too
        steps: list[Step] = []
        known = _quartiles(table, schema) if weight is None else {}
        for entry in schema.inputs:
            column = table[entry.name]
            if entry.name in known:
                steps.append(NumberStep.learn(column, None, known[entry.name]))
                continue
            refuse_infinite(column, table)
            if not column.missing.all():  # else these rows say nothing about it
                steps.append(_STEPS[entry.role].learn(column, weight))
        return cls(tuple(steps))

    @property
    def names(self) -> list[str]:
        """The input columns."""
        return [step.name for step in self.steps]

    @property
    def numeric(self) -> list[NumberStep | BooleanStep | DateStep]:
        """The steps that fill scaled numbers."""
        return [step for step in self.steps if not isinstance(step, CategoryStep)]

    @property
    def categories(self) -> list[CategoryStep]:
        """The steps that fill codes."""
        return [step for step in self.steps if isinstance(step, CategoryStep)]

    @property
    def n_numbers(self) -> int:
        """How many columns of the matrix are scaled numbers."""
        return sum(len(step.features) for step in self.numeric)

    @property
    def n_codes(self) -> list[int]:
        """For each category, its number of codes besides 0."""
        return [step.n_codes for step in self.categories]

    @property
    def feature_names(self) -> list[str]:
        """The columns of the matrix."""
        names = [name for step in self.numeric for name in step.features]
        return names + [step.name for step in self.categories]

    def transform(self, table: Table, dtype: Any = np.float32) -> np.ndarray:
        """Encode rows.

        Returns
        -------
        array of shape (n_rows, n_numbers + n_categories) and the given dtype

        Raises
        ------
        DataError
            For an infinite number, naming column and row.
        """
        out = np.empty((table.n_rows, len(self.feature_names)), dtype=dtype, order="C")
        place = 0
        numbers: list[tuple[NumberStep, Column, int]] = []
        for step in self.numeric:
            column = table[step.name]
            refuse_infinite(column, table)
            width = len(step.features)
            if isinstance(step, NumberStep):
                numbers.append((step, column, place))
            else:
                step.fill(column, out[:, place : place + width])
            place += width
        if numbers:
            steps, columns, places = zip(*numbers)
            fill_numbers(steps, columns, places, out)
        for category in self.categories:
            category.fill(table[category.name], out[:, place])
            place += 1
        return out

    def notices(self, table: Table) -> list[str]:
        """What these rows have that the training rows had not, a sentence for each column."""
        return [said for step in self.steps for said in step.notices(table[step.name])]

    def to_json(self) -> list[dict[str, Any]]:
        """The state as plain values."""
        state = []
        for step in self.steps:
            fields = asdict(step)
            fields.pop("codes", None)
            state.append({"type": step.type, **fields})
        return state

    @classmethod
    def from_json(cls, state: list[Mapping[str, Any]]) -> Encoder:
        """The encoder back from `to_json`."""
        steps = []
        for entry in state:
            fields = dict(entry)
            steps.append(_STEPS[fields.pop("type")](**fields))
        return cls(tuple(steps))


def refuse_infinite(column: Column, table: Table) -> None:
    """An infinite number is an error that names its row; it is no gap and no number to scale."""
    if column.kind != "number":
        return
    if np.isfinite(column.values).all():
        return
    rows = np.flatnonzero(np.isinf(column.values))
    if rows.size:
        raise DataError(
            f"{table.where(int(rows[0]))}, column {column.name!r}: the number is infinity "
            f"({rows.size:,} such cell{'s' * (rows.size > 1)}). Input contains infinity; correct "
            "or empty the cell, or train with --missing and the cell's text to count it as a gap."
        )
