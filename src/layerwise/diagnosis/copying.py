"""A copy of somebody's model that can be run, so that the model itself is never touched."""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copied(model: nn.Module, loss: Any) -> tuple[nn.Module, Any, dict[int, int]]:
    """Deep copies of model and loss, without hooks of anybody who watches.

    Returns
    -------
    The model's copy, the loss's (the loss itself if it is no module), and the id of the original
    of each copied parameter, by the copy's id.
    """
    memo: dict[int, Any] = {}
    modules = [*model.modules(), *(loss.modules() if isinstance(loss, nn.Module) else ())]
    for module in modules:
        for name in _HOOKS:
            hooks = getattr(module, name, None)
            if hooks is not None:
                memo[id(hooks)] = OrderedDict((k, v) for k, v in hooks.items() if _of_torch(v))
        for value in vars(module).values():
            # torch copies no tensor that has a history, such as one kept to be looked at
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    model = deepcopy(model, memo)
    loss = deepcopy(loss, memo) if isinstance(loss, nn.Module) else loss
    originals = {id(copy): identity for identity, copy in memo.items() if isinstance(copy, Tensor)}
    for parameter in model.parameters():
        parameter.grad = None
    return model, loss, originals


def _of_torch(hook: Any) -> bool:
    """Whether a hook is part of a layer, such as that of weight_norm."""
    return type(hook).__module__.startswith("torch.nn")


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """The random states of torch, NumPy and Python are at the end what they were before."""
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002  a foreign forward's
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002
