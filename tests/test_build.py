"""The plan as nn.Sequential, its first weights, and the way to arrays and back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from layerwise.network.build import build, from_arrays, to_arrays
from layerwise.network.plan import ACTIVATIONS, design
from test_plan import PLANS

HE, GLOROT, LECUN = (
    lambda i, o: (2 / i) ** 0.5,
    lambda i, o: (2 / (i + o)) ** 0.5,
    lambda i, o: (1 / i) ** 0.5,
)
RULE = dict.fromkeys(ACTIVATIONS, HE) | {
    "selu": LECUN, "tanh": GLOROT, "sigmoid": GLOROT, "hardtanh": GLOROT, "identity": GLOROT,
}  # fmt: skip


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("norm", [None, "batch"])
def test_weights_are_drawn_for_the_activation_that_follows(activation, norm):
    plan = design(
        300, [], 200, hidden_layer_sizes=(400,), activation=activation, norm=norm, dropout=0.1
    )
    network = build(plan, seed=1)
    first, last = network[0], network[-1]
    # the standard deviation of 120,000 draws is within 2 % of the rule's
    assert first.weight.std().item() == pytest.approx(RULE[activation](300, 400), rel=0.02)
    assert last.weight.std().item() == pytest.approx(GLOROT(400, 200), rel=0.02)
    assert first.weight.mean().abs().item() < 1e-3
    assert not first.bias.any()
    assert not last.bias.any()


def test_glorot_is_uniform_within_its_limit():
    weight = build(design(300, [], 300, hidden_layer_sizes=()))[0].weight
    limit = (6 / 600) ** 0.5
    assert 0.99 * limit < weight.abs().max().item() <= limit


def test_embeddings_have_variance_one_over_width_and_zeros_for_code_0():
    network = build(design(0, [1000], 1, hidden_layer_sizes=(2,)))
    weight = network[0].tables[0].weight
    assert weight.shape == (1001, 50)
    assert weight.std().item() == pytest.approx(50**-0.5, rel=0.02)
    assert not weight[0].any()


def test_the_same_seed_gives_the_same_weights_in_both_precisions():
    plan = design(3, [40], 2, hidden_layer_sizes=(5,))
    single, double = build(plan, seed=7), build(plan, seed=7, dtype=torch.float64)
    for name, value in double.state_dict().items():
        assert torch.equal(single.state_dict()[name], value.float())
    assert not torch.equal(build(plan, seed=8)[1].weight, single[1].weight)


def test_building_touches_no_global_random_state():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    build(design(3, [40], 2, hidden_layer_sizes=(5,), norm="batch", dropout=0.1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_default_precision_does_not_matter():
    plan = design(3, [40, 2], 1, hidden_layer_sizes=(5,), norm="layer")
    expected = build(plan)
    torch.set_default_dtype(torch.float64)
    try:
        found = build(plan)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.state_dict().items():
        assert found.state_dict()[name].dtype == value.dtype
        assert torch.equal(found.state_dict()[name], value)


@settings(max_examples=30, deadline=None)
@given(PLANS)
def test_to_arrays_and_back_is_exact(plan):
    network = build(plan, seed=3)
    again = from_arrays(plan, to_arrays(network))
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        assert again.state_dict()[name].dtype == value.dtype


def test_arrays_are_copies():
    network = build(design(2, [], 1, hidden_layer_sizes=()))
    arrays = to_arrays(network)
    arrays["0.weight"][:] = 9
    assert network[0].weight.abs().max() < 9
    built = from_arrays(design(2, [], 1, hidden_layer_sizes=()), arrays)
    arrays["0.weight"][:] = 5
    assert built[0].weight[0, 0] == 9
