"""What steps the weights and the rate: optimizer and scheduler, as they were given."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.torch import Loader, Rows
from layerwise.errors import SettingError
from layerwise.training.checks import check_learns, check_optimizer
from layerwise.training.fit import Callback
from layerwise.training.optimizer import OPTIMIZERS, make_optimizer
from layerwise.training.recipe import SCHEDULES, SETTINGS, SMALL, Recipe, settle


def optimizer_of(
    given: Any, model: nn.Module, recipe: Recipe, rows: Rows | Loader
) -> tuple[Recipe, torch.optim.Optimizer]:
    """The optimizer, and the recipe with its name.

    Parameters
    ----------
    given : an instance, which keeps its own settings; or a class or a name
    recipe : the settings of an optimizer by class or name

    Raises
    ------
    SettingError
        For what is no optimizer, and for settings that it has for itself or refuses.
    NetworkError
        If it would leave this model as it is.
    """
    said = {n: getattr(recipe, n) for n in ("lr", "momentum", "weight_decay", "optimizer_options")}
    said = {n: value for n, value in said.items() if value not in (SETTINGS[n].default, {})}
    if isinstance(given, torch.optim.Optimizer):
        for name in said:
            raise SettingError(
                f"{name} is the optimizer's own business, since optimizer is an instance; say "
                f"it there, or give the class torch.optim.{type(given).__name__}"
            )
        check_optimizer(model, given)
        return recipe, given
    if not (isinstance(given, str) or inspect.isclass(given)):
        raise SettingError(
            f"optimizer has to be an optimizer of torch.optim, its class or its name; got {given!r}"
        )
    kind: Any = given
    name = kind if isinstance(kind, str) else kind.__name__
    check_learns(model)
    if any(getattr(module, "sparse", False) for module in model.modules()):
        raise SettingError(
            f"an embedding with sparse=True gives gradients that {name} by name does not take: "
            "give an instance such as torch.optim.SGD(…), or leave sparse out"
        )
    recipe = settle(replace(recipe, optimizer=name), len(rows) if isinstance(rows, Rows) else SMALL)
    if isinstance(kind, str) or kind in OPTIMIZERS.values():
        return recipe, make_optimizer(model, recipe)
    options = said.pop("optimizer_options", {})
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        return recipe, kind(learning, **{**said, "lr": recipe.lr}, **options)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{name} refuses its options: {error}") from None


def move_state(optimizer: torch.optim.Optimizer, place: torch.device) -> None:
    """What an optimizer remembers of earlier steps goes where the parameters are."""
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and (value.dim() or fused):
                state[name] = value.to(place)


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """A rate for each parameter group."""
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate


def scheduling(
    scheduler: Any,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    rows: Rows | Loader,
    higher: bool,
    afterwards: ExitStack,
) -> list[Callback]:
    """What steps a scheduler of torch: a callback after each epoch, or a hook after each step.

    Raises
    ------
    SettingError
        For what is no scheduler, or one that does not fit optimizer or training.
    """
    schedulers = torch.optim.lr_scheduler
    if not isinstance(scheduler, schedulers.LRScheduler | schedulers.ReduceLROnPlateau):
        known = ", ".join(SCHEDULES)
        raise SettingError(f"schedule has to be one of {known}, or a scheduler of torch.optim")
    if scheduler.optimizer is not optimizer:
        raise SettingError("the scheduler is of another optimizer; make it from the one you give")
    if recipe.warmup not in ("auto", 0):
        raise SettingError("warmup goes with layerwise's own schedules, and this one is torch's")
    if isinstance(scheduler, schedulers.OneCycleLR):
        _check_steps(scheduler, recipe, rows)
    if isinstance(scheduler, schedulers.OneCycleLR | schedulers.CyclicLR):
        handle = optimizer.register_step_post_hook(lambda *_: scheduler.step())
        afterwards.callback(handle.remove)
        return []
    if not isinstance(scheduler, schedulers.ReduceLROnPlateau):
        return [lambda event: scheduler.step()]
    wanted = "max" if higher else "min"
    if scheduler.mode != wanted:
        raise SettingError(
            f"ReduceLROnPlateau has mode {scheduler.mode!r}, and what is monitored, "
            f"{recipe.monitor}, gets better the other way: give it mode={wanted!r}"
        )
    name = "valid_loss" if recipe.monitor == "loss" else recipe.monitor
    return [lambda event: scheduler.step(event.row.get(name, event.row["train_loss"]))]


def _check_steps(scheduler: Any, recipe: Recipe, rows: Rows | Loader) -> None:
    """Refuse a cycle that is over before the training is."""
    n_rows = len(rows) if isinstance(rows, Rows) else SMALL
    steps = rows.n_steps(int(settle(recipe, n_rows).batch_size))
    left = scheduler.total_steps - scheduler.last_epoch
    if steps is not None and steps * recipe.epochs > left:
        raise SettingError(
            f"OneCycleLR has {left} steps to go, and {recipe.epochs} epochs of {steps} batches are "
            f"{steps * recipe.epochs}: make it with total_steps={steps * recipe.epochs}"
        )
