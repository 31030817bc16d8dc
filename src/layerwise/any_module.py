"""``.fit()`` for any ``nn.Module``: the one loop of layerwise, on whatever you wrote and have."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from layerwise.diagnosis.after import Patient, patient
from layerwise.engine.loss import Loss
from layerwise.engine.torch import FULL, Loader, Precision, Rows, to_device
from layerwise.errors import (
    DataError,
    LayerwiseError,
    NetworkError,
    NetworkWarning,
    SettingError,
)
from layerwise.network.keep import kept
from layerwise.progress import Progress
from layerwise.training.checks import check_batch, check_model, check_rows, optimizer_doubts
from layerwise.training.fit import Callback, copy_state
from layerwise.training.fit import fit as run_epochs
from layerwise.training.history import History
from layerwise.training.losses import keeps_integers, kind_of, loss_of
from layerwise.training.recipe import Recipe
from layerwise.training.scores import Metrics, higher_is_better, score_of
from layerwise.training.source import detached, device_of, every, source_of, types_for
from layerwise.training.stepping import move_state, optimizer_of, scheduling, set_rates


def fit(
    model: nn.Module,
    data: Any,
    loss: str | nn.Module | Callable[..., Any],
    optimizer: str | type[torch.optim.Optimizer] | torch.optim.Optimizer = "adamw",
    *,
    epochs: int = 200,
    batch_size: int | str = "auto",
    valid: Any = None,
    lr: float | str = "auto",
    momentum: float = 0.9,
    weight_decay: float | str = "auto",
    optimizer_options: Mapping[str, Any] | None = None,
    schedule: str | torch.optim.lr_scheduler.LRScheduler = "constant",
    warmup: float = 0.0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    patience: int | None = 20,
    min_delta: float = 0.0,
    monitor: str = "loss",
    mode: str | None = None,
    metrics: Metrics = (),
    callbacks: Sequence[Callback] = (),
    time_limit: float | None = None,
    engine: str = "auto",
    device: str | torch.device | None = None,
    amp: bool | torch.dtype = False,
    threads: int = 1,
    random_state: int = 0,
    progress: bool = False,
) -> History:
    """Train any PyTorch module, and leave it with the weights of its best epoch.

    Everything else about the model and the process is left as it was: the training mode of each
    module, the device, the gradients on the parameters, hooks, the default dtype, the number of
    threads and torch's random state. If nothing could be learnt (an error, or an interrupt in the
    first epoch), the weights are what they were, too. Parts that alone are in evaluation mode,
    such as a frozen backbone after ``model.backbone.eval()``, stay in it while the rest trains.

    Parameters
    ----------
    model : any module; with several inputs it is called as ``model(X1, X2)``, or by their names
    data : (X, y), or (X, y, w) with weights of shape (N,), whose parts are tensors, arrays, frames
        of numbers or lists; X and y may be tuples or dicts of such. Or a ``TensorDataset``, any
        ``Dataset``, or a ``DataLoader``, which is used as it is and gives such pairs or triples.
        Tensors stay as they are; arrays and frames take the model's float type, or stay integers
        where y is classes, the loss a function of yours, or the model has embeddings. Weights are
        brought to mean 1, and rows of weight 0 left out; from a loader they are taken as they are
    loss : a loss of ``torch.nn``; a function of (outputs, y) that gives one number, or one for
        each row; or a name: mse, l1, huber, bce, cross_entropy, all on raw outputs
    optimizer : an instance, which keeps its own settings; or a class or a name, built as in the
        main job from ``lr``, ``momentum``, ``weight_decay`` (not of biases and norms) and
        ``optimizer_options``
    epochs : passes over the data, at most
    batch_size : rows of a step; "auto" takes 32 to 256 by the number of rows, or all below 200
    valid : data that decide on the best epoch and on when to stop; without them the loss on the
        training rows decides, and nothing stops early
    lr, momentum, weight_decay, optimizer_options : of an optimizer given by class or name
    schedule : constant, cosine, linear, exponential, step or one_cycle, over all steps; or a
        scheduler of ``torch.optim.lr_scheduler``, stepped after each epoch (``OneCycleLR`` and
        ``CyclicLR``: after each step; ``ReduceLROnPlateau``: with what ``monitor`` says)
    warmup : share of the steps in which the rate climbs to its value
    clip_norm, clip_value : limits of the gradients' norm and of each entry
    patience : stop after so many epochs without gain on the validation data; None never does
    min_delta : what counts as a gain
    monitor : "loss", or a metric, that decides on the best epoch
    mode : whether a metric should become "min" or "max"; known of the metrics that have names here
    metrics : names (accuracy, rmse, mae), which count row weights, or functions of (outputs, y) by
        name, measured on the validation data after each epoch; they need ``valid``
    callbacks : called with each `layerwise.training.fit.EpochEnd`; one that returns True ends it
    time_limit : seconds
    engine : "auto" trains on layerwise's own core where it can run all of this (an
        ``nn.Sequential`` of usual layers on the CPU, rows in memory, a usual loss and optimizer),
        and else with PyTorch; "native" insists, "torch" never does. ``History.engine`` says which
    device : where to train, e.g. "cuda"; the model comes back. None is where it is
    amp : mixed precision: True takes bfloat16 where the device has it, else float16 with a scaler;
        or the type itself
    threads : of torch, on the CPU; with 1 the result is the same to the byte everywhere
    random_state : of shuffling and dropout
    progress : whether to show each epoch on stderr

    Returns
    -------
    History
        One row for each epoch, ``best_epoch``, ``stopped``, why it ended, and ``findings``, what
        the doctor says of it.

    Raises
    ------
    NetworkError
        Before the first step, if model, data, loss and optimizer do not fit each other: names the
        layer and both shapes.
    DataError
        For rows that cannot be learnt from, naming row and column.
    SettingError
        For a setting outside its limits.
    TrainingError
        If the loss becomes NaN or infinite before an epoch has ended.

    Warns
    -----
    NetworkWarning
        For what would train, and surely not as meant: softmax before cross-entropy, linear layers
        with nothing between, columns far from scale.

    Examples
    --------
    >>> _ = torch.manual_seed(0)  # of the initial weights, which are yours
    >>> X = torch.linspace(-1, 1, 64)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> history = fit(model, (X, X**2), nn.MSELoss(), lr=0.01, epochs=200)
    >>> history["train_loss"][-1] < history["train_loss"][0] / 10
    True
    """
    check_model(model)
    recipe = Recipe(
        lr=lr, momentum=momentum, weight_decay=weight_decay,
        optimizer_options=dict(optimizer_options or {}),
        schedule=schedule if isinstance(schedule, str) else "constant", warmup=warmup,
        clip_norm=clip_norm, clip_value=clip_value, batch_size=batch_size, epochs=epochs,
        patience=patience, min_delta=min_delta, monitor=monitor, time_limit=time_limit,
        engine=engine, threads=threads,
    )  # fmt: skip
    higher = higher_is_better(monitor, mode, metrics)
    score = score_of(metrics)
    if valid is None and score is not None:
        raise SettingError("metrics are measured on validation data, and there are none: add valid")
    compute = loss_of(loss)
    home = device_of(model)
    place = _place(home if device is None else device)
    precision = _precision(amp, place)
    size = 32 if batch_size == "auto" else int(recipe.batch_size)
    with ExitStack() as afterwards:
        afterwards.enter_context(kept(model, buffers=False))
        afterwards.enter_context(_seeded(random_state, place))
        afterwards.enter_context(_set_apart(model))
        if place != home:
            for moved in (model, loss):
                if isinstance(moved, nn.Module):
                    afterwards.callback(moved.to, home)
                    moved.to(place)
        types = types_for(model, keeps_integers(loss))
        source, names = source_of(data, types, place, batch_size=size)
        if isinstance(source, Loader):
            _check_loader(data, model, batch_size)
        rows = _checked(source, model, loss, compute, names)
        held = None
        if valid is not None:
            held, found = source_of(valid, types, place, "valid", batch_size=size, shuffle=False)
            _check_names(names, found)
            held = _checked(held, model, loss, compute, names, "valid ")
            ignore = getattr(loss, "ignore_index", -100)
            score = score_of(metrics, getattr(held, "w", None), kind_of(loss), ignore)
        recipe, chosen = optimizer_of(optimizer, model, recipe, rows)
        _warn(optimizer_doubts(model, loss, chosen))
        if precision.scaler and isinstance(chosen, torch.optim.LBFGS):
            raise SettingError("LBFGS does not go with float16; take amp=torch.bfloat16")
        afterwards.callback(move_state, chosen, home)
        move_state(chosen, place)
        told = list(callbacks)
        if progress:
            shown = Progress(sys.stderr)
            told.append(shown)
            afterwards.callback(shown.close)
        if isinstance(schedule, str):
            afterwards.callback(set_rates, chosen, [group["lr"] for group in chosen.param_groups])
        else:
            told += scheduling(schedule, chosen, recipe, rows, higher, afterwards)
        before = copy_state(model)
        examinee = _patient(model, loss, rows, held, chosen, recipe, names)
        try:
            history = run_epochs(
                model, compute, rows, held, recipe, seed=int(random_state), score=score,
                higher_is_better=higher, callbacks=told, optimizer=chosen, feature_names=names,
                precision=precision,
            )  # fmt: skip
            return history if examinee is None else examinee.remember(history)
        except BaseException as error:
            model.load_state_dict(before)
            if "more than 1 value per channel" in str(error):
                raise NetworkError(
                    "a batch has one row, of which batch normalisation cannot take the deviation: "
                    "give the loader drop_last=True or another batch_size, or fit more rows"
                ) from None
            raise


def _patient(
    model: nn.Module,
    loss: Any,
    rows: Rows | Loader,
    held: Rows | Loader | None,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    names: Sequence[str],
) -> Patient | None:
    """What the doctor has to know of the beginning; None for a loader, or what cannot be copied."""
    if not isinstance(rows, Rows):
        return None
    try:
        return patient(
            model, optimizer, loss, rows, held if isinstance(held, Rows) else None,
            batch_size=int(recipe.batch_size), epochs=recipe.epochs, names=names,
        )  # fmt: skip
    except Exception:  # modules of all kinds: nobody has asked for findings yet
        return None


# ---------------------------------------------------------------- settings


def _place(device: Any) -> torch.device:
    """The device, if this machine has it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).partition("\n")[0]
        raise SettingError(f"device {device!r} cannot be used here: {said}") from None


@contextmanager
def _seeded(random_state: Any, place: torch.device) -> Iterator[None]:
    """torch's own random state, of plain dropout and of loaders, for as long as this lasts."""
    if not isinstance(random_state, Integral) or not 0 <= int(random_state) < 2**63:
        raise SettingError(
            f"random_state has to be a whole number of at least 0; got {random_state!r}"
        )
    cuda = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(int(random_state))
        if cuda:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(int(random_state))
        yield


@contextmanager
def _set_apart(model: nn.Module) -> Iterator[None]:
    """Parts that alone were put into evaluation mode, such as a frozen backbone, stay in it."""
    parts = [one for one in model.modules() if model.training and not one.training]
    parts = [one for one in parts if "train" not in vars(one)]
    for one in parts:
        one.train = partial(_itself, one)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for one in parts:
            del one.train


def _itself(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _precision(amp: bool | torch.dtype, place: torch.device) -> Precision:
    """float32 throughout, or the fast type with a scaler where its range asks for one."""
    if amp is False:
        return FULL
    if amp is True:
        fits = place.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        amp = torch.bfloat16 if fits else torch.float16
    if amp not in (torch.bfloat16, torch.float16):
        raise SettingError(
            f"amp has to be True, False, torch.bfloat16 or torch.float16; got {amp!r}"
        )
    scaler = torch.amp.GradScaler(place.type) if amp == torch.float16 else None
    return Precision(place.type, amp, scaler)


# ---------------------------------------------------------------- data


def _check_loader(data: Any, model: nn.Module, batch_size: int | str) -> None:
    if isinstance(data, DataLoader) and batch_size != "auto":
        raise SettingError("batch_size is the DataLoader's own business; say it there")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise NetworkError(
            "the model has lazy layers, which take their sizes from the first rows: call the model "
            "once on a batch of the loader before"
        )


def _check_names(train: Sequence[str], valid: Sequence[str]) -> None:
    """Frames are taken by place, so their columns have to stand in the same order."""
    for place, (one, other) in enumerate(zip(train, valid)):
        if one != other:
            raise DataError(
                f"column {place} of valid X is {other!r}, and of X {one!r}: give both the same "
                "columns in the same order, valid_X[X.columns]"
            )


def _checked(
    rows: Rows | Loader,
    model: nn.Module,
    loss: Any,
    compute: Loss,
    names: Sequence[str],
    which: str = "",
) -> Rows | Loader:
    """The same rows, met by the checks: now, or of a loader when its first batch comes."""

    def check(some: Rows, whole: bool) -> None:
        try:
            doubts = check_batch(model, some, loss, compute, names, whole=whole)
        except LayerwiseError as error:
            if not which:
                raise
            raise type(error)(f"{which}data: {error}") from error.__cause__
        if not which:  # the validation rows go through the same network: once is enough
            _warn(doubts)

    if isinstance(rows, Loader):
        device = rows.device
        return replace(
            rows, loader=_Met(rows.loader, which, lambda some: check(_batch(some, device), True))
        )
    rows = Rows(detached(rows.X), detached(rows.y), rows.w)
    check_rows(rows, names, which)
    check(rows, False)
    return rows


def _batch(batch: Any, device: torch.device) -> Rows:
    """A loader's batch as rows, if it is of the kind that fit takes."""
    shape = "has to be (X, y) or (X, y, w), where X can be a tuple or a dict of inputs"
    if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 3:
        what = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise DataError(f"a batch of the loader is {what}; it {shape}")
    rows = Rows(*to_device(batch, device))
    inputs, answers = every(rows.X), every(rows.y)
    if not inputs or not all(isinstance(one, Tensor) and one.dim() for one in [*inputs, *answers]):
        raise DataError(f"a batch of the loader holds what is no tensor of rows; it {shape}")
    if rows.w is not None and (not isinstance(rows.w, Tensor) or rows.w.shape != (len(rows),)):
        raise DataError(
            f"the third part of a batch is read as row weights ({len(rows)},), and is another "
            "thing here; several inputs go as ((X1, X2), y)"
        )
    return rows


def _warn(doubts: Sequence[str]) -> None:
    """Warn at the line that called layerwise."""
    level, frame = 1, sys._getframe()
    inside = ("layerwise", "torch")  # a loader's first batch comes in the midst of the training
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        level, frame = level + 1, frame.f_back
    for doubt in doubts:
        warnings.warn(doubt, NetworkWarning, stacklevel=level)


@dataclass
class _Met:
    """A loader whose first batch is checked before anything is learnt from it."""

    loader: Iterable[Any]
    which: str
    check: Callable[[Any], None]
    done: bool = False

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if not self.done:
                self.check(batch)
                self.done = True
            yield batch
        if not self.done:
            raise DataError(f"the {self.which}data gave no batch")

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]
