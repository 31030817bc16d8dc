"""Pictures of gradient descent: chapter 7."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes, load_iris
from style import BLUE, GREEN, GREY, INK, ORANGE, RED, VALLEY, card
from torch import Tensor, nn
from torch.nn import functional as F


def descend(slope: Callable[[Tensor], Tensor], w: Tensor, lr: float, n_steps: int) -> np.ndarray:
    """The places that plain gradient descent visits, (n_steps + 1, n_weights)."""
    path = [w]
    for _ in range(n_steps):
        path.append(path[-1] - lr * slope(path[-1]))
    return torch.stack(path).numpy()


# ------------------------------------------------------------------ one weight


def hills(w: Tensor) -> Tensor:
    """A loss of one weight with two valleys, the deeper one on the right."""
    return 0.05 * w**4 - 0.5 * w**2 - 0.25 * w + 2.2


def valleys() -> Figure:
    """A convex loss and one that is not, with the steps taken from several starts."""
    figure, (left, right) = card(2, height=2.8, sharey=True)
    w = torch.linspace(-3.6, 3.6, 300)
    cases = (
        (left, "convex: one valley", lambda w: 0.3 * w**2 + 0.2, [-3.2], 0.35),
        (right, "not convex: the start decides", hills, [-3.3, 0.1, 3.45], 0.07),
    )
    for axes, title, loss, starts, lr in cases:
        axes.plot(w, loss(w), color=GREY)
        for start, colour in zip(starts, (ORANGE, GREEN, BLUE)):
            slope = torch.func.vmap(torch.func.grad(loss))
            path = torch.tensor(descend(slope, torch.tensor([start]), lr, 25))[:, 0]
            axes.plot(path, loss(path), "o-", color=colour, markersize=4, linewidth=1)
            axes.plot(path[:1], loss(path[:1]), "o", color=colour, markersize=7)
        axes.set(title=title, xlabel="weight", ylim=(0, 3.9), xticks=[-2, 0, 2])
    left.set_ylabel("loss")
    right.annotate("local\nminimum", (-2.1, 1.45), (-2.1, 0.55), ha="center", fontsize=9)
    right.annotate("global\nminimum", (2.35, 0.2), (0.55, 0.15), ha="center", fontsize=9)
    return figure


def saddle() -> Figure:
    """A saddle between two valleys, and what descent does beside the ridge and on it."""

    def loss(w: Tensor) -> Tensor:
        return w[..., 0] ** 2 / 2 - w[..., 1] ** 2 / 2 + w[..., 1] ** 4 / 8

    figure, (left, right) = card(2, height=2.8, width_ratios=[1, 1.1])
    side = torch.linspace(-2.1, 2.1, 60)
    a, b = torch.meshgrid(side, side, indexing="xy")
    height = loss(torch.stack([a, b], dim=-1))
    left.contourf(a, b, height, levels=12, cmap=VALLEY, alpha=0.6).set_rasterized(True)
    for name, off, colour, size in (
        ("exactly on the ridge", 0.0, INK, 6),
        ("0.001 beside it", 0.001, ORANGE, 3.5),
    ):
        path = descend(torch.func.grad(loss), torch.tensor([1.8, off]), 0.15, 75)
        left.plot(*path.T, "o-", color=colour, markersize=size, linewidth=1)
        right.plot(loss(torch.tensor(path)), color=colour, label=name)
    left.annotate("saddle", (0, 0), (-8, -14), textcoords="offset points", fontsize=9, ha="right")
    left.set(title="slope 0, and no minimum", xlabel="weight 1", ylabel="weight 2")
    left.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    right.set(title="the loss waits, then falls", xlabel="step", ylabel="loss")
    right.legend(loc="upper right")
    return figure


# ------------------------------------------------------------------ two weights, real data


def bowl() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """MSE of a linear layer on two columns of diabetes that nearly say the same, and its best."""
    data = load_diabetes()
    X = torch.tensor(data.data[:, [4, 5]])  # s1 and s2, two measures of blood fat
    X = (X - X.mean(dim=0)) / X.std(dim=0)
    y = torch.tensor(data.target)
    y = (y - y.mean()) / y.std()

    def loss(w: Tensor) -> Tensor:
        return ((w @ X.T - y) ** 2).mean(dim=-1)

    return loss, torch.linalg.lstsq(X, y[:, None]).solution[:, 0]


def _draw_bowl(axes: Axes, loss: Callable[[Tensor], Tensor], best: Tensor) -> None:
    """Level lines of the bowl, closer where it is deeper."""
    a, b = torch.meshgrid(
        torch.linspace(-2.4, 2.6, 70, dtype=torch.float64),
        torch.linspace(-2.4, 2.4, 70, dtype=torch.float64),
        indexing="xy",
    )
    height = loss(torch.stack([a, b], dim=-1)) - loss(best)
    axes.contourf(a, b, height**0.5, levels=10, cmap=VALLEY, alpha=0.6).set_rasterized(True)
    axes.plot(*best, "*", color=INK, markersize=8)
    axes.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2], xlabel="weight of s1")


START = torch.tensor([-1.9, -0.7], dtype=torch.float64)


def learning_rates() -> Figure:
    """Twenty steps with a rate that is too low, right, and too high."""
    loss, best = bowl()
    slope = torch.func.grad(loss)
    figure, row = card(4, height=2.45, width_ratios=[1, 1, 1, 1.15])
    cases = ((0.02, "too low", ORANGE), (0.4, "right", GREEN), (0.535, "too high", RED))
    for axes, (lr, title, colour) in zip(row, cases):
        path = descend(slope, START, lr, 20)
        _draw_bowl(axes, loss, best)
        axes.plot(*path.T, "o-", color=colour, markersize=3, linewidth=1, clip_on=True)
        axes.set(title=f"lr {lr}: {title}", xlim=(-2.4, 2.6), ylim=(-2.4, 2.4))
        row[3].plot([loss(w) for w in torch.tensor(path)], color=colour)
    row[0].set_ylabel("weight of s2")
    row[3].set(title="the loss", xlabel="step", yscale="log", xticks=[0, 10, 20])
    row[3].minorticks_off()
    return figure


def momentum() -> Figure:
    """Plain descent and descent with momentum in the same ravine."""
    loss, best = bowl()
    slope = torch.func.grad(loss)
    figure, row = card(3, height=2.5, width_ratios=[1, 1, 1.1])
    for axes, (beta, title, colour) in zip(
        row, ((0.0, "without momentum", ORANGE), (0.7, "momentum 0.7", GREEN))
    ):
        w, velocity, path = START, torch.zeros(2, dtype=torch.float64), [START]
        for _ in range(40):
            velocity = beta * velocity + slope(w)
            w = w - 0.1 * velocity
            path.append(w)
        _draw_bowl(axes, loss, best)
        axes.plot(*torch.stack(path).T, "o-", color=colour, markersize=3, linewidth=1)
        axes.set_title(f"{title}, lr 0.1")
        row[2].plot([float(loss(w) - loss(best)) for w in path], color=colour, label=title)
    row[0].set_ylabel("weight of s2")
    row[2].set(title="loss above the lowest", xlabel="step", yscale="log")
    row[2].minorticks_off()
    return figure


# ------------------------------------------------------------------ a real network


def landscape() -> Figure:
    """The loss of a 2-3-1 network on a plane near two of its trainings, and between their ends."""
    iris = load_iris()
    X = torch.tensor(iris.data[:, 2:], dtype=torch.float32)
    X = (X - X.mean(dim=0)) / X.std(dim=0)
    y = torch.tensor(iris.target == 1, dtype=torch.float32)[:, None]
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))

    def train(seed: int) -> Tensor:
        """The weights at each step of SGD with 10 rows a step, (n_steps + 1, n_weights)."""
        torch.manual_seed(seed)
        for layer in (network[0], network[2]):
            layer.reset_parameters()
        path = [nn.utils.parameters_to_vector(network.parameters()).detach().clone()]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
        for _ in range(900):
            rows = torch.randperm(len(X))[:10]
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(X[rows]), y[rows]).backward()
            optimizer.step()
            path.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return torch.stack(path)

    @torch.no_grad()
    def loss(weights: Tensor) -> float:
        nn.utils.vector_to_parameters(weights, network.parameters())
        return F.binary_cross_entropy_with_logits(network(X), y).item()

    paths = [train(seed) for seed in SEEDS]
    ends = [path[-1] for path in paths]
    middle = (ends[0] + ends[1]) / 2
    # The plane holds both ends; its second direction is where the paths spread most besides.
    across = (ends[1] - ends[0]) / (ends[1] - ends[0]).norm()
    rest = torch.cat(paths) - middle
    rest = rest - (rest @ across)[:, None] * across
    up = torch.linalg.svd(rest, full_matrices=False)[2][0]
    plane = torch.stack([across, up])
    shadows = [((path - middle) @ plane.T).numpy() for path in paths]
    low, high = np.concatenate(shadows).min(axis=0), np.concatenate(shadows).max(axis=0)
    margin = 0.15 * (high - low)
    sides = [np.linspace(low[k] - margin[k], high[k] + margin[k], 60) for k in (0, 1)]
    height = np.array(
        [[loss(middle + float(u) * across + float(v) * up) for u in sides[0]] for v in sides[1]]
    )

    figure, (left, right) = card(2, height=3.0, width_ratios=[1.35, 1])
    levels = np.geomspace(height.min(), height.max(), 14)
    shades = left.contourf(*sides, height, levels=levels, cmap=VALLEY, alpha=0.7, norm="log")
    shades.set_rasterized(True)
    for shadow, colour in zip(shadows, (ORANGE, GREEN)):
        left.plot(*shadow[::3].T, color=colour, linewidth=1.1)
        left.plot(*shadow[0], "o", color=colour, markersize=6, markeredgecolor=INK)
        left.plot(*shadow[-1], "*", color=colour, markersize=11, markeredgecolor=INK)
    left.set(title="two trainings, 10 rows a step", xlabel="across", ylabel="up")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5) if height.min() < t < height.max()]
    bar = figure.colorbar(shades, ax=left, label="loss on all rows", pad=0.02)
    bar.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    bar.minorticks_off()
    share = torch.linspace(-0.2, 1.2, 80)
    right.plot(share, [loss(ends[0] + s * (ends[1] - ends[0])) for s in share], color=GREY)
    for at, end, colour in zip((0, 1), ends, (ORANGE, GREEN)):
        right.plot(at, loss(end), "*", color=colour, markersize=11, markeredgecolor=INK)
    right.set(title="straight from star to star", ylabel="loss", xticks=[0, 1], ylim=(0, None))
    right.set_xticklabels(["first", "second"])
    return figure


SEEDS = (0, 1)
PICTURES = [valleys, saddle, learning_rates, momentum, landscape]
