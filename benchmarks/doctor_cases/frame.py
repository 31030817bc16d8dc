"""What a case is, the tables the cases share, and the loop most of them are trained with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Setup:
    """One training as somebody would have written it; ``loop`` runs it."""

    model: nn.Module
    loss: Any
    optimizer: Any
    X: Tensor
    y: Tensor
    X_val: Tensor | None = None
    y_val: Tensor | None = None
    batch_size: int = 32
    epochs: int = 20
    shuffle: bool | None = True
    drop_last: bool = False
    loop: Callable[[Setup], None] | None = field(default=lambda s: plain(s))
    loader: DataLoader | None = None  # handed to the doctor in the place of X and y
    names: list[str] | None = None
    before: bool = True  # whether model, loss and rows belong together without the loop

    def batches(self) -> DataLoader:
        """The loader of the case's own, or the usual one."""
        if self.loader is not None:
            return self.loader
        rows = TensorDataset(self.X, self.y)
        return DataLoader(
            rows, self.batch_size, shuffle=bool(self.shuffle), drop_last=self.drop_last
        )


@dataclass(frozen=True)
class Case:
    """A setup with its verdict: the rules of which one must be named (none: healthy) and where."""

    name: str
    make: Callable[[], Setup]
    rules: tuple[str, ...] = ()
    where: tuple[str, ...] = ()  # places that a careful reader would accept; none: any
    also: tuple[str, ...] = ()  # rules that may speak up too, being truly there

    @property
    def sick(self) -> bool:
        """Whether something is wrong on purpose."""
        return bool(self.rules)


CASES: list[Case] = []


def sick(*rules: str, where: str = "", also: str = "") -> Callable:
    """Declare a faulty case: one of ``rules`` has to be named, at one of the places."""

    def declare(make: Callable[[], Setup]) -> Callable[[], Setup]:
        CASES.append(Case(make.__name__, make, rules, tuple(where.split()), tuple(also.split())))
        return make

    return declare


def healthy(make: Callable[[], Setup]) -> Callable[[], Setup]:
    """Declare a case in which nothing is wrong, however odd it may look."""
    CASES.append(Case(make.__name__, make))
    return make


# Networks and loops


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU, end: tuple = ()) -> nn.Sequential:
    """Linear layers with an activation between them and ``end`` behind the last."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1], *end)


def adam(model: nn.Module, lr: float = 1e-3, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr, **more)


def sgd(model: nn.Module, lr: float = 0.1, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr, **more)


def plain(s: Setup) -> None:
    """The loop of the tutorials."""
    loader = s.batches()
    for _ in range(s.epochs):
        s.model.train()
        for features, target in loader:
            s.optimizer.zero_grad()
            loss = s.loss(s.model(features), target)
            loss.backward()
            s.optimizer.step()
        if s.X_val is not None:
            s.model.eval()
            with torch.no_grad():
                s.loss(s.model(s.X_val), s.y_val).item()


def scaled(x: np.ndarray | Tensor) -> Tensor:
    """Columns with mean 0 and deviation 1, as float32."""
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    return ((x - x.mean(0)) / x.std(0).clamp_min(1e-9)).float()


# Tables


def numbers(n: int = 400, d: int = 6, seed: int = 0, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    """Regression: X (n, d), y (n, 1), both scaled."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.7 * x[:, 3] + noise * rng.normal(size=n)
    return scaled(x), scaled(y)[:, None]


def yes_no(n: int = 400, d: int = 6, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Two classes: X (n, d), y (n, 1) of 0.0 and 1.0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    z = x[:, 0] * x[:, 1] + x[:, 2] - 0.8 * x[:, 3] + noise * rng.normal(size=n)
    return scaled(x), torch.tensor(z > 0).float()[:, None]


def kinds(
    n: int = 450, d: int = 8, k: int = 3, seed: int = 0, spread: float = 1.1
) -> tuple[Tensor, Tensor]:
    """Several classes around centres: X (n, d), y (n,) of 0 .. k-1."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % k)
    x = spread * rng.normal(size=(k, d))[y] + rng.normal(size=(n, d))
    return scaled(x), torch.tensor(y)


def flowers() -> tuple[Tensor, Tensor]:
    """The irises as they were measured, in centimetres, in random order."""
    x, y = datasets.load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return torch.tensor(x[order]).float(), torch.tensor(y[order])


def tumours() -> tuple[Tensor, Tensor]:
    """30 raw measurements of 569 tumours, from 0.001 to 4000; y (569, 1)."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return torch.tensor(x[order]).float(), torch.tensor(y[order]).float()[:, None]


def wines() -> tuple[Tensor, Tensor]:
    """13 raw measurements of 178 wines of three kinds, in random order."""
    x, y = datasets.load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return torch.tensor(x[order]).float(), torch.tensor(y[order])


def digits() -> tuple[Tensor, Tensor]:
    """600 pictures of 8 x 8 pixels from 0 to 16."""
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:600]
    return torch.tensor(x[order]).float(), torch.tensor(y[order])


def patients() -> tuple[Tensor, Tensor]:
    """The diabetes table with scaled columns and the raw target of 25 to 346, y (442, 1)."""
    x, y = datasets.load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return scaled(x[order]), torch.tensor(y[order]).float()[:, None]
