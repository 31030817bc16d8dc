"""A network, a loss and an optimizer of torch as a plan for the native core, or why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import LOSSES, Loss

WIDEST = 2**24  # columns of a layer


class Refused(Exception):
    """The core cannot run this; the sentence says what it does not have."""


@dataclass(frozen=True)
class Layer:
    """One layer as the core takes it, with the tensors that it reads and writes.

    Attributes
    ----------
    planned : kind, columns out (0: as many as in), bias, n, a, b, codes, widths
    parameters : in the core's order
    statistics : running means and variances
    module : the layer of torch
    edges : of an input layer's bins, a list for each number; empty without bins
    """

    planned: tuple[str, int, bool, int, float, float, list[int], list[int]]
    parameters: list[Tensor]
    statistics: list[Tensor]
    module: nn.Module
    edges: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class PlannedLoss:
    """A loss by the core's name, with its constants."""

    kind: str
    a: float = 1.0
    weight: Tensor | None = None
    ignored: int = -100
    classes: bool = False


def read_layers(network: nn.Module, n_inputs: int) -> list[Layer]:
    """The layers of an ``nn.Sequential``, nested ones too, in their order.

    Raises
    ------
    Refused
        For a layer that the core does not have, that has hooks or frozen parameters, or that does
        not fit the columns that come to it.
    """
    if _hooks_for_all():
        raise Refused("hooks are set for all modules")
    layers: list[Layer] = []
    seen: set[int] = set()
    width = n_inputs
    for name, module in _flat(network, ""):
        _refuse_hooks(name, module)
        layer = _layer(name, module)
        for parameter in layer.parameters:
            if not parameter.requires_grad:
                raise Refused(f"layer {name!r} is frozen (requires_grad=False)")
            if id(parameter) in seen:
                raise Refused(f"layer {name!r} shares its parameters with another")
            seen.add(id(parameter))
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                raise Refused(f"the parameters of layer {name!r} have hooks")
        width = _width(name, layer, width)
        layers.append(layer)
    if not any(layer.parameters for layer in layers):
        raise Refused("the network has no layer that learns")
    tensors: list[Tensor] = [t for layer in layers for t in (*layer.parameters, *layer.statistics)]
    dtypes = {tensor.dtype for tensor in tensors}
    if dtypes not in ({torch.float32}, {torch.float64}):
        raise Refused(f"its parameters are {', '.join(sorted(map(str, dtypes)))}")
    if any(tensor.device.type != "cpu" for tensor in tensors):
        raise Refused("it is not on the CPU")
    return layers


def _width(name: str, layer: Layer, width: int) -> int:
    """The columns that come out where these many come in."""
    module: Any = layer.module
    takes = {
        "Linear": lambda: module.in_features,
        "InputLayer": lambda: module.n_numbers + len(module.n_codes),
        "BatchNorm1d": lambda: module.num_features,
        "LayerNorm": lambda: module.normalized_shape[0],
        "PReLU": lambda: width if module.num_parameters == 1 else module.num_parameters,
    }.get(layer.planned[0], lambda: width)()
    if takes != width:
        raise Refused(f"layer {name!r} takes {takes} columns and gets {width}")
    gives = layer.planned[1] or (width if layer.planned[0] not in ("Linear", "InputLayer") else 0)
    if not 1 <= min(width, gives) <= max(width, gives) <= WIDEST:
        raise Refused(f"layer {name!r} takes {width} columns and gives {gives}")
    return gives


def _flat(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        _refuse_hooks(name, module)
        # not named_children, which leaves out a module that it has given before
        for key, child in module._modules.items():
            if child is not None:
                yield from _flat(child, f"{name}.{key}" if name else key)
    else:
        yield name, module


def _hooks_for_all() -> bool:
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
             "_global_backward_pre_hooks")  # fmt: skip
    return any(getattr(nn.modules.module, name, None) for name in names)


def _refuse_hooks(name: str, module: nn.Module) -> None:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, one) for one in hooks) or "forward" in vars(module):
        raise Refused(f"layer {name!r} has hooks" if name else "the network has hooks")


def _layer(name: str, module: Any) -> Layer:
    kind = type(module).__name__
    make = _LAYERS.get(kind)
    home = type(module).__module__
    if make is None or not (
        home.startswith("torch.nn.modules") or home == "layerwise.network.layers"
    ):
        raise Refused(f"layer {name!r} is a {kind}, which the core does not have")
    planned = make(module)
    if isinstance(planned, str):
        raise Refused(f"layer {name!r} ({kind}) {planned}")
    parameters = list(module.parameters())
    statistics = []
    if kind == "BatchNorm1d":
        statistics = [module.running_mean, module.running_var]
    edges = _edges(module) if kind == "InputLayer" else ()
    return Layer(planned, parameters, statistics, module, edges)


def _edges(m: Any) -> tuple[tuple[float, ...], ...]:
    if not any(m.bins):
        return ()
    parts = m.edges.split([n + 1 for n in m.bins if n])
    following = iter(parts)
    return tuple(tuple(next(following).tolist()) if n else () for n in m.bins)


def _simple(kind: str, a: float = 0.0, b: float = 0.0) -> Any:
    return (kind, 0, False, 0, float(a), float(b), [], [])


def _linear(m: Any) -> Any:
    return ("Linear", m.out_features, m.bias is not None, 0, 0.0, 0.0, [], [])


def _input(m: Any) -> Any:
    if any(table.max_norm or table.scale_grad_by_freq or table.sparse or table.padding_idx != 0
           for table, width in zip(m.tables, m.embedding) if width):  # fmt: skip
        return "has embeddings with options of their own"
    widths = list(m.embedding)
    return ("InputLayer", m.out_features, False, m.n_numbers, 0.0, 0.0, list(m.n_codes), widths)


def _batch_norm(m: Any) -> Any:
    if not m.track_running_stats:
        return "keeps no running statistics"
    if not m.eps > 0:
        return "has eps 0"
    if m.momentum is not None and not 0 <= m.momentum <= 1:
        return f"has momentum {m.momentum}"
    momentum = -1.0 if m.momentum is None else m.momentum  # below 0: the mean of all batches
    return ("BatchNorm1d", m.num_features, m.affine, 0, m.eps, momentum, [], [])


def _layer_norm(m: Any) -> Any:
    if len(m.normalized_shape) != 1:
        return "normalises several dimensions"
    affine, biased = m.weight is not None, m.bias is not None
    return ("LayerNorm", m.normalized_shape[0], affine, int(biased), m.eps, 0.0, [], [])


def _prelu(m: Any) -> Any:
    return ("PReLU", 0, False, m.num_parameters, 0.0, 0.0, [], [])


def _softmax(m: Any) -> Any:
    return _simple(type(m).__name__) if m.dim in (-1, 1) else f"goes along dim {m.dim}"


_LAYERS: dict[str, Any] = {
    "Linear": _linear,
    "InputLayer": _input,
    "BatchNorm1d": _batch_norm,
    "LayerNorm": _layer_norm,
    "PReLU": _prelu,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Identity": lambda m: _simple("Identity"),
    "Flatten": lambda m: (
        _simple("Identity") if (m.start_dim, m.end_dim) == (1, -1) else "flattens the rows too"
    ),
    "Dropout": lambda m: _simple("Dropout", m.p) if m.p < 1 else "leaves nothing",
    "ReLU": lambda m: _simple("ReLU"),
    "LeakyReLU": lambda m: _simple("LeakyReLU", m.negative_slope),
    "ELU": lambda m: _simple("ELU", m.alpha),
    "SELU": lambda m: _simple("SELU", 1.6732632423543772, 1.0507009873554805),
    "GELU": lambda m: _simple("GELU" if m.approximate == "none" else "GELU tanh"),
    "SiLU": lambda m: _simple("SiLU"),
    "Mish": lambda m: _simple("Mish"),
    "Softplus": lambda m: _simple("Softplus", m.beta, m.threshold),
    "Tanh": lambda m: _simple("Tanh"),
    "Sigmoid": lambda m: _simple("Sigmoid"),
    "Hardtanh": lambda m: _simple("Hardtanh", m.min_val, m.max_val),
    "ReLU6": lambda m: _simple("Hardtanh", 0.0, 6.0),
}  # fmt: skip


# ---------------------------------------------------------------- loss

_NAMES = {
    "mse": PlannedLoss("mse"), "l1": PlannedLoss("l1"), "huber": PlannedLoss("huber"),
    "bce": PlannedLoss("bce_logits"),
    "cross_entropy": PlannedLoss("cross_entropy", 0.0, classes=True),
}  # fmt: skip


def read_loss(loss: Loss, n_outputs: int) -> PlannedLoss:
    """The loss by the core's name.

    Raises
    ------
    Refused
        For a function of the user's own, or a reduction that is no mean.
    """
    for known, function in LOSSES.items():
        if loss is function:
            return _NAMES[known]
    module = getattr(loss, "module", None)
    kind = type(module).__name__
    if module is None or not type(module).__module__.startswith("torch.nn"):
        raise Refused("the loss is a function of its own")
    if getattr(module, "reduction", "") != "mean":
        raise Refused(f"the loss {kind} does not take the mean")
    weight = getattr(module, "weight", None)
    if kind in ("CrossEntropyLoss", "NLLLoss"):
        if weight is not None and weight.shape != (n_outputs,):
            raise Refused(f"the loss has {weight.numel()} weights of classes, not {n_outputs}")
        name = "cross_entropy" if kind == "CrossEntropyLoss" else "nll"
        smooth = float(getattr(module, "label_smoothing", 0.0))
        return PlannedLoss(name, smooth, weight, module.ignore_index, classes=True)
    if weight is not None:
        raise Refused(f"the loss {kind} has weights of its elements")
    if kind == "BCEWithLogitsLoss":
        each = module.pos_weight
        if each is not None and each.numel() != 1 and each.shape != (n_outputs,):
            raise Refused(f"pos_weight has shape {tuple(each.shape)}, not ({n_outputs},)")
        each = None if each is None else each.flatten().expand(n_outputs)
        return PlannedLoss("bce_logits", weight=each)
    if kind == "SmoothL1Loss":
        return PlannedLoss("smooth_l1", module.beta) if module.beta else PlannedLoss("l1")
    if kind == "HuberLoss":
        return PlannedLoss("huber", module.delta)
    plain = {"MSELoss": "mse", "L1Loss": "l1", "BCELoss": "bce"}
    if kind not in plain:
        raise Refused(f"the core does not have the loss {kind}")
    return PlannedLoss(plain[kind])


def check_targets(loss: PlannedLoss, y: Any, n_outputs: int) -> None:
    """Whether y is as this loss takes it without broadcasting.

    Raises
    ------
    Refused
    """
    if not isinstance(y, Tensor) or y.device.type != "cpu" or y.is_complex():
        raise Refused("y is not one tensor of numbers on the CPU")
    if loss.classes and not y.is_floating_point():
        if y.dtype != torch.int64 or y.dim() != 1:
            raise Refused(f"y is {y.dtype} of shape {tuple(y.shape)}, not class indices (N,)")
    elif loss.kind == "nll" or y.shape[1:] != (n_outputs,):
        raise Refused(f"y has shape {tuple(y.shape)} for {n_outputs} outputs")


# ---------------------------------------------------------------- optimizer

# What the optimizer remembers of each parameter, in the core's order of buffers.
STATES = {
    "SGD": ("momentum_buffer",),
    "Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "AdamW": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "NAdam": ("exp_avg", "exp_avg_sq"),
    "RMSprop": ("square_avg", "grad_avg", "momentum_buffer"),
    "Adagrad": ("sum",),
}


def read_optimizer(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> str:
    """The optimizer's name, if the core has it and it holds just these parameters.

    Raises
    ------
    Refused
    """
    kind = type(optimizer).__name__
    if kind not in STATES or not type(optimizer).__module__.startswith("torch.optim"):
        raise Refused(f"the core does not have the optimizer {kind}")
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if {id(p) for p in held} != {id(p) for p in parameters} or len(held) != len(parameters):
        raise Refused("the optimizer holds other parameters than the network has")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise Refused("the optimizer has hooks")
    if "step" in vars(optimizer) and not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise Refused("the optimizer has a step of its own")
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            raise Refused("the learning rate is a tensor")
        if group.get("capturable") or group.get("differentiable"):
            raise Refused("the optimizer is capturable or differentiable")
        if "eps" in group and not group["eps"] > 0:
            raise Refused("eps is 0")
    return kind
