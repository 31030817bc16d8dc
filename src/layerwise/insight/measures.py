"""What is measured of a layer: its values, how flat its activation is, sizes of gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

N_BINS = 24
FLAT = 0.025  # of the largest slope: a sigmoid beyond ±5, a tanh beyond ±2.5


@dataclass(frozen=True)
class Values:
    """What a layer gave: least, mean, greatest, and so on, of its finite values.

    Attributes
    ----------
    minimum, mean, maximum, std : nan where no value is finite; std is that of the values at hand
    zeros : share of exact zeros
    not_finite : share of NaN and infinities
    counts : histogram of the finite values other than 0, in bins of one width from low to high
    low, high : the outer edges of the histogram
    """

    minimum: float
    mean: float
    maximum: float
    std: float
    zeros: float
    not_finite: float
    counts: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Size:
    """How large a gradient is: its norm, and the root of the mean of its entries' squares."""

    norm: float
    rms: float


def numbers(tensor: Tensor) -> Tensor:
    """A tensor in float64, so that sums are right whatever the precision of the pass."""
    tensor = tensor.detach().abs() if tensor.is_complex() else tensor.detach()
    return tensor.double() if tensor.dim() else tensor.double()[None]


def values_of(flat: Tensor) -> Values:
    """Least, mean, greatest and so on of a float64 tensor of shape (n,)."""
    n = max(len(flat), 1)
    finite = flat[torch.isfinite(flat)]
    other = finite[finite != 0]
    zeros, not_finite = (len(finite) - len(other)) / n, (len(flat) - len(finite)) / n
    low, high = (float(other.min()), float(other.max())) if len(other) else (0.0, 0.0)
    counts = _histogram(other, low, high)
    if not len(finite):
        nan = math.nan
        return Values(nan, nan, nan, nan, zeros, not_finite, counts, low, high)
    return Values(
        float(finite.min()), float(finite.mean()), float(finite.max()),
        float(finite.std(correction=0)), zeros, not_finite, counts, low, high,
    )  # fmt: skip


def _histogram(values: Tensor, low: float, high: float) -> tuple[int, ...]:
    if not len(values):
        return (0,) * N_BINS
    if not high - low > 0 or not math.isfinite(high - low):  # alike, or as far apart as can be
        return (0,) * (N_BINS // 2) + (len(values),) + (0,) * (N_BINS - N_BINS // 2 - 1)
    places = ((values - low) / (high - low) * N_BINS).long().clamp(0, N_BINS - 1)
    return tuple(torch.bincount(places, minlength=N_BINS).tolist())


def squares(gradient: Tensor) -> tuple[float, int]:
    """Sum of squares, and of how many entries."""
    return float(numbers(gradient).square().sum()), gradient.numel()


def joined(parts: Iterable[tuple[float, int]]) -> Size | None:
    """The size of several tensors taken as one; None of none."""
    parts = list(parts)
    total, n = sum(one for one, _ in parts), sum(size for _, size in parts)
    return Size(math.sqrt(total), math.sqrt(total / n)) if n else None


# ---------------------------------------------------------------- saturation

_FLATTENING = (
    nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.LogSigmoid, nn.ELU, nn.SELU,
    nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus,
)  # fmt: skip


def saturated_share(module: nn.Module, inputs: tuple[Tensor, ...]) -> float | None:
    """Share of values at which an activation is flat, so that hardly any gradient comes through.

    Flat is where the slope, computed by autograd, is below 2.5 % of the largest the function has:
    for a sigmoid beyond ±5, the limit that DeepDiagnosis (Wardat et al., 2022) takes; for a tanh
    beyond ±2.5; for ELU, GELU, SiLU and their kin on the far negative side; for Hardtanh beyond
    its limits; for ReLU6 above 6, since its zeros are counted as zeros. For softmax it is the
    share of rows whose largest probability p is so near 1 that p(1 - p) is below 2.5 % of its
    largest, 1/4. None for ReLU and leaky ReLU, which have no such end, and for all other layers.

    Examples
    --------
    >>> saturated_share(nn.Sigmoid(), (torch.tensor([-9.0, 0.0, 2.0, 7.0]),))
    0.5
    >>> saturated_share(nn.ReLU(), (torch.ones(3),)) is None
    True
    """
    if not inputs or not inputs[0].is_floating_point() or not inputs[0].numel():
        return None
    x = inputs[0].detach()
    if isinstance(module, nn.Softmax | nn.LogSoftmax):
        dim = module.dim if module.dim is not None else -1
        p = x.double().softmax(dim).amax(dim)
        return _share(p * (1 - p) < FLAT / 4)
    if isinstance(module, nn.ReLU6):
        return _share(x >= 6)
    if not isinstance(module, _FLATTENING):
        return None
    return _share(_slope(module, x) < FLAT * _steepest(module))


def _share(true: Tensor) -> float:
    return float(true.double().mean())


@torch.enable_grad()
def _slope(module: nn.Module, x: Tensor) -> Tensor:
    """Size of the derivative at each value; a copy does it, so that no hook sees it."""
    x = x.double().requires_grad_()
    return torch.autograd.grad(_plain(module)(x).sum(), x)[0].abs()


def _plain(module: nn.Module) -> Callable[[Tensor], Tensor]:
    bare = copy.copy(module)
    if hasattr(bare, "inplace"):
        bare.inplace = False  # type: ignore[assignment]
    return bare.forward


def _steepest(module: nn.Module) -> float:
    grid = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    return float(_slope(module, grid).max())
