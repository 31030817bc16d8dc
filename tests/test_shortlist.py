"""The preset "best": recipes compared on the same rows, and the best of them trained."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import layerwise as lw
from layerwise import metrics, shortlist
from layerwise.errors import DataError, TrainingError
from layerwise.learn import learn
from layerwise.prepare import Question, prepare, read
from layerwise.show import show_training
from layerwise.training.recipe import PRESETS

QUICK = {"epochs": 6, "patience": 3, "baselines": False}
TAKEN = {"hidden_layer_sizes": [16], "lr": 0.02}


@pytest.fixture
def recipes(monkeypatch):
    """Three recipes: the last one learns, and the first two hardly move."""
    told = (("the default", {"lr": 1e-6}), ("still", {"lr": 2e-6}), ("one layer", TAKEN))
    monkeypatch.setattr(shortlist, "RECIPES", told)
    monkeypatch.setitem(PRESETS, "best", {"members": 6})
    return told


@pytest.fixture
def frame(rng):
    X = rng.normal(size=(240, 3))
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    return pd.DataFrame(X, columns=list("abc")).assign(y=y)


def _taken(run):
    return {name: run.model.recipe[name] for name in TAKEN}


def test_the_recipe_with_the_least_loss_on_held_out_rows_is_trained(frame, recipes):
    run = lw.train(frame, "y", preset="best", dropout=0.0, **QUICK)
    values = {one["name"]: one["value"] for one in run.record["tried"]}
    assert list(values) == ["the default", "still", "one layer"]
    assert min(values, key=values.__getitem__) == "one layer"
    assert _taken(run) == TAKEN
    assert run.model.recipe["dropout"] == 0, "what is given holds in every recipe"
    assert len(run.model.members) == 6
    assert run.record["recipe"]["hidden_layer_sizes"] == [16]


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_a_recipe_counts_as_the_bag_it_makes(recipes, weight):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame["y"] = np.where(frame.a + rng.normal(size=200) > 1, "rare", "usual")
    run = lw.train(frame, "y", preset="best", class_weight=weight, **QUICK)
    prepared = run.rows()
    target, train = prepared.target, prepared.train
    for one in run.record["tried"]:
        recipe = lw.Recipe(members=5, epochs=6, patience=3, **one["settings"])
        held = learn(
            train, None, prepared.schema, target, recipe, fold=prepared.fold, class_weight=weight
        ).out_of_fold
        assert len(held) == len(train)
        counts = held.y == "rare"
        each = np.where(counts, 1 / counts.sum(), 1 / (~counts).sum()) if weight else None
        loss = metrics.evaluate(target, held.y, held.outputs, each)["log_loss"]
        assert one["value"] == pytest.approx(loss, rel=1e-9)


def test_the_final_run_is_that_of_the_settings_it_took(frame, recipes):
    best = lw.train(frame, "y", preset="best", **QUICK)
    plain = lw.train(frame, "y", members=6, **TAKEN, **QUICK)
    assert plain.metrics == best.metrics
    assert best.record["question"]["compare"] is False
    assert "tried" not in plain.record


def test_rows_of_their_own_decide_where_there_are_no_folds(frame, recipes, tmp_path):
    run = lw.train(
        frame.head(180), "y", valid=frame.tail(60), preset="best", out=tmp_path / "run", **QUICK
    )
    assert _taken(run) == TAKEN
    assert "rows held out" in show_training(run)
    single = lw.train(frame, "y", preset="best", members=1, **QUICK)
    assert _taken(single) == TAKEN
    assert len(single.model.members) == 1


def test_a_recipe_that_diverges_is_passed_over(frame, recipes, monkeypatch):
    def wild(*given, **named):
        if given[4].lr == 1.0:
            raise TrainingError("the loss is not finite")
        return learn(*given, **named)

    monkeypatch.setattr(shortlist, "learn", wild)
    monkeypatch.setattr(shortlist, "RECIPES", (("wild", {"lr": 1.0}), *recipes))
    lines = []
    run = lw.train(frame, "y", preset="best", report=lines.append, **QUICK)
    assert run.record["tried"][0]["value"] is None
    assert run.model.recipe["lr"] != 1.0
    assert any(line.startswith("recipe 1 of 4, wild: diverged") for line in lines)


def test_no_recipe_is_begun_in_less_time_than_the_slowest_took(frame, recipes, monkeypatch):
    now = [0.0]

    def slow(*given, deadline, **named):
        now[0] += 1
        return learn(*given, **named)

    monkeypatch.setattr(shortlist, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(shortlist, "learn", slow)
    question = Question(frame, "y", settings={"epochs": 6, "patience": 3})
    prepared = prepare(question, *read(question), print)
    for deadline, tried in ((1.5, 1), (2.5, 2), (9.0, 3), (None, 3)):
        now[0] = 0.0
        found = shortlist.compare(question, prepared, print, deadline)
        assert (len(found.tried), found.left_out) == (tried, 3 - tried)
    assert found.settings == TAKEN


def test_without_time_for_one_recipe_the_default_is_trained(frame, recipes, monkeypatch, tmp_path):
    monkeypatch.setattr(shortlist, "_cut", lambda learnt: True)
    run = lw.train(frame, "y", preset="best", out=tmp_path / "run", **QUICK)
    assert "tried" not in run.record
    assert "tried" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert "recipes" not in show_training(run)
    assert any("want of time: 3 of the recipes" in line for line in run.record["notices"])
    assert len(run.model.members) == 5, "there is time for no more"


def test_one_recipe_is_not_compared(frame, recipes):
    run = lw.train(frame, "y", preset="best", lr=0.01, **QUICK)
    assert "tried" not in run.record
    assert any("no other recipe" in line for line in run.record["notices"])


def test_without_rows_held_out_there_is_nothing_to_compare_on(frame, recipes):
    run = lw.train(frame, "y", preset="best", valid=0, test=0, **QUICK)
    assert "tried" not in run.record
    assert any("no rows are held out" in line for line in run.record["notices"])


def test_ctrl_c_keeps_the_best_bag_so_far_and_resuming_ends_as_if_nothing_was(
    frame, recipes, tmp_path, monkeypatch
):
    table = tmp_path / "table.csv"
    frame.to_csv(table, index=False)
    lw.train(table, "y", preset="best", out=tmp_path / "whole", **QUICK)

    seen = []

    def pressed(*given, **named):
        seen.append(named)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return learn(*given, **named)

    monkeypatch.setattr(shortlist, "learn", pressed)
    run = lw.train(table, "y", preset="best", out=tmp_path / "run", **QUICK)
    assert run.record["status"] == "interrupted"
    assert len(run.model.members) == len(run.record["members"]) == 5
    assert run.record["recipe"] == run.model.recipe, "that of the bag that is kept"
    assert [line for line in run.record["notices"] if "want of time" in line] == []
    assert any("the best bag so far" in line for line in run.record["notices"])
    again = lw.Run.load(tmp_path / "run")
    np.testing.assert_array_equal(again.model.predict(table), run.model.predict(table))
    assert len(again.history.members) == 5
    monkeypatch.setattr(shortlist, "learn", learn)
    gone_on = lw.resume(tmp_path / "run")
    assert gone_on.record["status"] == "done"
    assert _taken(gone_on) == TAKEN
    name = "model.layerwise"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_interrupted_after_the_search_does_not_search_again(
    frame, recipes, tmp_path, monkeypatch
):
    table = tmp_path / "table.csv"
    frame.to_csv(table, index=False)
    whole = lw.train(table, "y", preset="best", out=tmp_path / "whole", **QUICK)

    def pressed(event):
        if event.row["epoch"] == 2:
            raise KeyboardInterrupt

    asked = {"preset": "best", "out": tmp_path / "run", **QUICK}
    run = lw.train(table, "y", callbacks=[pressed], **asked)
    assert run.record["status"] == "interrupted"
    monkeypatch.setattr(shortlist, "learn", None)
    gone_on = lw.resume(tmp_path / "run")
    assert gone_on.record["tried"] == whole.record["tried"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tried"] == whole.record["tried"]
    name = "model.layerwise"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_result_and_the_report_show_what_was_compared(frame, recipes, tmp_path):
    run = lw.train(frame, "y", preset="best", out=tmp_path / "run", **QUICK)
    shown = show_training(run)
    assert "best of 3 recipes on the same rows held out" in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if str(tmp_path) not in line)
    page = run.report().read_text()
    assert "Recipes compared" in page
    assert "one layer" in page


def test_all_recipes_of_the_preset_can_be_taken(frame):
    recipes = dict(shortlist.RECIPES)
    run = lw.train(frame.head(120), "y", preset="best", epochs=2, baselines=False)
    tried = {one["name"]: one["value"] for one in run.record["tried"]}
    assert list(tried) == list(recipes)
    assert all(np.isfinite(value) for value in tried.values())
    taken = recipes[min(tried, key=tried.__getitem__)]
    assert taken.items() <= run.record["question"]["settings"].items()
    assert len(run.model.members) == 10


def test_a_setting_that_is_given_leaves_out_the_recipes_that_would_set_it():
    def left(**given):
        return [name for name, _ in shortlist.candidates(given)]

    assert left(lr=0.01, activation="tanh") == ["the default", "one layer"]
    assert left(optimizer="sgd") == ["the default", "one layer", "ReLU"], "the rates are AdamW's"


def test_a_run_begun_with_other_folds_says_so(frame, recipes, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    frame.to_csv(table, index=False)

    def pressed(event):
        if event.row["epoch"] == 2:
            raise KeyboardInterrupt

    lw.train(table, "y", out=tmp_path / "run", callbacks=[pressed], **QUICK)
    monkeypatch.setattr("layerwise.prepare.FOLDS", 4)
    with pytest.raises(DataError, match="in 5 folds and not 4; train anew"):
        lw.resume(tmp_path / "run")
