"""What there is before a forward pass: model, loss, optimizers and rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

from layerwise.network.walk import leaves
from layerwise.training.losses import keeps_integers, kind_of

CLASSES = ("cross_entropy", "nll_loss")
BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
SQUARES = ("mse_loss",)
ABSOLUTE = ("l1_loss", "smooth_l1_loss", "huber_loss")
AMOUNTS = (*SQUARES, *ABSOLUTE)


@dataclass(frozen=True, eq=False)
class Case:
    """The patient: whatever is known of it; None is what is not.

    Attributes
    ----------
    model, loss : as given; loss an nn module, a function of (outputs, y), or a name
    optimizers : all there are; empty if none was given
    X, y, X_val, y_val : tensors as given (X on whatever device)
    batch_size, epochs, drop_last, shuffle : of the training to come
    names : of the columns of X
    sampled : whether a sampler of the loader, or weights of rows or classes, make up for rare ones
    original : the user's own model, where ``model`` is a copy of it from before the training
    classes : the names behind class indices
    """

    model: nn.Module
    loss: Any = None
    optimizers: tuple[torch.optim.Optimizer, ...] = ()
    X: Any = None
    y: Any = None
    X_val: Any = None
    y_val: Any = None
    batch_size: int | None = None
    epochs: int | None = None
    drop_last: bool | None = None
    shuffle: bool | None = None
    names: tuple[str, ...] = ()
    sampled: bool = False
    original: nn.Module | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss: Any = None,
        optimizer: Any = None,
        X: Any = None,
        y: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        names: Sequence[str] | None = None,
    ) -> Case:
        """The case of what a user gives: arrays, frames, tensors or a DataLoader."""
        sampled = False
        if isinstance(X, DataLoader):
            loader = X
            batch_size = loader.batch_size if batch_size is None else batch_size
            drop_last = loader.drop_last if drop_last is None else drop_last
            if shuffle is None and isinstance(loader.sampler, RandomSampler | SequentialSampler):
                shuffle = isinstance(loader.sampler, RandomSampler)
            sampled = isinstance(loader.sampler, WeightedRandomSampler)
            X, y = rows_of_loader(loader)
        if names is None and hasattr(X, "columns"):
            names = [str(name) for name in X.columns]
        floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        rows = None if any(isinstance(m, nn.Embedding) for m in model.modules()) else floats
        answers = None if keeps_integers(loss) else floats
        return cls(
            model, loss, optimizers_of(optimizer), as_tensor(X, floats, rows),
            as_tensor(y, floats, answers), as_tensor(X_val, floats, rows),
            as_tensor(y_val, floats, answers), batch_size, epochs, drop_last, shuffle,
            tuple(names or ()), sampled,
        )  # fmt: skip

    @cached_property
    def kind(self) -> str:
        """The loss's name in ``torch.nn.functional``; "" for one of the user's own."""
        return kind_of(self.loss)

    @cached_property
    def names_of(self) -> dict[nn.Module, str]:
        """The path of each module."""
        return {module: name for name, module in self.model.named_modules()}

    @cached_property
    def layers(self) -> list[tuple[str, nn.Module]]:
        """The layers with their paths, as the model lists them."""
        return list(leaves(self.model))

    @property
    def n_rows(self) -> int | None:
        """How many rows there are to train on."""
        return len(self.X) if isinstance(self.X, Tensor) and self.X.dim() else None

    @property
    def task(self) -> str:
        """multiclass, binary or regression by the loss; "" where it does not say."""
        if self.kind in CLASSES:
            return "multiclass"
        if self.kind in BINARY:
            return "binary"
        return "regression" if self.kind in (*AMOUNTS, "poisson_nll_loss") else ""

    def column(self, index: int) -> str:
        """A column of X in words: its name, or its number."""
        return repr(self.names[index]) if index < len(self.names) else str(index)

    def label(self, index: int) -> str:
        """A class in words: its name, or its index."""
        return self.classes[index] if index < len(self.classes) else str(index)

    @cached_property
    def baseline(self) -> float | None:
        """The loss of the best answer that is the same for every row; None where unknown."""
        if not isinstance(self.y, Tensor) or not self.y.numel():
            return None
        return baseline_of(self.kind, self.loss, self.y)


def baseline_of(kind: str, loss: Any, y: Tensor) -> float | None:
    """Loss of the best constant answer to y.

    Parameters
    ----------
    kind : of the loss, as in ``torch.nn.functional``
    loss : as given, for its class weights
    y : targets

    Examples
    --------
    >>> round(baseline_of("cross_entropy", nn.CrossEntropyLoss(), torch.tensor([0, 1, 0, 1])), 3)
    0.693
    >>> baseline_of("mse_loss", nn.MSELoss(), torch.tensor([[0.0], [2.0]]))
    1.0
    """
    y = y.detach().cpu()
    if kind in CLASSES:
        if y.is_floating_point() and y.dim() == 2:
            shares = y.double().mean(dim=0)
        else:
            known = y.flatten().long()
            known = known[(known != getattr(loss, "ignore_index", -100)) & (known >= 0)]
            if not len(known):
                return None
            shares = torch.bincount(known).double()
            weight = getattr(loss, "weight", None)
            if isinstance(weight, Tensor) and len(weight) >= len(shares):
                shares = shares * weight.detach().cpu().double()[: len(shares)]
        return _entropy(shares)
    values = y.double()
    values = values.flatten(1) if values.dim() > 1 else values[:, None]
    if not bool(torch.isfinite(values).all()):
        return None
    if kind in BINARY:
        p = values.mean(dim=0)
        positive = getattr(loss, "pos_weight", None)
        factor = positive.detach().cpu().double() if isinstance(positive, Tensor) else 1.0
        # with a weight a on the positives the best answer q is a p / (a p + 1 - p)
        q = (factor * p / (factor * p + 1 - p)).clamp(1e-12, 1 - 1e-12)
        return float((-(factor * p * q.log() + (1 - p) * (1 - q).log())).mean())
    if kind in SQUARES:
        return float(values.var(dim=0, correction=0).mean())
    if kind in ABSOLUTE:
        middle = values.median(dim=0).values
        off = (values - middle).abs()
        if kind == "l1_loss":
            return float(off.mean())
        beta = float(getattr(loss, "beta" if kind == "smooth_l1_loss" else "delta", 1.0))
        inside = 0.5 * off.square() / (beta if kind == "smooth_l1_loss" and beta else 1.0)
        beyond = off - 0.5 * beta if kind == "smooth_l1_loss" else beta * (off - 0.5 * beta)
        return float(torch.where(off < beta, inside, beyond).mean())
    return None


def _entropy(shares: Tensor) -> float:
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * shares.log()).sum()) if len(shares) else math.nan


def optimizers_of(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    """One optimizer, several, or none, as a tuple."""
    if optimizer is None:
        return ()
    found: Iterable[Any] = (
        optimizer.values() if isinstance(optimizer, dict)
        else optimizer if isinstance(optimizer, list | tuple) else (optimizer,)
    )  # fmt: skip
    return tuple(one for one in found if isinstance(one, torch.optim.Optimizer))


def as_tensor(
    values: Any, floats: torch.dtype | None = None, integers: torch.dtype | None = None
) -> Any:
    """Tensors as they are; arrays, lists and frames of numbers as tensors; anything else as it is.

    Parameters
    ----------
    values : whatever somebody keeps rows in
    floats : the type of an array's decimals; None leaves them
    integers : that of its whole numbers
    """
    if values is None or isinstance(values, Tensor):
        return values if values is None else values.detach()
    if isinstance(values, dict) or (
        isinstance(values, list | tuple) and any(isinstance(one, Tensor) for one in values)
    ):
        return values
    try:
        array = np.array(values)
        tensor = torch.from_numpy(array if array.dtype.kind != "O" else array.astype(float))
    except (TypeError, ValueError, RuntimeError):
        return values
    wanted = floats if tensor.is_floating_point() else integers
    return tensor if wanted is None else tensor.to(wanted)


def rows_of_loader(loader: DataLoader[Any], most: int = 20_000) -> tuple[Any, Any]:
    """The rows a loader goes through, in the order of its dataset; (None, None) if unknown.

    The loader itself is not started: that would draw from the user's random state.
    """
    dataset = loader.dataset
    tensors = getattr(dataset, "tensors", None)
    if tensors is not None and len(tensors) >= 2:
        return tensors[0], tensors[1]
    try:
        size = len(dataset)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            pairs = [dataset[i] for i in range(min(size, most))]
            columns = [torch.utils.data.default_collate(list(part)) for part in zip(*pairs)]
        return columns[0], columns[1]
    except Exception:  # a dataset of any kind: then there are no rows to see
        return None, None
