"""CSV and its kin: all cells as text first, then each column as what all its cells are."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import duckdb
import numpy as np

from layerwise.data.kinds import (
    EXACT,
    LEADING_ZERO,
    NUMBER,
    CellError,
    drop_missing,
    leading_zeros_note,
    refine,
)
from layerwise.data.opening import (
    explained,
    gaps_as_none,
    glob_literal,
    open_plain,
    plain_copy,
    refuse_bad_names,
    refuse_other_columns,
    scalar,
    sql_text,
    suffix_of,
)
from layerwise.data.table import BIG_NOTE, Column, Kind, Odd, Table, text_column
from layerwise.errors import DataError

_DELIMITERS = (",", ";", "\t", "|")


def read_csv(
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
        refuse_other_columns(paths[0], names, path, others)
    parts: list[tuple[str, int]] = []
    gaps = ", ".join(sql_text(token) for token in dict.fromkeys((*missing, "")))
    for i, (path, (header, delimiter)) in enumerate(zip(paths, heads)):
        fields = (
            "{" + ", ".join(f"{sql_text(f'f{k}')}: 'VARCHAR'" for k in range(len(header))) + "}"
        )
        chosen = ", ".join(f"f{header.index(name)} AS c{k}" for k, name in enumerate(names))
        scan = (
            f"SELECT {chosen} FROM read_csv(?, columns={fields}, auto_detect=false, header=true, "
            f"delim={sql_text(delimiter)}, quote='\"', escape='\"', "
            f"null_padding=false, strict_mode=true, nullstr=[{gaps}])"
        )
        verb = "CREATE TEMP TABLE cells AS" if i == 0 else "INSERT INTO cells"
        with plain_copy(path, "csv", encoding) as plain, explained(path, encoding):
            connection.execute(f"{verb} {scan}", [glob_literal(plain)])
        total = scalar(connection, "SELECT count(*) FROM cells")
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
    with plain_copy(path, "csv", encoding) as plain, open_plain(plain) as file:
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
    refuse_bad_names(path, names)
    return names, delimiter


def _delimiter(path: str, text: str) -> str:
    """What parts the cells: as the file is called, or what parts the first lines alike."""
    said = {".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(suffix_of(path))
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


def _matches(pattern: str) -> str:
    """SQL, with a place for the cell: the cell is of the pattern, spaces around it apart."""
    return f"regexp_full_match({{0}}, {sql_text(f' *({pattern}) *')})"


def _number_facts(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], missing: Sequence[str]
) -> dict[str, dict[str, int]]:
    """For each column: cells present, numbers, leading zeros, whole numbers beyond 2^53.

    The words for gaps are NULL already, but those with spaces around them; such cells are looked
    for only where a column would be numbers without them.
    """
    tests = {"present": "count({0})", "numbers": f"count(*) FILTER ({_matches(NUMBER)})"}
    facts = _count(connection, places, tests)
    mixed = {n: p for n, p in places.items() if 0 < facts[n]["numbers"] < facts[n]["present"]}
    tokens = ", ".join(sql_text(token.strip()) for token in (*missing, ""))
    for place in mixed.values():
        connection.execute(f"UPDATE cells SET {place} = NULL WHERE trim({place}) IN ({tokens})")
    facts |= _count(connection, mixed, tests)
    numbers = {n: p for n, p in places.items() if 0 < facts[n]["numbers"] == facts[n]["present"]}
    whole = _matches("[+-]?\\d{16,}")
    tests = {
        "zeros": f"count(*) FILTER ({_matches(LEADING_ZERO)})",
        "big": f"count(*) FILTER ({whole} AND abs(CAST({{0}} AS DOUBLE)) >= {EXACT})",
    }
    for name, more in _count(connection, numbers, tests).items():
        facts[name] |= more
    return facts


def _count(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], tests: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """For each column the value of each aggregate, in passes over eight columns.

    DuckDB's planner takes a time that grows with the square of the columns in one pass.
    """
    found: dict[str, dict[str, int]] = {}
    columns = list(places.items())
    for some in (columns[i : i + 8] for i in range(0, len(columns), 8)):
        fields = [test.replace("{0}", place) for _, place in some for test in tests.values()]
        counts = iter(connection.execute(f"SELECT {', '.join(fields)} FROM cells").fetchall()[0])
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
    """One column as the kind it has to be, or as what all its cells are."""
    present, odd = facts["present"], facts["present"] - facts["numbers"]
    if kind in (None, "number") and not odd:
        if not present:
            n_rows = scalar(connection, "SELECT count(*) FROM cells")
            return Column(name, "number", np.full(n_rows, np.nan))
        if kind or not (facts["zeros"] or facts["big"]):
            values = _fetch(connection, f"CAST({place} AS DOUBLE)")
            return Column(name, "number", np.ma.filled(values.astype(np.float64), np.nan))
    if kind == "number":
        row, text = _odd_cells(connection, place, 1)[0]
        raise CellError(name, row, text, odd, "a number")
    column = drop_missing(text_column(name, _fetch(connection, place).tolist()), missing)
    if kind is None and not column.levels:
        return Column(name, "number", np.full(len(column), np.nan))
    if kind is not None:
        return column
    if not odd:
        note = leading_zeros_note(facts["zeros"]) if facts["zeros"] else BIG_NOTE
        return replace(column, note=note)
    if odd <= 0.1 * present:
        examples = tuple(_odd_cells(connection, place, 5))
        return replace(column, odd=Odd("number", odd, odd / present, examples))
    return refine(column)


def _odd_cells(
    connection: duckdb.DuckDBPyConnection, place: str, limit: int
) -> list[tuple[int, str]]:
    """Row, counted from 0, and text of the first cells that are no numbers."""
    return connection.execute(
        f"SELECT rowid, trim({place}) FROM cells WHERE {place} IS NOT NULL AND "
        f"NOT {_matches(NUMBER).replace('{0}', place)} ORDER BY rowid LIMIT {limit}"
    ).fetchall()


def _fetch(connection: duckdb.DuckDBPyConnection, expression: str) -> np.ndarray:
    """One column of the cells, in the order of the file; gaps are None or masked."""
    return gaps_as_none(
        connection.execute(f"SELECT {expression} AS v FROM cells").fetchnumpy()["v"]
    )
