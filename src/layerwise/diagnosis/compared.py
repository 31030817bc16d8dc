"""What a loss compares, of all rows there are."""

from __future__ import annotations

import torch
from torch import Tensor

from layerwise.diagnosis.calls import LossCall
from layerwise.diagnosis.first_batch import FirstBatch


def targets_of(seen: FirstBatch, call: LossCall) -> Tensor:
    """All targets there are, if the loss compares them as they are; else those of the call."""
    y = seen.case.y
    if isinstance(y, Tensor) and isinstance(seen.y, Tensor) and not seen.y_mended:
        a, b = call.target.detach().flatten().double(), seen.y.flatten().double()
        if a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, equal_nan=True):
            return y.detach()
    return call.target.detach()
