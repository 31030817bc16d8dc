"""Every layer over the epochs of a training, and the weights it ended with. No torch needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from layerwise.insight.frames import frame_of

if TYPE_CHECKING:
    from torch import nn

    from layerwise.insight.displays import LayersDisplay
    from layerwise.model.model import Model
    from layerwise.training.history import History

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class LayerWeights:
    """The weights of a layer at the end; of several networks the mean.

    Attributes
    ----------
    layer, kind : its name, and what it is
    parameters : how many it has
    share : of all parameters
    shape : of its weight matrix, (units, inputs); None if it has none
    spectrum : the matrix's singular values, the largest first
    rank : effective rank, between 1 and the number of singular values: how many directions the
        layer really uses (the exponential of the spectrum's entropy; Roy & Vetterli, 2007)
    """

    layer: str
    kind: str
    parameters: int
    share: float
    shape: tuple[int, int] | None
    spectrum: tuple[float, ...]
    rank: float


@dataclass(frozen=True, repr=False)
class Layers:
    """What each layer did while it was trained; prints as a drawing.

    Attributes
    ----------
    rows : a dict for each layer and epoch that was looked at, with ``epoch``, ``layer``, ``kind``,
        ``member`` (counted from 1; of one network always 1) and what was seen; see `Layers.of`
    weights : a `LayerWeights` for each layer with parameters
    best_epoch : whose weights were kept; 0 where members keep different ones

    Examples
    --------
    >>> rows = [
    ...     {"epoch": 1, "layer": "0", "kind": "Linear", "gradient": 0.5},
    ...     {"epoch": 5, "layer": "0", "kind": "Linear", "gradient": 0.1},
    ... ]
    >>> Layers(tuple(rows)).series("0", "gradient")
    ([1, 5], [0.5, 0.1])
    """

    rows: tuple[Mapping[str, Any], ...]
    weights: tuple[LayerWeights, ...] = ()
    best_epoch: int = 0

    @classmethod
    def of(cls, history: History, network: nn.Module | Model | None = None) -> Layers:
        """The layers of a history, with the weights of the network that was trained.

        A row of `rows` has, from the steps of the epoch that were looked at: of all outputs
        ``mean``, ``deviation`` and ``zeros`` (a share), ``dead`` (share of units that were 0 for
        every row); of activations ``saturated`` (share of outputs where the slope is below 0.01)
        and ``beyond`` (share of inputs beyond ±5); of layers with parameters the norms
        ``gradient`` (before clipping), ``update`` and ``weight``, and ``ratio``, the update over
        the weight.

        Parameters
        ----------
        history : of `layerwise.fit`, or of a run
        network : the module that was trained, or a model

        Examples
        --------
        >>> import torch, layerwise as lw
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(),
        ...                             torch.nn.Linear(8, 1))
        >>> X = torch.rand(200, 3)
        >>> history = lw.fit(model, (X, X.sum(1)[:, None]), "mse", epochs=20)
        >>> layers = Layers.of(history, model)
        >>> layers.names, round(layers.weights[0].share, 2)
        (['0', '1', '2'], 0.78)
        """
        rows = tuple({"member": 1, **row} for row in history.layers)
        kept = {one.best_epoch for one in getattr(history, "members", [])} or {history.best_epoch}
        return cls(rows, tuple(_weights(network)), kept.pop() if len(kept) == 1 else 0)

    @property
    def names(self) -> list[str]:
        """The layers, in their order."""
        return list(self.kinds)

    @property
    def kinds(self) -> dict[str, str]:
        """For each layer what it is, e.g. "Linear"."""
        found = {row["layer"]: row["kind"] for row in self.rows}
        return found or {one.layer: one.kind for one in self.weights}

    @property
    def n_members(self) -> int:
        """How many networks were trained side by side."""
        return len({row.get("member", 1) for row in self.rows})

    @property
    def epochs(self) -> list[int]:
        """Those that were looked at."""
        return sorted({row["epoch"] for row in self.rows})

    def series(self, layer: str, key: str) -> tuple[list[int], list[float]]:
        """Epochs and values of one layer; where there are several networks, their mean."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            if row["layer"] == layer and row.get(key) is not None:
                found.setdefault(row["epoch"], []).append(row[key])
        epochs = sorted(found)
        return epochs, [float(np.mean(found[epoch])) for epoch in epochs]

    def weights_of(self, layer: str) -> LayerWeights | None:
        """The weights a layer ended with; None if it has none, or they were not given."""
        return next((one for one in self.weights if one.layer == layer), None)

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        return frame_of(self.rows)

    def plot(self, ax: Any = None) -> LayersDisplay:
        """Gradients, updates, dead and saturated units over the epochs, with matplotlib."""
        from layerwise.insight.displays import LayersDisplay

        return LayersDisplay(self).plot(ax)

    def __str__(self) -> str:
        from layerwise.insight.layers_drawing import layers_text

        return layers_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from layerwise.insight.layers_drawing import layers_svg

        return layers_svg(self)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "best_epoch": self.best_epoch,
            "members": self.n_members,
            "rows": [dict(row) for row in self.rows],
            "weights": [dict(vars(one)) for one in self.weights],
        }


# ---------------------------------------------------------------- the weights at the end


def _weights(network: Any) -> Iterator[LayerWeights]:
    """Of each layer with parameters, the mean over the networks."""
    members = _arrays(network)
    if not members:
        return
    kinds = _kinds(network)
    owners = {name: _owner(name, kinds) for name in members[0]}
    total = max(sum(array.size for array in members[0].values()), 1)
    order = list(kinds)  # a file has its arrays in another
    for layer in sorted(set(owners.values()), key=order.index):
        own = [name for name, owner in owners.items() if owner == layer]
        size = sum(members[0][name].size for name in own)
        matrix = next((name for name in own if members[0][name].ndim > 1), None)
        shape, spectrum = None, np.zeros(0)
        if matrix is not None:
            matrices = [one[matrix].reshape(len(one[matrix]), -1) for one in members]
            shape = (matrices[0].shape[0], matrices[0].shape[1])
            spectrum = np.mean([_spectrum(one) for one in matrices], axis=0)
        yield LayerWeights(
            layer, kinds.get(layer, ""), size, size / total, shape, tuple(spectrum.tolist()),
            _effective_rank(spectrum),
        )  # fmt: skip


def _arrays(network: Any) -> list[dict[str, np.ndarray]]:
    """The parameters of each member as arrays, by name."""
    if network is None:
        return []
    if hasattr(network, "members"):
        return [
            {name: a for name, a in one.items() if name.rpartition(".")[2] not in BUFFERS}
            for one in network.members
        ]
    named = network.named_parameters()
    return [{name: p.detach().float().cpu().numpy() for name, p in named}]


def _kinds(network: Any) -> dict[str, str]:
    if hasattr(network, "plan"):
        return {str(i): layer["type"] for i, layer in zip(count(), network.plan)}
    return {name: type(module).__name__ for name, module in network.named_modules()}


def _owner(name: str, kinds: Mapping[str, str]) -> str:
    """The layer of a parameter; an input layer has its tables inside it."""
    place = name.rpartition(".")[0]
    while place and (place not in kinds or kinds.get(place.partition(".")[0]) == "InputLayer"):
        if kinds.get(place) == "InputLayer":
            break
        place = place.rpartition(".")[0]
    return place


def _spectrum(matrix: np.ndarray) -> np.ndarray:
    """The singular values; zeros where the weights are not finite."""
    if not np.all(np.isfinite(matrix)) or not matrix.size:
        return np.zeros(min(matrix.shape))
    with threadpool_limits(1):  # threads would wait for each other longer than they work
        return np.asarray(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))


def _effective_rank(spectrum: Sequence[float] | np.ndarray) -> float:
    """The exponential of the entropy of the singular values taken as shares of their sum."""
    values = np.asarray(spectrum, dtype=np.float64)
    if not values.sum() > 0:
        return 0.0
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
