"""Noting calls of torch's functions while they are made: of losses, of products, of dropout."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOSSES = (
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "kl_div",
)  # fmt: skip
_PRODUCTS = frozenset(("linear", "matmul", "__matmul__", "mm", "addmm"))


@dataclass(eq=False)
class LossCall:
    """One call of a loss of ``torch.nn.functional``.

    Attributes
    ----------
    kind : its name there
    outputs, target : what it compares
    options : its other arguments by name
    """

    kind: str
    outputs: Tensor
    target: Tensor
    options: dict[str, Any] = field(default_factory=dict)


@cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(getattr(F, name))


class LossCalls(TorchFunctionMode):
    """Notes, while active, the losses that are computed, and whether (N, 1) meets (N,).

    Attributes
    ----------
    calls : of the losses in order; one that fails is the last
    stretched : the shapes of the first pair (N, 1) and (N,) that became (N, N), or None
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LossCall] = []
        self.stretched: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function and look at what it compares."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in LOSSES and getattr(func, "__module__", "") == "torch.nn.functional":
            given = _signature(name).bind(*args, **kwargs)
            given.apply_defaults()
            options = dict(given.arguments)
            outputs, target = options.pop("input"), options.pop("target")
            self.calls.append(LossCall(name, outputs, target, options))
        result = func(*args, **kwargs)
        sizes = [tuple(one.shape) for one in args if isinstance(one, Tensor)]
        if isinstance(result, Tensor) and len(sizes) == 2 and self.stretched is None:
            n = result.shape[0] if result.dim() == 2 else 0
            if n > 1 and result.shape == (n, n) and sorted(sizes, key=len) == [(n,), (n, 1)]:
                self.stretched = (sizes[0], sizes[1])
        return result


class ForwardCalls(TorchFunctionMode):
    """Notes, while active, what the first linear map is given and every use of dropout.

    Attributes
    ----------
    entry : the values that the first product with weights of the model gets
    dropout : (rate, whether it drops) of each call of a dropout function
    dropped : rate and result of the last call that drops, or None
    """

    def __init__(self) -> None:
        super().__init__()
        self.entry: Tensor | None = None
        self.dropout: list[tuple[float, bool]] = []
        self.dropped: tuple[float, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function and look at what it is given."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _PRODUCTS and self.entry is None:
            tensors = [one for one in args if isinstance(one, Tensor)]
            if name == "addmm":
                tensors = tensors[1:]
            if len(tensors) > 1 and tensors[1].requires_grad | tensors[0].is_floating_point():
                self.entry = tensors[0].detach().clone()
        elif name in ("dropout", "alpha_dropout") and func in (F.dropout, F.alpha_dropout):
            given = _signature(name).bind(*args, **kwargs)
            given.apply_defaults()
            p, drops = float(given.arguments["p"]), bool(given.arguments["training"])
            self.dropout.append((p, drops))
            result = func(*args, **kwargs)
            if drops and p > 0:
                self.dropped = p, result
            return result
        return func(*args, **kwargs)


def recognised(value: Tensor, outputs: Tensor, y: Tensor) -> Iterator[LossCall]:
    """A loss of torch that a function of the user's own computes by hand, told by its value."""
    if value.dim() or not outputs.is_floating_point() or outputs.dim() == 0 or len(outputs) < 2:
        return
    with torch.no_grad():
        for kind in ("mse_loss", "l1_loss", "cross_entropy", "binary_cross_entropy_with_logits"):
            try:
                if kind.endswith("s") and "entropy" not in kind and outputs.shape != y.shape:
                    continue
                same = getattr(F, kind)(outputs.detach(), y)
            except (RuntimeError, ValueError, IndexError, TypeError):
                continue
            if torch.allclose(same.double(), value.detach().double(), rtol=1e-5, atol=1e-9):
                yield LossCall(kind, outputs, y)
                return
