"""A loop that prepares outputs and targets before its loss is judged by what the loss saw."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerwise as lw


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small() -> tuple[torch.Tensor, torch.Tensor, nn.Module]:
    X = torch.randn(128, 3)
    return X, X[:, 0] * X[:, 1], nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))


@pytest.mark.parametrize("loss", [nn.MSELoss(), F.mse_loss])
@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_outputs_squeezed_by_the_loop_meet_flat_targets(loss, squeezed, given):
    X, y, model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with lw.watch(model, loss, optimizer, **({"X": X, "y": y} if given else {})) as w:
        for _ in range(5):
            for rows in torch.randperm(128).split(32):
                out = model(X[rows])
                optimizer.zero_grad()
                loss(out.squeeze(1) if squeezed else out, y[rows]).backward()
                optimizer.step()
    assert ("target-shape-broadcast" in w.findings.rules) is not squeezed


def test_targets_made_floats_by_the_loop_are_the_targets():
    X, y, model = small()
    yes, loss = (y > 0).long(), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with lw.watch(model, loss, optimizer, X=X, y=yes) as w:
        for _ in range(5):
            optimizer.zero_grad()
            loss(model(X), yes.float().unsqueeze(1)).backward()
            optimizer.step()
    assert not {"dtype-mismatch", "target-shape-broadcast"} & set(w.findings.rules)


def test_looking_for_a_bad_value_leaves_batch_norm_to_the_loop():
    X, y, _ = small()
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)
    with lw.watch(model, nn.MSELoss(), optimizer) as w:
        for step in range(8):
            optimizer.zero_grad()
            out = model(X) / (0.0 if step == 3 else 1.0)
            nn.functional.mse_loss(out, y.unsqueeze(1)).backward()
            optimizer.step()
    assert "non-finite-loss" in [one.rule for one in (*w.findings, *w.findings.explained)]
    assert not {"inplace-update", "wrong-mode"} & set(w.findings.rules)
