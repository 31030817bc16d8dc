"""A table in memory: named columns of four kinds, from frames, arrays or files.

Values are kept in the smallest form that loses nothing:

===========  =============================================  ================
kind         ``values``                                     a gap is
===========  =============================================  ================
number       float64                                        NaN
text         int32 codes into ``levels`` (sorted strings)   -1
boolean      int8, 0 or 1                                   -1
datetime     datetime64[us], UTC without a zone             NaT
===========  =============================================  ================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from layerwise.errors import DataError, did_you_mean

Kind = Literal["number", "text", "boolean", "datetime"]


# Cells with one of these words hold no value. A dash, "None" or "?" can be a real answer, so they
# are not here; the user adds them.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>", "#N/A")


BIG_NOTE = "whole numbers beyond 2^53, kept as text so that none is rounded"


@dataclass(frozen=True)
class Odd:
    """Cells that keep a column from being what nearly all of its cells are."""

    kind: Kind
    count: int
    share: float
    examples: tuple[tuple[int, str], ...]  # (row, counted from 0; cell)


@dataclass(frozen=True, eq=False)
class Column:
    """One column; see the table at the top of this file for what ``values`` holds."""

    name: str
    kind: Kind
    values: np.ndarray
    levels: tuple[str, ...] = ()
    note: str = ""
    odd: Odd | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> np.ndarray:
        """Bool array of shape (n_rows,): True where the cell is empty."""
        if self.kind == "number":
            return np.isnan(self.values)
        if self.kind == "datetime":
            return np.isnat(self.values)
        return self.values < 0

    def take(self, rows: np.ndarray) -> Column:
        """The column with only these rows (indices or a mask), in this order."""
        return replace(self, values=self.values[rows])

    def texts(self) -> np.ndarray:
        """Object array of shape (n_rows,): each cell as text, None where it is empty."""
        column = self if self.kind == "text" else to_text(self)
        return np.array([*column.levels, None], dtype=object)[column.values]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length by name, and where their rows came from."""

    columns: dict[str, Column]
    n_rows: int
    source: str = "the table"
    parts: tuple[tuple[str, int], ...] = ()
    rows: np.ndarray | None = None  # where each row stood in the source, if some were taken

    def __getitem__(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise DataError(
                f"{self.source} has no column {name!r}. {did_you_mean(name, self.columns)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return self.n_rows

    @property
    def names(self) -> list[str]:
        """The column names, in the order of the table."""
        return list(self.columns)

    def where(self, row: int) -> str:
        """Words for a row counted from 0, e.g. ``'houses.csv row 17'`` (there counted from 1)."""
        row = row if self.rows is None else int(self.rows[row])
        for path, n_rows in self.parts:
            if row < n_rows:
                return f"{path} row {row + 1}"
            row -= n_rows
        return f"{self.source} row {row + 1}"

    def take(self, rows: np.ndarray) -> Table:
        """The table with only these rows (indices or a mask), in this order."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        taken = (np.arange(self.n_rows) if self.rows is None else self.rows)[rows]
        return Table(columns, len(taken), self.source, self.parts, taken)

    def select(self, names: Iterable[str]) -> Table:
        """The table with only these columns."""
        return replace(self, columns={name: self[name] for name in names})

    def fingerprint(self) -> str:
        """SHA-256 of names, kinds and values: equal for the same data from any kind of source."""
        digest = hashlib.sha256()
        for name in sorted(self.columns):
            column = _canonical(self.columns[name])
            for word in (name, "gaps" if column.missing.all() else column.kind, *column.levels):
                text = word.encode("utf-8", "surrogatepass")
                digest.update(f"{len(text)}:".encode() + text)
            if not column.missing.all():
                digest.update(column.values.tobytes())
        return digest.hexdigest()


def _canonical(column: Column) -> Column:
    """The column without what does not count: unused levels, the sign of zero, the kind of NaN."""
    if column.kind == "text":
        used = np.zeros(len(column.levels) + 1, bool)
        used[column.values] = True
        return relevel(column, ~used[:-1])
    if column.kind == "number":
        return replace(column, values=np.where(column.missing, np.nan, column.values + 0.0))
    return column


def text_column(name: str, cells: Iterable[Any], *, note: str = "") -> Column:
    """A text column from strings; None is a gap."""
    cells = list(cells)
    levels = sorted(cell for cell in dict.fromkeys(cells) if cell is not None)
    codes: dict[Any, int] = {level: code for code, level in enumerate(levels)}
    codes[None] = -1
    values = np.fromiter(map(codes.__getitem__, cells), np.int32, len(cells))
    return Column(name, "text", values, tuple(levels), note)


def to_text(column: Column) -> Column:
    """Any column as text: whole numbers without a point, dates in ISO form."""
    if column.kind == "text":
        return column
    gaps = column.missing
    if column.kind == "boolean":
        levels: list[str] = ["false", "true"]
        return Column(column.name, "text", column.values.astype(np.int32), tuple(levels))
    values, codes = np.unique(column.values, return_inverse=True)
    if column.kind == "number":
        levels = [f"{v + 0:.0f}" if v.is_integer() else repr(v) for v in values.tolist()]
    else:
        levels = [str(v).removesuffix(".000000").removesuffix("T00:00:00") for v in values]
    codes = np.where(gaps, -1, codes)
    cells = np.array([*levels, None], dtype=object)[codes]
    return text_column(column.name, cells)


def is_path(source: object) -> bool:
    """Whether the source names a file, and is not the data itself."""
    return isinstance(source, str | os.PathLike)


def relevel(column: Column, gaps: Sequence[bool] | np.ndarray) -> Column:
    """The text column without the levels that are marked: their cells become gaps."""
    gaps = np.asarray(gaps, dtype=bool)
    levels = tuple(level for level, gap in zip(column.levels, gaps) if not gap)
    ranks = np.append(np.where(gaps, -1, np.cumsum(~gaps) - 1), -1).astype(np.int32)
    return replace(column, values=ranks[column.values], levels=levels)
