"""Cross-validation: every row is tested once, by what was learnt without it."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import layerwise as lw
from layerwise.errors import DataError, SettingError
from layerwise.prepare import Question
from layerwise.selection.cross_validation import CrossValidation, cross_validate
from layerwise.selection.folds import folds_of
from layerwise.training import many

SMALL = {"epochs": 3, "hidden_layer_sizes": (8,), "members": 1}


def people(n=120):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 90, n).astype(float)
    return pd.DataFrame({
        "age": age, "town": rng.choice(["Bern", "Basel"], n), "family": np.arange(n) // 4,
        "year": np.sort(rng.integers(1990, 2020, n)), "pay": 20 * age + rng.normal(0, 50, n),
    })  # fmt: skip


def dealt(**said):
    folds, repeats = said.pop("folds", 4), said.pop("repeats", 1)
    return folds_of(Question(source=people(), target="pay", test=0, **said), folds, repeats)


def ages(part):
    """What tells the rows apart."""
    return {round(y, 9) for y in part.y}


def test_every_row_is_tested_once_and_never_by_what_has_seen_it():
    found = list(dealt(repeats=2))
    assert [(f.repeat, f.number) for f in found] == [(r, k) for r in (1, 2) for k in (1, 2, 3, 4)]
    for repeat in (1, 2):
        tested = [ages(f.prepared.test) for f in found if f.repeat == repeat]
        assert sum(map(len, tested)) == 120 == len(set.union(*tested))
    for fold in found:
        parts = [p for p in (fold.prepared.train, fold.prepared.valid) if p is not None]
        seen = set.union(*map(ages, parts))
        assert not seen & ages(fold.prepared.test)
        assert len(seen) == 90


def test_repetitions_are_dealt_anew():
    found = list(dealt(repeats=2))
    assert ages(found[0].prepared.test) != ages(found[4].prepared.test)


def test_groups_stay_whole():
    for fold in dealt(group="family"):
        table, test = fold.prepared.train.table, fold.prepared.test.table
        assert not set(table["family"].values) & set(test["family"].values)


def test_by_time_only_the_past_is_learnt_from():
    found = list(dealt(time="year"))
    assert len(found) == 4
    for fold in found:
        past = [fold.prepared.train, fold.prepared.valid]
        latest = max(p.table["year"].values.max() for p in past if p is not None)
        assert latest < fold.prepared.test.table["year"].values.min()


def test_classes_have_their_share_in_every_fold():
    frame = people().assign(pay=lambda f: np.where(np.arange(len(f)) % 10 == 0, "rare", "usual"))
    for fold in folds_of(Question(source=frame, target="pay", test=0), 4):
        assert (fold.prepared.test.y == "rare").sum() == 3


def test_a_fold_is_a_training_like_any_other():
    found = cross_validate(people(), "pay", folds=4, baselines=True, **SMALL)
    fold = next(iter(dealt(settings=SMALL)))
    train = [p for p in (fold.prepared.train, fold.prepared.valid) if p is not None]
    rows = people()
    y = np.concatenate([p.y for p in train])
    inside = rows["pay"].isin(y)
    run = lw.train(rows[inside], target="pay", test=rows[~inside], **SMALL)
    assert found.folds[0]["metrics"] == {"network": run.metrics, **run.baselines}


def test_folds_side_by_side_are_those_one_by_one(monkeypatch):
    told = []
    for at_once in (1, 3):
        monkeypatch.setattr(many, "processors", lambda n=at_once: n)
        found = cross_validate(people(), "pay", folds=3, baselines=False, **SMALL)
        told.append([fold["metrics"] for fold in found.folds])
    assert told[0] == told[1]


def test_the_interval_is_that_of_nadeau_and_bengio():
    values = [1.0, 2.0, 4.0, 3.0]
    folds = [
        {"rows": {"train": 60, "valid": 0, "test": 20}, "metrics": {"network": {"rmse": v}}}
        for v in values
    ]
    found = CrossValidation(folds, "4 folds", "y", "regression").interval("rmse")
    half = stats.t.ppf(0.975, 3) * np.sqrt(np.var(values, ddof=1) * (1 / 4 + 20 / 60))
    assert found.mean == 2.5
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_the_difference_is_taken_fold_by_fold():
    folds = [
        {"rows": {"train": 60, "valid": 0, "test": 20},
         "metrics": {"network": {"rmse": v}, "linear": {"rmse": v + 1}}}
        for v in (1.0, 50.0, 900.0)
    ]  # fmt: skip
    found = CrossValidation(folds, "3 folds", "y", "regression")
    difference = found.interval("rmse", less="linear")
    assert difference.low == pytest.approx(-1) == difference.high
    assert "better than the best baseline, linear" in str(found).replace("\n  ", " ")


def test_rows_that_are_validated_by_count_as_trained_on():
    folds = [
        {"rows": {"train": 40, "valid": 20, "test": 20}, "metrics": {"network": {"rmse": v}}}
        for v in (1.0, 2.0)
    ]
    half = stats.t.ppf(0.975, 1) * np.sqrt(0.5 * (1 / 2 + 20 / 60))
    found = CrossValidation(folds, "2 folds", "y", "regression").interval("rmse")
    assert found.high - found.mean == pytest.approx(half)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"folds": 1}, SettingError, "folds has to be a whole number of at least 2; got 1"),
        ({"repeats": 0}, SettingError, "repeats has to be"),
        ({"folds": 90}, DataError, "has 120 rows for 90 folds"),
        ({"folds": 40, "group": "family"}, DataError, "'family' has 30 groups for 40 folds"),
        ({"folds": 50, "time": "year"}, DataError, "'year' has 30 different moments for 50 folds"),
        ({"repeats": 2, "time": "year"}, SettingError, "leave repeats at 1"),
    ],
)
def test_what_cannot_be_dealt_is_said(said, error, words):
    with pytest.raises(error, match=words):
        cross_validate(people(), "pay", **said, **SMALL)


@pytest.fixture
def table(tmp_path):
    people().to_csv(tmp_path / "people.csv", index=False)
    return [tmp_path / "people.csv", "-t", "pay", "--folds", "2", "--members", "1", "--epochs", "2"]


def test_the_command_prints_a_table_and_each_fold(command, table):
    result = command("cv", *table)
    assert result.code == 0
    assert "2 folds at random" in result.out
    assert "boosted trees" in result.out
    assert "fold 2: rmse" in result.err
    assert max(map(len, result.out.splitlines())) <= 80


def test_the_command_gives_json(command, table):
    result = command("cv", *table, "--no-baselines", "--json", "-q")
    found = json.loads(result.out)
    assert len(found["folds"]) == 2
    assert found["summary"]["network"]["rmse"]["low"] < found["summary"]["network"]["rmse"]["mean"]
    assert result.err == ""


def test_the_notebook_gets_a_table():
    found = cross_validate(people(), "pay", folds=2, baselines=False, **SMALL)
    assert "<table>" in found._repr_html_()
    assert len(found.to_frame()) == 2
