"""Honest company for the network: a constant, a linear model and boosted trees on the same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from layerwise import metrics, prepare
from layerwise.data.encoder import Encoder
from layerwise.data.schema import Schema
from layerwise.data.target import Target
from layerwise.weights import class_weights, row_weight

NAMES = ("constant", "linear", "boosted trees")
_TREE_LEVELS = 255  # what HistGradientBoosting takes as one category
_ONE_THREAD = 1_000_000  # cells; with fewer, threads wait for each other longer than they work


@dataclass(frozen=True, eq=False)
class Part:
    """Encoded rows X, answers y on the target's scale, and weights or None."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None


def on_parts(
    train: prepare.Part,
    test: prepare.Part,
    schema: Schema,
    target: Target,
    class_weight: str | Mapping[Any, float] | None,
    seed: int,
    fold: np.ndarray | None = None,
    deadline: float | None = None,
) -> dict[str, dict[str, float]]:
    """`compare` on rows as they are prepared for the network, encoded alike.

    Parameters
    ----------
    train, test, schema, target, class_weight, seed : as the network has them
    fold : of the training rows: each fold is answered by what was fitted on the others, and these
        answers are measured; without it the test rows are
    deadline : ``time.monotonic()`` after which no baseline is begun
    """
    encoder = Encoder.fit(train.table, schema, train.weight)
    fitted, measured = (
        Part(encoder.transform(part.table, np.float64), part.y, part.weight)
        for part in (train, test)
    )
    weight = row_weight(train, target, class_weights(class_weight, target, train))
    return compare(encoder, target, fitted, measured, seed, weight, fold, deadline)


def compare(
    encoder: Encoder,
    target: Target,
    train: Part,
    test: Part,
    seed: int,
    fit_weight: np.ndarray | None,
    fold: np.ndarray | None = None,
    deadline: float | None = None,
) -> dict[str, dict[str, float]]:
    """Fit the baselines on the training rows and measure them on the test rows.

    Parameters
    ----------
    encoder : which columns of X are numbers and which are codes
    target : the task
    train, test : the rows; the weights of the test rows count in the metrics
    seed : of the trees
    fit_weight : weights of the training rows, class weights included, or None
    fold, deadline : as for `on_parts`

    Returns
    -------
    dict
        For each of `NAMES` the metrics that the network has too.
    """
    with threadpool_limits(1 if train.X.size < _ONE_THREAD else None):
        found = {}
        for name, estimator in _estimators(encoder, target, seed).items():
            if deadline is not None and time.monotonic() > deadline:
                break
            if fold is None:
                told = _answers(estimator, target, train, test.X, fit_weight)
                rows = test
            else:
                told = _out_of_fold(estimator, target, train, fit_weight, fold)
                rows = _take(train, fold >= 0)
            found[name] = _measured(target, rows, told)
        return found


def _out_of_fold(
    estimator: Any, target: Target, train: Part, fit_weight: np.ndarray | None, fold: np.ndarray
) -> np.ndarray:
    """The answers for the rows that have a fold, each fold's by what was fitted on the others."""
    told = None
    for number in range(int(fold.max()) + 1):
        inside, outside = fold != number, fold == number
        weight = None if fit_weight is None else fit_weight[inside]
        answers = _answers(estimator, target, _take(train, inside), train.X[outside], weight)
        told = np.zeros((len(fold), *answers.shape[1:])) if told is None else told
        told[outside] = answers
    assert told is not None  # noqa: S101  there are folds
    return told[fold >= 0]


def _take(part: Part, rows: np.ndarray) -> Part:
    return Part(part.X[rows], part.y[rows], None if part.weight is None else part.weight[rows])


def _measured(target: Target, test: Part, told: np.ndarray) -> dict[str, float]:
    """The metrics of one baseline's numbers or probabilities."""
    if target.is_regression:
        return metrics.measure(target, test.y, told, None, test.weight)
    answers = target.classes[told.argmax(axis=1)]
    return metrics.measure(target, test.y, answers, told, test.weight)


def _answers(
    estimator: Any, target: Target, train: Part, X: np.ndarray, fit_weight: np.ndarray | None
) -> np.ndarray:
    """Numbers or probabilities of one baseline, a pipeline that is fitted here."""
    y = train.y if target.is_regression else target.codes(train.y)
    weight = {} if fit_weight is None else {f"{estimator.steps[-1][0]}__sample_weight": fit_weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a linear model that has not converged is still one
        estimator.fit(train.X, y, **weight)
    if target.is_regression:
        return np.asarray(estimator.predict(X))
    return _all_classes(estimator, X, len(target.classes))


def _estimators(encoder: Encoder, target: Target, seed: int) -> dict[str, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    n = encoder.n_numbers
    codes = list(range(n, n + len(encoder.n_codes)))
    spread = ColumnTransformer(
        [("numbers", "passthrough", list(range(n))),
         ("codes", OneHotEncoder(handle_unknown="ignore"), codes)]
    )  # fmt: skip
    categories = [i for i, levels in zip(codes, encoder.n_codes) if levels < _TREE_LEVELS] or None
    if target.is_regression:
        return {
            "constant": make_pipeline(DummyRegressor()),
            "linear": make_pipeline(spread, Ridge()),
            "boosted trees": make_pipeline(
                HistGradientBoostingRegressor(random_state=seed, categorical_features=categories)
            ),
        }
    return {
        "constant": make_pipeline(DummyClassifier(strategy="prior")),
        "linear": make_pipeline(spread, LogisticRegression(max_iter=500)),
        "boosted trees": make_pipeline(
            HistGradientBoostingClassifier(random_state=seed, categorical_features=categories)
        ),
    }


def _all_classes(estimator: Any, X: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of shape (n_rows, n_classes)."""
    proba = np.zeros((len(X), n_classes))
    proba[:, estimator.classes_] = estimator.predict_proba(X)
    return proba
