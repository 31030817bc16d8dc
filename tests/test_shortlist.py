"""The preset "best": recipes compared on the same folds, and the best of them trained."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import layerwise as lw
from layerwise import metrics, shortlist
from layerwise.errors import TrainingError
from layerwise.learn import learn
from layerwise.show import show_training
from layerwise.training.recipe import PRESETS

QUICK = {"epochs": 6, "patience": 3, "baselines": False}


@pytest.fixture
def recipes(monkeypatch):
    """Two recipes, of which the second can learn what the first cannot."""
    told = (("the default", {}), ("one layer", {"hidden_layer_sizes": [16], "lr": 0.02}))
    monkeypatch.setattr(shortlist, "RECIPES", told)
    monkeypatch.setitem(PRESETS, "best", {"members": 6})
    return told


@pytest.fixture
def frame(rng):
    X = rng.normal(size=(240, 3))
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
    return pd.DataFrame(X, columns=list("abc")).assign(y=y)


def test_the_recipe_with_the_least_loss_out_of_fold_is_trained(frame, recipes):
    run = lw.train(frame, "y", preset="best", lr=1e-6, **QUICK)
    assert [one["name"] for one in run.record["tried"]] == ["the default"], "the other sets lr too"
    run = lw.train(frame, "y", preset="best", dropout=0.0, **QUICK)
    values = {one["name"]: one["value"] for one in run.record["tried"]}
    assert set(values) == {"the default", "one layer"}
    taken = min(values, key=values.__getitem__)
    sizes = dict(recipes)[taken].get("hidden_layer_sizes", [256, 128])
    assert run.model.recipe["hidden_layer_sizes"] == sizes
    assert run.model.recipe["dropout"] == 0, "what is given holds in every recipe"
    assert len(run.model.members) == 6


def test_a_recipe_counts_as_the_bag_it_makes(frame, recipes):
    run = lw.train(frame, "y", preset="best", **QUICK)
    prepared = run.rows()
    for one in run.record["tried"]:
        recipe = lw.Recipe(members=5, epochs=6, patience=3, **one["settings"])
        held = learn(
            prepared.train,
            None,
            prepared.schema,
            prepared.target,
            recipe,
            fold=prepared.fold,
            seed=0,
        ).out_of_fold
        assert sorted(held.rows) == sorted(prepared.train.table.rows)
        rmse = metrics.evaluate(prepared.target, held.y, held.outputs)["rmse"]
        assert one["value"] == pytest.approx(rmse, rel=1e-9)


def test_the_final_run_is_that_of_the_settings_it_took(frame, recipes):
    best = lw.train(frame, "y", preset="best", **QUICK)
    settings = {name: best.model.recipe[name] for name in ("hidden_layer_sizes", "lr", "members")}
    plain = lw.train(frame, "y", **QUICK, **settings)
    assert plain.metrics == best.metrics
    assert best.record["question"]["search"] is False
    assert "tried" not in plain.record


def test_classes_count_with_their_weights(recipes):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame["y"] = np.where(frame.a + rng.normal(size=200) > 1, "rare", "usual")
    plain = lw.train(frame, "y", preset="best", **QUICK).record["tried"]
    weighed = lw.train(frame, "y", preset="best", class_weight="balanced", **QUICK).record["tried"]
    assert weighed[0]["value"] > plain[0]["value"], "rare rows are the harder ones"


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
    assert any(line.startswith("recipe 1 of 3, wild: diverged") for line in lines)


def test_little_time_leaves_recipes_out_and_says_so(frame, recipes, monkeypatch):
    many = (("the default", {}), *((f"again {i}", {"lr": 0.003}) for i in range(500)))
    monkeypatch.setattr(shortlist, "RECIPES", many)
    run = lw.train(frame, "y", preset="best", time_limit=4, **QUICK)
    assert run.record["seconds"]["choose"] < 3, "half of the time, and what a last epoch takes"
    assert 0 < len(run.record["tried"]) < 501
    assert any("recipes" in line and "want of time" in line for line in run.record["notices"])
    assert len(run.model.members) == 6


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
        if len(seen) == 2:
            raise KeyboardInterrupt
        return learn(*given, **named)

    monkeypatch.setattr(shortlist, "learn", pressed)
    run = lw.train(table, "y", preset="best", out=tmp_path / "run", **QUICK)
    assert run.record["status"] == "interrupted"
    assert len(run.model.members) == 5
    again = lw.Run.load(tmp_path / "run")
    np.testing.assert_array_equal(again.model.predict(table), run.model.predict(table))
    assert len(again.history.members) == 5
    monkeypatch.setattr(shortlist, "learn", learn)
    gone_on = lw.resume(tmp_path / "run")
    assert gone_on.record["status"] == "done"
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
    assert "best of 2 recipes on the same folds" in shown
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
    assert [name for name, _ in shortlist.candidates({"lr": 0.01, "activation": "tanh"})] == [
        "the default",
        "one layer",
    ]
