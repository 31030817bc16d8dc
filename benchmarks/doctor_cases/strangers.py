"""Faults in other people's style: trainers, functions, tuples, arrays, slices, one-liners."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import nn
from torch.utils.data import DataLoader, Dataset

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    flowers,
    kinds,
    mlp,
    numbers,
    scaled,
    sgd,
    sick,
    wines,
    yes_no,
)


class Trainer:
    """A class as many people write it once and for all."""

    def __init__(self, model, criterion, optimizer, loader, prepare=lambda out: out):
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.loader, self.prepare = loader, prepare
        self.history = {"loss": []}

    def step(self, batch):
        inputs, targets = batch
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(self.prepare(self.model(inputs)), targets)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, epochs):
        for _ in range(epochs):
            self.model.train()
            losses = [self.step(batch) for batch in self.loader]
            self.history["loss"].append(np.mean(losses))
        return self


def by_trainer(s):
    Trainer(s.model, s.loss, s.optimizer, s.batches()).fit(s.epochs)


def by_slices(s):
    n = len(s.X)
    for _epoch in range(s.epochs):
        perm = np.random.default_rng(0).permutation(n)
        for start in range(0, n, s.batch_size):
            idx = perm[start : start + s.batch_size]
            pred = s.model(s.X[idx])
            cost = s.loss(pred, s.y[idx])
            s.optimizer.zero_grad()
            cost.backward()
            s.optimizer.step()


class Deep(nn.Module):
    """Layers by number, activation and end by function."""

    def __init__(self, sizes, act=torch.relu, end=None):
        super().__init__()
        for i, (a, b) in enumerate(pairwise(sizes)):
            setattr(self, f"layer{i}", nn.Linear(a, b))
        self.n, self.act, self.end = len(sizes) - 1, act, end

    def forward(self, x):
        for i in range(self.n):
            x = getattr(self, f"layer{i}")(x)
            if i < self.n - 1:
                x = self.act(x)
        return x if self.end is None else self.end(x)


@sick("softmax-before-ce", where="layer2")
def a_trainer_with_softmax():
    X, y = wines()
    model = Deep([13, 24, 24, 3], end=lambda x: x.softmax(1))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 3e-3), scaled(X), y, loop=by_trainer)


@sick("softmax-before-ce", where="layer1")
def probabilities_made_by_hand():
    def end(x):
        e = torch.exp(x - x.max(1, keepdim=True).values)
        return e / e.sum(1, keepdim=True)

    X, y = kinds(k=4)
    model = Deep([8, 24, 4], end=end)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.2), X, y, loop=by_slices)


@sick("sigmoid-before-bce-logits", where="layer1")
def a_sigmoid_method_with_weights():
    X, y = yes_no()
    model = Deep([6, 24, 1], end=lambda x: x.sigmoid())
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))
    return Setup(model, loss, sgd(model, 0.1), X, y, loop=by_trainer)


@sick("missing-final-activation", where="layer1")
def raw_scores_into_functional_bce():
    X, y = yes_no()
    model = Deep([6, 24, 1])
    return Setup(model, F.binary_cross_entropy, adam(model), X, y, loop=by_slices)


@sick("activation-on-logits", where="layer2")
def the_activation_after_every_layer():
    class Every(Deep):
        def forward(self, x):
            for i in range(self.n):
                x = self.act(getattr(self, f"layer{i}")(x))
            return x

    X, y = digits()
    model = Every([64, 32, 32, 10])
    return Setup(model, F.cross_entropy, adam(model), X / 16, y, loop=by_trainer)


@sick("labels-vs-outputs", where="y")
def functional_loss_and_labels_from_one():
    X, y = flowers()
    model = Deep([4, 16, 3])
    return Setup(model, F.cross_entropy, adam(model), scaled(X), y + 1, loop=by_slices)


@sick("labels-vs-outputs", where="y")
def labels_of_one_and_two_for_bce():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y + 1, epochs=30)


@sick("dtype-mismatch", where="y")
def one_hot_integers():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, F.one_hot(y, 3), loop=by_slices)


@sick("target-shape-broadcast", "dtype-mismatch", "labels-vs-outputs", where="y")
def labels_in_a_column():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y[:, None], loop=by_trainer)


@sick("target-shape-broadcast", where="y")
def flat_labels_for_bce():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y[:, 0], loop=by_slices)


@sick("target-shape-broadcast", where="y", also="loss-stuck")
def squared_error_by_hand_with_flat_targets():
    def loss(pred, y):
        return ((pred - y) ** 2).mean()

    X, y = numbers()
    model = Deep([6, 32, 1])
    return Setup(model, loss, adam(model, 0.01), X, y[:, 0], loop=by_slices)


@sick("target-shape-broadcast", "loss-task-mismatch", where="y loss")
def squared_error_for_three_scores():
    X, y = kinds(n=300)
    model = mlp(8, 16, 3)
    return Setup(model, nn.MSELoss(), adam(model), X, y.float(), loop=by_trainer)


@sick("output-range", where="layer1", also="dead-relu")
def relu_method_for_centred_targets():
    X, y = numbers()
    model = Deep([6, 32, 1], end=lambda x: x.clamp(min=0))
    return Setup(model, F.mse_loss, adam(model, 3e-3), X, y, loop=by_slices)


@sick("output-range", where="act")
def tanh_for_temperatures():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out, self.act = nn.Linear(6, 32), nn.Linear(32, 1), nn.Tanh()

        def forward(self, x):
            return self.act(self.out(self.act(self.hidden(x))))

    X, y = numbers()
    model = Net()
    return Setup(model, nn.L1Loss(), adam(model, 0.01), X, 12 + 6 * y, loop=by_trainer)


@sick("linear-stack", where="layer0 layer1")
def identity_for_an_activation():
    X, y = kinds(k=4)
    model = Deep([8, 32, 32, 4], act=lambda x: x)
    return Setup(model, F.cross_entropy, adam(model), X, y, loop=by_slices)


@sick("no-gradient-to-layer", where="encoder.0 encoder")
def a_detour_through_numpy():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            z = self.encoder(x)
            z = torch.from_numpy(np.tanh(z.detach().numpy()))
            return self.head(z)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, loop=by_trainer)


@sick("no-gradient-to-layer", where="skip")
def a_branch_that_is_thrown_away():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.skip = nn.Linear(8, 32), nn.Linear(8, 32)
            self.out = nn.Linear(32, 3)

        def forward(self, x):
            h = torch.relu(self.main(x))
            s = self.skip(x)  # noqa: F841 - the mistake
            return self.out(h)

    X, y = kinds()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=by_slices)


@sick(
    "weights-not-updating", "no-gradient-to-layer",
    where="loop forward 0 2 optimizer", also="loss-stuck",
)  # fmt: skip
def the_loss_made_a_tensor_anew():
    def loop(s):
        for _ in range(5):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                loss = s.loss(s.model(xb), yb)
                loss = torch.tensor(loss.item(), requires_grad=True)
                loss.backward()
                s.optimizer.step()

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=loop)


@sick("weights-not-updating", where="loop", also="loss-stuck no-gradient-to-layer")
def forward_under_no_grad():
    def loop(s):
        for _ in range(5):
            for xb, yb in s.batches():
                with torch.no_grad():
                    out = s.model(xb)
                loss = s.loss(out, yb)
                s.optimizer.zero_grad()
                loss.backward()
                s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y, loop=loop)


@sick("params-not-in-optimizer", where="optimizer blocks forward")
def blocks_in_a_dictionary():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = {"a": nn.Linear(8, 32), "b": nn.Linear(32, 32)}
            self.final = nn.Linear(32, 3)

        def forward(self, x):
            return self.final(F.relu(self.blocks["b"](F.relu(self.blocks["a"](x)))))

    X, y = kinds()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X, y, loop=by_trainer)


@sick("params-not-in-optimizer", "frozen-parameters", where="optimizer layer0 layer1")
def the_last_layer_only():
    X, y = yes_no()
    model = Deep([6, 32, 32, 1])
    optimizer = torch.optim.Adam(model.layer2.parameters(), lr=0.003)
    return Setup(model, nn.BCEWithLogitsLoss(), optimizer, X, y, loop=by_slices)


@sick("frozen-parameters", where="layer0 layer1")
def frozen_by_name():
    X, y = kinds()
    model = Deep([8, 64, 32, 3])
    for name, p in model.named_parameters():
        if not name.startswith("layer2"):
            p.requires_grad_(False)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X, y, loop=by_trainer)


@sick("dropout-misuse", where="net.1")
def keep_probability_of_the_old_days():
    class Net(nn.Module):
        def __init__(self, keep_prob=0.95):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(13, 64), nn.Dropout(keep_prob), nn.ReLU())
            self.out = nn.Linear(64, 3)

        def forward(self, x):
            return self.out(self.net(x))

    X, y = wines()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), scaled(X), y, loop=by_trainer)


@sick("wrong-mode", "dropout-misuse", where="forward loop fc1 fc2")
def functional_dropout_that_never_stops():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 64), nn.Linear(64, 1)

        def forward(self, x):
            return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5))

    def loop(s):
        for _ in range(s.epochs):
            s.model.train()
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            s.model.eval()
            with torch.no_grad():
                s.loss(s.model(s.X_val), s.y_val)

    X, y = numbers()
    model = Net()
    return Setup(
        model, nn.MSELoss(), adam(model, 0.005), X[:300], y[:300], X[300:], y[300:], loop=loop
    )


@sick("batchnorm-single-row", where="batch_size")
def one_wine_too_many():
    X, y = wines()
    model = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model), X[:161], y[:161], batch_size=16, loop=by_trainer)


@sick("symmetric-init", where="layer0", also="loss-stuck underfitting")
def weights_zero_and_biases_one():
    X, y = yes_no()
    model = Deep([6, 24, 1], act=torch.sigmoid)
    for p in model.parameters():
        p.data.fill_(1.0 if p.dim() == 1 else 0.0)
    return Setup(model, nn.BCEWithLogitsLoss(), sgd(model, 0.1), X, y, loop=by_slices)


@sick("init-scale", where="layer0 layer1 layer2", also="exploding-gradients underfitting")
def uniform_from_zero_to_one():
    X, y = digits()
    model = Deep([64, 128, 64, 10])
    for p in model.parameters():
        nn.init.uniform_(p, 0.0, 1.0)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X / 16, y, loop=by_trainer)


@sick("init-scale", "saturated-activation", where="layer0 layer1 layer2", also="underfitting")
def randn_weights_under_sigmoid():
    X, y = digits()
    model = Deep([64, 64, 64, 10], act=torch.sigmoid)
    for p in model.parameters():
        p.data = torch.randn_like(p) * 1.5
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05), X / 16, y, loop=by_slices)


@sick("nan-in-data", where="X", also="non-finite-loss")
def a_column_scaled_by_zero():
    X, y = numbers()
    X[:, 2] = 4.0
    X = (X - X.mean(0)) / X.std(0)  # 0 / 0
    model = Deep([6, 16, 1])
    return Setup(model, nn.MSELoss(), adam(model), X, y, loop=by_trainer)


@sick(
    "unscaled-features", where="X", also="lr-too-high dead-relu loss-stuck underfitting init-scale"
)
def missing_values_coded_as_minus_999():
    X, y = yes_no(n=500)
    X[torch.rand(500, 6, generator=torch.Generator().manual_seed(0)) < 0.05] = -999.0
    model = Deep([6, 32, 1])
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=by_slices)


@sick(
    "unscaled-features", where="X", also="lr-too-high dead-relu loss-stuck underfitting init-scale"
)
def bytes_from_0_to_255():
    X, y = digits()
    model = Deep([64, 64, 10], act=torch.sigmoid)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X * 15.9, y, loop=by_trainer)


@sick(
    "unscaled-features", where="X", also="lr-too-high dead-relu loss-stuck underfitting init-scale"
)
def seconds_since_1970():
    X, y = numbers()
    X = torch.cat([X, 1.7e9 + 1e6 * torch.rand(len(X), 1)], 1)
    model = mlp(7, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y, loop=by_slices)


@sick("unscaled-targets", where="y", also="lr-too-high loss-stuck underfitting exploding-gradients")
def salaries():
    X, y = numbers(n=700)
    model = Deep([6, 64, 64, 1])
    return Setup(model, F.mse_loss, adam(model), X, 52_000 + 18_000 * y, loop=by_trainer)


@sick("target-leakage", where="X")
def the_squared_amount_is_a_column():
    X, y = numbers()
    X = torch.cat([X, scaled((y + 5) ** 3)], 1)
    model = mlp(7, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.003), X, y, loop=by_slices)


@sick("class-imbalance", where="y")
def one_digit_in_fifteen_against_the_rest():
    X, y = digits()
    keep = (y != 8) | (torch.arange(len(y)) % 3 == 0)
    X, y = X[keep] / 16, (y[keep] == 8).float()[:, None]
    model = mlp(64, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, loop=by_trainer)


class Rows(Dataset):
    """A data set of one's own, as a list of pairs."""

    def __init__(self, X, y):
        self.pairs = list(zip(X, y))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


@sick("sorted-no-shuffle", where="y loop X", also="loss-stuck lr-too-high")
def wines_in_the_order_of_the_file():
    X, y = datasets.load_wine(return_X_y=True)
    X, y = scaled(X), torch.tensor(y)
    loader = DataLoader(Rows(X, y), batch_size=16)
    model = Deep([13, 24, 3])
    loss = nn.CrossEntropyLoss()
    return Setup(
        model, loss, sgd(model, 0.05), X, y,
        batch_size=16, shuffle=False, loader=loader, loop=by_trainer,
    )  # fmt: skip


@sick("no-zero-grad", where="loop", also="lr-too-high")
def another_network_is_cleared():
    def loop(s):
        other = mlp(6, 16, 1)
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                other.zero_grad()
                loss = F.mse_loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step()

    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.002), X, y, loop=loop)


@sick("lr-too-low", where="optimizer loop", also="loss-stuck too-few-epochs underfitting")
def a_tenth_with_every_epoch():
    def loop(s):
        schedule = torch.optim.lr_scheduler.ExponentialLR(s.optimizer, 0.1)
        for _ in range(s.epochs):
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()
            schedule.step()

    X, y = kinds(k=5, n=600)
    model = mlp(8, 24, 5)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.02), X, y, loop=loop)


@sick("lr-too-high", where="optimizer", also="loss-stuck dead-relu underfitting non-finite-loss")
def rmsprop_at_one():
    X, y = numbers()
    model = Deep([6, 64, 64, 1])
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1.0)
    return Setup(model, F.mse_loss, optimizer, X, y, loop=by_slices)


@sick("wrong-mode", where="loop")
def train_false_after_the_first_epoch():
    def loop(s):
        args = SimpleNamespace(epochs=s.epochs)
        for epoch in range(args.epochs):
            if epoch == 0:
                s.model.train()
            running = 0.0
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                loss = s.loss(s.model(xb), yb)
                loss.backward()
                s.optimizer.step()
                running += loss.item()
            s.model.train(False)
            (s.model(s.X).argmax(1) == s.y).float().mean().item()

    X, y = kinds(k=4)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.4), nn.Linear(64, 4))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X, y, loop=loop)


@sick("inplace-update", where="forward layer0 layer1 loop")
def a_residual_sum_in_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer0, self.layer1 = nn.Linear(6, 16), nn.Linear(16, 16)
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            h = torch.tanh(self.layer0(x))
            h += self.layer1(h)
            return self.out(h)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model), X, y, loop=by_trainer)


@sick("loss-reduction", where="loss")
def functional_loss_without_reduction():
    def loss(out, y):
        return F.cross_entropy(out, y, reduction="none")

    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, loss, adam(model), X, y, loop=by_slices)
