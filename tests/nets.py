"""Networks of many kinds, and all the state that looking at one must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Blocks with in-place activations, in-place sums and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))
        self.inp = nn.Linear(10, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True), nn.BatchNorm1d(16))
            for _ in range(2)
        )
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for block in self.blocks:
            out = block(x)
            out += x
            x = self.relu(out)
        return self.out(x * self.scale)


class Recurrent(nn.Module):
    """Words, an LSTM with a tuple of outputs, of which the last step counts."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.words(x))
        return self.head(hidden[-1])


class Towers(nn.Module):
    """Two inputs by name, whose towers meet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(a).tanh(), self.right(b).tanh()], dim=1))


def mlp() -> nn.Sequential:
    """10-18-20-5, 683 parameters."""
    return nn.Sequential(
        nn.Linear(10, 18), nn.ReLU(), nn.Linear(18, 20), nn.ReLU(), nn.Linear(20, 5)
    )


def images() -> nn.Sequential:
    """A small CNN for images of 8 x 8, with batch normalisation and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3),
    )  # fmt: skip


def transformer() -> nn.Sequential:
    """One block of attention for 5 steps of 8 numbers."""
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(block, nn.Flatten(), nn.Linear(40, 3))


ZOO: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": lambda: (mlp(), torch.randn(6, 10)),
    "float64": lambda: (mlp().double(), torch.randn(6, 10, dtype=torch.float64)),
    "bfloat16": lambda: (mlp().bfloat16(), torch.randn(6, 10, dtype=torch.bfloat16)),
    "residual": lambda: (Residual(), torch.randn(6, 10)),
    "images": lambda: (images(), torch.randn(6, 1, 8, 8)),
    "recurrent": lambda: (Recurrent(), torch.randint(50, (6, 7))),
    "towers": lambda: (Towers(), {"a": torch.randn(6, 3), "b": torch.randn(6, 5)}),
    "transformer": lambda: (transformer(), torch.randn(6, 5, 8)),
}


def zoo(name: str) -> tuple[nn.Module, Any]:
    """A network with three or five outputs, and six rows that fit it."""
    torch.manual_seed(0)
    return ZOO[name]()


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a look at it must not change, as comparable values."""
    return {
        "weights": {n: p.detach().double().numpy().tobytes() for n, p in model.named_parameters()},
        "gradients": {
            n: (id(p.grad), None if p.grad is None else p.grad.double().numpy().tobytes())
            for n, p in model.named_parameters()
        },
        "buffers": {n: (id(b), b.double().numpy().tobytes()) for n, b in model.named_buffers()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "in place": {n: getattr(m, "inplace", None) for n, m in model.named_modules()},
        "hooks": {
            n: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for n, m in model.named_modules()
        },
        "frozen": {n: not p.requires_grad for n, p in model.named_parameters()},
        "random": torch.get_rng_state().numpy().tobytes(),
    }
