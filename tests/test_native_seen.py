"""Statistics that the core gathers while it trains, against hooks of torch."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from core_cases import Case
from layerwise.engine import native
from layerwise.engine.native import Native
from layerwise.engine.torch import batches, train_epoch
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
