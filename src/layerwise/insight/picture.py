"""A trace as a picture: one SVG element, legible in light and dark, with nothing to fetch.

Layers lie below each other as the values run, so that two or two hundred need the same width and
no text is turned. Each has a strip of its units, as wide as they are many; the histogram of what
it gave; and the size of the gradients that came back to it, on one log scale for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from layerwise.insight.drawing import (
    decades,
    figure,
    findings,
    first_to_last,
    fitting,
    heading,
    position,
    power,
    shortened,
    size_of,
    tiny,
)
from layerwise.text import count

if TYPE_CHECKING:
    from layerwise.insight.trace import LayerTrace, Trace

WIDTH, TOP, ROW, FOOT = 760, 106, 50, 44
NAMES, UNITS, VALUES, GRADIENTS = 20, 292, 424, 578  # left edges; of the units, the middle
STRIP, BINS, BARS = 200, 118, 112  # widths of the three drawings
_CELLS = 64  # of a strip at most: a cell then stands for several units
_SHADES = 5

_STYLE = """
.lw-trace{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.lw-trace text{fill:#1a202c;font-size:11px;font-variant-numeric:tabular-nums}
.lw-trace .card{fill:#fff;stroke:#e2e8f0}
.lw-trace .big{font-size:15px;font-weight:600}
.lw-trace .name{font-size:12px;font-weight:600}
.lw-trace .soft{fill:#64748b}
.lw-trace .small{font-size:9.5px}
.lw-trace .end{text-anchor:end}
.lw-trace .mid{text-anchor:middle}
.lw-trace .line{stroke:#e2e8f0;fill:none}
.lw-trace .funnel{fill:#2b6cb0;fill-opacity:.07}
.lw-trace .unit{fill:#2b6cb0}
.lw-trace .dead{fill:none;stroke:#c53030}
.lw-trace .bins{fill:#2b6cb0}
.lw-trace .back{fill:#dd6b20}
.lw-trace .weights{fill:#6b46c1}
.lw-trace text.alarm{fill:#c53030}
@media (prefers-color-scheme:dark){
.lw-trace text{fill:#e2e8f0}
.lw-trace .card{fill:#171c26;stroke:#2d3748}
.lw-trace .soft{fill:#94a3b8}
.lw-trace .line{stroke:#2d3748}
.lw-trace .funnel,.lw-trace .unit,.lw-trace .bins{fill:#63b3ed}
.lw-trace .dead{fill:none;stroke:#fc8181}
.lw-trace .back{fill:#f6ad55}
.lw-trace .weights{fill:#b794f4}
.lw-trace text.alarm{fill:#fc8181}
}
"""


def picture(trace: Trace) -> str:
    """The trace as an ``<svg>`` element of 760 units width."""
    rows = [*trace.inputs, *trace.rows]
    height = TOP + ROW * len(rows) + FOOT
    widths = _widths(rows)
    sizes = [
        size.rms for row in rows for size in (row.gradient, row.weight_gradient) if size is not None
    ]
    low, high = decades(sizes)
    told = f"A network's pass: {heading(trace)}, {count(len(trace.rows), 'layer')}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lw-trace" role="img" width="{WIDTH}" '
        f'height="{height}" viewBox="0 0 {WIDTH} {height}" aria-label={quoteattr(told)}>',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(NAMES, 32, heading(trace), "big"),
        _text(NAMES, 50, first_to_last(trace), "soft"),
        _text(NAMES, 76, "layer", "soft"),
        _text(UNITS, 76, "units", "soft mid"),
        _text(VALUES, 76, "↓ forward: its values", "soft"),
        _text(GRADIENTS, 76, "↑ backward: gradients (rms)", "soft"),
        *_scale(low, high, height),
    ]
    places = [TOP + ROW * i for i in range(len(rows))]
    for (y, width), (next_y, next_width) in pairwise(zip(places, widths)):
        parts.append(_funnel(y + 20, width, next_y + 8, next_width))
    for row, y, width in zip(rows, places, widths):
        parts += ["<g>", f"<title>{escape(_tooltip(row))}</title>"]
        parts += [*_label(row, y), *_units(row, y, width), *_bins(row, y)]
        parts += [*_gradients(row, y, low, high), "</g>"]
    parts += [*_legend(height), "</svg>"]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kind}">{escape(_clean(text))}</text>'


def _clean(text: str) -> str:
    """Without what XML has no place for."""
    return "".join(c if c >= " " and c not in "\ufffe\uffff" else " " for c in text)


def _n(value: float) -> str:
    """A coordinate to a tenth, in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")


def _label(row: LayerTrace, y: float) -> list[str]:
    return [
        _text(NAMES, y + 18, shortened(row.name, 22) or row.kind, "name"),
        _text(NAMES, y + 33, fitting(row.layer or "input", 27), "soft"),
    ]


def _tooltip(row: LayerTrace) -> str:
    """All numbers of a layer, shown where the pointer rests."""
    values = row.values
    told = [
        _clean(f"{row.name} {row.layer or 'input'}"),
        f"shape {row.shape}",
        f"min {figure(values.minimum)}, mean {figure(values.mean)}, max {figure(values.maximum)}, "
        f"std {figure(values.std)}",
        *findings(row),
    ]
    for name, size in (
        ("gradient at the output", row.gradient),
        ("gradient of the weights", row.weight_gradient),
        ("gradient of the biases", row.bias_gradient),
    ):
        if size is not None:
            told.append(f"{name}: norm {tiny(size.norm)}, root mean square {tiny(size.rms)}")
    return "\n".join(told)


# ---------------------------------------------------------------- units


def _widths(rows: Sequence[LayerTrace]) -> list[float]:
    """Widths of the strips, in proportion to the units, though never too narrow to see."""
    pitch = min(11.0, STRIP / max(len(row.units) for row in rows))
    return [max(pitch * len(row.units), 3.0) for row in rows]


def _funnel(y: float, width: float, next_y: float, next_width: float) -> str:
    a, b = width / 2, next_width / 2
    return (
        f'<path class="funnel" d="M{_n(UNITS - a)} {_n(y)}H{_n(UNITS + a)}'
        f'L{_n(UNITS + b)} {_n(next_y)}H{_n(UNITS - b)}Z"/>'
    )


def _units(row: LayerTrace, y: float, width: float) -> list[str]:
    """A circle for each unit, or a strip of cells where they are many; the active ones are deep."""
    cells = _cells(row.units, width)
    pitch = width / max(len(cells), 1)
    most = max((one for one in cells if math.isfinite(one)), default=0.0)
    gap = 0.6 if len(cells) == len(row.units) and pitch >= 2.5 else 0.0
    x = UNITS - width / 2
    by_shade: dict[int, list[str]] = {}
    for i, size in enumerate(cells):
        shade = -1 if size == 0 else _SHADES
        if size > 0 and math.isfinite(size):
            shade = min(int(_SHADES * size / most), _SHADES - 1)
        by_shade.setdefault(shade, []).append(_cell(x + i * pitch, y + 8, pitch, gap))
    parts = []
    for shade, shapes in sorted(by_shade.items()):
        if shade < 0 or shade == _SHADES:  # never active, or not a number
            parts.append(f'<path class="dead" d="{"".join(shapes)}"/>')
        else:
            opacity = 0.2 + 0.8 * (shade + 0.5) / _SHADES
            parts.append(f'<path class="unit" fill-opacity="{opacity:.2f}" d="{"".join(shapes)}"/>')
    alarm = (row.dead and "LU" in row.layer) or row.values.not_finite
    told = " · ".join([f"{size_of(row)}", *findings(row)])
    return [*parts, _text(UNITS, y + 34, told, f"small mid {'alarm' if alarm else 'soft'}")]


def _cells(units: Sequence[float], width: float) -> Sequence[float]:
    """The units, or root mean squares of neighbours where a strip has not room for each."""
    most = min(_CELLS, max(1, int(width / 2)))
    if len(units) <= most or width / max(len(units), 1) >= 3:
        return units
    edges = [round(i * len(units) / most) for i in range(most + 1)]
    return [math.sqrt(sum(one * one for one in units[a:b]) / (b - a)) for a, b in pairwise(edges)]


def _cell(x: float, y: float, pitch: float, gap: float) -> str:
    """A circle, or a rectangle where circles would be too small to see, 12 high at most."""
    if pitch < 6:
        return f"M{_n(x + gap / 2)} {_n(y)}h{_n(pitch - gap)}v12h{_n(gap - pitch)}z"
    r = min(0.42 * pitch, 4.6)
    return (
        f"M{_n(x + pitch / 2 - r)} {_n(y + 6)}a{_n(r)} {_n(r)} 0 1 0 {_n(2 * r)} 0"
        f"a{_n(r)} {_n(r)} 0 1 0 {_n(-2 * r)} 0z"
    )


# ---------------------------------------------------------------- values


def _bins(row: LayerTrace, y: float) -> list[str]:
    """The histogram of a layer's values, with its ends, and a tick where 0 lies."""
    counts, values = row.values.counts, row.values
    most, wide, base = max(counts) or 1, BINS / len(counts), y + 26
    shapes = [
        f"M{_n(VALUES + i * wide)} {_n(base)}v{_n(-max(22 * n / most, 0.8))}h{_n(wide - 0.6)}"
        f"V{_n(base)}z"
        for i, n in enumerate(counts)
        if n
    ]
    parts = [f'<path class="line" d="M{VALUES} {_n(base + 0.5)}h{BINS}"/>']
    if shapes:
        parts.append(f'<path class="bins" d="{"".join(shapes)}"/>')
        parts.append(_text(VALUES, y + 37, figure(values.low), "small soft"))
        parts.append(_text(VALUES + BINS, y + 37, figure(values.high), "small soft end"))
    if values.low < 0 < values.high and math.isfinite(values.high - values.low):
        zero = VALUES - BINS * values.low / (values.high - values.low)
        parts.append(f'<path class="line" stroke-width="1.5" d="M{_n(zero)} {_n(base)}v4"/>')
        if VALUES + 40 < zero < VALUES + BINS - 40:
            parts.append(_text(zero, y + 37, "0", "small soft mid"))
    return parts


# ---------------------------------------------------------------- gradients


def _scale(low: int, high: int, height: float) -> list[str]:
    """A line for each power of ten, or for every few, with its name."""
    every = math.ceil((high - low) / 4)
    parts = []
    for exponent in range(low, high + 1, every):
        x = GRADIENTS + BARS * (exponent - low) / (high - low)
        parts.append(f'<path class="line" d="M{_n(x)} {TOP - 10}V{_n(height - FOOT)}"/>')
        parts.append(_text(x, TOP - 14, power(exponent), "small soft mid"))
    return parts


def _gradients(row: LayerTrace, y: float, low: int, high: int) -> list[str]:
    """Bars for the gradient at the output and, below it, that of the weights."""
    parts = []
    for kind, size, top, tall in (
        ("back", row.gradient, y + 7, 11),
        ("weights", row.weight_gradient, y + 22, 7),
    ):
        if size is None:
            continue
        long = BARS * position(size.rms, low, high)
        if long:
            parts.append(
                f'<rect class="{kind}" x="{GRADIENTS}" y="{_n(top)}" width="{_n(max(long, 1))}" '
                f'height="{tall}" rx="1.5"/>'
            )
        told = "small soft" if math.isfinite(size.rms) else "small alarm"
        parts.append(_text(GRADIENTS + max(long, 0) + 5, top + tall - 1, tiny(size.rms), told))
    return parts


def _legend(height: float) -> list[str]:
    y = height - 18
    square = f'y="{_n(y - 8)}" width="9" height="9" rx="1.5"/>'
    return [
        _text(NAMES, y, "strong: more active; red outline: 0 for every row", "small soft"),
        _text(VALUES, y, "values other than 0", "small soft"),
        f'<rect class="back" x="{GRADIENTS}" {square}',
        _text(GRADIENTS + 13, y, "output", "small soft"),
        f'<rect class="weights" x="{GRADIENTS + 56}" {square}',
        _text(GRADIENTS + 69, y, "weights", "small soft"),
    ]
