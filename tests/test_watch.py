"""Watching loops of other people's style: what is sane draws no alarm, what is wrong has a name."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks
from torch.utils.data import DataLoader, TensorDataset

import layerwise as lw

N = 240


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def table(classes=False):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(N, 5, generator=generator)
    if classes:
        return X, (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long()
    y = X[:, :1] + X[:, 1:2] * 0.5 + 0.1 * torch.randn(N, 1, generator=generator)
    return X, (y - y.mean()) / y.std()


def network(outputs=1):
    return nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, outputs))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(5, 24), nn.BatchNorm1d(24), nn.Linear(24, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.fc1(x)))
        return self.fc2(F.dropout(x, 0.2, self.training))


def by_loader():
    X, y = table()
    model, loss = network(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)
    with lw.watch(model, loss, optimizer) as w:
        for _ in range(25):
            for xb, yb in loader:
                optimizer.zero_grad()
                loss(model(xb), yb).backward()
                optimizer.step()
    return w


def by_index_with_validation():
    X, y = table(classes=True)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with lw.watch(model, F.cross_entropy, optimizer) as w:
        for _ in range(20):
            model.train()
            order = torch.randperm(200)
            for start in range(0, 200, 40):
                rows = order[start : start + 40]
                optimizer.zero_grad()
                F.cross_entropy(model(X[rows]), y[rows]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                F.cross_entropy(model(X[200:]), y[200:])
    return w


def accumulating():
    X, y = table()
    model, loss = network(), nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with lw.watch(model, loss, optimizer) as w:
        for _ in range(40):
            for k, start in enumerate(range(0, N, 20)):
                part = loss(model(X[start : start + 20]), y[start : start + 20]) / 4
                part.backward()
                if k % 4 == 3:
                    optimizer.step()
                    optimizer.zero_grad()
    return w


def several_optimizers_and_a_formula():
    X, y = table()
    model = network()
    one = torch.optim.Adam(model[0].parameters(), lr=0.01)
    other = torch.optim.SGD(model[2].parameters(), lr=0.01)
    with lw.watch(model) as w:
        for _ in range(40):
            for start in range(0, N, 40):
                one.zero_grad()
                other.zero_grad(set_to_none=False)
                ((model(X[start : start + 40]) - y[start : start + 40]) ** 2).mean().backward()
                one.step()
                other.step()
    return w


def with_a_closure():
    X, y = table()
    model, loss = network(), nn.MSELoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5)
    with lw.watch(model, loss, optimizer) as w:
        for _ in range(10):

            def closure():
                optimizer.zero_grad()
                value = loss(model(X), y)
                value.backward()
                return value

            optimizer.step(closure)
    return w


def by_hand():
    X, y = table()
    model = network()
    with lw.watch(model, nn.MSELoss()) as w:
        for _ in range(150):
            model.zero_grad()
            F.mse_loss(model(X), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.05 * p.grad
    return w


def whole_table_with_a_schedule():
    X, y = table(classes=True)
    model, loss = network(3), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    with lw.watch(model, loss, optimizer) as w:
        for _ in range(150):
            optimizer.zero_grad()
            loss(model(X), y).backward()
            optimizer.step()
            schedule.step()
    return w


LOOPS = [
    by_loader, by_index_with_validation, accumulating, several_optimizers_and_a_formula,
    with_a_closure, by_hand, whole_table_with_a_schedule,
]  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_a_sane_loop_draws_no_alarm(loop):
    found = loop().findings
    assert found.alarms == []
    assert found.skipped == []


def test_rows_epochs_and_loss_are_learnt_from_a_loop_that_tells_nothing():
    w = several_optimizers_and_a_formula()
    seen = w.watched
    assert (seen.kind, seen.case.n_rows, seen.case.batch_size) == ("mse_loss", N, 40)
    assert len(seen.epochs) == 40
    assert seen.baseline == pytest.approx(float(table()[1].var(correction=0)), rel=1e-4)
    assert torch.allclose(seen.case.y.flatten(), table()[1].flatten(), atol=1e-5)


def test_validation_losses_are_seen_where_the_loss_is_a_function():
    assert len(by_index_with_validation().watched.valid) == 20


def test_losses_of_accumulated_parts_are_counted_whole():
    seen = accumulating().watched
    assert seen.epochs[0] > 0.2 * seen.baseline
    assert seen.steps == seen.passes // 4


def test_nothing_is_left_behind():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = torch.autograd.backward, DataLoader.__iter__, F.mse_loss
    with lw.watch(model, F.mse_loss, optimizer):
        pass
    assert (torch.autograd.backward, DataLoader.__iter__, F.mse_loss) == before
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not _global_optimizer_pre_hooks


def test_training_goes_the_same_way_with_and_without_an_onlooker():
    def train(watched):
        torch.manual_seed(3)
        X, y = table()
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        with lw.watch(model, nn.MSELoss(), optimizer) if watched else torch.enable_grad():
            for xb, yb in DataLoader(TensorDataset(X, y), 32, shuffle=True):
                optimizer.zero_grad()
                F.mse_loss(model(xb), yb).backward()
                optimizer.step()
        return model.state_dict()

    for one, other in zip(train(False).values(), train(True).values()):
        assert torch.equal(one, other)


def test_a_model_can_be_copied_and_saved_in_the_midst_of_it():
    model = network()
    with lw.watch(model, nn.MSELoss()) as w:
        best = copy.deepcopy(model)
        torch.save(model, io.BytesIO())
        best(torch.zeros(2, 5))
    assert w.watched.forwards == 0


def test_an_error_of_the_loop_is_raised_as_it_is_with_a_note():
    model = network()
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2") as caught,
        lw.watch(model, nn.MSELoss()) as w,
    ):
        model(torch.zeros(4, 3))
    assert "input-width" in w.findings.rules
    assert "input-width" in caught.value.__notes__[0]


def test_findings_can_be_asked_for_in_the_midst_of_a_loop():
    X, y = table()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with lw.watch(model, nn.MSELoss(), optimizer) as w:
        for _ in range(5):
            F.mse_loss(model(X), y).backward()
            optimizer.step()
        assert "no-zero-grad" in w.findings.rules


def test_every_has_to_be_a_number_of_steps():
    with pytest.raises(lw.SettingError, match="every"):
        lw.watch(network(), nn.MSELoss(), every=0)
