"""``.fit()`` for any ``nn.Module``: the one loop of layerwise, on whatever you wrote and have."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import Loss
from layerwise.engine.torch import FULL, Loader, Precision, Rows, to_device
from layerwise.errors import DataError, NetworkWarning, SettingError, did_you_mean
from layerwise.network.keep import kept
from layerwise.progress import Progress
from layerwise.training.checks import check_batch, check_learns, check_optimizer, check_rows
from layerwise.training.fit import Callback, EpochEnd, copy_state
from layerwise.training.fit import fit as run_epochs
from layerwise.training.history import History
from layerwise.training.losses import kind_of, loss_of, takes_classes
from layerwise.training.optimizer import OPTIMIZERS, make_optimizer
from layerwise.training.recipe import SCHEDULES, SMALL, Recipe, settle
from layerwise.training.scores import Metric, higher_is_better, score_of
from layerwise.training.source import device_of, source_of, types_for


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
    metrics: str | Sequence[str] | Mapping[str, Metric] = (),
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
    first epoch), the weights are what they were, too.

    Parameters
    ----------
    model : any module; with several inputs it is called as ``model(X1, X2)``, or by their names
    data : (X, y), or (X, y, w) with weights of shape (N,), whose parts are tensors, arrays, frames
        of numbers or lists; X may be a tuple or a dict of inputs. Or a ``TensorDataset``, any
        ``Dataset``, or a ``DataLoader``, which is used as it is and gives such pairs or triples.
        Tensors stay as they are; arrays and frames take the model's float type, or stay integers
        where y is classes or the model has embeddings. Weights are brought to mean 1, and rows of
        weight 0 left out; from a loader they are taken as they are
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
        ``CyclicLR``: after each step)
    warmup : share of the steps in which the rate climbs to its value
    clip_norm, clip_value : limits of the gradients' norm and of each entry
    patience : stop after so many epochs without gain on the validation data; None never does
    min_delta : what counts as a gain
    monitor : "loss", or a metric, that decides on the best epoch
    mode : whether a metric should become "min" or "max"; known of the metrics that have names here
    metrics : names (accuracy, rmse, mae), which count row weights, or functions of (outputs, y) by
        name, measured on the validation data after each epoch
    callbacks : called with each `layerwise.training.fit.EpochEnd`; one that returns True ends it
    time_limit : seconds
    engine : "auto" and "torch" both train with PyTorch; "native" asks for layerwise's own core,
        which this version does not have
    device : where to train, e.g. "cuda"; the model comes back. None is where it is
    amp : mixed precision: True takes bfloat16 where the device has it, else float16 with a scaler;
        or the type itself
    threads : of torch, on the CPU; with 1 the result is the same to the byte everywhere
    random_state : of shuffling and dropout
    progress : whether to show each epoch on stderr

    Returns
    -------
    History
        One row for each epoch, ``best_epoch``, and ``stopped``, why it ended.

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
    >>> X = torch.linspace(-1, 1, 64)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> history = fit(model, (X, X**2), nn.MSELoss(), lr=0.01, epochs=50)
    >>> history["train_loss"][-1] < history["train_loss"][0] / 10
    True
    """
    _check_engine(engine)
    recipe = Recipe(
        lr=lr, momentum=momentum, weight_decay=weight_decay,
        optimizer_options=dict(optimizer_options or {}),
        schedule=schedule if isinstance(schedule, str) else "constant", warmup=warmup,
        clip_norm=clip_norm, clip_value=clip_value, batch_size=batch_size, epochs=epochs,
        patience=patience, min_delta=min_delta, monitor=monitor, time_limit=time_limit,
        threads=threads,
    )  # fmt: skip
    higher = higher_is_better(monitor, mode)
    compute = loss_of(loss)
    home = device_of(model)
    place = home if device is None else torch.device(device)
    size = 32 if batch_size == "auto" else int(recipe.batch_size)
    with ExitStack() as afterwards:
        afterwards.enter_context(kept(model, buffers=False))
        torch.manual_seed(random_state)  # of plain dropout and of loaders; put back at the end
        if place != home:
            afterwards.callback(model.to, home)
            model.to(place)
        types = types_for(model, takes_classes(loss))
        rows, names = source_of(data, types, place, batch_size=size)
        rows = _checked(rows, model, loss, compute, names)
        held = None
        if valid is not None:
            held, _ = source_of(valid, types, place, "valid", batch_size=size, shuffle=False)
            held = _checked(held, model, loss, compute, names, "valid ")
        score = score_of(metrics, getattr(held, "w", None), kind_of(loss))
        recipe, chosen = _optimizer(optimizer, model, recipe, rows)
        _move_state(chosen, place)
        told = list(callbacks)
        if progress:
            shown = Progress(sys.stderr)
            told.append(shown)
            afterwards.callback(shown.close)
        if not isinstance(schedule, str):
            told += _stepping(schedule, chosen, afterwards)
        before = copy_state(model)
        try:
            history = run_epochs(
                model, compute, rows, held, recipe, seed=random_state,
                score=None if held is None else score, higher_is_better=higher,
                callbacks=told, optimizer=chosen, feature_names=names,
                precision=_precision(amp, place),
            )  # fmt: skip
        except BaseException:
            model.load_state_dict(before)
            raise
    return history


def _check_engine(engine: str) -> None:
    if engine == "native":
        raise SettingError(
            "engine 'native' is not part of this version: its core is not built yet. 'auto' and "
            "'torch' train with PyTorch"
        )
    if engine not in ("auto", "torch"):
        known = did_you_mean(engine, ("auto", "torch", "native"))
        raise SettingError(f"unknown engine {engine!r}. {known}")


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


def _checked(
    rows: Rows | Loader,
    model: nn.Module,
    loss: Any,
    compute: Loss,
    names: Sequence[str],
    which: str = "",
) -> Rows | Loader:
    """The same rows, met by the checks: now, or of a loader when its first batch comes."""
    if isinstance(rows, Loader):

        def check(batch: Any) -> None:
            if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 3:
                what = f"{len(batch)} parts" if isinstance(batch, tuple | list) else "no pair"
                raise DataError(
                    f"a batch of the {which}loader has {what}; it has to be (X, y) or (X, y, w), "
                    "where X can be a tuple or a dict of inputs"
                )
            parts = Rows(*to_device(batch, rows.device))
            _warn(check_batch(model, parts, loss, compute), which)

        return replace(rows, loader=_Met(rows.loader, check))
    check_rows(rows, names, which)
    _warn(check_batch(model, rows, loss, compute, names), which)
    return rows


def _warn(doubts: Sequence[str], which: str) -> None:
    if not which:  # the validation rows go through the same network: once is enough
        for doubt in doubts:
            warnings.warn(doubt, NetworkWarning, stacklevel=4)


@dataclass
class _Met:
    """A loader whose first batch is checked before anything is learnt from it."""

    loader: Iterable[Any]
    check: Callable[[Any], None]
    done: bool = False

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if not self.done:
                self.check(batch)
                self.done = True
            yield batch

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]


# ---------------------------------------------------------------- optimizer


def _optimizer(
    given: Any, model: nn.Module, recipe: Recipe, rows: Rows | Loader
) -> tuple[Recipe, torch.optim.Optimizer]:
    """The optimizer, and the recipe with its name."""
    if isinstance(given, torch.optim.Optimizer):
        for name in ("lr", "weight_decay", "optimizer_options"):
            if getattr(recipe, name) not in ("auto", {}):
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
    recipe = replace(recipe, optimizer=name)
    recipe = settle(recipe, len(rows) if isinstance(rows, Rows) else SMALL)
    check_learns(model)
    if isinstance(kind, str) or kind in OPTIMIZERS.values():
        return recipe, make_optimizer(model, recipe)
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        return recipe, kind(learning, lr=recipe.lr, **recipe.optimizer_options)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{name} refuses its options: {error}") from None


def _move_state(optimizer: torch.optim.Optimizer, place: torch.device) -> None:
    """What an optimizer remembers of earlier steps goes where the parameters are."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim():
                state[name] = value.to(place)


def _stepping(
    scheduler: Any, optimizer: torch.optim.Optimizer, afterwards: ExitStack
) -> list[Callback]:
    """What steps a scheduler of torch: a callback after each epoch, or a hook after each step."""
    schedulers = torch.optim.lr_scheduler
    if not isinstance(scheduler, schedulers.LRScheduler | schedulers.ReduceLROnPlateau):
        known = ", ".join(SCHEDULES)
        raise SettingError(f"schedule has to be one of {known}, or a scheduler of torch.optim")
    if scheduler.optimizer is not optimizer:
        raise SettingError("the scheduler is of another optimizer; make it from the one you give")
    if isinstance(scheduler, schedulers.OneCycleLR | schedulers.CyclicLR):
        handle = optimizer.register_step_post_hook(lambda *_: scheduler.step())
        afterwards.callback(handle.remove)
        return []

    def step(event: EpochEnd) -> None:
        if isinstance(scheduler, schedulers.ReduceLROnPlateau):
            scheduler.step(event.row.get("valid_loss", event.row["train_loss"]))
        else:
            scheduler.step()

    return [step]
