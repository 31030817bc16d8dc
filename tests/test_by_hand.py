"""One pass and one step by hand: what autograd and ``torch.optim.SGD`` do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerwise as lw
from nets import Recurrent, Towers


def _rows(n=20):
    X = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return X, X[:, :1] ** 2


def _mlp(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *more, nn.Linear(6, 1))


def test_a_2_2_1_network_worked_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    model.load_state_dict({
        "0.weight": torch.tensor([[1.0, 2.0], [-3.0, 1.0]]), "0.bias": torch.tensor([0.5, 0.0]),
        "2.weight": torch.tensor([[2.0, -1.0]]), "2.bias": torch.tensor([0.25]),
    })  # fmt: skip
    # z = (5.5, -1), h = (5.5, 0), output = 11.25, loss = 1.25^2; dL/doutput = 2.5
    loss, gradients = lw.backward(model, [[1.0, 2.0]], [[10.0]], "mse")
    assert loss == 1.5625
    found = {n: {k: g.tolist() for k, g in layer.items()} for n, layer in gradients.items()}
    assert found == {
        "0": {"weight": [[5.0, 10.0], [0.0, 0.0]], "bias": [5.0, 0.0]},
        "2": {"weight": [[13.75, 0.0]], "bias": [2.5]},
    }
    lw.update(model, 0.01)
    torch.testing.assert_close(model[0].weight, torch.tensor([[0.95, 1.9], [-3.0, 1.0]]))
    torch.testing.assert_close(model[2].bias, torch.tensor([0.225]))


def test_backward_and_update_are_the_plain_step():
    (X, y), model, twin = _rows(), _mlp(nn.BatchNorm1d(6)), _mlp(nn.BatchNorm1d(6))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        loss, _ = lw.backward(model, X, y, nn.MSELoss())
        lw.update(model, 0.1)
        optimizer.zero_grad()
        value = F.mse_loss(twin(X), y)
        value.backward()
        optimizer.step()
        assert loss == pytest.approx(value.item(), rel=1e-6)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-6, atol=1e-8)


def test_dropout_draws_as_in_the_plain_pass():
    (X, y), model = _rows(), _mlp(nn.Dropout(0.5))
    torch.manual_seed(4)
    expected, state = F.mse_loss(model(X), y).item(), torch.get_rng_state()
    torch.manual_seed(4)
    assert lw.backward(model, X, y, "mse")[0] == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradients_are_those_on_the_parameters_and_old_ones_are_gone():
    (X, y), model = _rows(), _mlp()
    first = lw.backward(model, X, y, "mse")[1]
    second = lw.backward(model, X, y, "mse")[1]
    for name, parameter in model.named_parameters():
        layer, kind = name.split(".")
        assert second[layer][kind] is parameter.grad
        assert torch.equal(first[layer][kind], parameter.grad)


def test_the_mode_stays_and_an_outer_no_grad_does_not_matter():
    (X, y), model = _rows(), _mlp(nn.BatchNorm1d(6)).eval()
    before = model[2].running_mean.clone()
    with torch.no_grad():
        _, gradients = lw.backward(model, X, y, "mse")
        assert not torch.is_grad_enabled()
    assert gradients["0"]["weight"].abs().sum() > 0
    assert not model.training
    assert torch.equal(model[2].running_mean, before)


def test_frozen_layers_and_shared_weights_have_one_entry_or_none():
    (X, y), model = _rows(), _mlp()
    model[0].requires_grad_(False)
    weight = model[0].weight.clone()
    assert list(lw.backward(model, X, y, "mse")[1]) == ["2"]
    lw.update(model, 0.1)
    assert torch.equal(model[0].weight, weight)
    shared = nn.Linear(4, 4)
    twice = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 1))
    assert list(lw.backward(twice, X, y, "mse")[1]) == ["0", "4"]


def test_inputs_of_all_kinds():
    X, y = _rows()
    expected = lw.backward(_mlp(), X, y, "mse")
    for X_, y_ in ((X.numpy(), y.numpy()), (X.tolist(), y.tolist()), (X.double().numpy(), y)):
        loss, gradients = lw.backward(_mlp(), X_, y_, "mse")
        assert loss == expected[0]
        assert torch.equal(gradients["0"]["weight"], expected[1]["0"]["weight"])
    two = (torch.randn(9, 3), torch.randn(9, 5))
    classes = torch.arange(9) % 3
    towers = Towers()
    by_place = lw.backward(towers, two, classes, "cross_entropy")[0]
    assert lw.backward(towers, {"b": two[1], "a": two[0]}, classes.numpy(), "cross_entropy")[0] == (
        by_place
    )
    words = torch.randint(0, 50, (9, 4))
    assert set(lw.backward(Recurrent(), words, classes, "cross_entropy")[1]) == {
        "words", "lstm", "head",
    }  # fmt: skip


def test_the_gradient_of_the_inputs_can_be_had():
    (X, y), model = _rows(), _mlp()
    X.requires_grad_()
    lw.backward(model, X, y, "mse")
    assert X.grad.shape == X.shape
    body = nn.Linear(4, 4)
    lw.backward(model, body(X), y, "mse")
    assert body.weight.grad is not None


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"X": torch.zeros(20, 3)}, lw.NetworkError, "takes 4 features and gets 3"),
        ({"y": torch.zeros(20)}, lw.NetworkError, "would stretch both"),
        ({"y": torch.zeros(19, 1)}, lw.DataError, "X has 20 rows and y has 19"),
        ({"X": torch.full((20, 4), torch.nan)}, lw.DataError, "row 1, column 0 has nan"),
        ({"loss": nn.MSELoss}, lw.SettingError, "give an instance"),
        ({"model": nn.Linear}, lw.SettingError, "model is the class Linear"),
        ({"model": len}, lw.SettingError, "model has to be an nn.Module"),
    ],
)
def test_mistakes_are_met_before_the_pass(given, error, told):
    X, y = _rows()
    given = {"model": _mlp(), "X": X, "y": y, "loss": "mse", **given}
    with pytest.raises(error, match=told):
        lw.backward(**given)


def test_doubts_are_told_at_the_line_of_the_call():
    X, y = _rows()
    model = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 1))
    with pytest.warns(lw.NetworkWarning, match="no activation between") as caught:
        lw.backward(model, X, y, "mse")
    assert caught[0].filename == __file__


def test_an_update_wants_gradients_and_a_number():
    model = _mlp()
    with pytest.raises(lw.NetworkError, match=r"call layerwise.backward\(model, X, y, loss\)"):
        lw.update(model, 0.1)
    lw.backward(model, *_rows(), "mse")
    for lr in ("0.1", True, None, float("nan"), float("inf"), torch.tensor(0.1)):
        with pytest.raises(lw.SettingError, match="lr has to be a number"):
            lw.update(model, lr)
    before = model[0].weight.detach().clone()
    lw.update(model, np.float32(0.5))
    torch.testing.assert_close(model[0].weight, before - 0.5 * model[0].weight.grad)
    assert model[0].weight.requires_grad
