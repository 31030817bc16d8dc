"""Where the first value came up that is no finite number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.copying import copied, random_states_kept
from layerwise.network.walk import _tensors, walk


def locate(model: nn.Module, inputs: Any, y: Any, outputs: Any) -> tuple[str, str]:
    """The place and what to say of it, for a loss that is NaN or infinite.

    Parameters
    ----------
    model : as it was when that loss was computed; left as it is
    inputs : what it was called with
    y : the batch's targets, or None
    outputs : what the model returned

    Returns
    -------
    where : "X", "y", "optimizer" (the weights are not finite), a module's name, "forward" (the
        model's own code), or "loss"
    told : the rest of a sentence that begins with "the first bad value"
    """
    if any(not _finite(one) for one in _tensors(inputs)):
        return "X", "stands in X itself"
    if isinstance(y, Tensor) and not _finite(y):
        return "y", "stands in y itself"
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return "optimizer", f"is in the weights: {name!r} was spoilt by a step before"
    X = inputs if isinstance(inputs, dict) else tuple(inputs)
    # A copy: a graph that waits for its backward may need batch norm's numbers as they are.
    model = copied(model, None)[0]
    with random_states_kept(), torch.no_grad():
        seen = walk(model, X[0] if isinstance(X, tuple) and len(X) == 1 else X)
    for visit in seen.visits:
        if visit.output is not None and not _finite(visit.output):
            if all(_finite(one) for one in visit.inputs):
                return visit.name or "forward", f"came out of {visit.title}"
            return "forward", f"came out of the model's own code, before {visit.title}"
    if any(not _finite(one) for one in _tensors(outputs)):
        return "forward", "came out of the model's own code, after its last layer"
    given = [one.detach() for one in _tensors(outputs) if one.numel()]
    top = max((float(one.abs().max()) for one in given), default=0.0)
    return "loss", f"came out of the loss, from outputs that are finite (up to {top:.2g})"


def _finite(values: Tensor) -> bool:
    return not values.is_floating_point() or bool(torch.isfinite(values).all())
