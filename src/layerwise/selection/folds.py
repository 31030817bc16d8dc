"""A table in folds: each is tested once by what was learnt from the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from layerwise.data.schema import Schema
from layerwise.data.split import deal
from layerwise.data.table import Table
from layerwise.errors import DataError, SettingError
from layerwise.prepare import Notice, Prepared, Question, prepare, read


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold's rows, parted and ready to learn from; both numbers count from 1."""

    repeat: int
    number: int
    prepared: Prepared


@dataclass(frozen=True, eq=False)
class Folds:
    """All folds of a table; they are prepared one by one, as they are asked for.

    Attributes
    ----------
    question : what is asked, of which table
    whole : all rows that can be learnt from, in one part
    tested : for each repetition and fold the rows of ``whole`` that are tested
    trained : the rows that are learnt from
    how : the rule, in words
    """

    question: Question
    whole: Prepared
    tested: list[list[np.ndarray]]
    trained: list[list[np.ndarray]]
    how: str

    def __iter__(self) -> Iterator[Fold]:
        said: set[str] = set()
        for repeat, (tested, trained) in enumerate(zip(self.tested, self.trained), start=1):
            for number, (test, train) in enumerate(zip(tested, trained), start=1):
                yield Fold(repeat, number, self._prepared(train, test, repeat, said.add))

    def __len__(self) -> int:
        return sum(map(len, self.tested))

    def _prepared(
        self, train: np.ndarray, test: np.ndarray, repeat: int, notice: Notice
    ) -> Prepared:
        table = self.whole.train.table
        question = replace(
            self.question, test=table.take(test),
            random_state=self.question.random_state + repeat - 1,
        )  # fmt: skip
        return prepare(question, table.take(train), self.whole.schema, notice)


def folds_of(
    question: Question,
    folds: int = 5,
    repeats: int = 1,
    notice: Notice = lambda _: None,
    known: tuple[Table, Schema] | None = None,
) -> Folds:
    """Deal the rows into folds: at random with each class in its share, by group, or by time.

    By time each fold is tested by what was learnt from the rows before it.

    Parameters
    ----------
    question : the table and what is asked of it
    folds, repeats : how many folds, and how often the rows are dealt
    notice : called with sentences on the data
    known : the table and its schema, if they have been read

    Raises
    ------
    SettingError
        For fewer than two folds, or test rows of their own.
    DataError
        For a table that cannot be learnt from, or that has not enough rows, groups or moments.
    """
    for name, value, least in (("folds", folds, 2), ("repeats", repeats, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise SettingError(
                f"{name} has to be a whole number of at least {least}; got {value!r}"
            )
    if repeats > 1 and question.time is not None:
        raise SettingError("folds by time are always the same; leave repeats at 1")
    table, schema = known or read(question)
    whole = prepare(_whole(question), table, schema, notice)
    n = len(whole.train)
    if n < 2 * folds:
        raise DataError(f"{table.source} has {n} rows for {folds} folds; at least 2 for each")
    if question.time is not None:
        later, earlier = _by_time(whole, question.time, folds)
        how = f"{folds} folds by {question.time!r}, each after the rows it was learnt from"
        return Folds(question, whole, [later], [earlier], how)
    groups = None
    how = f"{folds} folds at random"
    if question.group is not None:
        groups = whole.train.table[question.group].values
        found = len(np.unique(groups))
        if found < folds:
            raise DataError(
                f"column {question.group!r} has {found} groups for {folds} folds; take fewer folds"
            )
        how = f"{folds} folds of whole groups ({question.group!r})"
    target = whole.target
    classes = None if target.is_regression else target.codes(whole.train.y)
    if classes is not None and groups is None:
        how += ", each class in its share"
    dealt = [
        deal(n, folds, seed=question.random_state + 1000 * r, classes=classes, groups=groups)
        for r in range(repeats)
    ]
    tested = [[np.flatnonzero(fold == k) for k in range(folds)] for fold in dealt]
    trained = [[np.flatnonzero(fold != k) for k in range(folds)] for fold in dealt]
    if repeats > 1:
        how = f"{repeats} times {how}"
    return Folds(question, whole, tested, trained, how)


def _whole(question: Question) -> Question:
    """The same question with all rows in one part."""
    if not isinstance(question.test, int | float):
        raise SettingError("cross-validation tests every row; leave the test table out")
    settings = {**question.settings, "members": 1}
    share = isinstance(question.valid, int | float)
    return replace(
        question, test=0, valid=0 if share else question.valid, settings=settings, group=None,
        time=question.time,
    )  # fmt: skip


def _by_time(
    whole: Prepared, name: str, folds: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """The moments in one run more than there are folds; the first is only learnt from."""
    moments, code = np.unique(whole.train.table[name].values, return_inverse=True)
    if len(moments) <= folds:
        raise DataError(
            f"column {name!r} has {len(moments)} different moments for {folds} folds after a "
            "first run of rows; take fewer folds"
        )
    order = np.sort(code)
    # Cut at rows, so that the runs are of equal size, but never within a moment.
    cuts = [int(order[len(order) * k // (folds + 1)]) for k in range(1, folds + 1)]
    cuts = [max(cut, k) for k, cut in enumerate(cuts, start=1)]
    ends = [*cuts[1:], len(moments)]
    tested = [np.flatnonzero((code >= a) & (code < b)) for a, b in zip(cuts, ends)]
    trained = [np.flatnonzero(code < a) for a in cuts]
    if any(len(rows) == 0 for rows in tested):
        raise DataError(f"column {name!r} has too many equal moments for {folds} folds")
    return tested, trained
