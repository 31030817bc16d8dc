"""One pass through a module, and what each layer saw of it: for summary, checks and trace."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from layerwise.engine.torch import Inputs, call
from layerwise.network.layers import InputLayer


@dataclass(eq=False)
class Visit:
    """One call of one layer.

    Attributes
    ----------
    name : as in ``named_modules``, e.g. "encoder.0"; "" where the model itself is one layer
    module : the layer
    inputs : the tensors it was called with
    outputs : the tensors it returned; none if it failed
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()

    @property
    def output(self) -> Tensor | None:
        """The first tensor it returned; None if it failed or returned none."""
        return self.outputs[0] if self.outputs else None

    @property
    def title(self) -> str:
        """Name and kind for messages, e.g. ``layer '0' (Linear(10, 18))``."""
        where = f"layer {self.name!r}" if self.name else "the layer"
        return f"{where} ({words(self.module)})"


@dataclass(eq=False)
class Walk:
    """The calls of a model's layers, in their order.

    Attributes
    ----------
    visits : one for each call of a layer that has no layers inside
    outputs : what the model returned; None if it failed
    error : what the model raised, or None
    failed : the layer that was entered and not left; None if the model's own ``forward`` failed
    """

    visits: list[Visit] = field(default_factory=list)
    outputs: Any = None
    error: Exception | None = None
    failed: Visit | None = None


def walk(model: nn.Module, inputs: Inputs, look: Callable[[Visit], None] | None = None) -> Walk:
    """Call the model once and note what each layer got and gave, up to the one that fails.

    Layers that work in place, such as ``nn.ReLU(inplace=True)``, make a tensor of their own here,
    so that what the layer before them gave can still be seen.

    Parameters
    ----------
    model : any module, called in the mode it is in; gradients are recorded where they are enabled
    inputs : a tensor, several (a tuple), or named ones (a dict)
    look : called with each visit as its layer is left, before the model's own code goes on with
        the values and may change them in place

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1))
    >>> passed = walk(model, torch.zeros(2, 3))
    >>> [visit.name for visit in passed.visits], passed.failed.title
    (['0', '1', '2'], "layer '2' (Linear(5, 1))")
    """
    found = Walk()
    with _noting(model, found, look), _apart(model):
        try:
            found.outputs = call(model, inputs)
        except Exception as error:  # whatever a foreign forward raises is to be told, not lost
            found.error = error
    if found.error is None:
        found.failed = None
    return found


@contextlib.contextmanager
def _noting(model: nn.Module, found: Walk, look: Callable[[Visit], None] | None) -> Iterator[None]:
    def entered(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            found.failed = Visit(name, module, tuple(_tensors((args, kwargs))))
            found.visits.append(found.failed)

        return hook

    def left(module: nn.Module, args: Any, output: Any) -> None:
        visit = next(v for v in reversed(found.visits) if v.module is module)
        visit.outputs = tuple(_tensors(output))
        found.failed = None
        if look is not None:
            look(visit)

    handles = []
    for name, module in leaves(model):
        handles.append(module.register_forward_pre_hook(entered(name), with_kwargs=True))
        handles.append(module.register_forward_hook(left))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _apart(model: nn.Module) -> Iterator[None]:
    changed = [module for module in model.modules() if getattr(module, "inplace", None) is True]
    for module in changed:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]


# They have modules inside that they use and never call.
_WHOLE = (InputLayer, nn.MultiheadAttention)


def is_layer(module: nn.Module) -> bool:
    """Whether a module calls no other, so that it is what runs."""
    children = dict(module.named_children())
    if is_parametrized(module):  # such as by weight_norm: what makes the weight is no layer
        children.pop("parametrizations", None)
    return not children or isinstance(module, _WHOLE)


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each layer, once, under the first of its names."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module not in inside and is_layer(module):
            inside.update(module.modules())
            yield name, module


def words(module: nn.Module) -> str:
    """A layer in few words: ``Linear(10, 18)``, ``Dropout(p=0.5)``.

    Examples
    --------
    >>> words(nn.Linear(10, 18, bias=False)), words(nn.LeakyReLU(0.05)), words(nn.LSTM(3, 8))
    ('Linear(10, 18, bias=False)', 'LeakyReLU(negative_slope=0.05)', 'LSTM(3, 8)')
    >>> words(nn.Conv2d(1, 8, 3, padding=1)), words(nn.BatchNorm1d(8)), words(nn.Dropout())
    ('Conv2d(1, 8, 3, padding=1)', 'BatchNorm1d(8)', 'Dropout(p=0.5)')
    """
    kind = type(module).__name__
    if isinstance(module, nn.ParameterList | nn.ParameterDict):
        return f"{kind}({len(module)})"
    if is_parametrized(module):
        kind = kind.removeprefix("Parametrized")
    defaults = inspect.signature(type(module)).parameters
    told = []
    for part in re.split(r", (?![^(\[]*[)\]])", " ".join(module.extra_repr().split())):
        name, _, value = part.rpartition("=")
        value = re.sub(r"^\((\w+)(, \1)*,?\)$", r"\1", value)  # kernel_size=(3, 3) is 3
        if name in _POSITIONAL:
            told.append(value)
        elif name not in defaults or name in _ALWAYS:
            told.append(part)
        elif value.strip("'") != str(defaults[name].default):
            told.append(f"{name}={value}")
    text = ", ".join(told)
    return f"{kind}({text if len(text) <= 40 else text[:39] + '…'})"


# Told without their names, as people write them.
_POSITIONAL = {"in_features", "in1_features", "in2_features", "out_features", "kernel_size"}
_ALWAYS = {"p", "negative_slope"}  # worth telling also where they are the default


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def shape(tensor: Tensor) -> str:
    """A shape as Python writes it, e.g. ``(4, 18)``.

    Examples
    --------
    >>> import torch
    >>> shape(torch.zeros(4, 18)), shape(torch.zeros(4))
    ('(4, 18)', '(4,)')
    """
    return str(tuple(tensor.shape))
