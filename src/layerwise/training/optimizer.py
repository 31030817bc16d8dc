"""An optimizer of ``torch.optim`` by name, with weight decay where it belongs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from layerwise.engine.bare import without_compiler
from layerwise.errors import SettingError, did_you_mean
from layerwise.training.recipe import SMALL, Recipe, settle

_NOT_FOR_ALL = {
    "muon": "takes matrices only, and a network has biases too",
    "sparseadam": "takes sparse gradients only",
}
OPTIMIZERS = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name.lower() not in _NOT_FOR_ALL
}


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the recipe's optimizer over the network's parameters.

    Weight decay holds for weight matrices only: biases, norms and embeddings of unseen levels have
    nothing to shrink for. The fused form of an optimizer is taken where torch has one; it gives
    the same numbers in fewer calls.

    Raises
    ------
    SettingError
        For a name or option that torch.optim does not have, with the nearest one.
    """
    kind = OPTIMIZERS.get(recipe.optimizer.lower())
    if recipe.optimizer.lower() in _NOT_FOR_ALL:
        why = _NOT_FOR_ALL[recipe.optimizer.lower()]
        raise SettingError(f"optimizer {recipe.optimizer!r} {why}. Use adamw, for example.")
    if kind is None:
        known = did_you_mean(recipe.optimizer.lower(), OPTIMIZERS)
        raise SettingError(f"unknown optimizer {recipe.optimizer!r}. {known}")
    recipe = settle(recipe, SMALL)  # a rate that was left open till now is that of larger tables
    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {"lr": recipe.lr}
    if "momentum" in accepted:
        options["momentum"] = recipe.momentum
    for name, value in recipe.optimizer_options.items():
        if name not in accepted or name == "params":
            known = did_you_mean(name, [one for one in accepted if one != "params"])
            raise SettingError(f"{kind.__name__} has no option {name!r}. {known}")
        if name == "lr":
            raise SettingError("the learning rate is the setting lr, not an optimizer option")
        if isinstance(accepted[name].default, bool) and not isinstance(value, bool):
            raise SettingError(f"{kind.__name__} takes true or false for {name!r}; got {value!r}")
        if isinstance(accepted[name].default, int | float) and isinstance(value, str):
            raise SettingError(f"{kind.__name__} takes a number for {name!r}; got {value!r}")
        options[name] = tuple(value) if isinstance(value, list) else value
    if "fused" in accepted and "foreach" not in options:
        options.setdefault("fused", True)
    parameters: Any = [p for p in network.parameters() if p.requires_grad]
    if "weight_decay" in accepted and kind is not torch.optim.LBFGS:
        decay = options.pop("weight_decay", recipe.weight_decay)
        matrices = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        parameters = [
            {"params": matrices, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
    try:
        with without_compiler():
            return kind(parameters, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingError(f"{kind.__name__} refuses its options: {error}") from None
