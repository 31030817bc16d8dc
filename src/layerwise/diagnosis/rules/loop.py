"""Optimizer and loop: how the steps are made."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from torch import nn

from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.portrait import portrait
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.watched import Watched

_SAFE = "Adam-type optimizers start safely at 1e-3, SGD at 1e-2"


@rule("lr-too-high", stage="training")
def lr_too_high(seen: Watched) -> Iterator[Finding]:
    """Worse than the constant answer, or beyond all numbers, after steps that were too long."""
    base, rate = seen.baseline, _rate(seen)
    if not seen.losses or not math.isfinite(seen.losses[0]) or not rate or seen.second_order:
        return
    jump, growth = _first_jump(seen), _growth(seen)
    if seen.bad is not None:
        if seen.bad.where in ("X", "y") or not _ran_away(seen):
            return
        told = f"the loss went from {seen.losses[0]:.3g} to {seen.bad.value:g} in step "
        told = f"With rate {rate:g} {told}{seen.bad.step + 1}, over {_worst(seen):.3g}."
        yield _too_high(seen, told, rate, jump, growth)
        return
    if not base or len(seen.epochs) < 2 or not (jump > 0.3 or growth > 3):
        return
    worst = max(seen.epochs[1:])
    if seen.level > 0.95 or worst > 2 * base:
        now = "is" if seen.level > 0.95 else "was"
        moved = (
            f"the weights changed by {jump:.0%} in the first step"
            if jump > 0.3
            else f"the weights grew to {growth:.1f} times their size in the first epoch"
        )
        told = (
            f"With rate {rate:g} {moved}, and the model {now} worse than always giving the same "
            f"answer (loss {max(worst, seen.epochs[-1]):.3g}, that one has {base:.3g})."
        )
        yield _too_high(seen, told, rate, jump, growth)


def _too_high(seen: Watched, told: str, rate: float, jump: float, growth: float) -> Finding:
    return finding(
        "error", "optimizer", told,
        healthy="a first step below 30 % of the weights' size, and a loss below that of a constant",
        why="Steps that are too long jump over the valley instead of into it.",
        mend=f"lr={rate / 10:g}, or less; {_SAFE}.",
        lr=rate, first_step=jump, growth=growth,
    )  # fmt: skip


def _rate(seen: Watched) -> float:
    """The highest rate that was used."""
    return max((float(rate) for rate in seen.rates), default=0.0)


def _first_jump(seen: Watched) -> float:
    first = next((look for look in seen.looks if look.step == 0), None)
    return first.ratio if first is not None and math.isfinite(first.ratio) else 0.0


def _growth(seen: Watched) -> float:
    """How much the weight matrix that grew most has grown in the first epoch."""
    first = next((look for look in seen.looks if look.step == 0), None)
    if first is None:
        return 0.0
    within = [look for look in seen.looks if look.epoch == 0] or seen.looks[:1]
    names = [n for n in first.weight if n not in first.flat and first.weight[n] > 0]
    grown = [look.weight[n] / first.weight[n] for look in within for n in names if n in look.weight]
    return max((value for value in grown if math.isfinite(value)), default=0.0)


def _worst(seen: Watched) -> float:
    return max(value for value in seen.losses if math.isfinite(value))


def _ran_away(seen: Watched) -> bool:
    """Whether the losses before the bad value climbed, as they do when steps are too long."""
    finite = [value for value in seen.losses if math.isfinite(value)]
    top = max(finite[1:], default=finite[0])
    return top > 2 * max(finite[0], seen.baseline or 0.0) or (
        len(finite) <= 3 and _first_jump(seen) > 0.3
    )


@rule("lr-too-low", stage="training")
def lr_too_low(seen: Watched) -> Iterator[Finding]:
    """Weights that hardly move, or a schedule that has come to its end at once."""
    rate = _rate(seen)
    if not rate or not seen.baseline or not seen.epochs or seen.bad is not None:
        return
    if not seen.level > 0.5:
        return
    decayed = list(_decayed(seen))
    if decayed:
        yield decayed[0]
        return
    steady = [look for look in seen.looks if 5 <= look.step <= 50] or seen.looks
    ratios = [look.ratio for look in steady if math.isfinite(look.ratio)]
    fallen = seen.epochs[0] - seen.epochs[-1]
    ordinary = statistics.median(look.norm for look in steady) > 1e-3 if steady else False
    middle = statistics.median(ratios) if ratios else 0.0
    if 0 < middle < 3e-4 and ordinary and fallen < 0.05 * seen.baseline:
        per_epoch = max(seen.passes / len(seen.epochs), 1)
        epochs = max(1 / middle / per_epoch, len(seen.epochs))
        yield finding(
            "warning", "optimizer",
            f"With rate {rate:g} the weights move by {middle:.1e} of their size per step; at this "
            f"pace it takes about {epochs:,.0f} epochs.",
            healthy="1e-3 to 1e-1 of their size per step at the start",
            why="The loss can hardly fall in the epochs there are.",
            mend=f"lr={_tidy(rate * min(max(3e-3 / middle, 10), 1000))}",
            lr=rate, ratio=middle, limit=3e-4,
        )  # fmt: skip


def _decayed(seen: Watched) -> Iterator[Finding]:
    rates = [float(rate) for rate in seen.rates]
    top = rates.index(max(rates))
    low = next((i for i in range(top, len(rates)) if rates[i] < 1e-3 * rates[top]), None)
    if low is None or low >= 0.5 * len(rates):
        return
    yield finding(
        "warning", "optimizer",
        f"The schedule has brought the rate from {rates[top]:g} to {rates[low]:.0e} after "
        f"{low} of {len(rates)} steps.",
        healthy="a rate that falls over the whole training",
        why="From there on nothing is learnt any more.",
        mend="Call scheduler.step() once per epoch and not per batch, or let it decay slower.",
        lr=rates[top], low=rates[low], step=low,
    )  # fmt: skip


def _tidy(value: float) -> str:
    """One digit that counts."""
    return f"{float(f'{value:.0e}'):g}"


@rule("weight-decay-too-strong", stage="training")
def weight_decay_too_strong(seen: Watched) -> Iterator[Finding]:
    """Weights that are pulled to 0 harder than the data pull."""
    looks = [look for look in seen.looks if look.decay > 0]
    if not looks or not seen.level > 0.3 or seen.bad is not None:
        return
    first, last = looks[0], looks[-1]
    names = [n for n in first.weight if n not in first.flat and first.weight[n] > 0]
    rate = _rate(seen)
    pulls = sorted(_pull(last, name, rate) for name in names)
    middle = pulls[len(pulls) // 2] if pulls else 0.0
    before = math.hypot(*(first.weight[n] for n in names))
    after = math.hypot(*(last.weight.get(n, 0.0) for n in names))
    shrunk = before > 0 and after < before / 3
    strong = middle > 1 and seen.level > 0.8
    if not strong and not shrunk:
        return
    told = f"The weights have shrunk to {after / before:.0%} of their size"
    if strong:
        told = f"The pull of weight decay is {middle:.1f} times the pull of the data"
    yield finding(
        "warning", "optimizer", f"{told} with weight_decay={last.decay:g}.",
        healthy="a pull far below that of the data",
        why="Weights near 0 give everyone nearly the same answer.",
        mend="weight_decay between 1e-5 and 1e-2.",
        weight_decay=last.decay, pull=middle, size=after / before if before else 0.0,
    )  # fmt: skip


def _pull(look: object, name: str, rate: float) -> float:
    weight, decay = look.weight.get(name, 0.0), look.decay  # type: ignore[attr-defined]
    against = look.update if look.decoupled else look.gradient  # type: ignore[attr-defined]
    pull = rate * decay * weight if look.decoupled else decay * weight  # type: ignore[attr-defined]
    return pull / against[name] if against.get(name) else 0.0


@rule("no-zero-grad", stage="training")
def no_zero_grad(seen: Watched) -> Iterator[Finding]:
    """Steps that took the gradients of earlier batches too."""
    if seen.uncleared < 2:
        return
    yield finding(
        "error", "loop",
        f"Gradients are not cleared: {seen.uncleared} steps in a row used the sum of this batch's "
        f"gradients and those of the batches before (up to {seen.uncleared + 1} of them).",
        healthy="gradients of one batch, or of the few that are meant to be added up",
        why="Each step then mostly repeats old directions and overshoots.",
        mend="optimizer.zero_grad() before loss.backward(), for every batch.",
        batches=seen.uncleared + 1,
    )  # fmt: skip


@rule("weights-not-updating", stage="training")
def weights_not_updating(seen: Watched) -> Iterator[Finding]:
    """A loop after which every weight is what it was."""
    if not seen.forwards:
        if seen.started:
            told = "The loader gave no batch, so the model was never called."
            yield _still(told, "loop", "A batch_size below the number of rows, drop_last=False.")
        return
    trainable = [p for p in seen.case.model.parameters() if p.requires_grad]
    if seen.changed or not trainable or seen.forwards < 3:
        return
    if not seen.passes:
        if seen.steps:
            yield _still(f"step() ran {seen.steps} times and backward() never.", "loop",
                         "loss.backward() before optimizer.step().")  # fmt: skip
        return
    if not seen.steps:
        if seen.case.optimizers and _strangers(seen):
            return  # that is params-not-in-optimizer
        yield _still(f"backward() ran {seen.passes} times and no optimizer's step().", "loop",
                     "optimizer.step() after loss.backward().")  # fmt: skip
    elif _rate(seen) == 0:
        yield _still(f"step() ran {seen.steps} times with a learning rate of 0.", "optimizer",
                     f"A rate above 0; {_SAFE}.")  # fmt: skip
    elif seen.absent_steps:
        yield _still(
            f"step() ran {seen.steps} times and backward() had brought no gradient to any weight: "
            "the loss that ran backward has no way back to the model.", "loop",
            "Leave out .item(), .detach() and torch.tensor(...) between the outputs and the loss.",
        )  # fmt: skip
    elif seen.empty_steps:
        yield _still(
            f"step() ran {seen.steps} times with empty gradients: zero_grad() stands between "
            "backward() and step().", "loop", "The order zero_grad, forward, backward, step.",
        )  # fmt: skip


def _still(told: str, where: str, mend: str) -> Finding:
    return finding(
        "error", where, f"{told} Not one weight has changed.",
        healthy="weights that change with every step",
        why="What does not change does not learn.", mend=mend,
    )  # fmt: skip


def _strangers(seen: Watched) -> bool:
    own = {id(p) for p in seen.case.model.parameters()}
    held = {id(p) for o in seen.case.optimizers for g in o.param_groups for p in g["params"]}
    return not own & held


@rule("wrong-mode", stage="training")
def wrong_mode(seen: Watched) -> Iterator[Finding]:
    """Training in evaluation mode, or measuring in training mode."""
    if not _has_modes(seen):
        return
    if seen.passes and seen.eval_steps > 0.2 * seen.passes:
        since = (
            "model.eval() was called before the training and model.train() never"
            if seen.first_eval is None
            else f"since step {seen.first_eval + 1} the model is in evaluation mode: model.eval() "
            "was called and model.train() never again"
        )
        yield _mode(
            f"{seen.eval_steps} of {seen.passes} steps ran with dropout and batch norm off; "
            f"{since}.", "model.train() at the start of every epoch.", seen.eval_steps,
        )  # fmt: skip
    # an orphan in most steps is how this loop is meant: several forwards for one backward
    orphans = seen.orphans if seen.orphans < 0.5 * max(seen.passes, 1) else 0
    if seen.passes > 1 and (seen.loose or orphans):
        n = seen.loose or orphans
        rows = "without gradients" if seen.loose else "without a backward() after it"
        yield _mode(
            f"The model was called {n} times in training mode {rows}: the rows were measured with "
            "dropout at work or with batch norm of their own batch.",
            "model.eval() before measuring, model.train() after.", n,
        )  # fmt: skip


def _mode(told: str, mend: str, n: int) -> Finding:
    return finding(
        "warning", "loop", told, healthy="train() while learning, eval() while measuring",
        why="Dropout and batch norm do different things in the two modes.", mend=mend, passes=n,
    )  # fmt: skip


def _has_modes(seen: Watched) -> bool:
    """Whether the two modes differ for this model, by its layers or by what it answers."""
    for module in seen.case.model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return True
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return True
    return seen.start is not None and seen.start.modes_differ


@rule("wrong-mode", stage="first_batch")
def dropout_always_on(first: FirstBatch) -> Iterator[Finding]:
    """``F.dropout`` that nobody told about evaluation mode."""
    found = portrait(first.case)
    if found is None or not found.dropout_on:
        return
    yield finding(
        "warning", "forward",
        f"In evaluation mode the model still drops values (p={found.dropout_on:.2g}): F.dropout is "
        "on unless it is told otherwise.",
        healthy="the same answer to the same row in evaluation mode",
        why="Every prediction is then partly chance.",
        mend="F.dropout(x, p, training=self.training), or an nn.Dropout module.",
        p=found.dropout_on,
    )  # fmt: skip
