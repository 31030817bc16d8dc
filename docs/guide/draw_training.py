"""Pictures of training and what comes of it: chapters 8 to 13."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from style import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, RED, card
from torch import Tensor, nn
from torch.nn import functional as F

import layerwise as lw

# ------------------------------------------------------------------ what the chapters train


def _digits(centred: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and validation rows as chapters 8 and 11 split them."""
    X, y = load_digits(return_X_y=True)
    X = (X - X.mean()) / X.std() if centred else X / 16
    return train_test_split(
        torch.tensor(X, dtype=torch.float32), torch.tensor(y),
        test_size=0.25, stratify=y, random_state=0,
    )  # fmt: skip


def _train(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    look: Callable[[], None] | None = None,
) -> None:
    """The loop of chapter 8 with batches by index; ``look`` is called after each epoch."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(X), generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss(model(X[rows]), y[rows]).backward()
            optimizer.step()
        if look is not None:
            with torch.no_grad():
                look()


def _scaled_diabetes(**split: object) -> list[Tensor]:
    """Training rows, held-out rows and both targets of shape (N, 1), scaled; mean and deviation."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X, X_out, y, y_out = train_test_split(X, y[:, None], random_state=0, **split)
    mean, std, y_mean, y_std = X.mean(axis=0), X.std(axis=0), y.mean(), y.std()
    parts = [(X - mean) / std, (X_out - mean) / std, (y - y_mean) / y_std, (y_out - y_mean) / y_std]
    return [torch.tensor(one, dtype=torch.float32) for one in (*parts, y_mean, y_std)]


# ------------------------------------------------------------------ chapter 8


def training_loop() -> Figure:
    """Rows, shuffled and cut into batches, and the ring of five stations."""
    figure, axes = card(height=3.4)
    axes.set(xlim=(0, 20.6), ylim=(0, 9.4), aspect="equal")
    axes.axis("off")
    shades = [BLUE, ORANGE, GREEN]
    order = np.random.default_rng(1).permutation(9)

    def rows(x: float, colours: list[str], gap: float) -> None:
        for i, colour in enumerate(colours):
            y = 7.4 - 0.62 * i - gap * (i // 3 - 1)
            axes.add_patch(Rectangle((x, y), 2.1, 0.46, color=colour, alpha=0.75, lw=0))

    rows(0.2, [shades[i // 3] for i in range(9)], 0.0)
    rows(4.0, [shades[i // 3] for i in order], 0.0)
    rows(7.8, [shades[i // 3] for i in order], 0.4)
    for x, word in ((1.25, "rows"), (5.05, "shuffled"), (8.85, "batches")):
        axes.text(x, 8.7, word, ha="center")
    for x in (2.5, 6.3, 10.3):
        axes.add_patch(_arrow((x, 5.15), (x + 1.3, 5.15)))
    axes.text(0.2, 0.5, "all batches round: one epoch; then the validation rows are measured",
              color=GREY)  # fmt: skip

    centre, radius = np.array([16.1, 5.0]), 3.0
    names = ["zero_grad", "forward", "loss", "backward", "step"]
    angles = np.deg2rad(90 - 72 * np.arange(5))
    places = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for name, place, angle in zip(names, places, angles):
        colour = RED if name == "backward" else BLUE
        axes.add_patch(
            FancyBboxPatch(
                place - (1.2, 0.35), 2.4, 0.7, boxstyle="round,pad=0.08", fc="white", ec=colour
            )
        )
        axes.text(*place, name, ha="center", va="center", color=INK)
        middle = angle - np.deg2rad(36)  # half way to the next station
        turn = centre + radius * np.array([np.cos(middle), np.sin(middle)])
        along = np.array([np.sin(middle), -np.cos(middle)]) * 0.42
        axes.add_patch(_arrow(tuple(turn - along), tuple(turn + along)))
    axes.text(*centre, "one step", ha="center", va="center", color=GREY)
    return figure


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=GREY, lw=1.2)


def training_curves() -> Figure:
    """Loss on training and validation rows, and accuracy, over 40 epochs."""
    X, X_valid, y, y_valid = _digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    train, valid, right = [], [], []

    def look() -> None:
        logits = model(X_valid)
        train.append(F.cross_entropy(model(X), y).item())
        valid.append(F.cross_entropy(logits, y_valid).item())
        right.append((logits.argmax(dim=1) == y_valid).float().mean().item())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _train(model, X, y, F.cross_entropy, optimizer, 40, 32, look)
    epochs = np.arange(1, 41)
    figure, (left, other) = card(2, height=2.7)
    left.plot(epochs, train, label="training rows")
    left.plot(epochs, valid, label="validation rows")
    left.axhline(np.log(10), color=GREY, lw=1, ls=":")
    left.text(40, np.log(10) - 0.05, "guessing: ln 10", color=GREY, ha="right", va="top")
    left.set(xlabel="epoch", title="loss", ylim=(0, 2.5))
    left.legend(loc="center right")
    other.plot(epochs, right, color=ORANGE)
    other.axhline(0.1, color=GREY, lw=1, ls=":")
    other.text(40, 0.12, "guessing", color=GREY, ha="right")
    other.set(xlabel="epoch", title="validation rows that are right", ylim=(0, 1))
    return figure


# ------------------------------------------------------------------ chapter 9


def predictions_against_truth() -> Figure:
    """The regression of chapter 9, and what a target of shape (N,) makes of it."""
    X, X_test, y, y_test, mean, std = _scaled_diabetes(test_size=0.2)
    figure, both = card(2, height=3.3, sharey=True)
    titles = "target of shape (n, 1)", "target of shape (n,)"
    for axes, title in zip(both, titles):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        wide = title.endswith("(n,)")

        def loss(said: Tensor, truth: Tensor, wide: bool = wide) -> Tensor:
            return ((said - (truth[:, 0] if wide else truth)) ** 2).mean()

        _train(model, X, y, loss, optimizer, 30, 32)
        with torch.no_grad():
            said = (model(X_test) * std + mean)[:, 0]
        axes.plot([20, 350], [20, 350], color=GREY, lw=1, ls=":")
        axes.axhline(mean.item(), color=LIGHT, lw=1.2, zorder=0)
        colour = RED if wide else BLUE
        truth = (y_test * std + mean)[:, 0]
        axes.scatter(truth, said, s=13, color=colour, alpha=0.75, linewidths=0)
        axes.set(title=title, xlabel="truth", xlim=(20, 350), ylim=(20, 350), aspect="equal")
    both[0].set_ylabel("prediction")
    both[0].text(345, 318, "perfect", color=GREY, ha="right", rotation=45, va="top")
    both[1].text(345, 125, "always the mean", color=GREY, ha="right", va="top")
    return figure


# ------------------------------------------------------------------ chapter 10


def probabilities_and_confusion() -> Figure:
    """Probabilities of the tumours' test rows, and right and wrong answers at 0.5."""
    X, y = load_breast_cancer(return_X_y=True)
    y = 1 - y  # 1 is malignant
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    mean, std = X.mean(axis=0), X.std(axis=0)
    X, X_test = (torch.tensor((one - mean) / std, dtype=torch.float32) for one in (X, X_test))
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    target = torch.tensor(y, dtype=torch.float32)[:, None]
    _train(model, X, target, F.binary_cross_entropy_with_logits, optimizer, 40, len(X))
    with torch.no_grad():
        malignant = model(X_test).sigmoid()[:, 0].numpy()

    figure, (left, right) = card(2, height=2.9, width_ratios=[1.7, 1])
    edges = np.linspace(0, 1, 21)
    names = {0: ("benign", BLUE), 1: ("malignant", ORANGE)}
    for value, (name, colour) in names.items():
        left.hist(malignant[y_test == value], edges, color=colour, alpha=0.65, label=name)
    left.set(yscale="symlog", ylim=(0, 900), xlabel="probability of malignant", ylabel="test rows")
    left.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    for threshold in (0.02, 0.5):
        left.vlines(threshold, 0, 250, color=INK, lw=1, ls="--")
        left.text(threshold + 0.015, 240, f"threshold {threshold}", va="top")
    left.legend(loc="upper center", ncols=2)

    counts = confusion_matrix(y_test, malignant >= 0.5)
    right.set(xlim=(0, 2), ylim=(2, 0), aspect="equal", title="threshold 0.5")
    for i in range(2):
        for j in range(2):
            colour = GREEN if i == j else RED
            right.add_patch(Rectangle((j, i), 1, 1, fc=colour, alpha=0.18, ec="white", lw=3))
            right.text(j + 0.5, i + 0.5, counts[i, j], ha="center", va="center", fontsize=14)
    right.set_xticks([0.5, 1.5], ["benign", "malignant"])
    right.set_yticks([0.5, 1.5], ["benign", "malignant"], rotation=90, va="center")
    right.set(xlabel="answer", ylabel="truth")
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    return figure


# ------------------------------------------------------------------ chapter 11


def activations_and_slopes() -> Figure:
    """Sigmoid, ReLU and leaky ReLU above their derivatives."""
    figure, grid = card(3, n_rows=2, height=3.5, sharex=True, sharey="row")
    functions = {
        "sigmoid": torch.sigmoid,
        "ReLU": F.relu,
        "leaky ReLU (0.05)": lambda x: F.leaky_relu(x, 0.05),
    }
    for (name, function), (top, bottom) in zip(functions.items(), grid.T):
        # an even number of points: none falls on the kink at 0
        x = torch.linspace(-6, 6, 400, requires_grad=True)
        values = function(x)
        values.sum().backward()
        at, slope = x.detach().numpy(), x.grad.numpy()
        if name != "sigmoid":
            at, slope = np.insert(at, 200, 0), np.insert(slope, 200, np.nan)
        for axes in (top, bottom):
            axes.axhline(0, color=LIGHT, lw=1, zorder=0)
            axes.axvline(0, color=LIGHT, lw=1, zorder=0)
        top.plot(x.detach(), values.detach(), color=BLUE)
        top.set(title=name, ylim=(-0.6, 3.2))
        bottom.plot(at, slope, color=ORANGE)
        bottom.set(ylim=(-0.1, 1.15), xlabel="input", yticks=[0, 0.25, 1])
    grid[0, 0].set_ylabel("value")
    grid[1, 0].set_ylabel("slope")
    grid[1, 0].text(0.4, 0.3, "at most 0.25", color=GREY)
    return figure


def _deep(activation: nn.Module, he: bool = False) -> nn.Sequential:
    """Eight hidden layers of 32, as in chapter 11."""
    torch.manual_seed(0)
    widths = [64, *[32] * 8]
    layers = [one for a, b in pairwise(widths) for one in (nn.Linear(a, b), activation)]
    model = nn.Sequential(*layers, nn.Linear(32, 10))
    if he:
        _he(model)
    return model


def _he(model: nn.Sequential) -> None:
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def gradients_by_layer() -> Figure:
    """The size of the gradient in each layer of three deep networks."""
    X, _, y, _ = _digits(centred=True)
    figure, axes = card(height=2.9)
    networks = [
        ("ReLU, He weights", _deep(nn.ReLU(), he=True), GREEN),
        ("ReLU, PyTorch's default weights", _deep(nn.ReLU()), BLUE),
        ("sigmoid", _deep(nn.Sigmoid()), RED),
    ]
    for name, model, colour in networks:
        F.cross_entropy(model(X), y).backward()
        sizes = [layer.weight.grad.norm() for layer in model if isinstance(layer, nn.Linear)]
        axes.plot(range(1, 10), sizes, "o-", ms=5, color=colour)
        axes.text(9.2, sizes[-1], name, color=colour, va="center")
    axes.set(yscale="log", xlabel="layer, from the input to the output", xlim=(0.7, 13.3))
    axes.set(ylabel="size of the gradient", xticks=range(1, 10))
    axes.grid(axis="y")
    return figure


def trace_dead_relu() -> str:
    """One hidden layer whose biases are far below zero, as layerwise draws it."""
    X, _, y, _ = _digits(centred=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    _he(model)
    with torch.no_grad():
        model[0].bias.fill_(-15.0)
    return lw.trace(model, X, y, nn.CrossEntropyLoss()).svg()


# ------------------------------------------------------------------ chapter 12


def counting_parameters() -> Figure:
    """A network of 8, 4 and 2 units, every line drawn, and what each layer counts."""
    figure, axes = card(height=3.3)
    axes.set(xlim=(0, 18), ylim=(0, 8.25), aspect="equal")
    axes.axis("off")
    xs, widths = (2.2, 8.2, 14.2), (8, 4, 2)
    columns = [[(x, 4.6 + 0.82 * (i - (n - 1) / 2)) for i in range(n)] for x, n in zip(xs, widths)]
    for k, (before, after) in enumerate(pairwise(columns)):
        for j, end in enumerate(after):
            for start in before:
                shown = j == len(after) - 1  # one unit's own lines stand out
                colour, width = ((BLUE, ORANGE)[k], 1.4) if shown else (LIGHT, 0.9)
                axes.plot(*zip(start, end), color=colour, lw=width, zorder=2 if shown else 1)
    for k, column in enumerate(columns):
        colour = (GREY, BLUE, ORANGE)[k]
        for place in column:
            axes.add_patch(Circle(place, 0.27, fc="white", ec=colour, lw=1.6, zorder=3))
    words = [
        ("8 inputs", "no parameters"),
        ("4 hidden units", "4 · (8 weights + 1 bias) = 36"),
        ("2 outputs", "2 · (4 weights + 1 bias) = 10"),
    ]
    for x, (name, count), colour in zip(xs, words, (GREY, BLUE, ORANGE)):
        axes.text(x, 0.75, name, ha="center", color=INK)
        axes.text(x, 0.1, count, ha="center", color=colour)
    axes.text(17.2, 4.6, "46", ha="center", va="center", fontsize=20)
    axes.text(17.2, 3.7, "in all", ha="center", va="center", color=GREY)
    return figure


def overfitting_by_width() -> Figure:
    """Training and validation loss of three widths on 300 rows."""
    X, X_valid, y, y_valid, *_ = _scaled_diabetes(train_size=300)
    figure, three = card(3, height=2.7, sharey=True)
    for axes, width in zip(three, (2, 16, 64)):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
        train, valid = [], []

        def look(model: nn.Module = model, train: list = train, valid: list = valid) -> None:
            train.append(F.mse_loss(model(X), y).item())
            valid.append(F.mse_loss(model(X_valid), y_valid).item())

        _train(model, X, y, F.mse_loss, optimizer, 60, 64, look)
        count = sum(parameter.numel() for parameter in model.parameters())
        _curves(axes, train, valid)
        axes.set(title=f"width {width}: {count:,} parameters", xlabel="epoch", ylim=(0, 1.1))
    three[0].set_ylabel("loss")
    three[0].text(60, 0.74, "training rows", color=BLUE, ha="right")
    three[0].text(60, 0.45, "validation rows", color=ORANGE, ha="right")
    line = {"arrowstyle": "-", "color": GREY}
    three[2].annotate("best epoch", (5, 0.5), (26, 0.36), color=GREY, arrowprops=line)
    return figure


def _curves(axes: Axes, train: list[float], valid: list[float]) -> None:
    epochs = np.arange(1, len(train) + 1)
    axes.plot(epochs, train, color=BLUE)
    axes.plot(epochs, valid, color=ORANGE)
    best = int(np.argmin(valid))
    axes.plot(best + 1, valid[best], "o", color=ORANGE, ms=6)
    axes.axhline(1, color=GREY, lw=1, ls=":")


PICTURES = [
    training_loop,
    training_curves,
    predictions_against_truth,
    probabilities_and_confusion,
    activations_and_slopes,
    gradients_by_layer,
    trace_dead_relu,
    counting_parameters,
    overfitting_by_width,
]
