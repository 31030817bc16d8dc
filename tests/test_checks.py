"""What cannot work is an error before the first step; its healthy twin passes without a word."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerwise.engine.torch import Rows
from layerwise.errors import DataError, NetworkError, SettingError
from layerwise.training.checks import (
    check_batch,
    check_learns,
    check_model,
    check_optimizer,
    check_rows,
    optimizer_doubts,
)
from layerwise.training.losses import loss_of
from nets import Residual

N = 30
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=GENERATOR)
NUMBERS = torch.randn(N, 1, generator=GENERATOR)
CLASSES = torch.arange(N) % 3
YES = (NUMBERS > 0).float()
S, L = nn.Sequential, nn.Linear


def _mlp(n_outputs=1, *end):
    torch.manual_seed(0)
    return S(L(4, 6), nn.Tanh(), L(6, n_outputs), *end)


def _check(model, y, loss, x=X, **options):
    rows = Rows(x, y, options.pop("w", None))
    return check_batch(model, rows, loss, loss_of(loss), **options)


def _own(outputs, y):
    return (outputs - y).square().mean()


def _at(y, row, value, column=None):
    y = y.clone()
    y[row if column is None else (row, column)] = value
    return y


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = L(4, 6), L(6, 1)

    def forward(self, x):
        return self.b(self.a(x)).detach()


class Changed(Detached):
    """A value that the backward pass needs is changed in place."""

    def forward(self, x):
        h = self.a(x).exp()
        out = self.b(h)
        h.add_(1)
        return out


# model, y, loss, the error, and the twin: model, y, loss
CASES = {
    "a column against none": (
        _mlp(), NUMBERS[:, 0], nn.MSELoss(),
        r"the network gives \(N, 1\) and y has \(N,\): the loss would stretch both to \(N, N\) and "
        r"compare every row with every other. Give y a column, y\[:, None\], or end the network",
        _mlp(1, nn.Flatten(0)), NUMBERS[:, 0], nn.MSELoss(),
    ),
    "none against a column": (
        _mlp(1, nn.Flatten(0)), NUMBERS, nn.L1Loss(),
        r"gives \(N,\) and y has \(N, 1\): .* Take y's column off, y\[:, 0\]",
        _mlp(), NUMBERS, nn.L1Loss(),
    ),
    "a function of torch": (
        _mlp(), NUMBERS[:, 0], F.smooth_l1_loss, "would stretch both",
        _mlp(), NUMBERS, F.smooth_l1_loss,
    ),
    "counts": (
        _mlp(), NUMBERS[:, 0].abs(), nn.PoissonNLLLoss(), "would stretch both",
        _mlp(), NUMBERS.abs(), nn.PoissonNLLLoss(),
    ),
    "one column for three": (
        _mlp(3), NUMBERS, nn.MSELoss(), r"would stretch both to \(N, 3\)",
        _mlp(3), NUMBERS.expand(-1, 3), nn.MSELoss(),
    ),
    "two columns for three": (
        _mlp(3), NUMBERS.expand(-1, 2), nn.MSELoss(),
        r"the network gives \(N, 3\) and y has \(N, 2\); they have to be the same",
        _mlp(2), NUMBERS.expand(-1, 2), nn.MSELoss(),
    ),
    "fewer rows": (
        _mlp(1, nn.Unflatten(0, (-1, 2)), nn.Flatten(1)), NUMBERS.expand(-1, 2), nn.MSELoss(),
        r"the network makes 4 rows of 8 rows, shape \(4, 2\): keep dimension 0",
        _mlp(2), NUMBERS.expand(-1, 2), nn.MSELoss(),
    ),
    "fewer rows for a loss of one's own": (
        _mlp(1, nn.Unflatten(0, (-1, 2)), nn.Flatten(1)), NUMBERS, _own, "makes 4 rows of 8 rows",
        _mlp(), NUMBERS, _own,
    ),
    "one number for all rows": (
        _mlp(1, nn.Flatten(0), nn.AvgPool1d(1), nn.Unflatten(0, (1, -1)), nn.Flatten(0)),
        NUMBERS, nn.MSELoss(), None,
        _mlp(), NUMBERS, nn.MSELoss(),
    ),
    "another type": (
        _mlp(), NUMBERS.double(), nn.HuberLoss(),
        r"y is float64 and the network gives float32, which huber_loss does not compare: pass "
        r"y.to\(torch.float32\)",
        _mlp(), NUMBERS.double().to(torch.float32), nn.HuberLoss(),
    ),
    "whole numbers for yes and no": (
        _mlp(), YES.long(), nn.BCEWithLogitsLoss(), r"y is int64 .*pass y.to\(torch.float32\)",
        _mlp(), YES.long().to(torch.float32), nn.BCEWithLogitsLoss(),
    ),
    "neither yes nor no": (
        _mlp(2), _at(YES.expand(-1, 2), 20, 5, 1), nn.BCEWithLogitsLoss(),
        "y, row 21 has 5; binary_cross_entropy_with_logits takes 0 and 1, or probabilities",
        _mlp(2), _at(YES.expand(-1, 2), 20, 0.5, 1), nn.BCEWithLogitsLoss(),
    ),
    "-1 and 1": (
        _mlp(), 2 * YES - 1, nn.BCEWithLogitsLoss(), "has -1; .* takes 0 and 1",
        _mlp(), 2 * YES - 1, nn.SoftMarginLoss(),
    ),
    "no probabilities": (
        _mlp(), YES, nn.BCELoss(),
        r"BCELoss takes probabilities and the network gives -\S* to .*: take nn.BCEWithLogitsLoss",
        _mlp(1, nn.Sigmoid()), YES, nn.BCELoss(),
    ),
    "classes as decimals": (
        _mlp(3), CLASSES.float(), nn.CrossEntropyLoss(),
        r"y is float32 of shape \(N,\), class indices as decimals; cross-entropy takes class "
        r"indices of shape \(N,\) and type int64: y.long\(\), or y.astype\(int\) of an array",
        _mlp(3), CLASSES.float().long(), nn.CrossEntropyLoss(),
    ),
    "probabilities for NLLLoss": (
        _mlp(3, nn.LogSoftmax(1)), F.one_hot(CLASSES).float(), nn.NLLLoss(),
        r"\(N, 3\), probabilities; NLLLoss takes class indices .*: y.argmax\(1\)",
        _mlp(3, nn.LogSoftmax(1)), F.one_hot(CLASSES).float().argmax(1), nn.NLLLoss(),
    ),
    "one-hot in whole numbers": (
        _mlp(3), F.one_hot(CLASSES), nn.CrossEntropyLoss(),
        r"y is one-hot in whole numbers, \(N, 3\); .* y.argmax\(1\) makes indices, y.float\(\) "
        "makes probabilities",
        _mlp(3), F.one_hot(CLASSES).float(), nn.CrossEntropyLoss(),
    ),
    "a column of classes": (
        _mlp(3), CLASSES[:, None], nn.CrossEntropyLoss(), r"y has \(N, 1\); .* int64: y\[:, 0\]",
        _mlp(3), CLASSES[:, None][:, 0], nn.CrossEntropyLoss(),
    ),
    "a class too high": (
        _mlp(2), CLASSES, nn.CrossEntropyLoss(),
        "y, row 3 is class 2, and the network has outputs for the classes 0 to 1: give its last "
        "layer an output for each class, and number them from 0",
        _mlp(3), CLASSES, nn.CrossEntropyLoss(),
    ),
    "classes from 1": (
        _mlp(3), CLASSES + 1, nn.CrossEntropyLoss(), "row 3 is class 3.*number them from 0",
        _mlp(3), CLASSES + 1 - 1, nn.CrossEntropyLoss(),
    ),
    "a class below 0": (
        _mlp(3), _at(CLASSES, 25, -1), nn.CrossEntropyLoss(), "row 26 is class -1",
        _mlp(3), _at(CLASSES, 25, -1), nn.CrossEntropyLoss(ignore_index=-1),
    ),
    "a void that is not said": (
        _mlp(3), _at(CLASSES, 25, 255), nn.CrossEntropyLoss(), "row 26 is class 255",
        _mlp(3), _at(CLASSES, 25, 255), nn.CrossEntropyLoss(ignore_index=255),
    ),
    "a void of another name": (
        _mlp(3), _at(CLASSES, 25, -100), nn.CrossEntropyLoss(ignore_index=255),
        "row 26 is class -100",
        _mlp(3), _at(CLASSES, 25, -100), nn.CrossEntropyLoss(),
    ),
    "int32": (
        _mlp(3), CLASSES.int(), nn.CrossEntropyLoss(), r"y is int32; .*: y.long\(\)",
        _mlp(3), CLASSES.int().long(), nn.CrossEntropyLoss(),
    ),
    "one output": (
        _mlp(1), CLASSES, nn.CrossEntropyLoss(),
        "the network has one output, of which cross-entropy is always 0: give it an output for "
        "each class, or take nn.BCEWithLogitsLoss",
        _mlp(1), YES, nn.BCEWithLogitsLoss(),
    ),
    "no outputs for classes": (
        _mlp(1, nn.Flatten(0)), CLASSES, nn.CrossEntropyLoss(),
        r"the network gives \(N,\); cross-entropy takes one output for each class, \(N, classes\)",
        _mlp(3), CLASSES, nn.CrossEntropyLoss(),
    ),
    "class weights of another number": (
        _mlp(3), CLASSES, nn.CrossEntropyLoss(weight=torch.ones(2)),
        r"the loss CrossEntropyLoss\(.*\) refuses outputs \(N, 3\) float32 and y \(N,\) int64: we",
        _mlp(3), CLASSES, nn.CrossEntropyLoss(weight=torch.ones(3)),
    ),
    "a loss of three": (
        _mlp(3), NUMBERS.expand(-1, 3), nn.TripletMarginLoss(),
        r"the loss TripletMarginLoss\(.*\) refuses outputs \(N, 3\) float32 .*missing 1 required",
        _mlp(3), NUMBERS.expand(-1, 3),
        lambda o, y: nn.TripletMarginLoss(reduction="none")(o, y, y.flip(1)),
    ),
    "an error in a loss of one's own": (
        _mlp(), NUMBERS, lambda o, y: o.nonsense(), "the loss <lambda> refuses .*'nonsense'",
        _mlp(), NUMBERS, lambda o, y: (o - y).abs().mean(),
    ),
    "a loss that stretches with a warning": (
        _mlp(), NUMBERS[:, 0], lambda o, y: F.mse_loss(o, y), "refuses .*Using a target size",
        _mlp(), NUMBERS, lambda o, y: F.mse_loss(o, y),
    ),
    "a loss that is no tensor": (
        _mlp(), NUMBERS, lambda o, y: float((o - y).square().mean().detach()),
        "the loss gave float; it has to be a tensor",
        _mlp(), NUMBERS, lambda o, y: (o - y).square().mean(),
    ),
    "everything is frozen": (
        _mlp().requires_grad_(False), NUMBERS, "mse",
        r"does not depend on any weight that could learn: parameters are frozen \(requires_grad",
        _mlp(), NUMBERS, "mse",
    ),
    "detached": (
        Detached(), NUMBERS, "mse", r"or a detach\(\) or no_grad\(\) is on the way",
        _mlp(), NUMBERS, "mse",
    ),
    "an argmax as the answer": (
        _mlp(), NUMBERS, lambda o, y: (o.argmax(1) - y[:, 0]).abs().mean(), "could learn",
        _mlp(), NUMBERS, lambda o, y: (o[:, 0] - y[:, 0]).abs().mean(),
    ),
    "a value changed in place": (
        Changed(), NUMBERS, "mse",
        r"the backward pass fails for outputs \(N, 1\) .*modified by an inplace operation",
        Residual(), None, None,
    ),
    "a type that only the backward pass minds": (
        _mlp(), NUMBERS.double(), lambda o, y: F.huber_loss(o, y),
        r"the backward pass fails for outputs \(N, 1\) float32 and y \(N, 1\) float64",
        _mlp(), NUMBERS, lambda o, y: F.huber_loss(o, y),
    ),
}  # fmt: skip
del CASES["one number for all rows"]


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_work_is_an_error_with_the_mend(name):
    model, y, loss, told, _, _, _ = CASES[name]
    with pytest.raises((NetworkError, DataError), match=told):
        _check(model, y, loss)


@pytest.mark.parametrize("name", CASES)
def test_its_healthy_twin_passes_without_a_word(name):
    _, _, _, _, model, y, loss = CASES[name]
    if y is None:
        y, loss, rows = CLASSES, nn.CrossEntropyLoss(), torch.randn(N, 10)
        assert _check(model, y, loss, rows) == []
    else:
        assert _check(model, y, loss) == []


def test_a_scalar_made_of_the_whole_batch_is_no_answer_for_each_row():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = L(4, 1)

        def forward(self, x):
            return self.a(x).mean()

    with pytest.raises(NetworkError, match="the network makes one number of 8 rows"):
        _check(Mean(), NUMBERS, "mse")
    assert _check(Mean(), NUMBERS, lambda o, y: o.square()) == []  # it makes its own loss


def test_errors_of_one_s_own_code_keep_their_line():
    def broken(outputs, y):
        raise KeyError("mine")

    with pytest.raises(NetworkError) as caught:
        _check(_mlp(), NUMBERS, broken)
    assert isinstance(caught.value.__cause__, KeyError)

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = L(4, 1)

        def forward(self, x):
            return self.a(x) + self.b

    with pytest.raises(NetworkError, match="own forward failed after layer 'a'") as caught:
        _check(Broken(), NUMBERS, "mse")
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(NetworkError, match="takes 5 features") as caught:
        _check(L(5, 1), NUMBERS, "mse")
    assert caught.value.__cause__ is None  # the layer and both shapes say it all


def test_row_weights_and_a_loss_for_the_batch_do_not_go_together():
    with pytest.raises(NetworkError, match="row weights cannot count in it"):
        _check(_mlp(), NUMBERS, _own, w=torch.ones(N))
    assert _check(_mlp(), NUMBERS, "mse", w=torch.ones(N)) == []


def test_codes_beyond_an_embedding_are_found_in_any_row():
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.town, self.kind, self.out = nn.Embedding(9, 2), nn.Embedding(4, 2), L(4, 1)

        def forward(self, x):
            return self.out(torch.cat([self.town(x[:, 0]), self.kind(x[:, 1])], dim=1))

    codes = torch.stack([torch.arange(N) % 9, torch.arange(N) % 4], dim=1)
    assert _check(Columns(), NUMBERS, "mse", codes) == []
    with pytest.raises(NetworkError, match=r"'kind' \(Embedding\(4, 2\)\) has rows 0 to 3 and is "):
        _check(Columns(), NUMBERS, "mse", _at(codes, 22, 4, 1))
    with pytest.raises(NetworkError, match=r"layer 'town' .* is asked for -1"):
        _check(Columns(), NUMBERS, "mse", _at(codes, 23, -1, 0))
    words = torch.zeros(N, 100, dtype=torch.long)
    model = S(nn.Embedding(5, 2), nn.Flatten(), L(200, 1))
    assert _check(model, NUMBERS, "mse", words) == []
    with pytest.raises(NetworkError, match="is asked for 7"):
        _check(model, NUMBERS, "mse", _at(words, 28, 7, 50))


def test_looking_leaves_the_model_as_it_was():
    model = _mlp(1, nn.BatchNorm1d(1), nn.Dropout(0.5))
    model[0].weight.grad = gradient = torch.ones(6, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    for _ in range(2):
        _check(model, NUMBERS, "mse")
    assert model.training
    assert model[0].weight.grad is gradient
    assert model[0].bias.grad is None
    assert torch.equal(gradient, torch.ones(6, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_some_rows_are_enough_or_all_of_a_batch():
    sizes = []
    model = _mlp()
    model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    _check(model, NUMBERS, "mse")
    assert set(sizes) == {8}
    sizes.clear()
    _check(model, NUMBERS, "mse", whole=True)
    assert set(sizes) == {N}
    assert _check(_mlp(), NUMBERS[:1], "mse", X[:1]) == []


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_cell_that_is_no_number_is_named_by_row_and_column(value):
    bad = _at(X, 6, value, 2)
    with pytest.raises(DataError, match=rf"^X, row 7, column 2 has {value}; fill or leave out"):
        check_rows(Rows(bad, NUMBERS))
    with pytest.raises(DataError, match="X, row 7, column 'c' has"):
        check_rows(Rows(bad, NUMBERS), ["a", "b", "c", "d"])
    with pytest.raises(DataError, match=r"^valid X, row 7"):
        check_rows(Rows(bad, NUMBERS), which="valid ")
    with pytest.raises(DataError, match=r"^y, row 4, column 0 has"):
        check_rows(Rows(X, _at(NUMBERS, 3, value)), ["a", "b", "c", "d"])
    with pytest.raises(DataError, match=r"^X, row 7 has"):
        check_rows(Rows((X, bad), NUMBERS))
    with pytest.raises(DataError, match=r"^y, row 4 has"):
        check_rows(Rows(X, {"n": _at(NUMBERS, 3, value)}))
    check_rows(Rows((X, X.long()), (NUMBERS, CLASSES)))


# ---------------------------------------------------------------- model and optimizer


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (nn.Linear, "model is the class Linear; give an instance"),
        (torch.relu, "model has to be an nn.Module; got builtin"),
        (None, "model has to be an nn.Module; got NoneType"),
    ],
)
def test_what_is_no_module_is_refused(model, told):
    with pytest.raises(SettingError, match=told):
        check_model(model)
    check_model(nn.Linear(1, 1))


def test_a_scripted_module_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(1, 1))
    with pytest.raises(SettingError, match="give the one it was made of"):
        check_model(nn.Sequential(scripted))


def test_a_model_without_anything_to_learn_is_refused():
    with pytest.raises(NetworkError, match=r"could learn: all are frozen \(requires_grad=False\)"):
        check_learns(_mlp().requires_grad_(False))
    with pytest.raises(NetworkError, match=r"no parameter that could learn$"):
        check_learns(nn.Flatten())
    check_learns(S(_mlp().requires_grad_(False), L(1, 1)))


def test_an_optimizer_of_another_model_is_refused():
    model = _mlp()
    with pytest.raises(NetworkError, match="holds none of this model's parameters"):
        check_optimizer(model, torch.optim.SGD(_mlp().parameters()))
    check_optimizer(model, torch.optim.SGD(model[2].parameters()))
    with pytest.raises(NetworkError, match="all are frozen"):
        check_optimizer(model.requires_grad_(False), torch.optim.SGD(model.parameters()))


def test_a_layer_replaced_after_the_optimizer_was_made_is_told():
    model = _mlp()
    optimizer = torch.optim.SGD(model.parameters())
    assert optimizer_doubts(model, nn.MSELoss(), optimizer) == []
    model[2] = L(6, 3)
    (doubt,) = optimizer_doubts(model, nn.MSELoss(), optimizer)
    assert doubt == (
        "the optimizer holds 2 parameters that are not the model's and lacks 2 that are, such as "
        "'2.weight': make it after the last layer is in place"
    )


def test_a_part_of_the_model_or_the_loss_s_own_parameters_are_no_doubt():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, outputs, y):
            return self.scale * (outputs - y).square().mean()

    model, loss = _mlp(), Scaled()
    part = torch.optim.SGD(model[2].parameters())
    both = torch.optim.SGD([*model[2].parameters(), *loss.parameters()])
    assert optimizer_doubts(model, nn.MSELoss(), part) == []
    assert optimizer_doubts(model, loss, both) == []
