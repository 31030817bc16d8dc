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
    Seen,
    layer_names,
    parameter_names,
)

ROWS = 256  # at least so many are looked at together: of fewer, many a unit only seems dead
LARGE = 1000  # steps of an epoch whose loader does not tell
COST = 0.04  # of the time at most goes into looking
LOOK = {"native": 0.4, "torch": 2.2}  # what a look at a step costs, in steps; measured
RECORD = {"native": 2e6, "torch": 5e7}  # a record, in products of weights and rows
FIRST = 5  # the first epochs are looked at in any case: most happens there


class Recorder:
    """Has the engine look at some steps of some epochs, and makes rows of what it saw.

    All this takes about a twenty-fifth of the time. In small tables some epochs are therefore seen
    whole and the others not at all, so that a unit counts as dead only if enough rows leave it
    silent; the first five epochs are seen in any case. Which epochs these are depends on the
    engine, the number of rows and the size of a batch alone.

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
        products = batch_size * max(sum(p.numel() for p in network.parameters()), 1)
        self.step, self.epochs = spacing(
            n_rows, batch_size, LOOK[engine.name], RECORD[engine.name] / products
        )

    def every(self, epoch: int) -> int:
        """At how manieth steps of this epoch (counted from 1) to look; 0 leaves it alone."""
        looks = self.possible and (epoch <= FIRST or epoch % self.epochs == 0)
        return self.step if looks else 0

    def begin(self, epoch: int) -> None:
        """Look at this epoch, or leave it alone."""
        self.engine.watch(self.every(epoch))

    def rows(self, epoch: int, seen: Seen | None = None) -> list[dict[str, Any]]:
        """A row for each layer, if the epoch was looked at; ``seen`` is asked for if not given.

        Keys are ``epoch``, ``layer`` (its name) and ``kind``; of the outputs ``mean``,
        ``deviation``, ``zeros`` and ``dead``; of an activation also ``saturated`` and ``beyond``;
        of a layer with parameters ``gradient``, ``update`` and ``weight`` (norms over all of them)
        and ``ratio``, the update over the weight.
        """
        if not self.every(epoch):
            return []
        layers, parameters = seen or self.engine.seen()
        norms: dict[str, list[ParameterSeen]] = {}
        for owner, norm in zip(self.owners, parameters):
            if norm is not None:
                norms.setdefault(owner, []).append(norm)
        found: dict[str, dict[str, Any]] = {}
        for name, layer in zip(self.names, layers):
            if layer is not None:
                found[name] = _outputs(layer, isinstance(self.kinds[name], ACTIVATIONS))
        for owner, some in norms.items():
            found.setdefault(owner, {}).update(_norms(some))
        # Five digits: rows are many, and go into files. All at once, since one by one takes longer.
        values = [value for row in found.values() for value in row.values()]
        short = map(float, ("%.5g " * len(values) % tuple(values)).split())
        return [
            {"epoch": epoch, "layer": name, "kind": type(self.kinds[name]).__name__,
             **dict(zip(row, short))}
            for name, row in found.items()
        ]  # fmt: skip


def spacing(n_rows: int | None, batch_size: int, look: float, record: float) -> tuple[int, int]:
    """Which steps of an epoch are looked at, and which epochs: every so manieth of both.

    Parameters
    ----------
    n_rows, batch_size : of an epoch
    look, record : what a look and a record cost, in steps. What an epoch takes beside its steps is
        about a record's cost, which is at most 15 steps

    Examples
    --------
    >>> spacing(100_000, 100, 0.5, 10)  # one step in 25, of every epoch
    (25, 1)
    >>> spacing(150, 15, 0.5, 10)  # all steps, of one epoch in 19
    (1, 19)
    """
    steps = math.ceil(LARGE if n_rows is None else n_rows / batch_size) or 1
    enough = math.ceil(ROWS / batch_size)
    step = max(steps // max(enough, int(steps * COST / 2 / look)), 1)
    record = min(record, 15.0)
    cost = look * math.ceil(steps / step) + record
    return step, max(math.ceil(cost / (COST * (steps + record))), 1)


def _layer_of(owner: str, names: list[str]) -> str:
    """The layer a parameter belongs to: the one it is in, or the module around that holds it."""
    return next((name for name in names if f"{owner}.".startswith(f"{name}.")), owner)


def _outputs(seen: LayerSeen, activation: bool) -> dict[str, float]:
    row = {"mean": seen.mean, "deviation": seen.deviation, "zeros": seen.zeros, "dead": seen.dead}
    return row | ({"saturated": seen.saturated, "beyond": seen.beyond} if activation else {})


def _norms(some: list[ParameterSeen]) -> Mapping[str, float]:
    gradient, update, weight = (
        math.hypot(*(getattr(one, name) for one in some))
        for name in ("gradient", "update", "weight")
    )
    ratio = update / weight if weight else math.inf if update else 0.0
    return {"gradient": gradient, "update": update, "weight": weight, "ratio": ratio}
