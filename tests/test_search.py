"""The search: reproducible on any number of threads, resumable, and never below where it began."""

import json

import numpy as np
import pandas as pd
import pytest

from layerwise.errors import OutputError, SettingError
from layerwise.selection import search as searching
from layerwise.selection.search import Trial, best_of, search
from layerwise.selection.space import Between, default_space, read_space, settings_of
from layerwise.training import many
from layerwise.training.recipe import check

pytest.importorskip("optuna")

SMALL = {"epochs": 4, "baselines": False, "folds": 2, "members": 1}
SPACE = {"width": [4, 8], "lr": (1e-3, 1e-1, "log"), "dropout": (0.0, 0.3)}


def people(n=120):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 90, n).astype(float)
    return pd.DataFrame({"age": age, "pay": 20 * age + rng.normal(0, 50, n)})


def told(found):
    return [(t.number, t.settings, t.value, t.state) for t in found.trials]


def test_the_first_trial_is_the_settings_as_they_stand_and_the_best_is_no_worse():
    found = search(people(), "pay", trials=6, space=SPACE, **SMALL)
    assert found.trials[0].settings == {}
    assert found.best.value <= found.trials[0].value
    assert found.best.value == min(t.value for t in found.trials if t.state == "complete")


def test_the_run_at_the_end_has_the_best_settings_and_rows_that_no_trial_saw():
    found = search(people(), "pay", trials=5, space={"width": [4, 8], "depth": [1, 2]}, **SMALL)
    recipe = found.run.model.recipe
    for name, value in found.best.settings.items():
        assert tuple(np.ravel(recipe[name])) == tuple(np.ravel(value))
    assert found.run.record["measured_on"] == "test"
    assert found.run.record["data"]["rows"]["test"] == 24


def test_the_number_of_threads_changes_nothing(monkeypatch):
    runs = []
    for threads in (1, 4):
        monkeypatch.setattr(many, "processors", lambda n=threads: n)
        runs.append(told(search(people(), "pay", trials=9, space=SPACE, **SMALL)))
    assert runs[0] == runs[1]


def test_a_killed_search_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = search(people(), "pay", trials=8, space=SPACE, out=tmp_path / "whole", **SMALL)
    tries, count = searching._Tries._try, []

    def killed(self, fold, point):
        count.append(1)
        if len(count) > 11:  # in the midst of the second lot
            raise KeyboardInterrupt
        return tries(self, fold, point)

    monkeypatch.setattr(searching._Tries, "_try", killed)
    with pytest.raises(KeyboardInterrupt):
        search(people(), "pay", trials=8, space=SPACE, out=tmp_path / "killed", **SMALL)
    monkeypatch.setattr(searching._Tries, "_try", tries)
    again = search(people(), "pay", trials=8, space=SPACE, out=tmp_path / "killed", **SMALL)
    assert told(again) == told(whole)
    assert again.run.metrics == whole.run.metrics


def test_what_is_given_is_not_searched_for():
    found = search(people(), "pay", trials=3, hidden_layer_sizes=(4,), lr=0.01, **SMALL)
    assert not {"hidden_layer_sizes", "lr"} & set().union(*(t.settings for t in found.trials))
    assert found.run.model.recipe["hidden_layer_sizes"] == [4]


def test_bad_starts_are_pruned():
    space = {"lr": [1e-9, 0.02], "width": [8]}
    found = search(people(), "pay", trials=20, space=space, **{**SMALL, "folds": 3})
    states = {t.settings.get("lr"): set() for t in found.trials}
    for trial in found.trials:
        states[trial.settings.get("lr")].add(trial.state)
    assert "pruned" in states[1e-9]
    assert found.best.settings.get("lr") != 1e-9


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    search(people(), "pay", trials=1, space=SPACE, out=tmp_path / "s", **SMALL)
    with pytest.raises(OutputError, match="has a complete search in it"):
        search(people(), "pay", trials=2, space=SPACE, out=tmp_path / "s", **SMALL)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"wdith": [4]}, "unknown setting 'wdith'. .*'width'"),
        ({"lr": (1, 0.1)}, r"lr has to be \(low, high\)"),
        ({"lr": []}, "lr has to be a list of choices"),
        ({"dropout": (0.0, 2.0)}, "dropout has to be"),
        ({"width": [0]}, "hidden_layer_sizes has to be"),
    ],
)
def test_a_space_outside_the_limits_is_refused(space, words):
    with pytest.raises(SettingError, match=words):
        read_space(space)


@pytest.mark.parametrize("n_rows", [20, 300, 700, 100_000])
def test_every_value_of_the_default_space_is_a_setting(n_rows):
    for name, values in default_space(n_rows).items():
        ends = [values.low, values.high] if isinstance(values, Between) else values
        for value in ends:
            for setting, said in settings_of({name: value}).items():
                assert check(setting, said) == said


def test_without_a_complete_trial_there_is_no_best():
    with pytest.raises(SettingError, match="no trial came to its end"):
        best_of([Trial(1, {}, 2.0, "pruned", 0.1)])


def test_the_time_limit_ends_the_search_after_a_lot():
    found = search(people(), "pay", trials=1000, time_limit=0.01, space=SPACE, **SMALL)
    assert len(found.trials) == searching.AT_ONCE


def test_the_command_shows_trials_as_they_end_and_the_best_run(command, tmp_path):
    people().to_csv(tmp_path / "p.csv", index=False)
    result = command("search", tmp_path / "p.csv", "-t", "pay", "--trials", "3", "--folds", "2",
                     "--members", "1", "--epochs", "3", "--no-baselines", "--out",
                     tmp_path / "found")  # fmt: skip
    assert result.code == 0, result.err
    assert "best" in result.err
    assert "as they stand" in result.out
    assert f"layerwise predict {tmp_path / 'found' / 'best'}" in result.out.replace("\n  ", " ")
    record = json.loads((tmp_path / "found" / "best" / "run.json").read_text())
    assert record["status"] == "done"
