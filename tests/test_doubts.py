"""What would train, and surely not as meant, is told; what is meant is not."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerwise.engine.torch import Rows
from layerwise.training.checks import check_batch
from layerwise.training.losses import loss_of
from nets import Recurrent, Residual

N = 30
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=GENERATOR)
NUMBERS = torch.randn(N, 1, generator=GENERATOR)
CLASSES = torch.arange(N) % 3
YES = (NUMBERS > 0).float()
SHARES = torch.rand(N, 3, generator=GENERATOR).softmax(1)
STEPS = torch.randn(N, 5, 4, generator=GENERATOR)
IMAGES = torch.rand(N, 1, 6, 6, generator=GENERATOR)
S, L, CE = nn.Sequential, nn.Linear, nn.CrossEntropyLoss()


def _mlp(n_outputs=1, *end):
    return S(L(4, 6), nn.Tanh(), L(6, n_outputs), *end)


def _doubts(model, y, loss, x=X, names=()):
    return check_batch(model, Rows(x, y), loss, loss_of(loss), names)


class Own(nn.Module):
    """Two linear layers and a forward of one's own."""

    def __init__(self, forward, sizes=(4, 6, 3)):
        super().__init__()
        a, b, c = sizes
        self.a, self.b, self.c, self.forward_ = L(a, b), L(b, c), L(a, c), forward

    def forward(self, x):
        return self.forward_(self, x)


class Attention(nn.Module):
    """A softmax inside, over steps, and not at the end."""

    def __init__(self, dim=2):
        super().__init__()
        self.q, self.k, self.v, self.out = L(4, 6), L(4, 6), L(4, 6), L(6, 3)
        self.dim = dim

    def forward(self, x):
        weights = (self.q(x) @ self.k(x).transpose(-1, -2)).softmax(self.dim)
        return self.out((weights @ self.v(x)).mean(1))


class Steps(nn.Module):
    def __init__(self, layer, turn=False):
        super().__init__()
        self.layer, self.turn, self.out = layer, turn, L(8, 3)

    def forward(self, x):
        if self.turn:
            return self.out(self.layer(x.transpose(0, 1))[0][-1])
        return self.out(self.layer(x)[0][:, -1])


class Gated(nn.Module):
    """Self-attention of torch, between linear layers."""

    def __init__(self, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.out = L(4, 3)

    def forward(self, x):
        return self.out(self.attention(x, x, x)[0].relu()[:, -1])


def _from(start):
    model = _mlp()
    nn.init.constant_(model[2].bias, start)
    return model


def _frozen(model):
    model[0].requires_grad_(False)
    return model


# what is told, and the sick: model, y, loss, and further arguments
SICK = {
    "softmax twice": (
        r"softmax twice: the network ends in layer '3' \(Softmax\(dim=1\)\) and cross-entropy has "
        "the softmax inside. It learns slowly",
        _mlp(3, nn.Softmax(1)), CLASSES, CE,
    ),
    "a softmax of its own forward": (
        "softmax twice: the network ends in a softmax of its own forward",
        Own(lambda m, x: F.softmax(m.b(m.a(x).relu()), dim=1)), CLASSES, CE,
    ),
    "another shape after the softmax": (
        r"softmax twice: the network ends in layer '3' \(Softmax",
        _mlp(3, nn.Softmax(-1), nn.Unflatten(1, (3, 1)), nn.Flatten()), CLASSES, CE,
    ),
    "a shape and type after it": (
        "softmax twice",
        Own(lambda m, x: m.c(x).softmax(1)[:, None].double().permute(0, 2, 1).squeeze(2).float()),
        CLASSES, "cross_entropy",
    ),
    "sigmoid twice": (
        r"sigmoid twice: the network ends in layer '3' \(Sigmoid\(\)\) and BCEWithLogitsLoss has",
        _mlp(1, nn.Sigmoid()), YES, nn.BCEWithLogitsLoss(),
    ),
    "sigmoid before cross-entropy": (
        r"ends in layer '3' \(Sigmoid\(\)\), so its logits stay within 0 to 1, and it can never be "
        "sure: cross-entropy has the softmax inside. Leave the activation",
        _mlp(3, nn.Sigmoid()), CLASSES, CE,
    ),
    "tanh before a sigmoid": (
        "its logits stay within -1 to 1, and it can never be sure: BCEWithLogitsLoss has",
        _mlp(1, nn.Tanh()), YES, "bce",
    ),
    "softmax before a sigmoid": (
        "so its logits stay within 0 to 1", _mlp(3, nn.Softmax(1)), SHARES, "bce",
    ),
    "an activation at the end": (
        r"ends in layer '3' \(ReLU\(\)\), so its logits are never below 0, and it cannot say no",
        _mlp(3, nn.ReLU()), CLASSES, CE,
    ),
    "softmax of one output": (
        r"ends in layer '3' \(Softmax\(dim=1\)\) over one output, which is always 1, so nothing is",
        _mlp(1, nn.Softmax(1)), YES, nn.BCELoss(),
    ),
    "logits for NLLLoss": (
        r"NLLLoss takes log-probabilities, .* ends in layer '2' \(Linear\(6, 3\)\): end it with "
        r"nn.LogSoftmax\(dim=1\)",
        _mlp(3), CLASSES, nn.NLLLoss(),
    ),
    "probabilities for NLLLoss": (
        r"NLLLoss takes log-probabilities.*Softmax\(dim=1\)",
        _mlp(3, nn.Softmax(1)), CLASSES, nn.NLLLoss(),
    ),
    "logarithms below 0 that are no probabilities": (
        r"whose exponentials sum to 1, and the network ends in layer '3' \(LogSigmoid",
        _mlp(3, nn.LogSigmoid()), CLASSES, nn.NLLLoss(),
    ),
    "probabilities for KLDivLoss": (
        "KLDivLoss takes log-probabilities, which are never above 0",
        _mlp(3, nn.Softmax(1)), SHARES, nn.KLDivLoss(reduction="batchmean"),
    ),
    "numbers out of reach of a sigmoid": (
        r"ends in layer '3' \(Sigmoid\(\)\), which gives 0 to 1, and y goes from -\d",
        _mlp(1, nn.Sigmoid()), NUMBERS, "mse",
    ),
    "numbers out of reach of tanh": (
        "which gives -1 to 1, and y goes from .* Leave the activation after the last layer out",
        _mlp(1, nn.Tanh()), NUMBERS, nn.L1Loss(),
    ),
    "numbers below a relu": (
        "which gives nothing below 0, and y goes from", _mlp(1, nn.ReLU()), NUMBERS, nn.HuberLoss(),
    ),
    "numbers far away": (
        "y has values around .*e.05 and the network starts around 0.* Scale y with the training",
        _mlp(), 4e5 + NUMBERS, "mse",
    ),
    "several labels for cross-entropy": (
        r"y, row \d+ sums to 2; cross-entropy takes probabilities. For several labels at once take",
        _mlp(3), 1 - F.one_hot(CLASSES).float(), CE,
    ),
    "a loss of one's own that stretches": (
        r"the loss stretches \(N, 1\) and \(N,\) to \(N, N\) and compares every row with every",
        _mlp(), NUMBERS[:, 0], lambda outputs, y: (outputs - y).square().mean(),
    ),
    "the same the other way round": (
        r"the loss stretches \(N, 1\) and \(N,\)",
        _mlp(1, nn.Flatten(0)), NUMBERS, lambda outputs, y: torch.sub(y, outputs).abs().mean(),
    ),
    "linear layers in a row": (
        r"layers '0', '1' and '2' are linear with no activation between: together they are one "
        r"Linear\(4, 5\), so 335 parameters do the work of 25. Put an activation",
        S(L(4, 18), L(18, 10), L(10, 5)), CLASSES, CE,
    ),
    "linear layers and dropout": (
        "layers '0' and '2' are linear", S(L(4, 18), nn.Dropout(0.3), L(18, 3)), CLASSES, CE,
    ),
    "linear layers in a forward": (
        "layers 'a' and 'b' are linear", Own(lambda m, x: m.b(m.a(x))), CLASSES, CE,
    ),
    "linear layers over steps": (
        "layers '0' and '1' are linear",
        S(L(4, 9), L(9, 5, bias=False), nn.ReLU(), nn.Flatten(), L(25, 3)), CLASSES, CE, STEPS,
    ),
    "a large column": (
        r"column 2 of X has values around \d+e?\S*, half of the columns at most 1\S*: large "
        "columns drown the others",
        _mlp(), NUMBERS, "mse", X * torch.tensor([1, 1, 3000, 1]),
    ),
    "a large column with a name": (
        "column 'income' of X has values around",
        _mlp(), NUMBERS, "mse", X * torch.tensor([1, 1, 3000, 1]), ["a", "b", "income", "c"],
    ),
    "one column above all others": (
        "column 0 of X has values around",
        _mlp(), NUMBERS, "mse", X * torch.tensor([9, 0.01, 0.01, 0.01]),
    ),
    "images of 0 to 255": (
        r"X has values around 1\d\d, up to 25\d, which force a tiny learning rate: .*X / 25",
        S(nn.Conv2d(1, 3, 6), nn.Flatten()), CLASSES, CE, IMAGES * 255,
    ),
    "an lstm that takes rows for steps": (
        r"the answers to a row change with the other rows of its batch: layer 'layer' \(LSTM\(4, 8"
        r"\)\) takes the rows for steps in time: give it batch_first=True",
        Steps(nn.LSTM(4, 8)), CLASSES, CE, STEPS,
    ),
    "attention between rows": (
        r"layer 'attention' \(MultiheadAttention\(.*\)\) takes the rows for steps in time",
        Gated(False), CLASSES, CE, STEPS,
    ),
    "a softmax over the rows": (
        r"change with the other rows of its batch: layer '1' \(Softmax\(dim=0\)\) mixes dimension",
        S(L(4, 6), nn.Softmax(0), L(6, 3)), CLASSES, CE,
    ),
    "a softmax over the rows within": (
        "a reshape, a softmax over dim=0 or a mean", Attention(0), CLASSES, CE, STEPS,
    ),
    "a mean over the rows": (
        "a mean over the batch", Own(lambda m, x: m.c(x - x.mean(0))), CLASSES, CE,
    ),
    "a reshape that mixes rows": (
        "a reshape",
        Own(lambda m, x: m.c(x.T.reshape(x.shape))), CLASSES, CE,
    ),
    "rows mixed before several outputs": (
        "give it batch_first=True", nn.LSTM(4, 8), CLASSES,
        lambda outputs, y: F.cross_entropy(outputs[0][:, -1], y), STEPS,
    ),
}  # fmt: skip

# what trains as meant: model, y, loss, and further arguments
HEALTHY = {
    "logits": (_mlp(3), CLASSES, CE),
    "one logit": (_mlp(1), YES, "bce"),
    "log-softmax before cross-entropy changes nothing": (_mlp(3, nn.LogSoftmax(1)), CLASSES, CE),
    "log-probabilities": (_mlp(3, nn.LogSoftmax(1)), CLASSES, nn.NLLLoss()),
    "their logarithm": (
        Own(lambda m, x: (m.c(x).softmax(1) + 1e-9).log()), CLASSES, nn.NLLLoss()
    ),
    "log-probabilities of places": (
        S(nn.Conv2d(1, 3, 1), nn.LogSoftmax(1)), CLASSES[:, None, None].expand(N, 6, 6),
        nn.NLLLoss(), IMAGES,
    ),
    "shares": (_mlp(3, nn.LogSoftmax(1)), SHARES, nn.KLDivLoss(reduction="batchmean")),
    "a softmax for a loss of one's own": (
        _mlp(3, nn.Softmax(1)), CLASSES, lambda o, y: -o[torch.arange(len(y)), y].log().mean(),
    ),
    "a softmax for shares": (_mlp(3, nn.Softmax(1)), SHARES, "mse"),
    "a softmax inside": (Attention(), CLASSES, CE, STEPS),
    "a softmax then a layer": (_mlp(3, nn.Softmax(1), L(3, 3)), CLASSES, CE),
    "probabilities": (_mlp(1, nn.Sigmoid()), YES, nn.BCELoss()),
    "shares of one": (_mlp(1, nn.Sigmoid()), YES, "mse"),
    "within a tanh": (_mlp(1, nn.Tanh()), 2 * YES - 1, "mse"),
    "above a relu": (_mlp(1, nn.ReLU()), NUMBERS.abs(), "mse"),
    "counts": (_mlp(1), NUMBERS.abs().round() * 900, nn.PoissonNLLLoss()),
    "numbers of a hundred": (_mlp(1), 50 + 20 * NUMBERS, "mse"),
    "a network that starts far away": (_from(4e5), 4e5 + NUMBERS, "mse"),
    "a network that brings its answers back": (
        Own(lambda m, x: 9e3 * m.c(x)), 4e5 + NUMBERS.expand(-1, 3), "mse",
    ),
    "soft labels": (_mlp(3), SHARES, CE),
    "one-hot labels": (_mlp(3), F.one_hot(CLASSES).float(), CE),
    "an outer product that is meant": (
        _mlp(), NUMBERS, lambda o, y: (o - o.T).square().mean() + (o - y).square().mean(),
    ),
    "a matrix product": (
        _mlp(), NUMBERS, lambda o, y: (o @ o.T).square().mean() + (o - y).square().mean(),
    ),
    "a bottleneck": (S(L(4, 2), L(2, 4)), X, "mse"),
    "a low-rank pair": (S(L(4, 1, bias=False), L(1, 3)), CLASSES, CE),
    "activations between": (S(L(4, 9), nn.GELU(), L(9, 9), nn.PReLU(), L(9, 3)), CLASSES, CE),
    "a function between": (Own(lambda m, x: m.b(F.relu(m.a(x)))), CLASSES, CE),
    "a function in place": (Own(lambda m, x: m.b(F.relu(m.a(x), inplace=True))), CLASSES, CE),
    "a method in place": (Own(lambda m, x: m.b(m.a(x).tanh_())), CLASSES, CE),
    "a module in place": (S(L(4, 6), nn.ReLU(inplace=True), L(6, 3)), CLASSES, CE),
    "a norm between": (S(L(4, 9), nn.LayerNorm(9), L(9, 3)), CLASSES, CE),
    "a sum between": (Own(lambda m, x: m.b(m.a(x) + x.repeat(1, 2)), (4, 8, 3)), CLASSES, CE),
    "a sum of linear layers": (Own(lambda m, x: m.c(x) + m.b(m.a(x).relu())), CLASSES, CE),
    "what another branch takes too": (
        Own(lambda m, x: (lambda h: m.b(h) + h[:, :3].relu())(m.a(x))), CLASSES, CE,
    ),
    "what is an output too": (
        Own(lambda m, x: (lambda h: (m.b(h), h))(m.a(x))), CLASSES,
        lambda outputs, y: F.cross_entropy(outputs[0], y) + outputs[1].square().mean(),
    ),
    "a head on a frozen layer": (_frozen(S(L(4, 9), L(9, 3))), CLASSES, CE),
    "two steps of one layer": (Own(lambda m, x: m.a(m.a(x).relu()), (4, 4, 3)), X, "mse"),
    "one-hot columns": (_mlp(), NUMBERS, "mse", F.one_hot(torch.arange(N) % 4, 4).float()),
    "columns of about 10": (_mlp(), NUMBERS, "mse", 10 * X),
    "a norm at the start": (S(nn.BatchNorm1d(4), L(4, 1)), NUMBERS, "mse", 1e4 * X),
    "its own scaling": (Own(lambda m, x: m.c(x / 1e4)), CLASSES, CE, 1e4 * X),
    "a constant column": (_mlp(), NUMBERS, "mse", torch.cat([X[:, :3], torch.ones(N, 1)], 1)),
    "images of 0 to 1": (S(nn.Conv2d(1, 3, 6), nn.Flatten()), CLASSES, CE, IMAGES),
    "images with a norm": (
        S(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 6), nn.Flatten()), CLASSES, CE, IMAGES * 255,
    ),
    "steps": (Steps(nn.LSTM(4, 8, batch_first=True)), CLASSES, CE, STEPS),
    "steps turned by hand": (Steps(nn.GRU(4, 8), turn=True), CLASSES, CE, STEPS),
    "attention between steps": (Gated(True), CLASSES, CE, STEPS),
    "a transformer": (
        S(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), L(20, 3)),
        CLASSES, CE, STEPS,
    ),
    "statistics of the batch": (
        S(L(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), L(6, 3)), CLASSES, CE,
    ),
    "noise of its own": (
        Own(lambda m, x: m.b((m.a(x) + torch.randn(len(x), 6)).relu())), CLASSES, CE,
    ),
    "rows that are compared": (
        Own(lambda m, x: F.normalize(m.c(x)) @ F.normalize(m.c(x.relu())).T), CLASSES,
        lambda outputs, y: F.cross_entropy(outputs, torch.arange(len(y))),
    ),
    "groups within a row": (S(L(4, 6), nn.GroupNorm(2, 6), nn.ReLU(), L(6, 3)), CLASSES, CE),
    "words": (Recurrent(), CLASSES, CE, torch.arange(N * 4).reshape(N, 4) % 50),
    "a residual network": (
        Residual(), CLASSES, CE, torch.randn(N, 10, generator=torch.Generator().manual_seed(1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_what_is_surely_not_meant_is_told(name):
    told, *case = SICK[name]
    torch.manual_seed(0)
    (doubt,) = _doubts(*case)  # one cause is told once
    assert re.search(told, doubt)


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_meant_is_not_doubted(name):
    torch.manual_seed(0)
    assert _doubts(*HEALTHY[name]) == []
