"""A bag: several networks, each on its own folds of the rows, that answer with their mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from layerwise.data.target import Target
from layerwise.engine.torch import Rows
from layerwise.model.model import Model
from layerwise.out_of_fold import OutOfFold, best_temperature
from layerwise.prepare import Part
from layerwise.training.fit import Callback, EpochEnd
from layerwise.training.history import History
from layerwise.training.many import Job, outcomes_of_many, processors
from layerwise.training.recipe import Recipe
from layerwise.weights import class_weights, effective_weight


def parts_of(
    n_rows: int, fold: np.ndarray | None, members: int
) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """For each member the rows it trains on and those it holds out; None for all, and for none."""
    n_folds = 0 if fold is None else int(fold.max(initial=-1)) + 1
    if fold is None or members == 1 or n_folds < 2:
        return [(None, None)] * members
    held = [np.flatnonzero(fold == number % n_folds) for number in range(members)]
    everything = np.arange(n_rows)
    return [(np.setdiff1d(everything, rows, assume_unique=True), rows) for rows in held]


def only(rows: Rows, index: np.ndarray | None) -> Rows:
    """These of the rows, of which they stay a part."""
    if index is None:
        return rows
    return Rows(rows.X, rows.y, rows.w, torch.from_numpy(index).to(rows.device))


def answers_of(part: Part, rows: np.ndarray) -> Part:
    """The answers and weights of these rows, without their table."""
    weight = None if part.weight is None else part.weight[rows]
    return Part(part.table, part.y[rows], weight)


def within(recipe: Recipe, deadline: float | None) -> Recipe:
    """The recipe with the time that is left."""
    if deadline is None:
        return recipe
    return replace(recipe, time_limit=max(deadline - time.monotonic(), 1e-3))


def train_members(
    jobs: Sequence[Job], time_limit: float | None = None, deadline: float | None = None
) -> tuple[dict[int, History], str | None]:
    """Train the members of a bag side by side.

    Where time is limited, each gets its share of what is left when it begins; a member that would
    begin after the end is left out, but for the first.

    Returns
    -------
    (the history of each member that has an epoch to keep; why all ended, if it is one reason)
    """
    ended = threading.Event()

    def told(number: int, callbacks: Sequence[Callback], event: EpochEnd) -> bool:
        event = replace(event, member=number, members=len(jobs))
        answers = [callback(event) for callback in callbacks]  # each is told
        if any(answer is True for answer in answers):
            ended.set()
        return ended.is_set()

    if deadline is None and time_limit is not None:
        deadline = time.monotonic() + time_limit
    found: dict[int, History] = {}
    waiting: dict[int, Job] = {}
    for i, job in enumerate(jobs):
        checkpoint = None if job.checkpoint is None else job.checkpoint.of_member(i + 1)
        before = checkpoint and checkpoint.ended(job.network)
        if before:
            found[i] = before
        else:
            tell = partial(told, i + 1, job.callbacks)
            callbacks = [tell] if job.callbacks else []  # unseen, they go faster
            waiting[i] = replace(job, checkpoint=checkpoint, callbacks=callbacks)
    one = next(iter(jobs))
    at_once = 1 if one.train.device.type != "cpu" else min(processors(), len(jobs))
    waves = [list(waiting)]
    if deadline is not None:
        waves = [waves[0][i : i + at_once] for i in range(0, len(waiting), at_once)]
    for wave, numbers in enumerate(waves):
        begin = time.monotonic()
        if found and (ended.is_set() or (deadline is not None and begin >= deadline)):
            break
        recipe = one.recipe
        if deadline is not None:
            recipe = within(recipe, begin + (deadline - begin) / (len(waves) - wave))
        outcomes = outcomes_of_many([replace(waiting[i], recipe=recipe) for i in numbers], at_once)
        for i, outcome in zip(numbers, outcomes):
            if isinstance(outcome, History):
                found[i] = outcome
            elif not isinstance(outcome, KeyboardInterrupt):
                raise outcome
        if any(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes) or any(
            history.stopped == "interrupted" for history in found.values()
        ):
            if not found:
                raise KeyboardInterrupt
            return found, "interrupted"
    if deadline is not None and len(found) < len(jobs):
        return found, "time limit"
    return found, "callback" if ended.is_set() else None


def held_out(
    model: Model,
    train: Part,
    valid: Part | None,
    train_rows: Rows,
    valid_rows: Rows | None,
    held: Sequence[np.ndarray | None],
    fold: np.ndarray | None,
) -> OutOfFold | None:
    """The answers for rows that no asked member was trained on; None if there are no such rows."""
    if valid_rows is not None and valid is not None:
        outputs = model.target.average(model.member_outputs(_matrix(valid_rows)))
        rows = _places(valid)
        return OutOfFold(rows, np.zeros_like(rows), valid.y, outputs, valid.weight, "validation")
    if fold is None or held[0] is None:
        return None
    members_of: dict[int, list[int]] = {}
    for i, out in enumerate(held):
        if out is not None:
            members_of.setdefault(int(fold[out[0]]), []).append(i)
    X = _matrix(train_rows)
    rows = np.flatnonzero(np.isin(fold, list(members_of)))
    outputs = np.zeros((len(rows), model.target.n_outputs))
    for number, members in members_of.items():
        asked = replace(model, members=[model.members[i] for i in members])
        here = fold[rows] == number
        outputs[here] = model.target.average(asked.member_outputs(X[rows[here]]))
    known = answers_of(train, rows)
    return OutOfFold(_places(train)[rows], fold[rows], known.y, outputs, known.weight)


def held_weight(
    train: Part, held: OutOfFold, target: Target, class_weight: Any
) -> np.ndarray | None:
    """What each held-out row counts, with the weight of its class; None if all count alike."""
    weights = class_weights(class_weight, target, train)
    return effective_weight(Part(train.table, held.y, held.weight), target, weights)


def finish(
    model: Model,
    train: Part,
    held: OutOfFold | None,
    class_weight: Any,
    before: np.ndarray | None = None,
) -> tuple[Model, OutOfFold | None]:
    """Limits of a regression, temperature of classes; held-out answers within them.

    ``before`` are the limits of what was trained on before these rows.
    """
    target = model.target
    if target.is_regression:
        y = target.encode(train.y)
        y = y if before is None else np.concatenate([y, before])
        model = replace(model, limits=np.stack([y.min(axis=0), y.max(axis=0)]))
    elif held is not None:
        weight = held_weight(train, held, target, class_weight)
        found, clear = best_temperature(target, held.y, held.outputs, weight)
        model.info["temperature"] = {"found": found, "applied": clear}
        model = replace(model, temperature=found if clear else 1.0)
    if held is not None:
        held = replace(held, outputs=model.finish(held.outputs))
    return model, held


def _places(part: Part) -> np.ndarray:
    """Where each row stands in its table."""
    rows = part.table.rows
    return np.asarray(np.arange(len(part)) if rows is None else rows, dtype=np.int64)


def _matrix(rows: Rows) -> np.ndarray:
    return np.asarray(rows.X.cpu())  # type: ignore[union-attr]
