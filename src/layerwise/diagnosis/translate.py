"""What PyTorch raises, as findings: the place, the cause and the change to make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import Finding
from layerwise.network.walk import Visit, Walk


@dataclass(frozen=True)
class Trouble:
    """An exception and what was going on.

    Attributes
    ----------
    said : its message
    error : itself
    case : model, loss and rows
    phase : "forward", "loss", "backward", or "" where unknown
    visit : the layer that failed, if one did
    outputs, y : what the loss compared, as far as known
    """

    said: str
    error: BaseException
    case: Case
    phase: str
    visit: Visit | None
    outputs: Any
    y: Any

    @property
    def where(self) -> str:
        """The path of the layer that failed; "forward" where it was none."""
        return self.visit.name if self.visit is not None else "forward"


Reading = Callable[[Trouble, re.Match[str]], Iterator[Finding]]
_HOMES = ("raised_rows", "raised_targets", "raised_steps")
_READINGS: list[tuple[str, re.Pattern[str], Reading]] = []


def translated(
    error: BaseException,
    case: Case,
    phase: str = "",
    found: Walk | None = None,
    y: Any = None,
    outputs: Any = None,
) -> list[Finding]:
    """An exception as findings; empty if it is none of those that are known.

    Parameters
    ----------
    error : as raised in the user's loop, or in a pass of the doctor's
    case : model, loss, optimizers and rows
    phase : "forward", "loss" or "backward", where that is known
    found : the calls of the layers up to the one that failed
    y, outputs : what the loss compared, as far as known

    Examples
    --------
    >>> from torch import nn
    >>> error = RuntimeError("grad can be implicitly created only for scalar outputs")
    >>> [one.rule for one in translated(error, Case(nn.Linear(2, 1)))]
    ['loss-reduction']
    """
    for home in _HOMES:
        import_module(f"layerwise.diagnosis.{home}")
    visit = found.failed if found is not None else None
    if outputs is None and found is not None:
        outputs = found.outputs
    y = case.y if y is None else y
    trouble = Trouble(str(error).strip(), error, case, phase, visit, outputs, y)
    for rule, pattern, read in _READINGS:
        match = pattern.search(trouble.said)
        if match:
            stage = "first_batch" if phase else "training"
            return [
                replace(one, rule=one.rule or rule, stage=stage) for one in read(trouble, match)
            ]
    return []


def reads(rule: str, *patterns: str) -> Callable[[Reading], Reading]:
    """Register what reads messages that fit one of the patterns, and the rule they belong to."""

    def register(read: Reading) -> Reading:
        _READINGS.extend((rule, re.compile(one, re.S | re.I), read) for one in patterns)
        return read

    return register
