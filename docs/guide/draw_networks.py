"""Pictures of tensors, layers and what they do: chapters 1 to 6."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from sklearn.datasets import load_iris
from style import BLUE, CLASSES, GREEN, GREY, INK, LIGHT, ORANGE, PURPLE, RED, card
from torch import nn
from torch.nn import functional as F

import layerwise as lw


def _blank(axes: Axes, width: float, height: float) -> None:
    """Axes as a sheet of paper, y downwards."""
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")


def _grid(
    axes: Axes, x: float, y: float, values: Any, colour: str, *, faded: Any = None, size: float = 1
) -> None:
    """A matrix of cells with its upper left corner at (x, y); faded cells are copies."""
    values = np.atleast_2d(np.asarray(values, dtype=object))
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            pale = faded is not None and faded[i][j]
            face = (colour, 0.10 if pale else 0.28)
            corner = (x + j * size, y + i * size)
            axes.add_patch(Rectangle(corner, size, size, facecolor=face, edgecolor="white"))
            axes.text(
                x + (j + 0.5) * size,
                y + (i + 0.5) * size,
                value,
                ha="center",
                va="center",
                fontsize=8.5,
                color=GREY if pale else INK,
            )


# ------------------------------------------------------------------ chapter 1


def broadcasting() -> Figure:
    """Two sums of shapes that fit and one of shapes that do not."""
    figure, row = card(3, height=2.55)
    table = np.arange(1, 13).reshape(3, 4)
    line, column = np.array([[10, 20, 30, 40]]), np.array([[1], [2], [3]])
    down, right = [[False] * 4, [True] * 4, [True] * 4], [[False, True, True, True]] * 3
    cases = [
        ("(3, 4) + (4,)", table, None, np.repeat(line, 3, 0), down, table + line),
        (
            "(3, 1) + (4,)",
            np.repeat(column, 4, 1),
            right,
            np.repeat(line, 3, 0),
            down,
            column + line,
        ),
        ("(3, 4) + (3,)", table, None, line[:, :3], None, None),
    ]
    for axes, (title, a, a_copies, b, b_copies, total) in zip(row, cases):
        _blank(axes, 9.4, 8)
        axes.set_title(title, color=RED if total is None else INK)
        _grid(axes, 0.2, 0.2, a, BLUE, faded=a_copies)
        axes.text(4.7, 1.7, "+", ha="center", va="center", fontsize=12)
        _grid(axes, 5.2, 0.2, b, ORANGE, faded=b_copies)
        if total is None:
            words = "the right-hand ends,\n4 and 3, do not fit"
            axes.text(4.7, 6.2, words, ha="center", va="center", color=RED)
        else:
            axes.text(2.0, 6.2, "=", ha="center", va="center", fontsize=12)
            _grid(axes, 2.7, 4.7, total, GREEN)
    return figure


# ------------------------------------------------------------------ chapter 2

WEIGHT = [[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]]
BIAS = [0.1, -0.2]
ROW = [0.4, 0.3, 0.2]


def linear_layer() -> Figure:
    """A layer of 3 inputs and 2 outputs, as arrows and as a table of weights."""
    figure, (left, right) = card(2, height=2.9, width_ratios=[1, 1.15])
    output = [sum(w * x for w, x in zip(ws, ROW)) + b for ws, b in zip(WEIGHT, BIAS)]
    _blank(left, 9, 8.4)
    left.set_title("as arrows")
    inputs, outputs = [(1.6, 1.6), (1.6, 4.2), (1.6, 6.8)], [(7, 2.6), (7, 5.8)]
    for j, to in enumerate(outputs):
        for i, start in enumerate(inputs):
            _weight_arrow(left, start, to, WEIGHT[j][i], along=0.3 if j == 0 else 0.34)
    for i, place in enumerate(inputs):
        _unit(left, place, f"{ROW[i]}", BLUE)
        left.text(0.35, place[1], f"x{i + 1}", ha="center", va="center", color=GREY)
    for j, place in enumerate(outputs):
        _unit(left, place, f"{output[j]:.2f}", GREEN)
        left.text(place[0], place[1] - 1.05, f"bias {BIAS[j]:+.1f}", ha="center", color=PURPLE)

    _blank(right, 12.4, 8.4)
    right.set_title("as a table: x @ weight.T + bias")
    size = 1.5
    _grid(right, 0.4, 1.2, [ROW], BLUE, size=size)
    right.text(0.4, 0.9, "x  (1, 3)", color=BLUE, va="bottom")
    right.text(5.35, 1.95, "@", ha="center", va="center", fontsize=12)
    _grid(right, 5.8, 1.2, np.transpose(WEIGHT), ORANGE, size=size)
    right.text(5.8, 0.9, "weight.T  (3, 2)", color=ORANGE, va="bottom")
    right.text(9.2, 1.95, "+", ha="center", va="center", fontsize=12)
    _grid(right, 9.7, 1.2, [["+0.1", "-0.2"]], PURPLE, size=1.2)
    right.text(9.7, 0.9, "bias  (2,)", color=PURPLE, va="bottom")
    right.text(5.35, 7.0, "=", ha="center", va="center", fontsize=12)
    _grid(right, 5.8, 6.3, [[f"{value:.2f}" for value in output]], GREEN, size=size)
    right.text(9.2, 7.05, "output  (1, 2)", color=GREEN, va="center")
    return figure


def _unit(axes: Axes, place: tuple[float, float], text: str, colour: str, r: float = 0.75) -> None:
    axes.add_patch(Circle(place, r, facecolor="white", edgecolor=colour, linewidth=1.8, zorder=3))
    axes.text(*place, text, ha="center", va="center", fontsize=8.5, zorder=4)


def _weight_arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    weight: float,
    along: float = 0.3,
    text: str | None = None,
    r: float = 0.75,
    flat: bool = False,
) -> None:
    """An arrow between units: blue for a positive weight, red for a negative, grey for none."""
    colour = GREY if weight == 0 or flat else BLUE if weight > 0 else RED
    start_, end_ = np.array(start), np.array(end)
    step = (end_ - start_) / np.hypot(*(end_ - start_))
    axes.add_patch(
        FancyArrowPatch(
            tuple(start_ + r * step),
            tuple(end_ - r * step),
            arrowstyle="-|>",
            mutation_scale=9,
            color=colour,
            linewidth=1.0 if flat else 0.6 + 0.8 * min(abs(weight), 2),
            shrinkA=0,
            shrinkB=0,
        )
    )
    x, y = start_ + along * (end_ - start_)
    axes.text(
        x,
        y,
        text or f"{weight:g}",
        ha="center",
        va="center",
        fontsize=8.5,
        color=PURPLE if flat else colour,
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
    )


# ------------------------------------------------------------------ chapter 3


def collapse() -> Figure:
    """Borders of "is it versicolor?": one layer, three without and three with ReLU between."""
    iris = load_iris()
    raw = torch.tensor(iris.data[:, 2:], dtype=torch.float32)
    mean, std = raw.mean(dim=0), raw.std(dim=0)
    X, y = (raw - mean) / std, torch.tensor(iris.target == 1, dtype=torch.float32)[:, None]
    cases = [
        ("one linear layer", 600, nn.Sequential(nn.Linear(2, 1))),
        ("three linear layers", 600, _stack(nn.Identity)),
        ("three layers, ReLU between", 200, _stack(nn.ReLU)),
    ]
    side = [np.linspace(0.5, 7.4, 70), np.linspace(-0.2, 2.8, 70)]
    places = torch.tensor(np.stack(np.meshgrid(*side), axis=-1), dtype=torch.float32)
    figure, row = card(3, height=2.75, sharey=True)
    for axes, (title, n_steps, network) in zip(row, cases):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(n_steps):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(X), y).backward()
            optimizer.step()
        with torch.no_grad():
            logits = network((places - mean) / std)[..., 0].numpy()
            right = ((network(X) > 0) == (y > 0)).float().mean().item()
        areas = axes.contourf(
            *side, logits, levels=[-1e9, 0, 1e9], colors=[LIGHT, ORANGE], alpha=0.3
        )
        areas.set_rasterized(True)
        axes.contour(*side, logits, levels=[0], colors=[INK], linewidths=1.2)
        for versicolor, colour, name in ((0, GREY, "other"), (1, ORANGE, "versicolor")):
            chosen = raw[y[:, 0] == versicolor]
            axes.scatter(*chosen.T, s=9, color=colour, label=name, linewidths=0, rasterized=True)
        axes.set_title(f"{title}\n{right:.0%} right")
        axes.set_xlabel("petal length (cm)")
    row[0].set_ylabel("petal width (cm)")
    row[0].legend(loc="upper left", handletextpad=0.1, borderpad=0)
    return figure


def _stack(activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 1)
    )


# ------------------------------------------------------------------ chapter 4


def sigmoid_softmax() -> Figure:
    """The sigmoid's curve, and three logits before and after softmax."""
    figure, (left, middle, right) = card(3, height=2.6, width_ratios=[1.5, 1, 1])
    z = np.linspace(-7, 7, 200)
    left.plot(z, 1 / (1 + np.exp(-z)))
    for at in (-2, 0, 2):
        p = 1 / (1 + np.exp(-at))
        left.plot(at, p, "o", color=ORANGE, markersize=5)
        left.annotate(
            f"{p:.2f}", (at, p), (9, -4), textcoords="offset points", fontsize=9, color=ORANGE
        )
    left.set(title="sigmoid", xlabel="logit", ylabel="probability", xticks=range(-6, 7, 2))
    logits = np.array([2.0, 1.0, -1.0])
    names = ["setosa", "versicolor", "virginica"]
    for axes, values, title in (
        (middle, logits, "three logits"),
        (right, np.exp(logits) / np.exp(logits).sum(), "after softmax"),
    ):
        bars = axes.barh(names, values, color=CLASSES, height=0.6)
        labels = [f"{value:.2f}" if axes is right else f"{value:+.0f}" for value in values]
        axes.bar_label(bars, labels, padding=3, fontsize=9)
        axes.set_title(title)
        axes.invert_yaxis()
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(left=False, bottom=False, labelbottom=False, labelleft=axes is middle)
    middle.set_xlim(-2.2, 3)
    right.set_xlim(0, 1)
    return figure


# ------------------------------------------------------------------ chapter 5


def cross_entropy() -> Figure:
    """-log p, with the squared error beside it; and the loss against the logit's distance."""
    figure, (left, right) = card(2, height=2.8)
    p = np.linspace(0.003, 1, 300)
    left.plot(p, -np.log(p))
    for at in (0.1, 1 / 3, 0.9):
        left.plot(at, -np.log(at), "o", color=ORANGE, markersize=5)
        left.annotate(
            f"p = {at:.2f}\nloss {-np.log(at):.2f}",
            (at, -np.log(at)),
            (7, 3) if at < 0.8 else (-14, 9),
            textcoords="offset points",
            fontsize=9,
            color=ORANGE,
        )
    left.set(
        title="cross-entropy", xlabel="probability given to the true class", ylabel="loss",
        ylim=(0, 6),
    )  # fmt: skip
    z = np.linspace(-8, 8, 300)
    q = 1 / (1 + np.exp(-z))
    right.plot(z, np.log1p(np.exp(-z)), label="cross-entropy on the logit")
    right.plot(z, (1 - q) ** 2, color=GREY, label="squared error of the probability")
    right.set(
        title="the true class is 1",
        xlabel="logit",
        ylabel="loss",
        ylim=(0, 8.4),
        xticks=range(-8, 9, 4),
    )
    right.annotate(
        "flat where it is\nmost wrong", (-6, 1), (-8.2, 1.9), fontsize=9, color=GREY,
        arrowprops={"arrowstyle": "-", "color": GREY},
    )  # fmt: skip
    right.legend(loc="upper right")
    return figure


# ------------------------------------------------------------------ chapter 6


def two_two_one() -> Figure:
    """The network that chapter 6 works by hand: values forward, gradients back."""
    figure, (top, bottom) = card(1, n_rows=2, height=5.0)
    x, h, out = [(1.5, 1.4), (1.5, 4.6)], [(6.5, 1.4), (6.5, 4.6)], (11.5, 3.0)
    first, second = [[1.0, -1.0], [0.5, 1.0]], [2.0, -1.0]
    d_first, d_second, d_bias = [[-16, -8], [8, 4]], [-4, -6], [-8, 4]
    for axes, back in ((top, False), (bottom, True)):
        _blank(axes, 18, 6.2)
        for j in range(2):
            for i in range(2):
                text = f"{d_first[j][i]:+d}" if back else None
                _weight_arrow(axes, x[i], h[j], first[j][i], along=0.3, text=text, flat=back)
            text = f"{d_second[j]:+d}" if back else None
            _weight_arrow(axes, h[j], out, second[j], along=0.42, text=text, flat=back)
        for i, value in enumerate((2, 1)):
            _unit(axes, x[i], f"{value}", BLUE)
            axes.text(0.15, x[i][1], f"x{i + 1}", va="center", color=GREY)
        for j, value in enumerate((1.0, 1.5)):
            _unit(axes, h[j], f"{d_bias[j]:+d}" if back else f"{value:g}", ORANGE)
            bias = f"bias {[0, -0.5][j]:g}, ReLU"
            if not back:
                axes.text(h[j][0], h[j][1] - 1.0, bias, ha="center", color=PURPLE, fontsize=8.5)
        _unit(axes, out, "-4" if back else "1", GREEN)
        if not back:
            axes.text(out[0], out[1] - 1.0, "bias 0.5", ha="center", color=PURPLE, fontsize=8.5)
        right = "in a unit: the\ngradient of its bias" if back else "target 3\nloss (1 - 3)² = 4"
        axes.text(13.0, 3.0, right, va="center")
    top.set_title("forward: values", loc="left")
    bottom.set_title("backward: gradients of the loss", loc="left")
    return figure


def trace_iris() -> str:
    """What `layerwise.trace` draws of the network that chapter 6 trains on iris by hand."""
    iris = load_iris()
    X = torch.tensor(iris.data, dtype=torch.float32)
    X, y = (X - X.mean(dim=0)) / X.std(dim=0), torch.tensor(iris.target)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    for _ in range(21):
        lw.backward(network, X, y, "cross_entropy")
        lw.update(network, lr=0.5)
    return lw.trace(network, X, y, "cross_entropy").svg()


PICTURES = [
    broadcasting, linear_layer, collapse, sigmoid_softmax, cross_entropy, two_two_one, trace_iris,
]  # fmt: skip
