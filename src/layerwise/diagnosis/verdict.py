"""All stages of the rules on what a training has shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import Finding, Findings
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.rules import apply_rules
from layerwise.diagnosis.translate import translated
from layerwise.diagnosis.watched import Curves, Watched


def judge(
    watched: Watched, error: Exception | None = None, skipped: Iterable[str] = ()
) -> Findings:
    """What the rules of every stage find in a training.

    Parameters
    ----------
    watched : the evidence
    error : that ended the loop
    skipped : what could not be looked at, in words
    """
    found, left = before(watched.case)
    left = [*skipped, *left]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if error is not None:
            found += of_error(error, watched)
        if watched.forwards or watched.started:
            stages: list[tuple[str, Any]] = [("training", watched)]
            if error is None:
                stages.append(("after", watched.curves))
            for stage, evidence in stages:
                more, also = apply_rules(stage, evidence)
                found, left = [*found, *more], [*left, *also]
    if watched.level < LEARNT:  # units that were silent at the start were not missed
        found = [one for one in found if one.rule != "dead-relu" or one.severity == "error"]
    return Findings(found, left)


LEARNT = 0.3  # of the loss of a constant answer


def of_error(error: Exception, watched: Watched) -> list[Finding]:
    """The error that ended a loop, as findings."""
    if "does not require grad" in str(error) and 0 < watched.forwards == watched.blind:
        return [
            Finding(
                "weights-not-updating", "error", "loop",
                "The model was called under torch.no_grad(), so nothing can run backward.",
                "no_grad() around measuring alone",
                "Without a graph there is no gradient, and no weight changes.",
                "Take the training step out of the no_grad() block or function.", "training",
            )
        ]  # fmt: skip
    outputs, y = compared(error)
    return translated(error, watched.case, y=y, outputs=outputs)


def compared(error: BaseException) -> tuple[Any, Any]:
    """The outputs and targets that a loss of torch was called with when it raised."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals.get("__name__") == "torch.nn.functional":
            given = frame.f_locals
            if "input" in given and "target" in given:
                return given["input"], given["target"]
        trace = trace.tb_next
    return None, None


def before(case: Case) -> tuple[list[Finding], list[str]]:
    """What is found before any step, and what could not be looked at."""
    found, skipped = apply_rules("static", case)
    more, also = apply_rules("first_batch", FirstBatch.of(case))
    return [*found, *more], [*skipped, *also]


def judge_curves(curves: Curves) -> Findings:
    """What the losses of a training alone show."""
    return Findings(*apply_rules("after", curves))
