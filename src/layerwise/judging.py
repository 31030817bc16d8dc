"""What a training is worth: the network beside its baselines, on rows far from its training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from layerwise import baselines, metrics
from layerwise.beside import Beside
from layerwise.data.target import Target
from layerwise.model.model import Model
from layerwise.out_of_fold import OutOfFold, summary
from layerwise.prepare import Notice, Prepared, Question

Company = Callable[..., dict[str, dict[str, float]]]


def begin_company(
    question: Question, prepared: Prepared, beside: Beside, deadline: float | None = None
) -> Company | None:
    """Begin to fit the baselines, if they are wanted; none is begun after the deadline."""
    if not question.baselines:
        return None
    out_of_fold = prepared.measured_on == "out-of-fold"
    return beside.ask(
        baselines.on_parts, prepared.train, prepared.measured, prepared.schema, prepared.target,
        question.class_weight, int(question.random_state),
        prepared.fold if out_of_fold else None, deadline,
    )  # fmt: skip


def judge(
    prepared: Prepared,
    model: Model,
    held: OutOfFold | None,
    beside: Beside,
    company: Company | None,
    notice: Notice,
    deadline: float | None = None,
) -> dict[str, Any]:
    """The network's metrics, and the baselines', as entries of the record.

    Who interrupts the baselines gets the trained network without them; so does who has no more time
    for them.
    """
    interrupted = False
    found: dict[str, dict[str, float]] = {}
    if company:
        try:
            found = company(None if deadline is None else max(deadline - time.monotonic(), 0))
        except KeyboardInterrupt:
            interrupted = True
            notice("the baselines were interrupted and are left out; the network is complete")
        except TimeoutError:
            beside.end()
        gone = [name for name in baselines.NAMES if name not in found]
        if gone and not interrupted:
            notice(f"left out for want of time: the baselines {', '.join(gone)}")
    target, told = prepared.target, {}
    if held is not None:
        measured = beside.ask(metrics.evaluate, target, held.y, held.outputs, held.weight)()
        score = _score(target, held.y, held.outputs, held.weight)
        told["out_of_fold"] = summary(target, held, measured, _groups(prepared, held))
    if held is None or prepared.measured_on == "test":
        part = prepared.measured
        outputs = model.outputs(part.table)
        measured = beside.ask(metrics.evaluate, target, part.y, outputs, part.weight)()
        score = _score(target, part.y, outputs, part.weight)
    return {
        "measured_on": prepared.measured_on, "metrics": measured, "score": score,
        "baselines": found,
        "interrupted": interrupted, **told,
    }  # fmt: skip


def _score(
    target: Target, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None
) -> dict[str, Any]:
    """The deciding metric with its 95 % interval over the rows."""
    weight = np.ones(len(y)) if weight is None else weight
    value, error = metrics.with_error(target, metrics.row_losses(target, y, outputs), weight)
    low, high = metrics.interval(value, error)
    return {"metric": metrics.DECIDING[target.task], "value": value, "low": low, "high": high}


def _groups(prepared: Prepared, held: OutOfFold) -> np.ndarray | None:
    """The groups of the rows that were held out, where rows stayed together in groups."""
    if prepared.groups is None or held.how == "validation":
        return None
    places = prepared.train.table.rows
    places = np.arange(len(prepared.train)) if places is None else places
    return prepared.groups[np.isin(places, held.rows)]
