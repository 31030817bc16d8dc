"""The rules on symptoms: a training that shows one, and its healthy twin."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layerwise as lw
from layerwise.diagnosis.finding import Findings
from layerwise.diagnosis.verdict import judge_curves
from layerwise.diagnosis.watched import Curves

N = 240


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def table():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(N, 5, generator=generator)
    y = X[:, :1] + X[:, 1:2].tanh() + 0.2 * torch.randn(N, 1, generator=generator)
    return X, (y - y.mean()) / y.std()


def layers(widths, activation=nn.ReLU):
    sizes = [5, *widths]
    pairs = itertools.pairwise(sizes)
    hidden = [one for a, b in pairs for one in (nn.Linear(a, b), activation())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))


def train(model, X=None, y=None, loss=F.mse_loss, lr=0.02, epochs=25) -> Findings:
    X, y = (table()[0] if X is None else X), (table()[1] if y is None else y)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with lw.watch(model, loss, optimizer) as w:
        for _ in range(epochs):
            order = torch.randperm(len(X))
            for start in range(0, len(X), 24):
                rows = order[start : start + 24]
                optimizer.zero_grad()
                loss(model(X[rows]), y[rows]).backward()
                optimizer.step()
    return w.findings


def everything(found):
    """Also what a cause explains."""
    return {one.rule: one for one in [*found, *found.explained]}


def test_the_healthy_twin():
    assert train(layers([24, 24])).alarms == []
    assert train(layers([24], nn.Tanh)).alarms == []


def test_vanishing_gradients():
    found = everything(train(layers([16] * 8, nn.Sigmoid)))
    assert found["vanishing-gradients"].where == "0"


def test_exploding_gradients():
    model = layers([64, 64, 64])
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.mul_(30)
    found = everything(train(model, lr=1e-6))
    assert "exploding-gradients" in found


def test_dead_relu():
    model = layers([24, 24])
    with torch.no_grad():
        model[0].bias.fill_(-20)
    found = [one for one in train(model) if one.rule == "dead-relu"]
    assert ("error", "1") in [(one.severity, one.where) for one in found]


def test_saturated_activation():
    model = layers([24, 24], nn.Tanh)
    with torch.no_grad():
        model[2].weight.mul_(60)
    assert everything(train(model, lr=1e-3))["saturated-activation"].where == "3"


def test_a_loss_that_is_no_number_is_located():
    def root(outputs, y):
        return torch.sqrt(outputs - 10).mean()

    found = everything(train(layers([8]), loss=root, epochs=2))["non-finite-loss"]
    assert (found.severity, found.where) == ("error", "loss")


class Ratio(nn.Module):
    def forward(self, x):
        return x / (x - x)


def test_a_layer_that_divides_by_zero_is_located():
    model = nn.Sequential(nn.Linear(5, 4), Ratio(), nn.Linear(4, 1))
    assert everything(train(model, epochs=2))["non-finite-loss"].where == "1"


def test_labels_that_have_nothing_to_do_with_their_rows():
    y = table()[1][torch.randperm(N)]
    found = everything(train(layers([16]), y=y, lr=0.005, epochs=30))
    assert found["underfitting"].where == "y"


def test_a_network_that_a_linear_model_beats():
    X, _ = table()
    y = X @ torch.tensor([[1.0], [1.0], [-1.0], [1.0], [-1.0]]) / 5**0.5
    model = nn.Sequential(nn.Linear(5, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]]))
    found = everything(train(model, y=y, lr=0.001, epochs=40))
    assert {"underfitting", "too-few-epochs"} & set(found)


def falling(n, by=0.9):
    return [by**i for i in range(n)]


def rules(train, valid=(), **options):
    return judge_curves(Curves(train, valid, baseline=1.0, steps=500, **options)).rules


def test_overfitting_is_what_lasts():
    valid = [0.6, 0.5, 0.45, 0.4, *(0.4 + 0.03 * i for i in range(1, 27))]
    assert rules(falling(30), valid) == ["overfitting"]
    assert rules(falling(30), [*valid[:4], 0.41, 0.7, *[0.4] * 24]) == []
    slow = [*valid[:4], *(0.4 + 0.005 * i for i in range(1, 27))]
    assert rules(falling(30), slow, n_valid=500) == ["overfitting"]
    assert rules(falling(30), slow, n_valid=20) == []


def test_too_few_epochs_unless_the_rate_was_annealed():
    line = [1.0 - 0.03 * i - 0.001 * i * i for i in range(15)]
    assert rules(line) == ["too-few-epochs"]
    assert rules(line, rates=[0.1 * (1 - i / 14.5) for i in range(15)]) == []
    assert rules(falling(60)) == []


def test_a_training_that_hardly_began():
    model = layers([24, 24])
    found = everything(train(model, epochs=2, lr=0.01))["too-few-epochs"]
    assert found.severity == "warning"
