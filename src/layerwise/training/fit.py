"""The training: epochs, early stopping, the best weights kept, a clean end for every cause."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import Loss, mean_loss
from layerwise.engine.torch import (
    Epoch,
    NotFinite,
    Rows,
    cpu_threads,
    n_steps,
    predict,
    train_epoch,
)
from layerwise.errors import SettingError, TrainingError
from layerwise.network.layers import set_dropout_generator
from layerwise.training.checkpoint import Checkpoint, State
from layerwise.training.history import History
from layerwise.training.optimizer import make_optimizer
from layerwise.training.recipe import Recipe, settle
from layerwise.training.schedule import rate_at


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told after each epoch."""

    row: dict[str, Any]
    epochs: int
    best_epoch: int
    elapsed_s: float
    rows_per_s: float


Callback = Callable[[EpochEnd], Any]
Score = Callable[[Tensor], dict[str, float]]


def fit(
    network: nn.Module,
    loss: Loss,
    train: Rows,
    valid: Rows | None,
    recipe: Recipe,
    *,
    seed: int = 0,
    score: Score | None = None,
    higher_is_better: bool = False,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    feature_names: Sequence[str] = (),
) -> History:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    network : any module that maps (N, n_inputs) to raw outputs (N, n_outputs)
    loss : of (outputs, y, w), see `layerwise.engine.loss`
    train, valid : the rows to learn from and the rows that decide on the best epoch; without
        validation rows the loss on the training rows decides, and nothing stops early
    recipe : the settings; widths and activation are the network's business
    seed : of the private generators for shuffling and dropout
    score : metrics from the validation outputs, put into the history; ``recipe.monitor`` may name
        one of them, and then ``higher_is_better`` says which way is better
    callbacks : called with an `EpochEnd` after each epoch; one that returns True ends the training
    checkpoint : where the state is saved, and continued from if it is there; to remove it is up
        to the caller, once the outcome is safe
    optimizer : built from the recipe if None
    feature_names : of the columns of X, for messages

    Returns
    -------
    History
        One row for each epoch; ``stopped`` says why it ended: "epochs", "patience", "time limit",
        "interrupted", "callback", or "diverged: …" with the cause.

    Raises
    ------
    TrainingError
        If the loss becomes NaN or infinite before an epoch has ended with a finite one; later the
        best epoch is kept instead.
    SettingError
        If the recipe's monitor needs validation rows and there are none.
    KeyboardInterrupt
        If it comes before the first epoch has ended: there is nothing to keep.
    """
    if recipe.monitor != "loss" and (valid is None or score is None):
        raise SettingError(f"monitor {recipe.monitor!r} needs validation rows, and there are none")
    recipe = settle(recipe, len(train))
    optimizer = optimizer or make_optimizer(network, recipe)
    shuffle = torch.Generator().manual_seed(seed)
    dropout = torch.Generator(train.X.device).manual_seed(seed + 1)
    generators = {"shuffle": shuffle, "dropout": dropout}
    state = checkpoint.load(network, optimizer, generators) if checkpoint else State()
    sign = -1.0 if higher_is_better and recipe.monitor != "loss" else 1.0
    batch_size, lr = int(recipe.batch_size), float(recipe.lr)
    steps = n_steps(len(train), batch_size)
    rate = partial(
        rate_at, n_steps=steps * recipe.epochs, lr=lr, schedule=recipe.schedule,
        warmup=recipe.warmup,
    )  # fmt: skip
    start = time.monotonic() - state.elapsed_s
    deadline = start + (recipe.time_limit or float("inf"))
    set_dropout_generator(network, dropout)
    history = History(state.rows, state.best_epoch, "epochs")
    try:
        with cpu_threads(recipe.threads):
            while state.epoch < recipe.epochs:
                began = time.monotonic()
                if train.X.device.type == "cpu":
                    order = torch.randperm(len(train), generator=shuffle)
                else:
                    order = torch.randperm(len(train), generator=shuffle).to(train.X.device)
                epoch = train_epoch(
                    network, loss, optimizer, train, order, batch_size,
                    learning_rate=lambda step: rate(step + state.step),
                    clip_norm=recipe.clip_norm, clip_value=recipe.clip_value, deadline=deadline,
                )  # fmt: skip
                if not epoch.complete and state.epoch:
                    history.stopped = "time limit"  # a part of an epoch is no epoch
                    break
                trained = time.monotonic()
                row = _measure(network, loss, epoch, train, valid, score)
                state.epoch += 1
                state.step += epoch.steps
                state.elapsed_s = time.monotonic() - start
                row = {"epoch": state.epoch, **row, "lr": rate(state.step - 1),
                       "seconds": round(state.elapsed_s, 3)}  # fmt: skip
                state.rows.append(row)
                _keep_best(state, network, sign * _monitored(row, recipe.monitor), recipe.min_delta)
                speed = len(train) / max(trained - began, 1e-9)
                event = EpochEnd(row, recipe.epochs, state.best_epoch, state.elapsed_s, speed)
                asked = [callback(event) for callback in callbacks]
                patience = recipe.patience if valid is not None else None
                if any(answer is True for answer in asked):
                    history.stopped = "callback"
                elif not epoch.complete or time.monotonic() > deadline:
                    history.stopped = "time limit"
                elif patience and state.epoch - state.best_epoch >= patience:
                    history.stopped = "patience"
                else:
                    if checkpoint and state.best:  # else there is nothing to go on with
                        checkpoint.save(state, network, optimizer, generators)
                    continue
                break
    except KeyboardInterrupt:
        if not state.best:
            raise
        history.stopped = "interrupted"
    except NotFinite as error:
        cause = _explain(network, error, train, state, recipe, feature_names)
        if not state.best:
            raise TrainingError(cause) from None
        history.stopped = f"diverged: {cause}"
    finally:
        set_dropout_generator(network, None)
    if not state.best:
        last = state.rows[-1]
        at = f"{recipe.monitor} is {_monitored(last, recipe.monitor):g} after epoch {state.epoch}"
        raise TrainingError(f"no epoch ended with a finite value: {at}. {_mend(recipe)}")
    # An interrupt can fall between the row of an epoch and the decision on its weights.
    history.rows = state.rows[: max(state.best_epoch, state.epoch)]
    history.best_epoch = state.best_epoch
    network.load_state_dict(state.best)
    network.eval()
    return history


def _measure(
    network: nn.Module,
    loss: Loss,
    epoch: Epoch,
    train: Rows,
    valid: Rows | None,
    score: Score | None,
) -> dict[str, float]:
    """Losses of the epoch, and the metrics on the validation rows."""
    rows = train if valid is None else valid
    outputs = predict(network, rows.X)
    row = {"train_loss": epoch.loss}
    row["loss" if valid is None else "valid_loss"] = mean_loss(loss, outputs, rows.y, rows.w)
    if score is not None and valid is not None:
        row |= score(outputs)
    return row


def _monitored(row: dict[str, float], name: str) -> float:
    if name == "loss":
        return row.get("valid_loss", row.get("loss", float("inf")))
    if name not in row:
        raise SettingError(f"monitor {name!r} cannot be measured on these validation rows")
    return row[name]


def _keep_best(state: State, network: nn.Module, value: float, min_delta: float) -> None:
    """Copy the weights if this epoch is the best so far; one that is not finite never is."""
    if not math.isfinite(value) or (state.best and not value < state.best_value - min_delta):
        return
    # An interrupt between these lines must not leave an epoch's number beside another's weights.
    best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    state.best, state.best_epoch, state.best_value = best, state.epoch, value


# ---------------------------------------------------------------- what made the loss NaN


def _explain(
    network: nn.Module,
    error: NotFinite,
    train: Rows,
    state: State,
    recipe: Recipe,
    names: Sequence[str],
) -> str:
    """Step, layer and, if it came from the data, column and row."""
    where = f"the loss is not finite at epoch {state.epoch + 1}, step {error.step + 1}"
    # All rows, since a cell can also have spoilt the weights in a step whose loss was finite.
    bad = ~torch.isfinite(train.X)
    if bad.any():
        row, column = (int(i) for i in bad.nonzero()[0])
        name = names[column] if column < len(names) else f"number {column}"
        cell = float(train.X[row, column])
        return (
            f"{where}: row {row + 1} of the training rows has {cell} in column "
            f"{name!r}. Correct that cell or leave its row out."
        )
    if train.y.is_floating_point() and not torch.isfinite(train.y).all():
        row = int((~torch.isfinite(train.y)).reshape(len(train.y), -1).any(dim=1).nonzero()[0])
        return f"{where}: the target of row {row + 1} of the training rows is not finite."
    mend = _mend(recipe)
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            layer, _, kind = name.rpartition(".")
            return f"{where}: the {kind} of layer {_layer(network, layer)} blew up. {mend}"
    first = _first_not_finite(network, error.X)
    if first is not None:
        return f"{where}: the output of layer {_layer(network, first)} is not finite. {mend}"
    return f"{where}: the outputs are finite, their loss is not. {mend}"


def _mend(recipe: Recipe) -> str:
    return f"Lower the learning rate (lr {recipe.lr:g}) or limit the gradients (clip_norm 1)."


def _layer(network: nn.Module, name: str) -> str:
    kind = type(network.get_submodule(name)).__name__
    return f"{name!r} ({kind})"


@torch.no_grad()
def _first_not_finite(network: nn.Module, X: Tensor) -> str | None:
    """The first layer, in the order of the pass, whose output is not finite."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    leaves = [(n, m) for n, m in network.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        network(X)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
