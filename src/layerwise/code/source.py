"""How pandas is to read what a run read.

The record of a run names its tables; how they are written (delimiter, JSON lines or an array) is
found again here, by the rules of our own reader.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerwise.data.delimited import _head
from layerwise.data.opening import expand, format_of, open_plain, plain_copy, suffix_of
from layerwise.data.table import Table
from layerwise.errors import DataError, SettingError
from layerwise.prepare import Question


@dataclass(frozen=True)
class Way:
    """How a table is written.

    Attributes
    ----------
    form : csv, json or parquet
    delimiter : of CSV
    array : whether JSON is one array, and not an object on each line
    marked : whether JSON begins with a byte order mark
    packed : whether it is gzipped
    """

    form: str = "csv"
    delimiter: str = ","
    array: bool = False
    marked: bool = False
    packed: bool = False


@dataclass(frozen=True)
class Source:
    """The tables of a run.

    Attributes
    ----------
    paths : what the script calls each table (``TABLE``, ``VALID``, ``TEST``), and where it is
    in_memory : the type of each that was in memory
    way : how all of them are written
    encoding : of text
    trailing : whether lines of a CSV end with a delimiter that the header has not
    """

    paths: dict[str, str]
    in_memory: dict[str, str]
    way: Way
    encoding: str = "utf-8"
    trailing: bool = False

    @property
    def several(self) -> bool:
        """Whether a table is a glob over several files."""
        return any(glob.has_magic(path) and not Path(path).exists() for path in self.paths.values())


def find_source(question: Question) -> Source:
    """How the tables of a run are written.

    Raises
    ------
    SettingError
        For a query, for standard input, and for tables that no one reader takes.
    """
    train = "train on that file, and ask for its code"
    if question.sql is not None:
        raise SettingError(
            "the run was trained on a SQL query, which pandas does not run; save its answer as a "
            f"CSV or Parquet file, {train}"
        )
    if question.source == "-":
        raise SettingError(
            "the run was read from standard input, which is gone; save the table as a file, "
            f"{train}"
        )
    asked = {"TABLE": question.source, "VALID": question.valid, "TEST": question.test}
    said = {name: one for name, one in asked.items() if isinstance(one, str | dict)}
    in_memory = {name: one["in memory"] for name, one in said.items() if isinstance(one, dict)}
    paths = {n: f"{n.lower()}.csv" if n in in_memory else str(said[n]) for n in said}
    files = [path for name, path in paths.items() if name not in in_memory]
    ways = {_way(path, question.encoding) for path in files} | ({Way()} if in_memory else set())
    if len(ways) > 1:
        raise SettingError(
            f"the tables of the run ({', '.join(paths.values())}) are not all written in one way, "
            f"and the script has one reader; save them in one format, {train}"
        )
    way = ways.pop()
    if way.form == "parquet" and way.packed:
        raise SettingError(
            f"{paths['TABLE']} is gzipped Parquet, which pandas does not read; unpack it, {train}"
        )
    csvs = [one for path in files for one in expand(path)] if way.form == "csv" else []
    trailing = any(_is_trailing(path, question.encoding) for path in csvs if Path(path).exists())
    return Source(paths, in_memory, way, question.encoding, trailing)


def _way(said: str, encoding: str) -> Way:
    """How the files are written that a path or glob names."""
    ways = set()
    for path in expand(said):
        form, packed = format_of(path), path.lower().endswith(".gz")
        if not Path(path).exists():  # what its name tells
            delimiter = {".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(suffix_of(path), ",")
            ways.add(Way(form, delimiter if form == "csv" else ",", packed=packed))
        elif form == "csv":
            ways.add(Way(form, _head(path, encoding)[1], packed=packed))
        elif form == "json":
            with open_plain(path) as file:
                start = file.read(1 << 16)
            array = start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
            ways.add(Way(form, array=array, marked=start[:3] == codecs.BOM_UTF8, packed=packed))
        else:
            ways.add(Way(form, packed=packed))
    if len(ways) > 1:
        raise SettingError(
            f"the files of {said} are not all written in one way, and the script has one reader; "
            "save them alike, train on those files, and ask for the code"
        )
    return ways.pop()


def _is_trailing(path: str, encoding: str) -> bool:
    """Whether the first row has more cells than the header: pandas would take one for an index."""
    names, delimiter = _head(path, encoding)
    with plain_copy(path, "csv", encoding) as plain, open_plain(plain) as file:
        start = file.read(1 << 16).decode("utf-8-sig", "replace")
    rows = itertools.islice(_rows(start, delimiter), 2)
    return max(map(len, rows)) > len(names)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows of a CSV as Python's reader has them, which are those of pandas."""
    return (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)


_SPACED = re.compile(r'(^|[,;|\t]) +"|" +($|[,;|\t])', re.M)


def refuse_spaced_quotes(source: Source, table: Table) -> None:
    """Refuse a CSV with spaces around quoted cells, which DuckDB drops and pandas keeps.

    Parameters
    ----------
    source : of the run
    table : as our own reader has read it

    Raises
    ------
    DataError
        Naming the first cell that pandas would read otherwise.
    """
    if source.way.form != "csv" or source.several:
        return
    path = source.paths["TABLE"]
    with plain_copy(path, "csv", source.encoding) as plain, open_plain(plain) as file:
        text = file.read().decode("utf-8-sig")
    if not _SPACED.search(text):
        return
    rows = _rows(text, source.way.delimiter)
    places = {name: place for place, name in enumerate(next(rows))}
    cells = {name: column.texts() for name, column in table.columns.items()}
    texts = [(n, places[n], cells[n]) for n in cells if table[n].kind == "text" and n in places]
    for number, row in enumerate(rows):
        for name, place, ours in texts:
            if ours[number] not in (None, row[place]):
                raise DataError(
                    f"{table.where(number)}, column {name!r}: the quoted cell {row[place]!r} has "
                    "spaces around it, which pandas would keep; take them out, train on that "
                    "file, and ask for its code"
                )
