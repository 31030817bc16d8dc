"""How good answers are: scikit-learn's metrics, weighted, by task."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from layerwise.data.target import Target
from layerwise.errors import SettingError, did_you_mean

REGRESSION = ("rmse", "mae", "r2", "median_error")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "f1")
# The metric that decides which of several is better: proper scores, not thresholds.
DECIDING = {"regression": "rmse", "binary": "log_loss", "multiclass": "log_loss"}
HIGHER_IS_BETTER = ("r2", "accuracy", "balanced_accuracy", "roc_auc", "f1")


def names(target: Target) -> tuple[str, ...]:
    """The metrics of the target's task."""
    return REGRESSION if target.is_regression else CLASSIFICATION


def check_monitor(name: str, target: Target) -> None:
    """Refuse a metric that the task does not have."""
    known = ("loss", *names(target))
    if name not in known:
        raise SettingError(
            f"monitor {name!r} is no metric of a {target.task} task. {did_you_mean(name, known)}"
        )


def evaluate(
    target: Target, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """All metrics of the task, on the scale of the target.

    Parameters
    ----------
    target : the task
    y : the true values or labels, shape (n_rows,) or (n_rows, n_outputs)
    outputs : the network's raw outputs, shape (n_rows, n_outputs)
    weight : array of shape (n_rows,) or None; a weight of 2 is the row twice

    Returns
    -------
    dict
        regression: rmse, mae, r2, median_error (of the absolute error); classification: accuracy,
        balanced_accuracy, log_loss, roc_auc (one class against the rest, macro mean), f1 (of the
        second class, or the macro mean). A metric that these rows cannot give, such as roc_auc of
        rows of one class, is left out.
    """
    return measure(
        target,
        y,
        target.decode(outputs),
        None if target.is_regression else target.probabilities(outputs),
        weight,
    )


def measure(
    target: Target,
    y: np.ndarray,
    answers: np.ndarray,
    probabilities: np.ndarray | None,
    weight: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics of any answers: those of the network, or of a baseline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "only one class": such metrics are left out below
        if target.is_regression:
            return _regression(y, answers, weight)
        assert probabilities is not None  # noqa: S101  a classifier always has them
        return _classification(target, y, answers, probabilities, weight)


def _regression(y: np.ndarray, answers: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
    from sklearn import metrics as m

    found = {
        "rmse": float(m.root_mean_squared_error(y, answers, sample_weight=w)),
        "mae": float(m.mean_absolute_error(y, answers, sample_weight=w)),
        "r2": float(m.r2_score(y, answers, sample_weight=w)) if len(y) > 1 else np.nan,
        "median_error": float(m.median_absolute_error(y, answers, sample_weight=w)),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _classification(
    target: Target, y: np.ndarray, answers: np.ndarray, p: np.ndarray, w: np.ndarray | None
) -> dict[str, float]:
    from sklearn import metrics as m

    if target.task == "multilabel":
        losses = [
            m.log_loss(y[:, k], p[:, k], sample_weight=w, labels=[0, 1]) for k in range(y.shape[1])
        ]
        found = {
            "accuracy": float(m.accuracy_score(y, answers, sample_weight=w)),
            "log_loss": float(np.mean(losses)),
            "f1": float(m.f1_score(y, answers, average="macro", sample_weight=w, zero_division=0)),
        }
        return found
    codes, said = target.codes(y), target.codes(answers)
    labels = list(range(len(target.classes)))
    binary = target.task == "binary"
    # The classes of these rows: a wrong answer must not change how many there are.
    average: dict[str, Any] = (
        {"average": "binary"} if binary else {"average": "macro", "labels": np.unique(codes)}
    )
    found = {
        "accuracy": float(m.accuracy_score(codes, said, sample_weight=w)),
        "balanced_accuracy": float(m.balanced_accuracy_score(codes, said, sample_weight=w)),
        "log_loss": float(m.log_loss(codes, p, sample_weight=w, labels=labels)),
        "f1": float(m.f1_score(codes, said, **average, sample_weight=w, zero_division=0)),
    }
    if len(np.unique(codes)) == len(labels):
        scores: Any = p[:, 1] if binary else p
        found["roc_auc"] = float(
            m.roc_auc_score(codes, scores, sample_weight=w, multi_class="ovr", labels=labels)
        )
    return {name: found[name] for name in CLASSIFICATION if np.isfinite(found.get(name, np.nan))}


def confusion(
    target: Target, y: np.ndarray, answers: np.ndarray, w: np.ndarray | None
) -> np.ndarray:
    """Rows: the true classes; columns: the answers; both in the order of ``target.classes``."""
    from sklearn.metrics import confusion_matrix

    labels = range(len(target.classes))
    codes = target.codes(y), target.codes(answers)
    return np.asarray(confusion_matrix(*codes, labels=list(labels), sample_weight=w))


def live(
    target: Target, y: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None
) -> dict[str, float]:
    """One metric cheap enough for every epoch: rmse or accuracy."""
    if target.is_regression:
        with np.errstate(over="ignore", invalid="ignore"):  # weights that blew up
            errors = (target.decode(outputs) - y).reshape(len(y), -1) ** 2
            return {"rmse": float(np.sqrt(np.average(errors, axis=0, weights=weight)).mean())}
    right = target.decode(outputs) == y
    if right.ndim > 1:
        right = right.all(axis=1)
    return {"accuracy": float(np.average(right, weights=weight))}


def row_losses(target: Target, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """What each row adds to the deciding metric, shape (n_rows,): squared error, or log loss."""
    if target.is_regression:
        return np.asarray((target.decode(outputs) - y) ** 2)
    codes = target.codes(y)
    p = target.probabilities(outputs)[np.arange(len(codes)), codes]
    return -np.log(np.clip(p, np.finfo(np.float64).eps, 1))


def with_error(target: Target, losses: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The deciding metric of rows with these losses, and its standard error.

    The error of a mean over rows is their deviation over the root of how many they are (of
    weighted rows, as many as they are worth: Kish, 1965, Survey sampling); that of the root of a
    mean follows by the delta method.
    """
    mean = float(np.average(losses, weights=weight))
    effective = weight.sum() ** 2 / (weight**2).sum()
    spread = float(np.average((losses - mean) ** 2, weights=weight))
    error = float(np.sqrt(spread / max(effective - 1, 1)))
    if not target.is_regression:
        return mean, error
    root = float(np.sqrt(mean))
    return root, error / (2 * root) if root else 0.0


def interval(value: float, error: float) -> tuple[float, float]:
    """95 % of a normal distribution, but not below 0."""
    return max(value - 1.96 * error, 0.0), value + 1.96 * error
