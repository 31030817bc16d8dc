"""The plain PyTorch loop: any module, any device. The reference for every faster engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from layerwise.engine.bare import bare_step
from layerwise.engine.loss import Loss


@dataclass(frozen=True)
class Rows:
    """Encoded rows: X (n_rows, n_inputs), y as the loss wants it, weights (n_rows,) or None."""

    X: Tensor
    y: Tensor
    w: Tensor | None = None

    def __len__(self) -> int:
        return len(self.X)


@dataclass
class Epoch:
    """What one pass over the rows gave."""

    loss: float
    steps: int
    complete: bool = True


class NotFinite(ArithmeticError):
    """The loss of a step is NaN or infinite; the batch that did it comes along."""

    def __init__(self, step: int, rows: Tensor, X: Tensor, y: Tensor) -> None:
        super().__init__(f"the loss is not finite at step {step}")
        self.step, self.rows, self.X, self.y = step, rows, X, y


@torch.enable_grad()
def train_epoch(
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    rows: Rows,
    order: Tensor,
    batch_size: int,
    *,
    learning_rate: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    deadline: float = float("inf"),
) -> Epoch:
    """Train on every row once, in batches taken in the given order.

    Parameters
    ----------
    network, loss, optimizer : the network returns raw outputs; the loss takes (outputs, y, w)
    rows : all training rows
    order : int64 tensor of shape (n_rows,), the shuffled row numbers
    batch_size : rows of a step; the last batch takes what is left, and a last single row joins
        the batch before it, which batch normalisation could not take alone
    learning_rate : the rate for each step of this epoch, counted from 0; None leaves it
    clip_norm, clip_value : limits of the gradients' norm and of each entry
    deadline : ``time.monotonic()`` after which no step but the first begins

    Raises
    ------
    NotFinite
        In the very step whose loss is NaN or infinite, before the weights are touched by it.
    """
    # One gather for the epoch: each batch is then a slice, a view without a copy.
    X, y = rows.X[order], rows.y[order]
    w = None if rows.w is None else rows.w[order]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    update = bare_step(optimizer)
    network.train()
    total, step, n = 0.0, 0, len(order)

    def gradients(Xb: Tensor, yb: Tensor, wb: Tensor | None) -> float:
        """The batch's loss; its gradients are left on the parameters."""
        for p in parameters:
            p.grad = None  # zero_grad without its bookkeeping, a twentieth of a small step
        value = loss(network(Xb), yb, wb)
        value.backward()
        if clip_value is not None:
            nn.utils.clip_grad_value_(parameters, clip_value)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        return value.item()

    for start, stop in batches(n, batch_size):
        if step and time.monotonic() > deadline:
            return Epoch(total / start, step, complete=False)
        if learning_rate is not None:
            _set_rate(optimizer, learning_rate(step))
        batch = X[start:stop], y[start:stop], None if w is None else w[start:stop]
        value = gradients(*batch)
        if value - value != 0:  # true for NaN and both infinities
            raise NotFinite(step, order[start:stop], batch[0], batch[1])
        if isinstance(optimizer, torch.optim.LBFGS):
            # the one that evaluates the loss several times in a step
            optimizer.step(partial(gradients, *batch))
        else:
            update()
        total += value * (stop - start)
        step += 1
    return Epoch(total / n, step)


def batches(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each batch; a last batch of one row joins the one before."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return zip(starts, [*starts[1:], n])


def n_steps(n: int, batch_size: int) -> int:
    """How many steps an epoch over n rows has."""
    return sum(1 for _ in batches(n, batch_size))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if group["lr"] != rate:
            group["lr"] = rate


@torch.no_grad()
def predict(network: nn.Module, X: Tensor, chunk: int = 8192) -> Tensor:
    """Raw outputs of shape (n_rows, n_outputs) in evaluation mode."""
    network.eval()
    return torch.cat([network(X[i : i + chunk]) for i in range(0, max(len(X), 1), chunk)])


# ---------------------------------------------------------------- threads

_lock = threading.Lock()
_here = threading.local()  # torch counts threads for each Python thread
_inside = 0
_outside = 1


@contextlib.contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Let torch use n threads inside, in this Python thread, and afterwards what it used before.

    With one thread a step is the same to the last bit on any number of cores, small networks are
    faster, and no thread pool waits in a forked process.
    """
    global _inside, _outside
    depth = getattr(_here, "depth", 0)
    with _lock:
        # Asked first in any case: a Python thread takes the count that was set last anywhere when
        # it is first asked, also if that is after its own count was set.
        before = torch.get_num_threads()
        if _inside == 0:
            _outside = before
        elif depth == 0:
            before = _outside  # it was ours that this thread was born with
        _inside += 1
        torch.set_num_threads(n)
    _here.depth = depth + 1
    try:
        yield
    finally:
        _here.depth = depth
        with _lock:
            _inside -= 1
            torch.set_num_threads(before)
