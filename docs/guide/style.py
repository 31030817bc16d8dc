"""How every picture of the guide looks: white card, few colours, text large enough to read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE = "#2b6cb0", "#dd6b20", "#2f855a", "#c53030", "#6b46c1"
INK, GREY, LIGHT = "#1a202c", "#718096", "#e2e8f0"
CLASSES = [BLUE, ORANGE, GREEN]
VALLEY = "Blues_r"  # the colour map of loss surfaces: dark is low

RC = {
    "svg.fonttype": "path",  # looks the same with whatever fonts a reader has
    "svg.hashsalt": "layerwise",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": LIGHT,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 200,  # of what is rasterized: many points, surfaces
}


def card(
    n_columns: int = 1, *, height: float = 3.0, width: float = 7.2, n_rows: int = 1, **kwargs: Any
) -> tuple[Figure, Any]:
    """A figure of the page's width in inches, and its axes: one, or an array of them.

    Further arguments go to ``Figure.subplots``.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    return figure, figure.subplots(n_rows, n_columns, **kwargs)


def save(picture: Figure | str, path: Path) -> Path:
    """Write a figure, or the text of an SVG, the same bytes each time."""
    if isinstance(picture, str):
        path.write_text(picture)
    else:
        picture.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        # A hundredth of a point is enough, and lines need not end in a space.
        text = re.sub(
            r' d="[^"]*"', lambda d: re.sub(r"\d+\.\d{3,}", _short, d[0]), path.read_text()
        )
        path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    return path


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"
