"""Nothing is wrong here: tables, targets and losses that only look odd."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    flowers,
    healthy,
    kinds,
    mlp,
    numbers,
    patients,
    plain,
    scaled,
    sgd,
    tumours,
    wines,
    yes_no,
)


@healthy
def irises_in_centimetres():
    X, y = flowers()
    model = mlp(4, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y, batch_size=16, epochs=40)


@healthy
def pixels_from_zero_to_one():
    X, y = digits()
    model = mlp(64, 64, 10)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X / 16, y, epochs=30)


@healthy
def pixels_from_zero_to_sixteen():
    X, y = digits()
    model = mlp(64, 64, 32, 10)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, epochs=30)


@healthy
def rare_one_hot_columns():
    rng = np.random.default_rng(0)
    level = rng.choice(24, 900, p=np.r_[[0.2] * 4, [0.01] * 20])
    x = rng.normal(size=(900, 3))
    y = x[:, 0] + 0.6 * (level % 3) + 0.2 * rng.normal(size=900)
    X = torch.cat([scaled(x), F.one_hot(torch.tensor(level), 24).float()], 1)
    model = mlp(27, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, scaled(y)[:, None])


@healthy
def very_rare_one_hot_levels_in_many_rows():
    rng = np.random.default_rng(1)
    level = np.minimum(rng.zipf(1.6, 1800) - 1, 40)
    x = rng.normal(size=(1800, 4))
    z = x[:, 0] - x[:, 1] * x[:, 2] + (level % 2) + 0.3 * rng.normal(size=1800)
    X = torch.cat([scaled(x), F.one_hot(torch.tensor(level)).float()], 1)
    y = torch.tensor(z > 0.4).float()[:, None]
    model = mlp(X.shape[1], 32, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.003), X, y, batch_size=64, epochs=15)


@healthy
def float64_throughout():
    X, y = numbers()
    model = mlp(6, 32, 1, act=nn.Tanh).double()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X.double(), y.double(), epochs=30)


@healthy
def float64_classifier():
    X, y = kinds()
    model = mlp(8, 16, 3).double()
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X.double(), y)


@healthy
def soft_labels():
    X, y = kinds()
    soft = F.one_hot(y, 3).float() * 0.85 + 0.05
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, soft)


@healthy
def rows_to_ignore():
    X, y = kinds(k=4)
    y[::9] = -100
    model = mlp(8, 32, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y)


@healthy
def rows_to_ignore_by_a_number_of_ones_own():
    X, y = kinds()
    y[::7] = 255
    model = mlp(8, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(ignore_index=255), sgd(model, 0.1), X, y)


@healthy
def smoothed_labels():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 32, 5)
    return Setup(model, nn.CrossEntropyLoss(label_smoothing=0.1), adam(model, 0.01), X, y)


def rare(share=0.04, n=1200):
    X, _ = yes_no(n=n)
    z = X[:, 0] + X[:, 1] + 0.4 * torch.randn(n, generator=torch.Generator().manual_seed(3))
    return X, (z > z.quantile(1 - share)).float()[:, None]


@healthy
def rare_with_pos_weight():
    X, y = rare()
    model = mlp(6, 16, 1)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([24.0]))
    return Setup(model, loss, adam(model, 0.005), X, y)


@healthy
def rare_with_class_weights():
    X, y = rare()
    model = mlp(6, 16, 2)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.52, 12.5]))
    return Setup(model, loss, adam(model, 0.005), X, y.long().squeeze(1))


@healthy
def rare_drawn_more_often():
    X, y = rare()
    weight = torch.where(y[:, 0] > 0, 24.0, 1.0)
    sampler = WeightedRandomSampler(weight.tolist(), len(y))
    loader = DataLoader(TensorDataset(X, y), 64, sampler=sampler)
    model = mlp(6, 16, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model, 0.005), X, y, batch_size=64, loader=loader)


@healthy
def four_to_one():
    X, y = rare(share=0.2)
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.005), X, y)


@healthy
def many_labels_some_of_them_rare():
    X, _ = numbers(n=900, d=8)
    y = (X[:, :4] + 0.6 * X[:, 4:] > torch.tensor([0.0, 0.5, 1.0, 1.2])).float()
    model = mlp(8, 48, 4)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.005), X, y)


@healthy
def counts_with_poisson():
    X, _ = numbers()
    y = torch.poisson(torch.exp(0.6 * X[:, :1] + 0.8))
    model = mlp(6, 16, 1)
    return Setup(model, nn.PoissonNLLLoss(), adam(model, 0.01), X, y)


@healthy
def skewed_counts_with_squared_error():
    X, _ = numbers(n=600)
    y = torch.poisson(torch.exp(0.7 * X[:, :1] + 0.3 * X[:, 1:2] + 0.3))
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


@healthy
def shares_behind_a_sigmoid():
    X, y = numbers()
    model = mlp(6, 32, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, torch.sigmoid(1.5 * y), epochs=30)


@healthy
def amounts_behind_a_softplus():
    X, y = numbers()
    model = mlp(6, 32, 1, end=(nn.Softplus(),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, torch.exp(0.5 * y))


@healthy
def targets_around_eight():
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.02), X, 8 + 2 * y, epochs=40)


@healthy
def logarithms_of_prices():
    X, y = numbers(n=600)
    model = mlp(6, 64, 1)
    return Setup(model, nn.HuberLoss(), adam(model, 0.01), X, 12.2 + 0.5 * y, epochs=60)


@healthy
def prices_given_back_in_euro():
    class Rescaled(nn.Module):
        def __init__(self, y):
            super().__init__()
            self.net = mlp(6, 32, 1)
            self.register_buffer("mean", y.mean())
            self.register_buffer("std", y.std())

        def forward(self, x):
            return self.mean + self.std * self.net(x)

    X, y = numbers()
    y = 250 + 80 * y
    model = Rescaled(y)
    return Setup(model, nn.L1Loss(), adam(model, 0.01), X, y)


@healthy
def tumours_scaled_by_the_network():
    class Scaled(nn.Module):
        def __init__(self, X):
            super().__init__()
            self.register_buffer("mean", X.mean(0))
            self.register_buffer("std", X.std(0))
            self.net = mlp(30, 32, 1)

        def forward(self, x):
            return self.net((x - self.mean) / self.std)

    X, y = tumours()
    model = Scaled(X)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.003), X, y)


@healthy
def wines_behind_batch_norm():
    X, y = wines()
    model = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model, 0.01), X, y, batch_size=16, drop_last=True)


@healthy
def scaled_tumours_with_validation():
    X, y = tumours()
    X = (X - X[:400].mean(0)) / X[:400].std(0)
    model = mlp(30, 16, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), X[:400], y[:400], X[400:], y[400:], epochs=25)


@healthy
def thirty_scaled_wines_for_validation():
    X, y = wines()
    X = (X - X[:148].mean(0)) / X[:148].std(0)
    model = mlp(13, 16, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model, 0.003), X[:148], y[:148], X[148:], y[148:], batch_size=16)


@healthy
def codes_for_embeddings():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.town = nn.Embedding(500, 8)
            self.job = nn.Embedding(40, 4)
            self.net = mlp(12, 32, 1)

        def forward(self, x):
            return self.net(torch.cat([self.town(x[:, 0]), self.job(x[:, 1])], 1))

    rng = np.random.default_rng(0)
    codes = torch.tensor(np.c_[rng.integers(0, 500, 1500), rng.integers(0, 40, 1500)])
    y = torch.sin(codes[:, :1] / 60) + 0.05 * codes[:, 1:] + 0.1 * torch.randn(1500, 1)
    model = Embedded()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), codes, scaled(y), batch_size=64)


@healthy
def numbers_and_codes_in_one_matrix():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(60, 6)
            self.fc1 = nn.Linear(4 + 6, 32)
            self.fc2 = nn.Linear(32, 2)

        def forward(self, x):
            code = self.embed(x[:, 4].long())
            return self.fc2(F.relu(self.fc1(torch.cat([x[:, :4], code], dim=1))))

    rng = np.random.default_rng(2)
    x, code = rng.normal(size=(600, 4)), rng.integers(0, 60, 600)
    y = torch.tensor(x[:, 0] * 1.5 + (code % 5) - 2 + 0.3 * rng.normal(size=600) > 0).long()
    X = torch.cat([scaled(x), torch.tensor(code)[:, None].float()], 1)
    model = Mixed()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y)


@healthy
def an_autoencoder():
    X, _ = kinds(d=10, k=4, spread=2.0)
    model = nn.Sequential(
        nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4), nn.Linear(4, 24), nn.ReLU(),
        nn.Linear(24, 10),
    )  # fmt: skip
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, X.clone(), epochs=40)


@healthy
def quantiles_of_a_single_target():
    quantiles = torch.tensor([0.1, 0.5, 0.9])

    def pinball(out, y):
        gap = y - out  # (n, 1) - (n, 3), on purpose
        return torch.maximum(quantiles * gap, (quantiles - 1) * gap).mean()

    X, y = numbers()
    model = mlp(6, 32, 3)
    return Setup(model, pinball, adam(model, 0.01), X, y)


@healthy
def mean_and_variance():
    def likelihood(out, y):
        return F.gaussian_nll_loss(out[:, :1], y, F.softplus(out[:, 1:]) + 1e-3)

    X, y = numbers()
    model = mlp(6, 32, 2)
    return Setup(model, likelihood, adam(model, 0.005), X, y)


@healthy
def rows_weighted_by_hand():
    each = nn.MSELoss(reduction="none")

    def loss(out, y):
        return (each(out, y) * (1 + y.abs())).mean()

    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, loss, adam(model, 0.01), X, y)


@healthy
def a_loss_of_ones_own_on_probabilities():
    class LogOfProbabilities(nn.Module):
        def forward(self, p, y):
            return -torch.log(p.gather(1, y[:, None]).clamp_min(1e-7)).mean()

    X, y = kinds()
    model = mlp(8, 32, 3, end=(nn.Softmax(dim=1),))
    return Setup(model, LogOfProbabilities(), adam(model, 0.005), X, y)


@healthy
def focal_loss():
    def focal(out, y):
        bce = F.binary_cross_entropy_with_logits(out, y, reduction="none")
        return ((1 - torch.exp(-bce)) ** 2 * bce).mean()

    X, y = rare(share=0.06)
    model = mlp(6, 32, 1)
    return Setup(model, focal, adam(model, 0.01), X, y)


@healthy
def the_sum_with_adam():
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(reduction="sum"), adam(model, 0.005), X, y)


@healthy
def in_random_order_without_shuffling():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y, shuffle=False)


@healthy
def thirty_rows_and_three_hundred_epochs():
    X, y = flowers()
    model = mlp(4, 8, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model, 0.02), scaled(X)[:30], y[:30], batch_size=30, epochs=300)


@healthy
def a_weak_signal():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1500, 5))
    y = torch.tensor(0.9 * x[:, 0] + 0.6 * x[:, 1] + 2.0 * rng.logistic(size=1500) > 0)
    model = mlp(5, 8, 1)
    loss = nn.BCEWithLogitsLoss()
    X, y = scaled(x), y.float()[:, None]
    return Setup(model, loss, adam(model, 0.003), X, y, batch_size=64, epochs=20, loop=plain)


@healthy
def ten_classes_of_digits_in_a_deep_net():
    X, y = digits()
    model = mlp(64, 48, 48, 48, 48, 10, act=nn.GELU)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 2e-3), X / 16, y, epochs=25)


@healthy
def scaled_patients_with_few_units():
    X, y = patients()
    model = mlp(10, 6, 1, act=nn.Tanh)
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, scaled(y), epochs=40)
