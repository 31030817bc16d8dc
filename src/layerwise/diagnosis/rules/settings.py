"""The optimizer's settings, as far as they can be judged before a step is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.rules import rule

_MOVING = (torch.optim.SGD, torch.optim.RMSprop)  # they have a momentum in the usual sense


def _groups(case: Case) -> Iterator[tuple[Optimizer, dict[str, Any]]]:
    for optimizer in case.optimizers:
        for group in optimizer.param_groups:
            yield optimizer, group


@rule("lr-too-high", stage="static")
def rate_beyond_reason(case: Case) -> Iterator[Finding]:
    """Rates with which no network learns, whatever the data."""
    for optimizer, group in _groups(case):
        lr, name = float(group.get("lr", 0.0)), type(optimizer).__name__
        momentum = float(group.get("momentum", 0.0)) if isinstance(optimizer, _MOVING) else 0.0
        if momentum >= 1:
            yield finding(
                "error", "optimizer",
                f"momentum={momentum:g} never forgets a gradient.",
                healthy="momentum of 0.9, below 1",
                why="With a momentum of 1 or more the steps grow without end.",
                mend="momentum=0.9", momentum=momentum, limit=1,
            )  # fmt: skip
            return
        adaptive = "betas" in group or isinstance(optimizer, torch.optim.RMSprop)
        limit = 1.0 if adaptive else 10.0 if isinstance(optimizer, torch.optim.SGD) else None
        effective = lr / (1 - momentum)
        if limit is not None and effective > limit:
            told = f", with momentum as if {effective:g}" if momentum else ""
            yield finding(
                "warning", "optimizer",
                f"The rate of {name} is {lr:g}{told}.",
                healthy="Adam 1e-3 and SGD 1e-2 are safe starts",
                why="Such steps are larger than the weights themselves.",
                mend="lr=1e-3" if adaptive else "lr=1e-2", lr=lr, effective=effective, limit=limit,
            )  # fmt: skip
            return


@rule("weights-not-updating", stage="static")
def rate_of_zero(case: Case) -> Iterator[Finding]:
    """A rate of 0."""
    rates = [float(group.get("lr", 1.0)) for _, group in _groups(case)]
    if rates and not any(rates):
        yield finding(
            "error", "optimizer", "The learning rate is 0.",
            healthy="Adam 1e-3 and SGD 1e-2 are safe starts",
            why="Every step leaves the weights as they are.", mend="lr=1e-3", lr=0.0,
        )  # fmt: skip


@rule("weight-decay-too-strong", stage="static")
def decay(case: Case) -> Iterator[Finding]:
    """Weight decay that pulls harder than the data."""
    for optimizer, group in _groups(case):
        wd, lr = float(group.get("weight_decay", 0.0) or 0.0), float(group.get("lr", 0.0))
        if isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay"):
            strong, told = lr * wd > 1e-2, f"each step takes off {lr * wd:.1%} of every weight"
            value, limit = lr * wd, 1e-2
        else:
            strong, told = wd >= 0.1, "it is added to every gradient"
            value, limit = wd, 0.1
        if strong:
            yield finding(
                "warning", "optimizer",
                f"weight_decay={wd:g} with lr={lr:g}: {told}.",
                healthy="weight_decay of 1e-5 to 1e-2",
                why="The pull towards 0 is stronger than that of the data, so nothing is learnt.",
                mend="weight_decay=1e-4", weight_decay=wd, lr=lr, pull=value, limit=limit,
            )  # fmt: skip
            return
