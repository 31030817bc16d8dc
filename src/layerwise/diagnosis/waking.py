"""Moving the weights of the doctor's own copy, to see what is hidden where they start."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from layerwise.diagnosis.copying import random_states_kept
from layerwise.engine.torch import call

if TYPE_CHECKING:
    from layerwise.diagnosis.first_batch import FirstBatch


def gradients_after(seen: FirstBatch, steps: int) -> dict[str, Tensor | None]:
    """The gradients after some steps of gradient descent; empty where that fails.

    The weights of the copy are put back.
    """
    named = {name: p for name, p in seen.model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in named.items()}
    found: dict[str, Tensor | None] = {}
    with random_states_kept(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for _ in range(steps + 1):
                value = seen.loss(call(seen.model, seen.X), seen.y)
                total = value if value.dim() == 0 else value.mean()
                given = torch.autograd.grad(total, list(named.values()), allow_unused=True)
                found = dict(zip(named, given))
                with torch.no_grad():
                    for name, gradient in found.items():
                        size = 0.0 if gradient is None else float(gradient.norm())
                        if gradient is not None and size > 0:
                            named[name].sub_(gradient * (0.01 / size))
        except Exception:
            return {}
        finally:
            with torch.no_grad():
                for name, p in named.items():
                    p.copy_(before[name])
    return found


@contextlib.contextmanager
def moved_a_little(model: nn.Module) -> Iterator[None]:
    """Weights as after some training: those that start at zero are none any more."""
    generator = torch.Generator().manual_seed(0)
    before = [(p, p.detach().clone()) for p in model.parameters() if p.is_floating_point()]
    try:
        with torch.no_grad():
            for p, value in before:
                noise = torch.randn(p.shape, generator=generator).to(p)
                p.add_(noise * max(float(value.std(correction=0)), 0.1))
        yield
    finally:
        with torch.no_grad():
            for p, value in before:
                p.copy_(value)
