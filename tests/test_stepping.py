"""Optimizer and scheduler as they are given: taken as they are, or told why not."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from layerwise.engine.torch import Loader, Rows
from layerwise.errors import NetworkError, SettingError
from layerwise.training.fit import EpochEnd
from layerwise.training.recipe import Recipe
from layerwise.training.stepping import move_state, optimizer_of, scheduling, set_rates

ROWS = Rows(torch.zeros(300, 2), torch.zeros(300, 1))
CPU = torch.device("cpu")


def _model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def _optimizer(given, model=None, rows=ROWS, **settings):
    return optimizer_of(given, model or _model(), Recipe(**settings), rows)


def _told(scheduler, optimizer, *, rows=ROWS, higher=False, **settings):
    with ExitStack() as afterwards:
        recipe = Recipe(**{"batch_size": 100, "epochs": 4, **settings})
        return scheduling(scheduler, optimizer, recipe, rows, higher, afterwards)


def _event(**row):
    return EpochEnd({"train_loss": 1.0, **row}, 4, 1, 0.0, 0.0)


def test_an_instance_is_taken_as_it_is():
    model = _model()
    optimizer = SGD(model.parameters(), lr=0.3)
    recipe, found = _optimizer(optimizer, model)
    assert found is optimizer
    assert recipe == Recipe()


@pytest.mark.parametrize(
    "setting",
    [{"lr": 0.1}, {"momentum": 0.5}, {"weight_decay": 0.0}, {"optimizer_options": {"eps": 1}}],
)
def test_an_instance_has_its_own_settings(setting):
    model = _model()
    (name,) = setting
    with pytest.raises(SettingError, match=f"{name} is the optimizer's own .* torch.optim.SGD$"):
        _optimizer(SGD(model.parameters()), model, **setting)


def test_a_name_and_a_class_are_built_from_the_settings():
    for given in ("adam", "Adam", torch.optim.Adam):
        recipe, optimizer = _optimizer(given, lr=0.3, weight_decay=0.2)
        assert type(optimizer) is torch.optim.Adam
        assert recipe.optimizer.lower() == "adam"
        groups = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        assert groups == [(0.3, 0.2), (0.3, 0.0)]
    assert _optimizer("sgd")[0].lr == 0.01  # what was left open is settled by the rows
    assert _optimizer("adamw")[0].lr == 0.003
    assert _optimizer("adamw", rows=Rows(ROWS.X[:50], ROWS.y[:50]))[0].lr == 0.005


def test_an_optimizer_of_ones_own_class_gets_what_was_said():
    class Mine(SGD):
        def __init__(self, params, lr, **options):
            said.append((lr, options))
            super().__init__(params, lr=lr)

    said = []
    _optimizer(Mine)
    _optimizer(Mine, lr=0.1, weight_decay=0.2, momentum=0.5, optimizer_options={"nesterov": True})
    more = {"weight_decay": 0.2, "momentum": 0.5, "nesterov": True}
    assert said == [(0.003, {}), (0.1, more)]


def test_frozen_parameters_are_left_out():
    model = _model()
    model[0].requires_grad_(False)
    for given in ("sgd", SGD, type("Mine", (SGD,), {})):
        held = [p for group in _optimizer(given, model)[1].param_groups for p in group["params"]]
        assert {id(p) for p in held} == {id(p) for p in model[2].parameters()}


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        ("adm", {}, "unknown optimizer 'adm'. Did you mean 'adam'"),
        (5, {}, "has to be an optimizer of torch.optim, its class or its name; got 5"),
        (nn.Linear, {}, "Linear refuses its options"),
        ("sgd", {"optimizer_options": {"beta": 1}}, "SGD has no option 'beta'"),
        (torch.optim.Muon, {}, "Muon refuses its options"),
    ],
)
def test_what_is_no_optimizer_is_refused(given, settings, told):
    with pytest.raises(SettingError, match=told):
        _optimizer(given, **settings)


def test_an_optimizer_that_would_change_nothing_is_refused():
    with pytest.raises(NetworkError, match="holds none of this model's parameters"):
        _optimizer(SGD(_model().parameters()))
    with pytest.raises(NetworkError, match="all are frozen"):
        _optimizer("sgd", _model().requires_grad_(False))


def test_sparse_gradients_want_an_instance():
    model = nn.Sequential(nn.Embedding(9, 3, sparse=True), nn.Linear(3, 1))
    with pytest.raises(SettingError, match="sparse=True gives gradients that adamw by name"):
        _optimizer("adamw", model)
    optimizer = SGD(model.parameters(), lr=0.1)
    assert _optimizer(optimizer, model)[1] is optimizer


def test_rates_are_set_group_by_group():
    model = _model()
    optimizer = SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=1)
    set_rates(optimizer, [0.1, 0.2])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_what_an_optimizer_remembers_moves_with_the_parameters(fused):
    model = _model()
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    for place in ("cpu", "cuda", "cpu"):
        model.to(place)
        move_state(optimizer, torch.device(place))
        model(torch.ones(4, 2, device=place)).sum().backward()
        optimizer.step()
        assert {s["exp_avg"].device.type for s in optimizer.state.values()} == {place}


# ---------------------------------------------------------------- schedulers


def test_a_scheduler_steps_after_each_epoch():
    optimizer = SGD(_model().parameters(), lr=1)
    (step,) = _told(lr_scheduler.StepLR(optimizer, 1, 0.1), optimizer)
    optimizer.step()
    assert step(_event()) is not True  # which would end the training
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_cycle_steps_after_each_step_for_as_long_as_the_training_lasts():
    optimizer = SGD(_model().parameters(), lr=1)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1, total_steps=12)
    with ExitStack() as afterwards:
        recipe = Recipe(batch_size=100, epochs=4)
        assert scheduling(scheduler, optimizer, recipe, ROWS, False, afterwards) == []
        optimizer.step()
        assert scheduler.last_epoch == 1
    optimizer.step()
    assert scheduler.last_epoch == 1


def test_a_cycle_that_is_over_too_early_is_refused():
    optimizer = SGD(_model().parameters(), lr=1)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1, total_steps=11)
    told = r"has 11 steps to go, and 4 epochs of 3 batches are 12: make it with total_steps=12$"
    with pytest.raises(SettingError, match=told):
        _told(scheduler, optimizer)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    with pytest.raises(SettingError, match="has 6 steps to go"):
        _told(scheduler, optimizer, rows=Loader([1, 2, 3], CPU))
    assert _told(scheduler, optimizer, epochs=2) == []
    assert _told(scheduler, optimizer, rows=Loader(iter([]), CPU)) == []  # nobody knows


def test_a_plateau_is_seen_in_what_is_monitored():
    def rates(rows, mode, **options):
        optimizer = SGD(_model().parameters(), lr=1)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=0)
        (step,) = _told(scheduler, optimizer, **options)
        for row in rows:
            step(_event(**row))
        return optimizer.param_groups[0]["lr"]

    up = [{"valid_loss": 1.0, "accuracy": 0.5}, {"valid_loss": 2.0, "accuracy": 0.9}]
    assert rates(up, "min") == pytest.approx(0.1)
    assert rates(up[::-1], "min") == 1
    assert rates(up, "max", monitor="accuracy", higher=True) == 1
    assert rates([{}, {}], "min") == pytest.approx(0.1)  # of training rows alone
    with pytest.raises(SettingError, match="has mode 'max', and what is monitored, loss, gets bet"):
        rates(up, "max")
    with pytest.raises(SettingError, match="give it mode='max'"):
        rates(up, "min", monitor="accuracy", higher=True)


def test_what_is_no_scheduler_of_this_optimizer_is_refused():
    optimizer, other = SGD(_model().parameters(), lr=1), SGD(_model().parameters(), lr=1)
    with pytest.raises(SettingError, match=r"one of constant, cosine, .* or a scheduler of torch"):
        _told(lambda epoch: 0.1, optimizer)
    with pytest.raises(SettingError, match="the scheduler is of another optimizer"):
        _told(lr_scheduler.StepLR(other, 1), optimizer)
    with pytest.raises(SettingError, match="warmup goes with layerwise's own schedules"):
        _told(lr_scheduler.StepLR(optimizer, 1), optimizer, warmup=0.1)
