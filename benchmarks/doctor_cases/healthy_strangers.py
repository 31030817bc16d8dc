"""Nothing is wrong here: other people's style, and what looks most like a mistake."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    healthy,
    kinds,
    mlp,
    numbers,
    scaled,
    sgd,
    tumours,
    wines,
    yes_no,
)
from doctor_cases.strangers import Deep, Trainer, by_slices, by_trainer


@healthy
def a_trainer_that_is_right():
    X, y = wines()
    model = Deep([13, 32, 32, 3], act=F.silu)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 3e-3), scaled(X), y, loop=by_trainer)


@healthy
def slices_of_a_permutation():
    X, y = numbers()
    model = Deep([6, 48, 48, 1], act=torch.tanh)
    return Setup(model, F.mse_loss, adam(model, 5e-3), X, y, loop=by_slices)


@healthy
def log_softmax_before_cross_entropy():
    X, y = kinds()
    model = mlp(8, 24, 3, end=(nn.LogSoftmax(dim=1),))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y)


@healthy
def relu_for_amounts_above_zero():
    X, y = numbers()
    model = mlp(6, 48, 1, end=(nn.ReLU(),))
    model[2].bias.data.fill_(1.5)
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, (y + 3).clamp(min=0.1))


@healthy
def squeezed_in_the_loop():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb).squeeze(1), yb).backward()
                s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y[:, 0], loop=loop, before=False)


@healthy
def labels_made_floats_in_the_loop():
    def loop(s):
        Trainer(
            s.model, lambda out, y: s.loss(out, y.float().unsqueeze(1)), s.optimizer, s.batches()
        ).fit(s.epochs)

    X, y = yes_no()
    model = Deep([6, 32, 1])
    loss = nn.BCEWithLogitsLoss()
    y = y[:, 0].long()
    return Setup(model, loss, adam(model, 0.005), X, y, loop=loop, before=False)


@healthy
def rows_made_floats_in_the_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = mlp(64, 48, 10)

        def forward(self, x):
            return self.fc(x.float() / 16)

    X, y = digits()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X.to(torch.uint8), y)


@healthy
def scores_and_hidden_values():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(8, 32), nn.Linear(32, 3)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return self.head(h), h

    def loss(out, y):
        scores, hidden = out
        return F.cross_entropy(scores, y) + 1e-3 * hidden.square().mean()

    X, y = kinds()
    model = Net()
    return Setup(model, loss, adam(model, 0.005), X, y)


@healthy
def the_loss_in_the_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(6, 32, 1)

        def forward(self, x, y=None):
            out = self.net(x)
            return out if y is None else F.mse_loss(out, y)

    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.model(xb, yb).backward()
                s.optimizer.step()

    X, y = numbers()
    model = Net()
    return Setup(model, F.mse_loss, adam(model, 0.01), X, y, loop=loop)


@healthy
def weights_and_data_changed_by_hand():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
                for m in s.model:
                    if isinstance(m, nn.Linear):  # a limit on the size of the weights
                        m.weight.data.clamp_(-2, 2)

    X, y = kinds(k=4)
    model = mlp(8, 32, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y, loop=loop)


@healthy
def the_best_restored_after_every_bad_epoch():
    def loop(s):
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(s.optimizer, patience=3)
        for _ in range(s.epochs):
            s.model.train()
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            s.model.eval()
            with torch.no_grad():
                schedule.step(s.loss(s.model(s.X_val), s.y_val))

    X, y = tumours()
    X = scaled(X)
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), X[:420], y[:420], X[420:], y[420:], loop=loop)


@healthy
def two_heads_and_a_sum_of_losses():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 48), nn.ReLU())
            self.kind, self.amount = nn.Linear(48, 3), nn.Linear(48, 1)

        def forward(self, x):
            h = self.body(x)
            return torch.cat([self.kind(h), self.amount(h)], 1)

    def loss(out, y):
        return F.cross_entropy(out[:, :3], y[:, 0].long()) + F.mse_loss(out[:, 3:], y[:, 1:])

    X, y = kinds()
    both = torch.cat([y[:, None].float(), scaled(X[:, :1] + X[:, 1:2])], 1)
    model = Heads()
    return Setup(model, loss, adam(model, 0.005), X, both)


@healthy
def one_hot_targets_with_squared_error():
    X, y = kinds(k=4)
    model = mlp(8, 32, 4, end=(nn.Softmax(dim=1),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, F.one_hot(y, 4).float())


@healthy
def a_warm_start():
    X, y = kinds(k=4)
    model = mlp(8, 32, 4)
    by_slices(Setup(model, F.cross_entropy, adam(model, 0.01), X, y, epochs=15))
    model.zero_grad(set_to_none=True)
    return Setup(model, F.cross_entropy, sgd(model, 0.02), X, y, epochs=10)
