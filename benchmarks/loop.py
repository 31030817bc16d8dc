"""One epoch of layerwise's torch engine against the loop that everybody writes, in one process.

    python benchmarks/loop.py [--rows 50000] [--repeat 5]

Both start from the same weights and take the same rows in the same order; the answer is checked
before anything is timed. Prints medians of seconds for an epoch and their ratio.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from layerwise.engine.loss import mse
from layerwise.engine.torch import Rows, cpu_threads, train_epoch
from layerwise.training.optimizer import make_optimizer
from layerwise.training.recipe import Recipe


class InOrder(Sampler[int]):
    """Row numbers in a given order, so that both loops see the same batches."""

    def __init__(self, order: torch.Tensor) -> None:
        self.order = order.tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def usual_loop(
    network: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows, order: torch.Tensor
) -> None:
    loader = DataLoader(TensorDataset(rows.X, rows.y), batch_size=32, sampler=InOrder(order))
    criterion = nn.MSELoss()
    network.train()
    for features, target in loader:
        optimizer.zero_grad()
        prediction = network(features)
        loss = criterion(prediction, target)
        loss.backward()
        optimizer.step()


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(name: str, rows: Rows, order: torch.Tensor, repeat: int) -> None:
    theirs, ours = make_network(), make_network()
    plain = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    options = {"lr": 1e-3, "momentum": 0.9} if name == "sgd" else {"lr": 1e-3}
    their_optimizer = plain(theirs.parameters(), **options)
    our_optimizer = make_optimizer(
        ours, Recipe(optimizer=name, lr=1e-3, momentum=0.9, weight_decay=0)
    )
    usual_loop(theirs, their_optimizer, rows, order)
    train_epoch(ours, mse, our_optimizer, rows, order, 32)
    apart = max((a - b).abs().max().item() for a, b in zip(theirs.parameters(), ours.parameters()))
    assert apart < 2e-3, f"the two loops ended {apart} apart"
    usual, own = [], []
    for _ in range(repeat):
        a, b = copy.deepcopy(theirs), copy.deepcopy(ours)
        opt_a = plain(a.parameters(), **options)
        opt_b = make_optimizer(b, Recipe(optimizer=name, lr=1e-3, momentum=0.9, weight_decay=0))
        usual.append(seconds(lambda: usual_loop(a, opt_a, rows, order)))  # noqa: B023
        own.append(seconds(lambda: train_epoch(b, mse, opt_b, rows, order, 32)))  # noqa: B023
    ratio = statistics.median(o / u for o, u in zip(own, usual))
    print(
        f"{name:5} usual loop {statistics.median(usual):.2f} s  layerwise "
        f"{statistics.median(own):.2f} s  ratio {ratio:.2f}  weights apart {apart:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(arguments.rows, 10, generator=generator)
    y = (
        X[:, :1] * 0.5
        + torch.sin(X[:, 1:2])
        + 0.1 * torch.randn(arguments.rows, 1, generator=generator)
    )
    order = torch.randperm(arguments.rows, generator=generator)
    print(f"one epoch, 10-64-64-1, {arguments.rows:,} rows, batches of 32, one thread each:")
    with cpu_threads(1):
        for name in ("sgd", "adam"):
            compare(name, Rows(X, y), order, arguments.repeat)


if __name__ == "__main__":
    main()
