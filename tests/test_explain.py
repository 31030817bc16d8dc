"""Importance, partial dependence and attributions, against scikit-learn and by their own laws."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.inspection import partial_dependence as sklearn_partial
from sklearn.inspection import permutation_importance

import layerwise as lw
from layerwise.errors import DataWarning, SettingError
from layerwise.insight.attribution import attribute, places_of
from layerwise.insight.dependence import partial_dependence
from layerwise.insight.importance import importance
from small import TOWNS, model, rows

INPUTS = ("size", "town", "new")
QUICK = {"epochs": 15, "hidden_layer_sizes": (16,), "members": 1}


@pytest.fixture(scope="module")
def run():
    return lw.train(rows(200), "price", drop=["sold", "band"], baselines=False, **QUICK)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"useful": rng.normal(size=300), "weak": rng.normal(size=300),
                      "noise": rng.normal(size=300)})  # fmt: skip
    return X, 5 * X["useful"] + X["weak"] ** 2 + 0.1 * rng.normal(size=300)


@pytest.fixture(scope="module")
def regressor(frame):
    return lw.NetworkRegressor(**QUICK).fit(*frame)


# ---------------------------------------------------------------- importance


def test_importances_are_those_of_scikit_learn(regressor, frame):
    X, y = frame
    theirs = permutation_importance(
        regressor, X, y, scoring="neg_root_mean_squared_error", n_repeats=4, random_state=7
    )
    ours = importance(regressor, X, y, n_repeats=4, random_state=7, max_rows=None)
    assert ours.columns[0] == "useful"
    for name, mean, values in zip(ours.columns, ours.importances_mean, ours.importances):
        i = list(X.columns).index(name)
        assert mean == pytest.approx(theirs.importances_mean[i], rel=1e-5, abs=1e-6)
        assert values == pytest.approx(theirs.importances[i], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "roc_auc"])
def test_importances_of_classes_too(frame, metric):
    X, y = frame
    classifier = lw.NetworkClassifier(**QUICK).fit(X, y > 0)
    scoring = "neg_log_loss" if metric == "log_loss" else metric
    theirs = permutation_importance(
        classifier, X, y > 0, scoring=scoring, n_repeats=3, random_state=0
    )
    ours = importance(classifier, X, y > 0, metric=metric, n_repeats=3, max_rows=None)
    order = [list(X.columns).index(name) for name in ours.columns]
    assert ours.importances == pytest.approx(theirs.importances[order], rel=1e-4, abs=1e-6)


def test_a_column_the_answer_does_not_need_has_none_in_its_interval(regressor, frame):
    found = importance(regressor, *frame)
    low, high = found.intervals[found.columns.index("noise")]
    assert low < 0.1
    assert high - low < 0.5
    low, high = found.intervals[found.columns.index("useful")]
    assert low > 0


def test_intervals_hold_what_other_rows_give(regressor, frame):
    X, y = frame
    rng = np.random.default_rng(0)
    whole = importance(regressor, X, y, n_repeats=30, max_rows=None)
    truth = dict(zip(whole.columns, whole.importances_mean))
    held = []
    for _ in range(25):
        some = rng.choice(len(X), 60)
        found = importance(regressor, X.iloc[some], y.iloc[some], n_repeats=5)
        held += [low <= truth[n] <= high for n, (low, high) in zip(found.columns, found.intervals)]
    assert np.mean(held) > 0.85


def test_a_run_is_explained_on_rows_it_was_not_trained_on(run):
    found = importance(run, n_repeats=3)
    assert (found.rows, found.n_rows) == ("test", run.record["data"]["rows"]["test"])
    assert set(found.columns) == {"size", "town", "new"}  # raw columns, gaps and levels within
    assert found.score == pytest.approx(run.metrics["rmse"])
    again = importance(run, rows(200), n_repeats=3)
    assert again.importances.tolist() == found.importances.tolist()
    with pytest.warns(DataWarning, match="trained on most of these rows"):
        importance(run.model, rows(200), n_repeats=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = importance(run.model, rows(50, seed=9), n_repeats=2)
    assert (new.rows, new.n_rows) == ("given", 50)


def test_a_row_of_weight_2_is_the_row_twice(run):
    from layerwise.insight.subject import Score

    y, outputs = np.array([1.0, 2.0, 4.0]), np.array([[0.1], [0.2], [-0.3]])
    for name in ("rmse", "mae", "r2", "median_error"):
        score = Score.of(run.model.target, y, name)
        doubled = Score.of(run.model.target, y[[0, 0, 1]], name)
        weighted = score(outputs, np.array([[2.0, 1.0, 0.0]]))
        assert weighted == pytest.approx(doubled(outputs[[0, 0, 1]], np.ones((1, 3))))


def test_importance_prints_at_80_columns(run):
    found = importance(run, n_repeats=3)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("●" in line for line in lines) == 4  # three columns and the legend
    assert found.columns[0] in found._repr_html_()
    assert json.loads(json.dumps(found.to_json()))["columns"][0]["column"] == found.columns[0]
    assert list(found.to_frame()["column"]) == list(found.columns)


def test_what_cannot_be_explained_is_said(run, regressor):
    with pytest.raises(SettingError, match="rows with answers"):
        importance(run.model)
    with pytest.raises(SettingError, match=r"run of layerwise\.train"):
        importance(42)
    with pytest.raises(SettingError, match=r"no column the model uses.*'town'"):
        importance(run, columns=["twon"])
    with pytest.raises(SettingError, match="metric 'accuracy' is none"):
        importance(run, metric="accuracy")
    with pytest.raises(SettingError, match="at least 2"):
        importance(run, n_repeats=1)
    with pytest.raises(SettingError, match="3 answers"):
        importance(
            regressor, pd.DataFrame({n: [0.0] for n in ("useful", "weak", "noise")}), [1, 2, 3]
        )


# ---------------------------------------------------------------- partial dependence


def test_partial_dependence_is_that_of_scikit_learn(regressor, frame):
    X, y = frame
    theirs = sklearn_partial(
        regressor, X, ["useful"], kind="both", method="brute", grid_resolution=12
    )
    ours = partial_dependence(regressor, "useful", X, y, n_points=12, max_rows=None)
    assert ours.values == pytest.approx(theirs["grid_values"][0])
    assert ours.average[:, 0] == pytest.approx(theirs["average"][0], rel=1e-5)
    assert ours.individual[:, :, 0] == pytest.approx(theirs["individual"][0], rel=1e-4, abs=1e-4)
    assert sum(ours.counts) == len(X)


def test_partial_dependence_of_a_category_is_the_mean_with_all_rows_set_to_it(run):
    found = partial_dependence(run, "town")
    part = run.rows().measured
    columns = {
        "size": part.table["size"].values.tolist(),
        "new": ["yes" if cell else "no" for cell in part.table["new"].values],
    }
    assert sorted(found.values) == sorted(TOWNS)
    for town, average in zip(found.values, found.average[:, 0]):
        answers = run.model.predict({**columns, "town": [town] * len(part)})
        assert average == pytest.approx(answers.mean(), rel=1e-5)
    assert max(map(len, str(found).splitlines())) <= 80


def test_dates_and_probabilities_have_their_dependence():
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=120, freq="D")
    table = pd.DataFrame({"day": days, "x": rng.normal(size=120)})
    table["y"] = np.where(days.month > 2, "late", "early")
    run = lw.train(table, "y", baselines=False, **QUICK)
    found = partial_dependence(run, "day", n_points=5)
    assert found.answers == ("P(late)",)
    assert found.average[-1, 0] > found.average[0, 0]
    assert "2024-0" in str(found)
    json.dumps(found.to_json())
    with pytest.raises(SettingError, match="no column the model uses"):
        partial_dependence(run, "dya")


# ---------------------------------------------------------------- attributions


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_parts_sum_to_the_difference_of_the_answers(target):
    table = rows(80)
    drop = [name for name in ("price", "sold", "band") if name != target]
    run = lw.train(table, target, drop=drop, baselines=False, activation="tanh", **QUICK)
    found = attribute(run, table)
    assert found.values.shape == (80, 3)
    assert np.allclose(found.values.sum(axis=1), found.answer - found.base, atol=found.gap + 1e-9)
    assert found.gap < 1e-3 * np.abs(found.answer - found.base).max()
    if target == "price":
        assert found.answer == pytest.approx(run.model.predict(table), rel=1e-4)
    else:
        proba = run.model.predict_proba(table)
        p = proba.max(axis=1)
        expected = np.log(p) if target == "band" else np.log(p / (1 - p))
        assert found.answer == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_of_a_linear_model_the_parts_are_weight_times_distance():
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    run = lw.NetworkRegressor(hidden_layer_sizes=(), members=1, epochs=20).fit(X, X.sum(axis=1))
    found = attribute(run, X.head(5), baseline=X.tail(1))
    model = run.model_
    Z = [model.encoder.transform(model.read(one), float) for one in (X.head(5), X.tail(1))]
    if model.plan[0]["type"] == "InputLayer":
        Z = [model.network().double()[0](torch.from_numpy(z)).detach().numpy() for z in Z]
    weight = next(a for n, a in model.members[0].items() if n.endswith("weight"))[0]
    whole = (Z[0] - Z[1]) @ weight * model.target.scale
    assert found.values.sum(axis=1) == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert found.gap < 1e-9


def test_a_column_that_changes_nothing_has_no_part():
    one = model("price")
    start = {name: cells for name, cells in rows(1, seed=5).items() if name in INPUTS}
    other = {**start, "town": ["Ulm" if start["town"] != ["Ulm"] else "Bonn"]}
    found = attribute(one, other, baseline=start)
    parts = dict(zip(found.columns, found.values[0]))
    assert parts["size"] == parts["new"] == 0
    assert parts["town"] == pytest.approx(found.answer[0] - found.base[0], abs=found.gap + 1e-9)


def test_places_are_those_of_the_encoder():
    one = model("price")
    table = one.read(rows(9))
    X = one.encode(table)
    from dataclasses import replace

    for name, places in places_of(one).items():
        column = table[name]
        changed = replace(table, columns={**table.columns, name: column.take(np.arange(9)[::-1])})
        moved = np.flatnonzero((one.encode(changed) != X).any(axis=0))
        assert set(moved) <= set(places)


def test_attributions_print_and_say_what_they_explain(run):
    found = attribute(run, rows(7, seed=4))
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("price is") == 5
    assert "2 rows more" in text
    assert "size" in found._repr_html_()
    assert found.to_frame().shape == (7, 3)
    json.dumps(found.to_json())
    classes = lw.train(rows(80), "band", drop=["price", "sold"], baselines=False, **QUICK)
    assert attribute(classes, rows(2), label="top").what == ("log-probability of top",) * 2
    with pytest.raises(SettingError, match="none of the classes"):
        attribute(classes, rows(2), label="huge")
    with pytest.raises(SettingError, match="one row"):
        attribute(run, rows(2), baseline=rows(2))


# ---------------------------------------------------------------- the command


def test_the_command_shows_importance_of_a_runs_own_rows(tmp_path, command):
    import csv

    table = rows(90)
    path = tmp_path / "houses.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values()))
    folder = tmp_path / "run"
    run = lw.train(
        path, "price", drop=["sold", "band"], baselines=False, out=folder, **QUICK
    )  # fmt: skip
    shown = command("importance", folder, "--repeats", 3)
    assert shown.out.rstrip() == str(importance(run, n_repeats=3))
    told = json.loads(command("importance", folder, path, "--json").out)
    assert told["rows"] == "test"  # the same table: the rows that were trained on stay out
    assert "town" in command("importance", folder, "--column", "town").out
    assert "price is" in command("importance", folder, "--row", 2).out
    model = folder / "model.layerwise"
    alone = command("importance", model)
    assert alone.code == 2
    assert "name a table" in alone.err
    assert command("importance", folder, "--row", 500).code == 2
    assert command("importance", folder, "--row", 1, "--column", "town").code == 2
