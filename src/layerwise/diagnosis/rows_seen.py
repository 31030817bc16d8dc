"""Which rows have gone by in somebody's loop: the table they make up, and where epochs begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

MOST_ROWS, MOST_CELLS = 20_000, 4_000_000


class RowsSeen:
    """Collects the rows of the first epoch and counts epochs.

    A ``DataLoader`` that is started says itself where an epoch begins. In a loop by index an epoch
    ends where the rows are used up, if their number is known, or else where all rows of a batch
    have been seen before.

    Parameters
    ----------
    n_rows : how many there are, if known
    """

    def __init__(self, n_rows: int | None = None) -> None:
        self.n_rows = n_rows
        self.loader: DataLoader[Any] | None = None
        self.epochs = 0
        self.sizes: list[int] = []  # rows of each batch of the first epoch
        self.shuffle: bool | None = None
        self.last = 1  # rows of the last batch
        self._in_epoch = 0
        self._inputs: list[Any] = []
        self._answers: list[Tensor] = []
        self._keys: set[float] = set()
        self._cells = 0
        self._closed = False
        self._direction: Tensor | None = None

    @property
    def collecting(self) -> bool:
        """Whether rows are still kept."""
        return self._remembering and not self._closed

    @property
    def _remembering(self) -> bool:
        """Whether the first epoch still goes on, and there is room for it."""
        return self.epochs <= 1 and self._in_epoch < MOST_ROWS and self._cells < MOST_CELLS

    def close(self) -> None:
        """Keep no more rows: from here on they would mislead."""
        self._closed = True

    def batch(self, inputs: Any, loader: DataLoader[Any] | None) -> bool:
        """Take note of a batch; whether an epoch begins with it.

        Parameters
        ----------
        inputs : the tensors the model was called with
        loader : the loader that was started since the last batch, or None
        """
        X = _first(inputs)
        if X is None or not X.dim():
            begins, self.epochs = self.epochs == 0, max(self.epochs, 1)
            return begins
        self.last = len(X)
        if loader is not None:
            self.loader, begins = loader, True
        else:
            begins = not self.epochs or (self.loader is None and self._by_rows(X))
        if begins:
            if self.epochs == 1:
                self._end_of_first(X)
            self.epochs += 1
            self._in_epoch = 0
        self._in_epoch += self.last
        if self.epochs == 1:
            self.sizes.append(len(X))
            if self.collecting:
                self._inputs.append(inputs)
                self._cells += X.numel()
            if self._remembering and self.n_rows is None and not self.loader:
                self._keys.update(self._sums(X))
        return begins

    def answers(self, y: Tensor | None) -> None:
        """The targets of the batch that was just taken note of."""
        if y is None or len(self._answers) != len(self._inputs) - 1:
            return
        self._answers.append(y)

    def table(self) -> tuple[Any, Any]:
        """X and y of the first epoch, as the model and the loss saw them; None where unknown."""
        if not self._inputs:
            return None, None
        n = len(self._answers)
        parts = self._inputs[:n] if n else self._inputs
        X = _joined(parts)
        y = _cat(self._answers) if n == len(parts) else None
        if y is not None and _first(X) is not None and len(_first(X)) != len(y):  # type: ignore[arg-type]
            y = None if len(parts) > 1 else y
        return X, y

    @property
    def batch_size(self) -> int | None:
        """Of the loader, or of the first batch."""
        if self.loader is not None and self.loader.batch_size:
            return int(self.loader.batch_size)
        return max(self.sizes) if self.sizes else None

    @property
    def order(self) -> bool | None:
        """Whether the rows come in another order each time; None where nobody knows."""
        sampler = getattr(self.loader, "sampler", None)
        if isinstance(sampler, RandomSampler | WeightedRandomSampler):
            return True
        return False if isinstance(sampler, SequentialSampler) else self.shuffle

    @property
    def drop_last(self) -> bool | None:
        """Whether a last small batch is left out; None where nobody knows."""
        if self.loader is not None:
            return bool(self.loader.drop_last)
        if not self.sizes or self.n_rows is None or self.epochs < 2:
            return None
        return sum(self.sizes) < self.n_rows

    @property
    def sampled(self) -> bool:
        """Whether a sampler weights the rows."""
        return isinstance(getattr(self.loader, "sampler", None), WeightedRandomSampler)

    def _by_rows(self, X: Tensor) -> bool:
        if self.n_rows is not None:
            return self._in_epoch + self.last > self.n_rows
        begun = _first(self._inputs[0])
        # The first batch is kept, so that no other tensor can stand at its place in memory.
        if begun is not None and X.data_ptr() == begun.data_ptr() and X.shape == begun.shape:
            ends = True
        elif self._remembering:
            ends = self._keys.issuperset(self._sums(X))
        else:
            ends = True  # too many to remember: what was seen counts as an epoch
        if ends:
            self.n_rows = self._in_epoch
        return ends

    def _end_of_first(self, X: Tensor) -> None:
        begun = _first(self._inputs[0])
        self.shuffle = begun is None or X.shape != begun.shape or not bool(torch.equal(X, begun))
        self._keys.clear()

    def _sums(self, X: Tensor) -> list[float]:
        """A number for each row that hardly any other row has."""
        flat = X.detach().reshape(len(X), -1).double()
        if self._direction is None or len(self._direction) != flat.shape[1]:
            self._direction = torch.arange(1, flat.shape[1] + 1, device=X.device).double().sqrt()
        return (flat @ self._direction).tolist()


def _first(inputs: Any) -> Tensor | None:
    values: Iterable[Any] = inputs.values() if isinstance(inputs, dict) else inputs
    if isinstance(inputs, Tensor):
        return inputs
    return next((one for one in values if isinstance(one, Tensor)), None)


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: _cat([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple):
        columns = [_cat(list(column)) for column in zip(*parts)]
        return columns[0] if len(columns) == 1 else tuple(columns)
    return _cat(parts)


def _cat(parts: list[Any]) -> Any:
    try:
        return torch.cat([part.detach() for part in parts])
    except (RuntimeError, AttributeError, TypeError):
        return parts[0].detach() if isinstance(parts[0], Tensor) else parts[0]
