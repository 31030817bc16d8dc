"""Trainings side by side: each as if it were alone, to the bit, and every end is a clean one."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest
import torch

from layerwise.engine.loss import cross_entropy, mse
from layerwise.engine.native import AVAILABLE
from layerwise.engine.torch import Rows
from layerwise.errors import SettingError, TrainingError
from layerwise.network.build import build
from layerwise.network.plan import design
from layerwise.training.fit import fit
from layerwise.training.many import Job, fit_many, outcomes_of_many
from layerwise.training.recipe import Recipe

ENGINES = ["torch", pytest.param("native", marks=pytest.mark.skipif(not AVAILABLE, reason="core"))]


def _table(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 5, generator=generator)
    y = (X[:, 0] * X[:, 1] > 0).long() + (X[:, 2] > 1).long()
    return Rows(X, y, torch.rand(n, generator=generator) + 0.5)


def _folds(rows, n_folds):
    """Each fold's training and validation rows, as parts of one table."""
    of = torch.arange(len(rows)) % n_folds
    for fold in range(n_folds):
        parts = ((of != fold).nonzero().flatten(), (of == fold).nonzero().flatten())
        yield [Rows(rows.X, rows.y, rows.w, part) for part in parts]


def _network(seed, dropout=0.1):
    return build(
        design(5, [], 3, hidden_layer_sizes=(8, 8), dropout=dropout, norm="batch"), seed=seed
    )


def _score(outputs, y):
    return {"accuracy": float((outputs.argmax(1) == y).float().mean())}


def _jobs(engine="auto", n=5, **settings):
    recipe = Recipe(**{"epochs": 8, "batch_size": 16, "engine": engine, **settings})
    return [
        Job(_network(i), cross_entropy, train, valid, recipe, seed=i, score=_score)
        for i, (train, valid) in enumerate(_folds(_table(), n))
    ]


def _weights(jobs):
    return [torch.cat([p.detach().flatten() for p in job.network.parameters()]) for job in jobs]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_each_training_is_what_it_is_alone_on_rows_of_its_own(engine, threads):
    jobs, alone = _jobs(engine), _jobs(engine)
    histories = fit_many(jobs, threads)
    for job, history in zip(alone, histories):
        told = fit(
            job.network, job.loss, job.train.picked(), job.valid.picked(), job.recipe,
            seed=job.seed, score=job.score,
        )  # fmt: skip
        assert told.engine == engine
        assert [_timeless(row) for row in told] == [_timeless(row) for row in history]
    for one, other in zip(_weights(alone), _weights(jobs)):
        assert torch.equal(one, other)


def _timeless(row):
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_of_a_table_trains_as_a_copy_of_it_in_any_order(engine):
    whole, part = _table(), torch.randperm(300)[:100]
    told = []
    for rows in (
        Rows(whole.X, whole.y, whole.w, part),
        Rows(whole.X, whole.y, whole.w, part).picked(),
    ):
        network = _network(0)
        history = fit(network, cross_entropy, rows, rows, Recipe(epochs=3, engine=engine))
        told.append((history["train_loss"], history["valid_loss"]))
    assert told[0] == told[1]


def test_callbacks_are_told_one_at_a_time():
    inside = []

    def callback(event):
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.001)
        inside.pop()

    jobs = [Job(**{**vars(job), "callbacks": [callback]}) for job in _jobs()]
    assert all(len(history) for history in fit_many(jobs, 4))


def test_a_training_that_fails_stops_the_others_and_is_raised():
    jobs = _jobs(epochs=100_000, patience=None)
    spoilt = Rows(torch.full((300, 5), torch.nan), jobs[0].train.y)
    jobs[1] = Job(**{**vars(jobs[1]), "train": spoilt})
    with pytest.raises(TrainingError, match="nan"):
        fit_many(jobs, 3)


def test_where_the_others_go_on_each_has_its_own_outcome():
    jobs = _jobs()
    spoilt = Rows(torch.full((300, 5), torch.nan), jobs[0].train.y)
    jobs[1] = Job(**{**vars(jobs[1]), "train": spoilt})
    found = outcomes_of_many(jobs, 2)
    assert isinstance(found[1], TrainingError)
    assert [len(one) for i, one in enumerate(found) if i != 1] == [8, 8, 8, 8]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_all_and_those_at_work_keep_their_best(engine, threads):
    begun, pressed = set(), []

    def press(job, event):
        begun.add(job)
        if len(begun) == threads and event.row["epoch"] > 3 and not pressed:
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    jobs = [
        Job(**{**vars(job), "callbacks": [partial(press, i)]})
        for i, job in enumerate(_jobs(engine, epochs=1_000_000, patience=None))
    ]
    found = outcomes_of_many(jobs, threads)
    for outcome in found[:threads]:
        assert outcome.stopped == "interrupted"
        assert outcome.best_epoch
    for outcome in found[threads:]:
        assert isinstance(outcome, KeyboardInterrupt)


@pytest.mark.skipif(not AVAILABLE, reason="core")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_also_reaches_epochs_that_nobody_looks_at(threads):
    jobs = _jobs("native", epochs=1_000_000, patience=None)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    found = outcomes_of_many(jobs, threads)
    timer.join()
    stopped = [getattr(one, "stopped", "KeyboardInterrupt") for one in found]
    assert set(stopped) <= {"interrupted", "KeyboardInterrupt"}
    assert stopped[0] == "interrupted"


def test_two_trainings_of_one_network_are_refused():
    network = torch.nn.Linear(5, 3)
    jobs = [Job(network, mse, _table(), None, Recipe())] * 2
    with pytest.raises(SettingError, match="same network"):
        fit_many(jobs)
