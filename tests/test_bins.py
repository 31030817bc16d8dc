"""The bins of numbers: quantiles that a value which many rows share does not use up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise import Model, NetworkRegressor
from layerwise.data.bins import as_bins, learn_bins
from layerwise.network.layers import InputLayer

COLUMNS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60)


def test_edges_of_distinct_values_are_their_quantiles(rng):
    x = rng.normal(size=4001)
    (edges,) = learn_bins(x[:, None], 8)
    expected = np.quantile(x, np.linspace(0, 1, 9))
    np.testing.assert_allclose(edges, expected, atol=0.05)
    assert edges[0] == x.min()
    assert edges[-1] == x.max()


@pytest.mark.parametrize(("n_values", "n_bins"), [(9, 8), (9, 4), (3, 16), (24, 16)])
def test_few_values_get_a_bin_between_each_two_neighbours(n_values, n_bins, rng):
    values = np.sort(rng.choice(1000, n_values, replace=False)) / 300
    x = rng.permutation(np.repeat(values, rng.integers(1, 40, n_values)))
    np.testing.assert_array_equal(learn_bins(x[:, None], n_bins)[0], values)


def test_a_linear_layer_on_the_bins_of_few_values_can_answer_each_freely(rng):
    values = np.arange(24.0) / 10
    (edges,) = learn_bins(np.repeat(values, 3)[:, None], 16)
    layer = InputLayer(1, [], [], bins=as_bins([edges]), dtype=torch.float64)
    layer.edges.copy_(torch.from_numpy(edges))
    columns = layer(torch.from_numpy(values)[:, None]).numpy()
    wanted = rng.normal(size=24)
    found, *_ = np.linalg.lstsq(np.column_stack([columns, np.ones(24)]), wanted)
    np.testing.assert_allclose(np.column_stack([columns, np.ones(24)]) @ found, wanted, atol=1e-9)


def test_flags_constants_and_0_bins_have_none():
    flags, few = np.arange(40.0) % 2, np.arange(40.0) % 9
    assert as_bins(learn_bins(np.column_stack([flags, np.ones(40)]), 8)) == [0, 0]
    assert as_bins(learn_bins(np.column_stack([few, few]), 0)) == [0, 0]
    assert as_bins(learn_bins(few[:, None], 3)) == [3], "more than twice 3 values: quantiles"


def test_a_value_that_most_rows_share_leaves_bins_to_the_others(rng):
    x = np.where(rng.random(5000) < 0.92, 0.0, rng.uniform(0.5, 2.5, 5000))
    assert len(np.unique(np.quantile(x, np.linspace(0, 1, 17)))) < 5  # plain quantiles: one value
    (edges,) = learn_bins(x[:, None], 16)
    assert len(edges) > 12
    inside = np.histogram(x[x > 0], edges)[0]
    assert inside[1:].max() < 0.15 * (x > 0).sum()


@settings(max_examples=50, deadline=None)
@given(COLUMNS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_edges_ascend_and_do_not_depend_on_the_order_of_the_rows(cells, n_bins, random):
    x = np.array(cells)
    shuffled = np.array(random.sample(cells, len(cells)))
    (edges,), (again,) = learn_bins(x[:, None], n_bins), learn_bins(shuffled[:, None], n_bins)
    assert np.array_equal(edges, again)
    assert np.all(np.diff(edges) > 0)
    assert len(edges) in (0, *range(3, 2 * n_bins + 2))


@pytest.mark.parametrize("n_bins", [2, 5, 16])
def test_weight_2_is_the_row_twice(rng, n_bins):
    x = np.round(rng.normal(size=400), 2)
    weight = rng.integers(1, 3, 400).astype(float)
    (weighted,) = learn_bins(x[:, None], n_bins, weight)
    (repeated,) = learn_bins(np.repeat(x, weight.astype(int))[:, None], n_bins)
    assert np.array_equal(weighted, repeated)


def _saw(n, rng):
    X = np.column_stack([rng.uniform(-1, 1, n), rng.integers(0, 2, n)])
    return X, np.abs(np.modf(6 * X[:, 0])[0]) * (1 + X[:, 1])


def test_a_fit_takes_bins_but_for_flags(rng):
    X, y = _saw(300, rng)
    model = NetworkRegressor((8,), members=1, bins=6, epochs=2, random_state=0).fit(X, y).model_
    assert model.plan[0]["bins"] == [6, 0]
    plain = NetworkRegressor((8,), members=1, epochs=2, random_state=0).fit(X, y).model_
    assert plain.plan[0]["type"] == "Linear", "300 rows are too few for the default to"


def test_numpy_torch_and_the_file_answer_alike_through_bins(rng, tmp_path):
    X, y = _saw(300, rng)
    fitted = NetworkRegressor((8,), members=1, bins=6, epochs=5, random_state=0).fit(X, y)
    inside = fitted.model_.encode(fitted.model_.read(X))
    raw = fitted.module_(torch.from_numpy(inside)).detach().numpy()
    np.testing.assert_allclose(fitted.model_.target.decode(raw), fitted.predict(X), atol=1e-5)
    fitted.model_.save(tmp_path / "saw.layerwise")
    again = Model.load(tmp_path / "saw.layerwise")
    assert np.array_equal(again.predict(X), fitted.model_.predict(X))


def test_edges_are_of_the_training_rows_only(rng):
    X, y = _saw(300, rng)
    far = np.vstack([X, [[50.0, 1.0]] * 40])
    settings = {"members": 1, "bins": 6, "epochs": 1, "random_state": 0}
    near = NetworkRegressor((8,), **settings).fit(X, y, X_val=X[:20], y_val=y[:20])
    told = NetworkRegressor((8,), **settings).fit(X, y, X_val=far, y_val=np.append(y, np.zeros(40)))
    assert np.array_equal(
        near.module_.state_dict()["0.edges"], told.module_.state_dict()["0.edges"]
    )
