"""The layers over the epochs, as text for a terminal and as one SVG element.

Both show the same numbers in the same order. A measure has one scale for all layers, so that they
can be compared with each other: shares from 0 to 100 %, sizes of gradients, updates and weights on
a logarithmic one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from layerwise.insight.drawing import (
    decades,
    figure,
    fitting,
    position,
    power,
    share,
    shortened,
)
from layerwise.text import count, grid, width

if TYPE_CHECKING:
    from layerwise.insight.layers import Layers, LayerWeights

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK = 10  # columns


@dataclass(frozen=True)
class Measure:
    """One of the things that are seen of a layer, and how it is scaled and written."""

    key: str
    title: str
    scale: str  # "share", "log", or "linear"

    def write(self, value: float) -> str:
        """The value in few characters."""
        return share(value) if self.scale == "share" else figure(value)


GROUPS = {
    "forward: what each layer gives": (
        Measure("mean", "mean", "linear"),
        Measure("deviation", "deviation", "linear"),
        Measure("zeros", "zeros", "share"),
    ),
    "activations: where they do not answer": (
        Measure("saturated", "saturated", "share"),
        Measure("dead", "dead units", "share"),
        Measure("beyond", "inputs beyond ±5", "share"),
    ),
    "backward: norms of all weights of a layer": (
        Measure("gradient", "gradient", "log"),
        Measure("ratio", "update ÷ weight", "log"),
        Measure("weight", "weight", "log"),
    ),
}


def heading(layers: Layers) -> str:
    """Which epochs were looked at, which was kept, and of how many networks this is the mean."""
    epochs = layers.epochs
    if not epochs:
        return "no epoch was looked at"
    span = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    told = [f"{count(len(layers.names), 'layer')}, {span}"]
    if len(epochs) > 1:
        told[0] += f" ({len(epochs)} of them looked at)"
    if layers.best_epoch:
        told.append(f"epoch {layers.best_epoch} was kept")
    if layers.n_members > 1:
        told.append(f"mean of {layers.n_members} networks")
    return "; ".join(told)


# ---------------------------------------------------------------- text


def layers_text(layers: Layers) -> str:
    """The drawing for a terminal: a line for each layer, a sparkline for each measure."""
    lines = [heading(layers)]
    for title, measures in GROUPS.items():
        lines += _group(layers, title, measures)
    lines += _weights_table(layers.weights)
    return "\n".join(line.rstrip() for line in lines)


def _group(layers: Layers, title: str, measures: Sequence[Measure]) -> list[str]:
    """The layers that have these measures; nothing where none has."""
    # Dead units are shown of activations alone: a sum that is 0 can still learn.
    needed = measures[0].key
    names = [name for name in layers.names if layers.series(name, needed)[0]]
    if not names:
        return []
    room = width() - len(measures) * (_SPARK + 11)
    labels = [_label(name, layers.kinds[name], room) for name in names]
    indent = max(max(map(len, labels)), 5)
    header = f"{'':<{indent}}"
    cells = [[] for _ in names]  # type: list[list[str]]
    for measure in measures:
        series = [layers.series(name, measure.key)[1] for name in names]
        low, high = limits(measure, series)
        header += f"  {measure.title:<{_SPARK + 9}}"
        for row, values in zip(cells, series):
            last = measure.write(values[-1]) if values else ""
            row.append(f"  {spark(measure, values, low, high)} {last:>8}")
    shown = [f"{label:<{indent}}{''.join(row)}" for label, row in zip(labels, cells)]
    return ["", title, header, *shown]


def spark(measure: Measure, values: Sequence[float], low: float, high: float) -> str:
    """A line of blocks; a value that is no number is a cross."""
    picked = values
    if len(values) > _SPARK:
        places = np.linspace(0, len(values) - 1, _SPARK).round().astype(int)
        picked = [values[place] for place in places]
    text = "".join(_block(at(measure, value, low, high)) for value in picked)
    return f"{text:<{_SPARK}}"


def _block(place: float) -> str:
    return "×" if math.isnan(place) else _BLOCKS[min(int(place * len(_BLOCKS)), len(_BLOCKS) - 1)]


def limits(measure: Measure, series: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The least and the greatest of a measure's scale, for all layers."""
    values = [value for one in series for value in one if math.isfinite(value)]
    if measure.scale == "share" or not values:
        return 0.0, 1.0
    if measure.scale == "log":
        return decades(values)
    low, high = min(*values, 0.0), max(*values, 0.0)
    return (low, high) if high > low else (0.0, 1.0)


def at(measure: Measure, value: float, low: float, high: float) -> float:
    """Where a value lies on its scale, from 0 to 1; nan for what is no number."""
    if math.isnan(value):
        return math.nan
    if measure.scale == "log":
        return min(max(position(value, int(low), int(high)), 0.0), 1.0)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _label(name: str, kind: str, room: int) -> str:
    """Name and kind of a layer in so many columns."""
    kind = fitting(kind, max(room - 5, 6))
    return f"{shortened(name, max(room - len(kind) - 1, 4))} {kind}"


def _weights_table(weights: Sequence[LayerWeights]) -> list[str]:
    """Sizes and spectra at the end."""
    if not weights:
        return []
    measure = Measure("spectrum", "spectrum", "linear")
    rows = []
    for one in weights:
        top = one.spectrum[0] if one.spectrum else 0.0
        size = f"{one.shape[0]}×{one.shape[1]}" if one.shape else ""
        rows.append([
            _label(one.layer, one.kind, 20), size, f"{one.parameters:,}", share(one.share),
            spark(measure, one.spectrum, 0.0, top).strip() if top else "",
            f"{figure(top)} to {figure(one.spectrum[-1])}" if top else "",
            f"{one.rank:.0f} of {len(one.spectrum)}" if top else "",
        ])  # fmt: skip
    header = ["", "weights", "parameters", "share", "spectrum", "", "rank used"]
    return ["", "the weights that were kept", grid(header, rows, left=1, gap=2)]


# ---------------------------------------------------------------- SVG

WIDTH, TOP, ROW, FOOT = 760, 66, 50, 30
NAMES, TALL = 4, 30
PANELS = {"forward": (134, 112), "off": (262, 126), "gradient": (404, 100), "ratio": (528, 100)}
WEIGHTS = (652, 104)
SHARES = (Measure("dead", "dead", "share"), Measure("saturated", "saturated", "share"))
LOGS = {"gradient": Measure("gradient", "gradient", "log"),
        "ratio": Measure("ratio", "update ÷ weight", "log")}  # fmt: skip

# Text and lines take the page's own colour, so that they are legible on whatever it is.
_STYLE = """
.lw-layers{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
max-width:100%;height:auto}
.lw-layers text{fill:currentColor;font-size:11px;font-variant-numeric:tabular-nums}
.lw-layers .name{font-size:12px;font-weight:600}
.lw-layers .soft{fill-opacity:.68}
.lw-layers .small{font-size:9.5px}
.lw-layers .end{text-anchor:end}
.lw-layers .frame{fill:currentColor;fill-opacity:.04}
.lw-layers .rule{stroke:currentColor;stroke-opacity:.16;fill:none}
.lw-layers .curve{fill:none;stroke-width:1.6;stroke-linejoin:round}
.lw-layers .a{stroke:var(--lw-blue,#3182ce)}
.lw-layers .b{stroke:var(--lw-orange,#dd6b20)}
.lw-layers .c{stroke:var(--lw-violet,#8b5cf6)}
.lw-layers .d{stroke:var(--lw-red,#e53e3e)}
.lw-layers .fa{fill:var(--lw-blue,#3182ce)}
.lw-layers .fb{fill:var(--lw-orange,#dd6b20)}
.lw-layers .fd{fill:var(--lw-red,#e53e3e)}
.lw-layers .band{fill:var(--lw-blue,#3182ce);fill-opacity:.22}
.lw-layers .good{fill:var(--lw-green,#38a169);fill-opacity:.14}
"""


def layers_svg(layers: Layers) -> str:
    """The drawing as an ``<svg>`` element of 760 units width, in the colours of the page around.

    The page may set ``--lw-blue``, ``--lw-orange``, ``--lw-violet``, ``--lw-red``, ``--lw-green``.
    """
    names = layers.names
    height = TOP + ROW * len(names) + FOOT
    scales = {
        key: limits(m, [layers.series(name, key)[1] for name in names]) for key, m in LOGS.items()
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lw-layers" role="img" width="{WIDTH}" '
        f'height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f"aria-label={quoteattr('The layers over the epochs: ' + heading(layers))}>",
        f"<style>{_STYLE}</style>",
        _text(NAMES, 16, heading(layers)),
        *_titles(scales),
    ]
    last = layers.epochs[-1] if layers.epochs else 1
    first = min(layers.epochs[0], last - 1) if layers.epochs else 0
    for i, name in enumerate(names):
        y = TOP + ROW * i
        parts += ["<g>", f"<title>{escape(_clean(_tooltip(layers, name)))}</title>"]
        parts.append(_text(NAMES, y + 13, shortened(name, 18) or "(model)", "name"))
        parts.append(_text(NAMES, y + 27, fitting(layers.kinds[name], 20), "soft"))
        parts += _forward(layers, name, y, first, last)
        parts += _shares(layers, name, y, first, last)
        for key, measure in LOGS.items():
            parts += _log(layers, name, y, measure, scales[key], first, last)
        one = layers.weights_of(name)
        parts += [*(_spectrum(one, y) if one else []), "</g>"]
    parts += [*_foot(height, first, last), "</svg>"]
    return "\n".join(parts)


def _titles(scales: dict[str, tuple[float, float]]) -> list[str]:
    x = {key: left for key, (left, _) in PANELS.items()}
    ends = {key: f"{power(int(low))} to {power(int(high))}" for key, (low, high) in scales.items()}
    square = 'y="32" width="8" height="8" rx="1.5"/>'
    return [
        _text(x["forward"], 40, "output: mean ± std"),
        _text(x["forward"], 54, "own scale, 0 dashed", "small soft"),
        f'<rect class="fd" x="{x["off"]}" {square}', _text(x["off"] + 11, 40, "dead"),
        f'<rect class="fb" x="{x["off"] + 40}" {square}', _text(x["off"] + 51, 40, "saturated"),
        _text(x["off"], 54, "0 to 100 %", "small soft"),
        _text(x["gradient"], 40, "gradient (norm)"),
        _text(x["gradient"], 54, f"{ends['gradient']}, log", "small soft"),
        _text(x["ratio"], 40, "update ÷ weight"),
        _text(x["ratio"], 54, f"{ends['ratio']}, log", "small soft"),
        _text(WEIGHTS[0], 40, "weights at the end"),
        _text(WEIGHTS[0], 54, "share · spectrum", "small soft"),
    ]  # fmt: skip


def _forward(layers: Layers, name: str, y: float, first: int, last: int) -> list[str]:
    """The mean as a line in a band of one deviation to each side, on the layer's own scale."""
    epochs, means = layers.series(name, "mean")
    _, spread = layers.series(name, "deviation")
    good = [m - s for m, s in zip(means, spread)] + [m + s for m, s in zip(means, spread)]
    good = [value for value in good if math.isfinite(value)]
    left, wide = PANELS["forward"]
    if not good:
        return []
    low, high = min(*good, 0.0), max(*good, 0.0)
    if not high > low:
        low, high = low - 1, high + 1

    def place(value: float) -> float:
        return y + TALL * (1 - (value - low) / (high - low))

    x = [_x(epoch, first, last, left, wide) for epoch in epochs]
    kept = [i for i in range(len(x)) if math.isfinite(means[i] + spread[i])]
    top = [f"{_n(x[i])} {_n(place(means[i] + spread[i]))}" for i in kept]
    bottom = [f"{_n(x[i])} {_n(place(means[i] - spread[i]))}" for i in reversed(kept)]
    zero = _n(place(0))
    return [
        _frame(left, y, wide),
        f'<path class="band" d="M{"L".join([*top, *bottom])}z"/>',
        f'<path class="rule" stroke-dasharray="2 2" d="M{left} {zero}h{wide}"/>',
        _curve("a", [(x[i], place(means[i])) for i in kept]),
        _text(left, y + TALL + 10, f"{figure(means[-1])} ± {figure(spread[-1])}", "small soft"),
    ]


def _shares(layers: Layers, name: str, y: float, first: int, last: int) -> list[str]:
    left, wide = PANELS["off"]
    parts, told = [], []
    for measure, kind in zip(SHARES, ("d", "b")):
        epochs, values = layers.series(name, measure.key)
        # The dead units of a sum are not telling: it can be silent and still learn.
        if not values or not layers.series(name, "saturated")[0]:
            continue
        parts.append(_line(measure, epochs, values, (0, 1), kind, (left, wide), y, (first, last)))
        told.append(f"{share(values[-1])} {measure.title}")
    if not parts:
        return []
    line = ", ".join(told)
    return [_frame(left, y, wide), *parts, _text(left, y + TALL + 10, line, "small soft")]


def _log(
    layers: Layers, name: str, y: float, measure: Measure, scale: tuple[float, float], first: int,
    last: int,
) -> list[str]:  # fmt: skip
    epochs, values = layers.series(name, measure.key)
    if not values:
        return []
    left, wide = PANELS[measure.key]
    parts = [_frame(left, y, wide)]
    if measure.key == "ratio":  # about a thousandth is usual: that decade to each side is shaded
        low, high = (at(measure, edge, *scale) for edge in (1e-4, 1e-2))
        if high > low:
            parts.append(
                f'<rect class="good" x="{left}" y="{_n(y + TALL * (1 - high))}" width="{wide}" '
                f'height="{_n(TALL * (high - low))}"/>'
            )
    kind = "a" if measure.key == "gradient" else "c"
    parts.append(_line(measure, epochs, values, scale, kind, (left, wide), y, (first, last)))
    return [*parts, _text(left, y + TALL + 10, figure(values[-1]), "small soft")]


def _line(
    measure: Measure, epochs: Sequence[int], values: Sequence[float], scale: tuple[float, float],
    kind: str, panel: tuple[int, int], y: float, span: tuple[int, int],
) -> str:  # fmt: skip
    points = [
        (_x(epoch, *span, *panel), y + TALL * (1 - place))
        for epoch, place in ((e, at(measure, v, *scale)) for e, v in zip(epochs, values))
        if not math.isnan(place)
    ]
    return _curve(kind, points)


def _curve(kind: str, points: Sequence[tuple[float, float]]) -> str:
    """A line, or a dot where there is one point."""
    if not points:
        return ""
    if len(points) == 1:
        (x, y) = points[0]
        return f'<path class="curve {kind}" stroke-width="4" d="M{_n(x - 2)} {_n(y)}h4"/>'
    told = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path class="curve {kind}" d="M{told}"/>'


def _spectrum(one: LayerWeights, y: float) -> list[str]:
    """Share of the parameters, and the singular values as bars from the largest on."""
    left, wide = WEIGHTS
    parts = [
        f'<rect class="frame" x="{left}" y="{_n(y)}" width="{wide}" height="4" rx="2"/>',
        f'<rect class="fa" x="{left}" y="{_n(y)}" width="{_n(max(wide * one.share, 1))}" '
        'height="4" rx="2"/>',
    ]
    told = f"{share(one.share)} of parameters"
    top = one.spectrum[0] if one.spectrum else 0.0
    if top:
        bars = one.spectrum
        if len(bars) > 48:
            bars = tuple(bars[i] for i in np.linspace(0, len(bars) - 1, 48).round().astype(int))
        each, base = wide / max(len(bars), 12), y + TALL
        shapes = "".join(
            f"M{_n(left + i * each)} {_n(base)}v{_n(-22 * value / top)}h{_n(max(each - 0.7, 0.6))}"
            f"V{_n(base)}z"
            for i, value in enumerate(bars)
        )
        parts.append(f'<path class="fa" fill-opacity=".75" d="{shapes}"/>')
        told = f"{share(one.share)} · σ {figure(top)} to {figure(one.spectrum[-1])}"
    return [*parts, _text(left, y + TALL + 10, told, "small soft")]


def _foot(height: float, first: int, last: int) -> list[str]:
    y = height - 10
    left = PANELS["forward"][0]
    return [
        _text(left, y, f"each curve from epoch {max(first, 1)} to {last}", "small soft"),
        f'<rect class="good" x="{PANELS["ratio"][0]}" y="{_n(y - 8)}" width="9" height="9"/>',
        _text(PANELS["ratio"][0] + 13, y, "usual: about 0.001", "small soft"),
    ]


def _tooltip(layers: Layers, name: str) -> str:
    """All that is known of a layer, shown where the pointer rests and read aloud."""
    told = [f"{name} {layers.kinds[name]}"]
    for measures in GROUPS.values():
        for measure in measures:
            _, values = layers.series(name, measure.key)
            if values:
                ends = measure.write(values[0]), measure.write(values[-1])
                told.append(f"{measure.title}: {ends[0]} at first, {ends[1]} at last")
    one = layers.weights_of(name)
    if one is not None:
        told.append(f"{one.parameters:,} parameters, {share(one.share)} of all")
        if one.spectrum:
            told.append(f"uses {one.rank:.0f} of {len(one.spectrum)} directions")
    return "\n".join(told)


def _x(epoch: float, first: int, last: int, left: int, wide: int) -> float:
    return left + 2 + (wide - 4) * (epoch - first) / max(last - first, 1)


def _frame(left: int, y: float, wide: int) -> str:
    return f'<rect class="frame" x="{left}" y="{_n(y)}" width="{wide}" height="{TALL}" rx="3"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kind}">{escape(_clean(text))}</text>'


def _clean(text: str) -> str:
    """Without what XML has no place for."""
    return "".join(c if c >= " " or c == "\n" else " " for c in text)


def _n(value: float) -> str:
    """A coordinate to a tenth, in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")
