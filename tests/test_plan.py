"""The plan of a network: layers in plain values."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.errors import SettingError
from layerwise.network.build import build
from layerwise.network.plan import (
    ACTIVATIONS,
    LAYERS,
    NORMS,
    ONE_HOT_LEVELS,
    array_shapes,
    design,
    embedding_width,
    n_inputs,
)


def _design(n_numbers, *arguments, bins, **settings):
    return design(n_numbers, *arguments, bins=bins and bins[:n_numbers], **settings)


PLANS = st.builds(
    _design,
    st.integers(1, 4),
    st.lists(st.integers(1, 60), max_size=3),
    st.integers(1, 3),
    hidden_layer_sizes=st.lists(st.integers(1, 6), max_size=3),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    norm=st.sampled_from([None, *NORMS]),
    dropout=st.sampled_from([0.0, 0.25]),
    bins=st.one_of(st.just([]), st.lists(st.integers(0, 5), min_size=4, max_size=4)),
)


def test_no_hidden_layer_is_a_linear_model():
    assert design(4, [], 2, hidden_layer_sizes=()) == [
        {"type": "Linear", "in_features": 4, "out_features": 2}
    ]


def test_each_hidden_layer_is_linear_norm_activation_dropout():
    plan = design(3, [], 1, hidden_layer_sizes=(5, 4), norm="batch", activation="elu", dropout=0.2)
    hidden = ["Linear", "BatchNorm1d", "ELU", "Dropout"]
    assert [layer["type"] for layer in plan] == [*hidden, *hidden, "Linear"]
    widths = [layer["out_features"] for layer in plan if layer["type"] == "Linear"]
    assert widths == [5, 4, 1]


def test_the_last_layer_is_linear_so_outputs_are_logits():
    for activation in ACTIVATIONS:
        assert design(2, [], 1, activation=activation)[-1]["type"] == "Linear"


def test_numbers_with_bins_enter_through_the_input_layer():
    plan = design(2, [], 1, bins=[3, 0], hidden_layer_sizes=(4,))
    assert plan[0] == {
        "type": "InputLayer", "n_numbers": 2, "n_codes": [], "embedding": [], "bins": [3, 0],
    }  # fmt: skip
    assert plan[1]["in_features"] == 2 + 3
    assert array_shapes(plan)["0.edges"] == (4,)
    assert design(2, [], 1, bins=[0, 0]) == design(2, [], 1)


def test_few_levels_are_one_hot_and_many_are_embedded():
    assert embedding_width(ONE_HOT_LEVELS) == 0
    assert embedding_width(ONE_HOT_LEVELS + 1) == round(1.6 * 31**0.56) == 11
    assert embedding_width(10**6) == 50
    plan = design(2, [3, 31], 1, hidden_layer_sizes=(4,))
    assert plan[0]["embedding"] == [0, 11]
    assert plan[1]["in_features"] == 2 + 3 + 11


def test_the_input_counts_numbers_and_one_code_for_each_category():
    assert n_inputs(design(2, [3, 31], 1)) == 4
    assert n_inputs(design(5, [], 1)) == 5


@pytest.mark.parametrize(
    ("setting", "said", "meant"), [("activation", "rellu", "relu"), ("norm", "bacth", "batch")]
)
def test_an_unknown_name_gets_the_nearest_one(setting, said, meant):
    with pytest.raises(SettingError, match=f"unknown {setting} '{said}'. Did you mean '{meant}'"):
        design(2, [], 1, **{setting: said})


@settings(max_examples=40, deadline=None)
@given(PLANS)
def test_array_shapes_are_those_of_the_state_dict(plan):
    network = build(plan)
    assert array_shapes(plan) == {k: tuple(v.shape) for k, v in network.state_dict().items()}


@settings(max_examples=20, deadline=None)
@given(PLANS)
def test_a_plan_survives_json_and_knows_only_known_layers(plan):
    assert json.loads(json.dumps(plan)) == plan
    assert {layer["type"] for layer in plan} <= LAYERS


def test_changing_a_plan_does_not_change_the_next_one():
    design(2, [], 1, activation="leaky_relu")[1]["negative_slope"] = 5.0
    assert design(2, [], 1, activation="leaky_relu")[1]["negative_slope"] == 0.01


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_is_a_module_of_torch(activation):
    layer = dict(ACTIVATIONS[activation])
    assert isinstance(getattr(torch.nn, layer.pop("type"))(**layer), torch.nn.Module)
