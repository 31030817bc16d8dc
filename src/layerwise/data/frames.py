"""Tables from what is in memory: frames of any library, dicts of columns, arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from layerwise.data.kinds import EXACT, drop_missing, in_utc, refine, settle
from layerwise.data.table import BIG_NOTE, Column, Table, text_column
from layerwise.errors import DataError


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
        from layerwise.data.sql import from_relation

        return from_relation(data, missing)
    try:
        frame = nw.from_native(data)
    except TypeError:
        if hasattr(data, "__arrow_c_stream__"):
            from layerwise.data.sql import from_arrow

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
        with contextlib.suppress(OverflowError):  # a moment that UTC has not; it stays text
            moments = [in_utc(c) if isinstance(c, datetime) else c for c in cells]
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
