"""Metrics: those of scikit-learn on raw outputs, with weights, and which way is better."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from layerwise.errors import NetworkError, SettingError
from layerwise.training.scores import accuracy, higher_is_better, mae, names_of, rmse, score_of


@pytest.fixture
def w():
    return torch.rand(40, generator=torch.Generator().manual_seed(3)) + 0.1


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _numbers(y):
    return y.reshape(len(y), -1).numpy()


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_of_classes_is_that_of_scikit_learn(weighted, w):
    outputs, y = _normal(40, 3), torch.arange(40) % 3
    weight = w if weighted else None
    expected = sk.accuracy_score(y, outputs.argmax(1), sample_weight=weight)
    assert accuracy(outputs, y, weight) == pytest.approx(expected)
    one_hot = torch.nn.functional.one_hot(y)
    assert accuracy(outputs, one_hot.float(), weight) == pytest.approx(expected)
    assert accuracy(outputs, one_hot, weight) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_of_yes_and_no_cuts_logits_at_0_and_probabilities_at_a_half(shape, weighted, w):
    logits, y = _normal(*shape), (_normal(*shape, seed=1) > 0).float()
    weight = w if weighted else None
    expected = sk.accuracy_score(y.flatten(), logits.flatten() > 0, sample_weight=weight)
    assert accuracy(logits, y, weight) == pytest.approx(expected)
    assert accuracy(logits, y.long(), weight) == pytest.approx(expected)
    assert accuracy(logits.sigmoid(), y, weight, cut=0.5) == pytest.approx(expected)


def test_accuracy_of_several_labels_counts_each(w):
    logits, y = _normal(40, 3), (_normal(40, 3, seed=1) > 0).float()
    expected = np.average(((logits > 0) == (y > 0)).float().mean(1), weights=w)
    score = score_of("accuracy", w, "binary_cross_entropy_with_logits")
    assert score(logits, y)["accuracy"] == pytest.approx(expected, rel=1e-6)
    assert accuracy(logits, y, w, each=True) == pytest.approx(expected, rel=1e-6)


def test_accuracy_of_places_leaves_out_what_does_not_count(w):
    outputs, y = _normal(40, 3, 5), torch.arange(200).reshape(40, 5) % 3
    right = (outputs.argmax(1) == y).double()
    assert accuracy(outputs, y) == pytest.approx(float(right.mean()))
    assert accuracy(outputs, y, w) == pytest.approx(np.average(right.mean(1), weights=w), rel=1e-6)
    y[:, 3:] = 9
    assert accuracy(outputs, y, ignore=9) == pytest.approx(float(right[:, :3].mean()))
    assert score_of("accuracy", ignore=9)(outputs, y)["accuracy"] == accuracy(outputs, y, ignore=9)


@pytest.mark.parametrize("kind", ["binary_cross_entropy", "mse_loss", "huber_loss"])
def test_numbers_near_0_and_1_are_cut_at_a_half(kind):
    outputs, y = torch.tensor([[0.2], [0.4], [0.9]]), torch.tensor([[0.0], [0.0], [1.0]])
    assert score_of("accuracy", None, kind)(outputs, y) == {"accuracy": 1.0}
    assert score_of("accuracy")(outputs, y) == {"accuracy": pytest.approx(1 / 3)}


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_numbers_are_those_of_scikit_learn(shape, weighted, w):
    outputs, y = _normal(*shape), _normal(*shape, seed=1)
    weight = w if weighted else None
    mean = sk.mean_squared_error(_numbers(y), _numbers(outputs), sample_weight=weight)
    assert rmse(outputs, y, weight) == pytest.approx(mean**0.5)
    mean = sk.mean_absolute_error(_numbers(y), _numbers(outputs), sample_weight=weight)
    assert mae(outputs, y, weight) == pytest.approx(mean)


@pytest.mark.parametrize("metric", [accuracy, rmse, mae])
def test_nothing_is_stretched(metric):
    with pytest.raises(NetworkError, match=r"outputs \(4, 1\) with y \(4,\)"):
        metric(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(NetworkError, match="of one shape"):
        metric(torch.zeros(4), torch.zeros(4, 1))


def test_accuracy_of_numbers_is_refused():
    with pytest.raises(NetworkError, match=r"y goes from -3 to 7.5; of numbers take rmse or mae"):
        accuracy(torch.zeros(2), torch.tensor([-3.0, 7.5]))


def test_metrics_are_names_or_functions_by_name(w):
    outputs, y = _normal(40, 1), _normal(40, 1, seed=1)
    assert score_of(()) is None
    assert score_of({}) is None
    assert score_of("rmse")(outputs, y) == {"rmse": rmse(outputs, y)}
    assert score_of(["mae", "rmse"], w)(outputs, y) == {
        "mae": mae(outputs, y, w),
        "rmse": rmse(outputs, y, w),
    }
    found = score_of({"worst": lambda outputs, y: (outputs - y).abs().max()}, w)(outputs, y)
    assert found == {"worst": pytest.approx(float((outputs - y).abs().max()))}
    assert isinstance(found["worst"], float)
    assert names_of("mae") == names_of(["mae"]) == names_of({"mae": mae}) == ["mae"]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ("rmsee", "unknown metric 'rmsee'. Did you mean 'rmse'"),
        (["f1"], "unknown metric 'f1'. Known are accuracy, rmse, mae"),
        ({"mine": "rmse"}, "metric 'mine' has to be a function"),
        ({"valid_loss": rmse}, "the history has its own 'valid_loss'"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, told):
    with pytest.raises(SettingError, match=told):
        score_of(metrics)


def test_a_metric_gives_one_number():
    with pytest.raises(SettingError, match=r"'mine' has to give one number; it gave Tensor.*\(4,"):
        score_of({"mine": lambda outputs, y: outputs})(torch.zeros(4), torch.zeros(4))
    with pytest.raises(SettingError, match="it gave NoneType"):
        score_of({"mine": lambda outputs, y: None})(torch.zeros(4), torch.zeros(4))


@pytest.mark.parametrize(
    ("monitor", "mode", "metrics", "expected"),
    [
        ("loss", None, (), False),
        ("loss", "min", (), False),
        ("accuracy", None, "accuracy", True),
        ("rmse", None, ["mae", "rmse"], False),
        ("rmse", "max", ["rmse"], True),
        ("mine", "max", {"mine": rmse}, True),
        ("mine", "min", {"mine": rmse}, False),
    ],
)
def test_which_way_is_better(monitor, mode, metrics, expected):
    assert higher_is_better(monitor, mode, metrics) is expected


@pytest.mark.parametrize(
    ("monitor", "mode", "metrics", "told"),
    [
        ("loss", "max", (), "the loss is to become small"),
        ("loss", "up", (), "mode has to be 'min' or 'max'; got 'up'"),
        ("valid_loss", None, (), "monitor 'valid_loss' is not among the metrics"),
        ("accuracy", None, "rmse", "Add it: metrics='accuracy'"),
        ("mines", "max", {"mine": rmse}, "Did you mean 'mine'"),
        ("mine", None, {"mine": rmse}, "say which way is better for 'mine'"),
        ("accuracy", None, {"accuracy": rmse}, "say which way is better"),
    ],
)
def test_a_monitor_that_says_nothing_is_refused(monitor, mode, metrics, told):
    with pytest.raises(SettingError, match=told):
        higher_is_better(monitor, mode, metrics)
