"""What each layer does while it is trained: a row for each layer, now and then, at little cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from layerwise.engine.choose import Engine
from layerwise.engine.seen import (
    ACTIVATIONS,
    LayerSeen,
    ParameterSeen,
    layer_names,
    parameter_names,
)

ROWS = 256  # at least so many are looked at together: of fewer, many a unit only seems dead
EVERY = {"native": 10, "torch": 50}  # of so many steps one is looked at; hooks of torch cost more
FIRST = 3  # the first epochs are looked at in any case: most happens there


class Recorder:
    """Has the engine look at some steps of some epochs, and makes rows of what it saw.

    One step in ten (with torch's loop, in fifty) is looked at, in the first three epochs more.
    Those looks come together: in small tables some epochs are seen whole, and the others not at
    all, so that a unit counts as dead only if enough rows leave it silent. Which epochs these are
    depends on the number of rows and the size of a batch alone.

    Parameters
    ----------
    network : that is trained
    engine : that trains it
    n_rows, batch_size : of an epoch; where a loader cannot tell, as if it were a large one
    """

    def __init__(
        self, network: nn.Module, engine: Engine, n_rows: int | None, batch_size: int
    ) -> None:
        self.engine = engine
        modules = dict(network.named_modules(remove_duplicate=False))
        self.names = layer_names(network)
        self.kinds = {name: modules[name] for name in self.names}
        self.owners = [name.rpartition(".")[0] for name in parameter_names(network)]
        self.owners = [_layer_of(owner, self.names) for owner in self.owners]
        self.kinds |= {owner: modules[owner] for owner in self.owners}
        compiled = any(type(one).__name__ == "OptimizedModule" for one in network.modules())
        self.possible = not compiled  # what torch.compile made has no place for hooks
        self.step, self.epochs = spacing(n_rows, batch_size, EVERY.get(engine.name, 50))

    def begin(self, epoch: int) -> None:
        """Look at this epoch (counted from 1), or leave it alone."""
        self.looks = self.possible and (epoch <= FIRST or epoch % self.epochs == 0)
        self.engine.watch(self.step if self.looks else 0)

    def rows(self, epoch: int) -> list[dict[str, Any]]:
        """A row for each layer, if the epoch was looked at.

        Keys are ``epoch``, ``layer`` (its name) and ``kind``; of the outputs ``mean``,
        ``deviation``, ``zeros`` and ``dead``; of an activation also ``saturated`` and ``beyond``;
        of a layer with parameters ``gradient``, ``update`` and ``weight`` (norms over all of them)
        and ``ratio``, the update over the weight.
        """
        if not self.looks:
            return []
        layers, parameters = self.engine.seen()
        norms: dict[str, list[ParameterSeen]] = {}
        for owner, norm in zip(self.owners, parameters):
            if norm is not None:
                norms.setdefault(owner, []).append(norm)
        found: dict[str, dict[str, Any]] = {}
        for name, seen in zip(self.names, layers):
            if seen is not None:
                found[name] = _outputs(seen, isinstance(self.kinds[name], ACTIVATIONS))
        for owner, some in norms.items():
            found.setdefault(owner, {}).update(_norms(some))
        return [
            {"epoch": epoch, "layer": name, "kind": type(self.kinds[name]).__name__,
             **{key: _short(value) for key, value in row.items()}}
            for name, row in found.items()
        ]  # fmt: skip


def spacing(n_rows: int | None, batch_size: int, every: int) -> tuple[int, int]:
    """Which steps of an epoch are looked at, and which epochs: every so manieth.

    Examples
    --------
    >>> spacing(100_000, 100, 20)  # one step in 20, of every epoch
    (20, 1)
    >>> spacing(150, 15, 20)  # all steps, of one epoch in 20
    (1, 20)
    >>> spacing(4000, 100, 20)  # 4 of 40 steps, which have more than 256 rows, in one epoch of 2
    (13, 2)
    """
    if n_rows is None:
        return every, 1
    steps = max(math.ceil(n_rows / batch_size), 1)
    wanted = math.ceil(min(n_rows, ROWS) / batch_size)
    if steps >= every * wanted:
        return every, 1
    step = max(steps // wanted, 1)
    return step, max(round(every * math.ceil(steps / step) / steps), 1)


def _layer_of(owner: str, names: list[str]) -> str:
    """The layer a parameter belongs to: the one it is in, or the module around that holds it."""
    return next((name for name in names if f"{owner}.".startswith(f"{name}.")), owner)


def _outputs(seen: LayerSeen, activation: bool) -> dict[str, float]:
    row = {"mean": seen.mean, "deviation": seen.deviation, "zeros": seen.zeros, "dead": seen.dead}
    return row | ({"saturated": seen.saturated, "beyond": seen.beyond} if activation else {})


def _norms(some: list[ParameterSeen]) -> Mapping[str, float]:
    gradient, update, weight = (
        math.sqrt(sum(getattr(one, name) ** 2 for one in some))
        for name in ("gradient", "update", "weight")
    )
    ratio = update / weight if weight else math.inf if update else 0.0
    return {"gradient": gradient, "update": update, "weight": weight, "ratio": ratio}


def _short(value: float) -> float:
    """Five digits: rows are many, and go into files."""
    return float(f"{value:.5g}")
