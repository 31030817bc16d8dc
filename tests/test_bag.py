"""A bag of networks: folds, honest scores, calibration, the same bytes, and clean ends."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch

import layerwise
import small
from layerwise import bagging, metrics, storage
from layerwise.data.files import read_table
from layerwise.data.schema import infer_schema
from layerwise.data.split import deal
from layerwise.data.target import Target
from layerwise.errors import TrainingError
from layerwise.learn import learn
from layerwise.model.model import Model
from layerwise.out_of_fold import NAME, OutOfFold
from layerwise.prepare import Part
from layerwise.training import checkpoint as checkpoints
from layerwise.training.recipe import Recipe

QUICK = {"epochs": 6, "hidden_layer_sizes": (6,), "lr": 0.02}
BAG = {**QUICK, "members": 3}


def _part(target="sold", n=120, seed=0):
    data = small.rows(n, seed)
    table = read_table({name: data[name] for name in ("size", "town", "new")})
    y = np.array(data[target], dtype=float if target == "price" else object)
    return Part(table, y), infer_schema(table)


def _target(target, y):
    return Target.regression(y) if target == "price" else Target.classification(np.unique(y))


def _bag(target="sold", *, fold=True, valid=None, start=None, seed=0, **settings):
    part, schema = _part(target)
    goal = _target(target, part.y)
    classes = None if goal.is_regression else goal.codes(part.y)
    folds = deal(len(part), 5, seed=0, classes=classes) if fold is True else None
    recipe = Recipe(**{**BAG, **settings})
    return learn(part, valid, schema, goal, recipe, fold=folds, start=start, seed=seed), part, folds


def _bytes(model, path):
    model.save(path)
    return path.read_bytes()


@pytest.fixture
def table(tmp_path):
    """A CSV with groups, moments and weights."""
    path, data = tmp_path / "houses.csv", small.rows(150)
    names = [*data, "owner", "day", "count"]
    extra = [(i % 20, f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}", i % 3 + 1) for i in range(150)]
    lines = [
        ",".join("" if cell is None else str(cell) for cell in (*cells, *more))
        for cells, more in zip(zip(*data.values()), extra)
    ]
    path.write_text("\n".join([",".join(names), *lines]) + "\n", "utf-8")
    return path


def _train(table, **options):
    said = {"target": "sold", "drop": ["price", "band"], "baselines": False, **BAG}
    if "group" not in options:
        said["drop"] = [*said["drop"], "owner"]
    return layerwise.train(table, **{**said, **options})


# ---------------------------------------------------------------- what a member sees


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_every_row_is_answered_by_the_members_that_were_not_trained_on_it(target):
    learnt, part, fold = _bag(target, members=5)
    model, held = learnt.model, learnt.out_of_fold
    X = model.encode(part.table)
    outputs = np.stack([model.target.average([one]) for one in model.member_outputs(X)])
    expected = model.finish(outputs[fold, np.arange(len(part))])
    assert held.rows.tolist() == list(range(120))
    assert held.fold.tolist() == fold.tolist()
    np.testing.assert_array_equal(held.outputs, expected)


def test_fewer_members_than_folds_answer_for_their_folds_alone():
    learnt, _, fold = _bag(members=2)
    held = learnt.out_of_fold
    assert held.rows.tolist() == np.flatnonzero(fold < 2).tolist()
    assert len(learnt.model.members) == 2


def test_more_members_than_folds_share_them():
    learnt, part, fold = _bag(members=7)
    model, X = learnt.model, learnt.model.encode(part.table)
    both = model.target.average([model.member_outputs(X)[i] for i in (1, 6)])
    here = fold == 1
    np.testing.assert_array_equal(learnt.out_of_fold.outputs[here], model.finish(both)[here])
    members = learnt.model.members
    assert members[1]["1.weight"].tobytes() != members[6]["1.weight"].tobytes()


def test_the_first_member_begins_as_the_single_network_does():
    part, schema = _part()
    one = learn(part, None, schema, _target("sold", part.y), Recipe(**QUICK))
    bag, *_ = _bag(fold=False, members=2)
    for name, array in one.model.members[0].items():
        assert array.tobytes() == bag.model.members[0][name].tobytes()


def test_own_validation_rows_decide_for_all_members_and_score_them():
    valid, _ = _part(n=60, seed=3)
    learnt, _, _ = _bag(fold=False, valid=valid)
    held = learnt.out_of_fold
    assert held.how == "validation"
    np.testing.assert_array_equal(held.outputs, learnt.model.outputs(valid.table))


# ---------------------------------------------------------------- the answer


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_the_module_answers_as_the_model_does(target):
    learnt, part, _ = _bag(target)
    with torch.no_grad():
        X = torch.from_numpy(learnt.model.encode(part.table))
        expected = learnt.network(X).double().numpy()
        assert torch.equal(learnt.network(X), learnt.model.network()(X))
    np.testing.assert_allclose(learnt.model.outputs(part.table), expected, rtol=1e-6, atol=1e-8)


def test_a_bag_can_be_printed_traced_and_exported():
    learnt, part, _ = _bag("band")
    bag = learnt.network
    assert "members" in str(bag)
    assert "task=multiclass" in str(bag)
    X = torch.from_numpy(learnt.model.encode(part.table))
    traced = torch.fx.symbolic_trace(bag)
    torch.testing.assert_close(traced(X), bag(X))


def test_a_regression_never_leaves_the_range_of_its_training_rows():
    learnt, part, _ = _bag("price", epochs=30)
    far = read_table({"size": [1e6, -1e6], "town": ["Ulm", "Bonn"], "new": ["yes", "no"]})
    answers = learnt.model.target.decode(learnt.model.outputs(far))
    assert part.y.min() - 1e-9 <= answers.min()
    assert answers.max() <= part.y.max() + 1e-9


def test_many_rows_are_answered_as_few_are(monkeypatch):
    learnt, part, _ = _bag()
    few = learnt.model.outputs(part.table)
    monkeypatch.setattr("layerwise.model.model._MANY", 1)
    assert learnt.model.outputs(part.table).tobytes() == few.tobytes()


# ---------------------------------------------------------------- repeatable, and clean ends


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_threads(tmp_path, monkeypatch):
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(bagging, "processors", lambda n=threads: n)
        found.append(_bytes(_bag(dropout=0.2)[0].model, tmp_path / "m"))
    assert found[0] == found[1] == found[2]
    assert _bytes(_bag(dropout=0.2, seed=1)[0].model, tmp_path / "m") != found[0]


def test_the_history_has_each_member_s():
    history = _bag(patience=None)[0].history
    assert [len(member) for member in history.members] == [6, 6, 6]
    losses = [member["valid_loss"] for member in history.members]
    np.testing.assert_allclose(history["valid_loss"], np.mean(losses, axis=0))
    assert history.best_epoch == sorted(m.best_epoch for m in history.members)[1]


def test_callbacks_are_told_which_member_it_is_and_one_can_end_them_all():
    seen = []

    def callback(event):
        seen.append((event.member, event.members))
        return event.row["epoch"] >= 2

    part, schema = _part()
    learnt = learn(
        part, None, schema, _target("sold", part.y), Recipe(**{**BAG, "epochs": 1000}),
        callbacks=[callback],
    )  # fmt: skip
    assert learnt.history.stopped == "callback"
    assert {count for _, count in seen} == {3}
    assert max(map(len, learnt.history.members)) <= 3


def test_going_on_trains_every_member_further():
    first, *_ = _bag(fold=False)
    before = [one["1.weight"].tobytes() for one in first.model.members]
    again, *_ = _bag(fold=False, start=first)
    assert again.networks == first.networks
    after = [one["1.weight"].tobytes() for one in again.model.members]
    assert not set(before) & set(after)


def test_a_member_that_diverges_at_once_is_an_error():
    with pytest.raises(TrainingError, match=r"not finite|no epoch ended"):
        _bag("price", lr=1e30, optimizer="sgd", dtype="float32")


def test_a_time_limit_is_kept_and_every_member_has_its_share():
    limit, start = 3.0, time.monotonic()
    learnt, *_ = _bag(epochs=10_000_000, patience=None, time_limit=limit, members=6)
    assert time.monotonic() - start < 1.1 * limit + 1  # one second to build and to measure
    assert learnt.history.stopped == "time limit"
    assert len(learnt.model.members) == 6


def test_members_that_there_is_no_time_for_are_left_out(monkeypatch):
    monkeypatch.setattr(bagging, "processors", lambda: 1)
    learnt, *_ = _bag(time_limit=1e-9)
    assert len(learnt.model.members) == 1
    assert learnt.history.stopped == "time limit"


# ---------------------------------------------------------------- a run


def test_a_run_has_members_in_record_events_and_folder(table, tmp_path):
    run = _train(table, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert [one["epochs"] for one in record["members"]] == [len(m) for m in run.history.members]
    assert record["out_of_fold"]["metrics"] == run.record["out_of_fold"]["metrics"]
    low, high = record["out_of_fold"]["interval"]["log_loss"]
    assert low < record["out_of_fold"]["metrics"]["log_loss"] < high
    again = layerwise.Run.load(tmp_path / "run")
    assert [m.rows for m in again.history.members] == [m.rows for m in run.history.members]
    assert again.history.rows == run.history.rows
    columns = again.out_of_fold.columns(again.model.target)
    for name, cells in run.out_of_fold.columns(run.model.target).items():
        assert cells.tolist() == columns[name].tolist()
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_the_test_rows_are_those_of_a_single_network(table):
    single, bag = _train(table, members=1), _train(table)
    assert single.record["data"]["rows"]["test"] == bag.record["data"]["rows"]["test"]
    rows = [run.prepared.test.table.rows.tolist() for run in (single, bag)]
    assert rows[0] == rows[1]


def test_without_test_rows_the_score_is_out_of_fold_and_so_are_the_baselines(table):
    run = _train(table, test=0, baselines=True, members=5)
    held = run.out_of_fold
    assert run.record["measured_on"] == "out-of-fold"
    assert len(held) == 150
    expected = metrics.evaluate(run.model.target, held.y, held.outputs, held.weight)
    assert run.metrics == expected
    assert run.baselines["boosted trees"]["log_loss"] > 0.001  # no memory of its own rows


def test_groups_stay_together(table):
    run = _train(table, group="owner", members=5)
    groups, fold = run.prepared.groups, run.prepared.fold
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    alone = _train(table, group="owner", members=5, random_state=1)
    assert alone.record["out_of_fold"]["interval"]


def test_by_time_all_members_stop_on_the_latest_rows(table):
    run = _train(table, time="day")
    assert run.prepared.fold is None
    assert run.out_of_fold.how == "validation"
    assert len(run.out_of_fold) == run.record["data"]["rows"]["valid"]


def test_weights_count_out_of_fold(table):
    run = _train(table, weights="count")
    assert set(run.out_of_fold.weight) == {1.0, 2.0, 3.0}


def test_a_class_with_one_row_trains_every_member(table):
    lines = table.read_text("utf-8").splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("band")] = "palace"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", "utf-8")
    run = _train(table, target="band", drop=["price", "sold", "owner"])
    assert "palace" in run.model.target.classes
    assert (run.prepared.fold == -1).sum() == 1


@pytest.fixture
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)


class _Kill(BaseException):
    pass


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("after", [2, 8, 16])
def test_a_killed_run_resumes_to_the_same_bytes_and_trains_no_ended_member_again(
    after, table, tmp_path, monkeypatch
):
    monkeypatch.setattr(bagging, "processors", lambda: 1)
    whole = _train(table, out=tmp_path / "whole", patience=None, dropout=0.1)
    told = []

    def kill(event):
        told.append(event)
        if len(told) == after:
            raise _Kill

    with pytest.raises(_Kill):
        _train(table, out=tmp_path / "run", patience=None, dropout=0.1, callbacks=[kill])
    again = []
    run = layerwise.resume(tmp_path / "run", callbacks=[again.append])
    assert len(again) <= 3 * 6 - after + 2
    names = ("model.layerwise", NAME)
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [len(m) for m in layerwise.Run.load(tmp_path / "run").history.members] == [6, 6, 6]
    assert run.metrics == whole.metrics


@pytest.mark.usefixtures("every_epoch")
def test_an_interrupted_bag_keeps_what_it_has_and_goes_on(table, tmp_path, monkeypatch):
    monkeypatch.setattr(bagging, "processors", lambda: 1)
    whole = _train(table, out=tmp_path / "whole", patience=None)
    told = []

    def interrupt(event):
        told.append(event)
        if len(told) == 9:
            raise KeyboardInterrupt

    run = _train(table, out=tmp_path / "run", patience=None, callbacks=[interrupt])
    assert run.record["status"] == "interrupted"
    assert len(run.model.members) == 2
    assert len(Model.load(tmp_path / "run").members) == 2
    run = layerwise.resume(tmp_path / "run")
    assert run.metrics == whole.metrics
    a, b = (tmp_path / name / "model.layerwise" for name in ("run", "whole"))
    assert a.read_bytes() == b.read_bytes()


def test_out_of_fold_answers_of_a_damaged_file_are_refused(table, tmp_path):
    run = _train(table, out=tmp_path / "run")
    path = tmp_path / "run" / NAME
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(storage.ModelFileError, match="damaged"):
        OutOfFold.load(path, run.model.target)
