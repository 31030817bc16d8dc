"""The table: ten rules."""

from __future__ import annotations

import numpy as np
import torch
from sklearn import datasets
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from doctor_cases.frame import (
    Setup,
    adam,
    flowers,
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

NAN = "non-finite-loss"

# D1 nan-in-data


@sick("nan-in-data", where="X", also=NAN)
def a_gap_in_the_rows():
    X, y = numbers()
    X[17, 3] = float("nan")
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y)


@sick("nan-in-data", where="X", also=NAN)
def a_logarithm_of_zero():
    rng = np.random.default_rng(1)
    visits = rng.poisson(2.0, (300, 4)).astype(np.float32)
    y = torch.tensor(visits[:, 0] + visits[:, 1] > 4).float()[:, None]
    model = mlp(4, 16, 1)
    with np.errstate(divide="ignore"):
        X = torch.tensor(np.log(visits))
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("nan-in-data", where="y", also=NAN)
def a_gap_in_the_targets():
    X, y = numbers()
    y[[5, 200]] = float("nan")
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.01), X, y)


@sick("nan-in-data", where="X_val", also=NAN)
def a_gap_in_the_validation_rows():
    X, y = kinds()
    X_val, y_val = kinds(seed=0, n=450)
    X_val, y_val = X_val[:100].clone(), y_val[:100]
    X_val[3, 0] = float("nan")
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, X_val, y_val)


# D2 unscaled-features

RAW = "lr-too-high dead-relu loss-stuck init-scale exploding-gradients underfitting"


@sick("unscaled-features", where="X", also=RAW)
def raw_tumours():
    X, y = tumours()
    model = mlp(30, 32, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.01), X, y)


@sick("unscaled-features", where="X", also=RAW)
def raw_wines():
    X, y = wines()
    model = mlp(13, 32, 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.01), X, y, batch_size=16)


@sick("unscaled-features", where="X", also=RAW)
def one_column_in_pounds():
    X, y = yes_no()
    X[:, 5] = 30_000 + 12_000 * X[:, 5]
    model = mlp(6, 32, 32, 1, act=nn.Tanh)
    names = ["a", "b", "c", "d", "e", "income"]
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, names=names)


@sick("unscaled-features", where="X", also=RAW)
def columns_in_the_wrong_unit():
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), sgd(model, 0.05), X * 1e-5, y)


# D3 unscaled-targets

FAR = "lr-too-high loss-stuck exploding-gradients underfitting too-few-epochs"


@sick("unscaled-targets", where="y", also=FAR)
def raw_disease_progression():
    X, y = patients()
    model = mlp(10, 64, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y)


@sick("unscaled-targets", where="y", also=FAR)
def prices_in_euro():
    X, y = numbers()
    model = mlp(6, 32, 1)
    return Setup(model, nn.L1Loss(), adam(model, 0.01), X, 250_000 + 80_000 * y)


@sick("unscaled-targets", where="y", also=FAR)
def years_around_two_thousand():
    X, y = numbers()
    model = mlp(6, 32, 1, act=nn.GELU)
    return Setup(model, nn.MSELoss(), sgd(model, 1e-3), X, 2000 + 5 * y)


# D4 constant-feature


@sick("constant-feature", where="X")
def two_columns_of_five_never_change():
    X, y = yes_no(d=5)
    X[:, 4] = 1.0
    X = torch.cat([X, torch.zeros(len(X), 2)], 1)
    model = mlp(7, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("constant-feature", where="X")
def a_failed_join():
    X, y = numbers(n=500, d=10)
    X[:, 5:] = 0.0
    model = mlp(10, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y)


# D5 target-leakage


@sick("target-leakage", where="X")
def the_answer_is_a_column():
    X, y = yes_no()
    X = torch.cat([X, scaled(y + 0.05 * torch.randn(len(y), 1))], 1)
    model = mlp(7, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("target-leakage", where="X")
def the_price_with_tax_is_a_column():
    X, y = numbers()
    X[:, 2] = scaled(1.19 * y[:, 0] + 0.3 + 0.01 * torch.randn(len(y)))
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y)


@sick("target-leakage", where="X")
def the_code_of_the_class_is_a_column():
    X, y = kinds(k=4)
    X[:, 7] = scaled(y.float())
    model = mlp(8, 16, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


# D6 class-imbalance


@sick("class-imbalance", where="y")
def one_in_forty():
    X, _ = yes_no(n=1200)
    z = X[:, 0] + X[:, 1] + 0.5 * torch.randn(1200)
    y = (z > z.quantile(0.975)).float()[:, None]
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, epochs=10)


@sick("class-imbalance", where="y")
def a_rare_third_class():
    X, y = kinds(n=900)
    keep = (y != 2) | (torch.arange(900) % 15 == 2)
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X[keep], y[keep], epochs=15)


# D7 sorted-no-shuffle


@sick("sorted-no-shuffle", where="y loop X", also="loss-stuck lr-too-high")
def irises_in_the_order_of_the_file():
    X, y = datasets.load_iris(return_X_y=True)
    X, y = scaled(X), torch.tensor(y)
    loader = DataLoader(TensorDataset(X, y), batch_size=10)
    model = mlp(4, 16, 3)
    return Setup(
        model, nn.CrossEntropyLoss(), sgd(model, 0.05), X, y,
        batch_size=10, shuffle=False, loader=loader,
    )  # fmt: skip


@sick("sorted-no-shuffle", where="y loop X")
def sorted_by_the_amount():
    X, y = numbers()
    order = y[:, 0].argsort()
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X[order], y[order], shuffle=False)


# D8 batch-size


@sick("batch-size", where="batch_size", also="weights-not-updating")
def no_batch_at_all():
    X, y = yes_no(n=100)
    model = mlp(6, 16, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), X, y, batch_size=128, drop_last=True)


@sick("batch-size", where="batch_size", also="too-few-epochs lr-too-low loss-stuck underfitting")
def ten_steps_in_all():
    X, y = kinds(n=500)
    model = mlp(8, 16, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, sgd(model, 0.01), X, y, batch_size=500, epochs=10)


# D9 input-width


@sick("input-width", where="0 X")
def one_column_too_many():
    X, y = numbers(d=7)
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X, y)


@sick("input-width", where="fc1 X")
def the_width_of_another_table():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(784, 32), nn.Linear(32, 3)

        def forward(self, x):
            return self.fc2(torch.relu(self.fc1(x)))

    X, y = flowers()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


# D10 val-preprocessing


@sick("val-preprocessing", where="X_val", also="overfitting")
def validation_rows_left_raw():
    X, y = tumours()
    raw = X[400:]
    model = mlp(30, 16, 1)
    loss = nn.BCEWithLogitsLoss()
    return Setup(model, loss, adam(model), scaled(X[:400]), y[:400], raw, y[400:])


@sick("val-preprocessing", where="X_val", also="overfitting")
def validation_columns_in_another_order():
    X, y = wines()
    X = (X - X.mean(0)) / X.std(0) + torch.arange(13) * 0.8  # not centred, all small
    turned = X[120:].flip(1)
    model = mlp(13, 16, 3)
    loss = nn.CrossEntropyLoss()
    return Setup(model, loss, adam(model), X[:120], y[:120], turned, y[120:], batch_size=16)
