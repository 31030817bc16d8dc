"""The rules on steps and loops: a loop that shows the fault, and its healthy twin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import layerwise as lw

N = 240


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def table():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(N, 5, generator=generator)
    y = X[:, :1] + X[:, 1:2].tanh() + 0.2 * torch.randn(N, 1, generator=generator)
    return X, (y - y.mean()) / y.std()


def network(*after):
    return nn.Sequential(nn.Linear(5, 24), nn.ReLU(), *after, nn.Linear(24, 1))


def train(model, optimizer, *, epochs=12, each=lambda epoch: None, clear=True, late=False):
    """One loop; its parts can be left out or put in the wrong place."""
    X, y = table()
    loss = nn.MSELoss()
    with lw.watch(model, loss, optimizer) as w:
        for epoch in range(epochs):
            for xb, yb in DataLoader(TensorDataset(X, y), 24, shuffle=True):
                if clear and not late:
                    optimizer.zero_grad()
                loss(model(xb), yb).backward()
                if late:
                    optimizer.zero_grad()
                optimizer.step()
            each(epoch)
    return {one.rule: one for one in w.findings if one.severity != "note"}


def sgd(model, lr=0.05, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def test_the_healthy_twin():
    model = network()
    assert train(model, sgd(model)) == {}


@pytest.mark.parametrize("make", [sgd, lambda m: torch.optim.Adam(m.parameters())])
def test_no_zero_grad(make):
    model = network()
    found = train(model, make(model), clear=False)["no-zero-grad"]
    assert (found.severity, found.where) == ("error", "loop")


def test_gradients_cleared_once_an_epoch_are_not_cleared():
    model = network()
    optimizer = sgd(model, 0.005)
    each = lambda epoch: optimizer.zero_grad()  # noqa: E731
    assert "no-zero-grad" in train(model, optimizer, clear=False, each=each)


def test_weights_not_updating_says_what_stands_between():
    model = network()
    found = train(model, sgd(model), late=True)["weights-not-updating"]
    assert "zero_grad() stands between" in found.seen
    model = network()
    found = train(model, sgd(model, lr=0.0))["weights-not-updating"]
    assert found.where == "optimizer"


def test_a_loop_without_a_step():
    X, y = table()
    model = network()
    with lw.watch(model, nn.MSELoss(), sgd(model)) as w:
        for _ in range(5):
            model.zero_grad()
            F.mse_loss(model(X), y).backward()
    assert w.findings.errors[0].rule == "weights-not-updating"


@pytest.mark.parametrize(
    "make",
    [lambda m: sgd(m, 5.0), lambda m: torch.optim.Adam(m.parameters(), lr=1.0),
     lambda m: sgd(m, 1.0, momentum=0.9)],
)  # fmt: skip
def test_lr_too_high(make):
    model = network()
    found = train(model, make(model), epochs=20)["lr-too-high"]
    assert (found.severity, found.where) == ("error", "optimizer")


def test_a_high_rate_that_works_is_none():
    model = network()
    assert "lr-too-high" not in train(model, sgd(model, 0.2))


@pytest.mark.parametrize(
    "make", [lambda m: sgd(m, 1e-5), lambda m: torch.optim.Adam(m.parameters(), lr=1e-6)]
)
def test_lr_too_low(make):
    model = network()
    assert train(model, make(model))["lr-too-low"].where == "optimizer"


def test_a_schedule_that_has_ended_at_once():
    X, y = table()
    model = network()
    optimizer = sgd(model, 1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with lw.watch(model, nn.MSELoss(), optimizer) as w:
        for _ in range(12):
            for start in range(0, N, 24):
                optimizer.zero_grad()
                F.mse_loss(model(X[start : start + 24]), y[start : start + 24]).backward()
                optimizer.step()
                schedule.step()
    found = next(one for one in w.findings if one.rule == "lr-too-low")
    assert "schedule" in found.seen


@pytest.mark.parametrize(
    "make",
    [lambda m: sgd(m, 0.01, weight_decay=2.0),
     lambda m: torch.optim.Adam(m.parameters(), weight_decay=1.0)],
)  # fmt: skip
def test_weight_decay_too_strong(make):
    model = network()
    assert train(model, make(model), epochs=20)["weight-decay-too-strong"].where == "optimizer"


def test_decoupled_decay_of_a_usual_size_is_fine():
    model = network()
    decayed = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    assert train(model, decayed) == {}


def measure(model, *, mode, gradients=False):
    X, y = table()

    def each(epoch):
        if mode:
            model.eval()
        with torch.set_grad_enabled(gradients):
            F.mse_loss(model(X), y)
        if mode == "both":
            model.train()

    return each


def test_wrong_mode_while_training():
    model = network(nn.Dropout(0.2))
    found = train(model, sgd(model), each=measure(model, mode="eval"))["wrong-mode"]
    assert "since step 11" in found.seen


@pytest.mark.parametrize("gradients", [False, True])
def test_wrong_mode_while_measuring(gradients):
    model = network(nn.Dropout(0.2))
    found = train(model, sgd(model), each=measure(model, mode="", gradients=gradients))
    assert found["wrong-mode"].where == "loop"


def test_modes_that_are_switched_and_models_without_modes_are_fine():
    model = network(nn.Dropout(0.2))
    assert train(model, sgd(model), each=measure(model, mode="both")) == {}
    model = network()
    assert train(model, sgd(model), each=measure(model, mode="")) == {}


class Functional(nn.Module):
    def __init__(self, told):
        super().__init__()
        self.a, self.b, self.told = nn.Linear(5, 24), nn.Linear(24, 1), told

    def forward(self, x):
        options = {"training": self.training} if self.told else {}
        return self.b(F.dropout(F.relu(self.a(x)), 0.2, **options))


@pytest.mark.parametrize("told", [True, False])
def test_dropout_that_evaluation_mode_does_not_switch_off(told):
    model = Functional(told)
    found = train(model, sgd(model), each=measure(model, mode="both"))
    assert [one.where for one in found.values()] == ([] if told else ["forward"])


def test_a_weight_that_is_changed_in_place():
    X, y = table()
    model = network()
    w = lw.watch(model, nn.MSELoss())

    def step():
        with w:
            F.mse_loss(model(X), y).backward()
            for p in model.parameters():
                p -= 0.01 * p.grad

    with pytest.raises(RuntimeError, match="leaf"):
        step()
    assert w.findings.errors[0].rule == "inplace-update"
