"""Where the network errs: the deciding metric on parts of the rows, by the columns' values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layerwise import metrics
from layerwise.data.table import Column
from layerwise.report.blocks import Figure, Grid, Section, Text
from layerwise.report.charts import Chart
from layerwise.report.subject import Subject
from layerwise.text import number

_FEWEST = 20  # rows of a slice
_SHOWN = 10


def slices(subject: Subject) -> Section:
    """Slices that are clearly worse than the whole, the worst first."""
    whole, whole_error = subject.score()
    found = []
    for entry in subject.prepared.schema.inputs:
        if entry.name not in subject.part.table:
            continue
        for words, rows in _parts(subject.part.table[entry.name]):
            if _FEWEST <= len(rows) < len(subject.part):
                value, error = subject.score(rows)
                sure = (value - whole) / (np.hypot(error, whole_error) or 1e-12)
                found.append((sure, f"{entry.name} {words}", len(rows), value, error))
    metric = subject.metric.replace("_", " ").replace("rmse", "RMSE")
    # Of many slices some are worse by chance: Bonferroni's limit for a normal variable.
    limit = float(np.sqrt(2 * np.log(max(len(found), 2) / 0.05)))
    clear = [one for one in found if one[0] > limit]
    if not found:
        return Section("slices", "Where it errs")
    shown = sorted(found, key=lambda one: -one[0])[:_SHOWN]
    if clear:
        told = (
            f"{len(clear)} of {len(found)} parts of the rows are worse than chance explains; the "
            f"{metric} of all rows is {number(whole)}."
        )
    else:
        told = (
            f"None of {len(found)} parts of the rows is worse than chance explains; the {metric} "
            f"of all rows is {number(whole)}."
        )
    high = max(value + 1.96 * error for _, _, _, value, error in shown)
    left = min(260, 30 + 6.2 * max(len(words) for _, words, *_ in shown))
    chart = Chart(
        (0, high), (len(shown) - 0.4, -0.6), f"{metric} of parts of the rows",
        names=(f"{metric}: less is better", ""), height=26 * len(shown) + 64, left=int(left),
        y_ticks=[(i, _short(words)) for i, (_, words, *_) in enumerate(shown)],
    )  # fmt: skip
    for i, (sure, words, n, value, error) in enumerate(shown):
        interval = metrics.interval(value, error)
        kind = "c3" if sure > limit else "soft"
        tip = f"{words}: {number(value)} on {n:,} rows"
        chart.lying(i, 0, value, kind, thick=11, whisker=interval, tip=tip)
    chart.rule(x=whole, name="all rows")
    figures = [
        [words, f"{n:,}", number(value), number(1.96 * error)]
        for _, words, n, value, error in shown
    ]
    data = Grid(["part", "rows", metric, "±"], figures, caption="The figures")
    figure = Figure(chart.svg(), "Lines are 95 % intervals; coloured bars are beyond chance.", data)
    return Section("slices", "Where it errs", [Text(told), figure])


def _parts(column: Column) -> Iterator[tuple[str, np.ndarray]]:
    """Words and rows of each part: levels, or quarters of numbers and dates, and gaps."""
    missing = column.missing
    if missing.any():
        yield "is a gap", np.flatnonzero(missing)
    present = np.flatnonzero(~missing)
    values = column.values[present]
    if column.kind in ("text", "boolean"):
        names = column.levels if column.kind == "text" else ("no", "yes")
        counts = np.bincount(values, minlength=len(names))
        for code in np.argsort(-counts, kind="stable")[:12]:
            yield f"= {names[code]}", present[values == code]
        return
    if not len(values):
        return
    numbers = values if column.kind == "number" else values.astype(np.int64).astype(float)
    distinct = np.unique(numbers)
    if column.kind == "number" and len(distinct) <= 8:
        for value in distinct:
            yield f"= {value:g}", present[numbers == value]
        return
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    part = np.searchsorted(edges, numbers, side="left")
    texts = [f"{e:.4g}" if column.kind == "number" else _day(e) for e in edges]
    for k in range(len(edges) + 1):
        if k == 0:
            words = f"≤ {texts[0]}"
        elif k == len(edges):
            words = f"> {texts[-1]}"
        else:
            words = f"{texts[k - 1]} – {texts[k]}"
        yield words, present[part == k]


def _day(microseconds: float) -> str:
    return str(np.datetime64(int(microseconds), "us").astype("datetime64[D]"))


def _short(text: str) -> str:
    return text if len(text) <= 38 else f"{text[:37]}…"
