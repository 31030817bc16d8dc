"""The target and the loss: four rules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import Setup, adam, kinds, mlp, numbers, patients, sgd, sick, yes_no

# H8 target-shape-broadcast


@sick("target-shape-broadcast", where="y", also="loss-stuck")
def flat_target():
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y.squeeze(1))


@sick("target-shape-broadcast", where="y", also="loss-stuck")
def flat_prediction():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(6, 32, 1)

        def forward(self, x):
            return self.net(x).squeeze(-1)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.L1Loss(), adam(model, 0.01), X, y)


@sick("target-shape-broadcast", where="y 2")
def one_output_for_three_targets():
    X, y = numbers()
    model = mlp(6, 32, 1)
    three = torch.cat([y, X[:, :1] * X[:, 1:2], X[:, 2:3] ** 2], 1)
    return Setup(model, nn.SmoothL1Loss(), adam(model, 0.01), X, three)


@sick("target-shape-broadcast", where="y loop forward")
def all_rows_against_the_targets_of_a_batch():
    def loop(s):
        for _ in range(5):
            for feature, target in s.batches():  # noqa: B007 - the mistake
                s.optimizer.zero_grad()
                loss = s.loss(s.model(s.X), target)
                loss.backward()
                s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 2, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.001), X, y, batch_size=4, loop=loop)


# H9 loss-task-mismatch


@sick("loss-task-mismatch", where="loss")
def squared_error_on_class_numbers():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y.float()[:, None])


@sick("loss-task-mismatch", where="loss", also="loss-stuck no-gradient-to-layer")
def cross_entropy_with_one_float_output():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("loss-task-mismatch", where="loss")
def cross_entropy_of_two_for_amounts():
    X, _ = numbers()
    y = torch.poisson(torch.exp(0.4 * X[:, :1] + 1.2))
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("loss-task-mismatch", where="loss")
def squared_error_behind_a_sigmoid():  # a note
    X, y = yes_no()
    model = mlp(6, 16, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


# H10 output-range


@sick("output-range", where="3")
def sigmoid_for_standardised_targets():
    X, y = numbers()
    model = mlp(6, 16, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


@sick("output-range", where="out")
def functional_relu_for_targets_below_zero():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 32)
            self.out = nn.Linear(32, 1)

        def forward(self, x):
            return F.relu(self.out(F.relu(self.fc(x))))

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), sgd(model, 0.05), X, y)


@sick("output-range", where="5", also="unscaled-targets")
def tanh_for_large_targets():
    X, y = patients()
    model = mlp(10, 32, 16, 1, end=(nn.Tanh(),))
    return Setup(model, nn.L1Loss(), adam(model, 0.01), X, y / 50)


# H11 loss-reduction


@sick("loss-reduction", where="loss")
def a_loss_for_each_row():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(reduction="none"), adam(model), X, y)


@sick("loss-reduction", where="loss", also="lr-too-high exploding-gradients")
def the_sum_with_sgd():
    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(reduction="sum"), sgd(model, 0.02), X, y, batch_size=64)


@sick("loss-reduction", where="loss")
def a_function_without_a_mean():
    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, lambda out, y: (out - y) ** 2, adam(model), X, y)
