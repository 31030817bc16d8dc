"""Sources that carry types: Parquet, JSON lines, and the answers of DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np

from layerwise.data.frames import from_values
from layerwise.data.kinds import CONVERT, EXACT, drop_missing, refine, settle
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
)
from layerwise.data.table import BIG_NOTE, Column, Kind, Table, text_column
from layerwise.errors import DataError


def read_parquet(
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
        with plain_copy(path, "parquet") as plain, explained(path):
            own = _parquet_names(connection, plain)
            refuse_bad_names(path, own)
            names = names or own
            refuse_other_columns(paths[0], names, path, own)
            places = [f"c{i}" for i in range(len(own))]
            relation = connection.sql(
                f"SELECT * FROM read_parquet(?) AS file({', '.join(places)})",
                params=[glob_literal(plain)],
            )
            count = relation.aggregate("count(*)").fetchall()
            parts.append((path, int(count[0][0])))
            pieces.append(from_result(relation, own, places, path, missing, wanted))
    return _joined(pieces, parts)


def _parquet_names(connection: duckdb.DuckDBPyConnection, path: str) -> list[str]:
    """The columns' names as they stand in the file; DuckDB renames those that differ in case."""
    nodes = connection.execute(
        "SELECT name, coalesce(num_children, 0) FROM parquet_schema(?)", [glob_literal(path)]
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


def read_json(
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
        with plain_copy(path, "json", encoding) as plain:
            with open_plain(plain) as file:
                array = file.read(1 << 16).lstrip()[:1] == b"["
            form = "array" if array else "newline_delimited"
            scan = f"SELECT json FROM read_json_objects(?, format='{form}')"
            with explained(path, encoding):
                connection.execute(f"{verb} {scan}", [glob_literal(plain)])
        total = scalar(connection, "SELECT count(*) FROM lines")
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
    refuse_bad_names(lines.source, names)
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


def from_result(
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
    key = sql_text("/" + name.replace("~", "~0").replace("/", "~1"))
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
    return gaps_as_none(relation.project(f"{expression} AS v").fetchnumpy()["v"])


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
