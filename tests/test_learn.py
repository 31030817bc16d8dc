"""From a table's rows to a model: weights, losses, devices, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import small
from layerwise.data.files import read_table
from layerwise.data.schema import enforce, infer_schema
from layerwise.data.target import Target
from layerwise.errors import DataError, SettingError
from layerwise.learn import learn, loss_name, torch_device
from layerwise.prepare import Part
from layerwise.training.recipe import Recipe
from layerwise.weights import check_weight, class_weights, effective_weight, row_weight

QUICK = {"epochs": 5, "hidden_layer_sizes": (6,), "lr": 0.02, "members": 1}


def _part(target, n=80, seed=0, weight=None):
    data = small.rows(n, seed)
    inputs = {name: data[name] for name in ("size", "town", "new")}
    table = read_table(inputs)
    schema = infer_schema(table)
    y = np.array(data[target], dtype=float if target == "price" else object)
    return Part(enforce(table, schema, schema.names), y, weight), schema


def _target(target, y):
    if target == "price":
        return Target.regression(y)
    return Target.classification(np.unique(y), target)


def _learn(target="sold", valid=True, weight=None, **options):
    part, schema = _part(target, weight=weight)
    settings = {k: options.pop(k) for k in set(options) & set(Recipe.__dataclass_fields__)}
    other = _part(target, 40, 1)[0] if valid else None
    recipe = Recipe(**{**QUICK, **settings})
    return learn(part, other, schema, _target(target, part.y), recipe, **options)


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_the_model_answers_as_the_trained_network(target):
    learnt = _learn(target)
    part, _ = _part(target, 30, 5)
    X = torch.from_numpy(learnt.model.encode(part.table))
    with torch.no_grad():
        expected = learnt.network(X).double().numpy()
    np.testing.assert_allclose(learnt.model.outputs(part.table), expected, rtol=1e-6, atol=1e-9)
    assert not learnt.network.training
    assert learnt.model.info["best_epoch"] == learnt.history.best_epoch
    assert learnt.model.info["rows"] == {"train": 80, "valid": 40}


def test_the_history_has_one_metric_and_the_monitored_one():
    assert "accuracy" in _learn("sold").history[0]
    assert "rmse" in _learn("price").history[0]
    history = _learn("sold", monitor="roc_auc").history
    assert {"accuracy", "roc_auc"} <= set(history[0])
    assert history.best["roc_auc"] == max(history["roc_auc"])


def test_small_tables_train_in_double_precision_and_full_batches():
    learnt = _learn(valid=False)
    assert learnt.model.dtype == np.float64
    assert _learn(dtype="float32").model.dtype == np.float32
    part, schema = _part("sold", 210)
    large = learn(part, None, schema, _target("sold", part.y), Recipe(**QUICK))
    assert large.model.dtype == np.float32


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    weights = [_learn(dropout=0.2, seed=s).model.members[0]["1.weight"] for s in (3, 3, 4)]
    assert weights[0].tobytes() == weights[1].tobytes()
    assert weights[0].tobytes() != weights[2].tobytes()


def test_weights_of_rows_are_exact_in_a_full_batch():
    w = np.random.default_rng(0).integers(1, 4, 80).astype(float)
    part, schema = _part("price", weight=w)
    target = Target.regression(part.y, w)
    recipe = Recipe(**QUICK, batch_size=1000, dtype="float64")
    weighted = learn(part, None, schema, target, recipe)
    repeated = learn(
        Part(part.table, part.y).take(np.repeat(np.arange(80), w.astype(int))), None, schema,
        target, recipe,
    )  # fmt: skip
    for name, array in weighted.model.members[0].items():
        np.testing.assert_allclose(array, repeated.model.members[0][name], rtol=1e-9, atol=1e-11)


def test_going_on_keeps_encoder_network_and_optimizer():
    first = _learn(valid=False)
    part, schema = _part("sold")
    again = learn(
        part, None, schema, first.model.target, Recipe(**QUICK), start=first
    )  # fmt: skip
    assert again.network is first.network
    assert again.optimizers == first.optimizers
    assert again.history[0]["train_loss"] < first.history[0]["train_loss"]


# ---------------------------------------------------------------- what is refused


def test_a_table_without_inputs_says_what_was_left_out():
    table = read_table({"id": [f"k{i}" for i in range(50)], "same": [1] * 50})
    schema = infer_schema(table)
    y = np.array(["a", "b"] * 25, dtype=object)
    with pytest.raises(DataError, match=r"no column to learn from.*id \(identifier\).*same"):
        learn(Part(table, y), None, schema, _target("y", y), Recipe())


@pytest.mark.parametrize(
    ("task", "loss"), [("sold", "mse"), ("band", "bce"), ("price", "cross_entropy")]
)
def test_a_loss_has_to_fit_the_task(task, loss):
    with pytest.raises(SettingError, match=f"loss '{loss}' does not fit"):
        _learn(task, loss=loss)


def test_auto_takes_the_loss_of_the_task():
    tasks = {"price": "mse", "sold": "bce", "band": "cross_entropy"}
    for name, expected in tasks.items():
        part, _ = _part(name)
        assert loss_name(Recipe(), _target(name, part.y)) == expected
    assert loss_name(Recipe(loss="huber"), Target.regression(np.arange(3.0))) == "huber"


def test_a_metric_that_the_validation_rows_cannot_give_is_refused_in_words():
    part, schema = _part("sold")
    one_class = part.take(np.flatnonzero(part.y == "sold"))
    recipe = Recipe(**QUICK, monitor="roc_auc")
    with pytest.raises(SettingError, match="'roc_auc' cannot be measured on these validation rows"):
        learn(part, one_class, schema, _target("sold", part.y), recipe)


def test_a_metric_of_weights_that_blew_up_is_not_measured():
    part, schema = _part("price", 300)
    recipe = Recipe(
        epochs=2, hidden_layer_sizes=(6,), optimizer="sgd", lr=1e38, monitor="r2", batch_size=1000
    )
    with pytest.raises(ArithmeticError, match="finite"):
        learn(part, part, schema, _target("price", part.y), recipe)


@pytest.mark.parametrize("name", ["cuda:77", "nonsense", ""])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(SettingError, match="cannot be used here"):
        torch_device(name)


def test_auto_takes_a_device_that_works():
    assert torch.empty(1, device=torch_device("auto")).shape == (1,)


# ---------------------------------------------------------------- weights


def _classes(labels=("a", "b"), n=(30, 10), weight=None):
    y = np.repeat(np.array(labels, dtype=object), n)
    part = Part(read_table({"x": np.arange(len(y)) * 1.5}), y, weight)
    return part, Target.classification(np.unique(y))


def test_balanced_classes_weigh_alike():
    part, target = _classes()
    weights = class_weights("balanced", target, part)
    assert weights.tolist() == [40 / (2 * 30), 40 / (2 * 10)]
    w = np.where(part.y == "a", 1.0, 3.0)
    part, target = _classes(weight=w)
    assert class_weights("balanced", target, part).tolist() == [1.0, 1.0]


def test_class_weights_multiply_the_rows_weights_to_mean_1():
    w = np.tile([1.0, 3.0], 20)
    part, target = _classes(weight=w)
    weights = class_weights({"b": 5}, target, part)
    expected = w * np.where(part.y == "b", 5, 1)
    found = effective_weight(part, target, weights)
    np.testing.assert_allclose(found, expected / expected.mean())
    assert found.mean() == pytest.approx(1)


def test_rows_that_count_alike_need_no_weights():
    part, target = _classes(weight=np.full(40, 7.0))
    assert effective_weight(part, target, None) is None
    assert effective_weight(_classes()[0], target, np.ones(2)) is None


def test_as_numbers_of_rows_weights_are_not_scaled_unless_they_are_shares():
    part, target = _classes(weight=np.full(40, 2.0))
    assert row_weight(part, target, None).tolist() == [2.0] * 40
    part, _ = _classes(weight=np.full(40, 1 / 40))
    np.testing.assert_allclose(row_weight(part, target, None), 1.0)
    assert row_weight(_classes()[0], target, None) is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [((0, 1), {1: 3}), ((0.0, 1.0), {1: 3}), ((0, 1), {"1": 3}), ((False, True), {True: 3})],
)
def test_a_class_is_found_by_its_value_or_its_text(labels, said):
    y = np.repeat(np.array(labels), (30, 10))
    part = Part(read_table({"x": np.arange(40) * 1.5}), y)
    assert class_weights(said, Target.classification(np.unique(y)), part).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("balance", "'balanced' or a dict"),
        ({"aa": 1}, "no class 'aa'"),
        ({"a": -1}, "'a' has to be a number of at least 0; got -1"),
        ({"a": float("nan")}, "at least 0"),
        ({"a": float("inf")}, "at least 0"),
        ({"a": "much"}, "a number of at least 0; got 'much'"),
        ({"a": None}, "a number"),
        ({"a": 0, "b": 0}, "leaves no rows"),
    ],
)
def test_bad_class_weights_are_refused(said, words):
    part, target = _classes()
    with pytest.raises(SettingError, match=words):
        class_weights(said, target, part)


def test_a_regression_has_no_class_weights():
    part, _ = _part("price")
    with pytest.raises(SettingError, match="for classes"):
        class_weights("balanced", _target("price", part.y), part)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1, -2, -3], r"row 2 has the weight -2 \(2 such rows\)"),
        ([1, np.nan], "row 2 has the weight missing"),
        ([np.inf], "row 1 has the weight inf"),
        ([0, 0], "all weights are zero"),
    ],
)
def test_a_bad_weight_is_named(weight, words):
    with pytest.raises(DataError, match=words):
        check_weight(np.array(weight))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=20), st.floats(0.001, 1000))
def test_the_scale_of_the_weights_does_not_matter(weight, scale):
    part, target = _classes(n=(len(weight) - 1, 1), weight=np.array(weight))
    scaled = Part(part.table, part.y, part.weight * scale)
    found = effective_weight(part, target, None), effective_weight(scaled, target, None)
    if found[0] is None:
        assert found[1] is None or np.allclose(found[1], 1)
    else:
        np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
