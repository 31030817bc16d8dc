"""Losses against torch's own, and weights against rows repeated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.engine.loss import LOSSES
from layerwise.network.build import build
from layerwise.network.plan import design

TORCH = {
    "mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss, "bce": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
}  # fmt: skip


def _case(name, n=40, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    if name == "cross_entropy":
        y = torch.randint(0, k, (n,), generator=generator)
    elif name == "bce":
        y = torch.randint(0, 2, (n, k), generator=generator).double()
    else:
        y = torch.randn(n, k, dtype=torch.float64, generator=generator)
    w = torch.randint(1, 4, (n,), generator=generator)
    return outputs, y, w


def test_every_loss_has_its_reference():
    assert set(LOSSES) == set(TORCH)


@pytest.mark.parametrize("name", sorted(TORCH))
def test_without_weights_it_is_torchs_own(name):
    outputs, y, _ = _case(name)
    outputs.requires_grad_()
    found = LOSSES[name](outputs, y)
    (gradient,) = torch.autograd.grad(found, outputs)
    expected = TORCH[name]()(outputs, y)
    assert found.item() == expected.item()
    assert torch.equal(gradient, torch.autograd.grad(expected, outputs)[0])


@pytest.mark.parametrize("name", sorted(TORCH))
def test_with_weights_it_is_the_mean_of_weight_times_the_rows_loss(name):
    outputs, y, w = _case(name)
    w = w / w.double().mean()
    rows = [TORCH[name]()(outputs[i : i + 1], y[i : i + 1]) for i in range(len(outputs))]
    expected = sum(wi * row for wi, row in zip(w, rows)) / len(rows)
    assert LOSSES[name](outputs, y, w).item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("name", sorted(TORCH))
def test_weights_of_one_change_nothing(name):
    outputs, y, _ = _case(name)
    ones = torch.ones(len(outputs), dtype=torch.float64)
    assert LOSSES[name](outputs, y, ones).item() == pytest.approx(LOSSES[name](outputs, y).item())


@pytest.mark.parametrize("name", sorted(TORCH))
def test_weight_2_is_the_row_twice_in_loss_and_gradient(name):
    _, y, w = _case(name)
    network = build(design(4, [], 3, hidden_layer_sizes=(5,), activation="tanh"),
                    dtype=torch.float64)  # fmt: skip
    X = torch.randn(len(y), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weighted = LOSSES[name](network(X), y, w / w.double().mean())
    twice = LOSSES[name](network(X.repeat_interleave(w, 0)), y.repeat_interleave(w, 0))
    assert weighted.item() == pytest.approx(twice.item(), rel=1e-13)
    parameters = list(network.parameters())
    found = torch.cat([g.flatten() for g in torch.autograd.grad(weighted, parameters)])
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(twice, parameters)])
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_cross_entropy_on_logits_survives_large_logits():
    outputs = torch.tensor([[1e4, -1e4]])
    assert LOSSES["cross_entropy"](outputs, torch.tensor([0])).item() == 0
    assert LOSSES["bce"](outputs[:, :1], torch.tensor([[0.0]])).item() == 1e4
