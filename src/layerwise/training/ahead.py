"""The loop of epochs for trainings that nobody looks at in between: several in one go.

An epoch of a small network takes the native core less time than Python takes to look at it. So the
core goes through several, measures after each, keeps the best weights and stops where nothing is
gained: what `layerwise.training.fit.fit` does one by one, with the same numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from layerwise.engine.choose import Engine
from layerwise.engine.native import Gain, Native
from layerwise.engine.torch import Loader, Rows
from layerwise.training.checkpoint import State, copy_state
from layerwise.training.layers import Recorder
from layerwise.training.recipe import Recipe

NUMBERS = 2**20  # row numbers and outputs that are held at a time
FEW = 10  # epochs at first; then as many as there were, so that few are prepared in vain


def can_run_ahead(
    engine: Engine, train: Rows | Loader, valid: Rows | Loader | None, recipe: Recipe
) -> bool:
    """Whether the core alone can tell which epoch is the best."""
    alone = isinstance(engine, Native) and recipe.monitor == "loss"
    return alone and isinstance(train, Rows) and len(train) > 0 and not isinstance(valid, Loader)


def _later(rates: Callable[[int], Any], before: int, step: int) -> Any:
    """The rates of a step after so many others."""
    return rates(before + step)


def run_ahead(
    engine: Any,
    train: Any,
    valid: Any,
    recipe: Recipe,
    state: State,
    recorder: Recorder,
    *,
    shuffle: torch.Generator,
    rates: Callable[[int], Sequence[float]] | None,
    start: float,
    deadline: float,
    stop: Callable[[], bool] | None,
    score: Callable[[Tensor, Any], dict[str, float]] | None,
) -> str:
    """Train to the end, and say what it was: "epochs", "patience" or "time limit".

    Parameters
    ----------
    engine, train, valid, recipe : where `can_run_ahead` holds
    state : brought forward, as the loop in `fit` does
    recorder : of the layers
    shuffle : the order of the rows is drawn from it ahead: if the training ends before, it is
        further on than the training is
    rates : of each parameter group for each step of the whole training
    start, deadline : ``time.monotonic()`` of the beginning, and after which no step begins
    stop, score : see `fit`

    Raises
    ------
    KeyboardInterrupt, NotFinite
        When the epochs before have been taken down.
    """
    groups = engine.optimizer.param_groups
    patience = (recipe.patience or 0) if valid is not None else 0
    held, name = (train, "loss") if valid is None else (valid, "valid_loss")
    score = None if valid is None else score
    y = held.picked().y if score else None
    most = max(min(NUMBERS // (len(train) + len(held)), 100), 1)
    with _best_brought(engine, state):
        while state.epoch < recipe.epochs:
            n_epochs = min(most, max(FEW, state.epoch), recipe.epochs - state.epoch)
            orders = torch.empty(n_epochs, len(train), dtype=torch.int64)
            for order in orders:
                torch.randperm(len(train), generator=shuffle, out=order)
            best = state.best_value if state.best_epoch else math.nan
            before = state.step
            passed, error = engine.train_epochs(
                train, orders, int(recipe.batch_size), held,
                Gain(best, recipe.min_delta, patience, state.epoch, state.best_epoch),
                rates=rates and partial(_later, rates, before),
                clip_norm=recipe.clip_norm, clip_value=recipe.clip_value, deadline=deadline,
                stop=stop, outputs=score is not None,
                looks=[recorder.every(state.epoch + 1 + i) for i in range(n_epochs)],
            )  # fmt: skip
            for one in passed:
                if not one.epoch.complete and state.epoch:
                    return "time limit"  # a part of an epoch is no epoch
                state.epoch += 1
                state.step += one.epoch.steps
                state.elapsed_s = one.ended - start
                row = {"epoch": state.epoch, "train_loss": one.epoch.loss, name: one.loss}
                if score:
                    row |= score(one.outputs, y)
                row["lr"] = rates(state.step - 1)[0] if rates else groups[0]["lr"]
                row["seconds"] = round(state.elapsed_s, 3)
                state.rows.append(row)
                if one.seen:
                    state.layers += recorder.rows(state.epoch, one.seen)
                if one.kept:
                    state.best_epoch, state.best_value = state.epoch, one.loss
            if error is not None:
                engine.store_weights()
                raise error
            if not passed[-1].epoch.complete or passed[-1].ended > deadline:
                return "time limit"
            if patience and state.epoch - state.best_epoch >= patience:
                return "patience"
    return "epochs"


@contextlib.contextmanager
def _best_brought(engine: Any, state: State) -> Iterator[None]:
    """However it ends: the best weights to the state; the last ones are the network's again."""
    before = state.best_epoch
    try:
        yield
    finally:
        if state.best_epoch > before:
            engine.store_kept()
            state.best = copy_state(engine.network)
            engine.store_weights()
