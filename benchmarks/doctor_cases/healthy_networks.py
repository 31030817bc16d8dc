"""Nothing is wrong here: networks that only look odd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    flowers,
    healthy,
    kinds,
    mlp,
    numbers,
    patients,
    plain,
    scaled,
    sgd,
    wines,
    yes_no,
)


def pretrained(model, X, y, epochs=30):
    """The network as it stands after somebody else's training."""
    loss = nn.CrossEntropyLoss() if y.dtype == torch.long else nn.MSELoss()
    plain(Setup(model, loss, adam(model, 0.01), X, y, epochs=epochs))
    return model


@healthy
def a_frozen_pretrained_body():
    X, y = kinds(k=5, n=500, seed=4)
    old = pretrained(mlp(8, 32, 32, 5), X, y)
    X, y = kinds(k=5, n=500, seed=4)
    body = old[:4]
    for p in body.parameters():
        p.requires_grad = False
    model = nn.Sequential(body, nn.Linear(32, 2))
    optimizer = adam(model[1], 0.01)
    return Setup(model, nn.CrossEntropyLoss(), optimizer, X, (y > 2).long())


@healthy
def a_frozen_body_all_handed_over():
    X, y = numbers()
    old = pretrained(mlp(6, 48, 24, 1), X, y)
    for p in old[:4].parameters():
        p.requires_grad = False
    model = nn.Sequential(old[:4], nn.Linear(24, 1))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y**3 / 4)


@healthy
def frozen_first_and_thawed_later():
    def loop(s):
        body = s.model[0]
        for epoch in range(20):
            if epoch == 5:
                for p in body.parameters():
                    p.requires_grad = True
                s.optimizer.add_param_group({"params": body.parameters(), "lr": 1e-3})
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()

    X, y = kinds(k=4)
    body = pretrained(mlp(8, 32, 4), X, y)[:2]
    for p in body.parameters():
        p.requires_grad = False
    model = nn.Sequential(body, nn.Linear(32, 2))
    return Setup(model, nn.CrossEntropyLoss(), adam(model[1], 0.01), X, (y < 2).long(), loop=loop)


@healthy
def a_head_that_starts_at_zero():
    X, y = numbers()
    model = mlp(6, 32, 32, 1)
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[4].bias)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


class Block(nn.Module):
    def __init__(self, d, norm):
        super().__init__()
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.a, self.b = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)

    def forward(self, x):
        return x + self.b(F.gelu(self.a(self.norm(x))))


class Residual(nn.Module):
    def __init__(self, d, k, blocks, norm=True):
        super().__init__()
        self.inp = nn.Linear(d, 32)
        self.blocks = nn.ModuleList([Block(32, norm) for _ in range(blocks)])
        self.out = nn.Linear(32, k)

    def forward(self, x):
        x = self.inp(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@healthy
def residual_branches_that_start_at_zero():
    X, y = kinds(k=4)
    model = Residual(8, 4, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 2e-3), X, y)


@healthy
def twelve_residual_blocks():
    X, y = numbers()
    model = Residual(6, 1, 12, norm=False)
    return Setup(model, nn.MSELoss(), adam(model, 1e-3), X, y, epochs=15)


@healthy
def logistic_regression():
    X, y = yes_no()
    model = nn.Linear(6, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), sgd(model, 0.5), X, (X[:, :1] > 0.3).float() * y)


@healthy
def linear_regression():
    X, y = patients()
    model = nn.Sequential(nn.Linear(10, 1))
    return Setup(model, nn.MSELoss(), sgd(model, 0.02), X, scaled(y), epochs=30)


@healthy
def softmax_regression_in_a_class():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(13, 3)

        def forward(self, x):
            return self.linear(x)

    X, y = wines()
    model = Linear()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.05), scaled(X), y, batch_size=16)


@healthy
def log_softmax_and_nll():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 24), nn.Linear(24, 3)

        def forward(self, x):
            return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)

    X, y = flowers()
    model = Net()
    return Setup(model, nn.NLLLoss(), adam(model, 0.02), scaled(X), y, batch_size=16)


@healthy
def sigmoid_and_bce():
    X, y = yes_no()
    model = mlp(6, 32, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.BCELoss(), adam(model, 0.005), X, y, epochs=30)


@healthy
def functional_sigmoid_and_bce_of_flat_targets():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(6, 24, 24, 1)

        def forward(self, x):
            return torch.sigmoid(self.body(x)).squeeze(1)

    X, y = yes_no()
    model = Net()
    return Setup(model, F.binary_cross_entropy, adam(model, 0.005), X, y.squeeze(1))


@healthy
def two_scores_for_two_classes():
    X, y = yes_no()
    model = mlp(6, 32, 2, act=nn.SiLU)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y.long().squeeze(1))


@healthy
def a_scaled_tanh_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(6, 32, 1)

        def forward(self, x):
            return 4 * torch.tanh(self.net(x))

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, y)


@healthy
def a_gate_and_attention_inside():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 8)
            self.value = nn.Linear(8, 32)
            self.gate = nn.Linear(8, 32)
            self.out = nn.Linear(32, 3)

        def forward(self, x):
            x = x * torch.softmax(self.score(x), dim=-1) * 8
            return self.out(torch.relu(self.value(x)) * torch.sigmoid(self.gate(x)))

    X, y = kinds()
    model = Attentive()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y)


@healthy
def an_attention_over_rows_of_features():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift = nn.Linear(1, 16)
            self.name = nn.Parameter(torch.randn(6, 16) * 0.5)
            self.mix = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            return self.out(self.mix(self.lift(x[:, :, None]) + self.name).mean(1))

    X, y = numbers(n=300)
    model = Tokens()
    return Setup(model, nn.MSELoss(), adam(model, 0.003), X, y, epochs=25)


@healthy
def six_layers_with_batch_norm():
    layers, d = [], 8
    for _ in range(6):
        layers += [nn.Linear(d, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
        d = 32
    X, y = kinds(k=5, n=640)
    model = nn.Sequential(*layers, nn.Linear(32, 5))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 3e-3), X, y)


@healthy
def batch_norm_and_one_row_too_many():
    X, y = numbers(n=321)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y, drop_last=True)


@healthy
def batch_norm_kept_as_it_was():
    def loop(s):
        for _ in range(s.epochs):
            s.model.train()
            s.model[1].eval()
            for xb, yb in s.batches():
                s.optimizer.zero_grad()
                s.loss(s.model(xb), yb).backward()
                s.optimizer.step()

    X, y = kinds()
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    pretrained(model, X, y, 5)
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X, y, loop=loop)


@healthy
def tanh_with_layer_norm():
    X, y = numbers()
    model = nn.Sequential(
        nn.Linear(6, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 32), nn.LayerNorm(32),
        nn.Tanh(), nn.Linear(32, 1),
    )  # fmt: skip
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, y)


@healthy
def selu_with_alpha_dropout():
    X, y = yes_no(n=600)
    model = nn.Sequential(
        nn.Linear(6, 48), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(48, 48), nn.SELU(),
        nn.Linear(48, 1),
    )  # fmt: skip
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
            nn.init.zeros_(m.bias)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.002), X, y)


@healthy
def half_of_the_units_dropped():
    X, y = kinds(k=4, n=600)
    model = nn.Sequential(
        nn.Linear(8, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(64, 4),
    )  # fmt: skip
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X, y)


@healthy
def kaiming_and_leaky():
    X, y = numbers()
    model = mlp(6, 64, 64, 1, act=lambda: nn.LeakyReLU(0.05))
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, a=0.05)
            nn.init.zeros_(m.bias)
    return Setup(model, nn.SmoothL1Loss(), adam(model, 0.003), X, y)


@healthy
def xavier_tanh():
    X, y = kinds()
    model = mlp(8, 24, 24, 3, act=nn.Tanh)
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.xavier_normal_(m.weight, gain=5 / 3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X, y)


@healthy
def tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Linear(12, 6)
            self.bias = nn.Parameter(torch.zeros(12))

        def forward(self, x):
            return F.linear(torch.tanh(self.down(x)), self.down.weight.T, self.bias)

    X, _ = kinds(d=12, k=5, spread=2.0)
    model = Tied()
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, X.clone(), epochs=40)


@healthy
def normed_weights():
    X, y = kinds()
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(8, 32)), nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(32, 32)), nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.005), X, y)


@healthy
def two_towers_and_a_product():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 16), nn.Linear(3, 16)
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            return self.out(self.left(x[:, :3]) * self.right(x[:, 3:]))

    X, y = numbers()
    model = Towers()
    target = scaled(X[:, :1] * X[:, 4:5] - X[:, 2:3] * X[:, 3:4] + 0.1 * y)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, target)


@healthy
def a_thousand_units():
    X, y = yes_no()
    model = mlp(6, 1024, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 1e-3), X, y, epochs=10)


@healthy
def a_flat_answer_for_flat_targets():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 1)])

        def forward(self, x):
            *hidden, last = self.layers
            for layer in hidden:
                x = F.elu(layer(x))
            return last(x).flatten()

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.005), X, y.squeeze(1))


@healthy
def three_sigmoid_layers_that_learn():
    X, y = yes_no()
    model = mlp(6, 32, 32, 1, act=nn.Sigmoid)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.02), X, y, epochs=40)


@healthy
def four_tanh_layers_for_digits():
    X, y = digits()
    model = mlp(64, 32, 32, 32, 10, act=nn.Tanh)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1, momentum=0.9), X / 16, y)
