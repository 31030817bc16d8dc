"""The rules: small functions from evidence to findings, found by their stage.

A rule is a function that takes the evidence of its stage and yields what it finds::

    @rule("softmax-before-ce", stage="first_batch")
    def softmax_before_ce(seen: FirstBatch) -> Iterator[Finding]:
        if ...:
            yield finding("error", where, "...", healthy="...", why="...", mend="...", dim=1)

Other packages add theirs by an entry point of the group ``layerwise.rules`` that names a module
or function; a module registers its rules as it is imported, a function as it is called.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from layerwise.diagnosis.finding import STAGES, Finding

Look = Callable[[Any], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A rule in one of its stages."""

    name: str
    stage: str
    look: Look

    def __call__(self, evidence: Any) -> Iterator[Finding]:
        """What it finds, with its id and stage filled in."""
        for one in self.look(evidence):
            yield replace(one, rule=one.rule or self.name, stage=one.stage or self.stage)


_REGISTERED: list[Rule] = []


def rule(name: str, *, stage: str) -> Callable[[Look], Look]:
    """Register a function as a rule; the same function may serve several stages or rules.

    Parameters
    ----------
    name : the rule's id
    stage : "static" takes a `Case`, "first_batch" a `FirstBatch`, "training" a `Watched`, "after"
        `Curves`
    """
    if stage not in STAGES:
        raise ValueError(f"stage has to be one of {', '.join(STAGES)}; got {stage!r}")

    def register(look: Look) -> Look:
        _REGISTERED.append(Rule(name, stage, look))
        return look

    return register


def rules_of(stage: str) -> list[Rule]:
    """The rules of a stage, those of other packages too."""
    _load()
    return [one for one in _REGISTERED if one.stage == stage]


def apply_rules(stage: str, evidence: Any) -> tuple[list[Finding], list[str]]:
    """What the rules of a stage find, and a sentence for each rule that failed.

    A rule that fails never breaks the work of whoever is being helped.
    """
    found: list[Finding] = []
    skipped = [*_load()]
    for one in rules_of(stage):
        try:
            found += one(evidence)
        except Exception as error:  # whatever it is, the user's training goes on
            said = str(error).partition("\n")[0]
            skipped.append(f"{one.name} ({stage}): {type(error).__name__}: {said}")
    return found, skipped


@cache
def _load() -> tuple[str, ...]:
    """Import the rules once; what could not be loaded, in words."""
    for home in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{home.name}")
    failed = []
    for entry in entry_points(group="layerwise.rules"):
        try:
            loaded = entry.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # somebody else's package
            failed.append(f"plugin {entry.name}: {type(error).__name__}: {error}")
    return tuple(failed)
