"""Losses of torch and of one's own: the same value as without us, and weights that are exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from layerwise.engine.torch import Loader, Rows, measure
from layerwise.errors import NetworkError, SettingError
from layerwise.training.losses import keeps_integers, kind_of, loss_of

N, C = 12, 3
COUNTS = torch.tensor([0, 1, 2, 3] * 3)
TWICE = torch.repeat_interleave(torch.arange(N), COUNTS)
W = COUNTS.double() / COUNTS.double().mean()


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


CLASS_WEIGHTS = torch.tensor([1.0, 4.0, 0.5], dtype=torch.double)
INDICES = torch.arange(N) % C
PIXELS = torch.arange(N * 4).reshape(N, 2, 2) % C
NUMBERS = _normal(N, C, seed=1)
YES = (NUMBERS > 0).double()
SHARES = NUMBERS.softmax(1)
VOID = torch.where(torch.arange(N) % 5 == 1, -100, INDICES)

CASES = {
    "mse": (nn.MSELoss(), NUMBERS),
    "mse of one": (nn.MSELoss(), NUMBERS[:, 0]),
    "l1": (nn.L1Loss(), NUMBERS),
    "smooth l1": (nn.SmoothL1Loss(beta=0.3), NUMBERS),
    "huber": (nn.HuberLoss(delta=0.4), NUMBERS),
    "poisson": (nn.PoissonNLLLoss(full=True), YES * 3),
    "soft margin": (nn.SoftMarginLoss(), 2 * YES - 1),
    "hinge": (nn.HingeEmbeddingLoss(), 2 * YES - 1),
    "multilabel": (nn.MultiLabelSoftMarginLoss(), YES),
    "margin": (nn.MultiMarginLoss(), INDICES),
    "bce": (nn.BCEWithLogitsLoss(), YES),
    "bce with pos_weight": (nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS), YES),
    "bce with weight": (nn.BCEWithLogitsLoss(weight=CLASS_WEIGHTS), YES),
    "kl": (nn.KLDivLoss(reduction="batchmean"), SHARES),
    "cross-entropy": (nn.CrossEntropyLoss(), INDICES),
    "cross-entropy of shares": (nn.CrossEntropyLoss(), SHARES),
    "cross-entropy of pixels": (nn.CrossEntropyLoss(), PIXELS),
    "weighted": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), INDICES),
    "weighted pixels": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), PIXELS),
    "weighted shares": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), SHARES),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), INDICES),
    "weighted, smoothed": (
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.1), INDICES
    ),
    "void": (nn.CrossEntropyLoss(), VOID),
    "ignored": (nn.CrossEntropyLoss(ignore_index=2), INDICES),
    "weighted, void": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), VOID),
    "void, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), VOID),
    "nll": (nn.NLLLoss(), INDICES),
    "weighted nll": (nn.NLLLoss(weight=CLASS_WEIGHTS, ignore_index=1), INDICES),
}  # fmt: skip


def _outputs(name):
    """Raw outputs that go with the loss."""
    y = CASES[name][1]
    outputs = _normal(N, C, 2, 2) if y.dim() == 3 else _normal(N, C)
    outputs = outputs[:, 0] if y.is_floating_point() and y.dim() == 1 else outputs
    return outputs.log_softmax(1) if name in ("kl", "nll", "weighted nll") else outputs


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", ["as it is", "sum", "none"])
def test_without_weights_it_is_the_loss_itself(name, reduction):
    loss, y = CASES[name]
    if reduction != "as it is":
        loss = copy.copy(loss)
        loss.reduction = reduction
    expected = loss(_outputs(name), y)
    assert torch.equal(loss_of(loss)(_outputs(name), y), expected.mean())
    assert torch.equal(loss_of(loss)(_outputs(name), y, None), expected.mean())


@pytest.mark.parametrize("name", CASES)
def test_weight_2_is_the_row_twice_and_weight_0_no_row(name):
    loss, y = CASES[name]
    outputs = _outputs(name).requires_grad_()
    expected = loss(outputs[TWICE], y[TWICE])
    value = loss_of(loss)(outputs, y, W)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(value, outputs)
    (reference,) = torch.autograd.grad(expected, outputs)
    torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_sum_counts_each_row_by_its_weight(name):
    loss, y = CASES[name]
    loss = copy.copy(loss)
    loss.reduction = "sum"
    value = loss_of(loss)(_outputs(name), y, COUNTS.double())
    expected = loss(_outputs(name)[TWICE], y[TWICE])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_add_up_to_the_loss_of_all_rows(name, weighted):
    loss, y = CASES[name]
    outputs = _outputs(name)
    parts = (outputs, y, W) if weighted else (outputs, y)
    loader = Loader(DataLoader(TensorDataset(*parts), 5), torch.device("cpu"))
    found, _ = measure(nn.Identity(), loss_of(loss), loader, 5)
    in_memory, _ = measure(nn.Identity(), loss_of(loss), Rows(*parts), 5)
    expected = loss(outputs[TWICE], y[TWICE]) if weighted else loss(outputs, y)
    assert found == pytest.approx(float(expected), rel=1e-9)
    assert in_memory == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("function", "loss", "y"),
    [
        (F.mse_loss, nn.MSELoss(), NUMBERS),
        (F.cross_entropy, nn.CrossEntropyLoss(), INDICES),
        (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss(), YES),
        (F.huber_loss, nn.HuberLoss(), NUMBERS),
        ("mse", nn.MSELoss(), NUMBERS),
        ("l1", nn.L1Loss(), NUMBERS),
        ("huber", nn.HuberLoss(), NUMBERS),
        ("bce", nn.BCEWithLogitsLoss(), YES),
        ("cross_entropy", nn.CrossEntropyLoss(), INDICES),
    ],
)
def test_a_function_of_torch_and_a_name_are_their_module(function, loss, y):
    outputs = _normal(N, C)
    assert kind_of(function) == kind_of(loss) != ""
    for w in (None, W):
        expected = loss_of(loss)(outputs, y, w)
        torch.testing.assert_close(loss_of(function)(outputs, y, w), expected)


def test_a_function_of_ones_own_gives_a_number_or_one_for_each_row():
    outputs = _normal(N, C)

    def scalar(outputs, y):
        return (outputs - y).square().mean()

    def rows(outputs, y):
        return (outputs - y).square().mean(dim=1)

    def cells(outputs, y):
        return (outputs - y).square()

    expected = F.mse_loss(outputs, NUMBERS)
    for own in (scalar, rows, cells, torch.compiler.disable(rows)):
        torch.testing.assert_close(loss_of(own)(outputs, NUMBERS), expected)
    expected = F.mse_loss(outputs[TWICE], NUMBERS[TWICE])
    for own in (rows, cells):
        torch.testing.assert_close(loss_of(own)(outputs, NUMBERS, W), expected)
    with pytest.raises(NetworkError, match=r"row weights cannot count in it.*shape \(N,\)"):
        loss_of(scalar)(outputs, NUMBERS, W)
    with pytest.raises(NetworkError, match="the loss gave float; it has to be a tensor"):
        loss_of(lambda outputs, y: 0.5)(outputs, NUMBERS)


def test_a_module_of_ones_own_is_a_loss():
    class Mine(nn.Module):
        def forward(self, outputs, y):
            return (outputs - y).abs().mean()

    outputs = _normal(N, C)
    assert kind_of(Mine()) == ""
    torch.testing.assert_close(loss_of(Mine())(outputs, NUMBERS), F.l1_loss(outputs, NUMBERS))


def test_integers_stay_where_they_are_classes_or_the_user_decides():
    keeps = [nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MultiMarginLoss(), "cross_entropy",
             F.cross_entropy, F.nll_loss, lambda outputs, y: outputs.sum()]  # fmt: skip
    turns = [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.PoissonNLLLoss(), "mse", "bce", F.l1_loss]
    assert all(keeps_integers(loss) for loss in keeps)
    assert not any(keeps_integers(loss) for loss in turns)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (nn.MSELoss, r"the class nn.MSELoss; give an instance: loss=nn.MSELoss\(\)"),
        (type("Mine", (nn.Module,), {}), "the class Mine; give an instance"),
        ("mean", "unknown loss 'mean'. Known are mse, l1, huber, bce, cross_entropy"),
        ("crossentropy", "Did you mean 'cross_entropy'"),
        (3, "a function or a name; got int$"),
        (None, "a function or a name; got NoneType$"),
        (torch.zeros(3), r"got Tensor; data and target are one argument: \(X, y\)"),
    ],
)
def test_what_is_no_loss_is_refused(loss, told):
    with pytest.raises(SettingError, match=told):
        loss_of(loss)
