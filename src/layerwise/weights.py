"""Row weights and class weights: checked, and joined into what each row counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layerwise.data.target import Target
from layerwise.errors import DataError, SettingError, did_you_mean
from layerwise.prepare import Part


def class_weights(
    said: str | Mapping[Any, float] | None, target: Target, train: Part
) -> np.ndarray | None:
    """A weight for each class, learnt on the training rows; None where all count alike."""
    if said is None:
        return None
    if target.task not in ("binary", "multiclass"):
        raise SettingError(f"class_weight is for classes; this is a {target.task} task")
    if isinstance(said, str):
        if said != "balanced":
            raise SettingError(f"class_weight has to be 'balanced' or a dict; got {said!r}")
        counts = np.bincount(target.codes(train.y), train.weight, len(target.classes))
        return counts.sum() / (len(counts) * np.maximum(counts, 1e-300))
    labels = target.classes.tolist()
    names = {str(label): i for i, label in enumerate(labels)}
    known = {**names, **{label: i for i, label in enumerate(labels)}}  # 0 is the class 0.0 too
    weights = np.ones(len(labels))
    for label, value in said.items():
        code = known.get(label, names.get(str(label)))
        if code is None:
            raise SettingError(
                f"class_weight: no class {label!r}. {did_you_mean(str(label), names)}"
            )
        number = not isinstance(value, bool) and isinstance(value, int | float | np.number)
        if not (number and np.isfinite(value) and value >= 0):
            raise SettingError(
                f"class_weight of {label!r} has to be a number of at least 0; got {value!r}"
            )
        weights[code] = value
    if not np.any(weights[target.codes(train.y)]):
        raise SettingError("class_weight: the classes of all rows weigh 0, which leaves no rows")
    return weights


def effective_weight(
    part: Part, target: Target, weights: np.ndarray | None, unit: float | None = None
) -> np.ndarray | None:
    """Row weight times class weight by a unit, else with mean 1; None if all rows count alike."""
    weight = _product(part, target, weights)
    if unit is not None:
        return (
            None
            if weight is None and unit == 1
            else (np.ones(len(part)) if weight is None else weight) / unit
        )
    if weight is None or not len(weight) or np.all(weight == weight[0]):
        return None
    return weight / weight.mean()


def row_weight(part: Part, target: Target, weights: np.ndarray | None) -> np.ndarray | None:
    """Row weight times class weight as numbers of rows: 2 is the row twice.

    For models whose penalty weighs against the number of rows. Weights with a mean below 1, such as
    shares that sum to 1, count no rows; they are scaled to mean 1.
    """
    weight = _product(part, target, weights)
    return None if weight is None else weight / min(1.0, float(weight.mean()))


def _product(part: Part, target: Target, weights: np.ndarray | None) -> np.ndarray | None:
    if weights is None:
        return part.weight
    by_class = weights[target.codes(part.y)]
    return by_class if part.weight is None else part.weight * by_class


def check_weight(weight: np.ndarray, where: str = "sample_weight") -> np.ndarray:
    """Weights as float64, or an error that names the first bad one."""
    weight = np.asarray(weight, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(weight) | (weight < 0))
    if bad.size:
        value = weight[bad[0]]
        what = "missing" if np.isnan(value) else f"{value:g}"
        raise DataError(
            f"{where}: row {bad[0] + 1} has the weight {what} ({bad.size:,} such rows); weights "
            "have to be numbers of at least 0"
        )
    if not weight.sum() > 0:
        raise DataError(f"{where}: all weights are zero, which leaves no rows")
    return weight
