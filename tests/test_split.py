"""Splits: disjoint, complete, in the shares asked for, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from layerwise.data.split import split_rows
from layerwise.errors import DataError, SettingError

PARTS = ("train", "valid", "test")


def rows_of(split):
    return [getattr(split, part) for part in PARTS]


@given(
    st.integers(10, 300),
    st.floats(0.1, 0.4),
    st.floats(0.1, 0.4),
    st.integers(0, 5),
    st.sampled_from(["random", "classes", "groups", "times"]),
)
@settings(max_examples=80, deadline=None)
def test_every_row_is_in_exactly_one_part(n_rows, valid, test, seed, how):
    rng = np.random.default_rng(n_rows)
    column = rng.integers(0, max(n_rows // 3, 2), n_rows)
    given_ = {} if how == "random" else {how: column}
    try:
        split = split_rows(n_rows, valid=valid, test=test, seed=seed, **given_)
    except DataError:
        assert how in ("groups", "times")  # few groups, or ties that take a whole part
        return
    np.testing.assert_array_equal(np.sort(np.concatenate(rows_of(split))), np.arange(n_rows))
    for rows in rows_of(split):
        assert len(rows) > 0
        assert (np.diff(rows) > 0).all()


def test_shares_are_of_all_rows():
    for classes in (None, np.arange(1000) % 7):
        split = split_rows(1000, valid=0.15, test=0.2, seed=0, classes=classes)
        assert [len(rows) for rows in rows_of(split)] == [650, 150, 200]
    split = split_rows(10, valid=0, test=0, seed=0)
    assert [len(rows) for rows in rows_of(split)] == [10, 0, 0]
    assert len(split_rows(10, valid=0, test=0.3, seed=0).valid) == 0


@pytest.mark.parametrize("seed", range(5))
def test_each_class_keeps_its_share_as_with_scikit_learn(seed):
    classes = np.repeat([0, 1, 2], [700, 250, 50])
    np.random.default_rng(seed).shuffle(classes)
    split = split_rows(1000, valid=0.2, test=0.2, seed=seed, classes=classes)
    _, reference = train_test_split(classes, test_size=0.2, stratify=classes, random_state=0)
    assert np.abs(np.bincount(classes[split.test]) - np.bincount(reference)).max() <= 1
    for rows in rows_of(split):
        share = np.bincount(classes[rows], minlength=3) / len(rows)
        np.testing.assert_allclose(share, [0.7, 0.25, 0.05], atol=1.5 / len(rows))


@pytest.mark.parametrize("seed", range(10))
def test_a_class_with_a_single_row_trains(seed):
    classes = np.array([0] * 20 + [1] * 20 + [2, 3, 4])
    split = split_rows(43, valid=0.3, test=0.3, seed=seed, classes=classes)
    assert {40, 41, 42} <= set(split.train.tolist())


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_whole(seed):
    rng = np.random.default_rng(seed)
    groups = np.array([f"patient {i}" for i in rng.integers(0, 40, 500)])
    split = split_rows(500, valid=0.2, test=0.2, seed=seed, groups=groups)
    parts = [np.unique(groups[rows]) for rows in rows_of(split)]
    assert len(np.concatenate(parts)) == len(np.unique(groups))
    largest = np.unique(groups, return_counts=True)[1].max()
    for rows in (split.valid, split.test):
        assert abs(len(rows) - 100) <= largest
    assert "40 groups" in split.how


@pytest.mark.parametrize("seed", range(10))
def test_a_group_too_large_for_a_part_is_passed_over(seed):
    groups = np.repeat([0, 1, 2, 3, 4], [80, 5, 5, 5, 5])
    split = split_rows(100, valid=0.1, test=0.1, seed=seed, groups=groups)
    assert set(groups[split.train]) >= {0}
    assert [len(split.valid), len(split.test)] == [10, 10]


def test_the_latest_rows_are_the_test_and_rows_of_one_moment_stay_together():
    times = np.random.default_rng(0).permutation(100).astype("M8[h]")
    split = split_rows(100, valid=0.2, test=0.3, seed=0, times=times)
    assert [len(rows) for rows in rows_of(split)] == [50, 20, 30]
    assert times[split.train].max() < times[split.valid].min()
    assert times[split.valid].max() < times[split.test].min()
    ties = np.array([1, 1, 2, 2, 2, 2, 3, 3, 3, 3])[::-1]
    split = split_rows(10, valid=0.2, test=0.2, seed=0, times=ties)
    assert [sorted(ties[rows].tolist()) for rows in rows_of(split)] == [[1] * 2, [2] * 4, [3] * 4]


def test_the_same_seed_gives_the_same_split_and_the_global_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for extra in ({}, {"classes": np.arange(100) % 3}, {"groups": np.arange(100) // 4}):
        one, same, other = (
            split_rows(100, valid=0.2, test=0.2, seed=seed, **extra) for seed in (1, 1, 2)
        )
        for part in PARTS:
            np.testing.assert_array_equal(getattr(one, part), getattr(same, part))
        assert not np.array_equal(one.test, other.test)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("settings_", "error", "says"),
    [
        ({"valid": -0.1}, SettingError, "valid has to be a share from 0 up to"),
        ({"test": 1}, SettingError, "test has to be a share .* got 1"),
        ({"valid": float("nan")}, SettingError, "valid has to be a share"),
        ({"valid": 0.5, "test": 0.5}, SettingError, "leave no rows to train on"),
        ({"groups": np.arange(10), "times": np.arange(10)}, SettingError, "not both"),
        ({"n_rows": 2}, DataError, "2 rows .at random. leave none for the valid part"),
        ({"n_rows": 0}, DataError, "0 rows .* leave none for the train part"),
        (
            {"groups": np.zeros(10)},
            DataError,
            "10 rows .by 1 group. leave none for the valid",
        ),
        ({"times": np.zeros(10)}, DataError, "10 rows .by time.* leave none for the train part"),
    ],
)
def test_splits_that_cannot_be_are_refused(settings_, error, says):
    arguments = {"n_rows": 10, "valid": 0.2, "test": 0.2, "seed": 0} | settings_
    with pytest.raises(error, match=says):
        split_rows(**arguments)
