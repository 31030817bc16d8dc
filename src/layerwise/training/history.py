"""What happened: one row for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    look : what `findings` asks
    members : of a bag, the history of each network; the bag's own rows have the mean over the
        members that were still training, and its best epoch is the middle one of theirs

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
    members: list[History] = field(default_factory=list)
    look: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def findings(self) -> Any:
        """What the doctor says of this training, looked at when first asked for; None if unknown.

        A list of `layerwise.Finding`, what to mend first at the top. It needs the rows, which a
        history that was saved or copied has no more.
        """
        if not hasattr(self, "_findings"):
            self._findings = None if self.look is None else self.look()
        return self._findings

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "look": None}

    @classmethod
    def of_bag(cls, members: Sequence[History], stopped: str | None = None) -> History:
        """The history of several networks that were trained side by side.

        Parameters
        ----------
        members : of each network, at least one
        stopped : why all ended, if the reason was one for all

        Examples
        --------
        >>> one = History([{"epoch": 1, "train_loss": 0.6}], 1, "patience")
        >>> other = History([{"epoch": 1, "train_loss": 0.4}, {"epoch": 2, "train_loss": 0.1}], 2)
        >>> History.of_bag([one, other])["train_loss"]
        [0.5, 0.1]
        """
        rows = []
        for epoch in range(max(map(len, members))):
            told = [member.rows[epoch] for member in members if epoch < len(member)]
            names = [name for name in told[0] if all(name in row for row in told)]
            rows.append({name: _mean([row[name] for row in told]) for name in names})
        middle = sorted(member.best_epoch for member in members)[(len(members) - 1) // 2]
        reasons = [member.stopped for member in members]
        # The least usual end is what there is to know; patience is the usual one.
        usual = ("patience", "epochs", "time limit")
        telling = max(reasons, key=lambda r: usual.index(r) if r in usual else len(usual))
        engines = [member for member in members if member.engine == "torch"] or members
        layers = [
            {**row, "member": number}
            for number, member in enumerate(members, start=1)
            for row in member.layers
        ]
        return cls(
            rows, middle, stopped or telling, engines[0].engine, engines[0].engine_reason,
            layers, list(members),
        )  # fmt: skip

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


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers; whole numbers that are all alike stay whole."""
    if all(value == values[0] for value in values):
        return values[0]
    return sum(values) / len(values)
