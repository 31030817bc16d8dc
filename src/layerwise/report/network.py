"""The network, drawn with its real sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from layerwise.metrics import DECIDING
from layerwise.network.plan import Layer, n_inputs
from layerwise.network.summary import summarise
from layerwise.report.blocks import Block, Figure, Grid, Section, Text
from layerwise.report.charts import _n, _text, svg
from layerwise.report.subject import Subject
from layerwise.text import count, number

_WIDTH, _HIGH, _TOP = 640, 150, 46


def network(subject: Subject) -> Section:
    """Drawing, layers, and how the training was set."""
    model = subject.run.model
    summary = summarise(model.plan, n_rows=subject.run.record["data"]["rows"]["train"])
    several = len(model.members)
    told = f"{summary.total:,} parameters"
    if several > 1:
        told = f"{several} networks of this plan, each {told}; their answers are averaged"
    blocks: list[Block] = [Text(f"{told}."), Figure(_drawing(model.plan), "Heights are units.")]
    header, rows = summary._cells()
    blocks.append(Grid(header, rows, left=2, caption="Layer by layer", folded=True))
    if "tried" in subject.run.record:
        blocks.append(_recipes(subject.run.record["tried"], model.target.task))
    settings = [[name, _plain(value)] for name, value in model.recipe.items()]
    blocks.append(Grid(["setting", "value"], settings, left=2, caption="Settings", folded=True))
    return Section("network", "Network", blocks)


def _recipes(tried: Sequence[Mapping[str, Any]], task: str) -> Grid:
    """The recipes that were compared before the training, the best first."""
    best = sorted(tried, key=lambda one: math.inf if one["value"] is None else one["value"])
    rows = [
        [
            one["name"],
            ", ".join(f"{name} {_plain(value)}" for name, value in one["settings"].items()),
            "diverged" if one["value"] is None else number(one["value"]),
        ]
        for one in best
    ]
    header = ["recipe", "sets", DECIDING[task].replace("_", " ")]
    said = "Recipes compared on the same rows held out; the first was taken"
    return Grid(header, rows, left=2, caption=said, folded=True)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None or value == {} else str(value)


def _drawing(plan: Sequence[Layer]) -> str:
    """Layers as bars as tall as they have units, with their parameters between them."""
    stages: list[tuple[int, str, str]] = [(n_inputs(plan), "inputs", "")]
    links: list[str] = []
    for layer in plan:
        kind = layer["type"]
        if kind == "Linear":
            units = int(layer["out_features"])
            stages.append((units, "", ""))
            links.append(f"{(int(layer['in_features']) + 1) * units:,}")
        elif kind == "InputLayer" and len(stages) == 1:
            stages[0] = (stages[0][0], "inputs", "encoded")
        elif kind != "Dropout":
            units, name, what = stages[-1]
            stages[-1] = (units, name, f"{what} {kind}".strip())
    stages[-1] = (stages[-1][0], "outputs", stages[-1][2])
    most = max(units for units, _, _ in stages)
    step = (_WIDTH - 120) / max(len(stages) - 1, 1)
    middle = _TOP + _HIGH / 2
    parts, places = [], []
    for i, (units, name, what) in enumerate(stages):
        x, tall = 60 + i * step, max(4.0, _HIGH * units / most)
        places.append((x, tall))
        parts.append(
            f'<rect class="bar c0" x="{_n(x - 8)}" y="{_n(middle - tall / 2)}" width="16" '
            f'height="{_n(tall)}" rx="2"><title>{units:,} units</title></rect>'
        )
        parts.append(_text(x, _TOP + _HIGH + 18, f"{units:,}", "axis mid"))
        parts.append(_text(x, _TOP + _HIGH + 33, name or what, "tick mid"))
        if name and what:
            parts.append(_text(x, _TOP + _HIGH + 47, what, "tick mid"))
    funnels = []
    for (x0, h0), (x1, h1), weights in zip(places, places[1:], links):
        a, b = x0 + 9, x1 - 9
        funnels.append(
            f'<path class="band c0" d="M{_n(a)} {_n(middle - h0 / 2)}L{_n(b)} {_n(middle - h1 / 2)}'
            f'V{_n(middle + h1 / 2)}L{_n(a)} {_n(middle + h0 / 2)}Z"/>'
        )
        funnels.append(_text((a + b) / 2, 24, weights, "tick mid"))
    funnels.append(_text(8, 24, "weights", "tick"))
    told = " to ".join(f"{units:,}" for units, _, _ in stages)
    label = f"A network from {told} units, {count(len(links), 'linear layer')}"
    return svg("".join(funnels + parts), _WIDTH, _TOP + _HIGH + 56, label)
