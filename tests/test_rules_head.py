"""Head, loss and targets: each fault is named at its place, and its healthy twin is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerwise as lw

N = 60
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % 3
BITS = (torch.arange(N) % 2).float()[:, None]
AMOUNTS = torch.randn(N, 1, generator=torch.Generator().manual_seed(1))


def net(outputs=3, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs), *last)


class Functional(nn.Module):
    """A network whose last step is a function in its own forward."""

    def __init__(self, outputs, last):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.last = nn.Linear(4, 8), nn.Linear(8, outputs), last

    def forward(self, x):
        return self.last(self.head(torch.relu(self.body(x))))


def alarms(model, loss, y, **told):
    return [(one.rule, one.where) for one in lw.doctor(model, loss, None, X, y, **told).alarms]


CE, BCE, LOGITS, MSE, NLL = (
    nn.CrossEntropyLoss(), nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.NLLLoss()
)  # fmt: skip

FAULTS = [
    ("softmax-before-ce", "3", net(3, nn.Softmax(dim=1)), CE, CLASSES),
    ("softmax-before-ce", "head", Functional(3, lambda t: t.softmax(1)), CE, CLASSES),
    ("softmax-before-ce", "3", net(3, nn.Softmax(dim=1)), F.cross_entropy, CLASSES),
    ("sigmoid-before-bce-logits", "3", net(1, nn.Sigmoid()), LOGITS, BITS),
    ("sigmoid-before-bce-logits", "head", Functional(1, torch.sigmoid), LOGITS, BITS),
    ("missing-final-activation", "2", net(1), BCE, BITS),
    ("missing-final-activation", "2", net(3), NLL, CLASSES),
    ("missing-final-activation", "3", net(3, nn.Softmax(dim=1)), NLL, CLASSES),
    ("activation-on-logits", "3", net(3, nn.ReLU()), CE, CLASSES),
    ("activation-on-logits", "head", Functional(1, torch.tanh), LOGITS, BITS),
    ("activation-on-logits", "3", net(3, nn.Sigmoid()), CE, CLASSES),
    ("softmax-axis", "3", net(3, nn.LogSoftmax(dim=0)), NLL, CLASSES),
    ("softmax-axis", "3", net(1, nn.Softmax(dim=1)), BCE, BITS),
    ("labels-vs-outputs", "y", net(3), CE, CLASSES + 1),
    ("labels-vs-outputs", "2", net(2), CE, CLASSES),
    ("labels-vs-outputs", "2", net(1), CE, BITS[:, 0].long()),
    ("labels-vs-outputs", "y", net(1), LOGITS, BITS * 2 - 1),
    ("dtype-mismatch", "y", net(3), CE, CLASSES.float()),
    ("dtype-mismatch", "y", net(3), CE, CLASSES.int()),
    ("dtype-mismatch", "y", net(3), CE, F.one_hot(CLASSES)),
    ("dtype-mismatch", "y", net(1), LOGITS, BITS.long()),
    ("dtype-mismatch", "y", net(1, nn.Sigmoid()), BCE, BITS.double()),
    ("dtype-mismatch", "y", net(1), nn.HuberLoss(), AMOUNTS.double()),
    ("target-shape-broadcast", "y", net(1), MSE, AMOUNTS[:, 0]),
    ("target-shape-broadcast", "y", Functional(1, lambda t: t.squeeze(1)), MSE, AMOUNTS),
    ("target-shape-broadcast", "y", net(1), MSE, AMOUNTS.expand(N, 2)),
    ("target-shape-broadcast", "y", net(1), LOGITS, BITS[:, 0]),
    ("target-shape-broadcast", "y", net(1), lambda a, b: ((a - b) ** 2).mean(), AMOUNTS[:, 0]),
    ("target-shape-broadcast", "y", net(3), CE, CLASSES[:, None]),
    ("target-shape-broadcast", "y", net(1), MSE, AMOUNTS[:40]),
    ("loss-task-mismatch", "loss", net(1), MSE, CLASSES[:, None].float()),
    ("loss-task-mismatch", "loss", net(1), CE, BITS),
    ("loss-task-mismatch", "loss", net(1), LOGITS, AMOUNTS * 9),
    ("loss-task-mismatch", "loss", net(3), CE, AMOUNTS[:, 0]),
    ("output-range", "3", net(1, nn.Sigmoid()), MSE, AMOUNTS * 3),
    ("output-range", "head", Functional(1, torch.relu), nn.L1Loss(), AMOUNTS),
    ("output-range", "3", net(1, nn.Tanh()), MSE, AMOUNTS * 3),
]


@pytest.mark.parametrize(("rule", "where", "model", "loss", "y"), FAULTS)
def test_the_fault_is_named_at_its_place_and_nothing_else_is(rule, where, model, loss, y):
    assert alarms(model, loss, y) == [(rule, where)]


TWINS = [
    (net(3), CE, CLASSES),
    (net(3), F.cross_entropy, CLASSES),
    (net(3, nn.LogSoftmax(dim=1)), CE, CLASSES),
    (net(3, nn.LogSoftmax(dim=1)), NLL, CLASSES),
    (net(3), CE, F.one_hot(CLASSES).float()),
    (net(3), nn.CrossEntropyLoss(ignore_index=-1), torch.where(CLASSES == 2, -1, CLASSES)),
    (net(3), "cross_entropy", CLASSES),
    (net(1), LOGITS, BITS),
    (net(1, nn.Sigmoid()), BCE, BITS),
    (Functional(1, lambda t: t.squeeze(1)), LOGITS, BITS[:, 0]),
    (net(1), MSE, AMOUNTS),
    (Functional(1, lambda t: t.squeeze(1)), MSE, AMOUNTS[:, 0]),
    (net(1), lambda a, b: ((a - b) ** 2).mean(), AMOUNTS),
    (net(1, nn.Sigmoid()), MSE, AMOUNTS.sigmoid()),
    (net(1, nn.Softplus()), MSE, AMOUNTS.abs()),
    (net(3, nn.LeakyReLU()), CE, CLASSES),
    (net(1), nn.PoissonNLLLoss(), CLASSES[:, None].float()),
    (net(3, nn.Softmax(dim=1)), lambda p, y: -p[range(len(y)), y].log().mean(), CLASSES),
]


@pytest.mark.parametrize(("model", "loss", "y"), TWINS)
def test_a_head_that_goes_with_its_loss_is_left_alone(model, loss, y):
    found = lw.doctor(model, loss, None, X, y)
    assert not found.alarms, str(found)
    assert not found.skipped


def test_rows_of_another_type_than_the_weights_are_told_as_x():
    model, y = net(3, nn.Softmax(dim=1)), CLASSES
    found = lw.doctor(model, CE, None, X.double(), y)
    assert [(one.rule, one.where) for one in found] == [
        ("dtype-mismatch", "X"),
        ("softmax-before-ce", "3"),
    ], "and the next mistake is seen all the same"
    assert not lw.doctor(net(3).double(), CE, None, X.double(), y)


def test_a_sum_over_the_batch_is_judged_by_the_step_it_makes():
    model, loss = net(1), nn.MSELoss(reduction="sum")

    def look(optimizer):
        found = lw.doctor(model, loss, optimizer, X, AMOUNTS, batch_size=32)
        return [(one.rule, one.severity) for one in found]

    sgd, adam = torch.optim.SGD, torch.optim.Adam
    assert look(sgd(model.parameters(), lr=0.1)) == [("loss-reduction", "warning")]
    assert look(sgd(model.parameters(), lr=1e-4)) == [("loss-reduction", "note")]
    assert look(adam(model.parameters(), lr=0.1)) == [("loss-reduction", "note")]


def test_without_rows_the_head_is_judged_on_invented_ones():
    found = lw.doctor(net(3, nn.Softmax(dim=1)), CE)
    assert [(one.rule, one.where) for one in found] == [("softmax-before-ce", "3")]
    assert not lw.doctor(net(3), CE)


def test_the_floor_under_a_doubled_softmax_is_where_training_ends():
    found = lw.doctor(net(3, nn.Softmax(dim=1)), CE, None, X, CLASSES)[0]
    best = CE(torch.eye(3), torch.arange(3))
    assert found.values["floor"] == pytest.approx(float(best), abs=1e-6)
