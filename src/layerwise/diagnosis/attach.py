"""Hooks on somebody's loop that leave nothing behind: on the model, the loss, autograd, steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader


class Hook:
    """A hook that a copy or a pickle of the module does not take along.

    Loops copy or save their model in the midst of it, to keep the best epoch.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> None:
        """Pass on what happened."""
        self.call(*args)

    def __deepcopy__(self, memo: Any) -> Hook:
        return Hook(nothing)

    def __reduce__(self) -> Any:
        return Hook, (nothing,)


def nothing(*args: Any) -> None:
    """Do nothing."""


@contextmanager
def attached(
    model: nn.Module,
    loss: Any,
    *,
    entered: Callable[..., None],
    left: Callable[..., None],
    before_backward: Callable[[Any], None],
    after_backward: Callable[[], None],
    before_step: Callable[..., None],
    after_step: Callable[..., None],
    lost: Callable[..., None],
    started: Callable[[DataLoader[Any]], None],
) -> Iterator[Callable[[], None]]:
    """Call these functions while the context lasts.

    Parameters
    ----------
    entered, left : with (module, args, kwargs) and (module, args, outputs) of the model
    before_backward : with what ``backward`` was called on; ``after_backward`` with nothing
    before_step, after_step : with (optimizer, args, kwargs), of every optimizer there is
    lost : with (loss, arguments, value), of a loss module or a loss of torch.nn.functional
    started : with each ``DataLoader`` that begins to give batches

    Yields
    ------
    A function that ends the looking at what the model returns; it costs, and the first epoch is
    enough.
    """
    with ExitStack() as stack:
        handles = [
            model.register_forward_pre_hook(Hook(entered), with_kwargs=True),
            register_optimizer_step_pre_hook(before_step),
            register_optimizer_step_post_hook(after_step),
        ]
        if isinstance(loss, nn.Module):
            handles.append(loss.register_forward_hook(Hook(lost)))
        outputs = model.register_forward_hook(Hook(left))
        for handle in (*handles, outputs):
            stack.callback(handle.remove)
        _patch(stack, torch.autograd, "backward", _around(before_backward, after_backward))
        _patch(stack, DataLoader, "__iter__", _ahead(started))
        name = getattr(loss, "__name__", "")
        if name and getattr(F, name, None) is loss:
            _patch(stack, F, name, _after(lost))
        yield outputs.remove


def _patch(stack: ExitStack, home: Any, name: str, around: Callable[[Any], Any]) -> None:
    original = getattr(home, name)
    setattr(home, name, around(original))
    stack.callback(setattr, home, name, original)


def _around(before: Callable[[Any], None], after: Callable[[], None]) -> Callable[[Any], Any]:
    def of(original: Any) -> Any:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            before(tensors)
            result = original(tensors, *args, **kwargs)
            after()
            return result

        return backward

    return of


def _ahead(started: Callable[[Any], None]) -> Callable[[Any], Any]:
    def of(original: Any) -> Any:
        def __iter__(loader: Any) -> Any:
            started(loader)
            return original(loader)

        return __iter__

    return of


def _after(lost: Callable[..., None]) -> Callable[[Any], Any]:
    def of(original: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            lost(original, args, value)
            return value

        return function

    return of
