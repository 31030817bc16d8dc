"""How good the network is, against which company, and what the doctor found."""

from __future__ import annotations

from typing import Any

from layerwise import metrics
from layerwise.report.blocks import Block, Figure, Findings, Grid, Section, Text
from layerwise.report.charts import Chart
from layerwise.report.subject import Subject
from layerwise.text import count, number


def verdict(subject: Subject) -> Section:
    """One sentence, the metrics beside the baselines', and the findings."""
    record = subject.run.record
    blocks: list[Block] = [Text(sentence(subject))]
    models = {"network": subject.run.metrics, **subject.run.baselines}
    names = list(dict.fromkeys(name for found in models.values() for name in found))
    rows = [
        [name, *(number(found[m]) if m in found else "" for m in names)]
        for name, found in models.items()
    ]
    metric = subject.metric
    having = [name for name in models if metric in models[name]]
    best = min(having, key=lambda name: models[name][metric], default=None)
    blocks.append(
        Grid(
            ["", *(name.replace("_", " ") for name in names)], rows,
            best=None if best is None else list(models).index(best),
        )
    )  # fmt: skip
    if len(having) > 1:
        blocks.append(_beside(subject, {name: models[name][metric] for name in having}))
    if "findings" in record:
        found = record["findings"]
        causes = [
            {**one, "symptoms": [f for f in found if f.get("explained_by") == one["rule"]]}
            for one in found
            if not one.get("explained_by")
        ]
        blocks += [Text(_findings_words(causes)), Findings(causes)]
    return Section("verdict", "Verdict", blocks)


def sentence(subject: Subject) -> str:
    """The score with its interval, and whether it is better than the best of the company."""
    value, error = subject.score()
    metric = subject.metric.replace("_", " ").replace("rmse", "RMSE")
    low, high = metrics.interval(value, error)
    told = (
        f"On {count(len(subject.part), subject.run.record['measured_on'] + ' row')} the network's "
        f"{metric} is {number(value)} (95 % interval {number(low)} to {number(high)})."
    )
    company = {
        name: found[subject.metric]
        for name, found in subject.run.baselines.items()
        if subject.metric in found
    }
    if not company:
        return told
    name = min(company, key=lambda one: company[one])
    other = company[name]
    if other < low:
        judged = f"The {name} baseline does better: {number(other)}."
    elif other > high:
        judged = f"That is better than the best baseline, {name}, at {number(other)}."
    else:
        judged = (
            f"The best baseline, {name}, has {number(other)}: on so many rows that is no clear "
            "difference."
        )
    return f"{told} {judged}"


def _findings_words(found: list[dict[str, Any]]) -> str:
    alarms = [one for one in found if one.get("severity") in ("error", "warning")]
    if not alarms:
        return "The doctor found nothing to worry about."
    return f"The doctor found {count(len(alarms), 'thing')} to mend:"


def _beside(subject: Subject, values: dict[str, float]) -> Figure:
    names = sorted(values, key=lambda name: values[name])
    value, error = subject.score()
    high = max(*values.values(), value + 1.96 * error)
    metric = subject.metric.replace("_", " ").replace("rmse", "RMSE")
    chart = Chart(
        (0, high * 1.02), (len(names) - 0.4, -0.6),
        f"{metric} of the network and of its baselines",
        names=(f"{metric}: less is better", ""), height=36 * len(names) + 60, left=110,
        y_ticks=[(i, name) for i, name in enumerate(names)],
    )  # fmt: skip
    for i, name in enumerate(names):
        interval = metrics.interval(value, error)
        chart.lying(
            i, 0, values[name], "c0" if name == "network" else "soft",
            whisker=interval if name == "network" else None,
            tip=f"{name}: {number(values[name])}",
        )  # fmt: skip
    return Figure(
        chart.svg(),
        "The line through the network's bar is its 95 % interval over these rows.",
    )
