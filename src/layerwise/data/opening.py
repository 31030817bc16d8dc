"""Files as DuckDB can take them: found, unpacked, in UTF-8; and its complaints in our words."""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from layerwise.errors import DataError, SettingError

CSV = (".csv", ".tsv", ".tab", ".txt", ".psv")


JSON = (".jsonl", ".ndjson", ".json")


_PARQUET = (".parquet", ".pq")


def expand(source: str) -> list[str]:
    """The files that a path or glob names, sorted."""
    if Path(source).exists() or not glob.has_magic(source):
        return [source]
    paths = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    if not paths:
        raise DataError(f"no file matches {source!r} (looked in {Path.cwd()})")
    return paths


def suffix_of(path: str) -> str:
    """The ending of the file's name, without .gz."""
    return Path(path.lower().removesuffix(".gz")).suffix


def format_of(path: str) -> str:
    """csv, json or parquet, by the ending of the name."""
    suffix = suffix_of(path)
    for form, suffixes in (("csv", CSV), ("json", JSON), ("parquet", _PARQUET)):
        if suffix in suffixes:
            return form
    if suffix_of(path) in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path} is a spreadsheet; save its sheet as CSV and read that")
    known = " ".join((*CSV, *JSON, *_PARQUET))
    raise DataError(
        f"{path}: cannot tell the format from the name. Known are {known}, each also with .gz; "
        "rename the file, or use --sql for what DuckDB can read."
    )


def refuse_unreadable(path: str) -> None:
    """Refuse a file that is not there, is a folder, is empty or may not be read."""
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


def open_plain(path: str) -> Any:
    """The file's bytes, unpacked."""
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else Path(path).open("rb")


@contextlib.contextmanager
def plain_copy(path: str, form: str, encoding: str = "utf-8") -> Iterator[str]:
    """The path of what DuckDB can read: the file itself, or a copy, unpacked and in UTF-8."""
    try:
        utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        with open_plain(path) as file:
            marked = file.read(3) == codecs.BOM_UTF8
        packed = form == "parquet" and path.lower().endswith(".gz")
        if not packed and (form == "parquet" or utf8) and not (form == "json" and marked):
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"copy.{form}"
            with open_plain(path) as file, copy.open("wb") as out:
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


def refuse_bad_names(source: str, names: Sequence[str]) -> None:
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


def refuse_other_columns(first: str, names: list[str], path: str, others: list[str]) -> None:
    """Refuse a file that has not the same columns as the first one."""
    gone = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if gone:
        raise DataError(f"{path} has no column {gone[0]!r}, which {first} has")
    if extra:
        raise DataError(f"{path} has a column {extra[0]!r}, which {first} has not")


def connect() -> duckdb.DuckDBPyConnection:
    """A private database in memory that never fetches an extension from the network."""
    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "preserve_insertion_order": True,
        },
    )


def sql_text(value: str) -> str:
    """A string as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def sql_name(value: str) -> str:
    """A name as SQL writes it."""
    return '"' + value.replace('"', '""') + '"'


def glob_literal(path: str) -> str:
    """The path with its glob characters taken literally; globs are already expanded."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one whole number that a query answers with."""
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def gaps_as_none(values: np.ndarray) -> np.ndarray:
    """Masked objects as plain ones; other masked arrays stay as they are."""
    if isinstance(values, np.ma.MaskedArray) and values.dtype == object:
        return np.where(np.ma.getmaskarray(values), None, values.data)  # type: ignore[call-overload]
    return values


def first_line(error: BaseException) -> str:
    """The first line of a message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _first_line_not(path: str, encoding: str) -> int | None:
    """The number of the first line that is not UTF-8, if the text should be; DuckDB often blames
    such a line for something else."""
    if suffix_of(path) not in CSV or encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
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
def explained(path: str, encoding: str = "utf-8") -> Iterator[None]:
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
    if suffix_of(path) in JSON:
        return _explain_json(path, first_line(error))
    return f"{place} cannot be read: {first_line(error)}"


def _explain_json(path: str, complaint: str) -> str:
    """Which line of a JSON file is no JSON; DuckDB counts from another one."""
    with open_plain(path) as file:
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
