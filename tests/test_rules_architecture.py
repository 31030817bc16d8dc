"""The network itself: each fault is named at its layer, and its healthy twin is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerwise as lw

N = 300
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(N, 1, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(N) % 3
MSE, CE = nn.MSELoss(), nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def look(model, loss=MSE, y=Y, optimizer=None, **told):
    found = lw.doctor(model, loss, optimizer, X, y, **told)
    assert not found.skipped
    return [(one.rule, one.where, one.severity) for one in found]


class Net(nn.Module):
    """Three layers and a forward of one's own."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def plain(net, x):
    return net.c(torch.relu(net.b(torch.relu(net.a(x)))))


# ---------------------------------------------------------------- linear-stack


def test_linear_layers_in_a_row_are_one():
    between = [nn.Identity(), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Flatten()]
    for layer in between:
        model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 1))
        assert look(model) == [("linear-stack", "0", "warning")], layer
    assert look(Net(lambda n, x: n.c(n.b(torch.relu(n.a(x)))))) == [
        ("linear-stack", "b", "warning")
    ]
    assert look(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3)), CE, CLASSES) == [
        ("linear-stack", "0", "note")
    ], "a bottleneck may be meant"


def test_an_activation_that_is_never_called_is_named():
    model = Net(lambda n, x: n.c(n.act(n.b(n.a(x)))), act=nn.ReLU(), spare=nn.ReLU())
    found = lw.doctor(model, MSE, None, X, Y)
    assert found.rules == ["linear-stack"]
    assert "'spare' is defined and never called" in found[0].mend


def test_products_sums_and_norms_between_are_no_stack():
    assert look(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))) == []
    assert look(nn.Linear(4, 1)) == []
    assert look(Net(lambda n, x: n.c((lambda h: h * torch.sigmoid(n.b(h)))(n.a(x))))) == []
    assert look(Net(lambda n, x: n.c(F.gelu(n.b(F.relu(n.a(x))) + n.a(x))))) == []


def test_a_network_that_is_linear_by_other_ways_is_found_by_adding_rows():
    model = Net(lambda n, x: n.c(n.a(x) + n.b(n.a(x)) * 0.5))
    assert look(model) == [("linear-stack", "a", "warning")]


# ---------------------------------------------------------------- no-gradient-to-layer


@pytest.mark.parametrize(
    "cut",
    [
        lambda h: h.detach(),
        lambda h: h.data,
        lambda h: h.round(),
        lambda h: (h > 0).float(),
        lambda h: torch.tensor(h.tolist()),
    ],
)
def test_a_cut_path_is_told_at_the_layer_before_it(cut):
    model = Net(lambda n, x: n.c(torch.relu(n.b(cut(torch.relu(n.a(x)))))))
    assert look(model) == [("no-gradient-to-layer", "a", "error")]


def test_a_layer_that_forward_forgets_is_told():
    model = Net(lambda n, x: n.c(torch.relu(n.a(x))))
    assert look(model) == [("no-gradient-to-layer", "b", "error")]


def test_outputs_that_are_cut_off_are_told_at_the_last_layer():
    model = Net(lambda n, x: plain(n, x).detach())
    assert look(model) == [("no-gradient-to-layer", "c", "error")]


def test_a_zero_head_and_shared_or_functional_layers_get_their_gradient():
    model = Net(plain)
    nn.init.zeros_(model.c.weight)
    assert look(model) == []
    assert look(Net(lambda n, x: n.c(torch.relu(n.b(n.b(n.a(x).relu()).relu()))))) == []
    assert look(Net(lambda n, x: n.c(F.linear(n.a(x).relu(), n.b.weight).relu()))) == []


# ---------------------------------------------------------------- params-not-in-optimizer


def adam(*parameters):
    return torch.optim.Adam([p for some in parameters for p in some])


def test_layers_in_a_list_are_not_in_the_optimizer():
    hidden = [nn.Linear(8, 8), nn.Linear(8, 8)]

    def forward(net, x):
        h = net.layers[0](net.a(x).tanh()).tanh()
        return net.c(net.b(net.layers[1](h).tanh()).tanh())

    model = Net(forward, layers=hidden)
    found = lw.doctor(model, MSE, adam(model.parameters()), X, Y)
    assert [(one.rule, one.where) for one in found] == [("params-not-in-optimizer", "optimizer")]
    assert "layers[0].weight" in found[0].seen
    assert "ModuleList" in found[0].mend
    both = adam(model.parameters(), *(one.parameters() for one in hidden))
    assert not lw.doctor(model, MSE, both, X, Y)


def test_a_part_another_model_and_a_replaced_layer_are_told_apart():
    model, other = Net(plain), Net(plain)
    for optimizer, reason in (
        (adam(model.a.parameters()), "from a part"),
        (adam(other.parameters()), "another model"),
    ):
        found = lw.doctor(model, MSE, optimizer, X, Y)
        assert [(one.rule, one.where) for one in found] == [
            ("params-not-in-optimizer", "optimizer")
        ]
        assert reason in found[0].seen
    optimizer = adam(model.parameters())
    model.c = nn.Linear(8, 1)
    assert "was replaced" in lw.doctor(model, MSE, optimizer, X, Y)[0].seen


def test_several_optimizers_are_taken_together():
    model = Net(plain)
    some = [adam(model.a.parameters()), adam(model.b.parameters(), model.c.parameters())]
    assert look(model, optimizer=some) == []
    model.a.requires_grad_(False)
    nn.init.normal_(model.a.weight)
    rest = adam(model.b.parameters(), model.c.parameters())
    assert [one[0] for one in look(model, optimizer=rest)] == ["frozen-parameters"]


# ---------------------------------------------------------------- frozen-parameters


def test_frozen_layers_are_judged_by_whether_they_ever_learnt():
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    model[0].requires_grad_(False)
    assert look(model) == [("frozen-parameters", "0", "warning")]
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(16, 4) * 0.4)
    assert look(model) == [("frozen-parameters", "0", "note")]
    model.requires_grad_(False)
    assert look(model) == [("frozen-parameters", "0", "error")]


# ---------------------------------------------------------------- dropout-misuse


def test_dropout_that_keeps_hardly_anything_or_comes_last():
    def net(p, *last):
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 1), *last)

    assert look(net(0.9)) == [("dropout-misuse", "2", "warning")]
    assert look(net(0.97)) == [("dropout-misuse", "2", "error")]
    assert look(net(0.5)) == []
    assert look(net(0.1, nn.Dropout(0.1))) == [("dropout-misuse", "4", "error")]
    assert look(net(0.1, nn.BatchNorm1d(1))) == [("dropout-misuse", "4", "warning")]
    model = Net(lambda n, x: n.c(F.dropout(n.b(n.a(x).relu()).relu(), 0.9, n.training)))
    assert look(model) == [("dropout-misuse", "forward", "warning")]
    model = Net(lambda n, x: F.dropout(n.c(n.b(n.a(x).relu()).relu()), 0.3, n.training))
    assert look(model) == [("dropout-misuse", "c", "error")]


def test_dropout_before_a_product_that_no_layer_makes_is_in_its_place():
    model = Net(lambda n, x: F.linear(F.dropout(n.b(n.a(x).relu()).relu(), 0.3), n.c.weight))
    assert not any(name == "dropout-misuse" for name, *_ in look(model))


# ---------------------------------------------------------------- batchnorm-single-row


def test_a_last_batch_of_one_row_and_batch_norm():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    fault = [("batchnorm-single-row", "batch_size", "error")]
    assert look(model, batch_size=13) == fault, "300 = 23 * 13 + 1"
    assert look(model, batch_size=13, drop_last=True) == []
    assert look(model, batch_size=32) == []
    assert look(model, batch_size=1) == fault
    other = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
    assert look(other, batch_size=13) == []
    model[1].eval()
    assert look(model, batch_size=13) == [], "it is held in evaluation mode"


def test_one_row_alone_is_run_all_the_same():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    assert not lw.doctor(model, MSE, None, X[:1], Y[:1]).alarms


# ---------------------------------------------------------------- the start


def test_equal_units_are_told_and_a_residual_branch_may_end_in_zeros():
    for value in (0.0, 0.3):
        model = Net(plain)
        nn.init.constant_(model.b.weight, value)
        assert look(model)[0] == ("symmetric-init", "b", "error")
    model = Net(lambda n, x: n.c((n.a(x) + n.b(n.a(x).relu())).relu()))
    nn.init.zeros_(model.b.weight)
    assert look(model) == []


def test_weights_far_too_large_and_far_too_small():
    def net(size, act=nn.ReLU, depth=1):
        layers = [nn.Linear(4, 64), act()]
        for _ in range(depth):
            layers += [nn.Linear(64, 64), act()]
        model = nn.Sequential(*layers, nn.Linear(64, 3))
        for layer in model[:-1]:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=size)
        return model

    assert look(net(3.0), CE, CLASSES)[0][0] == "init-scale"
    assert look(net(6.0, nn.Tanh), CE, CLASSES)[0][:2] == ("init-scale", "0")
    assert look(net(0.01, depth=3), CE, CLASSES)[0][:2] == ("init-scale", "6")
    assert look(net(0.2), CE, CLASSES) == []
    model = net(0.2)
    nn.init.normal_(model[-1].weight, std=60)
    assert look(model, CE, CLASSES)[0] == ("init-scale", "4", "error")


def test_raw_features_are_named_and_not_the_weights_that_meet_them():
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    found = lw.doctor(model, CE, None, X * 500, CLASSES)
    assert found.rules == ["unscaled-features"]
    assert "saturated-activation" in found[0].explains
    assert "saturated-activation" in [one.rule for one in found.explained]
