"""What each column of a table is, and why: inferred over all rows, editable as TOML, enforced.

A schema is a plain list of columns with roles. `infer_schema` proposes it, people change it,
and everything after it (encoder, target, split) obeys it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from layerwise.data.kinds import CellError, plain_levels, to_boolean, to_datetime, to_number
from layerwise.data.table import MISSING, Column, Kind, Table, to_text
from layerwise.errors import DataError, SettingError, did_you_mean

Role = Literal[
    "number", "category", "boolean", "date",
    "identifier", "constant", "text", "ignore",
    "target", "weight", "group",
]  # fmt: skip

INPUTS = ("number", "category", "boolean", "date")
LEFT_OUT = ("identifier", "constant", "text", "ignore")

KIND_OF: dict[str, Kind] = {
    "number": "number", "category": "text", "boolean": "boolean", "date": "datetime",
    "weight": "number",
}  # fmt: skip

_ID_NAME = re.compile(r"(^|[_\s.-])(id|uuid|guid|key|index|rownum|row_number)$|Id$|ID$", re.A)


@dataclass(frozen=True)
class ColumnSchema:
    """One column: its role, the reason for it, and how dates are written."""

    name: str
    role: Role
    reason: str = ""
    format: str | None = None
    said: bool = False  # by the user, not inferred

    @property
    def is_input(self) -> bool:
        """Whether the network sees the column."""
        return self.role in INPUTS

    @property
    def kind(self) -> Kind | None:
        """What the cells have to be, or None where any kind will do."""
        return None if self.format else KIND_OF.get(self.role)


@dataclass(frozen=True)
class Schema:
    """The columns of a table in order, and the words that count as gaps."""

    columns: tuple[ColumnSchema, ...]
    missing: tuple[str, ...] = MISSING

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __getitem__(self, name: str) -> ColumnSchema:
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"the schema has no column {name!r}. {did_you_mean(name, self.names)}")

    @property
    def names(self) -> list[str]:
        """All column names, in the order of the table."""
        return [column.name for column in self.columns]

    @property
    def inputs(self) -> list[ColumnSchema]:
        """The columns that the network sees."""
        return [column for column in self.columns if column.is_input]

    def role(self, role: Role) -> str | None:
        """The name of the one column with this role, or None."""
        names = [column.name for column in self.columns if column.role == role]
        if len(names) > 1:
            several = " and ".join(map(repr, names))
            raise DataError(f"{several} all have the role {role!r}; leave it to one of them")
        return names[0] if names else None

    def kinds(self) -> dict[str, Kind]:
        """What the cells of each column have to be, as `read_table` takes it."""
        return {c.name: c.kind for c in self.columns if c.kind is not None}

    def with_roles(self, roles: Mapping[str, str], why: str = "as you said") -> Schema:
        """The schema with the roles of some columns changed; ``date:%d/%m/%Y`` gives a format."""
        columns = list(self.columns)
        for name, said in roles.items():
            role, _, form = said.partition(":")
            if role not in get_args(Role):
                known = did_you_mean(role, get_args(Role))
                raise SettingError(f"column {name!r}: unknown role {role!r}. {known}")
            if form and role != "date":
                raise SettingError(f"column {name!r}: only dates have a format, not {role!r}")
            place = self.names.index(self[name].name)
            columns[place] = ColumnSchema(name, role, why, form or None, True)  # type: ignore[arg-type]
        return replace(self, columns=tuple(columns))

    # ------------------------------------------------------------ as TOML and JSON

    def to_toml(self, source: str = "") -> str:
        """The schema as TOML that people can edit; reasons are comments."""
        origin = f", read from {_printable(source)}" if source else ""
        lines = [
            f"# What each column is{origin}. Change a role and",
            "# train with --schema THIS_FILE. Roles the network sees: number, category, boolean,",
            "# date. Left out: identifier, constant, text, ignore. Special: target, weight,",
            '# group. Dates other than ISO take a format, e.g. format = "%d/%m/%Y".',
            "",
            f"missing = [{', '.join(map(_toml_string, self.missing))}]",
        ]
        for column in self.columns:
            reason = " ".join(column.reason.split())
            lines += ["", f"[columns.{_toml_string(column.name)}]  # {_printable(reason)}"]
            lines += [f"role = {_toml_string(column.role)}"]
            if column.format:
                lines += [f"format = {_toml_string(column.format)}"]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The schema as plain values, for run folders and model files."""
        columns = [
            {"name": c.name, "role": c.role, "reason": c.reason, "format": c.format, "said": c.said}
            for c in self.columns
        ]
        return {"columns": columns, "missing": list(self.missing)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Schema:
        """The schema back from `to_json`."""
        return cls(tuple(ColumnSchema(**c) for c in state["columns"]), tuple(state["missing"]))

    @classmethod
    def from_toml(cls, path: str | Path) -> Schema:
        """Read a schema file; says which key or role is wrong."""
        path = Path(path)
        try:
            state = tomllib.loads(path.read_text("utf-8-sig"))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no TOML: {error}") from None
        for key in state:
            if key not in ("missing", "columns"):
                known = did_you_mean(key, ("missing", "columns"))
                raise DataError(f"{path}: unknown key {key!r}. {known}")
        missing = state.get("missing", list(MISSING))
        columns = state.get("columns", {})
        if not isinstance(missing, list) or not all(isinstance(m, str) for m in missing):
            raise DataError(f"{path}: missing has to be a list of words")
        if not isinstance(columns, dict) or not columns:
            raise DataError(
                f"{path} names no columns; write one with: layerwise schema TABLE -o FILE"
            )
        return cls(tuple(_entry(path, n, e) for n, e in columns.items()), tuple(missing))


def _entry(path: Path, name: str, entry: Any) -> ColumnSchema:
    for key in entry if isinstance(entry, dict) else ():
        if key not in ("role", "format"):
            known = did_you_mean(key, ("role", "format"))
            raise DataError(f"{path}, column {name!r}: unknown key {key!r}. {known}")
    if not isinstance(entry, dict) or "role" not in entry:
        raise DataError(
            f'{path}, column {name!r}: there is no role; write for example role = "number"'
        )
    if entry["role"] not in get_args(Role):
        known = did_you_mean(str(entry["role"]), get_args(Role))
        raise DataError(f"{path}, column {name!r}: unknown role {entry['role']!r}. {known}")
    form = entry.get("format")
    if form is not None and (not isinstance(form, str) or entry["role"] != "date"):
        raise DataError(
            f'{path}, column {name!r}: a format is text such as "%d/%m/%Y", and only for dates; '
            f"got {form!r} for role {entry['role']!r}"
        )
    return ColumnSchema(name, entry["role"], f"from {path.name}", form, True)


def _toml_string(text: str) -> str:
    # JSON's escapes are TOML's, except for the one control character JSON lets through.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "·" for c in text)


# ---------------------------------------------------------------- inference


def infer_schema(
    table: Table, roles: Mapping[str, str] | None = None, missing: Sequence[str] = MISSING
) -> Schema:
    """Decide what each column is, over all rows, with the reason in words.

    Parameters
    ----------
    table : the table, as `read_table` gives it
    roles : roles that are known, e.g. ``{"price": "target", "zip": "category"}``
    missing : kept in the schema, so that later tables are read alike

    Raises
    ------
    DataError
        For a role of a column that the table does not have.

    Examples
    --------
    >>> from layerwise.data.files import read_table
    >>> schema = infer_schema(read_table({"size": [50.5, 80.0], "town": ["Bonn", "Ulm"]}))
    >>> [(column.name, column.role) for column in schema]
    [('size', 'number'), ('town', 'category')]
    """
    columns = []
    for column in table.columns.values():
        role, reason = _role(column)
        columns.append(ColumnSchema(column.name, role, reason))
    for name in roles or {}:
        table[name]
    return Schema(tuple(columns), tuple(missing)).with_roles(roles or {})


def _role(column: Column) -> tuple[Role, str]:
    """Role and reason of one column."""
    missing = column.missing
    gaps = int(np.count_nonzero(missing))
    present = len(column) - gaps
    tail = f"; {gaps:,} of {len(column):,} are gaps" if gaps else ""
    note = f"; {column.note}" if column.note else ""
    if not present:
        return "constant", "every cell is a gap"
    if column.kind == "text":
        return _text_role(column, present, tail + note)
    values = column.values[~missing] if gaps else column.values
    distinct = int(np.unique(values).size)
    if distinct == 1 and not gaps:
        return "constant", f"all {len(column):,} cells are {_example(column)!r}"
    if column.kind == "boolean":
        return "boolean", f"true or false{tail}"
    if column.kind == "datetime":
        return "date", f"ISO dates from {_first(column)} to {_last(column)}{tail}"
    whole = bool((values == np.floor(values)).all() and np.isfinite(values).all())
    if whole and not gaps and distinct == present > 20:
        with np.errstate(over="ignore"):
            steps = np.diff(values)
        if np.all(steps == steps[0]) or _ID_NAME.search(column.name):
            how = "counts the rows" if np.all(steps == steps[0]) else "has the name of a key"
            return "identifier", f"{distinct:,} different whole numbers, and it {how}"
    what = "whole numbers" if whole else "numbers"
    return "number", f"{what}, {distinct:,} different{tail}"


def _text_role(column: Column, present: int, tail: str) -> tuple[Role, str]:
    used = np.unique(column.values[column.values >= 0]).tolist()
    levels = len(used)
    if levels == 1 and present == len(column):
        return "constant", f"all {present:,} cells are {column.levels[used[0]]!r}{tail}"
    words = float(np.mean([column.levels[code].count(" ") + 1 for code in used[:1000]]))
    many = levels > 20 and levels > 0.5 * present
    if many and words >= 4:
        return "text", f"free text: {levels:,} different, {words:.0f} words each{tail}"
    if many and levels == present:
        return "identifier", f"{levels:,} texts, no two alike{tail}"
    if many:
        return "text", f"{levels:,} different texts in {present:,} cells, too many to learn{tail}"
    return "category", f"{levels:,} levels{tail}"


def _example(column: Column) -> str:
    return str(to_text(column).levels[0])


def _first(column: Column) -> str:
    return str(column.values[~column.missing].min()).removesuffix("T00:00:00.000000")


def _last(column: Column) -> str:
    return str(column.values[~column.missing].max()).removesuffix("T00:00:00.000000")


# ---------------------------------------------------------------- enforcing


def check_odd(table: Table, schema: Schema) -> None:
    """Refuse to guess: a column that is nearly all numbers (or dates) has to be decided on.

    Raises
    ------
    DataError
        Naming the cells that do not fit, unless the schema says what the column is.
    """
    for entry in schema:
        column = table.columns.get(entry.name)
        if column is None or column.odd is None or entry.said:
            continue
        odd = column.odd
        cells = ", ".join(
            f"{cell!r} in {table.where(row) if len(table.parts) > 1 else f'row {row + 1}'}"
            for row, cell in odd.examples[:3]
        )
        what = {"number": "numbers", "datetime": "ISO dates"}[odd.kind]
        tokens = sorted({cell for _, cell in odd.examples})
        share = np.floor(1000 * (1 - odd.share)) / 10
        raise DataError(
            f"{table.source}, column {column.name!r}: {share:g} % of the cells are {what}, "
            f"{odd.count:,} {'is' if odd.count == 1 else 'are'} not: {cells}. Count such cells "
            f"as gaps with --missing {tokens[0]!r}, or say what the column is with "
            f"--as {column.name}=category (or =ignore), or edit the schema."
        )


def enforce(table: Table, schema: Schema, need: Iterable[str]) -> Table:
    """The table with the columns the schema asks for, each of the kind it has to have.

    Parameters
    ----------
    table : any table; columns that the schema does not know are left out
    schema : what the columns have to be
    need : names of the columns that must be there

    Raises
    ------
    DataError
        For a column that is gone or a cell of the wrong kind, naming column and row.
    """
    need = list(need)
    gone = [name for name in need if name not in table]
    if gone:
        hint = did_you_mean(gone[0], table.names)
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise DataError(f"{table.source} has no column {gone[0]!r}{more}. {hint}")
    columns = {}
    for name in need:
        try:
            columns[name] = as_role(table[name], schema[name])
        except CellError as error:
            raise error.located(table) from None
    return replace(table, columns=columns)


def as_role(column: Column, entry: ColumnSchema) -> Column:
    """The column with cells of the kind that its role has."""
    if entry.role == "date":
        return to_datetime(column, entry.format)
    if entry.role in ("number", "weight"):
        return to_number(column)
    if entry.role == "boolean":
        return to_boolean(column)
    if entry.role == "category":
        return plain_levels(to_text(column))
    return column
