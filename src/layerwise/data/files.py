"""Tables from files and SQL, through DuckDB, with types decided over the whole file.

DuckDB parses; it never guesses. Cells of CSV files arrive as text and a column is a number only if
every cell is one, so nothing is rounded, cut or stripped of its zeros on the way in.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import glob
import gzip
import io
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from layerwise.data.table import (
    BIG_NOTE,
    CONVERT,
    EXACT,
    LEADING_ZERO,
    MISSING,
    NUMBER,
    CellError,
    Column,
    Kind,
    Odd,
    Table,
    drop_missing,
    from_values,
    is_path,
    leading_zeros_note,
    refine,
    settle,
    table_of,
    text_column,
)
from layerwise.errors import DataError, SettingError

_CSV = (".csv", ".tsv", ".tab", ".txt", ".psv")
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_DELIMITERS = (",", ";", "\t", "|")


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
    return with_kinds(_with_gaps(table, missing), kinds or {})


def _with_gaps(table: Table, missing: Sequence[str]) -> Table:
    """The table with gaps for those numbers that stand among the missing words."""
    columns = {
        name: drop_missing(column, missing) if column.kind == "number" else column
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns)


def with_kinds(table: Table, kinds: Mapping[str, Kind]) -> Table:
    """The table with its columns turned into the kinds asked for, or an error naming the cell."""
    columns = dict(table.columns)
    for name, kind in kinds.items():
        if name in columns and columns[name].kind != kind:
            try:
                columns[name] = CONVERT[kind](columns[name])
            except CellError as error:
                raise error.located(table) from None
    return replace(table, columns=columns)


def read_sql(query: str, *, missing: Sequence[str] = MISSING) -> Table:
    """Read the answer of a SQL query over files, e.g. ``select * from 'sales.parquet'``.

    CSV and JSON files named in the query are read with the strict types of `read_table`.

    Raises
    ------
    DataError
        If the query fails; the message is DuckDB's own.
    """
    connection = _connect()
    try:
        _refuse_other_statements(connection, query)
        for path in _files_in(connection, query):
            _view_of_file(connection, path, missing)
        table = _from_relation(connection, connection.sql(query), "the query", missing)
    except duckdb.Error as error:
        raise DataError(f"the SQL query failed: {_first_line(error)}") from None
    if not table.n_rows:
        raise DataError("the query gives no rows")
    return _with_gaps(table, missing)


def _files_in(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    """The CSV and JSON files that a query reads by name; DuckDB would guess their types."""
    words = re.findall(r"'((?:[^']|'')+)'|\"((?:[^\"]|\"\")+)\"", query)
    paths = {one.replace("''", "'") or two.replace('""', '"') for one, two in words}
    return sorted(
        path
        for path in paths
        if _suffix(path) in (*_CSV, *_JSON) and (Path(path).exists() or glob.has_magic(path))
    )


def _refuse_other_statements(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Only questions: a table is read here, and nothing is made, changed or written."""
    kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if len(kinds) != 1 or kinds[0] not in ("SELECT", "MULTI"):  # PIVOT is a MULTI
        found = ", ".join(kinds) or "none"
        raise DataError(f"the SQL query has to be one SELECT; found {found}")


def _view_of_file(connection: duckdb.DuckDBPyConnection, path: str, missing: Sequence[str]) -> None:
    """Let the query see a file with the column types of `read_table`."""
    sql_type = {
        "number": "DOUBLE",
        "text": "VARCHAR",
        "boolean": "BOOLEAN",
        "datetime": "TIMESTAMP",
    }
    table = read_table(path, missing=missing)
    names = list(table.columns)
    fields = ", ".join(f"{_name(n)} {sql_type[table[n].kind]}" for n in names)
    connection.execute(f"CREATE TEMP TABLE {_name(path)} ({fields})")
    arrays = {}
    for i, name in enumerate(names):
        column = table[name]
        gaps = column.missing
        values = column.texts() if column.kind == "text" else column.values
        arrays[f"c{i}"] = np.ma.MaskedArray(values, gaps) if column.kind != "text" else values
    chosen = ", ".join(
        f"nullif(c{i}, 'NaN'::DOUBLE)" if table[n].kind == "number" else f"c{i}"
        for i, n in enumerate(names)
    )
    connection.register("layerwise_arrays", arrays)
    connection.execute(f"INSERT INTO {_name(path)} SELECT {chosen} FROM layerwise_arrays")
    connection.unregister("layerwise_arrays")


def from_relation(relation: Any, missing: Sequence[str] = ()) -> Table:
    """A table from a DuckDB relation."""
    names = list(relation.columns)
    _refuse_bad_names("the relation", names)
    for i, name in enumerate(names):
        twins = [other for other in names[:i] if other.lower() == name.lower()]
        if twins:
            raise DataError(
                f"the relation's columns {twins[0]!r} and {name!r} differ in nothing but case, "
                "which SQL does not tell apart; rename one"
            )
    if hasattr(relation, "materialize"):  # DuckDB 2: run it once, so that rows stay together
        relation = relation.materialize()
    places = [_name(name) for name in names]
    return _from_result(relation, names, places, "the relation", missing)


def from_arrow(stream: Any, missing: Sequence[str] = ()) -> Table:
    """A table from any object with ``__arrow_c_stream__``, which may give its rows only once."""
    connection = _connect()
    try:
        relation = connection.from_arrow(stream)
        return _from_relation(connection, relation, "the table", missing)
    except (duckdb.Error, ImportError) as error:
        raise DataError(f"the Arrow stream cannot be read: {_first_line(error)}") from None


def _from_relation(
    connection: duckdb.DuckDBPyConnection, relation: Any, source: str, missing: Sequence[str]
) -> Table:
    """The rows of a relation of our own, which is run once: it may sample, or draw numbers."""
    names = list(relation.columns)
    _refuse_bad_names(source, names)
    places = [f"c{i}" for i in range(len(names))]
    relation.create_view("given")
    connection.execute(
        f"CREATE TEMP TABLE answer AS SELECT * FROM given AS given({', '.join(places)})"
    )
    return _from_result(connection.table("answer"), names, places, source, missing)


# ---------------------------------------------------------------- files


def _connect() -> duckdb.DuckDBPyConnection:
    """A private database in memory that never fetches an extension from the network."""
    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "preserve_insertion_order": True,
        },
    )


def expand(source: str) -> list[str]:
    """The files that a path or glob names, sorted."""
    if Path(source).exists() or not glob.has_magic(source):
        return [source]
    paths = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    if not paths:
        raise DataError(f"no file matches {source!r} (looked in {Path.cwd()})")
    return paths


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
        _refuse_unreadable(path)
    formats = {_format(path) for path in paths}
    if len(formats) > 1:
        raise DataError(f"{source!r} matches files of several formats ({', '.join(formats)})")
    connection = _connect()
    form = formats.pop()
    if form == "csv":
        return _read_csv(connection, paths, kinds, columns, missing, encoding)
    if form == "json":
        return _read_json(connection, paths, columns, missing, encoding)
    return _read_parquet(connection, paths, columns, missing)


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
    suffix = ".parquet" if data[:4] == b"PAR1" else ".jsonl" if data[:1] == b"{" else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"standard-input{suffix}"
        path.write_bytes(data)
        try:
            table = _read_paths(str(path), kinds, columns, missing, encoding)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "standard input")) from None
    return Table(table.columns, table.n_rows, "standard input", (("standard input", table.n_rows),))


def _suffix(path: str) -> str:
    return Path(path.lower().removesuffix(".gz")).suffix


def _format(path: str) -> str:
    suffix = _suffix(path)
    for form, suffixes in (("csv", _CSV), ("json", _JSON), ("parquet", _PARQUET)):
        if suffix in suffixes:
            return form
    if _suffix(path) in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path} is a spreadsheet; save its sheet as CSV and read that")
    known = " ".join((*_CSV, *_JSON, *_PARQUET))
    raise DataError(
        f"{path}: cannot tell the format from the name. Known are {known}, each also with .gz; "
        "rename the file, or use --sql for what DuckDB can read."
    )


def _refuse_unreadable(path: str) -> None:
    file = Path(path)
    if not file.exists():
        raise DataError(f"{path}: there is no such file (looked in {Path.cwd()})")
    if file.is_dir():
        raise DataError(
            f"{path} is a folder; name a file in it, or use a glob such as '{path}/*.csv'"
        )
    try:
        with file.open("rb") as opened:
            start = opened.read(1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not start:
        raise DataError(f"{path} is empty; expected a header line and rows")


def _open(path: str) -> Any:
    """The file's bytes, unpacked."""
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else Path(path).open("rb")


@contextlib.contextmanager
def _plain(path: str, form: str, encoding: str = "utf-8") -> Iterator[str]:
    """The path of what DuckDB can read: the file itself, or a copy, unpacked and in UTF-8."""
    try:
        utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        with _open(path) as file:
            marked = file.read(3) == codecs.BOM_UTF8
        packed = form == "parquet" and path.lower().endswith(".gz")
        if not packed and (form == "parquet" or utf8) and not (form == "json" and marked):
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"copy.{form}"
            with _open(path) as file, copy.open("wb") as out:
                if form == "parquet":
                    shutil.copyfileobj(file, out)
                else:
                    name = "utf-8-sig" if utf8 else encoding
                    text = io.TextIOWrapper(file, name, newline="")
                    while piece := text.read(1 << 20):
                        out.write(piece.encode())
            yield str(copy)
    except LookupError:
        raise SettingError(f"unknown encoding {encoding!r}; try utf-8, latin-1 or utf-16") from None
    except UnicodeError as error:
        raise DataError(
            f"{path}: the text is not {encoding} ({error}). Say --encoding with the one it has."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


# ---------------------------------------------------------------- CSV


def _read_csv(
    connection: duckdb.DuckDBPyConnection,
    paths: list[str],
    kinds: Mapping[str, Kind],
    columns: Iterable[str] | None,
    missing: Sequence[str],
    encoding: str,
) -> Table:
    """All cells as text first, then each column as what all its cells are."""
    heads = [_head(path, encoding) for path in paths]
    names = heads[0][0]
    for path, (others, _) in zip(paths, heads):
        _refuse_other_columns(paths[0], names, path, others)
    parts: list[tuple[str, int]] = []
    for i, (path, (header, delimiter)) in enumerate(zip(paths, heads)):
        fields = "{" + ", ".join(f"{_text(f'f{k}')}: 'VARCHAR'" for k in range(len(header))) + "}"
        chosen = ", ".join(f"f{header.index(name)} AS c{k}" for k, name in enumerate(names))
        scan = (
            f"SELECT {chosen} FROM read_csv(?, columns={fields}, auto_detect=false, header=true, "
            f"delim={_text(delimiter)}, quote='\"', escape='\"', "
            "null_padding=false, strict_mode=true)"
        )
        verb = "CREATE TEMP TABLE cells AS" if i == 0 else "INSERT INTO cells"
        with _plain(path, "csv", encoding) as plain, _explained(path, encoding):
            connection.execute(f"{verb} {scan}", [_literal(plain)])
        total = _scalar(connection, "SELECT count(*) FROM cells")
        parts.append((path, total - sum(n for _, n in parts)))
    n_rows = sum(n for _, n in parts)
    source = paths[0] if len(paths) == 1 else f"{len(paths)} files ({paths[0]} …)"
    if not n_rows:
        raise DataError(f"{source} has a header and no rows below it")
    table = Table({}, n_rows, source, tuple(parts))
    wanted = set(names if columns is None else columns)
    places = {name: f"c{k}" for k, name in enumerate(names) if name in wanted}
    facts = _number_facts(connection, places, missing)
    result = {}
    for name, place in places.items():
        kind = kinds.get(name)
        try:
            result[name] = _csv_column(connection, name, place, facts[name], kind, missing)
        except CellError as error:
            raise error.located(table) from None
    return Table(result, table.n_rows, table.source, table.parts)


def _head(path: str, encoding: str) -> tuple[list[str], str]:
    """The column names and the delimiter, from the first lines."""
    with _plain(path, "csv", encoding) as plain, _open(plain) as file:
        start = file.read(1 << 16)
        more = file.read(1)
        if b"\n" not in start:  # a header of thousands of columns
            start += more + file.readline(1 << 26)
    if b"\0" in start or start[:4] in (b"PAR1", b"PK\x03\x04"):
        raise DataError(
            f"{path} is not text: it has zero bytes or another format's signature at its start. "
            "Rename it if it is Parquet, save it as CSV if it is a spreadsheet, or say "
            "--encoding utf-16 if it is text of that encoding."
        )
    text = start.decode("utf-8-sig", "replace")
    if not text.strip():
        raise DataError(f"{path} is empty; expected a header line and rows")
    if not text.splitlines()[0].strip(" "):
        raise DataError(f"{path} line 1 is blank; expected the names of the columns")
    delimiter = _delimiter(path, text[: text.rfind("\n") + 1] if more else text)
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path} line 1 cannot be read: {error}") from None
    _refuse_bad_names(path, names)
    return names, delimiter


def _delimiter(path: str, text: str) -> str:
    """What parts the cells: as the file is called, or what parts the first lines alike."""
    said = {".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(_suffix(path))
    if said and said in text:
        return said

    def agreement(delimiter: str) -> tuple[bool, int]:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            widths = [len(cells) for cells in itertools.islice(lines, 20) if cells]
        except csv.Error:  # the whole line as one huge cell
            return False, 0
        return widths[0] > 1 and len(set(widths)) == 1, widths[0]

    return max(_DELIMITERS, key=agreement)


def _refuse_bad_names(source: str, names: Sequence[str]) -> None:
    """Every column needs a name of its own."""
    if any(ord(one) < 32 and not one.isspace() for name in names for one in name):
        raise DataError(f"{source} is not text: its header has control characters; is it a table?")
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise DataError(
                f"{source}: column {place} of {len(names)} has no name. "
                "Name it, or leave the column out (pandas writes one with index=True)."
            )
        if name in names[: place - 1]:
            raise DataError(
                f"{source}: two columns are called {name!r} (number {names.index(name) + 1} and "
                f"{place}); give every column its own name."
            )


def _refuse_other_columns(first: str, names: list[str], path: str, others: list[str]) -> None:
    gone = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if gone:
        raise DataError(f"{path} has no column {gone[0]!r}, which {first} has")
    if extra:
        raise DataError(f"{path} has a column {extra[0]!r}, which {first} has not")


def _number_facts(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], missing: Sequence[str]
) -> dict[str, dict[str, int]]:
    """For each column: cells present, numbers, leading zeros, whole numbers beyond 2^53."""
    if not places:
        return {}
    tests = {
        "present": "count({})",
        "numbers": f"count(*) FILTER (regexp_full_match({{}}, {_text(NUMBER)}))",
    }
    facts = _count(connection, places, tests, missing)
    numbers = {n: p for n, p in places.items() if 0 < facts[n]["numbers"] == facts[n]["present"]}
    tests = {
        "zeros": f"count(*) FILTER (regexp_full_match({{}}, {_text(LEADING_ZERO)}))",
        "big": "count(*) FILTER (length({0}) > 15 AND regexp_full_match({0}, '[+-]?\\d+') "
        f"AND abs(CAST({{0}} AS DOUBLE)) >= {EXACT})",
    }
    for name, more in _count(connection, numbers, tests, missing).items():
        facts[name] |= more
    return facts


def _count(
    connection: duckdb.DuckDBPyConnection,
    places: Mapping[str, str],
    tests: Mapping[str, str],
    missing: Sequence[str],
) -> dict[str, dict[str, int]]:
    """For each column the value of each aggregate, in passes over eight columns.

    DuckDB's planner takes a time that grows with the square of the columns in one pass.
    """
    found: dict[str, dict[str, int]] = {}
    columns = list(places.items())
    for some in (columns[i : i + 8] for i in range(0, len(columns), 8)):
        cells = ", ".join(f"{_cell(place, missing)} AS {place}" for _, place in some)
        fields = [test.format(place) for _, place in some for test in tests.values()]
        query = f"SELECT {', '.join(fields)} FROM (SELECT {cells} FROM cells)"
        counts = iter(connection.execute(query).fetchall()[0])
        found |= {name: {test: next(counts) for test in tests} for name, _ in some}
    return found


def _csv_column(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    place: str,
    facts: Mapping[str, int],
    kind: Kind | None,
    missing: Sequence[str],
) -> Column:
    cell = _cell(place, missing)
    all_numbers = 0 < facts["present"] == facts["numbers"]
    if not facts["present"] and kind in (None, "number"):
        return Column(
            name, "number", np.full(_scalar(connection, "SELECT count(*) FROM cells"), np.nan)
        )
    if kind == "number" or kind is None:
        if all_numbers and (kind or not (facts["zeros"] or facts["big"])):
            values = _fetch(connection, f"CAST({cell} AS DOUBLE)")
            return Column(name, "number", np.ma.filled(values.astype(np.float64), np.nan))
        odd = facts["present"] - facts["numbers"]
        if kind == "number" and odd:
            row, text = _odd_cells(connection, cell, 1)[0]
            raise CellError(name, row, text, odd, "a number")
    note = ""
    if kind is None and all_numbers:
        note = leading_zeros_note(facts["zeros"]) if facts["zeros"] else BIG_NOTE
    exact = f"CASE WHEN {cell} IS NULL THEN NULL ELSE {place} END"
    column = text_column(name, _fetch(connection, exact).tolist(), note=note)
    if kind is None and not note:
        odd = facts["present"] - facts["numbers"]
        if 0 < odd <= 0.1 * facts["present"]:
            examples = tuple(_odd_cells(connection, cell, 5))
            share = odd / facts["present"]
            return Column(
                name, "text", column.values, column.levels, odd=Odd("number", odd, share, examples)
            )
        return refine(column)
    return column


def _cell(place: str, missing: Sequence[str]) -> str:
    """SQL for a cell without spaces around it, NULL where it says 'missing'."""
    tokens = ", ".join(_text(token.strip()) for token in (*missing, ""))
    return f"(CASE WHEN trim({place}) IN ({tokens}) THEN NULL ELSE trim({place}) END)"


def _odd_cells(
    connection: duckdb.DuckDBPyConnection, cell: str, limit: int
) -> list[tuple[int, str]]:
    return connection.execute(
        f"SELECT rowid, {cell} FROM cells WHERE {cell} IS NOT NULL AND "
        f"NOT regexp_full_match({cell}, {_text(NUMBER)}) ORDER BY rowid LIMIT {limit}"
    ).fetchall()


def _fetch(connection: duckdb.DuckDBPyConnection, expression: str) -> np.ndarray:
    """One column of the cells, in the order of the file; gaps are None or masked."""
    return _gaps_as_none(
        connection.execute(f"SELECT {expression} AS v FROM cells").fetchnumpy()["v"]
    )


def _gaps_as_none(values: np.ndarray) -> np.ndarray:
    """Masked objects as plain ones; other masked arrays stay as they are."""
    if isinstance(values, np.ma.MaskedArray) and values.dtype == object:
        return np.where(np.ma.getmaskarray(values), None, values.data)  # type: ignore[call-overload]
    return values


# ---------------------------------------------------------------- Parquet, JSON lines, SQL


def _read_parquet(
    connection: duckdb.DuckDBPyConnection,
    paths: list[str],
    columns: Iterable[str] | None,
    missing: Sequence[str],
) -> Table:
    """Parquet files, with the types that they declare."""
    parts = []
    pieces: list[Table] = []
    names: list[str] = []
    wanted = None if columns is None else set(columns)
    for path in paths:
        with _plain(path, "parquet") as plain, _explained(path):
            own = _parquet_names(connection, plain)
            _refuse_bad_names(path, own)
            names = names or own
            _refuse_other_columns(paths[0], names, path, own)
            places = [f"c{i}" for i in range(len(own))]
            relation = connection.sql(
                f"SELECT * FROM read_parquet(?) AS file({', '.join(places)})",
                params=[_literal(plain)],
            )
            count = relation.aggregate("count(*)").fetchall()
            parts.append((path, int(count[0][0])))
            pieces.append(_from_result(relation, own, places, path, missing, wanted))
    return _joined(pieces, parts)


def _parquet_names(connection: duckdb.DuckDBPyConnection, path: str) -> list[str]:
    """The columns' names as they stand in the file; DuckDB renames those that differ in case."""
    nodes = connection.execute(
        "SELECT name, coalesce(num_children, 0) FROM parquet_schema(?)", [_literal(path)]
    ).fetchall()
    names = []
    inside = 0  # nodes that belong to a nested column
    for name, children in nodes[1:]:
        if inside:
            inside -= 1
        else:
            names.append(name)
        inside += children
    return names


def _read_json(
    connection: duckdb.DuckDBPyConnection,
    paths: list[str],
    columns: Iterable[str] | None,
    missing: Sequence[str],
    encoding: str,
) -> Table:
    """JSON lines, or one array of objects; the keys of all rows, a key that is not there a gap."""
    parts: list[tuple[str, int]] = []
    for i, path in enumerate(paths):
        verb = "CREATE TEMP TABLE lines AS" if i == 0 else "INSERT INTO lines"
        with _plain(path, "json", encoding) as plain:
            with _open(plain) as file:
                array = file.read(1 << 16).lstrip()[:1] == b"["
            form = "array" if array else "newline_delimited"
            scan = f"SELECT json FROM read_json_objects(?, format='{form}')"
            with _explained(path, encoding):
                connection.execute(f"{verb} {scan}", [_literal(plain)])
        total = _scalar(connection, "SELECT count(*) FROM lines")
        parts.append((path, total - sum(n for _, n in parts)))
    lines = _joined([Table({}, total)], parts)
    keys = "list_sort(json_keys(json))"
    for row, text in connection.execute(
        "SELECT rowid, json::VARCHAR FROM lines WHERE json_type(json) <> 'OBJECT' "
        f"OR len({keys}) <> len(list_distinct({keys})) ORDER BY rowid LIMIT 1"
    ).fetchall():
        cell = text if len(text) <= 40 else text[:37] + "..."
        raise DataError(f"{lines.where(row)} is no JSON object with different keys: {cell}")
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM (SELECT unnest(json_keys(json)) AS name, rowid AS line, "
            "generate_subscripts(json_keys(json), 1) AS place FROM lines) "
            "GROUP BY name ORDER BY min(line * 1000000 + place)"
        ).fetchall()
    ]
    if not names:
        raise DataError(f"{lines.source} has no columns")
    _refuse_bad_names(lines.source, names)
    wanted = set(names if columns is None else columns)
    relation = connection.table("lines")
    found = {n: _json_column(relation, n, missing) for n in names if n in wanted}
    return replace(lines, columns=found)


def _joined(pieces: list[Table], parts: list[tuple[str, int]]) -> Table:
    """One table from those of the files, which has rows."""
    first = parts[0][0]
    source = first if len(parts) == 1 else f"{len(parts)} files ({first} …)"
    n_rows = sum(n for _, n in parts)
    if not n_rows:
        raise DataError(f"{source} has no rows")
    table = pieces[0] if len(pieces) == 1 else _stack(pieces)
    return Table(table.columns, n_rows, source, tuple(parts))


def _from_result(
    relation: Any,
    names: Sequence[str],
    places: Sequence[str],
    source: str,
    missing: Sequence[str],
    wanted: set[str] | None = None,
) -> Table:
    """The columns of a DuckDB relation, one at a time so that memory stays small."""
    columns = {}
    n_rows = 0
    for name, place, dtype in zip(names, places, relation.types):
        if wanted is not None and name not in wanted:
            continue
        columns[name] = _typed_column(relation, name, place, str(dtype), missing)
        n_rows = len(columns[name])
    return Table(columns, n_rows, source, ((source, n_rows),))


_NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*|BIGNUM)$")


def _typed_column(
    relation: Any, name: str, place: str, dtype: str, missing: Sequence[str]
) -> Column:
    """One column of a relation, of the type that it declares."""
    if dtype.endswith("]") or dtype.startswith(("STRUCT", "MAP", "UNION", "BLOB")):
        raise DataError(f"column {name!r} holds {dtype}; a cell has to be one value")
    if _NUMERIC.match(dtype):
        whole = "INT" in dtype or dtype == "BIGNUM" or dtype.endswith(",0)")
        if whole and _any(relation, f"abs({place}::DOUBLE) >= {EXACT}"):
            return text_column(name, _values(relation, f"{place}::VARCHAR").tolist(), note=BIG_NOTE)
        values = _values(relation, f"{place}::DOUBLE")
        return Column(name, "number", np.ma.filled(values.astype(np.float64), np.nan))
    if dtype == "BOOLEAN":
        return from_values(name, _values(relation, place))
    if dtype == "DATE" or dtype.startswith("TIMESTAMP"):
        time = f"{place}::{'TIMESTAMPTZ' if 'ZONE' in dtype else 'TIMESTAMP'}"
        micros = _values(relation, f"epoch_us({time})")
        times = np.ma.filled(micros, 0).astype("datetime64[us]")
        times[np.ma.getmaskarray(micros)] = np.datetime64("NaT")
        return Column(name, "datetime", times)
    texts = text_column(name, _values(relation, f"{place}::VARCHAR").tolist())
    return refine(drop_missing(texts, missing))


def _json_column(relation: Any, name: str, missing: Sequence[str]) -> Column:
    """A column of JSON values: numbers, true/false or strings, as all of them are."""
    key = _text("/" + name.replace("~", "~0").replace("/", "~1"))
    found = relation.project(f"json_type(json, {key}) AS t").filter("t <> 'NULL'")
    types = {row[0] for row in found.distinct().fetchall()}
    if types & {"OBJECT", "ARRAY"}:
        raise DataError(f"column {name!r} holds nested JSON; a cell has to be one value")
    text = f"(json ->> {key})"
    numbers = types & {"UBIGINT", "BIGINT", "DOUBLE", "HUGEINT", "UHUGEINT"}
    whole = f"regexp_full_match({text}, '-?\\d{{16,}}')"
    if types == numbers and not _any(relation, f"{whole} AND abs({text}::DOUBLE) >= {EXACT}"):
        values = _values(relation, f"{text}::DOUBLE")
        return Column(name, "number", np.ma.filled(values.astype(np.float64), np.nan))
    if types == {"BOOLEAN"}:
        return from_values(name, _values(relation, f"{text}::BOOLEAN"))
    column = drop_missing(text_column(name, _values(relation, text).tolist()), missing)
    return settle(column) if numbers else refine(column)


def _values(relation: Any, expression: str) -> np.ndarray:
    return _gaps_as_none(relation.project(f"{expression} AS v").fetchnumpy()["v"])


def _any(relation: Any, condition: str) -> bool:
    found = relation.filter(condition).limit(1).fetchall()
    return bool(found)


def _stack(tables: list[Table]) -> Table:
    """Tables with the same columns, one below the other."""
    columns = {}
    for name in tables[0].columns:
        pieces = [table[name] for table in tables]
        kinds = {piece.kind for piece in pieces}
        if len(kinds) > 1:
            filled = {p.kind for p in pieces if not p.missing.all()}
            kind = filled.pop() if len(filled) == 1 else "text"
            pieces = [
                p
                if p.kind == kind
                else _empty_like(p, kind)
                if p.missing.all()
                else CONVERT[kind](p)
                for p in pieces
            ]
        if pieces[0].kind == "text":
            texts = np.concatenate([p.texts() for p in pieces]).tolist()
            note = next((p.note for p in pieces if p.note), "")
            columns[name] = refine(text_column(name, texts, note=note))
        else:
            values = np.concatenate([piece.values for piece in pieces])
            columns[name] = Column(name, pieces[0].kind, values)
    return Table(columns, sum(table.n_rows for table in tables))


def _empty_like(column: Column, kind: Kind) -> Column:
    gap = {
        "number": np.nan,
        "text": np.int32(-1),
        "boolean": np.int8(-1),
        "datetime": np.datetime64("NaT", "us"),
    }[kind]
    return Column(column.name, kind, np.full(len(column), gap))


# ---------------------------------------------------------------- SQL text and DuckDB's messages


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _literal(path: str) -> str:
    """The path with its glob characters taken literally; globs are already expanded."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _first_line_not(path: str, encoding: str) -> int | None:
    """The number of the first line that is not UTF-8, if the text should be; DuckDB often blames
    such a line for something else."""
    if _suffix(path) not in _CSV or encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return None
    opened = gzip.open if path.lower().endswith(".gz") else open
    with contextlib.suppress(OSError), opened(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


@contextlib.contextmanager
def _explained(path: str, encoding: str = "utf-8") -> Iterator[None]:
    """DuckDB's errors as ours."""
    try:
        yield
    except duckdb.Error as error:
        raise DataError(_explain(error, path, encoding)) from None


def _explain(error: duckdb.Error, path: str, encoding: str) -> str:
    """DuckDB's complaint about a file, in a sentence with file, line and the next step."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    place = f"{path} line {line.group(1)}" if line else path
    wrong = _first_line_not(path, encoding)
    if wrong:
        return (
            f"{path} line {wrong}: the text is not {encoding}. Say --encoding latin-1 (or the "
            "encoding it has), or save the file as UTF-8."
        )
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if counts:
        return (
            f"{place}: {counts.group(2)} cells where the header has {counts.group(1)}. "
            "Correct the line, or put cells that contain the delimiter in double quotes."
        )
    if "magic bytes" in text.lower():
        return f"{path} is no Parquet file, or was not copied whole; make it again"
    if "maximum line size" in text.lower():
        return f"{place}: a line is longer than 2 MB; is this a table?"
    if "invalid state" in text.lower():
        return (
            f"{place}: its lines end in different ways (CRLF and LF), or quotes are out of place. "
            "Save it with one kind of line end."
        )
    if "unterminated quote" in text.lower():
        return f"{place}: a double quote is never closed, or text follows a closed one"
    if "unicode" in text.lower() or "utf-8" in text.lower() or "encod" in text.lower():
        return (
            f"{place}: the text is not {encoding}. Say --encoding latin-1 (or the encoding it "
            "has), or save the file as UTF-8."
        )
    if _suffix(path) in _JSON:
        return _explain_json(path, _first_line(error))
    return f"{place} cannot be read: {_first_line(error)}"


def _explain_json(path: str, complaint: str) -> str:
    """Which line of a JSON file is no JSON; DuckDB counts from another one."""
    with _open(path) as file:
        lines = file.read().lstrip()
    if not lines.startswith(b"["):
        for number, line in enumerate(lines.splitlines(), start=1):
            try:
                json.loads(line or b"{}")
            except ValueError:
                return (
                    f"{path} line {number} is no JSON; expected one object on each line, such as "
                    '{"size": 50.5, "town": "Ulm"}'
                )
    return f"{path} cannot be read: {complaint.replace(path, 'the file')}"
