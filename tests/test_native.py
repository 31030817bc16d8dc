"""The native core: against autograd, torch's optimizers, finite differences, and misuse.

``LAYERWISE_PLANS=5000`` looks at more random plans than the 500 of a usual run.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from core_cases import ACTIVATIONS, LOSSES, NORMS, Case, case, copied, distance
from layerwise.engine import native
from layerwise.engine.native import Native
from layerwise.engine.plan import Refused
from layerwise.engine.torch import NotFinite, Rows, batches, measure, predict, train_epoch
from layerwise.network.layers import Dropout, InputLayer, set_dropout_generator
from layerwise.training.losses import loss_of

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="this installation has no core")

SETS = native._core.instruction_sets() if native.AVAILABLE else []
PLANS = int(os.environ.get("LAYERWISE_PLANS", 500))
BLOCKS = 10
SLOWER = float(os.environ.get("LAYERWISE_SLOWER", 1))  # a core that watches itself may take longer
EXACT = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _native(one: Case, optimizer=None, **options) -> Native:
    optimizer = optimizer or torch.optim.SGD(one.network.parameters(), lr=0.1)
    return Native(one.network, one.loss, optimizer, one.rows, **options)


def _limit(one: Case, expected: list[torch.Tensor]) -> float:
    """How close gradients of this plan can be known.

    A sum of numbers that cancel, such as behind a normalised column that hardly varies, loses
    digits in whatever order it is taken. How many, torch's own float32 says beside its float64.
    """
    in_single, in_double = one.reference(torch.float32)[1], one.reference(torch.float64)[1]
    lost = distance(in_single, in_double)
    if one.dtype == torch.float64:
        lost *= torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    return max(EXACT[one.dtype], 4 * lost)


def _gradient_error(one: Case, engine: Native) -> tuple[float, bool]:
    """How far loss and gradients are from autograd's, in units of what is allowed."""
    X, y, w = one.rows.X, one.rows.y, one.rows.w
    engine.gradients(Rows(X.flip(0), y.flip(0), w))  # nothing of another batch may be left
    value, gradients = engine.gradients(one.rows)
    expected, reference = one.reference(torch.float64)
    if not math.isfinite(expected):
        return (float("inf") if math.isfinite(value) else 0.0), True
    apart = max(distance(gradients, reference),
                abs(value - expected) / max(abs(expected), 1e-3))  # fmt: skip
    if apart <= EXACT[one.dtype]:
        return apart / EXACT[one.dtype], True
    return apart / _limit(one, reference), False


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_plans_have_the_gradients_of_autograd(block):
    easy = []
    seeds = range(block * PLANS // BLOCKS, (block + 1) * PLANS // BLOCKS)
    for seed in seeds:
        one = case(seed)
        error, exact = _gradient_error(one, _native(copied(one), instruction_set=_set(seed)))
        assert error <= 1, f"plan {seed}: {one}"
        easy.append(exact)
    assert np.mean(easy) > 0.9  # what loses digits in torch too is the exception


def _set(seed: int) -> str:
    return SETS[seed % len(SETS)]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_the_gradients_of_autograd(loss):
    for seed in range(6):
        one = case(1000 + seed, loss=loss)
        error, _ = _gradient_error(one, _native(copied(one), instruction_set=_set(seed)))
        assert error <= 1, f"plan {seed}: {one}"


EDGES = (0.0, -0.0, 1e-30, 1e-9, -1e-9, 1e-4, -1e-4, -0.5, 0.5, 0.8, 3.0, -3.0, 6.0, 6.1, 9.0,
         20.0, -20.0, 88.0, -88.0, 89.0, -103.0, 700.0, -700.0, 710.0, 1e4, -1e4, 1e30,
         -1e30)  # fmt: skip


def _through(module: nn.Module, x: torch.Tensor, instruction_set: str):
    """What the core makes of x, (1, k), by an elementwise map, and the map's slope there."""
    k = x.shape[1]
    first = nn.Linear(k, k).to(x.dtype)
    first.weight.data.zero_()
    network = nn.Sequential(first, module)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    rows = Rows(torch.zeros(1, k, dtype=x.dtype), torch.zeros(1, k, dtype=x.dtype))
    first.bias.data.copy_(x[0])  # Linear passes its bias on to the last digit
    engine = Native(network, loss_of("mse"), optimizer, rows, instruction_set=instruction_set)
    y = engine.predict(rows.X)
    # of the mean of (y - (y - k/2))^2 each output's slope is 1
    _, gradients = engine.gradients(Rows(rows.X, (y - k / 2).to(x.dtype)))
    return y, gradients[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_torchs_at_its_edges(name, instruction_set, dtype):
    eps = torch.finfo(dtype).eps
    for value in EDGES:
        x = torch.full((1, 1), value, dtype=dtype, requires_grad=True)
        expected = ACTIVATIONS[name]().to(dtype)(x)
        (slope,) = torch.autograd.grad(expected.sum(), x)
        y, found = _through(ACTIVATIONS[name]().to(dtype), x.detach(), instruction_set)
        # torch takes 1 + tanh for GELU, which cancels to a unit in the last place of 1
        atol = eps * abs(value) if "GELU" in name else 1e-30
        torch.testing.assert_close(y, expected.detach(), rtol=6 * eps, atol=atol)
        if abs(expected.item()) < 100 and slope.isfinite().all():
            # the outer slope is 1 only where y - 1/2 is exact enough
            rtol = 20 * eps * (1 + abs(float(y)))
            torch.testing.assert_close(found, slope[0], rtol=rtol, atol=4 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*ACTIVATIONS, *NORMS])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinities_pass_as_in_torch(name, bad, dtype):
    module = (ACTIVATIONS[name]() if name in ACTIVATIONS else NORMS[name](3)).to(dtype)
    network = nn.Sequential(nn.Linear(3, 3).to(dtype), module)
    network[0].weight.data.copy_(torch.eye(3))
    network[0].bias.data.copy_(torch.tensor([0.5, bad, -0.5]))
    X = torch.randn(5, 3, dtype=dtype)
    rows = Rows(X, torch.zeros(5, 3, dtype=dtype))
    engine = Native(network, loss_of("mse"), torch.optim.SGD(network.parameters(), 0.1), rows)
    found = engine.predict(X)
    expected = network.eval().double()(X.double()).to(dtype)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_finite_differences_are_a_second_witness(seed):
    one = case(seed, smooth=True)
    engine = _native(one)
    value, gradients = engine.gradients(one.rows)
    if not math.isfinite(value):
        pytest.skip("all weights of this batch are 0")
    largest = max(float(g.abs().max()) for g in gradients)
    draw, h = np.random.default_rng(seed), 1e-5
    for _ in range(8):
        i = draw.integers(len(gradients))
        p = one.network.get_parameter(list(dict(one.network.named_parameters()))[i])
        flat, at = p.data.view(-1), draw.integers(p.numel())
        if isinstance(one.network[0], InputLayer) and p.dim() == 2 and at < p.shape[1]:
            continue  # an embedding's row of no level does not learn
        before, told = flat[at].item(), []
        for move in (h, -h):
            flat[at] = before + move
            engine.load()
            told.append(engine.gradients(one.rows)[0])
        flat[at] = before
        slope = (told[0] - told[1]) / (2 * h)
        assert abs(slope - float(gradients[i].view(-1)[at])) <= 1e-5 * max(largest, 1e-2), one


def test_every_instruction_set_gives_the_same_answers():
    for seed in range(40):
        one = case(2000 + seed)
        told = [_native(copied(one), instruction_set=name).predict(one.rows.X) for name in SETS]
        for other in told[1:]:
            atol = 1e-4 * float(told[0].abs().max())
            torch.testing.assert_close(other, told[0], rtol=1e-4, atol=atol)
    with pytest.raises(ValueError, match="has no pdp11"):
        _native(one, instruction_set="pdp11")


# ---------------------------------------------------------------- steps

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "weight decay": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.4),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "maximize": lambda p: torch.optim.SGD(
        p, lr=1e-4, momentum=0.5, weight_decay=0.2, maximize=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam with decay": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    "Adam, decoupled": lambda p: torch.optim.Adam(
        p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.5), amsgrad=True),
    "Adam, maximize": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1, maximize=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3, eps=1e-6),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "NAdam with decay": lambda p: torch.optim.NAdam(
        p, lr=0.01, weight_decay=0.1, momentum_decay=0.1),
    "NAdam, decoupled": lambda p: torch.optim.NAdam(
        p, lr=1e-3, weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.005, alpha=0.9),
    "RMSprop, all of it": lambda p: torch.optim.RMSprop(
        p, lr=0.002, momentum=0.7, centered=True, weight_decay=0.1, eps=1e-4),
    "RMSprop, maximize": lambda p: torch.optim.RMSprop(p, lr=1e-4, maximize=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Adagrad, all of it": lambda p: torch.optim.Adagrad(
        p, lr=0.05, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-6),
    "Adagrad, maximize": lambda p: torch.optim.Adagrad(p, lr=1e-3, maximize=True),
}  # fmt: skip


def _small(dtype=torch.float64, n=50, seed=0, weights=False, loss="mse") -> Case:
    """A smooth network 5-19-7-3 and its rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(5, 19), nn.Tanh(), nn.Linear(19, 7), nn.LayerNorm(7), nn.SiLU(),
            nn.Linear(7, 3),
        ).to(dtype)  # fmt: skip
        X, w = torch.randn(n, 5, dtype=dtype), torch.rand(n, dtype=dtype) + 0.5
        y = torch.stack([X[:, 0].sin(), X[:, 1] * X[:, 2], X[:, 3]], 1) + 0.1 * torch.randn(n, 3)
    y = y.to(dtype) if loss == "mse" else (X[:, 0] > 0).long()
    return Case(network, loss, Rows(X, y, w if weights else None))


def _order(n: int, seed: int) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _groups(network: nn.Module) -> list[dict]:
    """Matrices decay, vectors do not."""
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    return [{"params": others, "weight_decay": 0.0}, {"params": matrices}]


def _one_by_one(network: nn.Module) -> list[dict]:
    """Each parameter a group of its own, next to one that decays otherwise."""
    return [
        {"params": [p]} | ({} if p.dim() > 1 else {"weight_decay": 0.3})
        for p in network.parameters()
    ]


def _assert_alike(found: Case, expected: Case, rtol: float) -> None:
    for (name, a), b in zip(
        found.network.state_dict().items(), expected.network.state_dict().values()
    ):
        apart = float((a.double() - b.double()).abs().max())
        assert apart <= rtol * max(1e-3, float(b.double().abs().max())), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("groups", [nn.Module.parameters, _groups, _one_by_one])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_of_every_optimizer(name, groups, dtype):
    one, other = _small(dtype), _small(dtype)
    made = [OPTIMIZERS[name](groups(c.network)) for c in (one, other)]
    for optimizer in made:
        optimizer.param_groups[-1]["lr"] *= 1 if groups is _one_by_one else 0.4
    engine = _native(one, made[0])
    for epoch in range(20):
        order = _order(50, epoch)
        engine.train_epoch(one.rows, order, 10)
        train_epoch(other.network, other.loss, made[1], other.rows, order, 10)
    engine.store()
    _assert_alike(one, other, 1e-10 if dtype == torch.float64 else 1e-4)
    _assert_same_state(*made, 1e-9 if dtype == torch.float64 else 1e-3)


def _assert_same_state(found, expected, rtol: float) -> None:
    """The optimizers' states have the same names, types and numbers."""
    a, b = found.state_dict(), expected.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for i, state in b["state"].items():
        assert {n: type(v) for n, v in a["state"][i].items()} == {
            n: type(v) for n, v in state.items()
        }
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert a["state"][i][name].dtype == value.dtype
                largest = float(value.abs().max())
                torch.testing.assert_close(
                    a["state"][i][name], value, rtol=rtol, atol=rtol * largest
                )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_engines_may_change_in_mid_training(name):
    one, other = _small(), _small()
    made = [OPTIMIZERS[name](_groups(c.network)) for c in (one, other)]
    for epoch in range(8):
        order = _order(50, epoch)
        train_epoch(other.network, other.loss, made[1], other.rows, order, 16)
        if epoch % 2:
            train_epoch(one.network, one.loss, made[0], one.rows, order, 16)
        else:
            engine = _native(one, made[0])
            engine.train_epoch(one.rows, order, 16)
            engine.store()
    _assert_alike(one, other, 1e-10)
    _assert_same_state(*made, 1e-9)


def test_a_run_taken_up_again_from_torchs_tensors_gives_the_same_bytes():
    whole, parted = _small(), _small()
    first = _native(whole, OPTIMIZERS["NAdam with decay"](whole.network.parameters()))
    optimizer = OPTIMIZERS["NAdam with decay"](parted.network.parameters())
    for epoch in range(6):
        first.train_epoch(whole.rows, _order(50, epoch), 8)
        engine = _native(parted, optimizer)
        engine.train_epoch(parted.rows, _order(50, epoch), 8)
        engine.store()
    first.store()
    assert _bytes(whole.network) == _bytes(parted.network)


def _bytes(network: nn.Module) -> bytes:
    return b"".join(t.detach().numpy().tobytes() for t in network.state_dict().values())


def test_momentum_of_only_some_parameters_survives_a_change_of_engine():
    one, other = _small(), _small()
    made = []
    for c in (one, other):
        others, matrices = _groups(c.network)
        others |= {"momentum": 0.9, "dampening": 0.3}
        made.append(torch.optim.SGD([others, matrices], 0.05))
    for epoch in range(4):
        train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 16)
        engine = _native(one, made[0])
        engine.train_epoch(one.rows, _order(50, epoch), 16)
        engine.store()
    _assert_alike(one, other, 1e-12)
    _assert_same_state(*made, 1e-12)


def test_in_a_double_world_the_optimizers_scalars_are_double_too():
    torch.set_default_dtype(torch.float64)
    try:
        one, other = _small(), _small()
        made = [torch.optim.NAdam(c.network.parameters(), lr=0.01) for c in (one, other)]
        engine = _native(one, made[0])
        for epoch in range(3):
            engine.train_epoch(one.rows, _order(50, epoch), 10)
            train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 10)
        engine.store()
    finally:
        torch.set_default_dtype(torch.float32)
    _assert_alike(one, other, 1e-13)
    _assert_same_state(*made, 1e-12)


@pytest.mark.parametrize(
    "clip", [{"clip_norm": 0.2}, {"clip_value": 0.01}, {"clip_norm": 0.05, "clip_value": 0.02},
             {"clip_norm": 1e6, "clip_value": 1e6}],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_clipped_as_in_torch(clip, dtype):
    one, other = _small(dtype), _small(dtype)
    made = [torch.optim.SGD(c.network.parameters(), lr=0.3, momentum=0.5) for c in (one, other)]
    engine = _native(one, made[0])
    for epoch in range(10):
        engine.train_epoch(one.rows, _order(50, epoch), 9, **clip)
        train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 9, **clip)
    engine.store()
    _assert_alike(one, other, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(("n", "size"), [(50, 7), (49, 8), (10, 3), (50, 50), (50, 2**62)])
def test_rates_are_those_of_each_step_and_group(n, size):
    one, other = _small(n=n), _small(n=n)
    made = [torch.optim.AdamW(_groups(c.network), lr=0.01) for c in (one, other)]
    engine, asked = _native(one, made[0]), []

    def rates(step):
        asked.append(step)
        return [0.02 / (step + 1), 0.001 * step]

    for epoch in range(3):
        engine.train_epoch(one.rows, _order(n, epoch), size, rates=rates)
        assert asked == list(range(one.rows.n_steps(size)))
        order = _order(n, epoch)
        train_epoch(other.network, other.loss, made[1], other.rows, order, size, rates=rates)
        assert made[0].param_groups[0]["lr"] == made[1].param_groups[0]["lr"]
        assert made[0].param_groups[1]["lr"] == made[1].param_groups[1]["lr"]
        asked.clear()
    engine.store()
    _assert_alike(one, other, 1e-12)


def test_options_that_change_between_epochs_count_and_so_do_torchs_schedulers():
    one, other = _small(), _small()
    made = [torch.optim.AdamW(c.network.parameters(), lr=0.01) for c in (one, other)]
    schedulers = [torch.optim.lr_scheduler.StepLR(m, 2, 0.3) for m in made]
    engine = _native(one, made[0])
    for epoch in range(6):
        for m in made:
            m.param_groups[0]["weight_decay"] = 0.1 * epoch
        engine.train_epoch(one.rows, _order(50, epoch), 10)
        train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 10)
        for scheduler in schedulers:
            scheduler.step()  # a warning, had no step been seen
    engine.store()
    _assert_alike(one, other, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [2, 3, 5, 33, 50])
@pytest.mark.parametrize("size", [1, 2, 4, 7, 1000])
def test_ragged_batches_are_torchs(n, size, dtype):
    one, other = _small(dtype, n, weights=True), _small(dtype, n, weights=True)
    made = [torch.optim.SGD(c.network.parameters(), lr=0.1) for c in (one, other)]
    engine = _native(one, made[0])
    for epoch in range(2):
        order = _order(n, epoch)
        told = engine.train_epoch(one.rows, order, size)
        expected = train_epoch(other.network, other.loss, made[1], other.rows, order, size)
        assert (told.steps, told.rows, told.complete) == (expected.steps, n, True)
        assert told.loss == pytest.approx(expected.loss, rel=EXACT[dtype])
        assert told.steps == len(list(batches(n, size)))
    engine.store()
    _assert_alike(one, other, 10 * EXACT[dtype])


# ---------------------------------------------------------------- whole trainings

TRAININGS = {
    "relu": lambda: [nn.Linear(6, 33), nn.ReLU(), nn.Linear(33, 17), nn.ReLU(), nn.Linear(17, 3)],
    "batch norm": lambda: [
        nn.Linear(6, 33, bias=False), nn.BatchNorm1d(33), nn.ReLU(), nn.Linear(33, 17), nn.GELU(),
        nn.BatchNorm1d(17, momentum=None), nn.Linear(17, 3)],
    "layer norm": lambda: [
        nn.Linear(6, 20), nn.LayerNorm(20), nn.Mish(), nn.Linear(20, 20), nn.PReLU(20),
        nn.Linear(20, 3)],
    "categories": lambda: [
        InputLayer(4, [4, 3], [5, 0]), nn.Linear(12, 33), nn.SELU(), nn.Linear(33, 3)],
    "linear": lambda: [nn.Linear(6, 3)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "loss"),
    [("relu", "mse"), ("relu", "cross_entropy"), ("batch norm", "mse"), ("batch norm", "ignored"),
     ("layer norm", "class weights"), ("categories", "ignored"), ("linear", "mse")],
)  # fmt: skip
def test_fifty_epochs_take_the_same_curve_as_torch(kind, loss):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = nn.Sequential(*TRAININGS[kind]())
        X, w = torch.randn(205, 6), torch.rand(205) + 0.5
        X[:, 4:] = torch.stack([torch.randint(5, (205,)), torch.randint(4, (205,))], 1)
    y = torch.stack([X[:, 0].sin(), X[:, 1] * X[:, 2], X[:, 3]], 1)
    criterion = "mse"
    if loss != "mse":
        y, criterion = (X[:, 0] + X[:, 1] * X[:, 2] > 0).long(), "cross_entropy"
    if loss == "class weights":
        criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0, 2.0]), label_smoothing=0.05)
    if loss == "ignored":
        y[::40] = -100
        criterion = nn.CrossEntropyLoss()
    one = Case(network, criterion, Rows(X, y, w))
    other = copied(one)
    made = [torch.optim.AdamW(c.network.parameters(), lr=0.004) for c in (one, other)]
    valid = Rows(X[:77], y[:77], w[:77])
    engine = Native(one.network, one.loss, made[0], one.rows, valid)
    for epoch in range(50):
        order = _order(205, epoch)
        told = engine.train_epoch(one.rows, order, 17)
        expected = train_epoch(other.network, other.loss, made[1], other.rows, order, 17)
        assert told.loss == pytest.approx(expected.loss, rel=1e-3)
        found, _ = engine.measure(valid, 17)
        assert found == pytest.approx(measure(other.network, other.loss, valid, 17)[0], rel=1e-3)
    found, expected = engine.predict(X), predict(other.network, X)
    assert float((found - expected).abs().max()) <= 1e-3 * float(expected.abs().max())


@pytest.mark.parametrize("seed", range(40))
def test_the_loss_of_many_rows_and_their_scores_are_torchs(seed):
    one = case(3000 + seed)
    engine = _native(copied(one))
    expected, scored = measure(one.network, one.loss, one.rows, 64, score=_score)
    found, given = engine.measure(one.rows, 64, score=_score)
    assert found == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert given == pytest.approx(scored, rel=1e-3, nan_ok=True)


def _score(outputs: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    assert len(outputs) == len(y)
    return {"mean": float(outputs.double().abs().mean())}


def test_running_statistics_are_torchs():
    for seed, make in enumerate((NORMS["BatchNorm1d"], NORMS["plain BatchNorm1d"],
                                 NORMS["BatchNorm1d over all batches"])):  # fmt: skip
        one = _small(seed=seed)
        one.network[3] = make(7).double()
        other = copied(one)
        made = [torch.optim.SGD(c.network.parameters(), lr=0.1) for c in (one, other)]
        engine = _native(one, made[0])
        for epoch in range(3):
            engine.train_epoch(one.rows, _order(50, epoch), 7)
            train_epoch(other.network, other.loss, made[1], other.rows, _order(50, epoch), 7)
        engine.store_weights()
        _assert_alike(one, other, 1e-11)
        assert one.network[3].num_batches_tracked == 21
        torch.testing.assert_close(engine.predict(one.rows.X), predict(other.network, one.rows.X))


def test_batch_normalisation_of_one_row_is_torchs_error():
    one = _small()
    one.network[3] = nn.BatchNorm1d(7).double()
    lone = Rows(one.rows.X[:1], one.rows.y[:1])
    engine = _native(one)
    for rows, size in ((lone, 4), (one.rows, 1)):
        order = torch.arange(len(rows))
        with pytest.raises(ValueError, match="Expected more than 1 value per channel") as found:
            engine.train_epoch(rows, order, size)
        optimizer = torch.optim.SGD(one.network.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="Expected more than 1 value") as expected:
            train_epoch(one.network, one.loss, optimizer, rows, order, size)
        assert str(found.value).startswith(str(expected.value)[:60])


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_its_share_and_the_expectation(p):
    one, kept = _masked(p, seed=0)
    n = kept.size
    share = np.count_nonzero(kept) / n
    assert abs(share - (1 - p)) < 4 * math.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 - p), rtol=1e-12)
    assert abs(kept.mean() - 1) < 4 * math.sqrt(p / (1 - p) / n)
    torch.testing.assert_close(one.predict(torch.ones(3, 1).double()), torch.ones(3, 5000).double())


def _masked(p: float, seed: int) -> tuple[Native, np.ndarray]:
    """The factors that dropout draws, read from the gradient; the loss has to know them too."""
    network = nn.Sequential(nn.Linear(1, 5000), Dropout(p)).double()
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    set_dropout_generator(network, torch.Generator().manual_seed(seed))
    rows = Rows(torch.ones(1, 1).double(), torch.zeros(1, 5000).double())
    engine = _native(Case(network, "mse", rows))
    value, (_, slopes) = engine.gradients(rows)  # slope of each: 2 / 5000 * factor^2
    factors = np.sqrt(slopes.numpy() * 2500)
    assert value == pytest.approx((factors**2).mean(), rel=1e-12)
    return engine, factors


def test_dropout_draws_from_the_generator_and_never_the_same_twice():
    (a, first), (_, again), (_, other) = (_masked(0.5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    rows = Rows(torch.ones(1, 1).double(), torch.zeros(1, 5000).double())
    second = np.sqrt(a.gradients(rows)[1][1].numpy() * 2500)
    for mask in (other, second):
        alike = np.mean((mask > 0) == (first > 0))
        assert 0.45 < alike < 0.55
        shifted = [np.mean((mask[k:] > 0) == (first[:-k] > 0)) for k in (1, 2, 3)]
        assert max(shifted) < 0.56


def test_dropout_differs_from_row_to_row_and_column_to_column():
    network = nn.Sequential(nn.Linear(1, 33, bias=False), Dropout(0.5), nn.Linear(33, 1)).double()
    set_dropout_generator(network, torch.Generator().manual_seed(0))
    X = torch.ones(64, 1).double()
    engine = _native(Case(network, "mse", Rows(X, torch.zeros(64, 1).double())))
    seen = {engine.gradients(Rows(X[:1], torch.zeros(1, 1).double()))[0] for _ in range(20)}
    assert len(seen) == 20
    whole = engine.gradients(Rows(X, torch.zeros(64, 1).double()))[0]
    assert whole not in seen


# ---------------------------------------------------------------- when it goes wrong


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e200])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_bad_cell_stops_the_step_before_it_touches_the_weights(kind, bad):
    one, other = _small(n=10), _small(n=10)
    if bad == -1e200:  # its square is infinite, and so is the loss
        one.rows.y[7, 1] = bad
    else:
        one.rows.X[7, 1] = bad
    one.network[1] = other.network[1] = nn.ReLU()
    made = [OPTIMIZERS[kind](c.network.parameters()) for c in (one, other)]
    part = Rows(other.rows.X[:6], other.rows.y[:6])
    train_epoch(other.network, other.loss, made[1], part, torch.arange(6), 3)
    engine = _native(one, made[0])
    with pytest.raises(NotFinite) as caught:
        engine.train_epoch(one.rows, torch.arange(10), 3)
    assert caught.value.step == 2
    torch.testing.assert_close(caught.value.X, one.rows.X[6:], equal_nan=True)
    torch.testing.assert_close(caught.value.y, one.rows.y[6:])
    _assert_alike(one, other, 1e-12)
    _assert_same_state(*made, 1e-12)


def test_a_batch_that_weighs_nothing_stops_a_loss_that_divides_by_its_weights():
    one = _small(loss="cross_entropy", weights=True)
    one.rows.w[:] = 0
    engine = _native(one)
    assert engine.train_epoch(one.rows, None, 10).loss == 0
    assert math.isnan(engine.measure(one.rows)[0])
    weighted = Case(one.network, nn.CrossEntropyLoss(weight=torch.ones(3).double()), one.rows)
    before = _bytes(weighted.network)
    with pytest.raises(NotFinite):
        _native(weighted).train_epoch(one.rows, None, 10)
    assert _bytes(weighted.network) == before


def test_no_step_begins_after_the_deadline_but_the_first():
    one = _small()
    engine = _native(one)
    told = engine.train_epoch(one.rows, _order(50, 0), 2, deadline=time.monotonic() - 1)
    assert (told.steps, told.rows, told.complete) == (1, 2, False)
    assert told.loss > 0
    told = engine.train_epoch(one.rows, _order(50, 0), 2, deadline=time.monotonic() + 60)
    assert (told.steps, told.complete) == (25, True)


class _Alarm(Exception):
    pass


def _for_ever(work) -> None:
    while True:
        work()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such alarm")
@pytest.mark.parametrize("what", ["train", "measure", "predict"])
def test_a_signal_ends_a_long_epoch_at_once_and_leaves_everything_whole(what):
    one, other = _small(n=200_000), _small(n=200_000)
    made = [torch.optim.Adam(c.network.parameters(), lr=1e-4) for c in (one, other)]
    engine = _native(one, made[0])
    work = {
        "train": lambda: engine.train_epoch(one.rows, torch.arange(200_000), 2),
        "measure": lambda: engine.measure(one.rows),
        "predict": lambda: engine.predict(one.rows.X),
    }[what]

    def stop(*_):
        raise _Alarm

    # counted in time of the processor, so that a busy machine does not matter
    before, wait = signal.signal(signal.SIGPROF, stop), 0.1
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, wait)
    try:
        with pytest.raises(_Alarm):
            _for_ever(work)
        late = time.process_time() - start - wait
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert late < 0.1 * SLOWER
    if what != "train":
        return
    engine.store()
    done = int(made[0].state[one.network[0].weight]["step"])
    assert done > 10
    # as if the epoch had ended there
    again = _native(other, made[1])
    for _ in range(done // 100_000):
        again.train_epoch(other.rows, torch.arange(200_000), 2)
    rest = 2 * (done % 100_000)
    again.train_epoch(other.rows, torch.arange(rest), 2)
    again.store()
    assert _bytes(one.network) == _bytes(other.network)


# ---------------------------------------------------------------- threads and forks


def _trained(one: Case, seed: int) -> bytes:
    one = copied(one)
    one.network.insert(3, Dropout(0.2))
    optimizer = torch.optim.AdamW(one.network.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(seed)
    engine = _native(one, optimizer, dropout=generator)
    for epoch in range(30):
        engine.train_epoch(one.rows, _order(300, epoch), 8)
    engine.store()
    return _bytes(one.network)


def test_the_same_bytes_from_several_threads_at_once():
    seeds, one = [0, 1, 0, 1, 2, 0], _small(torch.float32, n=300)
    expected = {seed: _trained(one, seed) for seed in set(seeds)}
    found: dict[int, bytes] = {}

    def work(i: int) -> None:
        found[i] = _trained(one, seeds[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(seeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] == expected[seed] for i, seed in enumerate(seeds)] == [True] * len(seeds)
    assert expected[0] != expected[1]


def test_two_threads_in_one_network_are_told_apart():
    one = _small(n=100_000)
    engine = _native(one)

    def work() -> None:
        while True:
            try:
                engine.train_epoch(one.rows, None, 1)
                return
            except RuntimeError:  # it was the other one's turn
                pass

    thread = threading.Thread(target=work)
    thread.start()
    told = set()
    while thread.is_alive():
        try:
            engine.predict(one.rows.X[:5])
        except RuntimeError as error:
            told.add(str(error))
    thread.join()
    assert told == {"this network is at work in another call"}
    engine.predict(one.rows.X[:5])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gives_the_same_bytes():
    one = _small(torch.float32, n=300)
    expected = _trained(one, 0)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, _trained(one, 0))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    assert found == expected


# ---------------------------------------------------------------- what comes from outside


def test_tensors_of_any_layout_are_read_and_written():
    one, other = _small(), _small()
    one.network[0].weight.data = one.network[0].weight.data.t().contiguous().t()
    X = torch.randn(50, 10).double()[:, ::2]
    assert not X.is_contiguous()
    assert not one.network[0].weight.is_contiguous()
    made = [torch.optim.Adam(c.network.parameters(), lr=0.01) for c in (one, other)]
    engine = _native(Case(one.network, "mse", Rows(X, one.rows.y.t().contiguous().t())), made[0])
    for epoch in range(2):
        order = torch.stack([_order(50, epoch), _order(50, 9)], 1)[:, 0]
        engine.train_epoch(Rows(X, one.rows.y), order, 10)
        train_epoch(other.network, other.loss, made[1], Rows(X, one.rows.y), order, 10)
    engine.store()
    _assert_alike(one, other, 1e-12)
    _assert_same_state(*made, 1e-12)


def test_no_rows_are_no_trouble():
    one = _small()
    engine = _native(one)
    none = Rows(one.rows.X[:0], one.rows.y[:0])
    told = engine.train_epoch(none, torch.arange(0), 10, rates=lambda step: [0.1])
    assert (told.loss, told.steps, told.rows, told.complete) == (0, 0, 0, True)
    assert engine.predict(none.X).shape == (0, 3)
    assert math.isnan(engine.measure(none)[0])


def test_rows_that_do_not_fit_are_refused_before_anything_runs():
    one = _small()
    with pytest.raises(Refused, match="float32 on cpu and the network"):
        _native(Case(one.network, "mse", Rows(one.rows.X.float(), one.rows.y)))
    with pytest.raises(Refused, match=r"layer '0' takes 5 columns and gets 4"):
        _native(Case(one.network, "mse", Rows(one.rows.X[:, :4], one.rows.y)))
    with pytest.raises(Refused, match=r"y has shape \(50,\) for 3 outputs"):
        _native(Case(one.network, "mse", Rows(one.rows.X, one.rows.y[:, 0])))
    with pytest.raises(Refused, match=r"row weights have shape \(49,\), not \(50,\)"):
        _native(Case(one.network, "mse", Rows(one.rows.X, one.rows.y, torch.ones(49))))
    engine = _native(one)
    with pytest.raises(ValueError, match="order names row 50 of 50"):
        engine.train_epoch(one.rows, torch.arange(51), 10)
    with pytest.raises(ValueError, match="order names row -1 of 50"):
        engine.train_epoch(one.rows, torch.arange(50) - 1, 10)
    with pytest.raises(ValueError, match="X has shape"):
        engine.predict(one.rows.X[:, :4])


@pytest.mark.parametrize("c", [-1, 3, 2**40, -(2**63), 2**63 - 1])
def test_a_class_that_is_not_there_is_named(c):
    one = _small(loss="cross_entropy")
    one.rows.y[17] = c
    engine = _native(one)
    told = rf"row 17 of y is class {c}; the network has 3 outputs"
    with pytest.raises(ValueError, match=told):
        engine.train_epoch(one.rows, None, 10)
    with pytest.raises(ValueError, match=told):
        engine.measure(one.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("code", [5, -1, float("nan"), float("inf"), 1e30, -1e30])
def test_a_code_that_is_not_there_is_an_error(code, dtype):
    network = nn.Sequential(InputLayer(1, [4], [3], dtype), nn.Linear(4, 2).to(dtype))
    X = torch.zeros(20, 2, dtype=dtype)
    X[:, 1] = torch.arange(20) % 5
    one = Case(network, "mse", Rows(X, torch.zeros(20, 2, dtype=dtype)))
    engine = _native(one)
    network.eval()
    torch.testing.assert_close(engine.predict(X), network(X))
    X[13, 1] = code
    for call in (lambda: engine.predict(X), lambda: engine.measure(one.rows),
                 lambda: engine.train_epoch(one.rows, None, 5)):  # fmt: skip
        with pytest.raises(ValueError, match="X has a code that its category does not have"):
            call()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_fill_their_bins_as_in_torch(name, dtype, rng):
    for bins in (
        [3],
        [0, 40],
        [16] * 21,
        [5, *[0] * 15, 7],
        [1, 0, 7, 0, 0, 2, *[0] * 14, 5],
        [300, 1],
    ):
        first = InputLayer(len(bins), [4], [2], dtype, bins)
        edges = [np.sort(rng.normal(size=n + 1)) for n in bins if n]
        first.edges.copy_(torch.from_numpy(np.concatenate(edges)))
        network = nn.Sequential(first, nn.Linear(first.out_features, 3, dtype=dtype))
        X = np.column_stack([rng.normal(size=(70, len(bins))), rng.integers(0, 5, 70)])
        X[:3, 0] = edges[0][0], edges[0][-1], edges[0][1]
        X[3:6, 0] = -9, 9, 0
        X = torch.from_numpy(X).to(dtype)
        one = Case(network, "mse", Rows(X, torch.zeros(70, 3, dtype=dtype)))
        engine = _native(one, instruction_set=name)
        near = {"rtol": EXACT[dtype], "atol": EXACT[dtype] * 10}
        torch.testing.assert_close(engine.predict(X), network(X), **near)
        loss, gradients = engine.gradients(one.rows)
        value = ((network(X)) ** 2).mean()
        expected = torch.autograd.grad(value, list(network.parameters()))
        torch.testing.assert_close(loss, value.item(), **near)
        for found, one_expected in zip(gradients, expected):
            atol = EXACT[dtype] * 10 * max(float(one_expected.abs().max()), 1)
            torch.testing.assert_close(found, one_expected, rtol=EXACT[dtype], atol=atol)


def test_a_number_that_is_not_finite_is_as_in_torch():
    first = InputLayer(2, [], [], torch.float64, [2, 0])
    network = nn.Sequential(first, nn.Identity(), nn.Linear(4, 1).double())
    X = torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0], [-torch.inf, 0.5]]).double()
    engine = _native(Case(network, "mse", Rows(X, torch.zeros(3, 1).double())))
    expected = network(X).detach()
    torch.testing.assert_close(engine.predict(X), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("edges", "said"),
    [([[0.0]], "a bin has two edges"), ([[1.0, 0.0]], "ascend"), ([[0.0, 0.0]], "ascend"),
     ([[0.0, float("inf")]], "ascend"), ([[0.0, float("nan")]], "ascend"),
     ([[0.0, 1e-310]], "ascend"), ([[0.0, 1.0], []], "each number has its edges"),
     ([[0.0, 1.0, 2.0]], "another number of columns")],
)  # fmt: skip
def test_edges_that_make_no_bins_are_refused(edges, said):
    layers = [("InputLayer", 2, False, 1, 0.0, 0.0, [], [])]
    native._core.Network(layers, 1, True, "", [[0.0, 1.0]])
    with pytest.raises(ValueError, match=said):
        native._core.Network(layers, 1, True, "", edges)
    with pytest.raises(ValueError, match="only an input layer has edges"):
        native._core.Network([("ReLU", 0, False, 0, 0.0, 0.0, [], [])], 1, True, "", [[0.0, 1.0]])


def test_weights_that_torch_changed_are_seen_after_load():
    one = _small()
    engine = _native(one, torch.optim.Adam(one.network.parameters(), lr=0.01))
    engine.train_epoch(one.rows, None, 10)
    with torch.no_grad():
        for p in one.network.parameters():
            p.mul_(0.5)
    engine.load()
    one.network.eval()
    torch.testing.assert_close(engine.predict(one.rows.X), one.network(one.rows.X))
    assert {group.steps for group in engine.core.groups} == {0}  # torch's optimizer is fresh


def test_what_is_learnt_is_only_in_torch_after_store():
    one = _small()
    before = _bytes(one.network)
    engine = _native(one)
    engine.train_epoch(one.rows, None, 10)
    assert _bytes(one.network) == before
    engine.store_weights()
    assert _bytes(one.network) != before
    assert copy.deepcopy(one).network is not one.network
