"""The optimizer and the loop: seven rules."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    flowers,
    kinds,
    mlp,
    numbers,
    plain,
    scaled,
    sgd,
    sick,
    wines,
    yes_no,
)

WILD = "loss-stuck dead-relu exploding-gradients non-finite-loss saturated-activation underfitting"

# O1 lr-too-high


@sick("lr-too-high", where="optimizer", also=WILD)
def sgd_at_fifty():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 50.0), X, y)


@sick("lr-too-high", where="optimizer", also=WILD)
def adam_at_three():
    X, y = yes_no()
    model = mlp(6, 32, 32, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 3.0), X, y)


@sick("lr-too-high", where="optimizer", also=WILD)
def a_rate_that_ends_in_nan():
    X, y = numbers()
    model = mlp(6, 64, 64, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 2.0), X, y)


@sick("lr-too-high", where="optimizer", also=WILD)
def adam_at_a_half_for_a_deep_net():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 64, 64, 64, 5)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.5), X, y)


@sick("lr-too-high", where="optimizer", also=WILD)
def momentum_of_ninety_nine():
    X, y = numbers()
    model = mlp(6, 64, 64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.99)
    return Setup(model, nn.MSELoss(), optimizer, X, y)


# O2 lr-too-low

SLOW = "loss-stuck too-few-epochs underfitting"


@sick("lr-too-low", where="optimizer", also=SLOW)
def adam_at_a_ten_millionth():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 1e-7), X, y)


@sick("lr-too-low", where="optimizer", also=SLOW)
def sgd_at_a_hundred_thousandth():
    X, y = numbers()
    model = mlp(6, 32, 32, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 1e-5), X, y)


@sick("lr-too-low", where="optimizer loop", also=SLOW)
def the_schedule_steps_with_every_batch():
    def loop(s):
        schedule = torch.optim.lr_scheduler.StepLR(s.optimizer, step_size=10, gamma=0.1)
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
                schedule.step()

    X, y = kinds(k=4, n=600)
    model = mlp(8, 16, 4)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X, y, loop=loop, epochs=30)


# O3 weight-decay-too-strong


@sick("weight-decay-too-strong", where="optimizer", also="loss-stuck underfitting")
def adam_with_a_decay_of_one():
    X, y = yes_no()
    model = mlp(6, 32, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.003, weight_decay=1.0), X, y)


@sick("weight-decay-too-strong", where="optimizer", also="loss-stuck underfitting")
def sgd_with_a_decay_of_a_third():
    X, y = kinds()
    model = mlp(8, 32, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05, weight_decay=0.33), X, y)


@sick("weight-decay-too-strong", where="optimizer", also="loss-stuck underfitting")
def adamw_that_forgets():
    X, y = numbers()
    model = mlp(6, 32, 1)
    optimizer = torch.optim.AdamW(model.parameters(), 0.02, weight_decay=5.0)
    return Setup(model, nn.MSELoss(), optimizer, X, y)


# O4 no-zero-grad


@sick("no-zero-grad", where="loop", also="lr-too-high")
def gradients_are_never_cleared():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.01), X, y, loop=loop)


@sick("no-zero-grad", where="loop", also="lr-too-high")
def adam_without_clearing():
    def loop(s):
        for _ in range(s.epochs):
            pick = torch.randperm(len(s.X)).split(32)
            for rows in pick:
                F.cross_entropy(s.model(s.X[rows]), s.y[rows]).backward()
                s.optimizer.step()

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=loop)


@sick("no-zero-grad", where="loop", also="lr-too-high")
def cleared_once_an_epoch():
    def loop(s):
        for _ in range(s.epochs):
            s.optimizer.zero_grad()
            for xb, yb in s.batches():
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()

    X, y = yes_no()
    model = mlp(6, 16, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=loop)


# O5 weights-not-updating


def still(loop_of_one_batch):
    def loop(s):
        for _ in range(10):
            for xb, yb in s.batches():
                loop_of_one_batch(s, xb, yb)

    return loop


@sick("weights-not-updating", where="loop", also="loss-stuck")
def cleared_before_the_step():
    def batch(s, xb, yb):
        loss = s.loss(s.model(xb), yb)
        loss.backward()
        s.optimizer.zero_grad()
        s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y, loop=still(batch))


@sick("weights-not-updating", where="loop", also="loss-stuck")
def the_step_is_missing():
    def batch(s, xb, yb):
        s.optimizer.zero_grad()
        s.loss(s.model(xb), yb).backward()

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model), X, y, loop=still(batch))


@sick("weights-not-updating", where="loop", also="loss-stuck")
def backward_is_missing():
    def batch(s, xb, yb):
        s.optimizer.zero_grad()
        s.loss(s.model(xb), yb)
        s.optimizer.step()

    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=still(batch))


@sick("weights-not-updating", where="optimizer", also="loss-stuck lr-too-low")
def a_rate_of_zero():
    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.0), X, y, epochs=5)


@sick("weights-not-updating", "params-not-in-optimizer", where="optimizer", also="loss-stuck")
def the_optimizer_of_a_copy():
    X, y = flowers()
    model = mlp(4, 16, 3)
    optimizer = adam(copy.deepcopy(model), 0.01)
    return Setup(model, nn.CrossEntropyLoss(), optimizer, X, y, epochs=10)


# O6 wrong-mode


def with_dropout(d, k, norm=False):
    middle = (nn.BatchNorm1d(32),) if norm else ()
    return nn.Sequential(nn.Linear(d, 32), *middle, nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, k))


@sick("wrong-mode", where="loop")
def eval_and_never_train_again():
    def loop(s):
        s.model.train()
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            s.model.eval()
            with torch.no_grad():
                s.loss(s.model(s.X_val), s.y_val)

    X, y = kinds()
    model = with_dropout(8, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model), X[:350], y[:350], X[350:], y[350:], loop=loop)


@sick("wrong-mode", where="loop", also="overfitting")
def validation_in_train_mode():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            with torch.no_grad():
                s.loss(s.model(s.X_val), s.y_val).item()

    X, y = yes_no()
    model = with_dropout(6, 1, norm=True)
    loss = nn.BCEWithLogitsLoss()
    return Setup(
        model, loss, adam(model, 0.003), X[:320], y[:320], X[320:], y[320:],
        loop=loop, drop_last=True,
    )  # fmt: skip


@sick("wrong-mode", where="loop")
def trained_in_eval_mode():
    def loop(s):
        s.model.eval()
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()

    X, y = numbers()
    model = with_dropout(6, 1, norm=True)
    return Setup(model, nn.MSELoss(), adam(model, 0.003), X, y, loop=loop)


# O7 inplace-update


@sick("inplace-update", where="forward h2 act fc1 fc2")
def an_activation_changed_in_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 1)

        def forward(self, x):
            h = torch.sigmoid(self.fc1(x))
            h *= 2
            return self.fc2(h)

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("inplace-update", where="loop")
def a_weight_changed_by_hand():
    def loop(s):
        for _ in range(5):
            s.loss(s.model(s.X), s.y).backward()
            for p in s.model.parameters():
                p -= 0.01 * p.grad

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), None, X, y, batch_size=400, epochs=300, loop=loop)


@sick("inplace-update", where="loop 2")
def a_weight_replaced_by_a_tensor():
    def loop(s):
        plain_epochs, s.epochs = s.epochs, 1
        for _ in range(plain_epochs):
            plain(s)
            s.model[2].weight = s.model[2].weight * 0.99

    X, y = wines()
    model = mlp(13, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), scaled(X), y, loop=loop)
