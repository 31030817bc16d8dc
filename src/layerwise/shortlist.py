"""The short search of the preset "best": a few recipes, each as a bag on the same folds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layerwise import metrics
from layerwise.bagging import held_weight
from layerwise.errors import TrainingError
from layerwise.judging import held_groups
from layerwise.learn import Learnt, learn
from layerwise.out_of_fold import standard_error
from layerwise.prepare import Notice, Prepared, Question
from layerwise.text import number

# Where the default may be wrong is how much a table has to say, and how smoothly it says it. Each
# of these is the best on some table of docs/recipe.md.
RECIPES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("the default", {}),
    ("slower", {"lr": 0.001, "patience": 20}),
    ("deeper", {"hidden_layer_sizes": [256, 256, 256], "lr": 0.0015, "patience": 20}),
    ("one layer", {"hidden_layer_sizes": [64], "weight_decay": 0.1}),
    ("ReLU", {"activation": "relu"}),
    ("linear", {"hidden_layer_sizes": [0], "lr": 0.01}),
)
FOLDS = 5


@dataclass(frozen=True)
class Tried:
    """One recipe: its name, what it sets, and its deciding metric out of fold.

    ``value`` is None where the training diverged.
    """

    name: str
    settings: dict[str, Any]
    value: float | None


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What the search found.

    Attributes
    ----------
    tried : the recipes that were, in their order
    settings : those of the one to train with
    learnt : after Ctrl-C the best bag there is, since there will be no other; else None
    """

    tried: list[Tried]
    settings: dict[str, Any]
    learnt: Learnt | None = None


def candidates(given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The recipes that are left where some settings are given.

    Examples
    --------
    >>> [name for name, _ in candidates({"hidden_layer_sizes": (32,), "bins": 8})][0]
    'the default'
    """
    return [(name, dict(sets)) for name, sets in RECIPES if not set(sets) & set(given)]


def choose(
    question: Question,
    prepared: Prepared,
    report: Notice,
    deadline: float | None = None,
) -> Shortlist:
    """Train a bag with each recipe; take the best out of fold of those that are clearly better.

    Clearly is by more than the standard error of the difference to the default, row by row: on few
    rows the least of several losses is the luckiest.

    Parameters
    ----------
    question : what is asked; its settings hold in every recipe
    prepared : its rows
    report : told of each recipe
    deadline : ``time.monotonic()`` at which the search has to end

    Returns
    -------
    Shortlist

    Notes
    -----
    A recipe that had to stop before its end says nothing of what it is worth. None is begun in less
    time than the slowest before it took.
    """
    asked, recipe = candidates(question.settings), question.check()
    tried: list[Tried] = []
    best: _Bag | None = None
    default: _Bag | None = None
    longest = 0.0
    for place, (name, settings) in enumerate(asked, start=1):
        begin = time.monotonic()
        if deadline is not None and begin + longest > deadline:
            break
        try:
            learnt = learn(
                prepared.train, prepared.valid, prepared.schema, prepared.target,
                replace(recipe, **settings, members=FOLDS), fold=_few(prepared.fold),
                seed=question.random_state, class_weight=question.class_weight,
                deadline=deadline, examined=True,
            )  # fmt: skip
        except KeyboardInterrupt:
            if best is None:
                raise
            return Shortlist(tried, best.settings, best.interrupted())
        except TrainingError:
            tried.append(Tried(name, settings, None))
            report(f"recipe {place} of {len(asked)}, {name}: diverged")
            continue
        bag = _Bag.of(question, prepared, settings, learnt)
        if learnt.history.stopped == "interrupted":
            bag = best or bag
            return Shortlist(tried, bag.settings, bag.interrupted())
        if _cut(learnt):
            break
        longest = max(longest, time.monotonic() - begin)
        metric = metrics.DECIDING[prepared.target.task].replace("_", " ")
        report(f"recipe {place} of {len(asked)}, {name}: {metric} {number(bag.value)}")
        tried.append(Tried(name, settings, bag.value))
        default = default or bag
        if best is None or (bag.value < best.value and bag.clearly_better_than(default)):
            best = bag
    return Shortlist(tried, best.settings if best else {})


@dataclass(frozen=True, eq=False)
class _Bag:
    """A trained recipe: what its held-out rows lost, and what each of them counts."""

    settings: dict[str, Any]
    learnt: Learnt
    losses: np.ndarray
    weight: np.ndarray
    groups: np.ndarray | None
    value: float

    @classmethod
    def of(
        cls, question: Question, prepared: Prepared, settings: dict[str, Any], learnt: Learnt
    ) -> _Bag:
        target, held = prepared.target, learnt.out_of_fold
        assert held is not None  # noqa: S101  recipes are compared where rows are held out
        losses = metrics.row_losses(target, held.y, held.outputs)
        weight = held_weight(prepared.train, held, target, question.class_weight)
        weight = np.ones(len(losses)) if weight is None else weight
        value = metrics.with_error(target, losses, weight)[0]
        return cls(settings, learnt, losses, weight, held_groups(prepared, held), value)

    def clearly_better_than(self, other: _Bag) -> bool:
        gains = other.losses - self.losses
        gain = float(np.average(gains, weights=self.weight))
        return bool(gain > standard_error(gains - gain, self.weight, self.groups))

    def interrupted(self) -> Learnt:
        self.learnt.history.stopped = "interrupted"
        return self.learnt


def _few(fold: np.ndarray | None) -> np.ndarray | None:
    """The folds joined to FOLDS of them; a row that is in none stays so."""
    if fold is None:
        return None
    return np.where(fold < 0, fold, fold * FOLDS // (int(fold.max()) + 1))


def _cut(learnt: Learnt) -> bool:
    """Whether time ended the training before it would have ended."""
    members = learnt.history.members
    return len(members) < FOLDS or any(one.stopped == "time limit" for one in members)
