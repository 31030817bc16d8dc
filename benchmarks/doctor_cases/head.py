"""The last layer and what the loss takes: seven rules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from doctor_cases.frame import (
    Setup,
    adam,
    flowers,
    kinds,
    mlp,
    numbers,
    sgd,
    sick,
    yes_no,
)

# H1 softmax-before-ce


@sick("softmax-before-ce", where="3")
def softmax_ends_the_sequential():
    X, y = kinds()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(dim=1))
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


class Softly(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 32)
        self.out = nn.Linear(32, 4)

    def forward(self, x):
        return F.softmax(self.out(torch.relu(self.hidden(x))), dim=-1)


@sick("softmax-before-ce", where="out")
def softmax_hides_in_forward():
    X, y = kinds(k=4)
    model = Softly()
    return Setup(model, nn.CrossEntropyLoss(label_smoothing=0.05), sgd(model, 0.1), X, y)


class WithHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 10), nn.Tanh())
        self.head = nn.ModuleDict({"fc": nn.Linear(10, 3), "softmax": nn.Softmax(dim=1)})

    def forward(self, x):
        return self.head["softmax"](self.head["fc"](self.body(x)))


@sick("softmax-before-ce", where="head.softmax")
def softmax_in_a_named_head():
    X, y = flowers()
    model = WithHead()
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y, batch_size=16)


@sick("softmax-before-ce", where="3")
def softmax_before_the_functional_loss():
    X, y = kinds(k=2)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(dim=1))
    return Setup(model, F.cross_entropy, adam(model), X, y)


# H2 sigmoid-before-bce-logits


@sick("sigmoid-before-bce-logits", where="3")
def sigmoid_ends_the_sequential():
    X, y = yes_no()
    model = mlp(6, 24, 1, end=(nn.Sigmoid(),))
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.01), X, y)


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 16)
        self.fc2 = nn.Linear(16, 1)

    def forward(self, x):
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x)))).squeeze(1)


@sick("sigmoid-before-bce-logits", where="fc2")
def sigmoid_and_squeeze_in_forward():
    X, y = yes_no()
    model = Squeezed()
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y.squeeze(1))


@sick("sigmoid-before-bce-logits", where="4")
def sigmoid_before_many_labels():
    X, _ = numbers(d=10)
    y = (X[:, :3] + X[:, 3:6] > 0.2).float()
    model = nn.Sequential(
        nn.Linear(10, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 3), nn.Sigmoid()
    )
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 3e-3), X, y)


# H3 missing-final-activation


@sick("missing-final-activation", where="2")
def raw_scores_into_bce():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCELoss(), adam(model), X, y)


@sick("missing-final-activation", where="out")
def raw_scores_into_nll():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(8, 20)
            self.out = nn.Linear(20, 3)

        def forward(self, x):
            return self.out(F.relu(self.inp(x)))

    X, y = kinds()
    model = Net()
    return Setup(model, nn.NLLLoss(), sgd(model, 0.05), X, y)


@sick("missing-final-activation", where="3")
def probabilities_into_nll():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 32, 5, end=(nn.Softmax(dim=1),))
    return Setup(model, nn.NLLLoss(), adam(model), X, y)


# H4 activation-on-logits


@sick("activation-on-logits", where="3")
def relu_ends_a_classifier():
    X, y = kinds()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.ReLU())
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("activation-on-logits", where="head")
def functional_relu_on_the_scores():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 16)
            self.b = nn.Linear(16, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            for layer in (self.a, self.b, self.head):
                x = F.relu(layer(x))
            return x

    X, y = kinds(k=4)
    model = Net()
    return Setup(model, nn.CrossEntropyLoss(), sgd(model, 0.05, momentum=0.9), X, y)


@sick("activation-on-logits", where="5")
def tanh_before_bce_logits():
    X, y = yes_no()
    model = mlp(6, 16, 16, 1, act=nn.Tanh, end=(nn.Tanh(),))
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model, 0.005), X, y)


@sick("activation-on-logits", where="3")
def sigmoid_before_cross_entropy():
    X, y = flowers()
    model = mlp(4, 16, 3, end=(nn.Sigmoid(),))
    return Setup(model, nn.CrossEntropyLoss(), adam(model, 0.01), X, y, batch_size=16)


# H5 softmax-axis


@sick("softmax-axis", where="3")
def log_softmax_down_the_batch():
    X, y = kinds()
    model = mlp(8, 16, 3, end=(nn.LogSoftmax(dim=0),))
    return Setup(model, nn.NLLLoss(), adam(model), X, y)


@sick("softmax-axis", where="fc2")
def functional_log_softmax_down_the_batch():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 12), nn.Linear(12, 3)

        def forward(self, x):
            return F.log_softmax(self.fc2(torch.tanh(self.fc1(x))), 0)

    X, y = flowers()
    model = Net()
    return Setup(model, F.nll_loss, adam(model, 0.01), X, y, batch_size=30)


@sick("softmax-axis", where="3", also="loss-stuck weights-not-updating no-gradient-to-layer")
def softmax_over_one_output():
    X, y = yes_no()
    model = mlp(6, 16, 1, end=(nn.Softmax(dim=1),))
    return Setup(model, nn.BCELoss(), adam(model), X, y)


# H6 labels-vs-outputs


@sick("labels-vs-outputs", where="y")
def labels_count_from_one():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y + 1)


@sick("labels-vs-outputs", where="4")
def too_few_outputs():
    X, y = kinds(k=5, n=500)
    model = mlp(8, 16, 16, 4)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y)


@sick("labels-vs-outputs", "loss-task-mismatch", where="2 loss")
def one_output_for_cross_entropy():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y.long().squeeze(1))


@sick("labels-vs-outputs", where="y")
def minus_one_and_one_with_bce():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, 2 * y - 1, epochs=40)


@sick("labels-vs-outputs", where="y")
def a_label_of_minus_one():
    X, y = kinds()
    y[::40] = -1
    model = mlp(8, 16, 3, end=(nn.LogSoftmax(1),))
    return Setup(model, nn.NLLLoss(), adam(model), X, y)


# H7 dtype-mismatch


@sick("dtype-mismatch", where="X")
def float64_rows_for_a_float32_network():
    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.MSELoss(), adam(model), X.double(), y)


@sick("dtype-mismatch", where="X")
def integer_rows():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), (3 * X).long(), y)


@sick("dtype-mismatch", where="y")
def class_labels_as_floats():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y.float())


@sick("dtype-mismatch", where="y")
def class_labels_as_int32():
    X, y = kinds()
    model = mlp(8, 16, 3)
    return Setup(model, nn.CrossEntropyLoss(), adam(model), X, y.int())


@sick("dtype-mismatch", where="y")
def integer_labels_for_bce_logits():
    X, y = yes_no()
    model = mlp(6, 16, 1)
    return Setup(model, nn.BCEWithLogitsLoss(), adam(model), X, y.long())


@sick("dtype-mismatch", where="y")
def huber_with_a_float64_target():
    X, y = numbers()
    model = mlp(6, 16, 1)
    return Setup(model, nn.HuberLoss(), adam(model), X, y.double())
