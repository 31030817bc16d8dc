"""Settings: each has help and limits, and each bad value says what is wrong and what is right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.errors import SettingError
from layerwise.training.recipe import BINNED, BINS, SETTINGS, SMALL, Recipe, check, settle


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_line_of_help_and_a_default_within_its_limits(name):
    text = SETTINGS[name].metadata["help"]
    assert text.endswith(".")
    assert len(text) <= 100
    default = getattr(Recipe(), name)
    assert check(name, default) == default


BAD = [
    ("hidden_layer_sizes", "128,x", "128,64"),
    ("hidden_layer_sizes", (64, 0), "at least 1"),
    ("hidden_layer_sizes", (64, -3), "at least 1"),
    ("hidden_layer_sizes", (1.5,), "whole numbers"),
    ("hidden_layer_sizes", (float("inf"),), "whole numbers"),
    ("hidden_layer_sizes", (float("nan"),), "whole numbers"),
    ("hidden_layer_sizes", None, "whole numbers"),
    ("hidden_layer_sizes", True, "whole numbers"),
    ("members", 0, "at least 1"),
    ("activation", "rellu", "Did you mean 'relu'"),
    ("activation", 3, "Known are relu"),
    ("activation", None, "Known are relu"),
    ("bins", -1, "at least 0"),
    ("bins", 2.5, "a whole number"),
    ("bins", "many", "or 'auto'"),
    ("dropout", 1, "at least 0 and below 1"),
    ("dropout", -0.1, "at least 0 and below 1"),
    ("dropout", "a lot", "a number of at least 0"),
    ("norm", "batchnorm", "Did you mean 'batch'"),
    ("loss", "msee", "Did you mean 'mse'"),
    ("optimizer", 3, "a name"),
    ("optimizer_options", "nesterov", "a dict"),
    ("optimizer_options", {"eps": object()}, "optimizer_options eps"),
    ("lr", 0, "above 0"),
    ("lr", float("nan"), "a number above 0"),
    ("lr", float("inf"), "above 0"),
    ("lr", None, "a number"),
    ("lr", True, "a number"),
    ("momentum", 1, "below 1"),
    ("weight_decay", -1, "at least 0"),
    ("schedule", "cosin", "Did you mean 'cosine'"),
    ("warmup", 1, "below 1"),
    ("clip_norm", 0, "above 0"),
    ("clip_value", -1, "above 0"),
    ("batch_size", 0, "at least 1, or 'auto'"),
    ("batch_size", "automatic", "or 'auto'"),
    ("batch_size", 2.5, "a whole number"),
    ("epochs", 0, "at least 1"),
    ("epochs", float("inf"), "at least 1"),
    ("epochs", 1e400, "at least 1"),
    ("epochs", [5], "a whole number"),
    ("patience", -1, "at least 0"),
    ("min_delta", -1, "at least 0"),
    ("monitor", 5, "a name"),
    ("time_limit", 0, "above 0"),
    ("dtype", "float16", "Did you mean"),
    ("device", 0, "a name"),
    ("engine", "natve", "Did you mean 'native'"),
    ("threads", 0, "at least 1"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_value_names_setting_found_and_expected(name, value, expected):
    with pytest.raises(SettingError) as caught:
        Recipe(**{name: value})
    message = str(caught.value)
    assert name in message
    assert expected in message
    if name != "optimizer_options":
        assert repr(value) in message or str(value) in message


def test_every_setting_has_a_bad_value_above():
    assert {name for name, _, _ in BAD} == set(SETTINGS)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SETTINGS)),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers()),
        st.binary(max_size=3),
    ),
)  # fmt: skip
def test_any_value_is_taken_or_refused_in_words(name, value):
    try:
        recipe = Recipe(**{name: value})
    except SettingError as error:
        assert name in str(error)  # noqa: PT017  either end is a good one
    else:
        assert json.loads(json.dumps(recipe.to_json())) == recipe.to_json()


def test_an_unknown_setting_gets_the_nearest_one():
    with pytest.raises(SettingError, match=r"unknown setting 'droput'. Did you mean 'dropout'"):
        Recipe.from_json({"droput": 0.1})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("128, 64", (128, 64)), ("8", (8,)), (8, (8,)), ([16, 8], (16, 8)), (np.array([4]), (4,)),
        ((), ()), (0, ()), ("0", ()), ("16;8", (16, 8)),
    ],
)  # fmt: skip
def test_layer_sizes_are_read_from_numbers_lists_and_text(said, meant):
    assert Recipe(hidden_layer_sizes=said).hidden_layer_sizes == meant


def test_numbers_come_in_their_proper_type():
    recipe = Recipe(epochs=5.0, lr=np.float32(0.5), patience=np.int64(3), dropout=0)
    found = recipe.epochs, recipe.lr, recipe.patience, recipe.dropout
    assert found == (5, 0.5, 3, 0.0)
    assert [type(one) for one in found] == [int, float, int, float]


def test_options_of_the_optimizer_become_plain_values():
    options = {"betas": (0.8, np.float64(0.9)), "eps": np.float32(0.5), "amsgrad": True}
    recipe = Recipe(optimizer_options=options)
    assert recipe.optimizer_options == {"betas": [0.8, 0.9], "eps": 0.5, "amsgrad": True}
    json.dumps(recipe.to_json())


def test_optional_settings_take_none():
    optional = {f.name for f in fields(Recipe) if f.metadata.get("optional")}
    assert optional == {"norm", "clip_norm", "clip_value", "patience", "time_limit"}
    Recipe(**dict.fromkeys(optional))


def test_a_recipe_survives_json():
    recipe = Recipe(
        hidden_layer_sizes=(3,), norm="layer", clip_norm=1, batch_size=7, patience=None,
        optimizer_options={"nesterov": True},
    )  # fmt: skip
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_what_is_left_open_follows_the_number_of_rows():
    sizes = [settle(Recipe(), n).batch_size for n in (150, 200, 999, 1000, 2500, 6000, 10**6)]
    assert sizes == [150, 32, 32, 64, 128, 256, 256]
    assert settle(Recipe(), 150).dtype == "float64"
    assert settle(Recipe(), 200).dtype == "float32"
    assert settle(Recipe(), 150).lr > settle(Recipe(), 200).lr > 0


def test_bins_dropout_and_schedule_wait_for_rows_that_they_suit():
    few, some, many = (settle(Recipe(), n) for n in (SMALL - 1, SMALL, BINNED))
    assert (few.schedule, few.warmup, few.dropout) == ("constant", 0.0, 0.0)
    assert (some.schedule, some.warmup, some.dropout) == ("cosine", 0.02, 0.1)
    assert (few.bins, some.bins, many.bins) == (0, 0, BINS)
    linear = settle(Recipe(hidden_layer_sizes=()), BINNED)
    assert linear.bins == 0, "a linear model stays one"
    assert settle(Recipe(bins=7, dropout=0.3, warmup=0.1), BINNED).bins == 7
    assert settle(Recipe(schedule="linear"), BINNED).warmup == 0, "as it was said"


def test_what_is_set_stays_and_settling_twice_changes_nothing():
    said = Recipe(
        batch_size=64, lr=0.5, weight_decay=0.1, dtype="float32", bins=4, dropout=0.0,
        schedule="step", warmup=0.1,
    )  # fmt: skip
    assert settle(said, 5000) == said
    assert settle(said, 50).batch_size == 50, "no more rows in a step than there are"
    once = settle(Recipe(), 100)
    assert settle(once, 100) == once


def test_settings_are_known_without_torch():
    code = "import sys, layerwise.training.recipe; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
