"""Answers as columns, and as a file that a spreadsheet can open without running anything."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import storage
from layerwise.data.table import Table
from layerwise.errors import SettingError
from layerwise.model.model import Model

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

_SUFFIXES = (".csv", ".tsv", ".txt", "", ".jsonl", ".ndjson", ".parquet", ".pq")


def answer_columns(
    model: Model, table: Table, *, probabilities: bool = False, keep: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Kept input columns, the prediction, and a probability for each class if wished."""
    kept: dict[str, list[Any]] = {name: table[name].texts().tolist() for name in keep}
    columns: dict[str, list[Any]] = {}
    outputs = model.outputs(table)
    answers = model.target.decode(outputs)
    if answers.ndim > 1:
        for k in range(answers.shape[1]):
            columns[f"prediction {k + 1}"] = answers[:, k].tolist()
    else:
        columns["prediction"] = answers.tolist()
    if probabilities:
        if model.target.is_regression:
            raise SettingError("probabilities are for classes; this model answers with numbers")
        proba = model.target.probabilities(outputs)
        for k, label in enumerate(model.target.classes.tolist()):
            columns[f"probability {label}"] = proba[:, k].tolist()
    for name in columns:
        if name in kept:
            raise SettingError(
                f"the input column {name!r} has the name of an answer; rename it, or leave it out "
                "of --keep"
            )
    return {**kept, **columns}


def as_csv(columns: Mapping[str, Sequence[Any]], delimiter: str = ",") -> tuple[str, int]:
    """The columns as CSV, and how many texts were made harmless.

    A text that begins as a formula does gets an apostrophe before it, so that no spreadsheet runs
    it. Source: OWASP, CSV Injection.
    """
    changed = 0

    def safe(cell: Any) -> Any:
        nonlocal changed
        if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell):
            changed += 1
            return "'" + cell
        return cell

    lines = _Lines()
    # Only with \r in the end of its lines does csv (before Python 3.13) quote a cell that has one.
    writer = csv.writer(lines, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow([safe(name) for name in columns])
    for row in zip(*columns.values()):
        writer.writerow([safe(cell) for cell in row])
    return "".join(lines), changed


class _Lines(list[str]):
    """A file for csv that keeps each line with the end that we write."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_answers(columns: Mapping[str, Sequence[Any]], path: str | Path) -> int:
    """Write the columns in the format of the file's name, whole or not at all."""
    path = Path(path)
    suffix = path.suffix.lower()
    check_suffix(path)
    changed = 0
    if suffix in (".csv", ".tsv", ".txt", ""):
        text, changed = as_csv(columns, "\t" if suffix == ".tsv" else ",")
        storage.write_whole(path, text)
    elif suffix in (".jsonl", ".ndjson"):
        rows = (dict(zip(columns, row)) for row in zip(*columns.values()))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        storage.write_whole(path, lines)
    else:
        storage.write_whole(path, _parquet(columns))
    return changed


def check_suffix(path: str | Path) -> None:
    """Refuse, before work begins, a file name whose format is none of ours."""
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise SettingError(f"{path}: answers are written as .csv, .tsv, .jsonl or .parquet")


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import duckdb

    connection = duckdb.connect(":memory:")
    arrays = {f"c{i}": np.array(cells) if not _has_text(cells) else np.array(cells, dtype=object)
              for i, cells in enumerate(columns.values())}  # fmt: skip
    connection.register("arrays", arrays)
    names = ['"' + name.replace('"', '""') + '"' for name in columns]
    chosen = ", ".join(f"c{i} AS {name}" for i, name in enumerate(names))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.parquet"
        connection.execute(f"COPY (SELECT {chosen} FROM arrays) TO '{path}' (FORMAT parquet)")
        return path.read_bytes()


def _has_text(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) or cell is None for cell in cells)
