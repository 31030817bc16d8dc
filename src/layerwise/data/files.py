"""Tables from files and SQL, through DuckDB, with types decided over the whole file.

DuckDB parses; it never guesses. Cells of CSV files arrive as text and a column is a number only if
every cell is one, so nothing is rounded, cut or stripped of its zeros on the way in.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerwise.data.delimited import read_csv
from layerwise.data.frames import table_of
from layerwise.data.kinds import with_gaps, with_kinds
from layerwise.data.opening import connect, expand, format_of, refuse_unreadable
from layerwise.data.table import MISSING, Kind, Table, is_path
from layerwise.data.typed import read_json, read_parquet
from layerwise.errors import DataError


def read_table(
    source: Any,
    *,
    kinds: Mapping[str, Kind] | None = None,
    columns: Iterable[str] | None = None,
    missing: Sequence[str] = MISSING,
    encoding: str = "utf-8",
) -> Table:
    """Read a table from a file, a glob, standard input or anything table-like in memory.

    Parameters
    ----------
    source : path of a CSV, TSV, JSON-lines or Parquet file, also gzipped or as a glob with ``*``;
        ``"-"`` for CSV on standard input; or a frame, a dict of columns, an array
    kinds : what the cells of a column have to be, for the columns where that is known; of the
        others the kind is decided over all rows
    columns : read only these, where they exist
    missing : words that count as gaps, also ``"-999"`` or ``"inf"`` in columns of numbers
    encoding : of text files, as Python names it

    Raises
    ------
    DataError
        If the source is no table, naming file, line, column and cell; if a cell is not of the
        kind that ``kinds`` asks for.

    Examples
    --------
    >>> table = read_table({"size": [50.5, 80.0], "town": ["Bonn", None]})
    >>> [(c.name, c.kind) for c in table.columns.values()]
    [('size', 'number'), ('town', 'text')]
    """
    if is_path(source):
        table = _read_paths(os.fspath(source), kinds or {}, columns, missing, encoding)
    else:
        table = table_of(source, missing=missing)
        if columns is not None:
            table = table.select([name for name in columns if name in table])
    if not table.columns and columns is None:
        raise DataError(f"{table.source} has no columns")
    return with_kinds(with_gaps(table, missing), kinds or {})


def _read_paths(
    source: str,
    kinds: Mapping[str, Kind],
    columns: Iterable[str] | None,
    missing: Sequence[str],
    encoding: str,
) -> Table:
    if source == "-":
        return _read_standard_input(kinds, columns, missing, encoding)
    paths = expand(source)
    for path in paths:
        refuse_unreadable(path)
    formats = {format_of(path) for path in paths}
    if len(formats) > 1:
        raise DataError(f"{source!r} matches files of several formats ({', '.join(formats)})")
    connection = connect()
    form = formats.pop()
    if form == "csv":
        return read_csv(connection, paths, kinds, columns, missing, encoding)
    if form == "json":
        return read_json(connection, paths, columns, missing, encoding)
    return read_parquet(connection, paths, columns, missing)


def _read_standard_input(
    kinds: Mapping[str, Kind],
    columns: Iterable[str] | None,
    missing: Sequence[str],
    encoding: str,
) -> Table:
    if sys.stdin is None:
        raise DataError("standard input is closed; name a table")
    data = sys.stdin.buffer.read()
    if not data.strip():
        raise DataError("standard input is empty; expected CSV with a header line")
    suffix = (
        ".parquet"
        if data[:4] == b"PAR1"
        else ".jsonl"
        if data.lstrip()[:1] in (b"{", b"[")
        else ".csv"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"standard-input{suffix}"
        path.write_bytes(data)
        try:
            table = _read_paths(str(path), kinds, columns, missing, encoding)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "standard input")) from None
    return Table(table.columns, table.n_rows, "standard input", (("standard input", table.n_rows),))
