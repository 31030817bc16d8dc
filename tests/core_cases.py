"""Random plans for the native core, and what torch's autograd says of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.torch import Rows
from layerwise.network.layers import InputLayer
from layerwise.training.losses import loss_of

WIDTHS = (1, 7, 17, 33, 129, 300)
BATCHES = (1, 2, 3, 5, 8, 16, 31, 100, 257, 1000)
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU, "LeakyReLU": lambda: nn.LeakyReLU(0.1), "ELU": lambda: nn.ELU(0.7),
    "SELU": nn.SELU, "GELU": nn.GELU, "GELU tanh": lambda: nn.GELU("tanh"), "SiLU": nn.SiLU,
    "Mish": nn.Mish, "Softplus": lambda: nn.Softplus(1.5, 9), "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid, "Hardtanh": lambda: nn.Hardtanh(-0.5, 0.8), "ReLU6": nn.ReLU6,
    "PReLU": nn.PReLU, "Identity": nn.Identity, "Flatten": nn.Flatten,
    "Dropout": lambda: nn.Dropout(0.0),
}  # fmt: skip
SMOOTH = ("ELU", "SELU", "GELU", "GELU tanh", "SiLU", "Mish", "Softplus", "Tanh", "Sigmoid")
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BatchNorm1d": nn.BatchNorm1d,
    "plain BatchNorm1d": lambda n: nn.BatchNorm1d(n, affine=False, momentum=0.3, eps=1e-3),
    "BatchNorm1d over all batches": lambda n: nn.BatchNorm1d(n, momentum=None),
    "LayerNorm": nn.LayerNorm,
    "plain LayerNorm": lambda n: nn.LayerNorm(n, elementwise_affine=False, eps=1e-3),
    "LayerNorm without bias": lambda n: nn.LayerNorm(n, bias=False),
    "PReLU of each": nn.PReLU, "Softmax": lambda n: nn.Softmax(dim=1),
    "LogSoftmax": lambda n: nn.LogSoftmax(dim=-1),
}  # fmt: skip


def _edges(n: int) -> Tensor:
    return (torch.rand(n + 1, dtype=torch.float64) + 0.01).cumsum(0) - n / 4


Made = tuple[Any, nn.Module | None, Tensor]  # loss, a last layer that it wants, y


def _numbers(n: int, k: int) -> Tensor:
    return 2 * torch.randn(n, k, dtype=torch.float64)


def _some(n: int, k: int) -> Tensor:
    return (torch.rand(n, k, dtype=torch.float64) < 0.4).double()


def _classes(n: int, k: int) -> Tensor:
    return torch.randint(max(k - 1, 1), (n,))  # the last class is absent


def _shares(n: int, k: int) -> Tensor:
    return torch.softmax(_numbers(n, k), 1)


def _of_classes(k: int) -> Tensor:
    return torch.rand(k, dtype=torch.float64) + 0.1


LOSSES: dict[str, Callable[[int, int], Made]] = {
    "mse": lambda n, k: ("mse", None, _numbers(n, k)),
    "l1": lambda n, k: ("l1", None, _numbers(n, k)),
    "huber": lambda n, k: ("huber", None, _numbers(n, k)),
    "bce": lambda n, k: ("bce", None, _some(n, k)),
    "cross_entropy": lambda n, k: ("cross_entropy", None, _classes(n, k)),
    "MSELoss": lambda n, k: (nn.MSELoss(), None, _numbers(n, k)),
    "L1Loss": lambda n, k: (nn.L1Loss(), None, _numbers(n, k)),
    "SmoothL1Loss": lambda n, k: (nn.SmoothL1Loss(beta=0.7), None, _numbers(n, k)),
    "SmoothL1Loss, beta 0": lambda n, k: (nn.SmoothL1Loss(beta=0.0), None, _numbers(n, k)),
    "HuberLoss": lambda n, k: (nn.HuberLoss(delta=0.6), None, _numbers(n, k)),
    "BCELoss": lambda n, k: (nn.BCELoss(), nn.Sigmoid(), torch.rand(n, k).double()),
    "BCEWithLogitsLoss": lambda n, k: (nn.BCEWithLogitsLoss(), None, torch.rand(n, k).double()),
    "pos_weight": lambda n, k: (
        nn.BCEWithLogitsLoss(pos_weight=4 * _of_classes(k)), None, _some(n, k)),
    "one pos_weight": lambda n, k: (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0).double()), None, _some(n, k)),
    "CrossEntropyLoss": lambda n, k: (nn.CrossEntropyLoss(), None, _classes(n, k)),
    "class weights": lambda n, k: (
        nn.CrossEntropyLoss(weight=_of_classes(k)), None, _classes(n, k)),
    "label smoothing": lambda n, k: (
        nn.CrossEntropyLoss(label_smoothing=0.2), None, _classes(n, k)),
    "smoothing and weights": lambda n, k: (
        nn.CrossEntropyLoss(weight=_of_classes(k), label_smoothing=0.2), None, _classes(n, k)),
    "ignore_index": lambda n, k: (nn.CrossEntropyLoss(ignore_index=0), None, _classes(n, k)),
    "ignore_index, all else": lambda n, k: (
        nn.CrossEntropyLoss(weight=_of_classes(k), ignore_index=-7, label_smoothing=0.1), None,
        torch.where(torch.rand(n) < 0.3, -7, _classes(n, k))),
    "probabilities": lambda n, k: (nn.CrossEntropyLoss(), None, _shares(n, k)),
    "probabilities, all else": lambda n, k: (
        nn.CrossEntropyLoss(weight=_of_classes(k), label_smoothing=0.1), None, _shares(n, k)),
    "NLLLoss": lambda n, k: (nn.NLLLoss(), nn.LogSoftmax(1), _classes(n, k)),
    "NLLLoss, all else": lambda n, k: (
        nn.NLLLoss(weight=_of_classes(k), ignore_index=1), nn.LogSoftmax(1), _classes(n, k)),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network, a loss (a module or layerwise's name of one) and rows, all in one type."""

    network: nn.Sequential
    criterion: Any
    rows: Rows

    def to(self, dtype: torch.dtype) -> Case:
        """A copy of all of it in another type."""
        named = isinstance(self.criterion, str)
        criterion = self.criterion if named else copy.deepcopy(self.criterion).to(dtype)
        rows = Rows(*(
            one.to(dtype) if one is not None and one.is_floating_point() else one
            for one in (self.rows.X, self.rows.y, self.rows.w)
        ))  # fmt: skip
        return Case(copy.deepcopy(self.network).to(dtype), criterion, rows)

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.X.dtype

    @property
    def loss(self) -> Any:
        return loss_of(self.criterion)

    def reference(self, dtype: torch.dtype | None = None) -> tuple[float, list[Tensor]]:
        """Loss and gradients of one batch of all the rows, by autograd in this type."""
        own = self.to(dtype or self.dtype)
        own.network.train()
        value = own.loss(own.network(own.rows.X), own.rows.y, own.rows.w)
        value.backward()
        return value.item(), [p.grad.to(torch.float64) for p in own.network.parameters()]

    def __repr__(self) -> str:
        kinds = ", ".join(f"{type(m).__name__}" for m in self.network)
        return f"{self.criterion} {self.dtype} {tuple(self.rows.X.shape)} [{kinds}]"


def network(
    draw: random.Random, n_inputs: int, n_outputs: int, depth: int, norms: list[str],
    activations: list[str],
) -> list[nn.Module]:  # fmt: skip
    """Hidden layers of odd widths, some normalised, some without bias."""
    layers: list[nn.Module] = []
    width = n_inputs
    if draw.random() < 0.2 and n_inputs > 2:  # the last two columns are categories
        bins = draw.choice([[], [draw.choice([0, 1, 3, 20]) for _ in range(n_inputs - 2)]])
        embedding = [draw.choice([0, 5]), draw.choice([0, 2])]
        first = InputLayer(n_inputs - 2, [4, 3], embedding, torch.float64, bins)
        if any(bins):
            first.edges.copy_(torch.cat([_edges(n) for n in bins if n]))
        for table in first.tables.parameters():
            table.data.normal_()[0] = 0
        layers.append(first)
        width = first.out_features
    for _ in range(depth):
        out = draw.choice(WIDTHS)
        layers.append(nn.Linear(width, out, bias=draw.random() < 0.8))
        width = out
        if norms and draw.random() < 0.3:
            layers.append(NORMS[draw.choice(norms)](width))
        layers.append(ACTIVATIONS[draw.choice(activations)]())
    layers.append(nn.Linear(width, n_outputs, bias=draw.random() < 0.9))
    return layers


def case(seed: int, *, smooth: bool = False, loss: str | None = None) -> Case:
    """A plan with its rows; every seed another one."""
    draw = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        n, n_inputs = draw.choice(BATCHES), draw.choice((1, 3, 7, 16, 17, 40))
        n_outputs = draw.choice((1, 2, 3, 10, 17))
        name = loss or draw.choice(list(LOSSES))
        criterion, last, y = LOSSES[name](n, n_outputs)
        kind = "plain" if smooth else draw.choice(("plain", "plain", "plain", "ties", "large"))
        norms = [name for name in NORMS if n > 1 or "Batch" not in name]
        activations = [name for name in ACTIVATIONS if not smooth or name in SMOOTH]
        layers, size = [], float("inf")
        while n * size > 4e7:
            # Behind one hidden layer sums are not exact: what is 0 here may be 1e-17 there.
            depth = draw.randint(0, 1 if kind == "ties" else 6)
            norms = [] if kind == "ties" else norms
            layers = network(draw, n_inputs, n_outputs, depth, norms, activations)
            size = sum(p.numel() for layer in layers for p in layer.parameters())
        if last is not None:
            layers.append(last)
        if draw.random() < 0.3:  # nested
            half = len(layers) // 2
            layers = [nn.Sequential(*layers[:half]), *layers[half:]] if half else layers
        whole = nn.Sequential(*layers).double()
        X = torch.randn(n, n_inputs, dtype=torch.float64)
        if kind == "ties":  # whole numbers and quarters: sums are exact, and often exactly 0
            X = X.round()
            for p in whole.parameters():
                p.data = (p.data * 4).round() / 4
        elif kind == "large":  # outputs of about 1e4 in either direction
            X *= 3e4
        if any(isinstance(m, InputLayer) for m in whole.modules()):
            X[:, -2:] = torch.stack([torch.randint(5, (n,)), torch.randint(4, (n,))], 1)
        w = None
        if draw.random() < 0.4:
            w = torch.rand(n, dtype=torch.float64) * 2
            if draw.random() < 0.5:
                w *= torch.rand(n) < 0.6  # a few rows, or even all of them, do not count
    made = Case(whole, criterion, Rows(X, y, w))
    return made if smooth else made.to(draw.choice((torch.float32, torch.float64)))


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest entry."""
    largest = max(float(one.abs().max()) for one in expected)
    apart = max(float((a.double() - b).abs().max()) for a, b in zip(found, expected))
    return apart / largest if largest else apart


def copied(one: Case, **changes: Any) -> Case:
    """The same case with a network of its own."""
    return replace(one, network=copy.deepcopy(one.network), **changes)
