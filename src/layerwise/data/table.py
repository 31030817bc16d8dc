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
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np

from layerwise.errors import DataError, did_you_mean

Kind = Literal["number", "text", "boolean", "datetime"]

# Cells with one of these words hold no value. A dash, "None" or "?" can be a real answer, so they
# are not here; the user adds them.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>", "#N/A")

NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|Inf|INF|infinity|Infinity)"
LEADING_ZERO = r"[+-]?0\d+"
EXACT = 2**53  # whole numbers below this survive float64
BIG_NOTE = "whole numbers beyond 2^53, kept as text so that none is rounded"

_NUMBER = re.compile(NUMBER, re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_ZERO = re.compile(LEADING_ZERO, re.ASCII)
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?", re.ASCII
)
_BOOLEAN = {"true": 1, "false": 0}


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
        return _relevel(column, ~used[:-1])
    if column.kind == "number":
        return replace(column, values=np.where(column.missing, np.nan, column.values + 0.0))
    return column


# ---------------------------------------------------------------- one column, from kind to kind


def text_column(name: str, cells: Iterable[Any], *, note: str = "") -> Column:
    """A text column from strings; None is a gap."""
    cells = list(cells)
    levels = sorted(cell for cell in dict.fromkeys(cells) if cell is not None)
    codes: dict[Any, int] = {level: code for code, level in enumerate(levels)}
    codes[None] = -1
    values = np.fromiter(map(codes.__getitem__, cells), np.int32, len(cells))
    return Column(name, "text", values, tuple(levels), note)


def drop_missing(column: Column, missing: Sequence[str]) -> Column:
    """The column of text or numbers with cells that say 'missing' turned into gaps."""
    tokens = {token.strip() for token in missing}
    if column.kind == "number":
        numbers = [float(token) for token in tokens if _NUMBER.fullmatch(token)]
        values = np.where(np.isin(column.values, numbers), np.nan, column.values)
        return replace(column, values=values) if numbers else column
    gaps = [level.strip() in tokens for level in column.levels]
    return _relevel(column, gaps) if any(gaps) else column


def _relevel(column: Column, gaps: Sequence[bool] | np.ndarray) -> Column:
    """The text column without the levels that are marked: their cells become gaps."""
    gaps = np.asarray(gaps, dtype=bool)
    levels = tuple(level for level, gap in zip(column.levels, gaps) if not gap)
    ranks = np.append(np.where(gaps, -1, np.cumsum(~gaps) - 1), -1).astype(np.int32)
    return replace(column, values=ranks[column.values], levels=levels)


def settle(column: Column) -> Column:
    """Text whose cells declare no type, as what all its cells are; like `refine`, and numbers.

    Numbers with leading zeros stay text, and so do whole numbers that float64 would round.
    """
    if column.kind != "text" or not column.levels:
        return column
    cells = [level.strip() for level in column.levels]
    fits = np.array([_NUMBER.fullmatch(cell) is not None for cell in cells], bool)
    if not fits.all():
        odd = find_odd(column, fits, "number")
        return replace(column, odd=odd) if odd else refine(column)
    zeros = np.array([*(_ZERO.fullmatch(cell) is not None for cell in cells), False], bool)
    if zeros.any():
        return replace(column, note=leading_zeros_note(int(zeros[column.values].sum())))
    if any(_WHOLE.fullmatch(cell) and abs(int(cell)) >= EXACT for cell in cells):
        return replace(column, note=BIG_NOTE)
    return to_number(column)


def refine(column: Column) -> Column:
    """Text that is nothing but true/false or ISO dates, as boolean or datetime.

    A column of which nearly all (at least 90 %) are ISO dates stays text and says which are not.
    """
    if column.kind != "text" or not column.levels:
        return column
    if len(column.levels) <= 6 and all(x.strip().lower() in _BOOLEAN for x in column.levels):
        return to_boolean(column)
    dates = np.array([_parse_datetime(x.strip(), None) is not None for x in column.levels], bool)
    if dates.all():
        return to_datetime(column)
    return replace(column, odd=find_odd(column, dates, "datetime"))


def leading_zeros_note(cells: int) -> str:
    """Why a column of numbers is text."""
    return f"numbers with leading zeros in {cells:,} cell{'s' * (cells != 1)}, kept as text"


def find_odd(column: Column, fits: np.ndarray, kind: Kind) -> Odd | None:
    """The cells whose level does not fit, if at least 90 % of the cells do."""
    present = np.flatnonzero(column.values >= 0)
    odd = present[~fits[column.values[present]]]
    if not 0 < odd.size <= 0.1 * present.size:
        return None
    examples = tuple((int(row), column.levels[column.values[row]]) for row in odd[:5])
    return Odd(kind, int(odd.size), odd.size / present.size, examples)


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


def to_number(column: Column) -> Column:
    """Any column as numbers; text has to be a plain number such as ``-3.5e2`` in every cell."""
    if column.kind == "number":
        return column
    gaps = column.missing
    if column.kind == "boolean":
        values = column.values.astype(np.float64)
    elif column.kind == "datetime":
        values = column.values.astype(np.int64) / 1e6
    else:
        fits = np.array([_NUMBER.fullmatch(x.strip()) is not None for x in column.levels], bool)
        _refuse_levels(column, fits, "a number")
        numbers = [float(level) for level in column.levels]
        values = np.append(np.array(numbers, dtype=np.float64), np.nan)[column.values]
    return Column(column.name, "number", np.where(gaps, np.nan, values))


def to_boolean(column: Column) -> Column:
    """Any column as true or false: 0 and 1, or the words in any case."""
    if column.kind == "boolean":
        return column
    text = to_text(column)
    words = _BOOLEAN | {"1": 1, "0": 0}
    fits = np.array([level.strip().lower() in words for level in text.levels], bool)
    _refuse_levels(text, fits, "true or false")
    truth = [words[level.strip().lower()] for level in text.levels]
    return Column(column.name, "boolean", np.array([*truth, -1], dtype=np.int8)[text.values])


def to_datetime(column: Column, form: str | None = None) -> Column:
    """Text as times: ISO 8601, or a ``strptime`` form; with a zone they are turned into UTC."""
    if column.kind == "datetime":
        return column
    text = to_text(column)
    parsed = [_parse_datetime(level.strip(), form) for level in text.levels]
    what = f"a date of the form {form!r}" if form else "an ISO date such as 2026-01-31"
    _refuse_levels(text, np.array([one is not None for one in parsed], bool), what)
    times = np.array([*parsed, np.datetime64("NaT")], dtype="datetime64[us]")
    return Column(column.name, "datetime", times[text.values])


def _parse_datetime(text: str, form: str | None) -> datetime | None:
    try:
        if form is None and not _ISO.fullmatch(text):
            return None
        moment = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _refuse_levels(column: Column, fits: np.ndarray, what: str) -> None:
    """Raise for the cells of a text column that are not what they should be."""
    if fits.all():
        return
    rows = np.flatnonzero((column.values >= 0) & ~np.append(fits, True)[column.values])
    if not rows.size:
        return
    level = column.levels[column.values[rows[0]]]
    raise CellError(column.name, int(rows[0]), level, int(rows.size), what)


class CellError(DataError):
    """A cell that is not of the kind asked for; ``located`` puts file and row into words."""

    def __init__(self, column: str, row: int, cell: str, count: int, what: str) -> None:
        self.column, self.row, self.cell, self.count, self.what = column, row, cell, count, what
        super().__init__(self._words(f"row {row + 1}"))

    def _words(self, place: str) -> str:
        cell = self.cell if len(self.cell) <= 40 else self.cell[:37] + "..."
        more = f" ({self.count} such cells)" if self.count > 1 else ""
        return f"{place}, column {self.column!r}: {cell!r} is not {self.what}{more}"

    def located(self, table: Table) -> DataError:
        """The same error with the file's name and the ways out."""
        token = self.cell.strip()
        return DataError(
            f"{self._words(table.where(self.row))}. Correct or empty the cell, or train with "
            f"--missing {token!r} to count it as a gap, or with --as to read the column otherwise."
        )


CONVERT = {"number": to_number, "text": to_text, "boolean": to_boolean, "datetime": to_datetime}


# ---------------------------------------------------------------- tables from frames and arrays


def table_of(data: Any, *, missing: Sequence[str] = ()) -> Table:
    """A table from anything table-like in memory.

    Parameters
    ----------
    data : pandas, polars, pyarrow or any other frame that narwhals takes; an object with
        ``__arrow_c_stream__``; a dict of columns; a NumPy array of shape (n_rows, n_columns)
    missing : words that count as gaps in text columns

    Raises
    ------
    DataError
        For something that is no table, duplicate names, or columns of unequal length.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, np.ndarray):
        return _from_array(data, missing)
    if isinstance(data, Mapping):
        return _from_dict(data, missing)
    # Polars has no duplicates, and its lazy frames are slow to name their columns.
    names = None if hasattr(data, "collect_schema") else getattr(data, "columns", None)
    if names is not None and not callable(names):
        _refuse_duplicates([str(name) for name in names])
    if type(data).__module__.startswith(("duckdb", "_duckdb")):
        from layerwise.data.files import from_relation

        return from_relation(data, missing)
    try:
        frame = nw.from_native(data)
    except TypeError:
        if hasattr(data, "__arrow_c_stream__"):
            from layerwise.data.files import from_arrow

            return from_arrow(data, missing)
        raise DataError(
            f"{type(data).__name__} is no table. Give a path, a DataFrame, a dict of columns "
            "or a NumPy array of shape (n_rows, n_columns)."
        ) from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    series = [frame[:, i] for i in range(len(frame.columns))]
    columns = {str(one.name): _from_series(str(one.name), one, missing) for one in series}
    return Table(columns, len(frame), "the table")


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if name in seen:
            raise DataError(
                f"two columns are called {name!r} (number {seen[name]} and {place}); "
                "give every column its own name."
            )
        seen[name] = place


def _from_array(data: np.ndarray, missing: Sequence[str]) -> Table:
    if data.dtype.names and data.ndim == 1:
        cells = {name: data[name] for name in data.dtype.names}
    elif data.ndim == 2 and not data.dtype.names:
        cells = {f"x{i}": data[:, i] for i in range(data.shape[1])}
    else:
        raise DataError(f"an array of shape {data.shape} is no table; expected (n_rows, n_columns)")
    columns = {name: from_values(name, values, missing) for name, values in cells.items()}
    return Table(columns, len(data), "the array")


def _from_dict(data: Mapping[Any, Any], missing: Sequence[str]) -> Table:
    _refuse_duplicates([str(name) for name in data])
    columns = {str(name): _from_cells(str(name), cells, missing) for name, cells in data.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        sizes = ", ".join(f"{name}: {len(column)}" for name, column in columns.items())
        raise DataError(f"columns of unequal length ({sizes})")
    return Table(columns, lengths.pop() if lengths else 0, "the table")


def _from_cells(name: str, cells: Any, missing: Sequence[str]) -> Column:
    """A column from an array, a series of any library, or a list."""
    if isinstance(cells, np.ndarray):
        return from_values(name, cells, missing)
    series = nw.from_native(cells, series_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        return _from_series(name, series, missing)
    if hasattr(cells, "to_pylist"):  # an Arrow array
        cells = cells.to_pylist()
    if isinstance(cells, list | tuple):  # NumPy would give [1, "a"] or [2**53 + 1, 0.5] one type
        return _from_objects(name, list(cells), missing)
    return from_values(name, np.asarray(cells), missing)


def from_values(name: str, values: np.ndarray, missing: Sequence[str] = ()) -> Column:
    """A column from a NumPy array of shape (n_rows,) and any dtype."""
    if isinstance(values, np.ma.MaskedArray):
        gaps = np.ma.getmaskarray(values)
        gaps_of = {"M": np.datetime64("NaT"), "m": np.timedelta64("NaT"), "f": np.nan}
        gap = gaps_of.get(values.dtype.kind)
        plain = values.data if gap is not None else values.data.astype(object)
        values = np.where(gaps, gap, plain)  # type: ignore[call-overload]
    if values.ndim != 1:
        raise DataError(f"column {name!r} has shape {values.shape}; expected (n_rows,)")
    kind = values.dtype.kind
    if kind == "b":
        return Column(name, "boolean", values.astype(np.int8))
    if kind in "iu":
        return _from_integers(name, values)
    if kind == "f":
        return Column(name, "number", values.astype(np.float64))
    if kind == "M":
        return Column(name, "datetime", values.astype("datetime64[us]"))
    if kind == "m":
        return Column(name, "number", values / np.timedelta64(1, "s"))
    if kind in "USO":
        return _from_objects(name, values.tolist(), missing)
    raise DataError(f"column {name!r} has dtype {values.dtype}, which no column can have")


def _from_integers(name: str, values: np.ndarray) -> Column:
    if values.size and max(abs(int(values.min())), abs(int(values.max()))) >= EXACT:
        return text_column(name, map(str, values.tolist()), note=BIG_NOTE)
    return Column(name, "number", values.astype(np.float64))


def _from_objects(name: str, cells: list[Any], missing: Sequence[str]) -> Column:
    """A column from Python objects: all of one kind, or else as text is read."""
    cells = [None if _is_gap(cell) else cell for cell in cells]
    types = {type(cell) for cell in cells if cell is not None}
    for one in types:
        if issubclass(one, dict | list | tuple | set | np.ndarray | complex):
            raise DataError(
                f"column {name!r} holds cells of type {one.__name__}; a cell has to be one value"
            )
    numbers = {t for t in types if issubclass(t, _NUMBERS) and t is not bool}
    if types <= {bool, np.bool_} and types:
        return Column(name, "boolean", np.array([-1 if c is None else int(c) for c in cells], "i1"))
    if types == numbers and not any(map(_is_rounded, cells)):
        return Column(name, "number", _floats(cells))
    if all(issubclass(t, date | np.datetime64) for t in types):
        moments = [
            c.astimezone(UTC).replace(tzinfo=None) if isinstance(c, datetime) and c.tzinfo else c
            for c in cells
        ]
        return Column(name, "datetime", np.array(moments, dtype="datetime64[us]"))
    if all(issubclass(t, timedelta | np.timedelta64) for t in types):
        return from_values(name, np.array(cells, dtype="timedelta64[us]"))
    texts = (None if cell is None else _plain(cell) for cell in cells)
    column = drop_missing(text_column(name, texts), missing)
    return settle(column) if numbers else refine(column)


_NUMBERS = (int, float, np.integer, np.floating, Decimal)


def _is_rounded(cell: Any) -> bool:
    """Whether the cell is a whole number that float64 may not hold."""
    if isinstance(cell, Decimal):
        return bool(cell.as_tuple().exponent == 0 and abs(cell) >= EXACT)
    return isinstance(cell, int | np.integer) and abs(int(cell)) >= EXACT


def _floats(cells: list[Any]) -> np.ndarray:
    return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)


def _is_gap(cell: Any) -> bool:
    if cell is None:
        return True
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):  # pandas.NA answers neither yes nor no
        return type(cell).__name__ in ("NAType", "NaTType")


def _plain(cell: Any) -> str:
    """One cell as text; 12.0 in a mixed column reads as 12, as it does in a column of numbers."""
    if isinstance(cell, float | np.floating):
        number = float(cell)
        whole = number.is_integer() and abs(number) < EXACT
        return f"{number + 0:.0f}" if whole else repr(number)
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "backslashreplace")
    return str(cell).lower() if isinstance(cell, bool | np.bool_) else str(cell)


def _from_series(name: str, series: nw.Series[Any], missing: Sequence[str]) -> Column:
    dtype = series.dtype
    if dtype.is_integer():
        if series.null_count() or dtype in (nw.Int128, nw.UInt128):
            return _from_objects(name, series.to_list(), missing)
        return _from_integers(name, series.to_numpy())
    if dtype.is_numeric() and dtype != nw.Decimal:
        return Column(name, "number", series.cast(nw.Float64).to_numpy().astype(np.float64))
    if dtype == nw.Boolean:
        return _from_objects(name, series.to_list(), missing)
    if dtype == nw.Datetime:
        if getattr(dtype, "time_zone", None):
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return Column(name, "datetime", series.to_numpy().astype("datetime64[us]"))
    if dtype == nw.Date:
        cells = [None if _is_gap(cell) else cell for cell in series.to_list()]
        return Column(name, "datetime", np.array(cells, dtype="datetime64[us]"))
    if dtype == nw.Duration:
        return from_values(name, series.to_numpy())
    cells = series.to_list()
    if dtype in (nw.List, nw.Struct, nw.Array):
        raise DataError(f"column {name!r} holds {dtype}; a cell has to be one value")
    if dtype in (nw.Categorical, nw.Enum):  # also of numbers: whoever says category means it
        texts = (None if _is_gap(cell) else _plain(cell) for cell in cells)
        return refine(drop_missing(text_column(name, texts), missing))
    return _from_objects(name, cells, missing)


def is_path(source: object) -> bool:
    """Whether the source names a file, and is not the data itself."""
    return isinstance(source, str | os.PathLike)
