"""Rows, batches and settings: each fault is named at its place, its healthy twin is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import layerwise as lw

N = 200
CE, MSE, LOGITS = nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = normal(N, 4)
Y = normal(N, 1, seed=1)
CLASSES = torch.arange(N) % 3


def net(outputs=3, inputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def look(X, y, loss=CE, model=None, optimizer=None, **told):
    outputs = 3 if loss is CE else 1
    model = model or net(outputs, X.shape[1])
    found = lw.doctor(model, loss, optimizer, X, y, **told)
    assert not found.skipped
    return [(one.rule, one.where, one.severity) for one in found]


def changed(values, **places):
    values = values.clone()
    for place, value in places.items():
        values[tuple(map(int, place[1:].split("_")))] = value
    return values


# ---------------------------------------------------------------- nan-in-data


def test_a_gap_is_told_with_its_table_column_and_row():
    gaps = changed(X, _7_2=float("nan"))
    found = lw.doctor(net(), CE, None, gaps, CLASSES, names=["a", "b", "c", "d"])
    assert found.rules == ["nan-in-data"]
    assert found[0].where == "X"
    assert found[0].values["column"] == "c"
    assert found[0].values["row"] == 7
    assert look(X, changed(Y, _3_0=float("inf")), MSE)[0] == ("nan-in-data", "y", "error")
    assert look(X, CLASSES, X_val=gaps) == [("nan-in-data", "X_val", "error")]
    assert look(X, CLASSES, X_val=X) == []


# ---------------------------------------------------------------- scales


def test_a_column_that_drowns_the_others_is_named():
    large = X * torch.tensor([1.0, 1.0, 500.0, 1.0])
    found = lw.doctor(net(), CE, None, large, CLASSES, names=["a", "b", "income", "d"])
    assert [(one.rule, one.where) for one in found] == [("unscaled-features", "X")]
    assert found[0].values["column"] == "income"
    assert "'income'" in found[0].seen
    assert look(X * 1e-5, CLASSES) == [("unscaled-features", "X", "warning")]
    assert look(X * 3000, CLASSES)[0] == ("unscaled-features", "X", "error")


def test_natural_units_rare_levels_and_models_that_scale_by_themselves_are_fine():
    assert look(X.abs() * 8, CLASSES) == []
    assert look(torch.rand(N, 4), CLASSES) == []
    rare = torch.cat([X, (torch.arange(N) == 5).float()[:, None]], dim=1)
    assert look(rare, CLASSES) == []
    scaling = nn.Sequential(nn.BatchNorm1d(4), *net())
    assert look(X * 500, CLASSES, model=scaling) == []


def test_targets_far_from_the_start_are_told():
    assert look(X, Y + 100, MSE) == [("unscaled-targets", "y", "error")]
    assert look(X, Y * 100 + 50, MSE) == [("unscaled-targets", "y", "warning")]
    assert look(X, Y * 1e5, nn.L1Loss()) == [("unscaled-targets", "y", "error")]
    assert look(X, Y * 8 + 5, MSE) == []


def test_a_model_or_a_loss_that_rescales_is_left_alone():
    class Rescaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(1)

        def forward(self, x):
            return self.net(x) * 100 + 500

    assert look(X, Y * 100 + 500, MSE, model=Rescaled()) == []
    inside = lambda outputs, y: ((outputs - (y - 500) / 100) ** 2).mean()  # noqa: E731
    assert look(X, Y * 100 + 500, inside, model=net(1)) == []


# ---------------------------------------------------------------- columns


def test_constant_columns_are_a_note_unless_they_are_many():
    one = torch.cat([X, torch.ones(N, 1)], dim=1)
    assert look(one, CLASSES) == [("constant-feature", "X", "note")]
    many = torch.cat([X[:, :2], torch.ones(N, 2)], dim=1)
    assert look(many, CLASSES) == [("constant-feature", "X", "warning")]


def test_a_column_that_gives_the_answer_away_is_told_in_each_task():
    def beside(column):
        return torch.cat([X, column], dim=1)

    leak = [("target-leakage", "X", "warning")]
    bits = (torch.arange(N) % 2).float()[:, None]
    noise = normal(N, 1, seed=5)
    assert look(beside(bits * 9 + noise * 0.1), bits, LOGITS) == leak
    assert look(beside(Y + noise * 0.01), Y, MSE) == leak
    assert look(beside(torch.exp(Y)), Y, MSE) == leak, "any order-keeping function of y"
    assert look(beside(CLASSES[:, None] * 2.0 + torch.rand(N, 1)), CLASSES) == leak
    assert look(beside(bits + noise), bits, LOGITS) == []
    assert look(beside(Y + noise * 0.2), Y, MSE) == []
    one_class = torch.where(CLASSES == 0, 9.0, 0.0)[:, None] + noise
    assert look(beside(one_class), CLASSES) == [], "one class of three is easy, as in iris"
    assert look(Y.clone(), 2 * Y, MSE, model=net(1, 1)) == [], "a single column is all there is"


def test_a_rare_class_is_told_unless_weights_make_up_for_it():
    rare = (torch.arange(N) % 20 == 0).long()
    told = [("class-imbalance", "y", "warning")]
    assert look(X, rare) == told
    assert look(X, rare.float()[:, None], LOGITS) == told
    assert look(X, (torch.arange(N) % 5 == 0).long()) == [], "4 to 1 is ordinary"
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 1.0]))
    assert look(X, rare, weighted, model=net()) == []
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(19.0))
    assert look(X, rare.float()[:, None], loss, model=net(1)) == []
    sampler = WeightedRandomSampler(1 + 19 * rare.double(), N)
    loader = DataLoader(TensorDataset(X, rare), batch_size=20, sampler=sampler)
    assert not lw.doctor(net(), CE, None, loader)


# ---------------------------------------------------------------- order and batches


def test_sorted_rows_that_are_not_shuffled_are_told():
    ordered = CLASSES.sort()[0]
    assert look(X, ordered, shuffle=False, batch_size=20) == [
        ("sorted-no-shuffle", "loop", "error")
    ]
    rows = Y.sort(dim=0)[0]
    assert look(X, rows, MSE, shuffle=False, batch_size=20) == [
        ("sorted-no-shuffle", "loop", "warning")
    ]
    assert look(X, ordered, shuffle=True, batch_size=20) == []
    assert look(X, CLASSES, shuffle=False, batch_size=20) == []
    assert look(X, ordered, shuffle=False, batch_size=N) == [], "all rows in one batch"
    assert look(X, ordered) == [], "nothing is known of the loop"


def test_a_loader_says_its_batches_and_their_order_by_itself():
    data = TensorDataset(X, CLASSES.sort()[0])
    before = torch.get_rng_state()
    found = lw.doctor(net(), CE, None, DataLoader(data, batch_size=20))
    assert found.rules == ["sorted-no-shuffle"]
    assert not lw.doctor(net(), CE, None, DataLoader(data, batch_size=20, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_against_the_table():
    def sizes(b, **told):
        return look(X, CLASSES, batch_size=b, **told)

    assert sizes(256, drop_last=True) == [("batch-size", "batch_size", "error")]
    assert sizes(200, epochs=20) == [("batch-size", "batch_size", "warning")]
    assert sizes(256) == [("batch-size", "batch_size", "note")]
    assert sizes(200, epochs=500) == []
    assert sizes(32, epochs=10) == []
    lbfgs = torch.optim.LBFGS((model := net()).parameters())
    assert sizes(200, epochs=20, model=model, optimizer=lbfgs) == []


# ---------------------------------------------------------------- widths, validation


def test_the_wrong_number_of_columns_is_told_at_the_layer():
    assert look(X, CLASSES, model=net(3, 5)) == [("input-width", "0", "error")]
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 3))
    assert look(X, CLASSES, model=inner) == [("input-width", "2", "error")]
    norm = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(8, 3))
    assert look(X, CLASSES, model=norm) == [("input-width", "1", "error")]


def test_validation_rows_of_another_scaling_or_order_are_told():
    other = normal(80, 4, seed=3)
    assert look(X, CLASSES, X_val=other * 30 + 50) == [("val-preprocessing", "X_val", "error")]
    assert look(X, CLASSES, X_val=other) == []
    assert look(X, CLASSES, X_val=other[:20] * 9) == [], "too few to tell"
    units = torch.tensor([1.0, 5.0, 0.1, 1.0]), torch.tensor([0.0, 9.0, -5.0, 2.0])
    train, valid = X * units[0] + units[1], other * units[0] + units[1]
    assert look(train, CLASSES, X_val=valid) == []
    found = lw.doctor(net(), CE, None, train, CLASSES, X_val=valid[:, [1, 2, 3, 0]])
    assert found.rules == ["val-preprocessing"]
    assert "another order" in found[0].seen


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: torch.optim.Adam(p, lr=3.0), "lr-too-high"),
        (lambda p: torch.optim.SGD(p, lr=50.0), "lr-too-high"),
        (lambda p: torch.optim.SGD(p, lr=2.0, momentum=0.9), "lr-too-high"),
        (lambda p: torch.optim.SGD(p, lr=0.01, momentum=1.0), "lr-too-high"),
        (lambda p: torch.optim.Adam(p, lr=0.0), "weights-not-updating"),
        (lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.5), "weight-decay-too-strong"),
        (lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5), "weight-decay-too-strong"),
    ],
)
def test_settings_beyond_reason_are_told_before_a_step(make, rule):
    model = net()
    found = look(X, CLASSES, model=model, optimizer=make(model.parameters()))
    assert [one[:2] for one in found] == [(rule, "optimizer")]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=1.0),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, weight_decay=1e-2),
    ],
)
def test_settings_that_often_work_are_left_alone(make):
    model = net()
    assert look(X, CLASSES, model=model, optimizer=make(model.parameters())) == []


def test_arrays_and_frames_are_taken_as_fit_takes_them():
    import pandas as pd

    frame = pd.DataFrame(np.asarray(X.double()), columns=["a", "b", "c", "d"])
    assert not lw.doctor(net(), CE, None, frame, CLASSES.numpy())
    frame["c"] *= 900
    found = lw.doctor(net(), CE, None, frame, CLASSES.numpy())
    assert [one.values["column"] for one in found] == ["c"]
    assert not lw.doctor(net(1), MSE, None, X.double().numpy(), Y.double().numpy())
