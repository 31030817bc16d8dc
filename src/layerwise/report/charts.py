"""Charts as inline SVG: legible in light and dark, on paper, and by a screen reader's label.

Colours come from the page's style sheet (classes ``c0`` to ``c4``, ``soft``), so that a chart has
none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from layerwise.insight.drawing import figure

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44  # room around the axes


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, at most so many.

    Examples
    --------
    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


class Chart:
    """Axes with what is drawn into them.

    Parameters
    ----------
    x, y : the ends of the axes
    label : what a screen reader says
    names : of the two axes
    log : whether the y axis goes by powers of ten
    x_ticks, y_ticks : their places and texts, if not round numbers
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], label: str, *,
        names: tuple[str, str] = ("", ""), width: int = 640, height: int = 280, log: bool = False,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None, left: int = LEFT,
    ) -> None:  # fmt: skip
        self.width, self.height, self.label, self.left = width, height, label, left
        self.log = log and y[0] > 0
        self.x, self.y = _wide(x), _wide(y)
        if self.log:
            self.y = (math.log10(y[0]), math.log10(max(y[1], y[0] * 1.01)))
        self.parts: list[str] = []
        self.legend: list[tuple[str, str]] = []
        for place, text in x_ticks or [(t, figure(t)) for t in ticks(*self.x)]:
            at = self.px(place)
            self.parts += [
                f'<line class="grid" x1="{_n(at)}" x2="{_n(at)}" y1="{TOP}" '
                f'y2="{height - BOTTOM}"/>',
                _text(at, height - BOTTOM + 16, text, "tick mid"),
            ]
        for place, text in y_ticks or self._y_ticks():
            at = self.py(place)
            self.parts += [
                f'<line class="grid" x1="{left}" x2="{width - RIGHT}" y1="{_n(at)}" '
                f'y2="{_n(at)}"/>',
                _text(left - 6, at + 4, text, "tick end"),
            ]
        if names[0]:
            middle = (left + width - RIGHT) / 2
            self.parts.append(_text(middle, height - 8, names[0], "axis mid"))
        if names[1]:
            y_middle = (TOP + height - BOTTOM) / 2
            self.parts.append(
                f'<text class="axis mid" transform="translate(13 {_n(y_middle)}) rotate(-90)">'
                f"{escape(names[1])}</text>"
            )

    def _y_ticks(self) -> list[tuple[float, str]]:
        if not self.log:
            return [(t, figure(t)) for t in ticks(*self.y, most=5)]
        low, high = self.y
        within = [10.0**k for k in range(math.ceil(low), math.floor(high) + 1)]
        if len(within) < 2:
            within = [t for t in ticks(10**low, 10**high, most=5) if t > 0]
        return [(t, figure(t)) for t in within]

    def px(self, x: float) -> float:
        """Where x lies."""
        low, high = self.x
        return self.left + (x - low) / (high - low) * (self.width - self.left - RIGHT)

    def py(self, y: float) -> float:
        """Where y lies, on the logarithmic scale if the chart has one."""
        low, high = self.y
        if self.log:
            y = math.log10(max(y, 10 ** (low - 1)))
        share = min(max((y - low) / (high - low), -0.02), 1.02)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def line(
        self, xs: Iterable[float], ys: Iterable[float], kind: str = "c0", name: str = ""
    ) -> Chart:
        """A line through points; a gap where a value is not finite."""
        path, pen = [], "M"
        for x, y in zip(xs, ys):
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            path.append(f"{pen}{_n(self.px(x))} {_n(self.py(y))}")
            pen = "L"
        if path:
            self.parts.append(f'<path class="line {kind}" d="{"".join(path)}"/>')
        return self._named(name, kind)

    def dots(
        self, xs: Iterable[float], ys: Iterable[float], kind: str = "c0", name: str = "",
        radius: float = 2.4,
    ) -> Chart:  # fmt: skip
        """A dot for each point, all in one path so that thousands stay small."""
        r = _n(radius)
        path = "".join(
            f"M{_n(self.px(x))} {_n(self.py(y))}h0" for x, y in zip(xs, ys)
            if math.isfinite(x) and math.isfinite(y)
        )  # fmt: skip
        self.parts.append(
            f'<path class="dots {kind}" stroke-width="{_n(2 * float(r))}" d="{path}"/>'
        )
        return self._named(name, kind)

    def bars(
        self, edges: Sequence[float], heights: Sequence[float], kind: str = "c0", name: str = "",
        tips: Sequence[str] = (),
    ) -> Chart:  # fmt: skip
        """Standing bars between neighbouring edges."""
        zero = self.py(max(self.y[0], 0) if not self.log else 10 ** self.y[0])
        for i, height in enumerate(heights):
            x0, x1 = self.px(edges[i]), self.px(edges[i + 1])
            y = self.py(height)
            top, bottom = min(y, zero), max(y, zero)
            tip = f"<title>{escape(tips[i])}</title>" if tips else ""
            self.parts.append(
                f'<rect class="bar {kind}" x="{_n(x0 + 0.5)}" y="{_n(top)}" '
                f'width="{_n(max(x1 - x0 - 1, 0.5))}" height="{_n(bottom - top)}">{tip}</rect>'
            )
        return self._named(name, kind)

    def lying(
        self, place: float, low: float, high: float, kind: str = "c0", thick: float = 14,
        whisker: tuple[float, float] | None = None, tip: str = "",
    ) -> Chart:  # fmt: skip
        """A lying bar from ``low`` to ``high`` at a place of the y axis, with its interval."""
        y, x0, x1 = self.py(place), self.px(min(low, high)), self.px(max(low, high))
        told = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(
            f'<rect class="bar {kind}" x="{_n(x0)}" y="{_n(y - thick / 2)}" '
            f'width="{_n(max(x1 - x0, 0.5))}" height="{_n(thick)}">{told}</rect>'
        )
        if whisker is not None:
            a, b = self.px(whisker[0]), self.px(whisker[1])
            self.parts.append(
                f'<path class="whisker" d="M{_n(a)} {_n(y)}H{_n(b)}M{_n(a)} {_n(y - 3)}v6'
                f'M{_n(b)} {_n(y - 3)}v6"/>'
            )
        return self

    def rule(self, *, x: float | None = None, y: float | None = None, name: str = "") -> Chart:
        """A dashed line across, with a word at its end."""
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        if x is not None:
            at = _n(self.px(x))
            self.parts.append(f'<path class="rule" d="M{at} {TOP}V{bottom}"/>')
            self.parts.append(_text(self.px(x), TOP - 4, name, "tick mid"))
        if y is not None:
            at = _n(self.py(y))
            self.parts.append(f'<path class="rule" d="M{self.left} {at}H{right}"/>')
            self.parts.append(_text(right - 4, self.py(y) - 5, name, "tick end"))
        return self

    def diagonal(self) -> Chart:
        """Where x and y are the same."""
        low, high = max(self.x[0], self.y[0]), min(self.x[1], self.y[1])
        self.parts.append(
            f'<path class="rule" d="M{_n(self.px(low))} {_n(self.py(low))}'
            f'L{_n(self.px(high))} {_n(self.py(high))}"/>'
        )
        return self

    def _named(self, name: str, kind: str) -> Chart:
        if name:
            self.legend.append((name, kind))
        return self

    def svg(self) -> str:
        """The chart as an ``<svg>`` element that is as wide as its place."""
        x, y = self.left + 8.0, TOP + 10.0
        key = []
        for name, kind in self.legend:
            key.append(f'<path class="line key {kind}" d="M{_n(x)} {_n(y - 4)}h16"/>')
            key.append(_text(x + 21, y, name, "tick"))
            x += 36 + 6.2 * len(name)
        return svg("".join([*self.parts, *key]), self.width, self.height, self.label)


def svg(inside: str, width: int, height: int, label: str) -> str:
    """An element that scales with the page and has a name for those who do not see it."""
    wide = ' class="big"' if width > 400 else ""  # on a phone it scrolls rather than shrinks
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img"{wide} viewBox="0 0 {width} {height}" '
        f"aria-label={quoteattr(_clean(label))}>{inside}</svg>"
    )


def histogram(
    values: np.ndarray, label: str, name: str, *, weights: np.ndarray | None = None,
    bins: int = 40, width: int = 310, height: int = 230,
) -> str:  # fmt: skip
    """How often values lie where."""
    values = values[np.isfinite(values)]
    low, high = _wide((float(values.min()), float(values.max()))) if len(values) else (0.0, 1.0)
    n = min(bins, max(5, int(np.sqrt(len(values)))))
    counts, edges = np.histogram(values, bins=n, range=(low, high))
    chart = Chart(
        (float(edges[0]), float(edges[-1])), (0, float(counts.max(initial=1))), label,
        names=(name, "rows"), width=width, height=height,
    )  # fmt: skip
    tips = [f"{figure(a)} to {figure(b)}: {n:,}" for a, b, n in zip(edges, edges[1:], counts)]
    return chart.bars(edges.tolist(), counts.tolist(), tips=tips).svg()


def sparkline(counts: Sequence[float], label: str) -> str:
    """A small histogram within a line of text."""
    top = max([*counts, 1e-12])
    step = 96 / max(len(counts), 1)
    bars = "".join(
        f'<rect class="bar c0" x="{_n(i * step)}" width="{_n(max(step - 1, 0.8))}" '
        f'y="{_n(20 - 19 * n / top)}" height="{_n(max(19 * n / top, 0.6 if n else 0))}"/>'
        for i, n in enumerate(counts)
    )
    return svg(bars, 96, 20, label).replace("<svg ", '<svg class="spark" ', 1)


def _text(x: float, y: float, text: str, kind: str) -> str:
    if not text:
        return ""
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}">{escape(_clean(text))}</text>'


def _clean(text: str) -> str:
    """Without what XML has no place for."""
    return "".join(c if c >= " " and c not in "\ufffe\uffff" else " " for c in text)


def _wide(ends: tuple[float, float]) -> tuple[float, float]:
    """Two ends that differ; an axis may run backwards."""
    low, high = ends
    if abs(high - low) > 1e-9 * max(abs(low), abs(high)):  # rounding is no difference
        return low, high
    room = abs(low) * 0.05 or 1.0
    return low - room, low + room


def _n(value: float) -> str:
    """A coordinate to a tenth, in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")
