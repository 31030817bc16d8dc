"""More faults: the same mistakes in the forms that are met less often."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    kinds,
    mlp,
    numbers,
    patients,
    scaled,
    sgd,
    sick,
    tumours,
    wines,
    yes_no,
)
from doctor_cases.strangers import Deep, by_slices, by_trainer

HIDDEN = "loss-stuck underfitting"


@sick("target-shape-broadcast", where="y")
def flat_labels_for_bce_of_probabilities():
    X, y = yes_no()
    model = mlp(6, 16, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.BCELoss(), adam(model), X, y[:, 0], loop=by_trainer)


@sick("labels-vs-outputs", where="y")
def minus_one_and_one_for_bce_of_probabilities():
    X, y = yes_no()
    model = mlp(6, 16, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.BCELoss(), adam(model), X, 2 * y - 1, loop=by_slices)


@sick("labels-vs-outputs", where="layer1")
def three_wines_for_two_outputs():
    X, y = wines()
    model = Deep([13, 16, 2])
    return Setup(model, F.cross_entropy, adam(model), scaled(X), y, loop=by_trainer)


@sick("batch-size", where="batch_size", also="too-few-epochs lr-too-low loss-stuck underfitting")
def the_whole_table_for_twenty_epochs():
    X, y = yes_no(n=600)
    model = mlp(6, 32, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), X, y, batch_size=600, epochs=20, loop=by_slices)


@sick("val-preprocessing", where="X_val", also="overfitting")
def validation_between_zero_and_one():
    X, y = tumours()
    raw = X[400:]
    small = (raw - raw.amin(0)) / (raw.amax(0) - raw.amin(0)) + 3
    model = mlp(30, 16, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), scaled(X[:400]), y[:400], small, y[400:])


@sick("weights-not-updating", where="loop", also="loss-stuck")
def parentheses_forgotten():
    def loop(s):
        for _ in range(6):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step  # noqa: B018 - the mistake

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=loop)


@sick(
    "lr-too-high", where="optimizer", also="dead-relu exploding-gradients non-finite-loss " + HIDDEN
)
def sgd_at_five_for_a_deep_net():
    X, y = digits()
    model = Deep([64, 64, 64, 10])
    return Setup(model, F.cross_entropy, sgd(model, 5.0), X / 16, y, loop=by_trainer)


@sick("params-not-in-optimizer", where="optimizer w forward")
def a_weight_that_is_no_parameter():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.randn(6, 32, requires_grad=True)
            self.out = nn.Linear(32, 1)

        def forward(self, x):
            return self.out(torch.tanh(x @ self.w))

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, loop=by_slices)


@sick("no-gradient-to-layer", where="a")
def a_comparison_for_an_activation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 64), nn.Linear(64, 3)

        def forward(self, x):
            return self.b((self.a(x) > 0).float())

    X, y = kinds()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=by_trainer)


@sick("no-gradient-to-layer", where="a")
def the_data_of_a_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 32), nn.Linear(32, 1)

        def forward(self, x):
            return self.b(torch.relu(self.a(x).data))

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=by_slices)


@sick("frozen-parameters", where="layer1")
def frozen_after_the_optimizer():
    X, y = numbers()
    model = Deep([6, 32, 32, 1])
    optimizer = adam(model, 0.01)
    model.layer1.weight.requires_grad = False
    model.layer1.bias.requires_grad = False
    return Setup(model, nn.MSELoss(), optimizer, X, y, loop=by_trainer)


@sick("symmetric-init", where="2", also=HIDDEN)
def zeros_in_the_middle():
    X, y = kinds()
    model = mlp(8, 16, 16, 3, act=nn.Tanh)
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05), X, y)


@sick("dropout-misuse", where="out forward")
def functional_dropout_on_the_answers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(6, 32), nn.Linear(32, 1)

        def forward(self, x):
            return F.dropout(self.out(F.relu(self.hidden(x))), 0.3, self.training)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, loop=by_trainer)


@sick("output-range", where="3")
def softmax_for_amounts():
    X, y = numbers()
    three = torch.cat([y, -y, y + 1], 1)
    model = mlp(6, 32, 3, end=(nn.Softmax(dim=1),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, three, loop=by_slices)


@sick("output-range", where="3", also="unscaled-targets dead-relu")
def hardtanh_for_patients():
    X, y = patients()
    model = mlp(10, 32, 1, end=(nn.Hardtanh(),))
    return Setup(model, nn.SmoothL1Loss(), adam(model, 0.01), X, y / 20, loop=by_trainer)


@sick("linear-stack", where="a b")
def functional_dropout_but_no_activation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, x):
            x = F.dropout(self.a(x), 0.2, self.training)
            return self.c(torch.relu(self.b(x)))

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=by_slices)


@sick("too-few-epochs", where="loop", also="underfitting")
def one_epoch():
    X, y = digits()
    model = Deep([64, 64, 10])
    return Setup(model, F.cross_entropy, adam(model), X / 16, y, epochs=1, loop=by_trainer)


@sick("no-zero-grad", where="loop", also="lr-too-high " + HIDDEN)
def cleared_before_the_loop_only():
    def loop(s):
        s.model.zero_grad()
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step()

    X, y = wines()
    model = mlp(13, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.01), scaled(X), y, loop=loop)
