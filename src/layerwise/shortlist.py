"""The short search of the preset "best": a few recipes, each as a bag on the same rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layerwise import metrics
from layerwise.bagging import held_weight
from layerwise.data.split import FOLDS
from layerwise.errors import TrainingError
from layerwise.folder import Keeper
from layerwise.learn import Learnt, learn
from layerwise.prepare import Notice, Prepared, Question
from layerwise.text import number

# Where the default may be wrong is how much a table has to say, and how smoothly it says it. Each
# is the best on some table of docs/recipe.md, but for the linear one, which costs next to nothing.
# The slowest is the last, so that little time is enough for the others.
RECIPES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("the default", {}),
    ("slower", {"lr": 0.001, "patience": 20}),
    ("one layer", {"hidden_layer_sizes": [64], "weight_decay": 0.1}),
    ("ReLU", {"activation": "relu"}),
    ("linear", {"hidden_layer_sizes": [0], "lr": 0.01}),
    ("deeper", {"hidden_layer_sizes": [256, 256, 256], "lr": 0.0015, "patience": 20}),
)


@dataclass(frozen=True)
class Tried:
    """One recipe: its name, what it sets, and its deciding metric on the rows held out.

    ``value`` is None where the training diverged.
    """

    name: str
    settings: dict[str, Any]
    value: float | None


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What the comparison found.

    Attributes
    ----------
    tried : the recipes that were, in their order
    settings : those of the one to train with
    left_out : how many there was no time for
    learnt : after Ctrl-C the best bag there is, since there will be no other; else None
    """

    tried: list[Tried]
    settings: dict[str, Any]
    left_out: int = 0
    learnt: Learnt | None = None


def candidates(given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The recipes that are left where some settings are given.

    Examples
    --------
    >>> [name for name, _ in candidates({"hidden_layer_sizes": (32,), "lr": 0.01})]
    ['the default', 'ReLU']
    """
    held = {*given, *(["lr"] if "optimizer" in given else [])}  # the rates are AdamW's
    return [(name, dict(sets)) for name, sets in RECIPES if not set(sets) & held]


def with_best_recipe(
    question: Question,
    prepared: Prepared,
    keeper: Keeper | None,
    deadline: float | None,
    report: Notice,
    notice: Notice,
) -> tuple[Question, list[dict[str, Any]], Learnt | None]:
    """The question with the best recipe; what was tried; after Ctrl-C the best bag so far.

    A run that is kept has it in its record: it goes on without comparing again.
    """
    settled = replace(question, compare=False)
    if prepared.fold is None and prepared.valid is None:
        notice("no rows are held out to compare recipes on; the default is taken")
        return settled, [], None
    if len(candidates(question.settings)) < 2:
        notice("the settings that are given leave no other recipe to compare with")
        return settled, [], None
    found = compare(question, prepared, report, deadline)
    tried = [vars(one) for one in found.tried]
    if found.learnt is not None:
        notice("stopped while recipes were compared; the best bag so far is kept")
        if keeper:
            keeper.epochs(found.learnt.history)
        return question, tried, found.learnt
    if found.left_out:
        notice(f"left out for want of time: {found.left_out} of the recipes to compare")
    settled.settings = {**question.settings, **found.settings}
    if not tried:  # there is time for the default's bag at most
        settled.settings["members"] = min(question.check().members, FOLDS)
    if keeper:
        keeper.chosen(settled, tried)
    return settled, tried, None


def compare(
    question: Question,
    prepared: Prepared,
    report: Notice,
    deadline: float | None = None,
) -> Shortlist:
    """Train a bag with each recipe, and take the one that is best on the rows held out.

    Parameters
    ----------
    question : what is asked; its settings hold in every recipe, but that bags have five networks
    prepared : its rows
    report : told of each recipe
    deadline : ``time.monotonic()`` at which it has to end

    Returns
    -------
    Shortlist

    Notes
    -----
    A recipe that had to stop before its end says nothing of what it is worth. None is begun in less
    time than the slowest before it took.
    """
    asked, recipe = candidates(question.settings), question.check()
    metric = metrics.DECIDING[prepared.target.task].replace("_", " ")
    tried: list[Tried] = []
    best: tuple[float, dict[str, Any], Learnt | None] = (math.inf, {}, None)
    longest = 0.0
    try:
        for place, (name, settings) in enumerate(asked, start=1):
            begin = time.monotonic()
            if deadline is not None and begin + longest > deadline:
                break
            value = math.inf
            try:
                learnt = learn(
                    prepared.train, prepared.valid, prepared.schema, prepared.target,
                    replace(recipe, **settings, members=FOLDS), fold=prepared.fold,
                    seed=question.random_state, class_weight=question.class_weight,
                    deadline=deadline, examined=True,
                )  # fmt: skip
                if learnt.history.stopped == "interrupted":
                    best = best if best[2] else (math.inf, settings, learnt)
                    raise KeyboardInterrupt
                if _cut(learnt):
                    break
                value = _value(question, prepared, learnt)
            except TrainingError:
                pass
            longest = max(longest, time.monotonic() - begin)
            ended = math.isfinite(value)
            tried.append(Tried(name, settings, value if ended else None))
            told = f"{metric} {number(value)}" if ended else "diverged"
            report(f"recipe {place} of {len(asked)}, {name}: {told}")
            if value < best[0]:
                best = (value, settings, learnt)
    except KeyboardInterrupt:
        if best[2] is None:
            raise
        best[2].history.stopped = "interrupted"
        return Shortlist(tried, best[1], learnt=best[2])
    return Shortlist(tried, best[1], len(asked) - len(tried))


def _value(question: Question, prepared: Prepared, learnt: Learnt) -> float:
    """The deciding metric on the rows held out, each row and class with its weight."""
    target, held = prepared.target, learnt.out_of_fold
    assert held is not None  # noqa: S101  recipes are compared where rows are held out
    rows = metrics.row_losses(target, held.y, held.outputs)
    weight = held_weight(prepared.train, held, target, question.class_weight)
    return metrics.with_error(target, rows, np.ones(len(rows)) if weight is None else weight)[0]


def _cut(learnt: Learnt) -> bool:
    """Whether time ended the training before it would have ended."""
    members = learnt.history.members
    return len(members) < FOLDS or any(one.stopped == "time limit" for one in members)
