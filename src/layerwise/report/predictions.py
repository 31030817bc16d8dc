"""Answers beside the truth: scatter and residuals, or confusion, ROC, precision and calibration."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from layerwise import metrics
from layerwise.report.blocks import Block, Figure, Grid, Row, Section, Text
from layerwise.report.charts import Chart, histogram
from layerwise.report.subject import Subject
from layerwise.text import number

_DOTS = 1500  # drawn at most
_SHOWN = 20  # classes in a confusion matrix
_SIDE: Any = {"width": 310, "height": 270}


def predictions(subject: Subject) -> Section:
    """What the network answered for the rows that it is measured on."""
    target = subject.target
    if target.is_regression:
        blocks = _regression(subject)
    else:
        blocks = _confusion(subject)
        blocks += _binary(subject) if target.task == "binary" else [_confidence(subject)]
    return Section("answers", "Answers", blocks)


# ---------------------------------------------------------------- numbers


def _regression(subject: Subject) -> list[Block]:
    y, said = subject.part.y, subject.answers
    rest = y - said
    name = subject.target.name
    low, high = np.quantile(rest, [0.05, 0.95])
    rows = _some(len(y))
    ends = _ends(np.concatenate([y, said]))
    truth = Chart(
        ends, ends, f"Answers beside the true {name}", names=("answer", f"true {name}"), **_SIDE,
    ).dots(said[rows], y[rows]).diagonal()  # fmt: skip
    left = Chart(
        _ends(said), _ends(rest), "Residuals by answer", names=("answer", "truth minus answer"),
        **_SIDE,
    ).dots(said[rows], rest[rows], "c2").rule(y=0)  # fmt: skip
    places, lows, highs = _moving(said, rest)
    if len(places) > 1:
        left.line(places, lows, "c1", "5 % and 95 %").line(places, highs, "c1")
    drawn = f" {len(rows):,} of {len(y):,} rows are drawn." if len(rows) < len(y) else ""
    median = float(np.median(np.abs(rest)))
    told = (
        f"Half of the answers are off by less than {number(median)}; nine in ten lie between "
        f"{number(abs(float(low)))} {'above' if low < 0 else 'below'} and "
        f"{number(abs(float(high)))} {'below' if high > 0 else 'above'} the truth.{drawn}"
    )
    order = np.argsort(-np.abs(rest), kind="stable")[:8]
    worst = Grid(
        ["row", "truth", "answer", "off by"],
        [[_row(subject, i), number(y[i]), number(said[i]), number(rest[i])] for i in order],
        caption="The rows with the largest errors", folded=True,
    )  # fmt: skip
    return [
        Text(told),
        Row([Figure(truth.svg(), "On the dashed line answer and truth are the same."),
             Figure(left.svg(), "Between the lines lie nine in ten residuals near each answer.")]),
        Row([Figure(histogram(rest, "How large residuals are", "truth minus answer"), "Residuals."),
             Figure(histogram(y, f"How {name} is spread", name), "The target on the same rows.")]),
        worst,
    ]  # fmt: skip


def _moving(x: np.ndarray, values: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """The 5 % and 95 % quantiles of values within runs of neighbouring x."""
    n = min(12, len(x) // 25)
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    for rows in np.array_split(np.argsort(x, kind="stable"), n) if n else []:
        quantiles = np.quantile(values[rows], [0.05, 0.95])
        for one, value in zip(found, (x[rows].mean(), *quantiles)):
            one.append(float(value))
    return found


# ---------------------------------------------------------------- classes


def _confusion(subject: Subject) -> list[Block]:
    target, part = subject.target, subject.part
    matrix = metrics.confusion(target, part.y, subject.answers, part.weight)
    names = [str(label) for label in target.classes]
    totals, said = matrix.sum(axis=1), matrix.sum(axis=0)
    right = np.diag(matrix)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.nan_to_num(matrix / totals[:, None])
        recall, precision = right / totals, right / said
    each = Grid(
        ["class", "rows", "recall", "precision"],
        [[n, _whole(t), _share(r), _share(p)]
         for n, t, r, p in zip(names, totals, recall, precision)],
        caption="Each class: how many of its rows are found, and how many of its answers are right",
        folded=len(names) > 2,
    )  # fmt: skip
    if len(names) <= _SHOWN:
        grid = Grid(
            ["truth \\ answer", *names],
            [[name, *map(_whole, row)] for name, row in zip(names, matrix)],
            shades=shares.tolist(), caption="Rows by truth and answer",
        )  # fmt: skip
        return [grid, each]
    off = matrix.astype(float).copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:12]
    pairs = [np.unravel_index(i, off.shape) for i in order]
    rows = [[names[t], names[a], _whole(float(matrix[t, a]))] for t, a in pairs if off[t, a]]
    return [
        Grid(
            ["truth", "answer", "rows"], rows, left=2, caption="What is taken for what most often"
        ),
        each,
    ]


def _binary(subject: Subject) -> list[Block]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    target, weight = subject.target, subject.part.weight
    yes = target.codes(subject.part.y)
    p = subject.probabilities[:, 1]
    name = str(target.classes[1])
    if len(np.unique(yes)) < 2:
        return [Text("These rows have one class only: there is no curve to draw.", soft=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        false, true, _ = roc_curve(yes, p, sample_weight=weight)
        precision, recall, _ = precision_recall_curve(yes, p, sample_weight=weight)
    share = float(np.average(yes, weights=weight))
    roc = Chart(
        (0, 1), (0, 1), "ROC curve", names=("share of the others taken for it", f"{name} found"),
        **_SIDE,
    ).line(*_thin(false, true)).diagonal()  # fmt: skip
    pr = Chart(
        (0, 1), (0, 1), "Precision and recall", names=(f"{name} found", "right among the found"),
        **_SIDE,
    ).line(*_thin(recall, precision)).rule(y=share, name="guessing")  # fmt: skip
    spread = Chart(
        (0, 1), (0, 1), "Probabilities by true class", names=(f"probability of {name}", ""),
        y_ticks=[(0, "")], **_SIDE,
    )  # fmt: skip
    edges = np.linspace(0, 1, 26)
    for code, kind in ((0, "soft"), (1, "c0")):
        counts, _ = np.histogram(p[yes == code], bins=edges)
        heights = counts / max(counts.max(), 1)
        xs = np.repeat(edges, 2)[1:-1].tolist()
        spread.line(xs, np.repeat(heights, 2).tolist(), kind, str(target.classes[code]))
    auc = subject.run.metrics.get("roc_auc")
    told = "" if auc is None else (
        f"Of a random pair with one row of each class, the network ranks {auc:.1%} rightly."
    )  # fmt: skip
    return [
        Text(told),
        Row([Figure(roc.svg(), "ROC: further to the upper left is better."),
             Figure(pr.svg(), "Precision against recall.")]),
        Row([_calibration(p, yes, weight, f"probability of {name}", f"share of {name}"),
             Figure(spread.svg(), "How far apart the two classes are, each by its own height.")]),
    ]  # fmt: skip


def _confidence(subject: Subject) -> Block:
    """Calibration of the class that is answered."""
    p = subject.probabilities
    right = (p.argmax(axis=1) == subject.target.codes(subject.part.y)).astype(np.int64)
    top = p.max(axis=1)
    return Row([
        _calibration(top, right, subject.part.weight, "probability of the answer", "share right"),
        Figure(histogram(top, "How sure the answers are", "probability of the answer", height=270),
               "How sure the network is."),
    ])  # fmt: skip


def _calibration(
    p: np.ndarray, yes: np.ndarray, weight: np.ndarray | None, x_name: str, y_name: str
) -> Figure:
    """What comes true of what was said, in groups of equally many rows."""
    weight = np.ones(len(p)) if weight is None else weight
    groups = np.array_split(np.argsort(p, kind="stable"), min(10, max(2, len(p) // 20)))
    said, came, rows, gap = [], [], [], 0.0
    for group in (g for g in groups if len(g)):
        said.append(float(np.average(p[group], weights=weight[group])))
        came.append(float(np.average(yes[group], weights=weight[group])))
        gap += abs(said[-1] - came[-1]) * weight[group].sum() / weight.sum()
        rows.append([f"{said[-1]:.3f}", f"{came[-1]:.3f}", f"{len(group):,}"])
    chart = Chart((0, 1), (0, 1), "Calibration", names=(x_name, y_name), **_SIDE)
    chart.diagonal().line(said, came).dots(said, came, radius=3.5)
    return Figure(
        chart.svg(), f"Calibration: said and come true differ by {gap:.3f} on average.",
        Grid(["said", "came true", "rows"], rows, left=0, caption="The figures"),
    )  # fmt: skip


# ---------------------------------------------------------------- small things


def _some(n: int) -> np.ndarray:
    """Rows to draw: all, or as many at random, the same each time."""
    if n <= _DOTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, _DOTS, replace=False))


def _thin(x: np.ndarray, y: np.ndarray, most: int = 400) -> tuple[list[float], list[float]]:
    """A curve's points, a few hundred of them."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).astype(int))
    return x[keep].tolist(), y[keep].tolist()


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room


def _row(subject: Subject, i: int) -> str:
    """A row's number in its file."""
    rows = subject.part.table.rows
    return f"{(i if rows is None else int(rows[i])) + 1:,}"


def _whole(n: float) -> str:
    return f"{n:,.0f}" if float(n).is_integer() else f"{n:,.1f}"


def _share(p: float) -> str:
    return f"{p:.1%}" if np.isfinite(p) else ""
