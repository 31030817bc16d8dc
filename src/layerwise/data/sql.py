"""Tables from SQL over files, DuckDB relations and Arrow streams."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from layerwise.data.files import read_table
from layerwise.data.kinds import with_gaps
from layerwise.data.opening import (
    CSV,
    JSON,
    connect,
    first_line,
    refuse_bad_names,
    sql_name,
    suffix_of,
)
from layerwise.data.table import MISSING, Table
from layerwise.data.typed import from_result
from layerwise.errors import DataError


def read_sql(query: str, *, missing: Sequence[str] = MISSING) -> Table:
    """Read the answer of a SQL query over files, e.g. ``select * from 'sales.parquet'``.

    CSV and JSON files named in the query are read with the strict types of `read_table`.

    Raises
    ------
    DataError
        If the query fails; the message is DuckDB's own.
    """
    connection = connect()
    try:
        _refuse_other_statements(connection, query)
        _refuse_guessing(query)
        for path in _files_in(connection, query):
            _view_of_file(connection, path, missing)
        table = _from_relation(connection, connection.sql(query), "the query", missing)
    except duckdb.Error as error:
        raise DataError(f"the SQL query failed: {first_line(error)}") from None
    if not table.n_rows:
        raise DataError("the query gives no rows")
    return with_gaps(table, missing)


def _files_in(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    """The CSV and JSON files that a query reads by name; DuckDB would guess their types."""
    words = re.findall(r"'((?:[^']|'')+)'|\"((?:[^\"]|\"\")+)\"", query)
    paths = {one.replace("''", "'") or two.replace('""', '"') for one, two in words}
    return sorted(
        path
        for path in paths
        if suffix_of(path) in (*CSV, *JSON) and (Path(path).exists() or glob.has_magic(path))
    )


def _refuse_other_statements(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Only questions: a table is read here, and nothing is made, changed or written."""
    kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if len(kinds) != 1 or kinds[0] not in ("SELECT", "MULTI"):  # PIVOT is a MULTI
        found = ", ".join(kinds) or "none"
        raise DataError(f"the SQL query has to be one SELECT; found {found}")


_GUESSING = re.compile(r"\b(read_csv(_auto)?|read_json(_auto)?|sniff_csv)\s*\(", re.IGNORECASE)


def _refuse_guessing(query: str) -> None:
    """DuckDB's own readers decide types on a sample of the rows, and round what does not fit."""
    found = _GUESSING.search(query)
    told = re.search(r"sample_size\s*=\s*-1|all_varchar|auto_detect\s*=\s*false", query, re.I)
    if found and not told:
        raise DataError(
            f"the SQL query calls {found.group(1)}, which guesses types from the first rows. Name "
            "the file instead (from 'x.csv'), which is read whole before it is decided; or say "
            "sample_size = -1"
        )


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
    fields = ", ".join(f"{sql_name(n)} {sql_type[table[n].kind]}" for n in names)
    connection.execute(f"CREATE TEMP TABLE {sql_name(path)} ({fields})")
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
    connection.execute(f"INSERT INTO {sql_name(path)} SELECT {chosen} FROM layerwise_arrays")
    connection.unregister("layerwise_arrays")


def from_relation(relation: Any, missing: Sequence[str] = ()) -> Table:
    """A table from a DuckDB relation."""
    names = list(relation.columns)
    refuse_bad_names("the relation", names)
    for i, name in enumerate(names):
        twins = [other for other in names[:i] if other.lower() == name.lower()]
        if twins:
            raise DataError(
                f"the relation's columns {twins[0]!r} and {name!r} differ in nothing but case, "
                "which SQL does not tell apart; rename one"
            )
    if hasattr(relation, "materialize"):  # DuckDB 2: run it once, so that rows stay together
        relation = relation.materialize()
    places = [sql_name(name) for name in names]
    return from_result(relation, names, places, "the relation", missing)


def from_arrow(stream: Any, missing: Sequence[str] = ()) -> Table:
    """A table from any object with ``__arrow_c_stream__``, which may give its rows only once."""
    connection = connect()
    try:
        relation = connection.from_arrow(stream)
        return _from_relation(connection, relation, "the table", missing)
    except (duckdb.Error, ImportError) as error:
        raise DataError(f"the Arrow stream cannot be read: {first_line(error)}") from None


def _from_relation(
    connection: duckdb.DuckDBPyConnection, relation: Any, source: str, missing: Sequence[str]
) -> Table:
    """The rows of a relation of our own, which is run once: it may sample, or draw numbers."""
    names = list(relation.columns)
    refuse_bad_names(source, names)
    places = [f"c{i}" for i in range(len(names))]
    relation.create_view("given")
    connection.execute(
        f"CREATE TEMP TABLE answer AS SELECT * FROM given AS given({', '.join(places)})"
    )
    return from_result(connection.table("answer"), names, places, source, missing)
