"""What the doctor tries out: a trial fails where it should, and never where all is well."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import layerwise as lw
from layerwise.diagnosis.case import Case
from layerwise.diagnosis.experiments import Trial, experiment

NAMES = ["overfit one batch", "shuffled labels", "blank inputs", "rows for themselves"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def table(n: int = 200) -> tuple[Tensor, Tensor]:
    X = torch.randn(n, 4)
    return X, (X[:, 0] * X[:, 1] > 0).long()


def network(*end: nn.Module, outputs: int = 2, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 24), act(), nn.Linear(24, outputs), *end)


def tried(model: nn.Module, loss: object, X: Tensor, y: Tensor) -> dict[str, Trial]:
    return {one.name: one for one in experiment(Case.of(model, loss, None, X, y))}


def test_a_healthy_network_passes_everything():
    trials = tried(network(), nn.CrossEntropyLoss(), *table())
    assert list(trials) == NAMES
    assert all(one.passed for one in trials.values())
    assert all(one.found is None for one in trials.values())


def test_rows_that_cannot_be_learnt_by_heart_are_blamed_on_the_network():
    trial = tried(network(nn.Softmax(dim=1)), nn.CrossEntropyLoss(), *table())[NAMES[0]]
    assert trial.passed is False
    assert trial.found is not None
    assert trial.found.where == "forward"
    assert trial.values["plain"] < 0.05 < trial.values["end"]


def test_or_on_the_loss_where_a_plain_network_cannot_either():
    X, _ = table()
    trials = tried(network(outputs=1), nn.MSELoss(), X, X[:, 0] ** 2)  # (N, 1) against (N,)
    assert trials[NAMES[0]].found is not None
    assert trials[NAMES[0]].found.where == "loss"
    assert trials[NAMES[3]].passed is False


def test_a_linear_model_is_not_asked_to_learn_by_heart():
    X, y = table()
    assert tried(nn.Linear(4, 2), nn.CrossEntropyLoss(), X, y)[NAMES[0]].passed is None


def test_codes_of_categories_are_left_as_they_are():
    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3 + 4, 24), nn.ReLU(), nn.Linear(24, 2))

        def forward(self, x: Tensor) -> Tensor:
            codes = nn.functional.one_hot(x[:, 3].long(), 4)
            return self.net(torch.cat([x[:, :3], codes.to(x.dtype)], dim=1))

    X, y = table()
    X[:, 3] = torch.randint(4, (len(X),)).float()
    assert tried(Coded(), nn.CrossEntropyLoss(), X, y)[NAMES[0]].passed


def test_labels_that_lost_their_rows_are_told():
    X, y = table(300)
    trials = tried(network(), nn.CrossEntropyLoss(), X, y[torch.randperm(300)])
    assert trials[NAMES[1]].passed is trials[NAMES[2]].passed is False
    assert trials[NAMES[1]].found is not None
    assert trials[NAMES[1]].found.rule == "underfitting"


def test_a_softmax_down_the_batch_mixes_rows():
    trial = tried(network(nn.LogSoftmax(dim=0)), nn.NLLLoss(), *table())[NAMES[3]]
    assert trial.passed is False
    assert trial.found is not None
    assert (trial.found.rule, trial.found.where) == ("rows-not-independent", "forward")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.LayerNorm(2)])
def test_a_norm_does_not(norm):
    X, y = table()
    assert tried(network(norm), nn.CrossEntropyLoss(), X, y)[NAMES[3]].passed


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0])), nn.CrossEntropyLoss(reduction="sum")],
)
def test_weights_and_sums_do_not_either(loss):
    assert tried(network(), loss, *table())[NAMES[3]].passed


def test_the_root_of_a_mean_does_not_either():
    X, _ = table()
    y = X[:, :1] ** 2

    def root(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(out, y).sqrt()

    assert tried(network(outputs=1), root, X, y)[NAMES[3]].passed


def test_what_cannot_be_tried_says_why():
    X, y = table(30)
    trials = experiment(Case.of(network(), nn.CrossEntropyLoss(), None, X, y))
    assert [one.passed for one in trials] == [True, None, True]
    assert "30 rows are too few" in trials[1].seen
    trials = experiment(Case.of(network(), nn.CrossEntropyLoss()))
    assert {one.seen for one in trials} == {"it needs rows X and targets y"}


def test_nothing_of_the_user_is_touched():
    X, y = table()
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).eval()
    before = [t.clone() for t in (*model.state_dict().values(), torch.get_rng_state())]
    experiment(Case.of(model, nn.CrossEntropyLoss(), None, X, y))
    after = (*model.state_dict().values(), torch.get_rng_state())
    assert all(a.equal(b) for a, b in zip(before, after))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_the_doctor_shows_what_was_tried_and_says_a_known_cause_once():
    X, y = table()
    findings = lw.doctor(network(nn.Softmax(dim=1)), nn.CrossEntropyLoss(), None, X, y, tests=True)
    assert findings.rules == ["softmax-before-ce"]
    assert [one.name for one in findings.trials] == NAMES
    assert "failed  overfit one batch" in str(findings)
    assert findings.trials[0].to_json()["passed"] is False
    assert not lw.doctor(network(), nn.CrossEntropyLoss(), None, X, y).trials
