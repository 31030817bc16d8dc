"""The plain PyTorch loop: any module, any device. The reference for every faster engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.bare import bare_step
from layerwise.engine.loss import Loss, weights_of
from layerwise.engine.seen import Watch

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Batch = tuple[int, Any, Any, Tensor | None]  # rows, inputs, y, w


@dataclass(frozen=True)
class Rows:
    """Rows in memory: X (n_rows, …), y as the loss wants it, weights (n_rows,) or None.

    A network with several inputs takes X as a tuple, or as a dict by the names of its ``forward``.
    With an ``index`` (n_rows,) of int64 they are these rows of X, y and w, in this order: so the
    folds of a table share one copy of it.
    """

    X: Inputs
    y: Inputs
    w: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(first(self.X) if self.index is None else self.index)

    def picked(self) -> Rows:
        """The same rows without an index: copied, where they are part of others."""
        i = self.index
        if i is None:
            return self
        return Rows(take(self.X, i), take(self.y, i), None if self.w is None else self.w[i])

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return first(self.X).device

    def batches(self, order: Tensor | None, batch_size: int) -> Iterator[Batch]:
        """The rows in this order, or as they stand, in batches."""
        X, y, w = self.X, self.y, self.w
        if self.index is not None:
            order = self.index if order is None else self.index[order]
        if order is not None:
            # One gather for the epoch: each batch is then a slice, a view without a copy.
            X, y, w = take(X, order), take(y, order), None if w is None else w[order]
        for start, stop in batches(len(self) if order is None else len(order), batch_size):
            part = slice(start, stop)
            yield stop - start, take(X, part), take(y, part), None if w is None else w[part]

    def n_steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        n = len(self)
        steps = -(-n // batch_size)
        return steps - (steps > 1 and n - (steps - 1) * batch_size == 1)  # as `batches` has them


@dataclass(frozen=True)
class Loader:
    """A ``DataLoader`` as it is: its own batches of (inputs, y) or (inputs, y, w), in its order."""

    loader: Iterable[Any]
    device: torch.device

    def batches(self, order: Tensor | None, batch_size: int) -> Iterator[Batch]:
        """The loader's batches, on the device; order and size are the loader's business."""
        for batch in self.loader:
            X, y, *w = to_device(batch, self.device)
            yield len(first(X)), X, y, w[0] if w else None

    def n_steps(self, batch_size: int) -> int | None:
        """How many batches an epoch has, or None if the loader cannot tell."""
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            return None


def first(X: Inputs) -> Tensor:
    """The first of the inputs, for what all of them share: rows and device."""
    if isinstance(X, Tensor):
        return X
    return next(iter(X.values() if isinstance(X, dict) else X))


def take(X: Inputs, rows: Tensor | slice) -> Inputs:
    """These rows of every input."""
    if isinstance(X, Tensor):
        return X[rows]
    if isinstance(X, dict):
        return {name: one[rows] for name, one in X.items()}
    return tuple(one[rows] for one in X)


def call(network: nn.Module, X: Inputs) -> Any:
    """The network's outputs for one input, several, or named ones."""
    if isinstance(X, Tensor):
        return network(X)
    return network(**X) if isinstance(X, dict) else network(*X)


def to_device(value: Any, device: torch.device) -> Any:
    """Every tensor in nested lists, tuples and dicts on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: to_device(one, device) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(to_device(one, device) for one in value)
    return value


@dataclass(frozen=True)
class Precision:
    """Mixed precision: the type of the fast operations, and a scaler for float16's small range."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler | None = None

    def here(self) -> contextlib.AbstractContextManager[Any]:
        """The context of one forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, self.dtype)


FULL = Precision()


@dataclass
class Epoch:
    """What one pass over the rows gave."""

    loss: float
    steps: int
    rows: int
    complete: bool = True


class NotFinite(ArithmeticError):
    """The loss of a step is NaN or infinite; the batch that did it comes along."""

    def __init__(self, step: int, X: Inputs, y: Any) -> None:
        super().__init__(f"the loss is not finite at step {step}")
        self.step, self.X, self.y = step, X, y


@torch.enable_grad()
def train_epoch(
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    rows: Rows | Loader,
    order: Tensor | None,
    batch_size: int,
    *,
    rates: Callable[[int], Sequence[float]] | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    deadline: float = float("inf"),
    stop: Callable[[], bool] | None = None,
    precision: Precision = FULL,
    watch: Watch | None = None,
) -> Epoch:
    """Train on every row once, in batches taken in the given order.

    Parameters
    ----------
    network, loss, optimizer : the network returns raw outputs; the loss takes (outputs, y, w)
    rows : all training rows
    order : int64 tensor of shape (n_rows,), the shuffled row numbers; a loader has its own
    batch_size : rows of a step; the last batch takes what is left, and a last single row joins
        the batch before it, which batch normalisation could not take alone
    rates : the learning rate of each parameter group for each step of this epoch, counted from 0;
        None leaves them
    clip_norm, clip_value : limits of the gradients' norm and of each entry
    deadline : ``time.monotonic()`` after which no step but the first begins
    stop : asked before each step; True raises KeyboardInterrupt
    precision : of the forward pass
    watch : what looks at some of the steps

    Raises
    ------
    NotFinite
        In the very step whose loss is NaN or infinite, before the weights are touched by it.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = precision.scaler
    update = partial(scaler.step, optimizer) if scaler else bare_step(optimizer)
    network.train()
    total, step, done = 0.0, 0, 0
    unwatched = contextlib.nullcontext()

    def gradients(Xb: Any, yb: Any, wb: Tensor | None) -> float:
        """The batch's loss; its gradients are left on the parameters."""
        for p in parameters:
            p.grad = None  # zero_grad without its bookkeeping, a twentieth of a small step
        with precision.here():
            value = loss(call(network, Xb), yb, wb)
        (scaler.scale(value) if scaler else value).backward()
        looked_at = watch is not None and watch.active
        if scaler and (looked_at or clip_value is not None or clip_norm is not None):
            scaler.unscale_(optimizer)
        if watch is not None and looked_at:
            watch.gradients()
        if clip_value is not None:
            nn.utils.clip_grad_value_(parameters, clip_value)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        return value.item()

    for n, *batch in rows.batches(order, batch_size):
        if step and time.monotonic() > deadline:
            return Epoch(total / done, step, done, complete=False)
        if stop is not None and stop():
            raise KeyboardInterrupt
        if rates is not None:
            _set_rates(optimizer, rates(step))
        looking = watch if watch is not None and watch.at(step) else None
        with looking.looking() if looking else unwatched:
            value = gradients(*batch)
        if value - value != 0:  # true for NaN and both infinities
            raise NotFinite(step, batch[0], batch[1])
        if looking:
            looking.before_update()
        if isinstance(optimizer, torch.optim.LBFGS):
            # the one that evaluates the loss several times in a step
            optimizer.step(partial(gradients, *batch))
        else:
            update()
        if scaler:
            scaler.update()
        if looking:
            looking.after_update()
        total += value * n
        done += n
        step += 1
    return Epoch(total / max(done, 1), step, done)


def batches(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each batch; a last batch of one row joins the one before."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return zip(starts, [*starts[1:], n])


def _set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates):
        if group["lr"] != rate:
            group["lr"] = rate


CHUNK = 8192  # rows of a table at a time when nothing is learnt


@torch.no_grad()
def predict(
    network: nn.Module, X: Inputs, chunk: int = CHUNK, precision: Precision = FULL
) -> Tensor:
    """Raw outputs of shape (n_rows, …) in evaluation mode."""
    network.eval()
    pieces = []
    for start in range(0, max(len(first(X)), 1), chunk):
        with precision.here():
            pieces.append(call(network, take(X, slice(start, start + chunk))))
    return torch.cat(pieces)


@torch.no_grad()
def measure(
    network: nn.Module,
    loss: Loss,
    rows: Rows | Loader,
    batch_size: int,
    *,
    score: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    precision: Precision = FULL,
) -> tuple[float, dict[str, float]]:
    """The loss of all these rows in evaluation mode, and what ``score`` makes of (outputs, y).

    The loss is the sum of weight times loss over the sum of weights. Tables are run in large
    chunks; images and sequences, whose layers take more memory, in the batches of the training.
    """
    network.eval()
    table = isinstance(rows, Rows) and first(rows.X).dim() <= 2
    told, total = 0.0, 0.0
    outputs, answers = [], []
    for n, X, y, w in rows.batches(None, CHUNK if table else batch_size):
        with precision.here():
            given = call(network, X)
            value = float(loss(given, y, w))
        counted, weight = weights_of(loss, n, y, w)
        told, total = told + value * counted, total + weight
        if score is not None:
            outputs.append(given)
            answers.append(y)
    scored = score(_joined(outputs), _joined(answers)) if score is not None else {}
    return told / total if total else float("nan"), scored


def _joined(parts: Sequence[Any]) -> Any:
    """Tensors of several batches as one; also within tuples and dicts."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple | list):
        return tuple(_joined(one) for one in zip(*parts))
    return torch.cat(parts)  # type: ignore[arg-type]


class Torch:
    """The plain loop as an engine: what trains, measures, and brings back what was learnt."""

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        precision: Precision = FULL,
    ) -> None:
        # No method of its own: one frame less between the loop of epochs and that of steps.
        self._watch = Watch(network)
        self.watch, self.seen = self._watch.start, self._watch.seen
        self.train_epoch = partial(
            train_epoch, network, loss, optimizer, precision=precision, watch=self._watch
        )
        self.measure = partial(measure, network, loss, precision=precision)

    def store_weights(self) -> None:
        """Nothing to do: the weights are torch's own."""

    def store(self) -> None:
        """Nothing to do: the optimizer's state is torch's own."""


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
