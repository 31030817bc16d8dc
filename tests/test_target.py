"""The target: which task it is, and answers that come back as they were given."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.preprocessing import StandardScaler

from layerwise.data.files import read_table
from layerwise.data.frames import table_of
from layerwise.data.target import Target, infer_task, labels_of, rows_with_target, target_values
from layerwise.errors import DataError, SettingError


def column(cells, missing=()):
    return table_of({"y": cells}, missing=missing)["y"]


# ---------------------------------------------------------------- which task


@pytest.mark.parametrize(
    ("cells", "said", "task"),
    [
        (["a", "b"] * 5, "auto", "classification"),
        ([True, False] * 5, "auto", "classification"),
        ([True, False] * 5, "regression", "regression"),
        ([0, 1] * 5, "auto", "classification"),
        ([*range(10)] * 2, "auto", "classification"),
        ([*range(11)] * 2, "auto", "regression"),
        ([*range(11)] * 2, "classification", "classification"),
        ([0, 1] * 5, "regression", "regression"),
        ([0.5, 1.0] * 5, "auto", "regression"),
        ([0.5, 1.0] * 5, "classification", "classification"),
        ([0, 1, None] * 5, "auto", "classification"),
        (["a", "b", "c"], "auto", None),
        (["a", "b"], "auto", "classification"),
    ],
)
def test_the_task_follows_from_the_cells_or_from_what_was_said(cells, said, task):
    if task is None:
        with pytest.raises(DataError, match="3 classes in 3 rows, more than one for every two"):
            infer_task(column(cells), said)
    else:
        found, reason = infer_task(column(cells), said)
        assert found == task
        assert reason


@pytest.mark.parametrize(
    ("cells", "said", "error", "says"),
    [
        ([None, None], "auto", DataError, "every cell is a gap"),
        ([1.5, 1.5, None], "auto", DataError, "constant: all 2 cells are '1.5'"),
        (["a", "a"], "auto", DataError, "constant: all 2 cells are 'a'"),
        (["2020-01-01", "2020-01-02"], "auto", DataError, "is a date; turn it into a number"),
        (["a", "b"], "regression", DataError, "texts such as 'a'; a regression needs numbers"),
        ([str(i) for i in range(20)], "auto", DataError, "20 classes in 20 rows"),
        ([*range(20)], "classification", DataError, "20 classes in 20 rows.*--task regression"),
        ([0, 1], "regresion", SettingError, "unknown task 'regresion'. Did you mean 'regression'"),
        ([*range(50), "?"], "auto", DataError, r"nearly all numbers, but row 51 has '\?'"),
        ([*range(50), "?"], "regression", DataError, r"nearly all numbers, but row 51 has '\?'"),
        (["2020-01-01"] * 30 + ["soon"], "auto", DataError, "nearly all ISO dates, but row 31"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(cells, said, error, says):
    with pytest.raises(error, match=says):
        infer_task(column(cells), said)


def test_rows_without_a_target_are_left_out_and_infinity_is_named():
    table = read_table({"y": [1.0, None, 3.0], "t": ["a", "b", None]})
    assert rows_with_target(table, "y").tolist() == [0, 2]
    assert rows_with_target(table, "t").tolist() == [0, 1]
    table = read_table({"y": [1.0, float("-inf")]})
    with pytest.raises(DataError, match="the table row 2, target 'y': the number is infinity"):
        rows_with_target(table, "y")


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["b", "a"], ["b", "a"]),
        ([True, False], [True, False]),
        ([3, 1], [3, 1]),
        ([0.5, 1.0], [0.5, 1.0]),
    ],
)
def test_labels_are_what_the_user_wrote(cells, labels):
    found = labels_of(column(cells))
    assert found.tolist() == labels
    assert [type(label) for label in found.tolist()] == [type(label) for label in labels]
    assert target_values(column(cells), "classification").tolist() == labels


def test_whole_numbers_with_gaps_are_labels_again_once_the_gaps_are_gone():
    cells = column([2, None, 1])
    assert labels_of(cells.take(~cells.missing)).tolist() == [2, 1]


# ---------------------------------------------------------------- there and back

LABELS = {
    "strings": np.array(["b", "a", "c", "a"], dtype=object),
    "fixed strings": np.array(["b", "a", "c", "a"]),
    "two strings": np.array(["no", "yes", "no"], dtype=object),
    "booleans": np.array([True, False, True]),
    "whole numbers": np.array([7, -1, 3, 7]),
    "numbers": np.array([0.5, 1.5, 0.5]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_survive_encoding_json_and_decoding(name):
    y = LABELS[name]
    target = Target.classification(np.unique(y), "y")
    target = Target.from_json(json.loads(json.dumps(target.to_json())))
    codes = target.encode(y)
    if target.task == "binary":
        assert (codes.shape, target.n_outputs) == ((len(y), 1), 1)
        outputs = codes * 2 - 1
    else:
        assert (codes.shape, target.n_outputs) == ((len(y),), len(np.unique(y)))
        outputs = np.eye(len(target.classes))[codes]
    assert target.decode(outputs).tolist() == y.tolist()
    assert target.probabilities(outputs).shape == (len(y), len(target.classes))
    assert not target.is_regression


def test_a_class_that_training_did_not_have_is_named():
    target = Target.classification(np.array(["a", "b"], dtype=object), "town")
    assert target.codes(np.array(["b", "c"], dtype=object)).tolist() == [1, -1]
    with pytest.raises(DataError, match="target 'town': class 'c' was not in the training rows"):
        target.encode(np.array(["b", "c"], dtype=object))


def test_several_labels_at_once():
    target = Target.multilabel(3)
    y = np.array([[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(target.encode(y), y)
    np.testing.assert_array_equal(target.decode(target.encode(y) - 0.5), y)
    logits = np.array([[-40.0, 0.0, 40.0]])
    np.testing.assert_allclose(target.probabilities(logits), expit(logits), rtol=1e-15)


@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=2, max_size=20),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_numbers_survive_standardising_with_one_output_or_two(rows, flat):
    y = np.array(rows)[:, 0] if flat else np.array(rows)
    target = Target.regression(y)
    target = Target.from_json(json.loads(json.dumps(target.to_json())))
    encoded = target.encode(y)
    assert encoded.shape == (len(y), target.n_outputs)
    answers = target.decode(encoded)
    assert answers.shape == y.shape
    np.testing.assert_allclose(answers, y, rtol=1e-9, atol=1e-9 * np.abs(y).max() + 1e-300)


def test_regression_is_standardised_as_by_scikit_learn_with_weights(rng):
    y, weight = rng.normal(5, 3, (50, 2)), rng.integers(1, 4, 50).astype(float)
    for w in (None, weight):
        target, reference = Target.regression(y, w), StandardScaler().fit(y, sample_weight=w)
        np.testing.assert_allclose(target.mean, reference.mean_, rtol=1e-12)
        np.testing.assert_allclose(target.encode(y), reference.transform(y), rtol=1e-9)
    twice = Target.regression(np.repeat(y, weight.astype(int), axis=0))
    once = Target.regression(y, weight)
    np.testing.assert_allclose([twice.mean, twice.scale], [once.mean, once.scale], rtol=1e-13)


@pytest.mark.parametrize(
    "y", [[1e300, -1e300, 5.0], [1e-300, 2e-300], [0.1] * 10, [0, 0], [1e308] * 2]
)
def test_huge_tiny_and_constant_targets_stay_finite(y):
    y = np.array(y)
    target = Target.regression(y)
    encoded = target.encode(y)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max() < 3
    np.testing.assert_allclose(target.decode(encoded), y, rtol=1e-9)


# ---------------------------------------------------------------- probabilities

EXTREME = [-1e4, -800.0, -745.0, -40.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 40.0, 800.0, 1e4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_classes_answer_with_the_sigmoid_precise_on_both_sides(dtype):
    logits = np.array(EXTREME, dtype)[:, None]
    proba = Target.classification(np.array([0, 1])).probabilities(logits)
    exact = logits.astype(np.float64)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba[:, 1:], expit(exact), rtol=1e-14, atol=1e-320)
    np.testing.assert_allclose(proba[:, :1], expit(-exact), rtol=1e-14, atol=1e-320)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_classes_answer_with_the_softmax(dtype, rng):
    logits = np.concatenate(
        [rng.choice(EXTREME, (30, 4)), rng.normal(size=(30, 4)), np.full((1, 4), 1e4)]
    ).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proba = Target.classification(np.arange(4)).probabilities(logits)
    np.testing.assert_allclose(proba, softmax(logits.astype(np.float64), axis=1), rtol=1e-12)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_answer_is_the_class_of_the_highest_probability(n_classes, rng):
    target = Target.classification(np.arange(n_classes) * 10)
    outputs = rng.normal(size=(200, target.n_outputs)) * 30
    proba = target.probabilities(outputs)
    np.testing.assert_array_equal(target.decode(outputs), proba.argmax(axis=1) * 10)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_logits_are_the_way_back_from_probabilities(n_classes, rng):
    target = Target.classification(np.arange(n_classes))
    proba = target.probabilities(rng.normal(size=(50, target.n_outputs)) * 5)
    np.testing.assert_allclose(target.probabilities(target.logits(proba)), proba, rtol=1e-9)


def test_a_regression_has_no_probabilities():
    with pytest.raises(SettingError, match="a regression has no probabilities"):
        Target.regression(np.array([1.0, 2.0])).probabilities(np.zeros((2, 1)))
