"""All that a training is at the end of an epoch, so that a killed run goes on to the same bytes."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerwise import storage
from layerwise.engine.bare import bare_state
from layerwise.training.history import History

EVERY_S = 1.0  # epochs of small networks take milliseconds; flushing the disk takes longer


@dataclass
class State:
    """The values that change while training, apart from the network and the optimizer."""

    epoch: int = 0
    step: int = 0
    best_value: float = float("inf")
    best_epoch: int = 0
    elapsed_s: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def copy_state(network: nn.Module) -> dict[str, Any]:
    """All weights, buffers and other state of the network, as copies."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
        for name, value in network.state_dict().items()
    }


class Checkpoint:
    """Writes the state of a training to one file after an epoch, at most once a second."""

    def __init__(self, path: str | Path, *, keeps_end: bool = False) -> None:
        self.path = Path(path)
        self.keeps_end = keeps_end
        self._written = -float("inf")

    @property
    def due(self) -> bool:
        """Whether the last one is old enough to be written anew."""
        return time.monotonic() - self._written >= EVERY_S

    def save(
        self,
        state: State,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        generators: dict[str, torch.Generator],
    ) -> None:
        """Write the state."""
        arrays: dict[str, np.ndarray] = {}
        plain = {
            "epoch": state.epoch,
            "step": state.step,
            "best_value": state.best_value,
            "best_epoch": state.best_epoch,
            "elapsed_s": state.elapsed_s,
            "rows": state.rows,
            "layers": state.layers,
            "network": _plain(network.state_dict(), "network", arrays),
            "best": _plain(state.best, "best", arrays),
            "optimizer": _plain(bare_state(optimizer), "optimizer", arrays),
            "generators": _plain(
                {name: one.get_state() for name, one in generators.items()}, "generators", arrays
            ),
        }
        storage.write_whole(self.path, storage.pack(arrays, {"checkpoint": plain}))
        self._written = time.monotonic()

    def load(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        generators: dict[str, torch.Generator],
    ) -> State:
        """Put network, optimizer and generators back, and return the rest; fresh if no file is."""
        if not self.path.exists():
            return State()
        arrays, header = storage.unpack(self.path, "checkpoint")
        plain = header["checkpoint"]
        network.load_state_dict(_tensors(plain["network"], arrays))
        _put_back(optimizer, _tensors(plain["optimizer"], arrays))
        for name, state in _tensors(plain["generators"], arrays).items():
            generators[name].set_state(state)
        keys = ("epoch", "step", "best_value", "best_epoch", "elapsed_s", "rows")
        best = _tensors(plain["best"], arrays)
        return State(best=best, layers=plain.get("layers", []), **{key: plain[key] for key in keys})

    def of_member(self, number: int) -> Checkpoint:
        """The checkpoint of one of several networks, counted from 1, beside this one."""
        path = self.path
        return Checkpoint(path.with_name(f"{path.stem}-{number}{path.suffix}"), keeps_end=True)

    def end(self, history: History, network: nn.Module) -> None:
        """Write the outcome in place of the state: this network is not to be trained again."""
        arrays: dict[str, np.ndarray] = {}
        told = {f.name: getattr(history, f.name) for f in fields(history) if f.name != "members"}
        plain = {"history": told, "network": _plain(network.state_dict(), "network", arrays)}
        storage.write_whole(self.path, storage.pack(arrays, {"ended": plain}))

    def ended(self, network: nn.Module) -> History | None:
        """Put the network's best weights back if its training has ended; None if it has not."""
        if not self.path.exists():
            return None
        arrays, header = storage.unpack(self.path, "checkpoint")
        if "ended" not in header:
            return None
        network.load_state_dict(_tensors(header["ended"]["network"], arrays))
        network.eval()
        return History(**header["ended"]["history"])

    def remove(self) -> None:
        """The training is complete: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)


def _put_back(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the optimizer's state, each tensor in the precision it had."""
    optimizer.load_state_dict(saved)  # casts to the precision of the parameters
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, state in saved["state"].items():
        loaded = optimizer.state[parameters[i]]
        for name, value in state.items():
            if isinstance(value, Tensor):
                loaded[name] = value.to(loaded[name].device)


def _plain(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Nested dicts and lists with tensors put aside under their path."""
    if isinstance(value, Tensor):
        arrays[name] = value.detach().cpu().numpy()
        return {"array": name}
    if isinstance(value, dict):
        return {"items": [[k, _plain(v, f"{name}.{k}", arrays)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_plain(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    return {"value": value}


def _tensors(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """What `_plain` was given."""
    if "array" in plain:
        return torch.tensor(arrays[plain["array"]])
    if "items" in plain:
        return {key: _tensors(value, arrays) for key, value in plain["items"]}
    if "list" in plain:
        return [_tensors(value, arrays) for value in plain["list"]]
    return plain["value"]
