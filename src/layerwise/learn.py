"""From training rows to a model: encode, build, fit. Estimators and runs both go this way."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerwise import metrics
from layerwise._version import __version__
from layerwise.bagging import answers_of, finish, held_out, only, parts_of, train_members, within
from layerwise.data.bins import as_bins, learn_bins
from layerwise.data.encoder import Encoder
from layerwise.data.schema import Schema
from layerwise.data.table import Table
from layerwise.data.target import Target
from layerwise.engine.loss import LOSSES
from layerwise.engine.torch import Rows, first
from layerwise.errors import DataError, SettingError
from layerwise.model.model import Model
from layerwise.network.bag import Bag
from layerwise.network.build import build, to_arrays
from layerwise.network.plan import design
from layerwise.out_of_fold import OutOfFold
from layerwise.prepare import Part
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.fit import Callback, fit
from layerwise.training.history import History
from layerwise.training.many import Job
from layerwise.training.optimizer import make_optimizer
from layerwise.training.recipe import Recipe, settle
from layerwise.weights import class_weights, effective_weight

_LOSS = {"regression": "mse", "binary": "bce", "multiclass": "cross_entropy", "multilabel": "bce"}
_LOSSES = {
    "regression": ("mse", "l1", "huber"), "binary": ("bce",),
    "multiclass": ("cross_entropy",), "multilabel": ("bce",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a training gives."""

    model: Model
    history: History
    networks: list[nn.Sequential]
    optimizers: list[torch.optim.Optimizer]
    out_of_fold: OutOfFold | None = None

    @property
    def network(self) -> nn.Module:
        """The one network, or several as one module that answers with their mean."""
        if len(self.networks) == 1:
            return self.networks[0]
        model = self.model
        return Bag(self.networks, model.target.task, model.temperature, model.limits).eval()


def learn(
    train: Part,
    valid: Part | None,
    schema: Schema,
    target: Target,
    recipe: Recipe,
    *,
    fold: np.ndarray | None = None,
    seed: int = 0,
    class_weight: str | Mapping[Any, float] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    start: Learnt | None = None,
    weight_unit: float | None = None,
    deadline: float | None = None,
    examined: bool = False,
) -> Learnt:
    """Train a network on a table, or a bag of them.

    Parameters
    ----------
    train, valid : rows to learn from, and rows that decide on the best epoch (or None)
    schema : which columns the network sees
    target : learnt on the training rows
    recipe : the settings; with several ``members`` so many networks are trained side by side
    fold : int array, the fold of each training row as `layerwise.data.split.deal` gives it. Each
        member holds one fold out, which decides on its best epoch, and trains on the others;
        without it all members train on all rows, from different seeds
    seed : of everything random, through private generators
    class_weight : "balanced", or a weight for each class; multiplies the rows' weights
    callbacks, checkpoint : see `layerwise.training.fit.fit`
    start : go on from here: its encoder, its network (trained further in place) and its optimizer
    weight_unit : the row weight that counts as one row; the mean of these rows if None
    deadline : ``time.monotonic()`` at which training has to end, instead of the recipe's time limit
    examined : note how it begins, for the doctor (`layerwise.diagnosis.after`)
    """
    metrics.check_monitor(recipe.monitor, target)
    loss = LOSSES[loss_name(recipe, target)]
    weights = class_weights(class_weight, target, train)
    parts = parts_of(len(train), fold, recipe.members)
    largest = max(len(train) if rows is None else len(rows) for rows, _ in parts)
    recipe = settle(_made_with(recipe, start), largest)
    if recipe.norm == "batch" and recipe.batch_size == 1:
        raise SettingError("norm 'batch' needs at least 2 rows in a step, and batch_size is 1")
    dtype: Any = np.dtype(recipe.dtype)
    fit_weight = effective_weight(train, target, weights, weight_unit)
    device = torch_device(recipe.device)
    seeds = np.random.SeedSequence(seed).generate_state(2 * recipe.members).reshape(-1, 2)
    if start is None:
        encoder = Encoder.fit(train.table, schema, train.weight)
        _refuse_no_inputs(encoder, schema, train.table)
        train_rows = rows_of(encoder, target, train, fit_weight, dtype, device)
        numbers = first(train_rows.X)[:, : encoder.n_numbers].cpu().numpy()
        edges = learn_bins(numbers, int(recipe.bins), train.weight)
        plan = design(
            encoder.n_numbers, encoder.n_codes, target.n_outputs, bins=as_bins(edges),
            hidden_layer_sizes=recipe.hidden_layer_sizes, activation=recipe.activation,
            dropout=float(recipe.dropout), norm=recipe.norm,
        )  # fmt: skip
        kind, ends = getattr(torch, recipe.dtype), np.concatenate([np.empty(0, dtype), *edges])
        networks = [
            build(plan, seed=int(drawn), dtype=kind, edges=ends).to(device) for drawn, _ in seeds
        ]
        optimizers = [make_optimizer(network, recipe) for network in networks]
    else:
        recipe = _going_on(recipe, start)
        encoder, plan, dtype = start.model.encoder, start.model.plan, start.model.dtype
        networks, optimizers = [one.to(device) for one in start.networks], start.optimizers
        train_rows = rows_of(encoder, target, train, fit_weight, dtype, device)
    valid_rows = None
    if valid is not None:
        valid_weight = effective_weight(valid, target, weights)
        valid_rows = rows_of(encoder, target, valid, valid_weight, dtype, device)

    examinee = None
    if examined:
        from layerwise.diagnosis.after import patient

        examinee = patient(
            networks[0], optimizers[0], loss_name(recipe, target), train_rows, valid_rows,
            batch_size=int(recipe.batch_size), epochs=recipe.epochs, names=encoder.feature_names,
            classes=() if target.is_regression else tuple(map(str, target.classes)),
            balanced=class_weight is not None or fit_weight is not None,
        )  # fmt: skip
    jobs = []
    for number, (network, optimizer, (inside, outside)) in enumerate(
        zip(networks, optimizers, parts), start=1
    ):
        judges = valid if outside is None else answers_of(train, outside)
        jobs.append(Job(
            network, loss, only(train_rows, inside),
            valid_rows if outside is None else only(train_rows, outside), recipe,
            seed=int(seeds[number - 1][1]),
            score=None if judges is None else partial(_score, target, judges, recipe.monitor),
            higher_is_better=recipe.monitor in metrics.HIGHER_IS_BETTER,
            callbacks=callbacks, optimizer=optimizer, feature_names=encoder.feature_names,
            checkpoint=checkpoint,
        ))  # fmt: skip
    if len(jobs) == 1:
        history = fit(**vars(replace(jobs[0], recipe=within(recipe, deadline))))
        kept = [0]
    else:
        histories, stopped = train_members(jobs, recipe.time_limit, deadline)
        kept = sorted(histories)
        history = History.of_bag([histories[i] for i in kept], stopped)
    networks, optimizers = [networks[i].cpu() for i in kept], [optimizers[i] for i in kept]
    if examinee is not None:
        examinee.remember(history)
    info = {
        "layerwise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "best_epoch": history.best_epoch,
        "rows": {"train": len(train), "valid": len(valid) if valid else 0},
    }
    members = [to_arrays(network) for network in networks]
    model = Model(schema, encoder, plan, members, target, recipe.to_json(), info)
    if len(jobs) == 1:
        return Learnt(model, history, networks, optimizers)
    model.info["best_epochs"] = [member.best_epoch for member in history.members]
    held = held_out(model, train, valid, train_rows, valid_rows, [parts[i][1] for i in kept], fold)
    model, held = finish(
        model, train, held, class_weight, None if start is None else start.model.limits
    )
    return Learnt(model, history, networks, optimizers, held)


def _score(
    target: Target, valid: Part, monitor: str, outputs: Tensor, y: Tensor
) -> dict[str, float]:
    """One metric for each epoch, and the one that decides on the best of them."""
    raw = outputs.cpu().numpy()
    row = metrics.live(target, valid.y, raw, valid.weight)
    if monitor in ("loss", *row):
        return row
    if not np.all(np.isfinite(raw)):  # the weights blew up: there is nothing to measure
        return {**row, monitor: np.nan}
    found = metrics.evaluate(target, valid.y, raw, valid.weight)
    return row | {name: found[name] for name in [monitor] if name in found}


# What a network and its optimizer are made with, and cannot be changed when they are taken over.
_MADE_WITH = (
    "members", "hidden_layer_sizes", "activation", "bins", "dropout", "norm", "optimizer",
    "optimizer_options", "momentum", "weight_decay",
)  # fmt: skip


def _made_with(recipe: Recipe, start: Learnt | None) -> Recipe:
    """The recipe with what a network was made with, where it leaves that open."""
    if start is None:
        return recipe
    open_ = [name for name in _MADE_WITH if getattr(recipe, name) == "auto"]
    return replace(recipe, **{name: start.model.recipe[name] for name in open_})


def _going_on(recipe: Recipe, start: Learnt) -> Recipe:
    """The recipe, if it goes with the network it starts from, in that network's precision."""
    before = Recipe.from_json(start.model.recipe)
    for name in _MADE_WITH:
        if getattr(recipe, name) != getattr(before, name):
            raise SettingError(
                f"{name} was {getattr(before, name)!r} when the network was made and is now "
                f"{getattr(recipe, name)!r}; fit a new estimator, or leave the setting as it was"
            )
    return replace(recipe, dtype=before.dtype)


def _refuse_no_inputs(encoder: Encoder, schema: Schema, table: Table) -> None:
    if encoder.steps:
        return
    left_out = ", ".join(f"{c.name} ({c.role})" for c in schema if c.role != "target")
    raise DataError(
        f"{table.source} has no column to learn from; "
        f"left out were: {left_out or 'none, the target is the only column'}"
        f"{'. Say what one of them is with --as COLUMN=ROLE' if left_out else ''}"
    )


def rows_of(
    encoder: Encoder,
    target: Target,
    part: Part,
    weight: np.ndarray | None,
    dtype: Any,
    device: torch.device,
) -> Rows:
    """The part as tensors, on the device."""
    X = torch.from_numpy(encoder.transform(part.table, dtype)).to(device)
    encoded = target.encode(part.y)
    y = torch.from_numpy(encoded if encoded.dtype == np.int64 else encoded.astype(dtype)).to(device)
    w = None if weight is None else torch.from_numpy(weight.astype(dtype)).to(device)
    return Rows(X, y, w)


def loss_name(recipe: Recipe, target: Target) -> str:
    """The loss as the recipe says, if it fits the task."""
    if recipe.loss == "auto":
        return _LOSS[target.task]
    if recipe.loss not in _LOSSES[target.task]:
        fitting = ", ".join(_LOSSES[target.task])
        raise SettingError(
            f"loss {recipe.loss!r} does not fit a {target.task} task; fitting is {fitting}"
        )
    return recipe.loss


def torch_device(name: str) -> torch.device:
    """The device of that name, if this machine has it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"device {name!r} cannot be used here: {reason}. Use cpu or auto."
        ) from None
    return device
