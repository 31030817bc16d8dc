"""Look at a network, or train it, and leave the rest of its state as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy


@contextlib.contextmanager
def kept(model: nn.Module, *, buffers: bool = True) -> Iterator[None]:
    """Put back, at the end, what a pass through the model may have changed.

    That is the training mode of each module, the gradients on its parameters (the very tensors,
    not copies: inside, there are none to add to), torch's random state on the CPU and on the
    model's device, that of generators the layers have for themselves, and, if wished, the model's
    buffers, such as the running statistics of batch normalisation. Weights are the caller's
    business; so are the random states of NumPy and Python, which layerwise never draws from.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> with kept(model):
    ...     model.eval()(torch.ones(1, 2)).sum().backward()
    >>> model.training, model.weight.grad
    (True, None)
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    copies = [
        (module, name, buffer, None if buffer is None or is_lazy(buffer) else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffers
    ]
    states = [(one, one.get_state()) for one in generators(model)]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=sorted(devices, key=str)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for generator, state in states:
            generator.set_state(state)
        with torch.no_grad():
            for module, name, buffer, copy in copies:
                module._buffers[name] = buffer  # a forward may also have put another in its place
                if buffer is not None and copy is not None:
                    buffer.copy_(copy)


def generators(model: nn.Module) -> list[torch.Generator]:
    """The random generators that layers have as attributes, such as that of layerwise's dropout."""
    values = (value for module in model.modules() for value in vars(module).values())
    return list({id(v): v for v in values if isinstance(v, torch.Generator)}.values())


def copy_if_lazy(model: nn.Module) -> nn.Module:
    """The model; a copy of it if a pass would give weights to layers that have none yet."""
    if not any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        return model
    # torch lets lazy parameters be copied, and not lazy buffers
    buffers = [buffer for buffer in model.buffers() if is_lazy(buffer)]
    fresh = (UninitializedBuffer(device=b.device) for b in buffers)  # type: ignore[call-arg]
    return deepcopy(model, dict(zip(map(id, buffers), fresh)))
