"""What cells are: text settled as numbers, dates or truth values; columns turned to other kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from layerwise.data.table import BIG_NOTE, Column, Kind, Odd, Table, relevel, text_column, to_text
from layerwise.errors import DataError

NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|Inf|INF|infinity|Infinity)"


LEADING_ZERO = r"[+-]?0\d+"


EXACT = 2**53  # whole numbers below this survive float64


_NUMBER = re.compile(NUMBER, re.ASCII)


_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


_POINT_ZERO = re.compile(r"[+-]?(0|[1-9]\d*)\.0+", re.ASCII)
_ZERO = re.compile(LEADING_ZERO, re.ASCII)


_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?", re.ASCII
)


_BOOLEAN = {"true": 1, "false": 0}


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


def drop_missing(column: Column, missing: Sequence[str]) -> Column:
    """The column of text or numbers with cells that say 'missing' turned into gaps."""
    tokens = {token.strip() for token in missing}
    if column.kind == "number":
        numbers = [float(token) for token in tokens if _NUMBER.fullmatch(token)]
        values = np.where(np.isin(column.values, numbers), np.nan, column.values)
        return replace(column, values=values) if numbers else column
    gaps = [level.strip() in tokens for level in column.levels]
    return relevel(column, gaps) if any(gaps) else column


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
        return in_utc(moment)
    except (ValueError, OverflowError):  # no such day, or none in UTC
        return None


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC without a zone; one without a zone as it is."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def plain_levels(column: Column) -> Column:
    """The text column with 1.0 as 1: a file may write what a frame holds as a number."""
    plain = [
        re.sub(r"([+-]?\d+)\.0+", r"\1", level) if _POINT_ZERO.fullmatch(level) else level
        for level in column.levels
    ]
    if tuple(plain) == column.levels:
        return column
    cells = np.array([*plain, None], dtype=object)[column.values]
    return replace(text_column(column.name, cells.tolist(), note=column.note), odd=column.odd)


def _refuse_levels(column: Column, fits: np.ndarray, what: str) -> None:
    """Raise for the cells of a text column that are not what they should be."""
    if fits.all():
        return
    rows = np.flatnonzero((column.values >= 0) & ~np.append(fits, True)[column.values])
    if not rows.size:
        return
    level = column.levels[column.values[rows[0]]]
    raise CellError(column.name, int(rows[0]), level, int(rows.size), what)


CONVERT = {"number": to_number, "text": to_text, "boolean": to_boolean, "datetime": to_datetime}


def with_gaps(table: Table, missing: Sequence[str]) -> Table:
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
