"""A killed training goes on from its checkpoint and ends in the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from layerwise.engine.loss import mse
from layerwise.engine.torch import Rows
from layerwise.errors import ModelFileError
from layerwise.network.build import build, to_arrays
from layerwise.network.plan import design
from layerwise.training import checkpoint as checkpoints
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.fit import fit
from layerwise.training.optimizer import OPTIMIZERS
from layerwise.training.recipe import Recipe


class Killed(Exception):
    """Stands for a process that is gone: nothing in the training catches it."""


def _rows(n, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 3, generator=generator, dtype=dtype)
    y = X[:, :1] * X[:, 1:2] + 0.1 * torch.randn(n, 1, generator=generator, dtype=dtype)
    return Rows(X, y)


def _sized(recipe):
    """Batches of 16 of the 50 rows; LBFGS needs them all at once."""
    return replace(recipe, batch_size=50 if recipe.optimizer == "lbfgs" else 16)


def _train(recipe, checkpoint=None, die_after=None, dtype=torch.float32, **options):
    def die(event):
        if event.row["epoch"] == die_after:
            raise Killed

    dropout = 0.0 if recipe.dropout == "auto" else recipe.dropout  # "auto" asks for the rows
    plan = design(3, [], 1, hidden_layer_sizes=(6,), dropout=dropout, norm=recipe.norm)
    network = build(plan, seed=2, dtype=dtype)
    history = fit(
        network, mse, _rows(50, 0, dtype), _rows(20, 1, dtype), _sized(recipe), seed=4,
        checkpoint=checkpoint, callbacks=[die], **options,
    )  # fmt: skip
    return to_arrays(network), history


def _without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def _assert_resumes_to_the_same_bytes(recipe, tmp_path, dies=(3, 6), dtype=torch.float32):
    expected, history = _train(recipe, dtype=dtype)
    path = tmp_path / "checkpoint.layerwise"
    for epoch in dies:
        with pytest.raises(Killed):
            _train(recipe, Checkpoint(path), die_after=epoch, dtype=dtype)
    found, resumed = _train(recipe, Checkpoint(path), dtype=dtype)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name
    assert _without_seconds(resumed) == _without_seconds(history)
    assert (resumed.best_epoch, resumed.stopped) == (history.best_epoch, history.stopped)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0)


@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [(name, torch.float32) for name in sorted(OPTIMIZERS)]
    # whose state is partly in single precision, whatever the weights
    + [(name, torch.float64) for name in ("adam", "asgd", "nadam", "radam")],
)
def test_a_killed_training_resumes_to_the_same_bytes_with_every_optimizer(
    optimizer, dtype, tmp_path
):
    options = {"max_iter": 3} if optimizer == "lbfgs" else {}
    recipe = Recipe(optimizer=optimizer, epochs=8, lr=0.01, optimizer_options=options)
    _assert_resumes_to_the_same_bytes(recipe, tmp_path, dtype=dtype)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3, "norm": "batch"},
        {"optimizer": "sgd", "momentum": 0.9, "optimizer_options": {"nesterov": True}},
        {"schedule": "one_cycle", "warmup": 0.2},
        {"schedule": "cosine", "dropout": 0.2, "clip_norm": 0.5, "norm": "layer"},
        {"optimizer": "adam", "optimizer_options": {"amsgrad": True, "betas": [0.8, 0.9]}},
        {
            "optimizer": "lbfgs",
            "optimizer_options": {"line_search_fn": "strong_wolfe", "max_iter": 2},
        },
    ],
)
def test_dropout_schedules_and_options_resume_to_the_same_bytes(settings, tmp_path):
    recipe = Recipe(**{"epochs": 9, "lr": 0.02, **settings})
    _assert_resumes_to_the_same_bytes(recipe, tmp_path)


def test_early_stopping_resumes_with_its_patience(tmp_path):
    recipe = Recipe(optimizer="sgd", lr=0.2, momentum=0.5, epochs=200, patience=6)
    _, history = _train(recipe)
    assert history.stopped == "patience"
    # killed while the patience runs, once with the best epoch already behind
    dies = (history.best_epoch, history.best_epoch + 3)
    _assert_resumes_to_the_same_bytes(recipe, tmp_path, dies)


def test_an_interrupted_training_goes_on(tmp_path):
    recipe = Recipe(epochs=8, dropout=0.2)
    expected, _ = _train(recipe)
    path = tmp_path / "checkpoint.layerwise"

    def stop(event):
        if event.row["epoch"] == 4:
            raise KeyboardInterrupt

    network = build(design(3, [], 1, hidden_layer_sizes=(6,), dropout=0.2), seed=2)
    history = fit(
        network, mse, _rows(50, 0), _rows(20, 1), _sized(recipe), seed=4,
        checkpoint=Checkpoint(path), callbacks=[stop],
    )  # fmt: skip
    assert history.stopped == "interrupted"
    found, _ = _train(recipe, Checkpoint(path))
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_it_is_written_at_most_once_in_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 1e9)
    path = tmp_path / "checkpoint.layerwise"
    with pytest.raises(Killed):
        _train(Recipe(epochs=5), Checkpoint(path), die_after=4)
    plain = checkpoints.storage.unpack(path, "checkpoint")[1]["checkpoint"]
    assert plain["epoch"] == 1


def test_without_a_file_the_training_begins_at_the_beginning(tmp_path):
    network = build(design(3, [], 1))
    optimizer = torch.optim.SGD(network.parameters())
    state = Checkpoint(tmp_path / "none").load(network, optimizer, {})
    assert (state.epoch, state.step, state.rows, state.best) == (0, 0, [], {})


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.layerwise"
    with pytest.raises(Killed):
        _train(Recipe(epochs=5), Checkpoint(path), die_after=3)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="damaged"):
        _train(Recipe(epochs=5), Checkpoint(path))


def test_remove_leaves_no_file_and_may_be_called_twice(tmp_path):
    path = tmp_path / "checkpoint.layerwise"
    path.write_bytes(b"x")
    Checkpoint(path).remove()
    Checkpoint(path).remove()
    assert not path.exists()


def test_a_saved_state_is_a_copy(tmp_path):
    network = build(design(3, [], 1, hidden_layer_sizes=(2,)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = checkpoints.State(epoch=2, best={"a": torch.ones(2)}, rows=[{"loss": np.inf}])
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save(state, network, optimizer, {})
    weights = to_arrays(network)
    with torch.no_grad():
        network[0].weight.zero_()
    again = checkpoint.load(network, optimizer, {})
    assert np.array_equal(network[0].weight.detach().numpy(), weights["0.weight"])
    assert (again.epoch, again.rows, again.best["a"].tolist()) == (2, [{"loss": np.inf}], [1, 1])
