"""Several epochs in one go are the same epochs as one by one, whatever ends them."""

from __future__ import annotations

import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

from layerwise.engine.loss import bce, cross_entropy, mse
from layerwise.engine.native import AVAILABLE, Gain, Native
from layerwise.engine.torch import Rows
from layerwise.errors import TrainingError
from layerwise.network.build import build
from layerwise.network.plan import design
from layerwise.training.fit import fit
from layerwise.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="there is no core here")


def _rows(n, task="regression", weights=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 4, generator=generator)
    noise = torch.randn(n, generator=generator)
    y = {
        "regression": lambda: (X[:, 0] * X[:, 1] + noise)[:, None],
        "binary": lambda: (X[:, 0] + noise > 0).float()[:, None],
        "multiclass": lambda: (X[:, 0] + noise > 0).long() + (X[:, 1] > 0).long(),
    }[task]()
    return Rows(X, y, torch.rand(n, generator=generator) + 0.5 if weights else None)


def _both(task="regression", valid=True, n=150, weights=False, norm=None, dropout=0.0, **settings):
    """The history and the weights of the same training, one by one and in one go."""
    outputs, loss = {"regression": (1, mse), "binary": (1, bce), "multiclass": (3, cross_entropy)}[
        task
    ]
    recipe = Recipe(**{"epochs": 37, "lr": 0.03, "batch_size": 16, "engine": "native", **settings})
    found = []
    for callbacks in ([lambda event: None], []):
        network = build(
            design(4, [], outputs, hidden_layer_sizes=(9, 5), norm=norm, dropout=dropout), seed=1
        )
        score = (lambda outputs, y: {"seen": float(outputs.sum() + y.sum())}) if valid else None
        history = fit(
            network, loss, _rows(n, task, weights), _rows(60, task, weights, 1) if valid else None,
            recipe, seed=4, score=score, callbacks=callbacks,
        )  # fmt: skip
        assert history.engine == "native"
        found.append((history, network))
    return found


def _same(one_by_one, in_one_go):
    (first, its), (second, other) = one_by_one, in_one_go
    assert [_timeless(row) for row in first] == [_timeless(row) for row in second]
    assert (first.best_epoch, first.stopped) == (second.best_epoch, second.stopped)
    assert first.layers == second.layers
    assert all(
        torch.equal(a, b) for a, b in zip(its.state_dict().values(), other.state_dict().values())
    )


def _timeless(row):
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_the_epochs_are_the_same_to_the_bit(task, valid, weights):
    _same(*_both(task, valid, weights=weights))


def test_with_dropout_and_batch_normalisation_too():
    _same(*_both(dropout=0.3, norm="batch"))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step"])
def test_with_a_schedule_too_and_the_rows_name_the_rate_of_each_epoch(schedule):
    one, other = _both(schedule=schedule, warmup=0.1)
    _same(one, other)
    assert len(set(other[0]["lr"])) > 1


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_it_in_the_same_epoch(patience):
    one, other = _both(patience=patience, epochs=500, lr=0.1)
    _same(one, other)
    assert other[0].stopped == "patience"
    assert len(other[0]) == other[0].best_epoch + patience


def test_a_gain_has_to_be_as_large_as_is_asked():
    _same(*_both(min_delta=0.01, patience=5, epochs=200))


def test_rows_of_a_last_batch_alone_and_of_one_step():
    _same(*_both(n=17))
    _same(*_both(n=12))


def test_clipped_gradients_and_every_optimizer():
    for optimizer in ("sgd", "adamw", "nadam", "rmsprop", "adagrad"):
        _same(*_both(optimizer=optimizer, clip_norm=0.5, clip_value=0.1, epochs=20))


def test_a_time_limit_ends_it_and_keeps_the_best():
    recipe = Recipe(epochs=10_000_000, patience=None, time_limit=0.3, engine="native", batch_size=8)
    network = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1)
    history = fit(network, mse, _rows(150), _rows(60, seed=1), recipe)
    assert history.stopped == "time limit"
    assert history[-1]["seconds"] < 3
    assert min(history["valid_loss"]) == history.best["valid_loss"]


def test_a_time_limit_within_the_first_epoch_still_gives_a_network():
    recipe = Recipe(epochs=5, time_limit=1e-9, engine="native", batch_size=8)
    network = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1)
    history = fit(network, mse, _rows(150), _rows(60, seed=1), recipe)
    assert (len(history), history.stopped) == (1, "time limit")


def test_ctrl_c_keeps_the_best_of_the_epochs_that_had_ended():
    recipe = Recipe(epochs=10_000_000, patience=None, engine="native", batch_size=8)
    network = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1)
    timer = threading.Timer(0.4, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    history = fit(network, mse, _rows(150), _rows(60, seed=1), recipe)
    timer.join()
    assert history.stopped == "interrupted"
    assert history.best_epoch == 1 + int(np.argmin(history["valid_loss"][: len(history)]))


def test_weights_that_blow_up_keep_the_best_and_name_the_layer():
    found = _both(optimizer="sgd", lr=3.0, epochs=60, patience=None)
    _same(*found)
    assert found[1][0].stopped.startswith("diverged")


@pytest.mark.parametrize("looks", [[1], [1, 0, 0], [0, -1]])
def test_looks_that_fit_no_epoch_are_refused(looks):
    network, rows = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1), _rows(20)
    engine = Native(network, mse, torch.optim.SGD(network.parameters(), lr=0.1), rows)
    orders = torch.arange(20).repeat(2, 1)
    with pytest.raises(ValueError, match="for each epoch"):
        engine.train_epochs(rows, orders, 5, rows, Gain(), looks=looks)
    passed, error = engine.train_epochs(rows, orders, 5, rows, Gain(), looks=[0, 2])
    assert error is None
    assert [one.seen is None for one in passed] == [True, False]


def test_a_nan_in_the_first_epoch_is_named():
    rows = _rows(50)
    rows.X[7, 2] = math.nan
    network = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1)
    with pytest.raises(TrainingError, match="row 8 of the training rows"):
        fit(network, mse, rows, None, Recipe(epochs=5, engine="native"))


def test_a_metric_that_decides_is_asked_after_each_epoch():
    network = build(design(4, [], 1, hidden_layer_sizes=(9,)), seed=1)
    told = []

    def score(outputs, y):
        told.append(float(((outputs - y) ** 2).mean()))
        return {"rmse": told[-1]}

    recipe = Recipe(epochs=20, patience=None, monitor="rmse", engine="native")
    history = fit(network, mse, _rows(150), _rows(60, seed=1), recipe, score=score)
    assert history["rmse"] == told
    assert history.best_epoch == 1 + int(np.argmin(told))
