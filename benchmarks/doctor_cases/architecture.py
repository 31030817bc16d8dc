"""Layers, gradients' paths and first weights: eight rules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    digits,
    flowers,
    kinds,
    mlp,
    numbers,
    plain,
    scaled,
    sgd,
    sick,
    tumours,
    yes_no,
)

# A1 linear-stack


@sick("linear-stack", where="0 1")
def ten_eighteen_twenty_five():
    X, y = kinds(d=10, k=5, n=600)
    model = nn.Sequential(nn.Linear(10, 18), nn.Linear(18, 20), nn.Linear(20, 5))
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05), X, y)


@sick("linear-stack", where="0 1")
def four_two_one():
    X, y = numbers(d=4)
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    return Setup(model, nn.MSELoss(), sgd(model, 0.01), X, y, batch_size=4)


@sick("linear-stack", where="0 3")
def only_norm_and_dropout_between():
    X, y = yes_no()
    model = nn.Sequential(
        nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(),
        nn.Linear(16, 1),
    )  # fmt: skip
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


class Forgotten(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 24)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(24, 24)
        self.fc3 = nn.Linear(24, 3)

    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x)))


@sick("linear-stack", where="fc1 fc2 act")
def an_activation_that_is_never_called():
    X, y = kinds()
    model = Forgotten()
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


# A2 no-gradient-to-layer


@sick("no-gradient-to-layer", where="fc2")
def a_layer_that_is_never_called():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(6, 16)
            self.fc2 = nn.Linear(16, 16)
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            x = F.relu(self.fc1(x))
            return self.out(x)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


class Cut(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)
        self.how = how

    def forward(self, x):
        return self.last(torch.relu(self.second(self.how(torch.relu(self.first(x))))))


@sick("no-gradient-to-layer", where="first")
def a_detached_layer():
    X, y = kinds()
    model = Cut(lambda h: h.detach())
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("no-gradient-to-layer", where="first")
def a_rounded_layer():
    X, y = kinds()
    model = Cut(torch.round)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("no-gradient-to-layer", where="encoder.0 encoder.2 encoder")
def the_encoder_runs_under_no_grad():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = mlp(6, 32, 16)
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            with torch.no_grad():
                z = torch.relu(self.encoder(x))
            return self.head(z)

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.01), X, y)


# A3 params-not-in-optimizer


@sick("params-not-in-optimizer", where="optimizer layers forward")
def layers_in_a_plain_list():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(6, 16), nn.Linear(16, 16)]
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.out(x)

    X, y = numbers()
    model = Net()
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


@sick("params-not-in-optimizer", where="optimizer 4")
def a_head_replaced_too_late():
    X, y = kinds(k=4)
    model = mlp(8, 32, 16, 10)
    optimizer = adam(model)
    model[4] = nn.Linear(16, 4)
    return Setup(model, nn.CrossEntropyLoss(), optimizer, X, y)


@sick("params-not-in-optimizer", where="optimizer body.0 body")
def only_the_head_is_trained():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(6, 32, 16)
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            return self.head(F.gelu(self.body(x)))

    X, y = yes_no()
    model = Net()
    optimizer = torch.optim.AdamW(model.head.parameters(), 0.003)
    return Setup(model, nn.BCEWithLogitsLoss(), optimizer, X, y)


@sick("params-not-in-optimizer", "weights-not-updating", where="optimizer")
def the_optimizer_of_another_model():
    X, y = numbers()
    before = mlp(6, 16, 1)
    optimizer = adam(before, 0.01)
    model = mlp(6, 32, 1)
    return Setup(model, nn.MSELoss(), optimizer, X, y)


# A4 frozen-parameters


@sick("frozen-parameters", where="0 2 4 model", also="weights-not-updating")
def everything_is_frozen():
    X, y = kinds()
    model = mlp(8, 16, 16, 3)
    model.requires_grad_(False)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("frozen-parameters", where="body.0 body.2 body")
def a_random_body_is_frozen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(8, 64, 64)
            self.head = nn.Linear(64, 3)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    X, y = kinds()
    model = Net()
    for p in model.body.parameters():
        p.requires_grad = False
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    return Setup(model, nn.CrossEntropyLoss(), optimizer, X, y)


@sick("frozen-parameters", where="2")
def one_layer_is_frozen():
    X, y = numbers()
    model = mlp(6, 32, 32, 1)
    model[2].weight.requires_grad_(False)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


# A5 dropout-misuse


@sick("dropout-misuse", where="2")
def dropout_of_nine_tenths():
    X, y = kinds()
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.9), nn.Linear(32, 3))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.003), X, y)


@sick("dropout-misuse", where="drop", also="loss-stuck")
def dropout_of_nearly_everything():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 64), nn.Linear(64, 1)
            self.drop = nn.Dropout(p=0.98)

        def forward(self, x):
            return self.fc2(self.drop(F.relu(self.fc1(x))))

    X, y = yes_no()
    model = Net()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y)


@sick("dropout-misuse", where="3")
def dropout_on_the_answers():
    X, y = numbers()
    model = mlp(6, 32, 1, end=(nn.Dropout(0.3),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


@sick("dropout-misuse", where="3")
def batch_norm_on_the_answers():
    X, y = numbers()
    model = mlp(6, 32, 1, end=(nn.BatchNorm1d(1),))
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, 2 * y + 5)


# A6 batchnorm-single-row


@sick("batchnorm-single-row", where="batch_size")
def a_last_batch_of_one_row():
    X, y = yes_no(n=321)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y, batch_size=32)


@sick("batchnorm-single-row", where="batch_size")
def batches_of_one_row():
    X, y = kinds()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.01), X, y, batch_size=1, epochs=3)


# A7 symmetric-init


@sick("symmetric-init", where="0")
def zeros_everywhere():
    X, y = kinds()
    model = mlp(8, 16, 3, act=nn.Tanh)
    for p in model.parameters():
        nn.init.zeros_(p)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.1), X, y)


@sick("symmetric-init", where="0 2", also="loss-stuck underfitting")
def the_same_constant_everywhere():
    def start(m):
        if isinstance(m, nn.Linear):
            nn.init.constant_(m.weight, 0.1)
            nn.init.zeros_(m.bias)

    X, y = numbers()
    model = mlp(6, 32, 16, 1)
    model.apply(start)
    return Setup(model, nn.MSELoss(), adam(model, 0.01), X, y)


@sick("symmetric-init", where="fc1", also="underfitting")
def ones_in_one_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 10), nn.Linear(10, 3)
            self.fc1.weight.data.fill_(1.0)
            self.fc1.bias.data.fill_(0.0)

        def forward(self, x):
            return self.fc2(F.elu(self.fc1(x)))

    X, y = flowers()
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), scaled(X), y, batch_size=16)


# A8 init-scale


def rescale(model, std):
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, 0.0, std)
    return model


SAME = "exploding-gradients saturated-activation lr-too-high underfitting unscaled-targets"


@sick("init-scale", where="0 2 4", also=SAME)
def weights_with_deviation_one():
    X, y = tumours()
    model = rescale(mlp(30, 64, 64, 1), 1.0)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), scaled(X), y)


@sick("init-scale", where="0 2 4", also=SAME)
def tanh_with_large_weights():
    X, y = kinds()
    model = rescale(mlp(8, 40, 40, 3, act=nn.Tanh), 2.0)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.01), X, y)


@sick("init-scale", where="0 2 4 6 8", also="loss-stuck vanishing-gradients underfitting")
def weights_of_a_thousandth():
    X, y = digits()
    model = rescale(mlp(64, 64, 64, 64, 64, 10), 1e-3)
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05), X / 16, y, epochs=10)


@sick("init-scale", where="4", also=SAME)
def a_loud_last_layer():
    X, y = kinds(k=4)
    model = mlp(8, 32, 32, 4)
    with torch.no_grad():
        model[4].weight *= 80
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y, loop=plain)
