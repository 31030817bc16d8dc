"""What a bag says of the rows that its members were not trained on: score, calibration, residuals.

Each row of a fold is answered by the members that held the fold out. So every row trains and every
row is measured, and a row is never measured by a network that has seen it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import storage
from layerwise.data.target import Target

NAME = "out_of_fold.safetensors"  # within a run folder
_Z = 1.959964  # of a normal distribution, 95 % lie within so many standard deviations
_COLDEST, _HOTTEST = 0.25, 4.0


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Raw outputs for rows by networks that were not trained on them.

    Attributes
    ----------
    rows : int64 array of shape (n_rows,): where each row stands in its table, counted from 0
    fold : int64 array of shape (n_rows,): the fold it was held out in; 0 for validation rows
    y : the true values or labels, shape (n_rows,) or (n_rows, n_outputs)
    outputs : float64 array of shape (n_rows, n_outputs): logits, or standardised numbers
    weight : array of shape (n_rows,) or None
    how : "out of fold", or "validation" where one part was held out for all members
    """

    rows: np.ndarray
    fold: np.ndarray
    y: np.ndarray
    outputs: np.ndarray
    weight: np.ndarray | None = None
    how: str = "out of fold"

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self, target: Target) -> dict[str, np.ndarray]:
        """As a table: row (counted from 1), fold, truth, prediction, and residual or probabilities.

        The residual is truth less prediction; of several outputs each has its columns.
        """
        found = {"row": self.rows + 1, "fold": self.fold + 1}
        answers = target.decode(self.outputs)
        if answers.ndim > 1:
            for k in range(answers.shape[1]):
                found[f"truth {k + 1}"] = self.y[:, k]
                found[f"prediction {k + 1}"] = answers[:, k]
        else:
            found |= {"truth": self.y, "prediction": answers}
        if target.is_regression and answers.ndim == 1:
            found["residual"] = self.y - answers
        elif not target.is_regression:
            proba = target.probabilities(self.outputs)
            for k, label in enumerate(target.classes.tolist()):
                found[f"probability {label}"] = proba[:, k]
        if self.weight is not None:
            found["weight"] = self.weight
        return found

    def save(self, path: str | Path, target: Target) -> None:
        """Write a safetensors file; classes as their place among the target's."""
        flat = target.task in ("binary", "multiclass")
        arrays = {
            "row": self.rows, "fold": self.fold, "outputs": self.outputs,
            "y": target.codes(self.y) if flat else np.asarray(self.y, dtype=np.float64),
        }  # fmt: skip
        if self.weight is not None:
            arrays["weight"] = self.weight
        storage.write_whole(path, storage.pack(arrays, {"how": self.how}))

    @classmethod
    def load(cls, path: str | Path, target: Target) -> OutOfFold:
        """Read what `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is missing, foreign or damaged.
        """
        arrays, header = storage.unpack(path, "file of out-of-fold answers")
        flat = target.task in ("binary", "multiclass")
        y = target.classes[arrays["y"]] if flat else arrays["y"]
        return cls(
            arrays["row"], arrays["fold"], y, arrays["outputs"], arrays.get("weight"),
            header["how"],
        )  # fmt: skip


# ---------------------------------------------------------------- calibration


def losses(target: Target, y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The log loss of each row, of shape (n_rows,); of several labels the mean."""
    return _log_losses(target.encode(y), logits, target.task)


def _log_losses(encoded: np.ndarray, logits: np.ndarray, task: str) -> np.ndarray:
    if task == "multiclass":
        top = logits.max(axis=1, keepdims=True)
        whole = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return whole - logits[np.arange(len(logits)), encoded]
    return np.logaddexp(0, np.where(encoded > 0, -logits, logits)).mean(axis=1)


def best_temperature(
    target: Target, y: np.ndarray, logits: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, bool]:
    """The temperature with the lowest log loss, and whether it helps clearly.

    Parameters
    ----------
    target : of classes
    y : the true labels
    logits : array of shape (n_rows, n_outputs)
    weight : array of shape (n_rows,) or None

    Returns
    -------
    (between 0.25 and 4; whether the gain is above twice its standard error over the rows)

    Notes
    -----
    The loss is convex in 1 / temperature; a golden section finds its lowest point. Source: Guo et
    al. (2017), On calibration of modern neural networks.

    Examples
    --------
    >>> target = Target.classification(np.array([0, 1]))
    >>> y = np.array([0, 1, 1, 1] * 100)  # three of four, and the network says 95 %
    >>> found, clear = best_temperature(target, y, np.full((400, 1), np.log(0.95 / 0.05)))
    >>> round(float(1 / (1 + np.exp(-np.log(0.95 / 0.05) / found))), 3), clear
    (0.75, True)
    """
    encoded = target.encode(y)

    def mean(log_temperature: float) -> float:
        told = _log_losses(encoded, logits / math.exp(log_temperature), target.task)
        return float(np.average(told, weights=weight))

    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = mean(left), mean(right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = mean(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = mean(right)
    found = math.exp((low + high) / 2)
    gain = _log_losses(encoded, logits, target.task)
    gain -= _log_losses(encoded, logits / found, target.task)
    value = float(np.average(gain, weights=weight))
    return found, value > 2 * standard_error(gain - value, weight)


def thresholds(
    target: Target, y: np.ndarray, logits: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """The probabilities of the second of two classes from which to answer with it.

    ``f1`` and ``balanced_accuracy`` are highest at their thresholds on these rows; predictions
    themselves stay with the likelier class.

    Examples
    --------
    >>> target = Target.classification(np.array(["no", "yes"]))
    >>> y = np.array(["no", "no", "yes", "yes"])
    >>> found = thresholds(target, y, np.log([[0.1 / 0.9], [0.2 / 0.8], [0.3 / 0.7], [0.4 / 0.6]]))
    >>> {name: round(value, 2) for name, value in found.items()}
    {'f1': 0.25, 'balanced_accuracy': 0.25}
    """
    p, positive = target.probabilities(logits)[:, 1], target.codes(y) == 1
    w = np.ones(len(p)) if weight is None else weight
    order = np.argsort(-p, kind="stable")
    hits, alarms = np.cumsum(w[order] * positive[order]), np.cumsum(w[order] * ~positive[order])
    ends = np.flatnonzero(np.diff(p[order], append=-1.0))  # equal probabilities stay together
    if not hits[-1] or not alarms[-1]:
        return {}
    scores = {
        "f1": 2 * hits / (hits + alarms + hits[-1]),
        "balanced_accuracy": hits / hits[-1] - alarms / alarms[-1],
    }
    found = {}
    for name, score in scores.items():
        place = ends[score[ends].argmax()]
        after = p[order[place + 1]] if place + 1 < len(p) else p[order[place]]
        found[name] = float((p[order[place]] + after) / 2)
    return found


# ---------------------------------------------------------------- how sure the score is


def intervals(
    target: Target,
    held: OutOfFold,
    metrics: Mapping[str, float],
    groups: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """95 % intervals of the metrics, from their standard error over the rows.

    Parameters
    ----------
    target : the task
    held : the answers
    metrics : as measured on these answers
    groups : array of shape (n_rows,): rows of one group are no independent evidence, and count
        together

    Returns
    -------
    dict
        [lowest, highest] for accuracy, log_loss and roc_auc (of two classes), or rmse, mae and r2
        (of one target). They tell how the score would vary with other rows, the networks as they
        are.
    """
    found = {}
    for name, influence in _influences(target, held).items():
        if name in metrics:
            error = _Z * standard_error(influence, held.weight, groups)
            low, high = metrics[name] - error, metrics[name] + error
            if name in ("accuracy", "roc_auc", "r2"):
                high = min(high, 1.0)
            if name != "r2":
                low = max(low, 0.0)
            found[name] = [low, high]
    return found


def standard_error(
    influence: np.ndarray, weight: np.ndarray | None = None, groups: np.ndarray | None = None
) -> float:
    """The standard error of a weighted mean whose rows stray from it by ``influence``."""
    share = influence / len(influence) if weight is None else influence * weight / weight.sum()
    if groups is not None:
        share = np.bincount(np.unique(groups, return_inverse=True)[1], share)
    n = len(share)
    return math.sqrt(float(share @ share) * n / max(n - 1, 1))


def _influences(target: Target, held: OutOfFold) -> dict[str, np.ndarray]:
    """How each row draws each metric away from its value, the mean being 0."""
    y, w = held.y, held.weight
    answers = target.decode(held.outputs)
    if target.is_regression:
        if answers.ndim > 1:
            return {}
        error, spread = y - answers, (y - np.average(y, weights=w)) ** 2
        mse, mae = np.average(error**2, weights=w), np.average(np.abs(error), weights=w)
        variance = np.average(spread, weights=w)
        found = {"mae": np.abs(error) - mae}
        if mse > 0:
            found["rmse"] = (error**2 - mse) / (2 * math.sqrt(mse))
        if variance > 0:
            found["r2"] = (error**2 - mse / variance * spread) / variance
        return found
    right = (answers == y).astype(float)
    right = right if right.ndim == 1 else right.min(axis=1)
    loss = losses(target, y, held.outputs)
    found = {
        "accuracy": right - np.average(right, weights=w),
        "log_loss": loss - np.average(loss, weights=w),
    }
    if target.task == "binary":
        found["roc_auc"] = _auc_influence(target.codes(y) == 1, held.outputs[:, 0], w)
    return found


def _auc_influence(positive: np.ndarray, score: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """Of each row on the area under the curve. Source: DeLong et al. (1988)."""
    w = np.ones(len(score)) if w is None else w
    place = np.unique(score, return_inverse=True)[1]
    ours, theirs = np.bincount(place, w * positive), np.bincount(place, w * ~positive)
    n_ours, n_theirs = ours.sum(), theirs.sum()
    if not n_ours or not n_theirs:
        return np.zeros(len(score))
    below = (np.cumsum(theirs) - theirs / 2)[place] / n_theirs
    above = (n_ours - np.cumsum(ours) + ours / 2)[place] / n_ours
    area = np.average(below[positive], weights=w[positive])
    one = np.where(positive, (below - area) * w.sum() / n_ours, 0)
    return one + np.where(positive, 0, (above - area) * w.sum() / n_theirs)


def summary(
    target: Target,
    held: OutOfFold,
    metrics: Mapping[str, float],
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """The score with its intervals and the decision thresholds, as plain values."""
    found: dict[str, Any] = {
        "how": held.how, "rows": len(held), "metrics": dict(metrics),
        "interval": intervals(target, held, metrics, groups),
    }  # fmt: skip
    if target.task == "binary":
        found["threshold"] = thresholds(target, held.y, held.outputs, held.weight)
    return found
