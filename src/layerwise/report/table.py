"""The data: rows, columns, what each is and why, and cells that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerwise.data.table import Column
from layerwise.report.blocks import Block, Columns, Section, Text
from layerwise.report.charts import sparkline
from layerwise.report.subject import Subject
from layerwise.text import number


def table(subject: Subject) -> Section:
    """How many rows of what, and every column of the training rows."""
    record, prepared = subject.run.record, subject.prepared
    rows = record["data"]["rows"]
    told = (
        f"{rows['train']:,} rows to train on, {rows['valid']:,} to choose the epoch by, "
        f"{rows['test']:,} to test with (split {record['data']['split']}). The target is "
        f"{subject.target.name}: {subject.target.task} ({record['task_reason']})."
    )
    blocks: list[Block] = [Text(told)]
    blocks += [Text(notice, soft=True) for notice in record.get("notices", [])]
    known = prepared.train.table
    blocks.append(Columns([_column(subject, c) for c in prepared.schema if c.name in known]))
    left_out = [c.name for c in prepared.schema if c.name not in known]
    if left_out:
        blocks.append(Text(f"Not read: {', '.join(left_out)}.", soft=True))
    return Section("data", "Data", blocks)


def _column(subject: Subject, entry: Any) -> dict[str, Any]:
    column = subject.prepared.train.table[entry.name]
    gaps = float(column.missing.mean())
    counts, words = _shape(column)
    odd = ""
    if column.odd is not None:
        cells = ", ".join(f"{cell!r} in row {row + 1}" for row, cell in column.odd.examples)
        odd = f"{column.odd.count:,} odd cells: {cells}"
    return {
        "name": entry.name, "role": entry.role, "why": entry.reason,
        "gaps": f"{100 * gaps:.2g} %" if gaps else "",
        "spark": sparkline(counts, f"{entry.name}: {words}") if counts else "",
        "values": words, "odd": odd,
    }  # fmt: skip


def _shape(column: Column) -> tuple[list[float], str]:
    """A small histogram of a column's values, and its range or its commonest levels in words."""
    present = column.values[~column.missing]
    if not len(present):
        return [], "gaps only"
    if column.kind == "number":
        low, high = float(present.min()), float(present.max())
        counts, _ = np.histogram(present, bins=24) if high > low else ([len(present)], None)
        return [float(n) for n in counts], f"{number(low)} to {number(high)}"
    if column.kind == "datetime":
        counts, _ = np.histogram(present.astype(np.int64), bins=24)
        days = present.astype("datetime64[D]")
        return [float(n) for n in counts], f"{days.min()} to {days.max()}"
    levels = column.levels if column.kind == "text" else ("no", "yes")
    counts = np.bincount(present, minlength=len(levels))
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{levels[i]} {counts[i] / len(present):.0%}" for i in order[:3])
    more = f" and {len(levels) - 3:,} more" if len(levels) > 3 else ""
    return [float(counts[i]) for i in order[:24]], shown + more
