"""One epoch: by hand, and against the plain loop over a DataLoader."""

from __future__ import annotations

import copy
import threading
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from layerwise.engine.loss import bce, cross_entropy, mse
from layerwise.engine.torch import (
    NotFinite,
    Rows,
    batches,
    cpu_threads,
    measure,
    predict,
    train_epoch,
)
from layerwise.network.build import build
from layerwise.network.plan import design


def _network(**changes):
    settings = {"hidden_layer_sizes": (6,), "activation": "tanh", **changes}
    return build(design(3, [], 2, **settings), seed=1, dtype=torch.float64)


def _rows(n=50, weights=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    w = torch.rand(n, dtype=torch.float64, generator=generator) + 0.5 if weights else None
    return Rows(X, y, w)


def _order(n, seed=5):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def test_a_2_2_1_network_worked_by_hand():
    network = build(design(2, [], 1, hidden_layer_sizes=(2,)), dtype=torch.float64)
    network.load_state_dict({
        "0.weight": torch.tensor([[1.0, 2.0], [-3.0, 1.0]]), "0.bias": torch.tensor([0.5, 0.0]),
        "2.weight": torch.tensor([[2.0, -1.0]]), "2.bias": torch.tensor([0.25]),
    })  # fmt: skip
    # Forward, x = (1, 2): z = (1*1 + 2*2 + 0.5, -3*1 + 1*2) = (5.5, -1), h = relu(z) = (5.5, 0),
    # output = 2*5.5 - 1*0 + 0.25 = 11.25.  Loss, y = 10: (11.25 - 10)^2 = 1.5625.
    rows = Rows(torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[10.0]]).double())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    epoch = train_epoch(network, mse, optimizer, rows, torch.tensor([0]), 1)
    assert epoch.loss == 1.5625
    # Backward: dL/doutput = 2 * 1.25 = 2.5; dL/dW2 = 2.5 h = (13.75, 0), dL/db2 = 2.5;
    # dL/dh = 2.5 * (2, -1) = (5, -2.5), dL/dz = (5, 0) since z2 < 0;
    # dL/dW1 = dL/dz x^T = ((5, 10), (0, 0)), dL/db1 = (5, 0).
    gradients = {name: p.grad.tolist() for name, p in network.named_parameters()}
    assert gradients == {
        "0.weight": [[5.0, 10.0], [0.0, 0.0]], "0.bias": [5.0, 0.0],
        "2.weight": [[13.75, 0.0]], "2.bias": [2.5],
    }  # fmt: skip
    # Step: each weight less 0.01 of its gradient.
    expected = {
        "0.weight": [[0.95, 1.9], [-3.0, 1.0]], "0.bias": [0.45, 0.0],
        "2.weight": [[1.8625, -1.0]], "2.bias": [0.225],
    }  # fmt: skip
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, torch.tensor(expected[name]).double())


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}])
@pytest.mark.parametrize("weights", [False, True])
def test_an_epoch_is_the_plain_loop_over_a_data_loader(name, clip, weights):
    rows, network = _rows(50, weights), _network(norm="batch")
    reference = copy.deepcopy(network)
    optimizer = OPTIMIZERS[name](network.parameters())
    plain = OPTIMIZERS[name](reference.parameters())
    w = torch.ones(50, dtype=torch.float64) if rows.w is None else rows.w
    for seed in (1, 2):
        order = _order(50, seed)
        epoch = train_epoch(network, mse, optimizer, rows, order, 16, **clip)
        data = DataLoader(TensorDataset(rows.X[order], rows.y[order], w[order]), batch_size=16)
        total = 0.0
        reference.train()
        for X, y, wb in data:
            plain.zero_grad()
            loss = (wb * ((reference(X) - y) ** 2).mean(dim=1)).mean()
            loss.backward()
            if "clip_norm" in clip:
                nn.utils.clip_grad_norm_(reference.parameters(), clip["clip_norm"])
            if "clip_value" in clip:
                nn.utils.clip_grad_value_(reference.parameters(), clip["clip_value"])
            plain.step()
            total += loss.item() * len(X)
        assert epoch.steps == len(data) == 4
        assert epoch.loss == pytest.approx(total / 50, rel=1e-12)
    for found, expected in zip(network.state_dict().values(), reference.state_dict().values()):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("limit", [{"clip_norm": 1e-3}, {"clip_value": 1e-3}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_clipped_gradients_bound_the_step(limit, kind):
    network = _network()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    options = {"max_iter": 1} if kind is torch.optim.LBFGS else {}
    optimizer = kind(network.parameters(), lr=1.0, **options)
    train_epoch(network, mse, optimizer, _rows(20), _order(20), 20, **limit)
    step = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    assert 0 < step.abs().max() <= 1e-3 * (1 + 1e-6)
    if "clip_norm" in limit:
        assert step.norm() <= 1e-3 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (10, 4, [(0, 4), (4, 8), (8, 10)]),
        (9, 4, [(0, 4), (4, 9)]),  # one row is left over and joins the batch before
        (8, 4, [(0, 4), (4, 8)]),
        (3, 5, [(0, 3)]),
        (1, 5, [(0, 1)]),
        (2, 1, [(0, 2)]),
    ],
)
def test_batches_take_every_row_once_and_leave_none_alone(n, size, expected):
    assert list(batches(n, size)) == expected
    assert _rows(n).n_steps(size) == len(expected)


def test_every_row_trains_when_the_last_one_is_alone():
    network, rows, order, seen = _network(norm="batch"), _rows(9), _order(9), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    train_epoch(network, mse, optimizer, rows, order, 4)  # a batch of one would raise
    assert [len(batch) for batch in seen] == [4, 5]
    assert torch.equal(torch.cat(seen), rows.X[order])


def test_the_rate_is_set_before_each_step():
    network, rows = _network(), _rows(10)
    optimizer = torch.optim.SGD(network.parameters(), lr=9.0)
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    train_epoch(network, mse, optimizer, rows, _order(10), 3, rates=lambda step: [0.1 / (step + 1)])
    assert used == [0.1, 0.05, 0.1 / 3]


def test_lbfgs_finds_the_least_squares_solution():
    rows = _rows(40)
    network = build(design(3, [], 2, hidden_layer_sizes=()), dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=50, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )
    epoch = train_epoch(network, mse, optimizer, rows, torch.arange(40), 40)
    ones = torch.ones(40, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([rows.X, ones], 1), rows.y).solution
    torch.testing.assert_close(network[0].weight.T, solution[:3], rtol=1e-5, atol=1e-6)
    assert epoch.steps == 1


def test_no_step_begins_after_the_deadline_but_the_first():
    network, rows = _network(), _rows(10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    past = time.monotonic() - 1
    epoch = train_epoch(network, mse, optimizer, rows, _order(10), 2, deadline=past)
    assert (epoch.steps, epoch.complete) == (1, False)
    assert epoch.loss > 0
    epoch = train_epoch(network, mse, optimizer, rows, _order(10), 2, deadline=past + 60)
    assert (epoch.steps, epoch.complete) == (5, True)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_cell_stops_the_step_before_it_touches_the_weights(kind, value):
    network, rows = _network(activation="relu"), _rows(10)
    order = torch.arange(10)
    train_epoch(network, mse, kind(network.parameters(), lr=0.01), rows, order, 3)
    rows.X[7, 1] = value
    optimizer = kind(network.parameters(), lr=0.01)
    after_two = copy.deepcopy(network)
    train_epoch(
        after_two, mse, kind(after_two.parameters(), lr=0.01),
        Rows(rows.X[:6], rows.y[:6]), torch.arange(6), 3,
    )  # fmt: skip
    with pytest.raises(NotFinite) as caught:
        train_epoch(network, mse, optimizer, rows, order, 3)
    assert caught.value.step == 2
    torch.testing.assert_close(caught.value.X, rows.X[6:], equal_nan=True)
    assert torch.equal(caught.value.X[1].isfinite(), torch.tensor([True, False, True]))
    for found, expected in zip(network.parameters(), after_two.parameters()):
        assert torch.equal(found, expected)


def test_training_works_inside_no_grad_and_leaves_it_on():
    network = _network()
    before = network[0].weight.detach().clone()
    with torch.no_grad():
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        train_epoch(network, mse, optimizer, _rows(10), _order(10), 5)
        assert not torch.is_grad_enabled()
    assert not torch.equal(network[0].weight, before)


def test_predictions_are_made_in_evaluation_mode_and_in_any_number():
    network = _network(dropout=0.5, norm="batch")
    X = _rows(30).X
    network.eval()
    with torch.no_grad():
        expected = network(X)
    network.train()
    torch.testing.assert_close(predict(network, X, chunk=7), expected)
    assert predict(network, X[:0]).shape == (0, 2)
    assert not predict(network, X).requires_grad


def test_a_larger_case_of_each_loss_falls():
    X = _rows(60).X
    cases = [
        (bce, (X[:, :2] > 0).double()),
        (cross_entropy, (X[:, 0] > 0).long()),
        (mse, X[:, :2] ** 2),
    ]
    for loss, y in cases:
        network = _network()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        losses = [
            train_epoch(network, loss, optimizer, Rows(X, y), _order(60, i), 16).loss
            for i in range(8)
        ]
        assert losses[-1] < 0.9 * losses[0]


# ---------------------------------------------------------------- threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_thread_count_is_put_back_after_success_error_and_nesting():
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
        with cpu_threads(3):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), cpu_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_each_python_thread_gets_its_count_back_in_whatever_order_they_leave():
    inside, leave, seen = threading.Event(), threading.Event(), {}

    def other():
        with cpu_threads(1):
            inside.set()
            leave.wait(10)
            seen["inside, after the main thread left"] = torch.get_num_threads()
        seen["after"] = torch.get_num_threads()

    thread = threading.Thread(target=other)
    with cpu_threads(1):
        thread.start()
        assert inside.wait(10)
    assert torch.get_num_threads() == 2
    leave.set()
    thread.join()
    assert seen == {"inside, after the main thread left": 1, "after": 2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_loss_of_many_rows_is_the_weighted_mean(size, monkeypatch):
    monkeypatch.setattr("layerwise.engine.torch.CHUNK", size)
    network, rows = _network(), _rows(weights=True)
    errors = ((predict(network, rows.X) - rows.y) ** 2).mean(dim=1)
    expected = float((errors * rows.w).sum() / rows.w.sum())
    assert measure(network, mse, rows, 4)[0] == pytest.approx(expected, rel=1e-13)
    alike = Rows(rows.X, rows.y)
    assert measure(network, mse, alike, 4)[0] == pytest.approx(float(errors.mean()), rel=1e-13)
