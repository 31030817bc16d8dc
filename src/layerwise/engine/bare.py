"""torch's optimizers without the wrappers that import torch's compiler.

torch marks a few of their methods as not to be compiled, and for that it imports its compiler,
which takes longer than many a training. What is under the wrappers is what ``functools`` keeps as
``__wrapped__``; where that is not to be had, the public method is called.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Keep an optimizer's constructor from importing torch's compiler, which takes seconds.

    It would do so only to mark one function as not to be compiled; the mark is set here for the
    while, to the function itself.
    """
    function = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    if "torch._dynamo" in sys.modules or hasattr(function, "__dynamo_disable"):
        yield
        return
    vars(function)["__dynamo_disable"] = function
    try:
        yield
    finally:
        vars(function).pop("__dynamo_disable", None)


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """The optimizer's step without the wrappers that torch puts around it.

    They serve hooks, profiler and compiler: to tell the compiler to stay away they import it, which
    takes longer than many a training, and they cost a tenth of a small step. An optimizer that has
    hooks keeps its own step.
    """
    raw = inspect.unwrap(type(optimizer).step)
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if raw is type(optimizer).step or hooked or "step" in vars(optimizer):
        return optimizer.step
    return torch.no_grad()(partial(raw, optimizer))


def bare_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's ``state_dict``, without torch's wrapper that imports its compiler for it."""
    return inspect.unwrap(type(optimizer).state_dict)(optimizer)
