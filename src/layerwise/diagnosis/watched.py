"""What was seen of a training while it went on: evidence for the rules of its later stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from layerwise.diagnosis.case import Case, baseline_of
from layerwise.diagnosis.portrait import Portrait, portrait


@dataclass(frozen=True)
class Look:
    """One step seen closely.

    Attributes
    ----------
    step : counted from 0
    epoch : counted from 0
    gradient, weight, update : norm for each parameter by its name: its gradient as the optimizer
        got it, itself before the step, and what the step changed
    decay : weight decay in the optimizer's settings; ``decoupled`` as in AdamW
    """

    step: int
    epoch: int
    gradient: dict[str, float]
    weight: dict[str, float]
    update: dict[str, float]
    decay: float = 0.0
    decoupled: bool = False

    @property
    def ratio(self) -> float:
        """How far the fastest weight matrix moved, as a share of its size; NaN without one."""
        ratios = [
            self.update[name] / self.weight[name]
            for name in self.update
            if self.weight.get(name, 0) > 0 and name not in self.flat
        ]
        return max(ratios, default=math.nan)

    flat: frozenset[str] = frozenset()  # biases and the like, which may start at 0

    @property
    def norm(self) -> float:
        """Of all gradients together."""
        return math.sqrt(sum(value * value for value in self.gradient.values()))


@dataclass(frozen=True)
class BadValue:
    """Where the first value came up that is no finite number."""

    step: int
    where: str
    told: str
    value: float


@dataclass(eq=False)
class Curves:
    """The losses of a training, epoch by epoch.

    Attributes
    ----------
    train, valid : a mean loss for each epoch; valid is empty if nothing was measured
    baseline : loss of the best answer that is the same for every row; None if unknown
    rates : learning rate of each epoch; may be empty
    steps : how many there were in all
    n_valid : validation rows, if known
    case : what else is known
    start, end : the network on its rows before and after, if it was looked at
    """

    train: Sequence[float]
    valid: Sequence[float] = ()
    baseline: float | None = None
    rates: Sequence[float] = ()
    steps: int = 0
    n_valid: int | None = None
    case: Case | None = None
    start: Portrait | None = None
    end: Portrait | None = None

    @property
    def annealed(self) -> bool:
        """Whether the rate has come down below 5 % of its peak."""
        return bool(self.rates) and self.rates[-1] < 0.05 * max(self.rates)


@dataclass(eq=False)
class Watched:
    """What the hooks saw of a loop.

    Attributes
    ----------
    case : the model as it was at the start (a copy), and what is known or was learnt of the rest
    kind : of the loss, as in ``torch.nn.functional``; "" if it is none of these
    trained : the model as it was at the end
    losses : of each pass (a backward), per row in the mean
    starts : the pass with which each epoch began
    steps : calls of ``optimizer.step()``
    rates : the learning rate at each step
    looks : steps seen closely
    empty_steps : of the first looks, those in which no gradient was left when the step came,
        though ``backward`` had made some
    absent_steps : of the first looks, those to which ``backward`` had brought nothing at all
    uncleared : the longest run of steps that took gradients of earlier batches too
    eval_steps, first_eval : passes in evaluation mode, and the first of them after training mode
    loose : forwards without gradients while in training mode
    blind : forwards without gradients in any mode
    orphans : forwards with gradients, in training mode, that no ``backward`` followed
    forwards : all there were
    started : times a loader was started that gave no batch
    bad : the first value that is not finite
    changed : whether any trainable parameter has changed
    comparable : whether the losses are those of the kind alone, so that the baseline counts
    per_pass : steps that one of ``losses`` stands for, where they are those of whole epochs
    valid, n_valid : mean validation loss after each epoch, where it was seen, and of how many rows
    """

    case: Case
    kind: str = ""
    trained: Any = None
    losses: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    steps: int = 0
    rates: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    empty_steps: int = 0
    absent_steps: int = 0
    uncleared: int = 0
    eval_steps: int = 0
    first_eval: int | None = None
    loose: int = 0
    blind: int = 0
    orphans: int = 0
    forwards: int = 0
    started: int = 0
    bad: BadValue | None = None
    changed: bool = True
    comparable: bool = True
    per_pass: int = 1
    valid: list[float] = field(default_factory=list)
    n_valid: int | None = None
    momentum: float = 0.0
    second_order: bool = False

    @property
    def passes(self) -> int:
        """How often ``backward`` ran."""
        return len(self.losses) * self.per_pass

    @cached_property
    def epochs(self) -> list[float]:
        """The mean loss of each epoch; a last one that was hardly begun does not count."""
        ends = [*self.starts[1:], len(self.losses)]
        spans = [range(a, b) for a, b in zip(self.starts, ends)]
        if len(spans) > 1 and len(spans[-1]) < 0.5 * len(spans[-2]):
            spans.pop()
        return [
            sum(self.losses[i] * self.weights[i] for i in span)
            / max(sum(self.weights[i] for i in span), 1)
            for span in spans
        ]

    @cached_property
    def baseline(self) -> float | None:
        """Loss of the best constant answer, in the units of ``losses``; None if unknown."""
        y = self.case.y
        if not isinstance(y, torch.Tensor) or not y.numel() or not self.comparable:
            return None
        found = baseline_of(self.kind, self.case.loss, y)
        return found if found and math.isfinite(found) and found > 1e-12 else None

    @cached_property
    def start(self) -> Portrait | None:
        """The network before the first step, on the rows of the first epoch."""
        return _or_none(self.case)

    @cached_property
    def end(self) -> Portrait | None:
        """The network after the last step, on the same rows."""
        from dataclasses import replace

        return None if self.trained is None else _or_none(replace(self.case, model=self.trained))

    @property
    def level(self) -> float:
        """Loss at the end as a share of the baseline, of the better of two; NaN if unknown."""
        if not self.baseline or not self.epochs:
            return math.nan
        last = self.epochs[-1]
        if self.end is not None and math.isfinite(self.end.loss):
            last = min(last, self.end.loss)
        return last / self.baseline

    @property
    def curves(self) -> Curves:
        """The losses as curves."""
        per = max(len(self.rates) // max(len(self.epochs), 1), 1)
        return Curves(
            self.epochs, self.valid, self.baseline, self.rates[per - 1 :: per], self.steps,
            n_valid=self.n_valid, case=self.case, start=self.start, end=self.end,
        )  # fmt: skip


def _or_none(case: Case) -> Portrait | None:
    """A portrait where one can be made."""
    try:
        return portrait(case)
    except Exception:  # a model may fail on these rows; the rules of the first batch say so
        return None
