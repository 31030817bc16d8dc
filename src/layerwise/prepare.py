"""From what is asked to rows ready to learn from: read, decide, check, split."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.data.encoder import refuse_infinite
from layerwise.data.files import read_table
from layerwise.data.kinds import with_kinds
from layerwise.data.schema import (
    KIND_OF,
    LEFT_OUT,
    ColumnSchema,
    Schema,
    check_odd,
    enforce,
    infer_schema,
)
from layerwise.data.split import FOLDS, deal, split_rows
from layerwise.data.sql import read_sql
from layerwise.data.table import MISSING, Kind, Table, is_path
from layerwise.data.target import Target, infer_task, rows_with_target, target_values
from layerwise.errors import DataError, SettingError, did_you_mean
from layerwise.training.recipe import Recipe

Notice = Callable[[str], None]


@dataclass
class Question:
    """What a training is asked to do with which data; see `layerwise.train` for each entry."""

    source: Any = None
    target: str | None = None
    sql: str | None = None
    task: str = "auto"
    valid: Any = 0.15
    test: Any = 0.2
    weights: str | None = None
    class_weight: str | Mapping[Any, float] | None = None
    group: str | None = None
    time: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    drop: Iterable[str] = ()
    schema: str | Path | None = None
    missing: Iterable[str] = ()
    encoding: str = "utf-8"
    baselines: bool = True
    random_state: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    compare: bool = False  # recipes before the training, for what the settings leave open
    folder: str | None = None

    def __post_init__(self) -> None:
        self.roles = dict(self.roles or {})
        self.drop, self.missing = _listed(self.drop), _listed(self.missing)
        self.schema = None if self.schema is None else str(self.schema)

    def to_json(self) -> dict[str, Any]:
        """As plain values: paths made absolute, data in memory named by their type."""
        state = dict(vars(self))
        state["folder"] = str(Path.cwd())  # what the paths in a query start from
        for name in ("source", "valid", "test", "schema"):
            value = state[name]
            if is_path(value):
                state[name] = value if value == "-" else str(Path(os.fspath(value)).absolute())
            elif not isinstance(value, int | float | None):
                state[name] = {"in memory": type(value).__name__}
        return state

    def check(self) -> Recipe:
        """Refuse what can be refused before anything is read or written; returns the settings."""
        recipe = Recipe.from_json(self.settings)
        if (self.source is None) == (self.sql is None):
            raise SettingError(
                "give a table (train TABLE --target COLUMN) or a SQL query (--sql), one of the two"
            )
        tasks = ("auto", "classification", "regression")
        if self.task not in tasks:
            raise SettingError(f"unknown task {self.task!r}. {did_you_mean(self.task, tasks)}")
        if self.target is None and self.schema is None:
            raise SettingError("say which column to predict (target, --target)")
        seed = self.random_state
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise SettingError(f"random_state has to be a whole number of at least 0; got {seed!r}")
        parts = {"valid": self.valid, "test": self.test}
        shares = {n: v for n, v in parts.items() if isinstance(v, int | float)}
        for name, share in shares.items():
            if isinstance(share, bool) or not 0 <= share < 1:
                raise SettingError(
                    f"{name} has to be a share of at least 0 and below 1, or a table; got {share:g}"
                )
        if sum(shares.values()) >= 1:
            raise SettingError(
                f"valid and test shares of together {sum(shares.values()):g} leave no rows to "
                "train on"
            )
        if self.group is not None and self.time is not None:
            raise SettingError("split by group or by time, not both")
        self._check_columns()
        return recipe

    def _check_columns(self) -> None:
        """No column can be two things at once."""
        uses = [("target", self.target), ("weights", self.weights), ("group", self.group),
                *(("drop", name) for name in self.drop)]  # fmt: skip
        if self.time == self.target:
            uses.append(("time", self.time))
        seen: dict[str, str] = {}
        for use, name in uses:
            if name is not None and seen.setdefault(name, use) != use:
                raise SettingError(
                    f"column {name!r} cannot be both {seen[name]} (--{seen[name]}) and {use} "
                    f"(--{use}); name another column for one of them"
                )


def _listed(said: Iterable[str]) -> list[str]:
    """Names as a list; one name alone is a list of one."""
    return [said] if isinstance(said, str) else list(said)


def asked(record: Mapping[str, Any]) -> Question:
    """The question of a run's record, with the members it had then, whatever the default is now."""
    question = Question(**record["question"])
    if "recipe" in record and not question.compare:
        members = record["recipe"].get("members", 1)
        question.settings = {**question.settings, "members": members}
    return question


@dataclass(frozen=True, eq=False)
class Part:
    """Rows with their answers: a table, y as the target has it, and positive weights or None."""

    table: Table
    y: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.table.n_rows

    def take(self, rows: np.ndarray) -> Part:
        """The part with only these rows."""
        weight = None if self.weight is None else self.weight[rows]
        return Part(self.table.take(rows), self.y[rows], weight)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The parts, what the columns are, and the task.

    The training rows of several members have a ``fold`` each (`layerwise.data.split.deal`), where
    there are no rows for validation alone; ``groups`` are those that stayed together.
    """

    train: Part
    valid: Part | None
    test: Part | None
    schema: Schema
    target: Target
    task_reason: str
    split: str
    fold: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def measured(self) -> Part:
        """The rows that the result is measured on: those furthest from training that there are."""
        return self.test or self.valid or self.train

    @property
    def measured_on(self) -> str:
        """What the rows of `measured` are called."""
        if self.test or self.valid:
            return "test" if self.test else "validation"
        return "training" if self.fold is None else "out-of-fold"

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each part."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: 0 if part is None else len(part) for name, part in parts.items()}


def read(question: Question) -> tuple[Table, Schema]:
    """The table and what its columns are, by the question's schema or inferred."""
    said = None if question.schema is None else Schema.from_toml(question.schema)
    missing = [*(said.missing if said else MISSING), *question.missing]
    roles = {**question.roles, **dict.fromkeys(question.drop, "ignore")}
    special = {"target": question.target, "weight": question.weights, "group": question.group}
    roles |= {name: role for role, name in special.items() if name is not None}
    kinds: dict[str, Kind] = said.kinds() if said else {}
    kinds = {name: kind for name, kind in kinds.items() if name not in roles}
    kinds |= {name: KIND_OF[role] for name, role in roles.items() if role in KIND_OF}
    if question.sql is not None:
        table = with_kinds(read_sql(question.sql, missing=missing), kinds)
    else:
        table = read_table(
            question.source, kinds=kinds, missing=missing, encoding=question.encoding
        )
    for name in (*roles, *([] if question.time is None else [question.time])):
        table[name]
    if said is None:
        schema = infer_schema(_counting(table, question.weights), missing=missing)
    else:
        schema = _as_said(said, table, question, missing)
    return table, schema.with_roles(roles)


def _counting(table: Table, weights: str | None) -> Table:
    """The table without its rows of weight 0, which are to be as if they were not there."""
    if weights is None or table[weights].kind != "number":
        return table
    counts = table[weights].values != 0
    some = counts.any() and not counts.all()
    return table.take(counts) if some else table


def _as_said(said: Schema, table: Table, question: Question, missing: list[str]) -> Schema:
    """The schema file for this table: all it uses must be there, other columns are left out."""
    for column in said:
        if column.role == "target" and question.target not in (None, column.name):
            raise SettingError(
                f"{question.schema} says the target is {column.name!r}, --target says "
                f"{question.target!r}; change the role in the file, or leave --target out"
            )
        if column.role not in LEFT_OUT and column.name not in table:
            hint = did_you_mean(column.name, table.names)
            raise DataError(
                f"{table.source} has no column {column.name!r}, which {question.schema} has. {hint}"
            )
    known = [column for column in said if column.name in table]
    reason = f"not in {question.schema}"
    extra = [ColumnSchema(n, "ignore", reason) for n in table.names if n not in said.names]
    return Schema((*known, *extra), tuple(missing))


def prepare(question: Question, table: Table, schema: Schema, notice: Notice) -> Prepared:
    """Choose rows, settle the task, split, and learn the target on the training rows.

    Raises
    ------
    DataError
        Naming file, column and row of what cannot be learnt from.
    """
    name = schema.role("target")
    if name is None:
        raise SettingError(
            f"say which column to predict (--target); {table.source} has {', '.join(table.names)}"
        )
    check_odd(table, schema)
    with _within(table):
        counting = _counting(table, schema.role("weight"))
        task, reason = infer_task(counting[name], question.task)
    for column in schema:
        if column.role in ("text", "identifier", "constant"):
            notice(f"column {column.name!r} is left out ({column.role}): {column.reason}")
    whole = _part(table, schema, name, task, notice, question.time)
    valid = _own("validation", question, schema, table, name, task, notice)
    test = _own("test", question, schema, table, name, task, notice)
    members = Recipe.from_json(question.settings).members
    dealt = members > 1 and valid is None and question.valid > 0 and question.time is None
    parts = 1 + sum(part is None and share > 0 for part, share in
                    ((valid, question.valid), (test, question.test)))  # fmt: skip
    with _within(table):
        split = split_rows(
            len(whole),
            valid=0 if valid or dealt else question.valid,
            test=0 if test else question.test,
            seed=question.random_state,
            classes=np.unique(whole.y, return_inverse=True)[1]
            if task == "classification"
            else None,
            groups=_groups(whole.table, question.group, parts, notice),
            times=None if question.time is None else _times(whole.table, question.time),
        )
    train = whole.take(split.train)
    if valid is None and len(split.valid):
        valid = whole.take(split.valid)
    if test is None and len(split.test):
        test = whole.take(split.test)
    if task == "regression":
        largest = float(np.abs(whole.y).max())
        if largest > 1e150:  # its square, and so every metric, is infinite
            raise DataError(
                f"{table.source}: target {name!r} has numbers up to {largest:.3g}, which are too "
                "large to compute with; use a larger unit"
            )
        target = Target.regression(train.y, train.weight, name)
    else:
        classes = np.unique(train.y)
        if len(classes) < 2:
            raise DataError(
                f"{table.source}, target {name!r}: the {len(train):,} training rows "
                f"({split.how}) have only the class {classes.tolist()[0]!r}; at least 2 are needed"
            )
        target = Target.classification(classes, name)
        valid = valid and _known_classes(valid, target, "validation", notice)
        test = test and _known_classes(test, target, "test", notice)
    prepared = Prepared(train, valid, test, schema, target, reason, split.how)
    return _dealt(prepared, question, members) if dealt else prepared


def _dealt(prepared: Prepared, question: Question, members: int) -> Prepared:
    """The training rows in folds, one of which each member holds out."""
    train, target = prepared.train, prepared.target
    groups = None if question.group is None else train.table[question.group].values
    fold = deal(
        len(train), FOLDS, seed=question.random_state, groups=groups,
        classes=None if target.is_regression else target.codes(train.y),
    )  # fmt: skip
    if fold.max() < 1:  # a class for each row, or one group
        return prepared
    split = f"{prepared.split}; {fold.max() + 1} folds"
    return replace(prepared, split=split, fold=fold, groups=groups)


@contextlib.contextmanager
def _within(table: Table) -> Iterator[None]:
    """Errors about a column or a split say in which table."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{table.source}: {error}") from None


def _part(
    table: Table, schema: Schema, target: str, task: str, notice: Notice, also: str | None = None
) -> Part:
    """The rows that have a target and a weight above 0; cells checked against the schema.

    The column ``also`` comes along, as it is.
    """
    weight_name = schema.role("weight")
    inputs = [column.name for column in schema.inputs]
    others = [c.name for c in schema if c.role == "group"]
    need = [*inputs, target, *others, *([weight_name] if weight_name else [])]
    need += [also] if also is not None and also not in need else []
    checked = enforce(table, schema, need)
    rows = rows_with_target(checked, target)
    if len(rows) < checked.n_rows:
        gaps = checked.n_rows - len(rows)
        rest = "s without a target are" if gaps > 1 else " without a target is"
        notice(f"{gaps:,} row{rest} left out")
    weight = None
    if weight_name:
        weight = _weights(checked.take(rows), weight_name)
        if not weight.all():
            n = int((weight == 0).sum())
            notice(f"{n:,} row{'s' * (n > 1)} of weight 0 {'are' if n > 1 else 'is'} left out")
            rows, weight = rows[weight > 0], weight[weight > 0]
    kept = checked.take(rows)
    for name in inputs:  # in all parts before any training, as the test rows come last
        refuse_infinite(kept[name], kept)
    return Part(kept, target_values(kept[target], task), weight)


def _weights(table: Table, name: str) -> np.ndarray:
    """The weight column, with no gap and nothing below 0."""
    weight = table[name].values
    for bad, what in ((np.isnan(weight), "is a gap"), (np.isinf(weight), "is infinite"),
                      (weight < 0, "is negative")):  # fmt: skip
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            more = f" ({int(bad.sum()):,} such rows)" if bad.sum() > 1 else ""
            cell = "the cell" if what == "is a gap" else f"{weight[row]:g}"
            raise DataError(
                f"{table.where(row)}, weight {name!r}: {cell} {what}{more}; weights have to be "
                "numbers of at least 0, and 0 leaves a row out"
            )
    if weight.max() > 1e100:
        row = int(weight.argmax())
        raise DataError(
            f"{table.where(row)}, weight {name!r}: {weight[row]:g} is too large to compute with; "
            "only the weights' proportions count, so divide them all"
        )
    if not weight.any():
        raise DataError(f"{table.source}, weight {name!r}: all weights are 0, which leaves no rows")
    return np.asarray(weight)


def _own(
    which: str,
    question: Question,
    schema: Schema,
    table: Table,
    target: str,
    task: str,
    notice: Notice,
) -> Part | None:
    """Validation or test rows from a table of their own; None if a share was given."""
    said = question.valid if which == "validation" else question.test
    if isinstance(said, int | float):
        return None
    kinds = schema.kinds()
    kinds[target] = table[target].kind
    try:
        own = read_table(said, kinds=kinds, missing=schema.missing, encoding=question.encoding)
        part = _part(own, schema, target, task, notice)
    except DataError as error:
        raise DataError(f"{which} rows: {error}") from None
    if not len(part):
        raise DataError(f"{own.source} has no rows with a target")
    return part


def _times(table: Table, name: str) -> np.ndarray:
    """The moments of the rows: numbers or dates, without a gap, not all the same."""
    column = table[name]
    if column.kind not in ("number", "datetime"):
        cell = column.take(~column.missing).texts()[0]
        raise DataError(
            f"column {name!r} cannot order the rows: it has texts such as {cell!r}. A number or a "
            f"date can; say for example --as {name}=date:%d/%m/%Y"
        )
    if column.missing.any():
        row = int(np.flatnonzero(column.missing)[0])
        raise DataError(
            f"{table.where(row).removeprefix(table.source).strip()}, column {name!r} is a gap, so "
            "the rows cannot be ordered by it; fill it or leave the row out"
        )
    if np.all(column.values == column.values[0]):
        raise DataError(
            f"column {name!r} cannot order the rows: all cells are {column.texts()[0]!r}; leave "
            "--time out, or name another column"
        )
    return column.values


def _groups(table: Table, name: str | None, parts: int, notice: Notice) -> np.ndarray | None:
    """The rows' groups, at least one for each part; rows without one are a group together."""
    if name is None:
        return None
    values = table[name].values
    found = len(np.unique(values))
    if found < parts:
        raise DataError(
            f"column {name!r} has {found} group{'s' * (found > 1)} for {parts} parts; at least "
            f"{parts} are needed, or fewer parts (--valid 0, --test 0), or leave --group out"
        )
    gaps = int(table[name].missing.sum())
    if gaps:
        notice(f"{gaps:,} rows have a gap in {name!r} and stay together as one group")
    return values


def _known_classes(part: Part, target: Target, which: str, notice: Notice) -> Part | None:
    """The part without rows of classes that no training row has."""
    known = target.codes(part.y) >= 0
    if known.all():
        return part
    label, n = part.y[~known].tolist()[0], int((~known).sum())
    notice(
        f"{n:,} {which} row{'s are' if n > 1 else ' is'} left out: class {label!r} is in no "
        "training row"
    )
    return part.take(known) if known.any() else None


def labelled(table: Table, schema: Schema, target: Target, notice: Notice) -> Part:
    """A table with answers, to measure a model on; weights count if the column is there."""
    columns = [c for c in schema if c.role != "weight" or c.name in table]
    task = "regression" if target.is_regression else "classification"
    columns = [c for c in columns if c.role != "group"]
    part = _part(table, Schema(tuple(columns), schema.missing), target.name, task, notice)
    known = part if target.is_regression else _known_classes(part, target, "given", notice)
    if known is None or not len(known):
        raise DataError(f"{table.source} has no rows with a target that the model knows")
    return known
