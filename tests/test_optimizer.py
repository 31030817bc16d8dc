"""Optimizers by name: every class of torch.optim, and weight decay where it belongs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from layerwise.engine.loss import mse
from layerwise.engine.torch import Rows
from layerwise.errors import SettingError
from layerwise.network.build import build
from layerwise.network.plan import design
from layerwise.training.fit import fit
from layerwise.training.optimizer import OPTIMIZERS, make_optimizer
from layerwise.training.recipe import Recipe


def _network(**settings):
    return build(design(3, [], 1, **{"hidden_layer_sizes": (4,), **settings}), dtype=torch.float64)


NAMES = sorted(
    name
    for name in dir(torch.optim)
    if isinstance(getattr(torch.optim, name), type)
    and issubclass(getattr(torch.optim, name), torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "Muon")
)


def test_every_class_of_torch_is_known():
    assert {name.lower() for name in NAMES} == set(OPTIMIZERS)
    assert {"sgd", "adam", "adamw", "lbfgs", "rmsprop"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_trains_under_its_name_in_any_case(name):
    X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lr = {"Adadelta": 10.0, "Adafactor": 0.1}.get(name, 0.01)
    for said in (name, name.lower()):
        recipe = Recipe(optimizer=said, lr=lr, epochs=6)
        rows = Rows(X, X.sum(1, keepdim=True))
        history = fit(_network(), mse, rows, None, replace(recipe, batch_size=20))
        assert min(history["loss"]) < 0.98 * history["train_loss"][0]


@pytest.mark.parametrize("name", ["muon", "SparseAdam"])
def test_what_cannot_train_such_networks_says_why(name):
    with pytest.raises(SettingError, match=f"optimizer '{name}' takes .* only.* Use adamw"):
        make_optimizer(_network(), Recipe(optimizer=name))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(SettingError, match=r"unknown optimizer 'adamm'. Did you mean 'adam'"):
        make_optimizer(_network(), Recipe(optimizer="adamm"))


def test_an_unknown_option_gets_the_nearest_one():
    recipe = Recipe(optimizer="sgd", optimizer_options={"nestrov": True})
    with pytest.raises(SettingError, match=r"SGD has no option 'nestrov'. Did you mean 'nesterov'"):
        make_optimizer(_network(), recipe)
    for name in ("params", "lr"):
        with pytest.raises(SettingError, match=r"option"):
            make_optimizer(_network(), Recipe(optimizer="sgd", optimizer_options={name: 1}))


@pytest.mark.parametrize("options", [{"betas": [2, 2]}, {"betas": 3}, {"eps": "small"}])
def test_a_bad_option_is_refused_in_words(options):
    recipe = Recipe(optimizer="adam", optimizer_options=options)
    with pytest.raises(SettingError, match=r"Adam (refuses its options|takes)"):
        make_optimizer(_network(), recipe)


def test_options_and_settings_arrive():
    recipe = Recipe(
        optimizer="sgd", lr=0.3, momentum=0.5, optimizer_options={"nesterov": True, "fused": False}
    )
    group = make_optimizer(_network(), recipe).param_groups[0]
    found = group["lr"], group["momentum"], group["nesterov"], group["fused"]
    assert found == (0.3, 0.5, True, False)
    betas = Recipe(optimizer="adam", optimizer_options={"betas": [0.8, 0.9]})
    assert make_optimizer(_network(), betas).param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_weight_decay_is_on_matrices_and_not_on_biases_and_norms(norm):
    network = build(design(2, [40], 1, hidden_layer_sizes=(4,), norm=norm))
    optimizer = make_optimizer(network, Recipe(weight_decay=0.1))
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    found = {name: decay[id(p)] for name, p in network.named_parameters()}
    assert found == {
        "0.tables.0.weight": 0.1, "1.weight": 0.1, "1.bias": 0.0, "2.weight": 0.0, "2.bias": 0.0,
        "4.weight": 0.1, "4.bias": 0.0,
    }  # fmt: skip


def test_decay_shrinks_weights_without_gradient_and_leaves_biases():
    network = _network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    optimizer = make_optimizer(network, Recipe(optimizer="sgd", lr=0.1, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert network[0].weight.unique().tolist() == [pytest.approx(0.95)]
    assert network[0].bias.unique().tolist() == [1.0]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_the_fused_form_gives_the_same_numbers(name):
    X = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = []
    for fused in (True, False):
        network = _network()
        recipe = Recipe(optimizer=name, epochs=3, optimizer_options={"fused": fused})
        fit(network, mse, Rows(X, X[:, :1]), None, replace(recipe, batch_size=10))
        weights.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach())
    torch.testing.assert_close(*weights, rtol=1e-11, atol=1e-13)


def test_frozen_parameters_are_left_out():
    network = _network()
    network[0].weight.requires_grad_(False)
    groups = make_optimizer(network, Recipe()).param_groups
    assert sum(len(group["params"]) for group in groups) == 3
