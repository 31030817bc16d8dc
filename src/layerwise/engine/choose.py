"""Which engine trains: the native core where it can, else the plain loop, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from layerwise.engine.loss import Loss
from layerwise.engine.native import Native
from layerwise.engine.plan import Refused
from layerwise.engine.seen import Seen
from layerwise.engine.torch import FULL, Epoch, Loader, Precision, Rows, Torch

# Multiply-adds of a step's forward pass above which torch is faster on two threads than the core on
# one; with more threads so many times sooner. On one thread the core took 0.3 of torch's time at 21
# million, 0.6 at 88, 0.7 at 163 and 0.8 at 590, and torch gains less than a thread by each thread.
LARGE = 100_000_000


class Engine(Protocol):
    """What trains a network for an epoch, measures it on rows, and brings back what it learnt."""

    @property
    def name(self) -> str:
        """native or torch."""

    @property
    def train_epoch(self) -> Callable[..., Epoch]:
        """See `layerwise.engine.torch.train_epoch`, from the rows on."""

    @property
    def measure(self) -> Callable[..., tuple[float, dict[str, float]]]:
        """See `layerwise.engine.torch.measure`, from the rows on."""

    @property
    def watch(self) -> Callable[[int], None]:
        """Look at the first step of each epoch and every so manieth after it; 0 for none."""

    @property
    def seen(self) -> Callable[[], Seen]:
        """What was seen since it was last asked, by layer and by parameter; None for nothing."""

    def store_weights(self) -> None:
        """Bring weights and running statistics to torch's tensors."""

    def store(self) -> None:
        """Bring the optimizer's state there too."""


def choose(
    name: str,
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    rows: Rows | Loader,
    valid: Rows | Loader | None = None,
    *,
    batch_size: int = 1,
    threads: int = 1,
    precision: Precision = FULL,
    dropout: torch.Generator | None = None,
) -> tuple[Engine, str]:
    """The engine of that name, and for torch's the reason why it is not the core.

    Parameters
    ----------
    name : auto takes the core where it can run all of this; native insists; torch never does
    network, loss, optimizer, rows, valid : what is to be trained on what
    batch_size, threads : rows of a step, and CPU threads that torch may use for it
    precision : of the forward passes
    dropout : the generator that the core's dropout is seeded from, epoch by epoch

    Raises
    ------
    Refused
        If the core is insisted on and cannot run it.
    """
    if name == "torch":
        return Torch(network, loss, optimizer, precision), "as you said"
    try:
        if precision is not FULL:
            raise Refused("mixed precision is torch's")
        native = Native(network, loss, optimizer, rows, valid, dropout=dropout)
        size = batch_size * sum(p.numel() for p in native.parameters if p.dim() > 1)
        if name == "auto" and size * (threads - 1) > LARGE:
            raise Refused("its layers are large enough for torch to use several threads on them")
        return native, ""
    except Refused as reason:
        if name == "native":
            raise
        return Torch(network, loss, optimizer, precision), str(reason)
