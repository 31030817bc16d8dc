"""Findings: their order, their words, their JSON; what the doctor touches, and how it fails."""

from __future__ import annotations

import copy
import json
import random
import time

import numpy as np
import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.diagnosis import rules
from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import EXPLAINS, RULES, Finding, Findings, finding
from layerwise.diagnosis.translate import translated
from layerwise.errors import SettingError

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(60) % 3
CE = nn.CrossEntropyLoss()


def net(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), *last)


def one(rule, severity="warning", where="loop", **values):
    return Finding(rule, severity, where, "Seen.", "ok", "Why.", "Mend.", "training", values)


# ---------------------------------------------------------------- order


def test_there_are_45_rules_and_each_is_registered():
    registered = {rule.name for stage in rules.STAGES for rule in rules.rules_of(stage)}
    translated_only = {"inplace-update", "input-width"}
    assert len(RULES) == 45
    assert registered | translated_only == set(RULES)
    assert set(EXPLAINS) <= set(RULES)


def test_errors_come_first_and_causes_before_symptoms():
    found = Findings([
        one("too-few-epochs", "note"), one("lr-too-high"), one("class-imbalance"),
        one("linear-stack"), one("softmax-before-ce", "error"), one("somebody-elses"),
    ])  # fmt: skip
    assert found.rules == [
        "softmax-before-ce", "class-imbalance", "linear-stack", "lr-too-high", "somebody-elses",
    ]  # fmt: skip
    assert [len(part) for part in (found.errors, found.warnings, found.alarms)] == [1, 4, 5]


def test_a_symptom_goes_to_the_first_of_its_causes_and_is_kept():
    symptoms = [one("dead-relu", where="1"), one("saturated-activation"), one("loss-stuck")]
    found = Findings([*symptoms, one("unscaled-features", where="X")])
    assert found.rules == ["unscaled-features"]
    assert set(found[0].explains) == {"dead-relu", "saturated-activation", "loss-stuck"}
    assert found.explained == symptoms
    assert Findings(symptoms[:1]).rules == ["dead-relu"], "without a cause it is listed"
    noted = Findings([symptoms[0], one("init-scale", "note")])
    assert "dead-relu" in noted.rules, "a note explains nothing"


def test_of_one_rule_at_one_place_the_gravest_is_kept():
    pair = [one("lr-too-high", "warning"), one("lr-too-high", "error")]
    assert [f.severity for f in Findings(pair)] == ["error"]
    columns = [one("target-leakage", column="a"), one("target-leakage", column="b")]
    assert len(Findings(columns)) == 2


# ---------------------------------------------------------------- words


def test_a_finding_is_a_short_text_at_the_width_of_a_terminal():
    found = lw.doctor(net(nn.Softmax(dim=1)), CE, None, X, CLASSES)
    lines = str(found).splitlines()
    assert lines[0] == "1 error"
    assert lines[2] == "error: softmax-before-ce at '3'"
    assert max(map(len, lines)) <= 80
    assert repr(found) == str(found)
    assert str(Findings()) == "no findings: nothing here looks wrong"


def test_the_notebook_shows_the_same_with_its_signs_escaped():
    page = Findings([one("lr-too-high", where="<b>")])._repr_html_()
    assert "&lt;b&gt;" in page
    assert "lr-too-high" in page


def test_findings_are_plain_values_there_and_back():
    found = lw.doctor(net(nn.Softmax(dim=1)), CE, None, X * 900, CLASSES)
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    again = Findings(Finding.from_json(state) for state in said)
    assert again == found
    assert one("x", value=float("nan")).to_json()["values"] == {"value": None}


# ---------------------------------------------------------------- what is touched


def test_nothing_of_the_users_is_touched():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[1].eval()
    model(X).sum().backward()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())
    grads = [p.grad.clone() for p in model.parameters()]
    own = [p.grad for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    lw.doctor(model, CE, optimizer, X, CLASSES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), own))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads))
    assert [m.training for m in model] == [True, False, True, True]
    assert not calls, "hooks of others are not called"
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert not optimizer.state


def test_layers_with_weights_of_their_own_making_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.ReLU(),
                          nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)))  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    assert not lw.doctor(model, CE, torch.optim.Adam(model.parameters()), X, CLASSES).alarms
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_keeps_its_last_values_can_be_looked_at():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            self.last = self.net[0](x)
            return self.net(x)

    model = Keeping()
    model(X)
    last = model.last
    assert not lw.doctor(model, CE, None, X, CLASSES)
    assert model.last is last


def test_what_cannot_be_looked_at_is_told_and_breaks_nothing():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            raise OSError("the sensor is gone")

    found = lw.doctor(Broken(), CE, None, X, CLASSES)
    assert not found.alarms
    assert any("the sensor is gone" in sentence for sentence in found.skipped)
    assert "not looked at" in str(found)
    assert not lw.doctor(net(), lambda outputs, y: 1.0, None, X, CLASSES).alarms
    assert not lw.doctor(nn.Embedding(9, 2), None)
    with pytest.raises(SettingError, match=r"nn\.Module"):
        lw.doctor("a model", CE)


# ---------------------------------------------------------------- rules of others


def test_another_packages_rule_is_taken_and_a_failing_one_told(monkeypatch):
    monkeypatch.setattr(
        rules, "_REGISTERED", [*rules.rules_of("static"), *rules.rules_of("first_batch")]
    )

    @rules.rule("too-many-columns", stage="static")
    def too_many(case):
        if case.X.shape[1] > 3:
            yield finding("note", "X", "Four.", healthy="three", why="Taste.", mend="X[:, :3]", n=4)

    @rules.rule("broken", stage="first_batch")
    def broken(seen):
        raise ZeroDivisionError("oh")

    found = lw.doctor(net(), CE, None, X, CLASSES)
    assert [(f.rule, f.stage, f.values) for f in found] == [
        ("too-many-columns", "static", {"n": 4})
    ]
    assert found.skipped == ["broken (first_batch): ZeroDivisionError: oh"]


# ---------------------------------------------------------------- exceptions


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def update_by_hand(model):
    model[0].weight -= 0.1 * model[0].weight


def assign(model):
    model[0].weight = model[0].weight * 0.9


def in_place(model):
    h = torch.sigmoid(model[0](X))
    h *= 2
    h.sum().backward()


LOOPS = [
    (update_by_hand, "inplace-update", "loop"),
    (assign, "inplace-update", "loop"),
    (in_place, "inplace-update", "forward"),
    (lambda model: model(X.double()), "dtype-mismatch", "X"),
    (lambda model: model(X.long()), "dtype-mismatch", "X"),
    (lambda model: model(X.numpy()), "dtype-mismatch", "X"),
    (lambda model: model(X[:, :3]), "input-width", "0"),
    (lambda model: CE(model(X), CLASSES + 1).backward(), "labels-vs-outputs", "y"),
    (lambda model: CE(model(X), CLASSES.float()), "dtype-mismatch", "y"),
    (lambda model: (model(X) * 2).backward(), "loss-reduction", "loss"),
    (lambda model: model(X).detach().sum().backward(), "no-gradient-to-layer", "loop"),
    (lambda model: torch.optim.SGD([], lr=0.1), "params-not-in-optimizer", "optimizer"),
    (lambda model: nn.BatchNorm1d(4)(X[:1]), "batchnorm-single-row", "batch_size"),
]


@pytest.mark.parametrize(("loop", "rule", "where"), LOOPS)
def test_what_torch_raises_is_translated(loop, rule, where):
    model = net()
    y = CLASSES.float() if where == "y" and rule == "dtype-mismatch" else CLASSES + (where == "y")
    error = raised(lambda: loop(model))
    found = translated(error, Case.of(model, CE, None, X, y))
    assert [(f.rule, f.where) for f in found] == [(rule, where)]


def test_frozen_models_and_foreign_errors():
    model = net().requires_grad_(False)
    error = raised(lambda: model(X).sum().backward())
    assert [f.rule for f in translated(error, Case(model, CE))] == ["frozen-parameters"]
    assert translated(KeyError("town"), Case(model, CE)) == []


# ---------------------------------------------------------------- time


def test_a_table_of_usual_size_is_judged_within_two_seconds():
    torch.manual_seed(0)
    rows, y = torch.randn(5000, 40), torch.arange(5000) % 3
    model = nn.Sequential(
        nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    optimizer = torch.optim.Adam(model.parameters())
    lw.doctor(net(), CE, None, X, CLASSES)  # what is imported on first use
    began = time.process_time()
    found = lw.doctor(model, CE, optimizer, rows, y, batch_size=64, epochs=10)
    assert not found.alarms
    assert time.process_time() - began < 2


def test_a_model_that_gives_its_loss_is_looked_at_all_the_same():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            return self.net(x).square().mean()

    for loss in (nn.MSELoss(), lambda outputs, y: outputs):
        assert not lw.doctor(Whole(), loss, None, X, CLASSES.float()).skipped


def test_a_model_that_cannot_be_copied_is_still_judged_by_its_modules():
    model = net()
    model.lock = (line for line in ())
    model[0].requires_grad_(False)
    found = lw.doctor(model, CE, None, X, CLASSES)
    assert found.rules == ["frozen-parameters"]
    assert any("cannot be copied" in sentence for sentence in found.skipped)
