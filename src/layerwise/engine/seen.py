"""What a training looks like from inside: outputs of layers, gradients, updates; and torch's way.

Both engines have ``watch(every)`` and ``seen()``. The native core gathers the numbers itself; here
are their names, and the hooks that gather them from torch.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# The activations of torch that work on each number by itself and have a slope.
ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh,
    nn.Sigmoid, nn.Hardtanh, nn.CELU, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Softsign,
    nn.Tanhshrink,
)  # fmt: skip
FLAT, FAR = 0.01, 5.0  # a slope that hardly answers; an input far from 0


@dataclass(frozen=True)
class LayerSeen:
    """The outputs of a layer over the rows of the steps that were looked at.

    Attributes
    ----------
    mean, deviation : of all outputs
    zeros : share of exact zeros
    saturated : of an activation, the share of outputs where its slope is below 0.01
    beyond : of an activation, the share of its inputs (pre-activations) beyond 5 and -5
    dead : share of the units (columns) that were 0 for every row

    Layers that are no activation have 0 for ``saturated`` and ``beyond``.
    """

    mean: float
    deviation: float
    zeros: float
    saturated: float
    beyond: float
    dead: float


@dataclass(frozen=True)
class ParameterSeen:
    """Norms of a parameter, root mean squares over the steps that were looked at.

    Attributes
    ----------
    gradient : before clipping
    update : what the step added to the parameter
    weight : the parameter itself, before the step
    """

    gradient: float
    update: float
    weight: float


Seen = tuple[list[LayerSeen | None], list[ParameterSeen | None]]


@dataclass
class LayerSums:
    """The core's sums for one layer; see `LayerSeen`."""

    outputs: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    zeros: float = 0.0
    saturated: float = 0.0
    beyond: float = 0.0
    units: float = 0.0
    dead: float = 0.0

    def seen(self) -> LayerSeen | None:
        """As shares and moments; None if nothing was looked at."""
        n = self.outputs
        if not n:
            return None
        mean = self.total / n
        spread = self.squares / n - mean * mean
        # rounding may make it negative; NaN stays NaN
        deviation = math.sqrt(0.0 if spread < 0 else spread)
        shares = self.zeros / n, self.saturated / n, self.beyond / n
        return LayerSeen(mean, deviation, *shares, self.dead / self.units)


@dataclass
class ParameterSums:
    """The core's sums of squared norms for one parameter; see `ParameterSeen`."""

    steps: float = 0.0
    gradient: float = 0.0
    update: float = 0.0
    weight: float = 0.0

    def seen(self) -> ParameterSeen | None:
        """As norms; None if nothing was looked at."""
        if not self.steps:
            return None
        each = (self.gradient, self.update, self.weight)
        return ParameterSeen(*(math.sqrt(one / self.steps) for one in each))


def seen_of(layers: Sequence[LayerSums], parameters: Sequence[ParameterSums]) -> Seen:
    """What the sums say."""
    return [one.seen() for one in layers], [one.seen() for one in parameters]


def layer_names(network: nn.Module) -> list[str]:
    """The names of the layers in the order in which ``seen()`` has them.

    These are the innermost modules, and the input layer as one, in the order in which they are
    registered; one that an ``nn.Sequential`` has twice is there twice.

    Examples
    --------
    >>> layer_names(nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1))))
    ['0', '1.0', '1.1']
    """
    return [name for name, _ in _layers(network, "")]


def parameter_names(network: nn.Module) -> list[str]:
    """The names of the parameters in the order in which ``seen()`` has them."""
    return [name for name, _ in network.named_parameters()]


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    # not named_children, which leaves out a module that it has given before
    children = {key: child for key, child in module._modules.items() if child is not None}
    if not children or type(module).__module__ == "layerwise.network.layers":
        yield name, module
        return
    for key, child in children.items():
        yield from _layers(child, f"{name}.{key}" if name else key)


class Watch:
    """Looks at some steps of torch's loop by hooks that are there only while it looks.

    A module that is called several times in a step is at as many places of the network as it is
    registered at; calls beyond those count for the last one.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.active = False  # while hooks are set
        self.start(0)

    def start(self, every: int) -> None:
        """Look at the first step of each epoch and every so manieth after it; 0 for none."""
        if every < 0:
            raise ValueError("every so many steps has to be at least 0")
        self.every = every
        self._forget()

    def at(self, step: int) -> bool:
        """Whether this step of an epoch is one to look at."""
        return self.every > 0 and step % self.every == 0

    def seen(self) -> Seen:
        """What was seen since it was last asked."""
        for sums, alive in zip(self._layers, self._alive):
            if alive is not None:
                sums.units, sums.dead = alive.numel(), alive.numel() - int(alive.sum())
        found = seen_of(self._layers, self._parameters)
        self._forget()
        return found

    def _forget(self) -> None:
        self._places = defaultdict(list)
        for place, (_, module) in enumerate(_layers(self.network, "")):
            self._places[module].append(place)
        n_layers = sum(map(len, self._places.values()))
        self._layers = [LayerSums() for _ in range(n_layers)]
        self._alive: list[Tensor | None] = [None] * n_layers
        self._parameters = [ParameterSums() for _ in self.network.parameters()]

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """The forward and backward pass of a step that is looked at."""
        self._outputs: list[tuple[int, Tensor, Tensor]] = []
        handles = []
        for module, places in self._places.items():
            call = _Call(places, isinstance(module, ACTIVATIONS), self._outputs)
            handles.append(module.register_forward_pre_hook(call.before))
            handles.append(module.register_forward_hook(call.after))
        self.active = True
        try:
            yield
        finally:
            self.active = False
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def gradients(self) -> None:
        """The gradients as they are now."""
        self._gradients = [_squares(p.grad) for p in self.network.parameters()]

    @torch.no_grad()
    def before_update(self) -> None:
        """Keep what the passes showed, and the parameters as they are."""
        for place, sums, alive in self._outputs:
            known, one = self._alive[place], self._layers[place]
            same = known is not None and known.shape == alive.shape
            self._alive[place] = known | alive if same else alive  # type: ignore[operator]
            for name, value in zip(SUMS, sums.tolist()):
                setattr(one, name, getattr(one, name) + value)
        self._before = [p.detach().clone() for p in self.network.parameters()]

    @torch.no_grad()
    def after_update(self) -> None:
        """How far the step has moved the parameters."""
        moved = zip(self._parameters, self._gradients, self.network.parameters(), self._before)
        for one, gradient, p, before in moved:
            one.steps += 1
            one.gradient += gradient
            one.update += _squares(p - before)
            one.weight += _squares(before)


SUMS = ("outputs", "total", "squares", "zeros", "saturated", "beyond")


class _Call:
    """The hooks of one module for one step: its inputs if it is an activation, and its outputs."""

    def __init__(
        self, places: list[int], activation: bool, found: list[tuple[int, Tensor, Tensor]]
    ) -> None:
        self.places, self.activation, self.found = places, activation, found
        self.calls = 0
        self.x: Tensor | None = None

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.activation:  # a copy, since it may work in place
            self.x = inputs[0].detach().clone()

    @torch.no_grad()
    def after(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        y = outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs
        if not isinstance(y, Tensor) or not y.is_floating_point() or not y.dim() or not y.numel():
            return
        place = self.places[min(self.calls, len(self.places) - 1)]
        self.calls += 1
        wide = torch.float32 if y.device.type == "mps" else torch.float64
        y = y.detach().to(wide)
        flat = beyond = y.new_zeros(())
        if self.x is not None:
            flat = (_slope(module, self.x).abs() < FLAT).sum().to(wide)
            beyond = (self.x.abs() > FAR).sum().to(wide)
        sums = (y.sum(), (y * y).sum(), (y == 0).sum().to(wide), flat, beyond)
        self.found.append((place, torch.stack([y.new_tensor(y.numel()), *sums]), _alive(y)))


def _alive(y: Tensor) -> Tensor:
    """Which units are not 0 for every row; units are the columns, of images the channels."""
    rows = y if y.dim() == 1 else y.movedim(1 if y.dim() > 3 else -1, -1).flatten(0, -2)
    return (rows != 0).any(dim=0)


@torch.enable_grad()
def _slope(module: Any, x: Tensor) -> Tensor:
    """The activation's slope at each of its inputs."""
    x = x.requires_grad_()
    return torch.autograd.grad(module.forward(x.clone()).sum(), x)[0]


def _squares(values: Tensor | None) -> float:
    norm = 0.0 if values is None else float(values.norm())
    return norm * norm  # infinite where ** would raise
