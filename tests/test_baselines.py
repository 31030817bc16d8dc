"""The honest company of the network: a constant, a linear model, boosted trees."""

from __future__ import annotations

import numpy as np
import pytest

import small
from layerwise import baselines, metrics
from layerwise.baselines import Part, compare
from layerwise.data.encoder import Encoder
from layerwise.data.files import read_table
from layerwise.data.schema import infer_schema
from layerwise.data.target import Target


def _parts(target, n=150):
    model = small.model(target)
    parts = []
    for seed, size in ((1, n), (2, 60)):
        data = small.rows(size, seed)
        y = np.array(data[target], dtype=float if target == "price" else object)
        parts.append(Part(model.encode(model.read(data)).astype(np.float64), y, None))
    return model, *parts


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_each_baseline_has_the_metrics_that_the_network_has(target):
    model, train, test = _parts(target)
    found = compare(model.encoder, model.target, train, test, 0, None)
    assert tuple(found) == baselines.NAMES
    expected = set(metrics.names(model.target))
    assert all(set(one) == expected for one in found.values())


@pytest.mark.parametrize(("target", "metric"), [("price", "rmse"), ("sold", "log_loss")])
def test_what_can_be_learnt_is_learnt(target, metric):
    model, train, test = _parts(target)
    found = compare(model.encoder, model.target, train, test, 0, None)
    assert found["linear"][metric] < 0.6 * found["constant"][metric]
    assert found["boosted trees"][metric] < 0.8 * found["constant"][metric]


def test_the_constant_is_the_mean_or_the_share_of_each_class():
    model, train, test = _parts("price")
    found = compare(model.encoder, model.target, train, test, 0, None)["constant"]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((test.y - train.y.mean()) ** 2)))
    model, train, test = _parts("sold")
    found = compare(model.encoder, model.target, train, test, 0, None)["constant"]
    share, held = np.mean(train.y == "sold"), np.mean(test.y == "sold")
    assert found["log_loss"] == pytest.approx(
        -held * np.log(share) - (1 - held) * np.log(1 - share)
    )


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_weight_2_is_the_row_twice(target):
    model, train, test = _parts(target)
    rng = np.random.default_rng(0)
    w, v = rng.integers(1, 4, len(train.y)), rng.integers(1, 4, len(test.y))
    weighted = compare(
        model.encoder, model.target,
        Part(train.X, train.y, w.astype(float)), Part(test.X, test.y, v.astype(float)), 0, w * 1.0,
    )  # fmt: skip
    repeated = compare(
        model.encoder, model.target,
        Part(np.repeat(train.X, w, 0), np.repeat(train.y, w), None),
        Part(np.repeat(test.X, v, 0), np.repeat(test.y, v), None), 0, None,
    )  # fmt: skip
    for name in ("constant", "linear"):  # trees bin their inputs by rows, whatever the weights
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-3), name


def test_the_same_seed_gives_the_same_figures():
    model, train, test = _parts("band")
    found = [compare(model.encoder, model.target, train, test, 3, None) for _ in range(2)]
    assert found[0] == found[1]


def test_codes_that_training_never_had_are_answered():
    model, train, test = _parts("sold")
    X = test.X.copy()
    X[:, -1] = 0
    compare(model.encoder, model.target, train, Part(X, test.y, None), 0, None)


@pytest.mark.parametrize("levels", [3, 254, 255, 400])
def test_only_categories_and_many_levels_go_through(levels):
    rng = np.random.default_rng(0)
    codes = np.concatenate([np.arange(levels), np.arange(levels), rng.integers(0, levels, 200)])
    y = codes % 2 * 2.0 + rng.normal(0, 0.1, len(codes))
    table = read_table({"x": [f"level {c}" for c in codes], "y": y})
    schema = infer_schema(table, {"y": "target", "x": "category"})
    encoder = Encoder.fit(table, schema)
    assert (encoder.n_numbers, encoder.n_codes) == (0, [levels])
    part = Part(encoder.transform(table, np.float64), y, None)
    found = compare(encoder, Target.regression(y), part, part, 0, None)
    assert found["linear"]["rmse"] < found["constant"]["rmse"]
    assert found["boosted trees"]["rmse"] <= found["constant"]["rmse"] * 1.0001


def test_numbers_alone_go_through(rng):
    x = rng.normal(size=80)
    table = read_table({"x": x, "y": 2 * x})
    encoder = Encoder.fit(table, infer_schema(table, {"y": "target"}))
    part = Part(encoder.transform(table, np.float64), 2 * x, None)
    found = compare(encoder, Target.regression(2 * x), part, part, 0, None)
    assert found["linear"]["rmse"] < 0.5 * found["constant"]["rmse"]
