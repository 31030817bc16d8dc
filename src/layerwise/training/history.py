"""What happened: one row for each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload


@dataclass
class History:
    """The rows of a training, indexable by epoch, by name, or by both.

    Attributes
    ----------
    rows : one for each epoch
    best_epoch : whose weights were kept, counted from 1
    stopped : why it ended
    engine : "native" or "torch", which computed it
    engine_reason : where it was torch, why not the native core
    layers : a row for each layer and epoch that was looked at, see
        `layerwise.training.layers.Recorder.rows`

    Examples
    --------
    >>> history = History([{"epoch": 1, "train_loss": 0.7}, {"epoch": 2, "train_loss": 0.5}])
    >>> history[-1]["train_loss"], history["train_loss"], history[0, "epoch"]
    (0.5, [0.7, 0.5], 1)
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""
    engine: str = "torch"
    engine_reason: str = ""
    layers: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    @overload
    def __getitem__(self, key: tuple[int, str]) -> Any: ...
    def __getitem__(self, key: int | str | tuple[int, str]) -> Any:
        if isinstance(key, tuple):
            return self.rows[key[0]][key[1]]
        return self.rows[key] if isinstance(key, int) else [row[key] for row in self.rows]

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch whose weights were kept."""
        return self.rows[self.best_epoch - 1]
