"""What a trace measures, against autograd and NumPy, and on networks whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerwise as lw
from layerwise.insight.measures import saturated_share
from layerwise.network.layers import Dropout
from nets import ZOO, Recurrent, Residual, mlp, state, zoo


def _y(outputs=3, n=6):
    return torch.arange(n) % outputs


def _call(model, X):
    return model(**X) if isinstance(X, dict) else model(X)


@pytest.mark.parametrize("name", ZOO)
def test_gradients_and_loss_are_those_of_autograd(name):
    model, X = zoo(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    found = lw.trace(model, X, _y(), nn.CrossEntropyLoss())
    loss = F.cross_entropy(_call(model.train(), X), _y())
    loss.backward()
    close = {"rel": 1e-3 if name == "bfloat16" else 1e-5}
    assert found.loss == pytest.approx(loss.item(), **close)
    modules = dict(model.named_modules())
    traced = [row for row in found.rows if row.weight_gradient]
    assert len(traced) >= 3
    for row in traced:
        named = dict(modules[row.name].named_parameters())
        grads = torch.cat([p.grad.double().flatten() for n, p in named.items() if "bias" not in n])
        assert row.weight_gradient.norm == pytest.approx(grads.norm().item(), **close)
        rms = grads.square().mean().sqrt().item()
        assert row.weight_gradient.rms == pytest.approx(rms, **close)
        weight = torch.cat([p.detach().flatten() for n, p in named.items() if "bias" not in n])
        assert row.weight.norm == pytest.approx(weight.double().norm().item(), rel=1e-6)


@pytest.mark.parametrize("name", ZOO)
def test_a_trace_leaves_the_model_as_it_was(name):
    model, X = zoo(name)
    _call(model, X).sum().backward()
    model.eval()
    next(model.children()).train()
    before = state(model)
    kept = X.clone() if isinstance(X, torch.Tensor) else None
    lw.trace(model, X, _y(), "cross_entropy")
    assert state(model) == before
    assert kept is None or torch.equal(kept, X)


@pytest.mark.parametrize("name", ZOO)
def test_the_same_model_and_rows_give_the_same_trace(name):
    model, X = zoo(name)
    first = lw.trace(model, X, _y(), "cross_entropy")
    torch.rand(3)
    assert lw.trace(model, X, _y(), "cross_entropy") == first


def test_the_private_generator_of_a_dropout_is_left_alone_and_has_no_say():
    model = nn.Sequential(nn.Linear(10, 30), Dropout(0.5), nn.Linear(30, 5))
    X, traces = torch.randn(6, 10), []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        model[1].generator = generator
        before = generator.get_state()
        traces.append(lw.trace(model, X, _y(5), "cross_entropy"))
        assert torch.equal(generator.get_state(), before)
    assert traces[0] == traces[1]
    assert 0.2 < traces[0].rows[1].values.zeros < 0.8


def test_the_gradients_at_each_output_are_those_of_autograd():
    model, X, y = mlp().double(), torch.randn(6, 10, dtype=torch.float64), _y(5)
    found = lw.trace(model, X, y, "cross_entropy")
    x, outputs = X.requires_grad_(), []
    for layer in model:
        outputs.append(layer(outputs[-1] if outputs else x))
    grads = torch.autograd.grad(F.cross_entropy(outputs[-1], y), [x, *outputs])
    last = grads[-1].square().mean().sqrt().item()
    for row, grad in zip([*found.inputs, *found.rows], grads):
        assert row.gradient.norm == pytest.approx(grad.norm().item(), rel=1e-12)
        assert row.gradient.rms == pytest.approx(grad.square().mean().sqrt().item(), rel=1e-12)
    ratios = [g.square().mean().sqrt().item() / last for g in grads[1:]]
    assert [row.ratio for row in found.rows] == pytest.approx(ratios)
    weights = torch.autograd.grad(F.cross_entropy(model(X), y), [model[0].weight, model[4].weight])
    expected = (weights[0].norm() / weights[1].norm()).item()
    assert found.first_to_last == pytest.approx(expected)


def test_values_are_those_of_numpy():
    model, X = mlp(), torch.randn(6, 10)
    rows = lw.trace(model, X, _y(5), "cross_entropy").rows
    values = X
    for row, layer in zip(rows, model):
        values = layer(values)
        told, a = row.values, values.detach().double().numpy()
        found = (told.minimum, told.mean, told.maximum, told.std)
        assert found == pytest.approx((a.min(), a.mean(), a.max(), a.std()), abs=1e-12)
        assert told.zeros == (a == 0).mean()
        assert row.shape == a.shape
        assert row.dead == (a == 0).all(axis=0).sum()
        assert row.units == pytest.approx(np.sqrt((a**2).mean(axis=0)))
        counts, _ = np.histogram(a[a != 0], bins=len(told.counts), range=(told.low, told.high))
        assert np.abs(np.array(told.counts) - counts).max() <= 1  # a value may lie on an edge
        assert sum(told.counts) == (a != 0).sum()


def test_channels_of_images_and_columns_of_sequences_are_the_units():
    model, X = zoo("images")
    assert [len(row.units) for row in lw.trace(model, X, _y(), "cross_entropy").rows] == [
        4, 4, 4, 4, 64, 64, 3,
    ]  # fmt: skip
    model, X = zoo("recurrent")
    found = lw.trace(model, X, _y(), "cross_entropy")
    assert [len(row.units) for row in found.rows] == [6, 8, 3]


def test_the_gradient_of_a_layer_counts_whichever_of_its_outputs_is_used():
    found = lw.trace(Recurrent(), torch.randint(50, (6, 7)), _y(), "cross_entropy")
    assert found.rows[1].gradient.norm > 0


def test_what_comes_after_and_works_in_place_changes_no_number():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    in_place = nn.Sequential(plain[0], nn.ReLU(inplace=True), plain[2])
    X = torch.randn(6, 10)
    a, b = (lw.trace(m, X, _y(), "cross_entropy") for m in (plain, in_place))
    assert [(r.values, r.gradient) for r in a.rows] == [(r.values, r.gradient) for r in b.rows]


def test_a_layer_that_is_called_again_has_its_weights_in_its_first_row_only():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 3))
    rows = lw.trace(model, torch.randn(6, 4), _y(), "cross_entropy").rows
    assert [row.name for row in rows] == ["0", "1", "0", "3"]
    assert rows[0].weight_gradient is not None
    assert rows[2].weight_gradient is rows[2].weight is None
    assert rows[2].gradient is not None


def test_frozen_layers_pass_gradients_on_and_get_none():
    model = mlp()
    model[0].requires_grad_(False)
    row = lw.trace(model, torch.randn(6, 10), _y(5), "cross_entropy").rows[0]
    assert row.weight_gradient is row.bias_gradient is None
    assert row.weight is not None
    assert row.gradient.norm > 0


def test_lazy_layers_are_traced_in_a_copy_and_stay_lazy():
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
    random = torch.get_rng_state()
    found = lw.trace(model, torch.randn(6, 4, generator=torch.Generator()), _y(), "cross_entropy")
    assert [row.shape for row in found.rows] == [(6, 8), (6, 8), (6, 8), (6, 3)]
    assert isinstance(model[0], nn.LazyLinear)
    assert isinstance(model[1], nn.LazyBatchNorm1d)
    assert torch.equal(torch.get_rng_state(), random)


# ---------------------------------------------------------------- known answers


def _one_hidden(activation, bias=0.0, scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), activation, nn.Linear(40, 3))
    with torch.no_grad():
        model[0].weight *= scale
        model[0].bias.fill_(bias)
    return lw.trace(model, torch.randn(300, 10), _y(3, 300), "cross_entropy").rows


def test_all_units_of_a_relu_below_zero_are_dead_and_their_healthy_twins_are_not():
    sick, healthy = (_one_hidden(nn.ReLU(), bias) for bias in (-50.0, 0.0))
    assert (sick[1].dead, sick[1].values.zeros) == (40, 1.0)
    assert sick[0].gradient.norm == sick[0].weight_gradient.norm == 0
    assert healthy[1].dead == 0
    assert 0.3 < healthy[1].values.zeros < 0.7
    assert healthy[0].weight_gradient.norm > 0
    assert sick[1].saturated is None


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Tanh(), nn.Softsign(), nn.Hardtanh()])
def test_an_activation_far_out_is_saturated_and_its_healthy_twin_is_not(activation):
    sick, healthy = _one_hidden(activation, scale=300.0), _one_hidden(activation, scale=0.3)
    assert sick[1].saturated > 0.9
    assert healthy[1].saturated < 0.02
    assert sick[0].saturated is None  # a linear layer has no such end


def test_flat_is_where_the_slope_is_below_a_fortieth_of_its_largest():
    z = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    sigmoid, tanh = z.sigmoid(), z.tanh()
    assert saturated_share(nn.Sigmoid(), (z,)) == pytest.approx(
        float((sigmoid * (1 - sigmoid) < 0.025 / 4).double().mean())
    )
    assert saturated_share(nn.Tanh(), (z,)) == pytest.approx(
        float((1 - tanh**2 < 0.025).double().mean())
    )
    assert saturated_share(nn.ELU(), (z,)) == pytest.approx(
        float((z < math.log(0.025)).double().mean()), abs=1e-3
    )
    assert saturated_share(nn.ReLU6(), (z,)) == pytest.approx(float((z >= 6).double().mean()))
    for module in (nn.GELU(), nn.SiLU(), nn.Mish(), nn.SELU(), nn.Softplus(), nn.Hardswish()):
        assert saturated_share(module, (z[z < -9],)) == 1
        assert saturated_share(module, (z[z > 9],)) == 0
    for module in (nn.ReLU(), nn.LeakyReLU(), nn.Linear(1, 1), nn.Identity()):
        assert saturated_share(module, (z,)) is None


def test_a_softmax_is_saturated_in_the_rows_that_are_sure():
    sure, unsure = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([[0.1, 0.0, 0.0]])
    assert saturated_share(nn.Softmax(dim=1), (torch.cat([sure, unsure]),)) == 0.5
    assert saturated_share(nn.LogSoftmax(dim=1), (sure,)) == 1


def test_ten_sigmoid_layers_let_the_gradient_vanish_and_ten_relu_layers_less():
    def deep(activation, init):
        torch.manual_seed(0)
        layers = []
        for _ in range(10):
            layers += [nn.Linear(32, 32), activation]
            init(layers[-2].weight)
        return nn.Sequential(*layers, nn.Linear(32, 3))

    X, y = torch.randn(100, 32), _y(3, 100)
    sick = lw.trace(deep(nn.Sigmoid(), nn.init.xavier_uniform_), X, y, "cross_entropy")
    healthy = lw.trace(deep(nn.ReLU(), nn.init.kaiming_normal_), X, y, "cross_entropy")
    assert sick.first_to_last < 1e-3 < 0.1 < healthy.first_to_last
    assert sick.rows[0].ratio < 1e-5
    assert "vanishes" in str(sick)
    assert "vanishes" not in str(healthy)


# ---------------------------------------------------------------- odd rows


def test_nan_is_shown_where_it_comes_from():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    model = nn.Sequential(nn.Linear(10, 8), Root(), nn.Linear(8, 3))
    found = lw.trace(model, torch.randn(6, 10), _y(), "cross_entropy")
    assert [row.values.not_finite > 0 for row in found.rows] == [False, True, True]
    assert math.isnan(found.loss)
    assert math.isnan(found.rows[0].gradient.norm)
    only = lw.trace(nn.Linear(2, 1), torch.full((3, 2), math.nan), torch.zeros(3, 1), "mse")
    assert math.isnan(only.rows[0].values.mean)
    assert only.rows[0].values.not_finite == 1


def test_one_row_is_enough_where_the_layers_allow_it():
    found = lw.trace(mlp(), torch.randn(1, 10), torch.tensor([2]), "cross_entropy")
    assert found.n_rows == 1
    with pytest.raises(lw.NetworkError, match=r"blocks.0.2.*BatchNorm1d"):
        lw.trace(Residual(), torch.randn(1, 10), torch.tensor([2]), "cross_entropy")


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, torch.tensor])
def test_rows_may_be_anything_made_of_numbers(kind):
    X = kind(np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32))
    found = lw.trace(mlp(), X, np.arange(6) % 5, nn.CrossEntropyLoss())
    assert found.n_rows == 6


def test_a_loss_of_ones_own_and_several_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.a(x), self.b(x)

    found = lw.trace(
        Two(),
        torch.randn(6, 4),
        (torch.randn(6, 1), _y(2)),
        lambda out, y: F.mse_loss(out[0], y[0]) + F.cross_entropy(out[1], y[1]),
    )
    assert all(row.gradient.norm > 0 for row in found.rows)


def test_an_output_that_the_loss_does_not_use_has_no_gradient():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            self.spare(x)
            return self.used(x)

    spare, used = lw.trace(Spare(), torch.randn(6, 4), _y(), "cross_entropy").rows
    assert used.gradient is not None
    assert spare.gradient is spare.ratio is spare.weight_gradient is None


def test_mistakes_are_met_before_anything_is_measured():
    with pytest.raises(lw.NetworkError, match=r"layer '0' \(Linear\(10, 18\)\)"):
        lw.trace(mlp(), torch.randn(6, 9), _y(5), "cross_entropy")
    with pytest.raises(lw.DataError, match="rows"):
        lw.trace(mlp(), torch.randn(6, 10), _y(5, 7), "cross_entropy")
    with pytest.raises(lw.SettingError, match="Did you mean 'cross_entropy'"):
        lw.trace(mlp(), torch.randn(6, 10), _y(5), "cross_entrop")
    with pytest.raises(lw.SettingError, match=r"nn\.Module; got dict"):
        lw.trace({}, torch.randn(6, 10), _y(5), "cross_entropy")


def test_what_would_train_and_not_as_meant_is_told():
    model = nn.Sequential(nn.Linear(10, 5), nn.Softmax(dim=1))
    found = lw.trace(model, torch.randn(6, 10), _y(5), nn.CrossEntropyLoss())
    assert "oftmax" in found.doubts[0]
    assert found.doubts[0].split()[0] in str(found)
    assert lw.trace(mlp(), torch.randn(6, 10), _y(5), "cross_entropy").doubts == ()
