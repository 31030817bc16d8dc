"""Which columns the network needs, and how its answers go with them."""

from __future__ import annotations

import numpy as np

from layerwise.insight.dependence import PartialDependence, partial_dependence
from layerwise.insight.importance import importance
from layerwise.report.blocks import Block, Figure, Grid, Row, Section, Text
from layerwise.report.charts import Chart
from layerwise.report.subject import Subject
from layerwise.text import number

_SHOWN, _DRAWN = 15, 4
_ROWS, _REPEATS = 1000, 5
_WIDEST = 150  # columns: beyond, shuffling each takes longer than a page is worth


def needed(subject: Subject) -> Section:
    """Permutation importance of each column, and partial dependence on the most important."""
    run = subject.run
    if len(run.model.encoder.names) > _WIDEST:
        told = (
            f"There are {len(run.model.encoder.names):,} columns; which of them matter is told by "
            "layerwise importance."
        )
        return Section("columns", "What it needs", [Text(told)])
    if len(subject.part) < 2:
        return Section("columns", "What it needs")
    found = importance(run, n_repeats=_REPEATS, max_rows=_ROWS)
    metric = found.metric.replace("_", " ").replace("rmse", "RMSE")
    names, means = found.columns[:_SHOWN], found.importances_mean[:_SHOWN]
    ends = found.intervals[:_SHOWN]
    left = int(min(260, 30 + 6.4 * max(map(len, names))))
    chart = Chart(
        (min(0.0, float(ends.min())), max(float(ends.max()), float(means.max()), 1e-9)),
        (len(names) - 0.4, -0.6), "Importance of the columns",
        names=(f"how much worse the {metric} becomes with the column shuffled", ""),
        height=26 * len(names) + 64, left=left,
        y_ticks=[(i, name if len(name) < 40 else f"{name[:38]}…") for i, name in enumerate(names)],
    )  # fmt: skip
    for i, (name, mean, (low, high)) in enumerate(zip(names, means.tolist(), ends.tolist())):
        kind = "c0" if low > 0 else "soft"
        chart.lying(i, 0, mean, kind, 11, (low, high), f"{name}: {number(mean)}")
    rows = [
        [name, number(mean), number(low), number(high)]
        for name, mean, (low, high) in zip(
            found.columns, found.importances_mean.tolist(), found.intervals.tolist()
        )
    ]
    sure = [name for name, (low, _) in zip(found.columns, found.intervals) if low > 0]
    more = len(found.columns) - len(names)
    # Without test rows every row has trained some of the members that answer here.
    which = "training" if subject.held is not None else found.rows
    told = (
        f"{len(sure)} of {len(rows)} columns are needed beyond chance: the answers to the "
        f"{found.n_rows:,} {which} rows become worse when the column is shuffled."
    )
    caption = "Lines are 95 % intervals." + (f" {more} more are in the figures." if more else "")
    data = Grid(["column", "importance", "from", "to"], rows, caption="The figures")
    blocks: list[Block] = [Text(told), Figure(chart.svg(), caption, data)]
    drawn = [_dependence(partial_dependence(run, name, max_rows=300, n_points=24))
             for name in sure[:_DRAWN]]  # fmt: skip
    blocks += [Row(drawn[i : i + 2]) for i in range(0, len(drawn), 2)]
    return Section("columns", "What it needs", blocks)


def _dependence(found: PartialDependence) -> Figure:
    """The mean answer against a column, of classes for each of the first few."""
    average = found.average
    answers = list(found.answers)
    if len(answers) == 2:  # of two classes one tells the other
        average, answers = average[:, 1:], answers[1:]
    average, answers = average[:, :4], answers[:4]
    low, high = float(average.min()), float(average.max())
    room = 0.08 * (high - low) or 0.05
    ordered = found.kind in ("number", "datetime")
    xs = [float(np.datetime64(v, "us").astype(np.int64)) if found.kind == "datetime" else v
          for v in found.values] if ordered else list(range(len(found.values)))  # fmt: skip
    ticks = None
    if found.kind == "datetime":
        ticks = [(xs[i], str(found.values[i])[:10]) for i in (0, len(xs) // 2, len(xs) - 1)]
    elif not ordered:
        step = max(1, len(xs) // 5)
        ticks = [(x, str(v)[:11]) for x, v in list(zip(xs, found.values))[::step]]
    name = answers[0] if len(answers) == 1 else "probability"
    chart = Chart(
        (float(min(xs)), float(max(xs))), (low - room, high + room),
        f"Answers by {found.column}", names=(found.column, name), x_ticks=ticks,
        width=310, height=230,
    )  # fmt: skip
    for k, answer in enumerate(answers):
        kind, ys = f"c{k}", average[:, k].tolist()
        if ordered:
            chart.line(xs, ys, kind, answer if len(answers) > 1 else "")
        chart.dots(xs, ys, kind, radius=2 if ordered else 3.5)
    rows = [
        [str(value)[:24], *(number(one) for one in line), f"{n:,}"]
        for value, line, n in zip(found.values, average.tolist(), found.counts)
    ]
    return Figure(
        chart.svg(), f"The mean answer with {found.column} set to each value, all else as it is.",
        Grid([found.column, *answers, "rows"], rows, caption="The figures"),
    )  # fmt: skip
