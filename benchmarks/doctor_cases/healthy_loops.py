"""Nothing is wrong here: optimizers and loops that only look odd."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from doctor_cases.frame import (
    Setup,
    adam,
    flowers,
    healthy,
    kinds,
    mlp,
    numbers,
    plain,
    scaled,
    sgd,
    wines,
    yes_no,
)


@healthy
def groups_with_rates_of_their_own():
    X, y = yes_no()
    model = mlp(6, 32, 32, 1)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.003,
    )
    return Setup(model, nn.BCEWithLogitsLoss(), optimizer, X, y)


@healthy
def an_optimizer_for_each_part():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                for one in s.optimizer:
                    one.zero_grad(set_to_none=False)
                s.loss(s.model(xb), yb).backward()
                for one in s.optimizer:
                    one.step()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = mlp(8, 32, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(F.relu(self.body(x)))

    X, y = kinds()
    model = Net()
    optimizers = [adam(model.body, 0.003), sgd(model.head, 0.05)]
    return Setup(model, nn.CrossEntropyLoss(), optimizers, X, y, loop=loop)


@healthy
def lbfgs():
    def loop(s):
        def closure():
            s.optimizer.zero_grad()
            loss = s.loss(s.model(s.X), s.y)
            loss.backward()
            return loss

        for _ in range(8):
            s.optimizer.step(closure)

    X, y = flowers()
    model = mlp(4, 8, 3, act=nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=10)
    return Setup(
        model, nn.CrossEntropyLoss(), optimizer, scaled(X), y,
        batch_size=150, epochs=8, shuffle=None, loop=loop,
    )  # fmt: skip


@healthy
def four_batches_for_one_step():
    def loop(s):
        for _ in range(s.epochs):
            s.optimizer.zero_grad()
            for i, (xb, yb) in enumerate(s.batches()):
                (s.loss(s.model(xb), yb) / 4).backward()
                if (i + 1) % 4 == 0:
                    s.optimizer.step()
                    s.optimizer.zero_grad()

    X, y = numbers(n=512)
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, batch_size=16, loop=loop)


@healthy
def gradients_set_to_none_by_hand():
    def loop(s):
        for _ in range(s.epochs):
            order = torch.randperm(len(s.X))
            for i in range(0, len(order), 32):
                rows = order[i : i + 32]
                for p in s.model.parameters():
                    p.grad = None
                loss = s.loss(s.model(s.X[rows]), s.y[rows])
                loss.backward()
                nn.utils.clip_grad_norm_(s.model.parameters(), 1.0)
                s.optimizer.step()

    X, y = kinds()
    model = mlp(8, 24, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.2), X, y, loop=loop)


@healthy
def gradients_zeroed_after_the_step():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                out = s.model(xb)
                loss = F.binary_cross_entropy_with_logits(out, yb)
                loss.backward()
                s.optimizer.step()
                s.model.zero_grad()

    X, y = yes_no()
    model = mlp(6, 24, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.005), X, y, loop=loop)


@healthy
def trained_until_nothing_is_left_to_learn():
    X, y = kinds(spread=2.5)
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y, epochs=80)


@healthy
def regression_until_nothing_is_left_to_learn():
    X, y = numbers(n=300, d=4, noise=0.0)
    model = mlp(4, 64, 1, act=nn.Tanh)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, epochs=120)


@healthy
def stopped_early_with_the_best_kept():
    def loop(s):
        best, kept, wait = float("inf"), None, 0
        for _ in range(100):
            s.model.train()
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            s.model.eval()
            with torch.no_grad():
                now = s.loss(s.model(s.X_val), s.y_val).item()
            if now < best:
                best, kept, wait = now, copy.deepcopy(s.model.state_dict()), 0
            else:
                wait += 1
                if wait == 6:
                    break
        s.model.load_state_dict(kept)

    X, y = yes_no(n=600)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    loss = nn.BCEWithLogitsLoss()
    return Setup(
        model, loss, adam(model, 0.005), X[:450], y[:450], X[450:], y[450:], epochs=100, loop=loop
    )


@healthy
def all_modes_set_as_they_should_be():
    def loop(s):
        def train_epoch():
            s.model.train()
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step()

        @torch.no_grad()
        def accuracy(X, y):
            s.model.eval()
            return (s.model(X).argmax(1) == y).float().mean().item()

        for _ in range(s.epochs):
            train_epoch()
            accuracy(s.X, s.y)
            accuracy(s.X_val, s.y_val)

    X, y = kinds(k=4, n=600)
    model = nn.Sequential(
        nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 4)
    )
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model, 0.003), X[:448], y[:448], X[448:], y[448:], loop=loop)


@healthy
def dropout_kept_for_the_spread_of_the_answers():
    def loop(s):
        plain(s)
        s.model.eval()
        for m in s.model.modules():
            if isinstance(m, nn.Dropout):
                m.train()
        with torch.no_grad():
            torch.stack([s.model(s.X) for _ in range(20)]).std(0)

    X, y = numbers()
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, y, loop=loop)


@healthy
def the_whole_table_at_once():
    def loop(s):
        for _ in range(s.epochs):
            out = s.model(s.X)
            loss = s.loss(out, s.y)
            s.optimizer.zero_grad()
            loss.backward()
            s.optimizer.step()

    X, y = numbers(n=200)
    model = mlp(6, 32, 1, act=nn.Tanh)
    return Setup(
        model, nn.MSELoss(), adam(model, 0.01), X, y, batch_size=200, epochs=300, loop=loop
    )


@healthy
def an_average_of_the_weights_judged():
    def loop(s):
        average = AveragedModel(s.model)
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            average.update_parameters(s.model)
        average.eval()
        with torch.no_grad():
            s.loss(average(s.X), s.y)

    X, y = wines()
    model = mlp(13, 16, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, sgd(model, 0.1), scaled(X), y, batch_size=16, loop=loop)


@healthy
def weights_changed_by_hand_under_no_grad():
    def loop(s):
        for _ in range(s.epochs):
            s.model.zero_grad()
            s.loss(s.model(s.X), s.y).backward()
            with torch.no_grad():
                for p in s.model.parameters():
                    p -= 0.1 * p.grad

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), None, X, y, batch_size=450, epochs=250, loop=loop)


@healthy
def a_penalty_added_to_the_loss():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                loss = s.loss(s.model(xb), yb)
                loss = loss + 1e-4 * sum(p.abs().sum() for p in s.model.parameters())
                loss.backward()
                s.optimizer.step()

    X, y = yes_no()
    model = mlp(6, 32, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.005), X, y, loop=loop)


@healthy
def noise_added_to_the_rows():
    def loop(s):
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb + 0.05 * torch.randn_like(xb)), yb).backward()
                s.optimizer.step()

    X, y = kinds(k=5, n=500)
    model = mlp(8, 48, 5, act=nn.Mish)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y, loop=loop)
