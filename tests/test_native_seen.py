"""Statistics that the core gathers while it trains, against hooks of torch."""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest
import torch
from torch import nn

from core_cases import Case
from layerwise.engine import native
from layerwise.engine.native import Native
from layerwise.engine.seen import layer_names, parameter_names
from layerwise.engine.torch import NotFinite, Rows, Torch, batches, train_epoch
from layerwise.network.layers import InputLayer
from layerwise.training.losses import loss_of
from test_native import SLOWER, _order, _small

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="this installation has no core")


def _case() -> Case:
    one = _small()
    one.network[1] = nn.ReLU()
    one.network.append(nn.Hardtanh(-0.4, 0.3))
    return one


def _native(one: Case, optimizer=None) -> Native:
    optimizer = optimizer or torch.optim.SGD(one.network.parameters(), lr=0.1)
    return Native(one.network, one.loss, optimizer, one.rows)


@pytest.mark.parametrize("every", [1, 3])
def test_outputs_gradients_and_updates_are_those_of_torch(every):
    one, other = _case(), _case()
    made = [torch.optim.Adam(c.network.parameters(), lr=0.01) for c in (one, other)]
    engine = _native(one, made[0])
    engine.watch(every)
    outputs = {i: [] for i in range(len(other.network))}
    gradients, before, updates, step = [], [], [], 0

    def start(*_):
        gradients.append([p.grad.norm().item() ** 2 for p in other.network.parameters()])
        before.append([p.detach().clone() for p in other.network.parameters()])

    def stop(*_):
        nonlocal step
        moved = zip(other.network.parameters(), before[-1])
        updates.append([(p.detach() - old).norm().item() ** 2 for p, old in moved])
        step += 1

    for i, layer in enumerate(other.network):
        layer.register_forward_hook(lambda _, x, y, i=i: outputs[i].append(y.detach().clone()))
    made[1].register_step_pre_hook(start)
    made[1].register_step_post_hook(stop)
    for epoch in range(2):
        engine.train_epoch(one.rows, _order(50, epoch), 9, clip_norm=1e9)
        train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 9)
    n_steps = len(list(batches(50, 9)))
    looked = [i for i in range(2 * n_steps) if i % n_steps % every == 0]
    layers, parameters = engine.seen()
    for i, found in enumerate(layers):
        y = torch.cat([outputs[i][k] for k in looked])
        assert found.mean == pytest.approx(y.mean().item(), rel=1e-9, abs=1e-12)
        assert found.deviation == pytest.approx(y.std(correction=0).item(), rel=1e-9)
        assert found.zeros == (y == 0).double().mean().item()
        flat = {1: y == 0, 6: (y == -0.4) | (y == 0.3)}.get(i)
        if flat is not None:
            assert found.saturated == flat.double().mean().item() > 0
    for i, found in enumerate(parameters):
        mean = [sum(one[k][i] for k in looked) / len(looked) for one in (gradients, updates)]
        norms = [before[k][i].norm().item() ** 2 for k in looked]
        assert found.weight**2 == pytest.approx(sum(norms) / len(looked), rel=1e-9)
        assert found.gradient**2 == pytest.approx(mean[0], rel=1e-9)
        assert found.update**2 == pytest.approx(mean[1], rel=1e-9)
    assert engine.seen() == ([None] * 7, [None] * 8)  # all of it was handed over


def test_a_look_changes_nothing_and_none_is_the_default():
    told = []
    for every in (0, 2):
        one = _case()
        engine = _native(one)
        if every:
            engine.watch(every)
        losses = [engine.train_epoch(one.rows, _order(50, e), 8).loss for e in range(3)]
        told.append((losses, engine.predict(one.rows.X).tolist()))
        seen = engine.seen()
        assert (seen[0][0] is None) == (every == 0)
    assert told[0] == told[1]
    with pytest.raises(ValueError, match="at least 0"):
        engine.watch(-1)


def test_sigmoids_far_out_are_saturated():
    one = _small()
    one.network[1] = nn.Sigmoid()
    with torch.no_grad():
        one.network[0].bias.copy_(torch.tensor([50.0, -50.0] + [0.0] * 17))
    engine = _native(one)
    engine.watch(1)
    engine.train_epoch(one.rows, None, 50)
    assert engine.seen()[0][1].saturated == pytest.approx(2 / 19)


def _various(dtype: torch.dtype) -> tuple[nn.Sequential, Rows]:
    """Dead units, saturated ones, far inputs, a layer used twice, one in place, an embedding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again, inplace = nn.Tanh(), nn.ReLU(inplace=True)
        network = nn.Sequential(
            InputLayer(3, [4, 2], [3, 0]), nn.Linear(8, 21), nn.BatchNorm1d(21), again,
            nn.Sequential(nn.Linear(21, 18), inplace, nn.Linear(18, 40)), again, nn.PReLU(),
            nn.Linear(40, 5), nn.Softplus(), nn.Hardtanh(0.62, 0.7), nn.Linear(5, 2),
        ).to(dtype)  # fmt: skip
        X, y, w = torch.randn(70, 5), torch.randn(70, 2), torch.rand(70) + 0.5
        X[:, 3:] = torch.stack([torch.randint(5, (70,)), torch.randint(3, (70,))], 1)
        network[4][0].bias.data[:4] = -30.0
        network[4][2].bias.data[:3] = 8.0
    return network, Rows(*(one.to(dtype) for one in (X, y, w)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_engines_tell_the_same(dtype):
    told, names = [], []
    for kind in (Native, Torch):
        network, rows = _various(dtype)
        loss, optimizer = loss_of("huber"), torch.optim.SGD(network.parameters(), lr=0.5)
        engine = kind(network, loss, optimizer, *([rows] if kind is Native else []))
        engine.train_epoch(rows, _order(70, 0), 16)
        engine.watch(2)
        engine.train_epoch(rows, _order(70, 1), 16, clip_norm=0.1)
        engine.train_epoch(rows, _order(70, 2), 16, clip_norm=0.1)
        told.append(engine.seen())
        names.append((layer_names(network), parameter_names(network)))
        engine.watch(0)
        engine.train_epoch(rows, _order(70, 3), 16)
        assert engine.seen() == ([None] * 13, [None] * 14)
    assert names[0] == names[1]
    assert names[0][0] == ["0", "1", "2", "3", "4.0", "4.1", "4.2", "5", "6", "7", "8", "9", "10"]
    layers, _ = told[0]
    assert layers[5].dead == 4 / 18
    assert layers[7].beyond >= 3 / 40
    assert layers[3].saturated == 0 < layers[11].saturated
    for side in (0, 1):
        for found, expected in zip(told[0][side], told[1][side], strict=True):
            scale = max(1e-3, *(abs(one) for one in asdict(expected).values()))
            close = 1e-9 if dtype == torch.float64 else 1e-4
            for name, value in asdict(expected).items():
                assert getattr(found, name) == pytest.approx(value, rel=close, abs=close * scale)


def test_a_small_deviation_far_from_zero_is_not_lost():
    network = nn.Sequential(nn.Linear(5, 1), nn.Linear(1, 3))
    network[0].weight.data.mul_(0.01)
    network[0].bias.data.fill_(4e3)
    rows = Rows(torch.randn(400, 5), torch.zeros(400, 3))
    expected = network[0](rows.X).detach().double()
    engine = Native(network, loss_of("mse"), torch.optim.SGD(network.parameters(), 0.0), rows)
    engine.watch(1)
    engine.train_epoch(rows, None, 100)
    found = engine.seen()[0][0]
    assert found.deviation == pytest.approx(expected.std(correction=0).item(), rel=1e-2)
    assert found.mean == pytest.approx(expected.mean().item(), rel=1e-6)


def test_torchs_hooks_are_there_only_while_it_looks():
    network, rows = _various(torch.float32)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seen = []
    network[1].register_forward_hook(lambda module, *_: seen.append(len(module._forward_hooks)))
    engine = Torch(network, loss_of("mse"), optimizer)
    engine.watch(3)
    engine.train_epoch(rows, None, 10)
    assert seen == [2, 1, 1, 2, 1, 1, 2]
    rows.X[0, 0] = float("nan")
    seen.clear()
    engine.seen()
    with pytest.raises(NotFinite):
        engine.train_epoch(rows, None, 10)
    assert len(network[1]._forward_hooks) == 1
    assert engine.seen() == ([None] * 13, [None] * 14)  # the step was none
    with pytest.raises(ValueError, match="at least 0"):
        engine.watch(-1)


class _Branches(nn.Module):
    """No sequence: one layer called twice, one never, an output that is a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never = nn.ReLU(), nn.Linear(2, 2)
        self.first, self.memory, self.last = nn.Linear(4, 6), nn.GRU(6, 5), nn.Linear(5, 1)

    def forward(self, X):
        return self.last(self.twice(self.memory(self.twice(self.first(X)))[0]))


def test_torch_looks_at_any_module():
    network = _Branches().double()  # an update is a difference of weights, which are rounded
    network.first.requires_grad_(False)
    rows = Rows(torch.randn(30, 4).double(), torch.randn(30, 1).double())
    engine = Torch(network, loss_of("mse"), torch.optim.SGD(network.parameters(), lr=0.1))
    engine.watch(1)
    engine.train_epoch(rows, None, 15)
    layers, parameters = (dict(zip(names(network), found, strict=True)) for names, found in
                          zip((layer_names, parameter_names), engine.seen()))  # fmt: skip
    assert layers["never"] is None
    assert all(layers[name] for name in ("twice", "first", "memory", "last"))
    assert 0 < layers["twice"].zeros == layers["twice"].saturated < 1
    assert parameters["first.weight"].gradient == parameters["first.weight"].update == 0
    assert parameters["last.weight"].update == pytest.approx(
        0.1 * parameters["last.weight"].gradient
    )


def test_a_look_now_and_then_costs_little():
    one = _small(torch.float32, n=2000)
    engines = [_native(one), _native(one)]
    engines[1].watch(20)
    best = [float("inf")] * 2
    for _ in range(15):
        for i, engine in enumerate(engines):
            start = time.process_time()
            engine.train_epoch(one.rows, None, 16)
            best[i] = min(best[i], time.process_time() - start)
    assert best[1] < 1.3 * best[0] * SLOWER  # 5 % on a quiet machine
