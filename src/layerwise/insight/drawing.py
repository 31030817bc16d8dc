"""A trace as text: a table of its numbers, and a drawing for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerwise.text import count, grid, width, wrapped

if TYPE_CHECKING:
    from layerwise.insight.measures import Size
    from layerwise.insight.trace import LayerTrace, Trace

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NAME, _KIND = 14, 12  # columns; longer names keep their ends


def figure(value: float | None) -> str:
    """Three digits that matter, in at most eight columns.

    Examples
    --------
    >>> figure(0.12345), figure(-21.0), figure(123456.0), figure(0.0000123), figure(None)
    ('0.123', '-21', '1.2e+05', '1.2e-05', '')
    """
    if value is None:
        return ""
    if value == 0 or 0.001 <= abs(value) < 10_000 or not math.isfinite(value):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}"


def tiny(value: float) -> str:
    """A gradient's size, which may have any power of ten.

    Examples
    --------
    >>> tiny(0.0123), tiny(0.0)
    ('1.2e-02', '0')
    """
    return f"{value:.1e}" if value else "0"


def share(value: float | None) -> str:
    """A share in per cent; what is more than none and less than all does not look like it.

    Examples
    --------
    >>> share(0.0), share(0.0001), share(0.524), share(0.9999), share(1.0)
    ('0 %', '<1 %', '52 %', '>99 %', '100 %')
    """
    if value is None:
        return ""
    if 0 < value < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= value < 1 else f"{100 * value:.0f} %"


def size_of(row: LayerTrace) -> str:
    """The output without its rows, e.g. "18" or "8×4×4"."""
    return "×".join(map(str, row.shape[1:])) or "1"


def heading(trace: Trace) -> str:
    """Loss and rows in a line."""
    return f"loss {figure(trace.loss)} of {count(trace.n_rows, 'row')}, in training mode"


def first_to_last(trace: Trace) -> str:
    """How much of the gradient reaches the first layer; empty where there are not two."""
    ratio = trace.first_to_last
    if ratio is None:
        return ""
    told = f"the first layer's weights get {figure(ratio)} times the gradient of the last layer's"
    # limits of AUTOTRAINER (Zhang et al., 2021)
    return told + (": it vanishes" if ratio < 1e-3 else ": it explodes" if ratio > 70 else "")


def findings(row: LayerTrace) -> list[str]:
    """What is remarkable about a layer's values, in few words."""
    values, told = row.values, []
    if values.not_finite:
        told.append(f"{share(values.not_finite)} nan or infinite")
    if row.dead:
        # A unit that an activation silences has no slope left to recover by; a sum of 0 is a sum.
        told.append(f"{row.dead:,} {'dead' if 'LU' in row.layer else 'always 0'}")
    if row.saturated:
        told.append(f"{share(row.saturated)} saturated")
    if values.zeros:
        told.append(f"{share(values.zeros)} zeros")
    return told


# ---------------------------------------------------------------- the table


def table(trace: Trace) -> str:
    """Two tables: values on their way forward, gradients on their way back."""
    rows = [*trace.inputs, *trace.rows]
    forward = {
        "": [row.name for row in rows],
        "layer": [row.kind for row in rows],
        "units": [size_of(row) for row in rows],
        "min": [figure(row.values.minimum) for row in rows],
        "mean": [figure(row.values.mean) for row in rows],
        "max": [figure(row.values.maximum) for row in rows],
        "std": [figure(row.values.std) for row in rows],
        "zeros": [share(row.values.zeros) for row in rows],
        "dead": [f"{row.dead:,}" if row.dead else "" for row in rows],
        "saturated": [share(row.saturated) for row in rows],
        "nan": [share(row.values.not_finite) if row.values.not_finite else "" for row in rows],
    }
    backward = {
        "": [row.name for row in rows],
        "layer": [row.kind for row in rows],
        "output": [_rms(row.gradient) for row in rows],
        "÷ last": [figure(row.ratio) for row in rows],
        "weights": [_rms(row.weight_gradient) for row in rows],
        "(norm)": [_norm(row.weight_gradient) for row in rows],
        "biases": [_rms(row.bias_gradient) for row in rows],
    }
    lines = [heading(trace), "", "forward: what each layer gives", _columns(forward), ""]
    lines += ["backward: root mean square of the loss's gradient", _columns(backward)]
    told = [wrapped(one) for one in (first_to_last(trace), *trace.doubts) if one]
    return "\n".join([*lines, "", *told]).rstrip()


def _columns(columns: dict[str, list[str]]) -> str:
    """A table without the columns that have nothing to tell."""
    shown = {name: cells for name, cells in columns.items() if any(cells) or not name}
    return grid(list(shown), list(zip(*shown.values())), left=2, gap=2)


def _rms(size: Size | None) -> str:
    return "" if size is None else tiny(size.rms)


def _norm(size: Size | None) -> str:
    return "" if size is None else tiny(size.norm)


# ---------------------------------------------------------------- the drawing


def drawing(trace: Trace) -> str:
    """Histograms of the values going forward, and the gradients coming back as bars."""
    rows = [*trace.inputs, *trace.rows]
    name = min(max(len(row.name) for row in rows), _NAME)
    kind = min(max(len(row.kind) for row in rows), _KIND)
    labels = [f"{shortened(r.name, name):<{name}} {fitting(r.kind, kind):<{kind}}" for r in rows]
    indent = len(labels[0])
    lines = [heading(trace), "", "forward ↓ values other than 0, from the least to the greatest"]
    for label, row in zip(labels, rows):
        least, most = figure(row.values.low), figure(row.values.high)
        line = f"{label} {least:>8} {_bars(row.values.counts)} {most:<8}"
        told = ", ".join(findings(row))
        if told and len(line) + 1 + len(told) > width():
            lines.append(line.rstrip())
            line = " " * (indent + 10)
        lines.append(f"{line} {told}".rstrip() if told else line.rstrip())
    lines += ["", "backward ↑ gradient of the loss at each output, root mean square, log scale"]
    sizes = [None if row.gradient is None else row.gradient.rms for row in rows]
    low, high = decades(sizes)
    room = width() - indent - 10 - len(power(high))
    for label, size in zip(labels, sizes):
        told = "none" if size is None else tiny(size)
        lines.append(f"{label} {told:>8} {_bar(position(size or 0, low, high) * room)}".rstrip())
    return "\n".join([*lines, " " * (indent + 10) + _axis(low, high, room)])


def _bars(counts: Sequence[int]) -> str:
    """A histogram in a line; a bin that holds anything shows."""
    most = max(counts)
    return "".join(_BLOCKS[(8 * n - 1) // most] if n else " " for n in counts)


def _axis(low: int, high: int, room: int) -> str:
    """Powers of ten where they lie, as many as there is room for."""
    line = ""
    for exponent in range(low, high + 1):
        place = round((exponent - low) / (high - low) * room)
        if len(line) + 2 * bool(line) <= place:
            line = f"{line:<{place}}{power(exponent)}"
    return line


def _bar(length: float) -> str:
    whole = int(length)
    return "█" * whole + _EIGHTHS[int((length - whole) * 8)].strip()


# ---------------------------------------------------------------- scales, for text and picture


def decades(sizes: Sequence[float | None]) -> tuple[int, int]:
    """The powers of ten that hold all sizes which a log scale can show."""
    logs = [math.log10(size) for size in sizes if size and math.isfinite(size)]
    if not logs:
        return 0, 1
    low, high = math.floor(min(logs) - 0.05), math.ceil(max(logs))
    return low, max(high, low + 1)


def position(size: float, low: int, high: int) -> float:
    """Where a size lies between two powers of ten, from 0 to 1; 0 and nan lie at 0."""
    if not size > 0:
        return 0.0
    return 1.0 if math.isinf(size) else (math.log10(size) - low) / (high - low)


def power(exponent: int) -> str:
    """A power of ten.

    Examples
    --------
    >>> power(-3)
    '10⁻³'
    """
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def shortened(text: str, most: int) -> str:
    """The text, or its end: of a dotted name that is the part that tells layers apart."""
    return text if len(text) <= most else "…" + text[len(text) - most + 1 :]


def fitting(text: str, most: int) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else text[: most - 1] + "…"
