"""Runs: from a table to a model and its folder, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import layerwise
import small
from layerwise import run as runs
from layerwise import storage
from layerwise.data.schema import Schema
from layerwise.errors import (
    DataError,
    LayerwiseError,
    ModelFileError,
    OutputError,
    SettingError,
    TrainingError,
)
from layerwise.folder import load_record, read_events
from layerwise.run import Run, resume, train
from layerwise.training import checkpoint as checkpoints

QUICK = {
    "epochs": 6, "hidden_layer_sizes": (6,), "lr": 0.02, "baselines": False, "members": 1,
}  # fmt: skip


def _csv(path, n=150, seed=0):
    data = small.rows(n, seed)
    names = ["size", "town", "new", "sold"]
    lines = [",".join(names)]
    for i in range(n):
        lines.append(",".join("" if data[k][i] is None else str(data[k][i]) for k in names))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def table(tmp_path):
    return _csv(tmp_path / "flats.csv")


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0)


class Killed(BaseException):
    """Stands for a process that is gone."""


def _die_after(epoch):
    def die(event):
        if event.row["epoch"] == epoch:
            raise Killed

    return die


def _kill(table, out, epoch, monkeypatch, **settings):
    """A run that ends as a killed process would: without a word in its folder."""
    with monkeypatch.context() as patched:
        patched.setattr(runs.Keeper, "fail", lambda *_: None)
        with pytest.raises(Killed):
            train(table, "sold", out=out, callbacks=[_die_after(epoch)], **{**QUICK, **settings})


# ---------------------------------------------------------------- the folder


def test_a_run_without_a_folder_writes_nothing(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(table, "sold", **QUICK)
    assert run.folder is None
    assert _names(tmp_path) == ["flats.csv"]


def test_the_folder_has_all_of_the_run(table, tmp_path):
    out = tmp_path / "out"
    run = train(table, "sold", out=out, **{**QUICK, "baselines": True})
    names = {"model.layerwise", "run.json", "history.jsonl", "schema.toml"}
    assert set(_names(out)) == names
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert record["status"] == "done"
    assert record["question"]["source"] == str(table)
    assert record["question"]["settings"]["epochs"] == 6
    assert record["data"]["rows"] == {"train": 98, "valid": 22, "test": 30}
    assert record["measured_on"] == "test"
    assert record["metrics"] == run.metrics
    assert set(record["baselines"]) == {"constant", "linear", "boosted trees"}
    assert all(set(one) == set(run.metrics) for one in record["baselines"].values())
    assert datetime.fromisoformat(record["started"]) <= datetime.fromisoformat(record["finished"])
    assert record["recipe"]["lr"] == 0.02
    schema = Schema.from_toml(out / "schema.toml")
    assert [(c.name, c.role) for c in schema] == [
        ("size", "number"), ("town", "category"), ("new", "category"), ("sold", "target")
    ]  # fmt: skip


def test_the_history_can_be_replayed(table, tmp_path):
    out = tmp_path / "out"
    run = train(table, "sold", out=out, **QUICK)
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["start", *["epoch"] * 6, "end"]
    assert [one["row"] for one in events[1:-1]] == run.history.rows
    assert events[-1]["best_epoch"] == run.history.best_epoch


def test_each_epoch_can_be_read_as_soon_as_it_ended(table, tmp_path):
    out, seen = tmp_path / "out", []

    def look(event):
        seen.append(sum(1 for one in read_events(out) if one["event"] == "epoch"))

    train(table, "sold", out=out, callbacks=[look], **QUICK)
    assert seen == [0, 1, 2, 3, 4, 5]  # our own epoch is written after this callback


def test_a_run_is_loaded_as_it_was(table, tmp_path):
    out = tmp_path / "out"
    run = train(table, "sold", out=out, **QUICK)
    again = Run.load(out)
    assert again.history == run.history
    assert (again.metrics, again.baselines) == (run.metrics, run.baselines)
    rows = run.model.read(small.rows(20))
    assert np.array_equal(again.model.outputs(rows), run.model.outputs(rows))


def test_the_metrics_are_those_of_the_saved_model_on_the_test_rows(table, tmp_path):
    test = _csv(tmp_path / "test.csv", 40, seed=9)
    run = train(table, "sold", out=tmp_path / "out", test=test, **QUICK)
    data = small.rows(40, 9)
    right = np.mean(layerwise.Model.load(tmp_path / "out").predict(data) == np.array(data["sold"]))
    assert run.metrics["accuracy"] == pytest.approx(right)


def test_the_figures_come_from_the_rows_furthest_from_training(table):
    assert train(table, "sold", test=0, **QUICK).record["measured_on"] == "validation"
    assert train(table, "sold", test=0, valid=0, **QUICK).record["measured_on"] == "training"


def test_the_best_epoch_of_many_is_the_one_that_predicts(table, tmp_path):
    valid = _csv(tmp_path / "valid.csv", 60, seed=4)
    settings = {**QUICK, "lr": 0.3, "epochs": 30, "test": 0}
    run = train(table, "sold", valid=valid, **settings)
    assert run.history.best["valid_loss"] == min(run.history["valid_loss"])
    # two classes: the validation loss is the log loss of the probabilities
    assert run.metrics["log_loss"] == pytest.approx(run.history.best["valid_loss"], rel=1e-6)


# ---------------------------------------------------------------- repeatable


def test_the_same_question_gives_the_same_bytes_from_any_source(table, tmp_path):
    import pandas as pd

    train(table, "sold", out=tmp_path / "a", **QUICK)
    train(table, "sold", out=tmp_path / "b", **QUICK)
    expected = (tmp_path / "a" / "model.layerwise").read_bytes()
    assert (tmp_path / "b" / "model.layerwise").read_bytes() == expected
    train(sql=f"select * from '{table}'", target="sold", out=tmp_path / "c", **QUICK)
    assert (tmp_path / "c" / "model.layerwise").read_bytes() == expected
    frame = pd.read_csv(table)
    train(frame, "sold", out=tmp_path / "d", **QUICK)
    frame.to_parquet(tmp_path / "flats.parquet")
    train(tmp_path / "flats.parquet", "sold", out=tmp_path / "e", **QUICK)
    for name in "de":
        found = layerwise.Model.load(tmp_path / name)
        assert (
            found.predict(frame).tolist()
            == layerwise.Model.load(tmp_path / "a").predict(frame).tolist()
        )


def test_another_process_with_other_threads_gives_the_same_bytes(table, tmp_path):
    settings = {**QUICK, "baselines": True, "dropout": 0.2}
    train(table, "sold", out=tmp_path / "a", **settings)
    code = (
        "import sys, json, layerwise\n"
        "layerwise.train(sys.argv[1], 'sold', out=sys.argv[2], **json.loads(sys.argv[3]))"
    )
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    subprocess.run(
        [sys.executable, "-c", code, str(table), str(tmp_path / "b"), json.dumps(settings)],
        env={**os.environ, **dict.fromkeys(names, "1"), "PYTHONHASHSEED": "1"},
        check=True,
    )
    a, b = (tmp_path / name / "model.layerwise" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


# ---------------------------------------------------------------- killed and resumed


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3, "norm": "batch", "batch_size": 16},
        {"optimizer": "sgd", "schedule": "cosine", "warmup": 0.2, "batch_size": 32},
        {"optimizer": "adam", "lr": 0.3, "epochs": 60, "patience": 5, "monitor": "accuracy"},
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(settings, table, tmp_path, monkeypatch):
    whole = train(table, "sold", out=tmp_path / "whole", **{**QUICK, **settings})
    out = tmp_path / "killed"
    _kill(table, out, 3, monkeypatch, **settings)
    assert load_record(out)["status"] == "running"
    assert (out / "checkpoint.layerwise").exists()
    with pytest.raises(ModelFileError, match=r"not complete.*--resume"):
        Run.load(out)
    run = resume(out)
    expected = (tmp_path / "whole" / "model.layerwise").read_bytes()
    assert (out / "model.layerwise").read_bytes() == expected
    assert not (out / "checkpoint.layerwise").exists()
    assert not (out / ".lock").exists()
    plain = [{k: v for k, v in row.items() if k != "seconds"} for row in Run.load(out).history]
    assert plain == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert run.record["status"] == "done"


def test_a_process_killed_without_mercy_resumes_to_the_same_bytes(table, tmp_path):
    settings = {**QUICK, "dropout": 0.2, "epochs": 12, "batch_size": 16}
    train(table, "sold", out=tmp_path / "whole", **settings)
    out = tmp_path / "killed"
    code = (
        "import sys, json, time, layerwise\n"
        "from layerwise.training import checkpoint\n"
        "checkpoint.EVERY_S = 0\n"
        "layerwise.train(sys.argv[1], 'sold', out=sys.argv[2], **json.loads(sys.argv[3]),\n"
        "                callbacks=[lambda event: time.sleep(0.1)])"
    )
    arguments = [str(table), str(out), json.dumps(settings)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        path = out / "history.jsonl"
        if path.exists() and path.read_bytes().count(b'"epoch", "row"') >= 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert load_record(out)["status"] == "running"
    seen = []
    resume(out, callbacks=[lambda event: seen.append(event.row["epoch"])])
    assert 3 < seen[0] <= 12
    expected = (tmp_path / "whole" / "model.layerwise").read_bytes()
    assert (out / "model.layerwise").read_bytes() == expected
    epochs = [one["row"]["epoch"] for one in read_events(out) if one["event"] == "epoch"]
    assert epochs == list(range(1, 13))


def test_epochs_after_the_last_checkpoint_are_told_once(table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    whole = train(table, "sold", **QUICK)
    _kill(table, out, 5, monkeypatch)  # the checkpoint is that of epoch 1: they are a second apart
    seen = []
    resume(out, callbacks=[lambda event: seen.append(event.row["epoch"])])
    assert seen == [2, 3, 4, 5, 6]
    epochs = [one["row"] for one in read_events(out) if one["event"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert [row["valid_loss"] for row in epochs] == whole.history["valid_loss"]


def test_a_run_killed_while_it_is_measured_has_lost_next_to_nothing(
    table, tmp_path, monkeypatch, every_epoch
):
    out = tmp_path / "out"
    train(table, "sold", out=tmp_path / "whole", **QUICK)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(runs, "judge", die)
        patched.setattr(runs.Keeper, "fail", lambda *_: None)
        with pytest.raises(Killed):
            train(table, "sold", out=out, **QUICK)
    seen = []
    resume(out, callbacks=[lambda event: seen.append(event.row["epoch"])])
    assert seen == []
    expected = (tmp_path / "whole" / "model.layerwise").read_bytes()
    assert (out / "model.layerwise").read_bytes() == expected


@pytest.mark.usefixtures("every_epoch")
def test_an_interrupted_run_has_its_best_epoch_and_goes_on(table, tmp_path):
    def interrupt(event):
        if event.row["epoch"] == 4:
            raise KeyboardInterrupt

    train(table, "sold", out=tmp_path / "whole", **QUICK)
    out = tmp_path / "out"
    run = train(table, "sold", out=out, callbacks=[interrupt], **QUICK)
    assert (run.history.stopped, run.record["status"]) == ("interrupted", "interrupted")
    assert Run.load(out).model.info["best_epoch"] == run.history.best_epoch
    assert resume(out).record["status"] == "done"
    expected = (tmp_path / "whole" / "model.layerwise").read_bytes()
    assert (out / "model.layerwise").read_bytes() == expected
    assert [e["row"]["epoch"] for e in read_events(out) if e["event"] == "epoch"] == [*range(1, 7)]


@pytest.mark.usefixtures("every_epoch")
def test_a_run_that_was_interrupted_resumed_and_killed_is_not_taken_for_complete(
    table, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def interrupt(event):
        if event.row["epoch"] == 3:
            raise KeyboardInterrupt

    train(table, "sold", out=out, callbacks=[interrupt], **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(runs.Keeper, "fail", lambda *_: None)
        with pytest.raises(Killed):
            resume(out, callbacks=[_die_after(5)])
    with pytest.raises(ModelFileError, match="not complete"):
        Run.load(out)
    assert len(resume(out).history) == 6


def test_a_complete_run_is_only_loaded(table, tmp_path):
    out, said = tmp_path / "out", []
    run = train(table, "sold", out=out, **QUICK)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = resume(out, report=said.append)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert again.metrics == run.metrics
    assert said == [f"{out} is complete: epoch {run.history.best_epoch} was kept"]


@pytest.mark.usefixtures("every_epoch")
def test_other_data_are_refused_and_the_run_stays_as_it_was(table, tmp_path, monkeypatch):
    valid = _csv(tmp_path / "valid.csv", 40, seed=3)
    out = tmp_path / "out"
    _kill(table, out, 3, monkeypatch, valid=valid)
    for path in (table, valid):
        text = path.read_text("utf-8")
        path.write_text(text.replace("Bonn", "Köln", 1), "utf-8")
        with pytest.raises(DataError, match="changed since the run"):
            resume(out)
        path.write_text(text, "utf-8")
    assert load_record(out)["status"] == "running"
    train(table, "sold", out=tmp_path / "whole", valid=valid, **QUICK)
    resume(out)
    expected = (tmp_path / "whole" / "model.layerwise").read_bytes()
    assert (out / "model.layerwise").read_bytes() == expected


@pytest.mark.usefixtures("every_epoch")
def test_another_schema_is_refused(table, tmp_path, monkeypatch):
    schema = tmp_path / "schema.toml"
    train(table, "sold", out=tmp_path / "first", **QUICK)
    text = (tmp_path / "first" / "schema.toml").read_text("utf-8")
    schema.write_text(text, "utf-8")
    out = tmp_path / "out"
    _kill(table, out, 3, monkeypatch, schema=schema)
    schema.write_text(text.replace('role = "category"', 'role = "ignore"'), "utf-8")
    with pytest.raises(DataError, match="schema is not that of"):
        resume(out)


@pytest.mark.usefixtures("every_epoch")
def test_a_last_line_cut_short_by_the_kill_does_no_harm(table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    _kill(table, out, 3, monkeypatch)
    with (out / "history.jsonl").open("a") as file:
        file.write('{"event": "epoch", "ro')
    assert len(resume(out).history) == 6
    assert len(Run.load(out).history) == 6


@pytest.mark.usefixtures("every_epoch")
def test_numbers_of_numpy_in_the_question_resume_too(table, tmp_path, monkeypatch):
    out = tmp_path / "out"
    settings = {"lr": np.float32(0.5), "epochs": np.int64(6), "random_state": np.int64(3)}
    _kill(table, out, 3, monkeypatch, **settings)
    assert len(resume(out).history) == 6
    assert Run.load(out).model.info["random_state"] == 3


def test_rows_in_memory_cannot_be_resumed(tmp_path, monkeypatch, every_epoch):
    out = tmp_path / "out"
    data = {name: small.rows(150)[name] for name in ("size", "town", "sold")}
    _kill(data, out, 3, monkeypatch)
    with pytest.raises(DataError, match="source rows were in memory"):
        resume(out)


# ---------------------------------------------------------------- refusals and failures


def test_a_folder_with_a_run_is_refused_and_left_alone(table, tmp_path):
    out = tmp_path / "out"
    train(table, "sold", out=out, **QUICK)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(OutputError, match="has a run in it already"):
        train(table, "sold", out=out, **QUICK)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_two_runs_at_once_in_one_folder_are_refused(table, tmp_path):
    out, seen = tmp_path / "out", []

    def another(event):
        with pytest.raises(OutputError, match=r"another run|has a run"):
            train(table, "sold", out=out, **QUICK)
        with pytest.raises(OutputError, match="another run"):
            resume(out)
        seen.append(1)

    assert train(table, "sold", out=out, callbacks=[another], **QUICK).record["status"] == "done"
    assert len(seen) == 6


BAD = [
    ({"target": "sodl"}, DataError, "no column 'sodl'. Did you mean 'sold'"),
    ({"source": "none.csv"}, DataError, "none.csv"),
    ({"lr": -1}, SettingError, "lr has to be"),
    ({"droput": 0.1}, SettingError, "Did you mean 'dropout'"),
    ({"optimizer": "adamm"}, SettingError, "Did you mean 'adam'"),
    ({"monitor": "rmse"}, SettingError, "no metric of a binary"),
    ({"loss": "mse"}, SettingError, "does not fit"),
    ({"class_weight": {"nosuch": 2}}, SettingError, "no class 'nosuch'"),
    ({"device": "cuda:9"}, SettingError, "cannot be used here"),
    ({"weights": "town"}, DataError, "'town'"),
    ({"optimizer": "sgd", "lr": 1e300}, TrainingError, "not finite"),
]


@pytest.mark.parametrize(("said", "error", "words"), BAD, ids=[str(one[0]) for one in BAD])
def test_what_fails_leaves_nothing_behind(said, error, words, table, tmp_path):
    said = dict(said)
    source, target = said.pop("source", table), said.pop("target", "sold")
    with pytest.raises(error, match=words):
        train(source, target, out=tmp_path / "runs" / "deep" / "out", **{**QUICK, **said})
    assert _names(tmp_path) == ["flats.csv"]


def test_a_folder_that_was_there_stays_when_the_run_fails(table, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(LayerwiseError):
        train(table, "nosuch", out=out, **QUICK)
    assert _names(out) == ["notes.txt"]


def test_a_full_disk_is_said_in_words(table, tmp_path, monkeypatch):
    real = storage.write_whole

    def fail(path, data):
        if path.name == "model.layerwise":
            raise OutputError(f"{path} cannot be written: no space is left on the disk")
        real(path, data)

    monkeypatch.setattr(storage, "write_whole", fail)
    with pytest.raises(OutputError, match="no space"):
        train(table, "sold", out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out" / "model.layerwise").exists()


def test_a_run_that_diverged_keeps_the_best_and_writes_json_that_others_can_read(table, tmp_path):
    out = tmp_path / "out"
    settings = {**QUICK, "optimizer": "sgd", "lr": 30.0, "loss": "auto", "epochs": 200}
    data = small.rows(300)
    numbers = {"size": data["size"], "price": [p * 1e3 for p in data["price"]]}
    try:
        train(numbers, "price", out=out, **settings)
    except TrainingError:
        assert not out.exists()
        return
    for line in (out / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_losses_that_are_no_numbers_are_null_in_the_file_and_nan_when_loaded(table, tmp_path):
    out = tmp_path / "out"

    def spoil(event):
        if event.row["epoch"] == 3:
            event.row["valid_loss"] = float("nan")

    train(table, "sold", out=out, callbacks=[spoil], **QUICK)
    text = (out / "history.jsonl").read_text()
    assert '"valid_loss": null' in text
    assert "NaN" not in text
    assert np.isnan(Run.load(out).history[2]["valid_loss"])


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="there is no run folder"):
        resume(tmp_path / "none")
    with pytest.raises(ModelFileError, match=r"it has no run.json"):
        Run.load(tmp_path)
    for text in ("", "[]", "{}", '{"status": 3', "\x00"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ModelFileError):
            Run.load(tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {"valid": 1}, {"test": -0.1}, {"valid": 0.6, "test": 0.5}, {"task": "classify"},
        {"random_state": -1}, {"random_state": 1.5}, {"group": "town", "time": "size"},
        {"sql": "select 1"}, {"target": None},
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_before_anything_is_read(said):
    with pytest.raises(SettingError):
        train("no-such-file.csv", **{"target": "sold", **QUICK, **said})


def test_weights_and_notices_are_recorded(tmp_path):
    data = small.rows(150)
    weight = np.where(np.arange(150) % 5 == 0, 0.0, 2.0)
    said = []
    run = train(
        {"size": data["size"], "town": data["town"], "sold": data["sold"], "w": weight},
        "sold", weights="w", report=said.append, **QUICK,
    )  # fmt: skip
    assert sum(run.record["data"]["rows"].values()) == 120
    assert any("weight 0" in one for one in said)
    assert run.record["notices"] == said


def test_weight_2_is_the_row_twice_in_the_baselines():
    names = ("size", "town", "new", "price")
    data = {name: small.rows(80)[name] for name in names}
    other = {name: small.rows(40, 1)[name] for name in names}
    w = [1.0 + i % 3 for i in range(80)]
    twice = {name: np.repeat(np.array(data[name], object), np.array(w, int)) for name in names}
    options = {"valid": other, "test": other, **QUICK, "epochs": 1, "baselines": True}
    options |= {"task": "regression"}
    weighted = train(
        {**data, "w": w}, "price", weights="w",
        **{**options, "valid": {**other, "w": [1.0] * 40}, "test": {**other, "w": [1.0] * 40}},
    )  # fmt: skip
    repeated = train(twice, "price", **options)
    for name in ("constant", "linear"):
        assert weighted.baselines[name] == pytest.approx(repeated.baselines[name], rel=1e-4)


def test_rows_of_weight_0_are_no_rows():
    data = small.rows(150)
    names = ("size", "town", "new", "sold")
    kept = [i for i in range(150) if i % 5]
    few = {name: [data[name][i] for i in kept] for name in names}
    weight = [float(i % 5 > 0) for i in range(150)]
    expected = train(few, "sold", **QUICK)
    found = train({**{n: data[n] for n in names}, "w": weight}, "sold", weights="w", **QUICK)
    assert found.metrics == expected.metrics
    for name, array in expected.model.members[0].items():
        assert found.model.members[0][name].tobytes() == array.tobytes()


def test_the_global_state_is_left_as_it_was(table):
    import random

    import torch

    before = (
        torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(),  # noqa: NPY002
        torch.get_num_threads(), torch.get_default_dtype(), Path.cwd(), dict(os.environ),
    )  # fmt: skip
    train(table, "sold", **{**QUICK, "baselines": True})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == before[3]
    assert torch.get_default_dtype() == before[4]
    assert (Path.cwd(), dict(os.environ)) == before[5:]


def test_a_category_of_numbers_is_the_same_from_a_file_and_from_a_frame(tmp_path):
    path = tmp_path / "rooms.csv"
    lines = [f"{1 + i % 3}.0,{i % 3 + 0.1 * (i % 5)}" for i in range(60)]
    path.write_text("rooms,price\n" + "\n".join(lines) + "\n")
    run = train(path, "price", roles={"rooms": "category"}, **QUICK)
    from_file = run.model.predict(path)
    frame = {"rooms": np.array([1.0 + i % 3 for i in range(60)])}
    np.testing.assert_array_equal(run.model.predict(frame), from_file)


def test_rows_of_weight_0_decide_neither_roles_nor_task():
    def table(extra):
        n = 120
        texts = [f"town {i % 3}" for i in range(n)] + [f"other {i}" for i in range(extra)]
        return {
            "x": [float(i % 7) for i in range(n + extra)],
            "town": texts,
            "y": [i % 2 for i in range(n)] + [100 + i for i in range(extra)],
            "w": [1.0] * n + [0.0] * extra,
        }

    runs_ = [train(table(extra), "y", weights="w", **QUICK) for extra in (0, 120)]
    assert [run.record["task"] for run in runs_] == ["binary", "binary"]
    names = [run.model.encoder.names for run in runs_]
    assert names[0] == names[1] == ["x", "town"]


def test_sql_that_lets_duckdb_guess_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i % 9},{i % 5}.5\n" for i in range(40)))
    with pytest.raises(DataError, match="guesses types from the first rows"):
        train(sql=f"select * from read_csv('{path}')", target="y", **QUICK)
    train(sql=f"select * from read_csv('{path}', sample_size=-1)", target="y", **QUICK)
