"""What the table of a run shows, so that its script has no line that the run does not need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerwise.code.source import Source, refuse_spaced_quotes
from layerwise.data.encoder import BooleanStep, CategoryStep, Step, smooth_clip, weighted_quantiles
from layerwise.data.files import read_table
from layerwise.data.kinds import plain_levels
from layerwise.data.table import Kind, Table
from layerwise.errors import DataError, SettingError
from layerwise.model.model import Model
from layerwise.prepare import Part, Prepared, Question, prepare, read
from layerwise.weights import class_weights, effective_weight


@dataclass(frozen=True)
class Facts:
    """The defaults are for a table that is gone: what is not known may be the case.

    Attributes
    ----------
    kinds : of the columns as they stand in the table
    gaps : whether rows have no target
    alone : whether a class has a single row
    alike : whether half the training rows of a column of numbers are alike
    quantiles, moments : whether NumPy's own are as good as ours, to the network's last digit
    pointed : whether a category's levels are written as 1.0
    weighted : whether the training rows count differently in the loss
    lonely : whether a class has a single row among those that are in folds
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    gaps: bool = True
    alone: bool = True
    alike: bool = True
    quantiles: bool = False
    moments: bool = False
    pointed: bool = True
    weighted: bool = True
    lonely: bool = True


def look(question: Question, source: Source, model: Model, fingerprint: str) -> Facts:
    """Read the tables again and look; the defaults if they are gone or not what they were.

    Raises
    ------
    DataError
        For a table that pandas would read otherwise.
    """
    if source.in_memory:
        return Facts()
    try:
        table, schema = read(question)
        same = table.fingerprint() == fingerprint
        prepared = prepare(question, table, schema, lambda _: None) if same else None
    except (DataError, SettingError):
        prepared = None
    if prepared is None:
        return Facts()
    refuse_spaced_quotes(source, table)
    part = prepared.train
    weights = class_weights(question.class_weight, prepared.target, part)
    return Facts(
        kinds=_kinds(question, source, table, part, schema.missing),
        gaps=bool(table[prepared.target.name].missing.any()) or len(source.paths) > 1,
        alone=_has_single(question, prepared),
        alike=any(_half_alike(part, step) for step in model.encoder.numeric),
        quantiles=_usual_quantiles(prepared, model),
        moments=_usual_moments(prepared, model),
        pointed=any(
            plain_levels(table[step.name]) is not table[step.name]
            for step in model.encoder.categories
            if table[step.name].kind == "text"
        ),
        weighted=effective_weight(part, prepared.target, weights) is not None,
        lonely=prepared.fold is not None and bool((prepared.fold < 0).any()),
    )


def _kinds(
    question: Question, source: Source, table: Table, part: Part, missing: Sequence[str]
) -> dict[str, Kind]:
    """What the columns are where no role has turned them into something else."""
    if source.way.form != "csv":  # there the file itself says what they are
        table = read_table(question.source, missing=missing, encoding=question.encoding)
    kinds = {name: column.kind for name, column in table.columns.items()}
    if question.time is not None:
        kinds[question.time] = part.table[question.time].kind
    return kinds


def _has_single(question: Question, prepared: Prepared) -> bool:
    """Whether a class of the table that is split has one row."""
    parts = [prepared.train]
    parts += [prepared.valid] if prepared.valid and not isinstance(question.valid, str) else []
    parts += [prepared.test] if prepared.test and not isinstance(question.test, str) else []
    if prepared.target.is_regression:
        return False
    return bool(np.unique(np.concatenate([p.y for p in parts]), return_counts=True)[1].min() == 1)


def _half_alike(part: Part, step: Step) -> bool:
    """Whether the quartiles of a column are alike, but not all of its cells."""
    if isinstance(step, BooleanStep | CategoryStep) or not step.width:
        return False
    low, high = weighted_quantiles(*_present(part, step.name), [0.25, 0.75])
    return bool(low == high)


def _usual_quantiles(prepared: Prepared, model: Model) -> bool:
    """Whether NumPy's quantiles, whose last digit can be another, give the network the same."""
    for step in model.encoder.numeric:
        if isinstance(step, BooleanStep) or not step.width:
            continue
        low, middle, high = np.quantile(_present(prepared.train, step.name)[0], [0.25, 0.5, 0.75])
        width = high - low or step.width
        for part in _parts(prepared):
            values = _present(part, step.name)[0]
            usual = smooth_clip((values - middle) / width).astype(model.dtype)
            ours = smooth_clip((values - step.center) / step.width).astype(model.dtype)
            if not np.array_equal(usual, ours):
                return False
    return True


def _usual_moments(prepared: Prepared, model: Model) -> bool:
    """Whether NumPy's mean and deviation of the target give the network the same."""
    target, y = model.target, prepared.train.y
    if not target.is_regression:
        return True
    usual = [((p.y - y.mean()) / y.std()).astype(model.dtype) for p in _parts(prepared)]
    ours = [target.encode(p.y)[:, 0].astype(model.dtype) for p in _parts(prepared)]
    return all(map(np.array_equal, usual, ours))


def _parts(prepared: Prepared) -> list[Part]:
    return [part for part in (prepared.train, prepared.valid, prepared.test) if part]


def _present(part: Part, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers of a column, of dates in seconds, without its gaps; and their weights."""
    column = part.table[name]
    known = ~column.missing
    values = column.values[known]
    weight = None if part.weight is None else part.weight[known]
    return values.astype(np.int64) / 1e6 if column.kind == "datetime" else values, weight
