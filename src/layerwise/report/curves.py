"""The losses by epoch."""

from __future__ import annotations

import math

from layerwise.report.blocks import Block, Figure, Grid, Section, Text
from layerwise.report.charts import Chart
from layerwise.report.subject import Subject
from layerwise.text import count, number

_WORDS = {"train_loss": "training", "valid_loss": "validation", "loss": "training rows, measured"}


def curves(subject: Subject) -> Section:
    """Loss on training and validation rows, the epoch that was kept, and why it ended."""
    history = subject.run.history
    if not len(history):
        return Section("curves", "Training")
    names = [name for name in _WORDS if name in history[0]]
    several = [history, *history.members]
    values = [row[name] for one in several for row in one for name in names if name in row]
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite), max(finite)
    log = low > 0 and high / low > 30
    chart = Chart(
        (1, max(len(history), 2)), (low if log else min(0, low), high),
        f"Losses over {count(len(history), 'epoch')}", names=("epoch", "loss"), log=log,
    )  # fmt: skip
    epochs = [row["epoch"] for row in history]
    whole = min(map(len, history.members), default=len(history))  # while all members train
    for kind, name in zip(("c1", "c0", "c0"), names):
        for member in history.members:
            chart.line([row["epoch"] for row in member], member[name], f"{kind} thin")
        chart.line(epochs[:whole], [row[name] for row in history][:whole], kind, _WORDS[name])
    chart.rule(x=history.best_epoch, name=f"kept: {history.best_epoch}")
    shown = [name for name in history[-1] if name != "lr"]
    rows = [
        [str(row["epoch"]), *(number(row[name]) if name in row else "" for name in shown[1:])]
        for row in history
    ]
    data = Grid([name.replace("_", " ") for name in shown], rows, caption="The figures")
    record = subject.run.record
    told = (
        f"The weights of epoch {history.best_epoch} of {len(history)} were kept, in "
        f"{record['seconds'].get('train', 0):.1f} s of training "
        f"({history.engine} engine); it ended by: {history.stopped}."
    )
    caption = "Training loss is measured while the weights move."
    if history.members:
        told = (
            f"Each of {len(history.members)} networks kept its best epoch, the middle one epoch "
            f"{history.best_epoch}, in {record['seconds'].get('train', 0):.1f} s of training "
            f"({history.engine} engine); it ended by: {history.stopped}."
        )
        caption = f"Thin lines are the networks, thick ones their mean while all train. {caption}"
    blocks: list[Block] = [Text(told), Figure(chart.svg(), caption, data)]
    return Section("training", "Training", blocks)
