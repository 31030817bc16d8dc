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

from layerwise.engine.choose import choose
from layerwise.engine.loss import Loss
from layerwise.engine.plan import Refused
from layerwise.engine.torch import FULL, Loader, NotFinite, Precision, Rows, cpu_threads
from layerwise.errors import DataError, SettingError, TrainingError
from layerwise.network.layers import set_dropout_generator
from layerwise.network.walk import walk
from layerwise.training.ahead import can_run_ahead, run_ahead
from layerwise.training.checkpoint import Checkpoint, State, copy_state
from layerwise.training.history import History
from layerwise.training.layers import Recorder
from layerwise.training.optimizer import make_optimizer
from layerwise.training.recipe import SMALL, Recipe, settle
from layerwise.training.schedule import rate_at


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told after each epoch.

    Attributes
    ----------
    row : the epoch's row of the history
    epochs : how many there will be at most
    best_epoch : whose weights would be kept if the training ended now
    elapsed_s, rows_per_s : how long it took so far, and how fast it is
    layers : a row for each layer, as in ``History.layers``; empty in epochs that were not looked at
    network : with the weights as they are now
    member, members : of a bag, which of how many networks this is, counted from 1
    """

    row: dict[str, Any]
    epochs: int
    best_epoch: int
    elapsed_s: float
    rows_per_s: float
    layers: Sequence[dict[str, Any]] = ()
    network: nn.Module | None = None
    member: int = 1
    members: int = 1


Callback = Callable[[EpochEnd], Any]
Score = Callable[[Tensor, Tensor], dict[str, float]]


def fit(
    network: nn.Module,
    loss: Loss,
    train: Rows | Loader,
    valid: Rows | Loader | None,
    recipe: Recipe,
    *,
    seed: int = 0,
    score: Score | None = None,
    higher_is_better: bool = False,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    feature_names: Sequence[str] = (),
    precision: Precision = FULL,
    stop: Callable[[], bool] | None = None,
) -> History:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    network : any module; of tables it maps (N, n_inputs) to raw outputs (N, n_outputs)
    loss : of (outputs, y, w), see `layerwise.engine.loss`
    train, valid : the rows to learn from and the rows that decide on the best epoch; without
        validation rows the loss on the training rows decides, and nothing stops early
    recipe : the settings; widths and activation are the network's business, and an optimizer that
        comes along keeps its own rates where ``lr`` is "auto"
    seed : of the private generators for shuffling and dropout
    score : metrics from outputs and y of the validation rows, put into the history;
        ``recipe.monitor`` may name one of them, and then ``higher_is_better`` says which way is
        better
    callbacks : called with an `EpochEnd` after each epoch; one that returns True ends the training
    checkpoint : where the state is saved, and continued from if it is there; to remove it is up
        to the caller, once the outcome is safe
    optimizer : built from the recipe if None
    feature_names : of the columns of X, for messages
    precision : of the forward passes
    stop : asked now and then; True is taken as Ctrl-C is, which only the main thread hears of

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
    n_rows = len(train) if isinstance(train, Rows) else None
    own_rates = optimizer is not None and recipe.lr == "auto"
    recipe = settle(recipe, SMALL if n_rows is None else n_rows)
    optimizer = optimizer or make_optimizer(network, recipe)
    rates = [float(group["lr"] if own_rates else recipe.lr) for group in optimizer.param_groups]
    shuffle = torch.Generator().manual_seed(seed)
    dropout = torch.Generator(train.device).manual_seed(seed + 1)
    generators = {"shuffle": shuffle, "dropout": dropout}
    state = checkpoint.load(network, optimizer, generators) if checkpoint else State()
    sign = -1.0 if higher_is_better and recipe.monitor != "loss" else 1.0
    batch_size = int(recipe.batch_size)
    scale = _schedule(recipe, train.n_steps(batch_size))
    groups = optimizer.param_groups  # loading a state makes them anew
    for group, rate in zip(groups, rates):
        group["lr"] = rate  # also of an optimizer that was at another rate when it was last used
    start = time.monotonic() - state.elapsed_s
    deadline = start + (recipe.time_limit or float("inf"))
    try:
        engine, why = choose(
            recipe.engine, network, loss, optimizer, train, valid, batch_size=batch_size,
            threads=recipe.threads, precision=precision, dropout=dropout,
        )  # fmt: skip
    except Refused as reason:
        raise SettingError(f"engine 'native' cannot run this: {reason}") from None
    history = History(state.rows, state.best_epoch, "epochs", engine.name, why, layers=state.layers)
    recorder = Recorder(network, engine, n_rows, batch_size)
    set_dropout_generator(network, dropout)
    try:
        with cpu_threads(recipe.threads):
            if not callbacks and not checkpoint and can_run_ahead(engine, train, valid, recipe):
                history.stopped = run_ahead(
                    engine, train, valid, recipe, state, recorder, shuffle=shuffle,
                    rates=scale and partial(_rates, scale, rates, 0), start=start,
                    deadline=deadline, stop=stop, score=score,
                )  # fmt: skip
            # The same one by one, for all to look at.
            while state.epoch < recipe.epochs and history.stopped == "epochs":
                began = time.monotonic()
                order = None
                if n_rows is not None:
                    order = torch.randperm(n_rows, generator=shuffle).to(train.device)
                recorder.begin(state.epoch + 1)
                epoch = engine.train_epoch(
                    train, order, batch_size,
                    rates=scale and partial(_rates, scale, rates, state.step),
                    clip_norm=recipe.clip_norm, clip_value=recipe.clip_value, deadline=deadline,
                    stop=stop,
                )  # fmt: skip
                if not epoch.steps:
                    raise DataError("the training data gave no batch")
                if not epoch.complete and state.epoch:
                    history.stopped = "time limit"  # a part of an epoch is no epoch
                    break
                trained = time.monotonic()
                row = {"train_loss": epoch.loss}
                if valid is not None:
                    row["valid_loss"], scored = engine.measure(valid, batch_size, score=score)
                    row |= scored
                elif n_rows is not None:
                    row["loss"], _ = engine.measure(train, batch_size)
                engine.store_weights()
                state.epoch += 1
                state.step += epoch.steps
                state.elapsed_s = time.monotonic() - start
                row = {"epoch": state.epoch, **row, "lr": groups[0]["lr"],
                       "seconds": round(state.elapsed_s, 3)}  # fmt: skip
                state.rows.append(row)
                layers = recorder.rows(state.epoch)
                state.layers += layers
                _keep_best(state, network, sign * _monitored(row, recipe.monitor), recipe.min_delta)
                speed = epoch.rows / max(trained - began, 1e-9)
                event = EpochEnd(
                    row, recipe.epochs, state.best_epoch, state.elapsed_s, speed, layers, network
                )
                asked = [callback(event) for callback in callbacks]
                patience = recipe.patience if valid is not None else None
                if any(answer is True for answer in asked):
                    history.stopped = "callback"
                elif not epoch.complete or time.monotonic() > deadline:
                    history.stopped = "time limit"
                elif patience and state.epoch - state.best_epoch >= patience:
                    history.stopped = "patience"
                else:
                    # without a best epoch there is nothing to go on with
                    if checkpoint and state.best and checkpoint.due:
                        engine.store()
                        checkpoint.save(state, network, optimizer, generators)
                    continue
                break
    except KeyboardInterrupt:
        if not state.best:
            raise
        history.stopped = "interrupted"
    except NotFinite as error:
        state.layers += recorder.rows(state.epoch + 1)
        cause = _explain(network, error, train, state, recipe, feature_names)
        if not state.best:
            raise TrainingError(cause) from None
        history.stopped = f"diverged: {cause}"
    finally:
        set_dropout_generator(network, None)
        engine.store()
    if not state.best:
        last = state.rows[-1]
        at = f"{recipe.monitor} is {_monitored(last, recipe.monitor):g} after epoch {state.epoch}"
        raise TrainingError(f"no epoch ended with a finite value: {at}. {_mend(recipe)}")
    # An interrupt can fall between the row of an epoch and the decision on its weights.
    history.rows = state.rows[: max(state.best_epoch, state.epoch)]
    history.best_epoch = state.best_epoch
    network.load_state_dict(state.best)
    network.eval()
    if checkpoint and checkpoint.keeps_end and history.stopped not in ("interrupted", "callback"):
        checkpoint.end(history, network)
    return history


def _rates(
    scale: Callable[[int], float], rates: Sequence[float], before: int, step: int
) -> list[float]:
    """The rate of each parameter group at a step of an epoch that began after ``before`` steps."""
    factor = scale(before + step)
    return [factor * rate for rate in rates]


def _schedule(recipe: Recipe, n_steps: int | None) -> Callable[[int], float] | None:
    """What the rates are multiplied by at each step of the training; None if they stay."""
    if recipe.schedule == "constant" and not recipe.warmup:
        return None
    if n_steps is None:
        raise SettingError(
            f"schedule {recipe.schedule!r} needs the number of batches, and this loader has no "
            "len(); leave schedule and warmup out, or give the loader a length"
        )
    return partial(
        rate_at, n_steps=n_steps * recipe.epochs, lr=1.0, schedule=recipe.schedule,
        warmup=float(recipe.warmup),
    )  # fmt: skip


def _monitored(row: dict[str, float], name: str) -> float:
    if name == "loss":
        return next((row[n] for n in ("valid_loss", "loss", "train_loss") if n in row), math.inf)
    if name not in row:
        raise SettingError(f"monitor {name!r} cannot be measured on these validation rows")
    return row[name]


def _keep_best(state: State, network: nn.Module, value: float, min_delta: float) -> None:
    """Copy the weights if this epoch is the best so far; one that is not finite never is."""
    if not math.isfinite(value) or (state.best and not value < state.best_value - min_delta):
        return
    # An interrupt between these lines must not leave an epoch's number beside another's weights.
    state.best, state.best_epoch, state.best_value = copy_state(network), state.epoch, value


# ---------------------------------------------------------------- what made the loss NaN


def _explain(
    network: nn.Module,
    error: NotFinite,
    train: Rows | Loader,
    state: State,
    recipe: Recipe,
    names: Sequence[str],
) -> str:
    """Step, layer and, if it came from the data, column and row."""
    where = f"the loss is not finite at epoch {state.epoch + 1}, step {error.step + 1}"
    # All rows, since a cell can also have spoilt the weights in a step whose loss was finite.
    whole = isinstance(train, Rows)
    rows = train.picked() if isinstance(train, Rows) else Rows(error.X, error.y)
    of = "the training rows" if whole else "the batch"
    cell = not_finite(rows.X)
    if cell is not None:
        row, column, value = cell
        name = "" if column is None else f" in column {_name(column, names)}"
        return (
            f"{where}: row {row + 1} of {of} has {value}{name}. Correct that cell or leave its "
            "row out."
        )
    cell = not_finite(rows.y)
    if cell is not None:
        return f"{where}: the target of row {cell[0] + 1} of {of} is not finite."
    mend = _mend(recipe)
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            place, _, kind = name.rpartition(".")
            return f"{where}: the {kind} of layer {_layer(network, place)} blew up. {mend}"
    with torch.no_grad():
        found = walk(network, error.X)
    for visit in found.visits:
        if visit.output is not None and not torch.isfinite(visit.output).all():
            return (
                f"{where}: the output of layer {_layer(network, visit.name)} is not finite. {mend}"
            )
    if isinstance(found.outputs, Tensor) and found.outputs.numel():
        top = float(found.outputs.abs().max())
        return f"{where}: the outputs reach {top:.0e}, and their loss is beyond all numbers. {mend}"
    return f"{where}: the outputs are finite, their loss is not. {mend}"


def not_finite(values: Any) -> tuple[int, int | None, float] | None:
    """Row, column (of tables) and value of the first NaN or infinity; None if there is none."""
    several = values if isinstance(values, tuple) else (values,)
    for one in values.values() if isinstance(values, dict) else several:
        if isinstance(one, Tensor) and one.is_floating_point() and not torch.isfinite(one).all():
            place = (~torch.isfinite(one)).nonzero()[0].tolist()
            column = place[1] if one.dim() == 2 and one is values else None
            return place[0], column, float(one[tuple(place)])
    return None


def _name(column: int, names: Sequence[str]) -> str:
    return repr(names[column]) if column < len(names) else f"'number {column}'"


def _mend(recipe: Recipe) -> str:
    return f"Lower the learning rate (lr {recipe.lr:g}) or limit the gradients (clip_norm 1)."


def _layer(network: nn.Module, name: str) -> str:
    kind = type(network.get_submodule(name)).__name__
    return f"{name!r} ({kind})"
