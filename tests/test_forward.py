"""The forward pass without torch, on the core and in NumPy, against torch's in evaluation mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.network import on_core
from layerwise.network.build import build, to_arrays
from layerwise.network.forward import FUNCTIONS, forward
from layerwise.network.plan import ACTIVATIONS, design
from test_plan import PLANS


@pytest.fixture(scope="module", params=["core", "NumPy"], autouse=True)
def way(request):
    """Each promise holds on the core, and without it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "NumPy":
            patch.setattr(on_core, "_core", None)
        elif on_core._core is None:
            pytest.skip("there is no core here")
        yield request.param


def _rows(plan, n, rng):
    """Rows that suit the plan, unseen codes among them."""
    first = plan[0]
    if first["type"] != "InputLayer":
        return rng.normal(size=(n, first["in_features"])) * 3
    numbers = rng.normal(size=(n, first["n_numbers"])) * 3
    codes = [rng.integers(0, k + 1, n) for k in first["n_codes"]]
    return np.column_stack([numbers, *codes])


def _train_a_little(network, X):
    """Move the running statistics of batch normalisation and the affine parts off their start."""
    generator = torch.Generator().manual_seed(1)
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(X))
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=generator)
    return network.eval()


def test_a_2_2_1_network_worked_by_hand():
    plan = design(2, [], 1, hidden_layer_sizes=(2,))
    arrays = {
        "0.weight": np.array([[1.0, 2.0], [-3.0, 1.0]]),
        "0.bias": np.array([0.5, 0.0]),
        "2.weight": np.array([[2.0, -1.0]]),
        "2.bias": np.array([0.25]),
    }
    # x = (1, 2): z = (1 + 4 + 0.5, -3 + 2 + 0) = (5.5, -1); relu = (5.5, 0); 11 - 0 + 0.25 = 11.25
    # x = (-1, 3): z = (-1 + 6 + 0.5, 3 + 3) = (5.5, 6); 11 - 6 + 0.25 = 5.25
    X = np.array([[1.0, 2.0], [-1.0, 3.0]])
    assert forward(plan, arrays, X).tolist() == [[11.25], [5.25]]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_is_torchs_over_the_whole_range(activation):
    x = np.concatenate([np.linspace(-50, 50, 4001), [-1e3, -1e-12, 0.0, 1e-12, 20.0, 20.001, 1e3]])
    layer = ACTIVATIONS[activation]
    arguments = {k: v for k, v in layer.items() if k != "type"}
    expected = getattr(torch.nn, layer["type"])(**arguments)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(FUNCTIONS[layer["type"]](x, layer), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(PLANS, st.sampled_from([2, 3, 17]))
def test_the_answers_are_torchs_for_every_network(plan, n):
    X = _rows(plan, n, np.random.default_rng(0))
    network = _train_a_little(build(plan, seed=1, dtype=torch.float64), X)
    with torch.no_grad():
        expected = network(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(forward(plan, to_arrays(network), X), expected, 1e-12, 1e-12)


def test_single_precision_weights_are_summed_in_double(rng):
    plan = design(4, [], 2, hidden_layer_sizes=(8,), norm="layer")
    network = build(plan)
    X = rng.normal(size=(20, 4)).astype(np.float32)
    found = forward(plan, to_arrays(network), X)
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(X).double()).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, 1e-12, 1e-12)


@pytest.mark.parametrize("levels", [3, 40])
def test_an_unseen_code_adds_nothing(levels, rng):
    plan = design(1, [levels], 2, hidden_layer_sizes=())
    arrays = to_arrays(build(plan, dtype=torch.float64))
    arrays["1.bias"] = np.array([0.5, -0.5])
    X = np.array([[0.7, 0.0]])
    expected = 0.7 * arrays["1.weight"][:, 0] + arrays["1.bias"]
    np.testing.assert_allclose(forward(plan, arrays, X)[0], expected, 1e-15)


@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 4097])
def test_any_number_of_rows_goes_through(n, rng):
    plan = design(2, [], 3, hidden_layer_sizes=(2,))
    arrays = to_arrays(build(plan, dtype=torch.float64))
    X = rng.normal(size=(n, 2))
    found = forward(plan, arrays, X)
    assert found.shape == (n, 3)
    if n:
        np.testing.assert_allclose(found[-1:], forward(plan, arrays, X[-1:]), 1e-12, 1e-12)


def test_the_rows_are_left_as_they_are(rng):
    plan = design(2, [], 1, hidden_layer_sizes=(2,), norm="layer")
    X = rng.normal(size=(5, 2))
    before = X.copy()
    forward(plan, to_arrays(build(plan)), X)
    assert np.array_equal(X, before)


@settings(max_examples=30, deadline=None)
@given(PLANS, st.integers(1, 700))
def test_on_the_core_a_row_has_the_same_bytes_whatever_rows_are_beside_it(way, plan, n):
    if way != "core":
        return
    rng = np.random.default_rng(n)
    X = _rows(plan, 700, rng)
    arrays = to_arrays(_train_a_little(build(plan, seed=1, dtype=torch.float64), X))
    some = rng.permutation(700)[:n]
    assert np.array_equal(forward(plan, arrays, X)[some], forward(plan, arrays, X[some]))
