"""Trainings drawn at random: sane ones, and the same with one thing broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_cases.frame import Case, Setup, scaled

ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
TASKS = ("regression", "binary", "multiclass")
END = {"regression": nn.MSELoss, "binary": nn.BCEWithLogitsLoss, "multiclass": nn.CrossEntropyLoss}


class Called(nn.Module):
    """The same layers, called one by one from a list of modules."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def drawn_table(rng: np.random.Generator, task: str) -> tuple[Tensor, Tensor, int]:
    """X, y and how many outputs they want; a smooth function of some columns, with noise."""
    n, d = int(rng.integers(120, 900)), int(rng.integers(3, 16))
    x = rng.normal(size=(n, d)) if rng.random() < 0.6 else rng.random((n, d)) * 3
    z = (x - x.mean(0)) / x.std(0)
    hidden = np.tanh(z @ rng.normal(size=(d, 6)) / np.sqrt(d) * 1.3)
    k = int(rng.integers(3, 7)) if task == "multiclass" else 1
    scores = hidden @ rng.normal(size=(6, k)) * 2 + 0.2 * rng.normal(size=(n, k))
    X = scaled(x) if rng.random() < 0.7 else torch.tensor(x).float()
    if task == "regression":
        return X, scaled(scores) * float(rng.uniform(0.5, 3)), 1
    if task == "binary":
        return X, torch.tensor(scores > np.quantile(scores, rng.uniform(0.25, 0.75))).float(), 1
    scores = (scores - scores.mean(0)) / scores.std(0)
    return X, torch.tensor(scores.argmax(1)), k


def drawn_optimizer(rng: np.random.Generator, weights: Any) -> torch.optim.Optimizer:
    """One of the usual optimizers at a usual rate."""
    weights = list(weights)
    name = rng.choice(["adam", "adamw", "sgd", "momentum", "rmsprop"])
    if name == "adam":
        return torch.optim.Adam(weights, float(rng.choice([1e-3, 3e-3, 1e-2])))
    if name == "adamw":
        return torch.optim.AdamW(weights, float(rng.choice([2e-3, 5e-3])), weight_decay=0.02)
    if name == "sgd":
        return torch.optim.SGD(weights, float(rng.choice([0.05, 0.1, 0.2])))
    if name == "momentum":
        return torch.optim.SGD(weights, float(rng.choice([0.01, 0.03])), momentum=0.9)
    return torch.optim.RMSprop(weights, float(rng.choice([1e-3, 3e-3])))


def drawn(seed: int) -> Setup:
    """A sane training."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    task = TASKS[seed % 3]
    X, y, k = drawn_table(rng, task)
    act = str(rng.choice(list(ACTS)))
    depth = int(rng.integers(1, 3 if act == "sigmoid" else 5))
    norm, drop = rng.choice(["", "", "batch", "layer"]), rng.choice([0.0, 0.0, 0.1, 0.3])
    layers: list[nn.Module] = []
    wide = X.shape[1]
    for _ in range(depth):
        nxt = int(rng.choice([12, 16, 32, 64, 100]))
        layers.append(nn.Linear(wide, nxt))
        if norm:
            layers.append(nn.BatchNorm1d(nxt) if norm == "batch" else nn.LayerNorm(nxt))
        layers.append(ACTS[act]())
        if drop:
            layers.append(nn.Dropout(float(drop)))
        wide = nxt
    layers.append(nn.Linear(wide, k))
    if act == "relu" and rng.random() < 0.5:
        for m in layers:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)
    model = nn.Sequential(*layers) if rng.random() < 0.6 else Called(layers)
    batch = int(rng.choice([16, 32, 64]))
    slow = 3 if act == "sigmoid" else 1
    epochs = slow * int(np.clip(500 // (len(X) // batch + 1), 15, 50))
    loss = END[task]() if task != "regression" or rng.random() < 0.7 else nn.L1Loss()
    optimizer = drawn_optimizer(rng, model.parameters())
    if act == "sigmoid":
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
    return Setup(model, loss, optimizer, X, y, batch_size=batch, epochs=epochs, drop_last=True)


def linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]


def end_with(s: Setup, module: nn.Module) -> str:
    """Put a module behind the network; returns its name."""
    if isinstance(s.model, Called):
        s.model.steps.append(module)
        return f"steps.{len(s.model.steps) - 1}"
    s.model.append(module)  # type: ignore[operator]
    return str(len(s.model) - 1)  # type: ignore[arg-type]


# What can break: takes a sane setup, returns (rules, places) or None if it does not apply.


def _softmax(s: Setup) -> Any:
    if isinstance(s.loss, nn.CrossEntropyLoss):
        return ["softmax-before-ce"], [end_with(s, nn.Softmax(dim=1))]
    if isinstance(s.loss, nn.BCEWithLogitsLoss):
        return ["sigmoid-before-bce-logits"], [end_with(s, nn.Sigmoid())]
    return ["output-range"], [end_with(s, nn.Sigmoid())]


def _last_activation(s: Setup) -> Any:
    rule = "output-range" if s.y.is_floating_point() and s.y.unique().numel() > 2 else ""
    return [rule or "activation-on-logits"], [end_with(s, nn.ReLU())]


def _flat_targets(s: Setup) -> Any:
    if not isinstance(s.loss, nn.MSELoss | nn.L1Loss):
        return None
    s.y = s.y.flatten()
    return ["target-shape-broadcast"], ["y"]


def _labels(s: Setup) -> Any:
    if s.y.is_floating_point():
        return None
    s.y = s.y + 1
    return ["labels-vs-outputs"], ["y"]


def _dtype(s: Setup) -> Any:
    s.X = s.X.double()
    return ["dtype-mismatch"], ["X"]


def _no_activation(s: Setup) -> Any:
    if len(linears(s.model)) < 3:
        return None
    for name, m in list(s.model.named_modules()):
        if type(m) in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid):
            parent, _, last = name.rpartition(".")
            s.model.get_submodule(parent)[int(last)] = nn.Identity()
    if any(isinstance(m, nn.LayerNorm) for m in s.model.modules()):
        return None
    return ["linear-stack"], [name for name, _ in linears(s.model)]


def _frozen(s: Setup) -> Any:
    name, layer = linears(s.model)[0]
    layer.requires_grad_(False)
    return ["frozen-parameters"], [name]


def _left_out(s: Setup) -> Any:
    last = linears(s.model)[-1][1]
    s.optimizer.param_groups[0]["params"] = list(last.parameters())
    return ["params-not-in-optimizer"], ["optimizer"]


def _symmetric(s: Setup) -> Any:
    name, layer = linears(s.model)[0]
    nn.init.constant_(layer.weight, 0.05)
    nn.init.zeros_(layer.bias)
    return ["symmetric-init"], [name]


def _loud(s: Setup) -> Any:
    if any(isinstance(m, nn.BatchNorm1d | nn.LayerNorm) for m in s.model.modules()):
        return None
    for _, layer in linears(s.model):
        nn.init.normal_(layer.weight, 0.0, 3.0)
    return ["init-scale"], [name for name, _ in linears(s.model)]


def _gap(s: Setup) -> Any:
    s.X[11, 1] = float("nan")
    return ["nan-in-data"], ["X"]


def _unscaled(s: Setup) -> Any:
    s.X[:, 1] = 4000 + 900 * s.X[:, 1]
    if isinstance(next(m for n, m in list(s.model.named_modules())[1:]), nn.BatchNorm1d):
        return None
    return ["unscaled-features"], ["X"]


def _far_targets(s: Setup) -> Any:
    if s.y.unique().numel() <= 10:
        return None
    s.y = 300 + 90 * s.y
    return ["unscaled-targets"], ["y"]


def _leak(s: Setup) -> Any:
    if s.y.dim() != 2:
        return None
    s.X[:, 0] = scaled(s.y[:, 0] + 0.01 * torch.randn(len(s.y)))
    return ["target-leakage"], ["X"]


def _sorted(s: Setup) -> Any:
    order = s.y.flatten().argsort()
    s.X, s.y, s.shuffle = s.X[order], s.y[order], False
    return ["sorted-no-shuffle"], ["y", "loop", "X"]


def _rate(s: Setup) -> Any:
    for group in s.optimizer.param_groups:
        group["lr"] = 30.0 if isinstance(s.optimizer, torch.optim.SGD) else 2.0
    return ["lr-too-high"], ["optimizer"]


def _slow(s: Setup) -> Any:
    for group in s.optimizer.param_groups:
        group["lr"] *= 1e-5
    return ["lr-too-low"], ["optimizer"]


def _decay(s: Setup) -> Any:
    for group in s.optimizer.param_groups:
        group["weight_decay"] = 20.0 if isinstance(s.optimizer, torch.optim.AdamW) else 0.8
    return ["weight-decay-too-strong"], ["optimizer"]


def _uncleared(s: Setup) -> Any:
    def loop(s: Setup) -> None:
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()

    s.loop = loop
    return ["no-zero-grad"], ["loop"]


def _order(s: Setup) -> Any:
    def loop(s: Setup) -> None:
        for _ in range(5):
            for xb, yb in s.batches():
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.zero_grad()
                s.optimizer.step()

    s.loop = loop
    return ["weights-not-updating"], ["loop"]


def _mode(s: Setup) -> Any:
    if not any(isinstance(m, nn.Dropout | nn.BatchNorm1d) for m in s.model.modules()):
        return None

    def loop(s: Setup) -> None:
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            s.model.eval()
            with torch.no_grad():
                s.model(s.X)

    s.loop = loop
    return ["wrong-mode"], ["loop"]


def _dropout(s: Setup) -> Any:
    return ["dropout-misuse"], [end_with(s, nn.Dropout(0.2))]


def _sum(s: Setup) -> Any:
    s.loss = type(s.loss)(reduction="none")
    return ["loss-reduction"], ["loss"]


def _dead(s: Setup) -> Any:
    name, layer = linears(s.model)[0]
    after = list(s.model.named_modules())
    i = next(i for i, (_, m) in enumerate(after) if m is layer)
    if not isinstance(after[i + 1][1], nn.ReLU):
        return None
    nn.init.constant_(layer.bias, -30.0)
    return ["dead-relu"], [name, after[i + 1][0]]


def _skew(s: Setup) -> Any:
    if not isinstance(s.loss, nn.BCEWithLogitsLoss):
        return None
    rare = s.y[:, 0] == 1
    keep = ~rare | (rare.cumsum(0) % 25 == 0)
    s.X, s.y = s.X[keep], s.y[keep]
    return (["class-imbalance"], ["y"]) if 2 <= s.y.sum() < len(s.y) / 13 else None


def _by_function(s: Setup) -> Any:
    """A functional mistake behind the network."""

    class Behind(nn.Module):
        def __init__(self, net: nn.Module, end: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.net, self.end = net, end

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.net(x))

    last = f"net.{linears(s.model)[-1][0]}"
    if isinstance(s.loss, nn.CrossEntropyLoss):
        rule, end = "softmax-before-ce", lambda x: F.softmax(x, -1)
    elif isinstance(s.loss, nn.BCEWithLogitsLoss):
        rule, end = "sigmoid-before-bce-logits", torch.sigmoid
    else:
        rule, end = "output-range", torch.tanh
        if bool((s.y.abs() < 1).float().mean() > 0.9):
            return None
    s.model = Behind(s.model, end)
    return [rule], [last]


BREAKS = (
    _softmax, _last_activation, _flat_targets, _labels, _dtype, _no_activation, _frozen, _left_out,
    _symmetric, _loud, _gap, _unscaled, _far_targets, _leak, _sorted, _rate, _slow, _decay,
    _uncleared, _order, _mode, _dropout, _sum, _dead, _skew, _by_function,
)  # fmt: skip

# What may be said besides: it follows from what was broken, or is what a network that was made to
# fail does.
FOLLOWS = (
    "loss-stuck", "underfitting", "too-few-epochs", "exploding-gradients", "dead-relu",
    "saturated-activation", "vanishing-gradients", "non-finite-loss", "overfitting",
)  # fmt: skip


def drawn_cases(n: int) -> list[Case]:
    """``n`` sane trainings, and ``n`` broken ones."""
    cases = [Case(f"sane {seed}", lambda seed=seed: drawn(seed)) for seed in range(n)]
    i = seed = 0
    while i < n:
        broken = BREAKS[i % len(BREAKS)]
        s = drawn(1000 + seed)
        verdict = broken(s)
        if verdict is None:
            seed += 1
            continue

        def make(broken: Any = broken, seed: int = 1000 + seed) -> Setup:
            s = drawn(seed)
            broken(s)
            return s

        rules, where = verdict
        name = f"broken {seed}{broken.__name__}"
        cases.append(Case(name, make, tuple(rules), tuple(where), tuple(FOLLOWS)))
        i, seed = i + 1, seed + 1
    return cases
