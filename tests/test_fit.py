"""The training: the best epoch is kept, every cause ends it cleanly, and it repeats to the byte."""

from __future__ import annotations

import math
import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch

from layerwise.engine.loss import bce, mse
from layerwise.engine.torch import Rows, measure, predict
from layerwise.errors import SettingError, TrainingError
from layerwise.network.build import build, to_arrays
from layerwise.network.plan import design
from layerwise.training.fit import fit
from layerwise.training.recipe import SETTINGS, Recipe
from layerwise.training.schedule import rate_at


def _rows(n=60, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 3, generator=generator, dtype=dtype)
    return Rows(X, (X[:, :1] * X[:, 1:2]) + torch.randn(n, 1, generator=generator, dtype=dtype))


def _network(dropout=0.0, norm=None, dtype=torch.float32, sizes=(8,)):
    return build(
        design(3, [], 1, hidden_layer_sizes=sizes, dropout=dropout, norm=norm), seed=1, dtype=dtype
    )


def _fit(network=None, train=None, valid="own", **options):
    network = network or _network()
    settings = {k: options.pop(k) for k in set(options) & set(SETTINGS)}
    recipe = Recipe(**{"epochs": 6, "lr": 0.01, "batch_size": 16, **settings})
    valid = _rows(30, 9) if isinstance(valid, str) else valid
    options = {"seed": 3, **options}
    history = fit(network, mse, train or _rows(), valid, recipe, **options)
    return network, history


# ---------------------------------------------------------------- the best epoch


def test_the_weights_are_those_of_the_best_epoch():
    kept = {}
    network = _network()

    def keep(event):
        kept[event.row["epoch"]] = to_arrays(network)

    _, history = _fit(network, lr=0.1, optimizer="sgd", epochs=12, patience=None, callbacks=[keep])
    losses = history["valid_loss"]
    assert history.best_epoch == 1 + losses.index(min(losses))
    assert history.best_epoch < 12  # or the test shows nothing
    for name, array in to_arrays(network).items():
        assert np.array_equal(array, kept[history.best_epoch][name])
    valid = _rows(30, 9)
    assert measure(network, mse, valid, 8)[0] == pytest.approx(min(losses), rel=1e-5)
    assert not network.training


def test_the_running_statistics_are_those_of_the_best_epoch_too():
    network, history = _fit(_network(norm="batch"), lr=0.1, optimizer="sgd", epochs=12)
    valid = _rows(30, 9)
    found = measure(network, mse, valid, 8)[0]
    assert found == pytest.approx(history.best["valid_loss"], rel=1e-5)


def test_without_validation_rows_the_training_loss_decides_and_nothing_stops_early():
    train = _rows()
    network, history = _fit(train=train, valid=None, lr=0.1, optimizer="sgd", epochs=15, patience=1)
    assert len(history) == 15
    assert "valid_loss" not in history[0]
    assert history.best["loss"] == min(history["loss"])
    assert measure(network, mse, train, 8)[0] == pytest.approx(min(history["loss"]), rel=1e-5)


def test_patience_ends_it_so_many_epochs_after_the_best():
    _, history = _fit(lr=0.1, optimizer="sgd", epochs=300, patience=4)
    assert history.stopped == "patience"
    assert len(history) == history.best_epoch + 4


@pytest.mark.parametrize("patience", [0, None])
def test_no_patience_never_stops_early(patience):
    _, history = _fit(lr=0.1, optimizer="sgd", epochs=30, patience=patience)
    assert (len(history), history.stopped) == (30, "epochs")


def test_a_gain_below_min_delta_is_none():
    _, history = _fit(min_delta=1e3, patience=3, epochs=50)
    assert (history.best_epoch, len(history), history.stopped) == (1, 4, "patience")


@pytest.mark.parametrize("higher", [False, True])
def test_any_metric_can_decide_in_its_own_direction(higher):
    values = iter([3.0, 5.0, 1.0, 4.0, 5.0, 1.0])
    _, history = _fit(
        monitor="metric", score=lambda *_: {"metric": next(values)}, higher_is_better=higher
    )
    assert history.best_epoch == (2 if higher else 3)  # of equals the first
    assert history["metric"] == [3.0, 5.0, 1.0, 4.0, 5.0, 1.0]


def test_monitoring_a_metric_needs_validation_rows_before_anything_is_trained():
    network = _network()
    before = to_arrays(network)
    with pytest.raises(SettingError, match="monitor 'accuracy' needs validation rows"):
        _fit(network, valid=None, monitor="accuracy")
    with pytest.raises(SettingError, match="needs validation rows"):
        _fit(network, monitor="accuracy")
    assert all(np.array_equal(a, before[k]) for k, a in to_arrays(network).items())


def test_a_metric_that_is_not_there_is_refused_in_words():
    with pytest.raises(SettingError, match="'roc_auc' cannot be measured"):
        _fit(monitor="roc_auc", score=lambda *_: {"accuracy": 1.0})


# ---------------------------------------------------------------- history and callbacks


def test_each_epoch_has_its_row_with_the_rate_of_its_last_step():
    _, history = _fit(schedule="cosine", warmup=0.1, epochs=5)
    assert history["epoch"] == [1, 2, 3, 4, 5]
    steps = 4  # 60 rows in batches of 16
    expected = [
        rate_at(steps * e - 1, steps * 5, lr=0.01, schedule="cosine", warmup=0.1)
        for e in range(1, 6)
    ]
    assert history["lr"] == expected
    assert history["seconds"] == sorted(history["seconds"])
    assert set(history[0]) == {"epoch", "train_loss", "valid_loss", "lr", "seconds"}


def test_callbacks_are_told_each_epoch_and_true_ends_it():
    events = []

    def stop(event):
        events.append(event)
        return event.row["epoch"] == 3

    _, history = _fit(callbacks=[stop, lambda event: None])
    assert (len(history), history.stopped) == (3, "callback")
    assert [e.row["epoch"] for e in events] == [1, 2, 3]
    assert all(e.epochs == 6 and e.rows_per_s > 0 and e.elapsed_s >= 0 for e in events)
    assert events[-1].best_epoch == history.best_epoch


def test_an_answer_that_is_merely_truthy_does_not_stop():
    assert len(_fit(callbacks=[lambda event: "yes", lambda event: 1])[1]) == 6


def test_the_weights_count_in_the_loss_that_decides():
    valid = _rows(30, 9)
    w = torch.rand(30, generator=torch.Generator().manual_seed(0)) * 4
    network, history = _fit(valid=Rows(valid.X, valid.y, w))
    rows = ((predict(network, valid.X) - valid.y) ** 2)[:, 0].numpy().astype(np.float64)
    expected = np.average(rows, weights=w.numpy())
    assert history.best["valid_loss"] == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- every end is clean


def test_a_time_limit_keeps_the_best():
    def slowly(event):
        time.sleep(0.05)

    valid = _rows(30, 9)
    network, history = _fit(time_limit=0.12, epochs=10**6, callbacks=[slowly])
    assert history.stopped == "time limit"
    assert 1 <= len(history) < 100
    found = measure(network, mse, valid, 8)[0]
    assert found == pytest.approx(history.best["valid_loss"], rel=1e-5)
    assert history.best["valid_loss"] == min(history["valid_loss"])


def test_a_time_limit_within_the_first_epoch_still_gives_a_network():
    network, history = _fit(time_limit=1e-9, batch_size=1)
    assert (len(history), history.stopped, history.best_epoch) == (1, "time limit", 1)
    assert history[0]["train_loss"] > 0
    assert not network.training


def test_an_interrupt_keeps_the_best():
    network = _network()
    kept = {}

    def interrupt(event):
        kept[event.row["epoch"]] = to_arrays(network)
        if event.row["epoch"] == 4:
            raise KeyboardInterrupt

    _, history = _fit(network, callbacks=[interrupt])
    assert (len(history), history.stopped) == (4, "interrupted")
    for name, array in to_arrays(network).items():
        assert np.array_equal(array, kept[history.best_epoch][name])


def test_an_interrupt_within_an_epoch_keeps_the_best_before_it():
    network, steps = _network(), []

    def interrupt(module, inputs):
        if module.training:
            steps.append(1)
            if len(steps) == 10:  # the second step of epoch 3, at 4 steps each
                raise KeyboardInterrupt

    network.register_forward_pre_hook(interrupt)
    _, history = _fit(network)
    assert (len(history), history.stopped) == (2, "interrupted")
    valid = _rows(30, 9)
    found = measure(network, mse, valid, 8)[0]
    assert found == history.best["valid_loss"]


def test_an_interrupt_before_the_first_epoch_ended_is_passed_on():
    network = _network()

    def interrupt(*_):
        raise KeyboardInterrupt

    network.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        _fit(network)


def test_an_error_of_a_callback_is_passed_on_and_nothing_is_left_switched():
    network = _network(dropout=0.3)
    threads = torch.get_num_threads()

    def fail(event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _fit(network, callbacks=[fail])
    assert network[2].generator is None
    assert torch.get_num_threads() == threads


# ---------------------------------------------------------------- NaN


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_cell_is_named_with_column_and_row(value):
    train = _rows()
    train.X[17, 1] = value
    with pytest.raises(TrainingError, match=f"row 18 of the training rows has {value} in column "
                                            "'size'"):  # fmt: skip
        _fit(train=train, feature_names=["age", "size", "town"])
    with pytest.raises(TrainingError, match="in column 'number 1'"):
        _fit(train=train)


def test_a_bad_cell_that_only_spoils_the_weights_is_named_too():
    train = _rows()
    train.X[17, 1] = float("inf")  # tanh makes 1 of it: the loss is finite, the gradient is not
    network = build(design(3, [], 1, hidden_layer_sizes=(4,), activation="tanh"))
    with pytest.raises(TrainingError, match=r"row 18 .* column 'number 1'"):
        _fit(network, train=train)


def test_a_bad_target_is_named_with_its_row():
    train = _rows()
    train.y[5] = float("nan")
    with pytest.raises(
        TrainingError, match=r"epoch 1, step .* target of row 6 of the training rows"
    ):
        _fit(train=train)


def test_weights_that_blow_up_in_the_first_epoch_name_their_layer_and_the_mend():
    with pytest.raises(TrainingError, match=r"layer '[02]' \(Linear\).*Lower the learning rate"):
        _fit(optimizer="sgd", lr=1e30)


def test_an_epoch_that_ends_in_nan_is_never_the_best():
    # One step an epoch: the first loss is finite, the weights after it are not, and no step looks.
    with pytest.raises(TrainingError):
        _fit(optimizer="sgd", lr=1e38, batch_size=60)
    with pytest.raises(
        TrainingError, match=r"no epoch ended with a finite value: loss is (nan|inf)"
    ):
        _fit(optimizer="sgd", lr=1e38, batch_size=60, epochs=1)
    with pytest.raises(TrainingError):
        _fit(optimizer="sgd", lr=1e38, batch_size=60, valid=None)


def test_later_the_best_epoch_is_kept_and_the_cause_is_told():
    network = _network()

    def blow_up(event):
        if event.row["epoch"] == 3:
            with torch.no_grad():
                network[0].weight[0, 0] = float("nan")

    kept = {}
    keep = lambda event: kept.update({event.row["epoch"]: to_arrays(network)})  # noqa: E731
    _, history = _fit(network, callbacks=[keep, blow_up])
    assert history.stopped.startswith("diverged: the loss is not finite at epoch 4, step 1: the "
                                      "weight of layer '0' (Linear) blew up.")  # fmt: skip
    assert len(history) == 3
    for name, array in to_arrays(network).items():
        assert np.array_equal(array, kept[history.best_epoch][name])


def test_outputs_that_overflow_name_the_layer():
    network = _network()

    def enlarge(event):
        with torch.no_grad():
            network[2].weight.fill_(1e38)
            network[0].bias.fill_(1e3)

    _, history = _fit(network, callbacks=[enlarge])
    assert "the output of layer '2' (Linear) is not finite" in history.stopped


# ---------------------------------------------------------------- all the same to the byte


def _trained(_=None):
    """The weights and losses of a training with everything random in it, as bytes."""
    network, history = _fit(_network(dropout=0.3, norm="batch", sizes=(40, 40)), epochs=3)
    losses = np.array(history["valid_loss"]).tobytes()
    return b"".join(a.tobytes() for a in to_arrays(network).values()) + losses


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others():
    assert _trained() == _trained()
    assert (
        to_arrays(_fit(seed=4)[0])["0.weight"].tobytes()
        != to_arrays(_fit(seed=5)[0])["0.weight"].tobytes()
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_does_not_matter_and_is_put_back(threads):
    expected, before = _trained(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert _trained() == expected
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_several_trainings_at_once_in_python_threads_give_the_same_bytes():
    expected, before = _trained(), torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(_trained, range(8))) == {expected}
    assert torch.get_num_threads() == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_gives_the_same_bytes():
    expected = _trained()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(_trained, range(2)).get(timeout=60)
    assert set(found) == {expected}


def test_joblib_threads_give_the_same_bytes():
    found = joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(_trained)() for _ in range(3)
    )
    assert set(found) == {_trained()}


def test_the_global_state_is_left_as_it_was():
    before = (
        torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(),  # noqa: NPY002
        torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    _trained()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == before[3]
    assert torch.get_default_dtype() == before[4]
    assert torch.is_grad_enabled() == before[5]
    assert torch.are_deterministic_algorithms_enabled() == before[6]


def test_the_global_state_does_not_matter():
    expected = _trained()
    with torch.random.fork_rng():
        torch.manual_seed(99)
        torch.set_default_dtype(torch.float64)
        try:
            assert _trained() == expected
        finally:
            torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- any module, any optimizer


def test_any_module_trains_and_an_optimizer_of_ones_own():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    rows = _rows()
    rows = Rows(rows.X, (rows.y > 0).float())
    history = fit(
        network, bce, rows, None, Recipe(epochs=5, lr=0.05, batch_size=16), optimizer=optimizer
    )
    assert history[-1]["loss"] < history[0]["loss"]
    assert math.isfinite(history[-1]["loss"])


def test_full_batch_weights_train_as_repeated_rows():
    rows = _rows(40, dtype=torch.float64)
    w = torch.randint(1, 4, (40,), generator=torch.Generator().manual_seed(0))
    weighted = _network(dtype=torch.float64)
    repeated = _network(dtype=torch.float64)
    mean = w / w.double().mean()
    recipe = Recipe(epochs=30, lr=0.02)
    fit(weighted, mse, Rows(rows.X, rows.y, mean), None, recipe)
    X, y = rows.X.repeat_interleave(w, 0), rows.y.repeat_interleave(w, 0)
    fit(repeated, mse, Rows(X, y), None, recipe)
    for found, expected in zip(weighted.parameters(), repeated.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
