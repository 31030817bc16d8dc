"""What is seen when the cause is not: nine rules."""

from __future__ import annotations

import numpy as np
import torch
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
    yes_no,
)

STUCK = "loss-stuck underfitting lr-too-low too-few-epochs"

# S1 vanishing-gradients


@sick("vanishing-gradients", where="0 2 4", also=STUCK)
def eight_sigmoid_layers():
    X, y = kinds()
    model = mlp(8, *[20] * 8, 3, act=nn.Sigmoid)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X, y)


@sick("vanishing-gradients", where="fc.0 fc.1 fc.2", also=STUCK)
def six_functional_sigmoids():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.ModuleList([nn.Linear(6 if i == 0 else 32, 32) for i in range(6)])
            self.out = nn.Linear(32, 1)

        def forward(self, x):
            for layer in self.fc:
                x = torch.sigmoid(layer(x))
            return self.out(x)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model), X, y)


# S2 exploding-gradients


@sick("exploding-gradients", "init-scale", also="lr-too-high non-finite-loss unscaled-targets")
def thirty_loud_layers():
    X, y = numbers()
    model = mlp(6, *[64] * 24, 1)
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, a=0)
            m.weight.data *= 1.5
    return Setup(model, nn.MSELoss(), sgd(model, 1e-3), X, y)


@sick(
    "exploding-gradients",
    "lr-too-high",
    "init-scale",
    also="non-finite-loss loss-stuck linear-stack",
)
def a_network_over_many_steps():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.step, self.out = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 1)
            nn.init.orthogonal_(self.step.weight, gain=1.7)

        def forward(self, x):
            h = self.inp(x)
            for _ in range(16):
                h = nn.functional.leaky_relu(self.step(h), 0.3)
            return self.out(h)

    X, y = numbers()
    model = Recurrent()
    return Setup(model, nn.MSELoss(), sgd(model, 1e-4), X, y)


# S3 dead-relu


@sick("dead-relu", where="0 1", also="loss-stuck no-gradient-to-layer init-scale underfitting")
def biases_of_minus_ten():
    X, y = yes_no()
    model = mlp(6, 32, 1)
    nn.init.constant_(model[0].bias, -10.0)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("dead-relu", where="fc2", also="loss-stuck underfitting init-scale")
def most_units_never_fire():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)
            nn.init.constant_(self.fc2.bias, -1.2)

        def forward(self, x):
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))

    X, y = kinds()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.01), X, y)


# S4 saturated-activation


@sick("saturated-activation", "init-scale", where="1 0", also="underfitting")
def tanh_with_biases_of_eight():
    X, y = numbers()
    model = mlp(6, 32, 1, act=nn.Tanh)
    nn.init.uniform_(model[0].bias, -12.0, 12.0)
    return Setup(model, nn.MSELoss(), sgd(model, 0.01), X, y)


@sick("saturated-activation", "init-scale", "unscaled-features", where="fc1 X", also=STUCK)
def sigmoid_of_a_multiple():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 24), nn.Linear(24, 1)

        def forward(self, x):
            return self.fc2(torch.sigmoid(25 * self.fc1(x)))

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), sgd(model, 0.05), X, y)


# S5 non-finite-loss


@sick("non-finite-loss", where="loss")
def the_logarithm_of_a_probability_of_zero():
    def loss(out, y):
        p = torch.softmax(60 * out, 1)
        return -torch.log(p.gather(1, y[:, None]) - 1e-6).mean()

    X, y = kinds()
    model = mlp(8, 32, 3)
    return Setup(model, loss, adam(model, 0.01), X, y)


@sick("non-finite-loss", where="ratio")
def a_division_by_zero_in_a_layer():
    class Ratio(nn.Module):
        def forward(self, x):
            return torch.cat([x, x[:, :1] / x[:, 1:2]], 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.ratio = Ratio()
            self.net = mlp(7, 16, 1)

        def forward(self, x):
            return self.net(self.ratio(x))

    rng = np.random.default_rng(0)
    X = torch.tensor(rng.poisson(1.5, (300, 6))).float()
    y = (X[:, :1] + X[:, 2:3] > 3).float()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("non-finite-loss", where="loss")
def the_root_of_zero():
    class RootError(nn.Module):
        def forward(self, out, y):
            return torch.sqrt(torch.relu(out - y) - 1e-3).mean()

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, RootError(), adam(model), X, y)


# S6 loss-stuck


@sick("loss-stuck", "underfitting", "vanishing-gradients", also="lr-too-low")
def five_narrow_sigmoids():
    X, y = kinds(n=700)
    model = mlp(8, 4, 4, 4, 3, act=nn.Sigmoid)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05), X, y)


@sick("loss-stuck", "underfitting")
def rows_without_any_signal():
    X, y = yes_no(n=800)
    y = y[torch.randperm(800)]
    model = mlp(6, 4, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), sgd(model, 0.01), X, y, epochs=15)


# S7 overfitting


@sick("overfitting", also="underfitting")
def sixty_rows_learnt_by_heart():
    X, y = yes_no(n=260, noise=1.5)
    model = mlp(6, 128, 128, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(
        model, loss, adam(model, 3e-3), X[:60], y[:60], X[60:], y[60:], batch_size=16, epochs=80
    )


@sick("overfitting", also="underfitting")
def a_wide_net_for_few_patients():
    X, y = patients()
    y = scaled(y)
    model = mlp(10, 256, 256, 1)
    return Setup(
        model, nn.MSELoss(), adam(model, 2e-3), X[:150], y[:150], X[150:], y[150:], epochs=80
    )


# S8 underfitting


@sick("underfitting", also="too-few-epochs loss-stuck")
def labels_that_lost_their_rows():
    X, y = kinds(n=500)
    y = y[torch.randperm(500)]
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, epochs=15)


@sick("underfitting", also="too-few-epochs dead-relu loss-stuck")
def a_hidden_layer_of_one():
    X, y = digits()
    model = mlp(64, 1, 10)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X / 16, y, epochs=30)


# S9 too-few-epochs


@sick("too-few-epochs", where="loop", also="underfitting")
def two_epochs():
    X, y = kinds(k=4)
    model = mlp(8, 32, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, epochs=2)


@sick("too-few-epochs", where="loop", also="underfitting")
def cut_in_the_middle():  # a note
    X, y = digits()
    model = mlp(64, 32, 10)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 5e-4), X / 16, y, epochs=6)
