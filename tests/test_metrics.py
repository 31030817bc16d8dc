"""Metrics against scikit-learn, and weights against rows repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as m

from layerwise import metrics
from layerwise.data.target import Target
from layerwise.errors import SettingError

CLASSES = {2: ["no", "yes"], 3: ["a", "b", "c"]}


def _target(task):
    if task == "regression":
        return Target("regression", np.array([]), np.array([5.0]), np.array([2.0]), "y")
    if task == "two numbers":
        return Target(
            "regression", np.array([]), np.array([5.0, 0]), np.array([2.0, 1]), "y", False
        )
    if task == "multilabel":
        return Target.multilabel(3)
    return Target.classification(np.array(CLASSES[{"binary": 2, "multiclass": 3}[task]]))


TASKS = ["regression", "two numbers", "binary", "multiclass", "multilabel"]


def _case(task, n=60, seed=0):
    rng = np.random.default_rng(seed)
    target = _target(task)
    outputs = rng.normal(size=(n, target.n_outputs))
    if target.is_regression:
        y = target.decode(outputs + rng.normal(size=outputs.shape))
    elif task == "multilabel":
        y = (outputs + rng.normal(size=outputs.shape) > 0).astype(int)
        y[0], y[1] = 0, 1
    else:
        y = rng.choice(target.classes, n)
        y[: len(target.classes)] = target.classes
    return target, y, outputs, rng.integers(1, 4, n)


def test_a_regression_has_scikit_learns_figures():
    target, y, outputs, w = _case("regression")
    answers = 5 + 2 * outputs[:, 0]
    found = metrics.evaluate(target, y, outputs, w)
    assert found == {
        "rmse": pytest.approx(m.root_mean_squared_error(y, answers, sample_weight=w)),
        "mae": pytest.approx(m.mean_absolute_error(y, answers, sample_weight=w)),
        "r2": pytest.approx(m.r2_score(y, answers, sample_weight=w)),
        "median_error": pytest.approx(m.median_absolute_error(y, answers, sample_weight=w)),
    }


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_classification_has_scikit_learns_figures(task):
    target, y, outputs, w = _case(task)
    proba = target.probabilities(outputs)
    answers = target.decode(outputs)
    binary = task == "binary"
    average = {"average": "binary", "pos_label": "yes"} if binary else {"average": "macro"}
    found = metrics.evaluate(target, y, outputs, w)
    assert found == pytest.approx({
        "accuracy": m.accuracy_score(y, answers, sample_weight=w),
        "balanced_accuracy": m.balanced_accuracy_score(y, answers, sample_weight=w),
        "log_loss": m.log_loss(y, proba, sample_weight=w),
        "roc_auc": m.roc_auc_score(
            y, proba[:, 1] if binary else proba, sample_weight=w, multi_class="ovr"
        ),
        "f1": m.f1_score(y, answers, sample_weight=w, **average),
    })  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_weight_2_is_the_row_twice_in_every_metric(task, seed):
    target, y, outputs, w = _case(task, 30, seed)
    weighted = metrics.evaluate(target, y, outputs, w.astype(float))
    repeated = metrics.evaluate(target, np.repeat(y, w, axis=0), np.repeat(outputs, w, axis=0))
    assert weighted == pytest.approx(repeated, rel=1e-9)
    live = metrics.live(target, y, outputs, w.astype(float))
    again = metrics.live(target, np.repeat(y, w, axis=0), np.repeat(outputs, w, axis=0), None)
    assert live == pytest.approx(again, rel=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_the_metric_of_every_epoch_is_that_of_the_evaluation(task):
    target, y, outputs, w = _case(task)
    ((name, value),) = metrics.live(target, y, outputs, w).items()
    assert value == pytest.approx(metrics.evaluate(target, y, outputs, w)[name], rel=1e-12)


def test_outputs_that_blew_up_give_a_figure_and_no_warning():
    target = _target("regression")
    outputs = np.array([[1e200], [np.nan], [np.inf]])
    assert not np.isfinite(metrics.live(target, np.zeros(3), outputs, None)["rmse"])


@pytest.mark.parametrize("task", TASKS)
def test_perfect_answers_have_perfect_figures(task):
    target, y, _, _ = _case(task)
    if target.is_regression:
        outputs = target.encode(y)
    elif task == "multilabel":
        outputs = np.where(y, 50.0, -50.0)
    elif task == "binary":
        outputs = np.where(target.codes(y) == 1, 50.0, -50.0)[:, None]
    else:
        outputs = np.where(np.eye(3)[target.codes(y)] > 0, 50.0, -50.0)
    for name, value in metrics.evaluate(target, y, outputs).items():
        best = 1 if name in metrics.HIGHER_IS_BETTER else 0
        assert value == pytest.approx(best, abs=1e-9), name


def test_what_the_rows_cannot_give_is_left_out():
    target, _, outputs, _ = _case("binary", 10)
    found = metrics.evaluate(target, np.array(["yes"] * 10), outputs)
    assert "roc_auc" not in found
    assert {"accuracy", "log_loss"} <= set(found)
    target, y, outputs, _ = _case("regression", 1)
    assert set(metrics.evaluate(target, y, outputs)) == {"rmse", "mae", "median_error"}
    target, y, outputs, _ = _case("multiclass", 10)
    assert "roc_auc" not in metrics.evaluate(target, np.array(["a", "b"] * 5), outputs)


def test_a_monitor_has_to_be_a_metric_of_the_task():
    for task in TASKS[:4]:
        target = _target(task)
        for name in ("loss", *metrics.names(target)):
            metrics.check_monitor(name, target)
    with pytest.raises(SettingError, match=r"'accurracy' is no metric of a binary.*'accuracy'"):
        metrics.check_monitor("accurracy", _target("binary"))
    with pytest.raises(SettingError, match="'accuracy' is no metric of a regression"):
        metrics.check_monitor("accuracy", _target("regression"))


def test_confusion_counts_weights_in_the_order_of_the_classes():
    target = _target("multiclass")
    y, answers = np.array(["a", "b", "b"]), np.array(["a", "a", "b"])
    found = metrics.confusion(target, y, answers, np.array([1.0, 2.0, 3.0]))
    assert found.tolist() == [[1, 0, 0], [2, 3, 0], [0, 0, 0]]


def test_macro_f1_counts_the_classes_of_the_rows_whatever_was_answered():
    target = Target.classification(np.array(["a", "b", "c"]))
    y = np.array(["a", "b"] * 10)
    outputs = np.where((y == "a")[:, None], [[9.0, 0, 0]], [[0, 9.0, 0]])
    outputs[0] = [0, 0, 9.0]
    found = metrics.evaluate(target, y, outputs)["f1"]
    assert found == pytest.approx((2 * 9 / 19 + 1) / 2)


def test_log_loss_of_several_labels_is_their_mean():
    target = Target.multilabel(2)
    y = np.array([[0, 1], [1, 1]])
    outputs = np.array([[0.3, -1.0], [2.0, 0.5]])
    p = 1 / (1 + np.exp(-outputs))
    by_hand = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))
    assert metrics.evaluate(target, y, outputs)["log_loss"] == pytest.approx(by_hand)


def test_the_standard_error_is_that_of_the_bootstrap(rng):
    target = Target.regression(np.array([0.0, 1.0]))
    y, outputs = rng.normal(size=400), rng.normal(size=(400, 1))
    weight = rng.uniform(0.5, 2, 400)
    losses = metrics.row_losses(target, y, outputs)
    value, error = metrics.with_error(target, losses, weight)
    assert value == pytest.approx(metrics.evaluate(target, y, outputs, weight)["rmse"])
    drawn = [rng.integers(0, 400, 400) for _ in range(800)]
    spread = np.std([metrics.with_error(target, losses[i], weight[i])[0] for i in drawn])
    assert error == pytest.approx(spread, rel=0.15)


def test_the_losses_of_classes_average_to_the_log_loss(rng):
    target = Target.classification(np.array(["a", "b", "c"]))
    y, outputs = rng.choice(target.classes, 50), rng.normal(size=(50, 3))
    weight = rng.uniform(0.5, 2, 50)
    value, _ = metrics.with_error(target, metrics.row_losses(target, y, outputs), weight)
    assert value == pytest.approx(metrics.evaluate(target, y, outputs, weight)["log_loss"])
