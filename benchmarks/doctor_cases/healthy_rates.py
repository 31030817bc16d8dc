"""Nothing is wrong here: optimizers, rates and schedules that only look odd."""

from __future__ import annotations

import torch
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    healthy,
    kinds,
    mlp,
    numbers,
    sgd,
    yes_no,
)


@healthy
def adam_at_a_twentieth():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.05), X, y)


@healthy
def adam_at_a_tenth():
    X, y = yes_no()
    model = mlp(6, 12, 1, act=nn.Tanh)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.1), X, y)


@healthy
def sgd_at_a_half():
    X, y = kinds()
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.5), X, y)


@healthy
def sgd_at_one():
    X, y = yes_no()
    model = mlp(6, 16, 1, act=nn.Tanh)
    return Setup(model, nn.BCEWithLogitsLoss(), sgd(model, 1.0), X, y)


@healthy
def nesterov():
    X, y = numbers()
    model = mlp(6, 32, 32, 1)
    optimizer = sgd(model, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return Setup(model, nn.MSELoss(), optimizer, X, y)


@healthy
def adadelta_with_its_own_rate():
    X, y = kinds()
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), torch.optim.Adadelta(model.parameters()), X, y)


@healthy
def adagrad():
    X, y = yes_no()
    model = mlp(6, 32, 1)
    optimizer = torch.optim.Adagrad(model.parameters(), 0.05)
    return Setup(model, nn.BCEWithLogitsLoss(), optimizer, X, y)


@healthy
def rmsprop_and_nadam_in_turn():
    def loop(s):
        for optimizer in s.optimizer:
            for _ in range(10):
                for xb, yb in s.batches():
                    optimizer.zero_grad()
                    s.loss(s.model(xb), yb).backward()
                    optimizer.step()

    X, y = numbers()
    model = mlp(6, 32, 1)
    both = [
        torch.optim.RMSprop(model.parameters(), 0.005),
        torch.optim.NAdam(model.parameters(), 0.002),
    ]
    return Setup(model, nn.MSELoss(), both, X, y, loop=loop)


@healthy
def adamw_with_some_decay():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 64, 64, 5)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    return Setup(model, nn.CrossEntropyLoss(), optimizer, X, y)


def scheduled(make):
    def loop(s):
        schedule = make(s.optimizer, s.epochs * len(s.batches()))
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
                schedule.step()

    return loop


@healthy
def one_cycle():
    loop = scheduled(lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=n + 1))
    X, y = kinds(k=4)
    model = mlp(8, 32, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 1e-3), X, y, loop=loop)


@healthy
def one_cycle_with_sgd():
    loop = scheduled(lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=n + 1))
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.01, momentum=0.9), X, y, loop=loop)


@healthy
def cosine_down_to_zero():
    loop = scheduled(lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n))
    X, y = yes_no()
    model = mlp(6, 32, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.01), X, y, loop=loop)


@healthy
def a_long_warm_up():
    loop = scheduled(
        lambda o, n: torch.optim.lr_scheduler.LambdaLR(o, lambda i: min(1.0, (i + 1) / 120))
    )
    X, y = kinds()
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y, loop=loop)


@healthy
def steps_down_every_ten_epochs():
    def loop(s):
        schedule = torch.optim.lr_scheduler.StepLR(s.optimizer, 10, 0.3)
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            schedule.step()

    X, y = digits()
    model = mlp(64, 32, 10)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model, 0.01), X / 16, y, epochs=30, loop=loop)
