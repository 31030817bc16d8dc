"""The encoder: the transforms of scikit-learn, learnt on the given rows, exact in their weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler

from layerwise.data.encoder import (
    MISSING_LEVEL,
    Encoder,
    robust_scale,
    smooth_clip,
    weighted_quantiles,
)
from layerwise.data.frames import table_of
from layerwise.data.schema import Schema, infer_schema
from layerwise.errors import DataError

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def fit(data, weight=None, **roles):
    table = table_of(data)
    return Encoder.fit(table, infer_schema(table, roles), weight)


def encode(data, **roles):
    return fit(data, **roles).transform(table_of(data), np.float64)


def mixed(rng, n=60):
    """A table with every kind of column, gaps and rare levels."""
    towns = rng.choice(["Ulm", "Bonn", "Köln", "rare", None], n, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    days = np.datetime64("2020-01-01T10:00") + rng.integers(0, 10**6, n).astype("m8[m]")
    return {
        "size": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "spiky": np.where(rng.random(n) < 0.9, 0.0, rng.normal(size=n)),
        "town": towns.tolist(),
        "garden": rng.choice([True, False, None], n).tolist(),
        "sold": np.where(rng.random(n) < 0.1, np.datetime64("NaT"), days),
    }


# ---------------------------------------------------------------- quantiles


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(1, 4)), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_weighted_quantiles_are_those_of_the_rows_repeated(rows, q):
    values, weight = np.array(rows).T
    repeated = np.repeat(values, weight.astype(int))
    found = weighted_quantiles(values, weight, q)
    np.testing.assert_allclose(found, np.quantile(repeated, q), rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(found, weighted_quantiles(repeated, None, q))  # to the last digit
    np.testing.assert_array_equal(found, weighted_quantiles(values[::-1], weight[::-1], q))


def test_quantiles_between_the_largest_numbers_are_finite():
    found = weighted_quantiles(np.array([-1.7e308, 1.7e308]), None, [0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(found, [-1.7e308, -0.85e308, 0, 1.7e308], atol=1e293)


# ---------------------------------------------------------------- numbers


def test_numbers_are_scaled_as_by_robust_scaler_and_gaps_filled_as_by_simple_imputer(rng):
    values = rng.standard_t(2, 200) * 100
    values[rng.random(200) < 0.2] = np.nan
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    filled, flag = imputer.fit_transform(values[:, None]).T
    known = values[~np.isnan(values)][:, None]
    scaled = RobustScaler().fit(known).transform(filled[:, None])[:, 0]
    matrix = encode({"x": values})
    np.testing.assert_allclose(matrix[:, 0], smooth_clip(scaled), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(matrix[:, 1], flag)
    assert fit({"x": values}).feature_names == ["x", f"x {MISSING_LEVEL}"]


def test_where_most_rows_are_alike_the_width_is_the_standard_deviation(rng):
    values = np.where(rng.random(500) < 0.9, 0.0, rng.normal(size=500))
    center, width = robust_scale(values, None)
    reference = StandardScaler(with_mean=False).fit(values[:, None])
    assert center == np.median(values) == 0
    about_the_median = np.sqrt(reference.var_[0] + reference.mean_[0] ** 2)
    np.testing.assert_allclose(width, about_the_median, rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        [1e308, -1e308, 1.7e308, -1.7e308],
        [0.0] * 9 + [1e308],
        [0.0] * 90 + [1e-320] * 10,
        [5e-324, 0.0, 1.0, 2.0],
        [1.7e308] * 9 + [-1.7e308],
        [1.0, 2.0, 3.0, 1e300],
        [1e16, 1e16 + 2, 1e16 + 4],
    ],
)
def test_heavy_tails_give_finite_numbers_in_order(values):
    values = np.array(values)
    for dtype in (np.float32, np.float64):
        encoder = fit({"x": values}, x="number")
        matrix = encoder.transform(table_of({"x": values}), dtype)
        assert matrix.dtype == dtype
        assert np.isfinite(matrix).all()
        assert np.abs(matrix).max() <= 3
        assert (np.diff(matrix[np.argsort(values), 0]) >= 0).all()
        assert matrix.max() > matrix.min()
    assert json.loads(json.dumps(encoder.to_json(), allow_nan=False)) == encoder.to_json()


@given(st.lists(FINITE, min_size=1, max_size=20), FINITE)
@settings(max_examples=100, deadline=None)
def test_any_finite_number_is_encoded_between_minus_three_and_three(values, new):
    encoder = fit({"x": np.array(values)}, x="number")
    matrix = encoder.transform(table_of({"x": np.array([*values, new])}), np.float64)
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() <= 3


def test_an_outlier_does_not_move_the_others(rng):
    values = rng.normal(size=100)
    wild = np.append(values, 1e12)
    np.testing.assert_allclose(encode({"x": wild})[:-1], encode({"x": values}), atol=0.1)


def test_constants_and_columns_of_gaps_give_zeros():
    assert not encode({"x": [5.0] * 4}, x="number").any()
    assert not encode({"x": [0.1] * 7}, x="number").any()


def test_a_column_of_nothing_but_gaps_is_left_out():
    encoder = fit({"x": [None] * 4, "y": [1.0, 2.0, 3.0, 4.0]}, x="number")
    assert encoder.names == ["y"]
    assert encoder.transform(table_of({"x": [3.0], "y": [2.5]})).tolist() == [[0.0]]


@pytest.mark.parametrize("scale", [1e-6, 1 / 300, 0.5])
def test_only_the_proportions_of_small_weights_count(scale, rng):
    n = 300
    data = {
        "x": rng.normal(10, 2, n),
        "town": rng.choice(["Ulm", "Bonn", "rare"], n, p=[0.6, 0.395, 0.005]),
        "day": np.datetime64("2020-01-01", "us") + rng.integers(0, 10**6, n),
    }
    weight = rng.integers(1, 4, n) / 2
    weight /= weight.mean()
    one = fit(data, weight=weight).transform(table_of(data), np.float64)
    other = fit(data, weight=weight * scale).transform(table_of(data), np.float64)
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_new_levels_are_told_also_where_rare_ones_were_grouped():
    encoder = fit({"x": ["a", "b"] * 100 + ["rare"]})
    (said,) = encoder.notices(table_of({"x": ["zzz", "qqq", "a"]}))
    assert "2 of 3 cells" in said
    assert "'qqq'" in said
    assert not encoder.notices(table_of({"x": ["a", "b"] * 200 + ["new"]})), "as rare as before"


def test_dates_out_of_range_are_told():
    days = [f"2020-01-{day:02d}" for day in range(1, 29)]
    encoder = fit({"day": days})
    (said,) = encoder.notices(table_of({"day": ["2090-01-01"] * 5}))
    assert "5 of 5 values" in said
    assert "2020-01-01 to 2020-01-28" in said


@pytest.mark.parametrize("sign", [1, -1])
def test_infinity_is_refused_with_column_and_row(sign):
    bad = table_of({"size": [1.0, 2.0, sign * np.inf]})
    says = "the table row 3, column 'size': the number is infinity"
    with pytest.raises(DataError, match=says):
        Encoder.fit(bad, infer_schema(bad))
    with pytest.raises(DataError, match=says):
        fit({"size": [1.0, 2.0]}).transform(bad)
    with pytest.raises(DataError, match=says):
        fit({"size": [1.0, 2.0]}).transform(bad.take(np.array([2])))


# ---------------------------------------------------------------- categories, booleans, dates


def test_categories_are_grouped_and_coded_as_by_one_hot_encoder(rng):
    levels = np.array([*"abcdefgh"], dtype=object)
    train = rng.choice(levels, 300, p=[0.4, 0.3, 0.25, 0.03, 0.008, 0.006, 0.004, 0.002])
    train = np.append(train, ["once", "Once"]).astype(object)
    new = np.append(levels, ["never", "once"]).astype(object)
    reference = OneHotEncoder(
        min_frequency=2, handle_unknown="infrequent_if_exist", sparse_output=False
    ).fit(train[:, None])
    encoder = fit({"x": train})
    (step,) = encoder.categories
    for cells in (train, new):
        codes = encoder.transform(table_of({"x": cells})).astype(int)[:, 0]
        one_hot = np.eye(step.n_codes + 1)[codes][:, 1:]
        np.testing.assert_array_equal(one_hot, reference.transform(cells[:, None]))


def test_a_level_that_was_never_seen_is_zero_where_nothing_was_rare():
    encoder = fit({"x": ["a", "b", None] * 3})
    assert encoder.n_codes == [3]
    assert encoder.categories[0].levels == ["a", "b"]
    found = encoder.transform(table_of({"x": ["b", "c", None, "a"]}))
    assert found.tolist() == [[2.0], [0.0], [3.0], [1.0]]
    assert encoder.notices(table_of({"x": ["c", "a"]})) == [
        "column 'x': 1 of 2 cells have a level not learnt ('c')"
    ]


def test_a_gap_that_training_did_not_have_is_other_or_zero_and_is_noticed():
    for cells, code in ((["a", "b"] * 3, 0.0), (["a", "b"] * 3 + ["c"], 3.0)):
        encoder = fit({"x": cells})
        rows = table_of({"x": ["a", None]})
        assert encoder.transform(rows).tolist() == [[1.0], [code]]
        assert "1 gap; the training rows had none" in encoder.notices(rows)[0]


def test_more_than_a_thousand_levels_keep_the_most_frequent_ones():
    cells = [f"{i:04}" for i in range(1200) for _ in range(20)] + ["0007"] * 5
    (step,) = fit({"x": cells}, x="category").categories
    assert len(step.levels) == 1000
    assert "0007" in step.levels
    assert step.other  # the rest was seen in training, so it has a code
    often = cells + ["1199"] * 9
    assert "1199" in fit({"x": often}, x="category").categories[0].levels


def test_booleans_are_one_and_minus_one_and_gaps_zero():
    assert encode({"x": [True, False]}).tolist() == [[1.0], [-1.0]]
    assert encode({"x": [True, False, None]}).tolist() == [[1, 0], [-1, 0], [0, 1]]


def test_dates_are_linear_time_and_the_cycles_that_vary():
    days = np.array(["2020-01-06", "2020-01-13", "2020-01-20", "NaT"], "M8[D]")  # all Mondays
    encoder = fit({"x": days})
    names = ["x", "x day of month sin", "x day of month cos", f"x {MISSING_LEVEL}"]
    assert encoder.feature_names == names
    matrix = encoder.transform(table_of({"x": days}), np.float64)
    angle = 2 * np.pi * np.array([5, 12, 19]) / 31
    np.testing.assert_allclose(matrix[:3, 1], np.sin(angle))
    np.testing.assert_allclose(matrix[:3, 2], np.cos(angle))
    np.testing.assert_allclose(matrix[:3, 0], smooth_clip(np.array([-1.0, 0.0, 1.0])))
    assert matrix[3].tolist() == [0, 0, 0, 1]
    times = np.array(["1969-12-31T18:00", "2020-06-01T00:00"], "M8[m]")
    found = dict(zip(fit({"x": times}).feature_names, encode({"x": times}).T))
    np.testing.assert_allclose(found["x time of day sin"], [-1, 0], atol=1e-12)
    np.testing.assert_allclose(found["x weekday sin"], np.sin([2 * np.pi * 2 / 7, 0]), atol=1e-12)
    np.testing.assert_allclose(
        found["x month cos"], np.cos([2 * np.pi * 11 / 12, 2 * np.pi * 5 / 12])
    )


# ---------------------------------------------------------------- the whole encoder


def test_the_state_survives_json_to_the_last_digit(rng):
    data = mixed(rng)
    encoder = fit(data)
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    table = table_of(data)
    assert again.transform(table).tobytes() == encoder.transform(table).tobytes()
    assert again.feature_names == encoder.feature_names


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row(seed):
    rng = np.random.default_rng(seed)
    table = table_of(mixed(rng, 40))
    schema = infer_schema(table)
    weight = rng.integers(0, 4, 40)
    repeated = table.take(np.repeat(np.arange(40), weight))
    expected = Encoder.fit(repeated, schema).to_json()
    assert Encoder.fit(table, schema, weight.astype(float)).to_json() == expected
    assert (
        Encoder.fit(repeated.take(rng.permutation(repeated.n_rows)), schema).to_json() == expected
    )


def test_a_row_of_weight_zero_may_hold_anything():
    table = table_of({"x": [1.0, 2.0, np.inf]})
    schema = infer_schema(table)
    Encoder.fit(table, schema, np.array([1.0, 1.0, 0.0]))
    with pytest.raises(DataError, match="infinity"):
        Encoder.fit(table, schema, np.ones(3))


def test_each_row_is_encoded_alone_whatever_stands_beside_it(rng):
    table = table_of(mixed(rng))
    encoder = Encoder.fit(table.take(np.arange(40)), infer_schema(table))
    whole = encoder.transform(table)
    for rows in (np.array([7]), np.array([59, 3, 3]), rng.permutation(60), np.arange(0)):
        np.testing.assert_array_equal(encoder.transform(table.take(rows)), whole[rows])


def test_only_the_given_rows_are_learnt_from(rng):
    data = mixed(rng)
    table = table_of(data)
    schema = infer_schema(table)
    learnt = Encoder.fit(table.take(np.arange(30)), schema)
    changed = {name: np.array(cells, dtype=object) for name, cells in data.items()}
    changed["size"][30:], changed["town"][30:], changed["garden"][30:] = 1e9, "new", None
    changed["sold"] = data["sold"].copy()
    changed["sold"][30:] = np.datetime64("1900-01-01")
    other = table_of({name: cells.tolist() if name != "sold" else cells
                      for name, cells in changed.items()})  # fmt: skip
    assert Encoder.fit(other.take(np.arange(30)), schema).to_json() == learnt.to_json()
    assert Encoder.fit(other, schema).to_json() != learnt.to_json()


def test_single_and_double_precision_agree(rng):
    data = mixed(rng)
    encoder, table = fit(data), table_of(data)
    single, double = encoder.transform(table), encoder.transform(table, np.float64)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert single.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_numbers_come_first_and_the_names_say_what_each_column_is(rng):
    encoder = fit(mixed(rng))
    assert encoder.names == ["size", "spiky", "town", "garden", "sold"]
    assert encoder.feature_names[-1] == "town"
    assert encoder.n_numbers == len(encoder.feature_names) - 1
    assert encoder.n_codes == [encoder.categories[0].n_codes]


def test_columns_that_are_no_inputs_are_not_looked_at():
    table = table_of({"id": list(range(30)), "x": [1.0, 2.0] * 15, "y": [0, 1] * 15})
    encoder = Encoder.fit(table, infer_schema(table, {"y": "target"}))
    assert encoder.names == ["x"]
    assert encoder.transform(table_of({"x": [1.5]})).shape == (1, 1)
    nothing = Encoder.fit(table, Schema(()))
    assert nothing.transform(table).shape == (30, 0)


def test_values_far_outside_the_training_rows_are_noticed():
    encoder = fit({"x": [1.0, 2.0, 3.0]})
    assert encoder.notices(table_of({"x": [2.0] * 10})) == []
    (said,) = encoder.notices(table_of({"x": [9.0] * 10}))
    assert said == "column 'x': 10 of 10 values lie outside the training rows' range 1 to 3"


def test_a_column_that_is_gone_is_named():
    with pytest.raises(DataError, match="has no column 'x'"):
        fit({"x": [1.0, 2.0]}).transform(table_of({"z": [1.0]}))
