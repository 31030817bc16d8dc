"""What the native core can run, and the sentence for what it cannot."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from core_cases import ACTIVATIONS, LOSSES, NORMS
from layerwise.engine.loss import LOSSES as OWN
from layerwise.engine.plan import (
    Refused,
    check_targets,
    read_layers,
    read_loss,
    read_optimizer,
)
from layerwise.network.build import build
from layerwise.network.layers import Dropout
from layerwise.network.plan import design
from layerwise.training.losses import loss_of


def _kinds(network: nn.Module, n_inputs: int = 3) -> list[str]:
    return [layer.planned[0] for layer in read_layers(network, n_inputs)]


@pytest.mark.parametrize("name", [*ACTIVATIONS, *NORMS])
def test_every_layer_of_the_core_is_read(name):
    module = ACTIVATIONS[name]() if name in ACTIVATIONS else NORMS[name](4)
    layer = read_layers(nn.Sequential(nn.Linear(3, 4), module), 3)[1]
    assert layer.module is module
    assert [id(p) for p in layer.parameters] == [id(p) for p in module.parameters()]


def test_what_layerwise_builds_is_read():
    network = build(design(2, [4, 3], 2, hidden_layer_sizes=(5,), dropout=0.2, norm="batch"))
    kinds = _kinds(network, 4)
    assert kinds[0] == "InputLayer"
    assert {"Linear", "BatchNorm1d", "Dropout"} <= set(kinds)


def test_nested_networks_are_read_in_their_order():
    inner = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=nn.Sequential(nn.Tanh())))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), inner, nn.Linear(4, 1))
    assert _kinds(network) == ["Identity", "Linear", "Linear", "Tanh", "Linear"]


def test_an_activation_that_is_used_again_counts_again():
    shared = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared)
    assert _kinds(network) == ["Linear", "ReLU", "Linear", "ReLU"]


def test_a_network_of_one_layer_is_read():
    assert _kinds(nn.Linear(3, 2)) == ["Linear"]


class Mine(nn.Linear):
    pass


def _hooked(register) -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    register(network)
    return network


def _frozen() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    network[1].bias.requires_grad_(False)
    return network


def _tied(whole: bool) -> nn.Module:
    first = nn.Linear(3, 3)
    second = first if whole else nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def _mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1).double())


REFUSED = {
    "layer '1' is a Mine, which": lambda: nn.Sequential(nn.Linear(3, 3), Mine(3, 3)),
    "layer '0' is a Conv1d, which": lambda: nn.Sequential(nn.Conv1d(3, 3, 1)),
    "layer '1.0' is a Bilinear": lambda: nn.Sequential(
        nn.Linear(3, 3), nn.Sequential(nn.Bilinear(1, 1, 1))),
    r"layer '0' \(BatchNorm1d\) keeps no": lambda: nn.Sequential(
        nn.BatchNorm1d(3, track_running_stats=False)),
    r"layer '0' \(BatchNorm1d\) has eps 0": lambda: nn.Sequential(nn.BatchNorm1d(3, eps=0.0)),
    r"layer '0' \(BatchNorm1d\) has momentum -0.1": lambda: nn.Sequential(
        nn.BatchNorm1d(3, momentum=-0.1)),
    r"layer '0' \(LayerNorm\) normalises several": lambda: nn.Sequential(nn.LayerNorm([2, 3])),
    r"layer '0' \(Softmax\) goes along dim 0": lambda: nn.Sequential(nn.Softmax(dim=0)),
    r"layer '0' \(Flatten\) flattens the rows": lambda: nn.Sequential(nn.Flatten(0)),
    r"layer '0' \(Dropout\) leaves nothing": lambda: nn.Sequential(Dropout(1.0)),
    "layer '0' takes 4 columns and gets 3": lambda: nn.Sequential(nn.Linear(4, 3)),
    "layer '1' takes 5 columns and gets 4": lambda: nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(5)),
    "layer '1' takes 2 columns and gets 4": lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(2)),
    "layer '0' takes 7 columns and gets 3": lambda: nn.Sequential(nn.LayerNorm(7)),
    "layer '0' is frozen": lambda: nn.Sequential(nn.Linear(3, 3)).requires_grad_(False),
    "layer '1' is frozen": _frozen,
    "layer '1' shares its parameters": lambda: _tied(False),
    "layer '1' shares its": lambda: _tied(True),
    "layer '0' has hooks": lambda: _hooked(lambda n: n[0].register_forward_hook(print)),
    "the network has hooks": lambda: _hooked(lambda n: n.register_full_backward_hook(print)),
    "layer '2' has hooks": lambda: _hooked(lambda n: setattr(n[2], "forward", print)),
    "layer '1' has hooks": lambda: _hooked(lambda n: n[1].register_forward_pre_hook(print)),
    "the parameters of layer '0' have hooks": lambda: _hooked(
        lambda n: n[0].weight.register_hook(print)),
    "the parameters of layer '2' have hooks": lambda: _hooked(
        lambda n: n[2].bias.register_post_accumulate_grad_hook(print)),
    "no layer that learns": lambda: nn.Sequential(nn.ReLU()),
    r"its parameters are torch.float32, torch.float64": _mixed,
    "its parameters are torch.bfloat16": lambda: nn.Sequential(nn.Linear(3, 1)).bfloat16(),
    "it is not on the CPU": lambda: nn.Sequential(nn.Linear(3, 1, device="meta")),
    "layer '0' is a ParametrizedLinear": lambda: nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))),
    "takes 3 columns and gives 0": lambda: nn.Sequential(_narrow(), nn.ReLU()),
}  # fmt: skip


def _narrow() -> nn.Module:
    layer = nn.Linear(3, 1, bias=False)
    layer.out_features, layer.weight = 0, nn.Parameter(torch.zeros(0, 3))
    return layer


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_the_core_does_not_have_is_said(sentence):
    with pytest.raises(Refused, match=sentence):
        read_layers(REFUSED[sentence](), 3)


def test_hooks_for_all_modules_are_seen():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(Refused, match="hooks are set for all modules"):
            read_layers(nn.Linear(3, 1), 3)
    finally:
        handle.remove()
    read_layers(nn.Linear(3, 1), 3)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_core_is_read_by_name_and_by_module(name):
    criterion, _, y = LOSSES[name](6, 4)
    planned = read_loss(loss_of(criterion), 4)
    check_targets(planned, y, 4)


def test_layerwises_own_losses_are_read():
    kinds = {name: read_loss(loss, 2).kind for name, loss in OWN.items()}
    assert kinds == {"mse": "mse", "l1": "l1", "huber": "huber", "bce": "bce_logits",
                     "cross_entropy": "cross_entropy"}  # fmt: skip


UNKNOWN = {
    "the loss is a function of its own": lambda outputs, y: (outputs - y).mean(),
    "the loss MSELoss does not take the mean": nn.MSELoss(reduction="sum"),
    "the loss CrossEntropyLoss does not take the mean": nn.CrossEntropyLoss(reduction="sum"),
    "the core does not have the loss KLDivLoss": nn.KLDivLoss(),
    "the loss BCELoss has weights of its elements": nn.BCELoss(weight=torch.ones(2)),
    "the loss BCEWithLogitsLoss has weights of": nn.BCEWithLogitsLoss(weight=torch.ones(2)),
    r"pos_weight has shape \(3,\), not \(2,\)": nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)),
    "the loss has 3 weights of classes, not 2": nn.CrossEntropyLoss(weight=torch.ones(3)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", UNKNOWN)
def test_a_loss_that_the_core_does_not_have_is_said(sentence):
    with pytest.raises(Refused, match=sentence):
        read_loss(loss_of(UNKNOWN[sentence]), 2)


@pytest.mark.parametrize(
    ("loss", "y", "sentence"),
    [
        ("mse", torch.zeros(5), r"y has shape \(5,\) for 2 outputs"),
        ("mse", torch.zeros(5, 1), r"y has shape \(5, 1\) for 2 outputs"),
        ("cross_entropy", torch.zeros(5, 3), r"y has shape \(5, 3\) for 2 outputs"),
        ("cross_entropy", torch.zeros(5, 1).long(), "torch.int64 of shape"),
        ("cross_entropy", torch.zeros(5).int(), "y is torch.int32"),
        ("nll", torch.zeros(5, 2), r"y has shape \(5, 2\)"),
        ("mse", (torch.zeros(5, 2),), "y is not one tensor"),
        ("mse", torch.zeros(5, 2, dtype=torch.complex64), "y is not one tensor"),
    ],
)
def test_targets_that_torch_would_broadcast_or_refuse_are_not_the_cores(loss, y, sentence):
    criterion = nn.NLLLoss() if loss == "nll" else loss
    with pytest.raises(Refused, match=sentence):
        check_targets(read_loss(loss_of(criterion), 2), y, 2)


# ---------------------------------------------------------------- optimizers


def _parameters() -> list[torch.Tensor]:
    return list(nn.Linear(3, 2).parameters())


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad"])
def test_every_optimizer_of_the_core_is_read(kind):
    parameters = _parameters()
    assert read_optimizer(getattr(torch.optim, kind)(parameters, lr=0.1), parameters) == kind


def test_an_optimizer_that_a_scheduler_watches_is_read():
    parameters = _parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    assert read_optimizer(optimizer, parameters) == "SGD"


class Own(torch.optim.SGD):
    pass


def _with(change):
    def make(parameters):
        optimizer = torch.optim.Adam(parameters, lr=0.1)
        change(optimizer)
        return optimizer

    return make


STRANGE = {
    "does not have the optimizer Own": lambda p: Own(p, lr=0.1),
    "does not have the optimizer LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1),
    "holds other parameters": lambda p: torch.optim.SGD(p[:1], lr=0.1),
    "holds other parameters than": lambda p: torch.optim.SGD([*p, *_parameters()], lr=0.1),
    "the optimizer has hooks": _with(lambda o: o.register_step_post_hook(print)),
    "has a step of its own": _with(lambda o: setattr(o, "step", print)),
    "the learning rate is a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1)),
    "capturable or differentiable": lambda p: torch.optim.Adam(p, lr=0.1, differentiable=True),
    "eps is 0": lambda p: torch.optim.Adam(p, lr=0.1, eps=0.0),
}  # fmt: skip


@pytest.mark.parametrize("sentence", STRANGE)
def test_an_optimizer_that_the_core_does_not_have_is_said(sentence):
    parameters = _parameters()
    with pytest.raises(Refused, match=sentence):
        read_optimizer(STRANGE[sentence](parameters), parameters)
