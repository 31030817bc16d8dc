"""Layers, shapes, parameters and capacity: of a plan, and of any module."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import layerwise as lw
from layerwise.network.build import build
from layerwise.network.plan import design, n_inputs
from layerwise.network.summary import capacity, summarise
from nets import ZOO, Recurrent, Residual, Towers, images, mlp, state, zoo
from test_plan import PLANS


@settings(max_examples=30, deadline=None)
@given(PLANS)
def test_the_parameters_of_a_plan_are_those_that_torch_counts(plan):
    network = build(plan)
    found = summarise(plan)
    assert found.total == found.trainable == lw.count_parameters(network)
    for row, layer in zip(found.rows, network):
        assert row.parameters == sum(p.numel() for p in layer.parameters())
    assert sum(row.share for row in found.rows) == pytest.approx(1)


def test_each_row_of_a_plan_tells_name_layer_output_and_parameters():
    plan = design(2, [3, 40], 2, hidden_layer_sizes=(5,), norm="batch", dropout=0.25)
    found = [(r.name, r.layer, r.output, r.parameters) for r in summarise(plan).rows]
    assert found == [
        # an embedding of 40 levels and code 0 is 41 rows of round(1.6 * 40^0.56) = 13 columns
        ("0", "InputLayer(2 numbers, 1 one-hot, 1 embedded)", ("N", 2 + 3 + 13), 41 * 13),
        ("1", "Linear(18, 5)", ("N", 5), 18 * 5 + 5),
        ("2", "BatchNorm1d(5)", ("N", 5), 10),
        ("3", "ReLU()", ("N", 5), 0),
        ("4", "Dropout(0.25)", ("N", 5), 0),
        ("5", "Linear(5, 2)", ("N", 2), 12),
    ]


@settings(max_examples=10, deadline=None)
@given(PLANS)
def test_a_plan_and_its_network_have_the_same_numbers(plan):
    of_plan, network = summarise(plan), build(plan)
    of_module = lw.summary(network, torch.zeros(3, n_inputs(plan)))
    assert of_module.shape == of_plan.shape
    numbers = [[(r.name, r.output, r.parameters) for r in s.rows] for s in (of_plan, of_module)]
    assert numbers[0] == numbers[1]


def test_large_widths_are_written_out():
    plan = design(3, [], 1, hidden_layer_sizes=(1_234_567,))
    assert summarise(plan).rows[0].layer == "Linear(3, 1234567)"


# ---------------------------------------------------------------- any module


@pytest.mark.parametrize("name", ZOO)
def test_totals_are_those_of_torch_and_shares_add_up(name):
    model, X = zoo(name)
    next(model.parameters()).requires_grad_(False)
    for found in (lw.summary(model, X), lw.summary(model)):
        assert found.total == sum(p.numel() for p in model.parameters())
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert found.trainable == trainable == lw.count_parameters(model, trainable=True)
        assert sum(row.share for row in found.rows) == pytest.approx(1)
        assert found.error is None


@pytest.mark.parametrize("name", ZOO)
def test_a_summary_leaves_the_model_as_it_was(name):
    model, X = zoo(name)
    outputs = model(**X) if isinstance(X, dict) else model(X)
    outputs.sum().backward()
    next(model.children()).eval()
    before = state(model)
    lw.summary(model, X)
    assert state(model) == before


@pytest.mark.parametrize("name", ZOO)
def test_a_summary_fits_80_columns(name):
    model, X = zoo(name)
    for text in (str(lw.summary(model, X, n_rows=1000)), repr(lw.summary(model))):
        assert max(map(len, text.splitlines())) <= 80


def test_a_network_is_told_in_inputs_hidden_layers_and_outputs():
    found = lw.summary(mlp(), torch.zeros(4, 10))
    assert found.shape == "10 inputs → hidden 18, 20 → 5 outputs"
    assert [row.output for row in found.rows[:2]] == [("N", 18), ("N", 18)]
    assert "683 parameters, all trainable" in str(found)
    one = lw.summary(nn.Linear(10, 1))
    assert one.shape == "10 inputs → 1 output, no hidden layer: a linear model"


def test_what_is_no_chain_of_linear_layers_is_not_called_one():
    assert lw.summary(Towers(), {"a": torch.zeros(2, 3), "b": torch.zeros(2, 5)}).shape == ""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert "hidden" not in lw.summary(Branches(), torch.zeros(2, 4)).shape
    assert lw.summary(Branches()).shape == ""  # the order of the calls is not known
    found = lw.summary(images(), torch.zeros(5, 1, 8, 8))
    assert found.shape == "input (N, 1, 8, 8) → output (N, 3)"


def test_parameters_of_the_modules_around_have_a_row_before_their_layers():
    rows = lw.summary(Residual(), torch.zeros(2, 10)).rows
    assert (rows[0].name, rows[0].layer, rows[0].parameters) == ("", "Residual: scale", 16)
    assert [row.name for row in rows[1:4]] == ["inp", "blocks.0.0", "blocks.0.1"]


def test_a_layer_that_is_called_twice_counts_once_and_is_said_so():
    shared = nn.Linear(4, 4)
    found = lw.summary(nn.Sequential(shared, nn.Tanh(), shared), torch.zeros(3, 4))
    assert [(row.name, row.parameters, row.note) for row in found.rows] == [
        ("0", 20, ""), ("1", 0, ""), ("0", 0, "repeated"),
    ]  # fmt: skip
    assert found.total == 20
    assert "layer '0' is called 2 times; its 20 parameters count once" in str(found)


def test_tied_weights_count_once_and_are_said_so():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    found = lw.summary(model, torch.zeros(3, 4))
    assert found.total == lw.count_parameters(model) == 16
    assert "1.weight is 0.weight" in str(found)


def test_a_layer_without_a_call_is_in_the_total_and_marked():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.forgotten, self.loss = nn.Linear(2, 1), nn.Linear(2, 1), nn.MSELoss()

        def forward(self, x):
            return self.used(x)

    found = lw.summary(Forgetful(), torch.zeros(3, 2))
    assert [(row.name, row.note) for row in found.rows] == [
        ("used", ""), ("forgotten", "not called"),
    ]  # fmt: skip
    assert found.total == 6


def test_frozen_layers_are_told_from_the_others():
    model = mlp()
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    found = lw.summary(model, n_rows=100)
    assert [row.trainable for row in found.rows] == [0, 0, 360, 0, 105]
    assert "683 parameters, 465 of them trainable" in str(found)
    assert "465 trainable parameters for 100 rows" in " ".join(str(found).split())
    model.requires_grad_(False)
    assert "none of them trainable" in str(lw.summary(model))


@pytest.mark.parametrize("rest", [nn.ReLU(), nn.Linear(5, 5)])
def test_a_layer_that_fails_ends_the_pass_and_not_the_summary(rest):
    model = nn.Sequential(nn.Linear(10, 18), nn.ReLU(), nn.Linear(20, 5), rest)
    before = state(model)
    found = lw.summary(model, torch.zeros(4, 10))
    assert [row.output for row in found.rows] == [("N", 18), ("N", 18), None, None]
    assert [row.note for row in found.rows] == ["", "", "fails", "not reached"]
    assert found.total == lw.count_parameters(model)
    for said in ("layer '2' (Linear(20, 5))", "20", "(4, 18)", "Linear(18, 5)"):
        assert said in found.error
    assert " ".join(found.error.split()) in " ".join(str(found).split())
    assert "✗ fails" in str(found)
    assert state(model) == before


def test_a_forward_that_fails_between_layers_is_survived_too():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(3, 4)

        def forward(self, x):
            return self.inp(x).reshape(7, 7)

    found = lw.summary(Between(), torch.zeros(2, 3))
    assert found.rows[0].output == ("N", 4)
    assert "forward" in found.error


def test_lazy_layers_are_counted_in_a_copy_and_stay_lazy():
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    random = torch.get_rng_state()
    found = lw.summary(model, torch.zeros(5, 3))
    assert found.total == 3 * 8 + 8 + 16 + 8 * 2 + 2
    assert isinstance(model[0], nn.LazyLinear)
    assert isinstance(model[1], nn.LazyBatchNorm1d)
    assert torch.equal(torch.get_rng_state(), random)
    without = lw.summary(model)
    assert [row.note for row in without.rows] == ["lazy", "lazy", "", "lazy"]
    assert "give X" in str(without)
    with pytest.raises(lw.NetworkError, match=r"'0.weight' has no size yet"):
        lw.count_parameters(model)


def test_recurrent_layers_show_their_first_output_and_which_dimension_counts_rows():
    rows = lw.summary(Recurrent(), torch.randint(50, (6, 7))).rows
    assert [row.output for row in rows] == [("N", 7, 6), ("N", 7, 8), ("N", 3)]
    steps_first = lw.summary(nn.LSTM(3, 8), torch.zeros(7, 5, 3))
    assert steps_first.rows[0].output == (7, "N", 8)
    assert steps_first.n_rows == 5


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, torch.tensor, list])
def test_rows_may_be_anything_made_of_numbers(kind):
    X = kind(np.zeros((4, 10), dtype=np.float32).tolist())
    assert lw.summary(mlp(), X).error is None


def test_whole_numbers_stay_whole_for_embeddings_only():
    assert lw.summary(Recurrent(), np.zeros((4, 7), dtype=int)).error is None
    assert lw.summary(mlp(), np.zeros((4, 10), dtype=int)).error is None
    assert "float64" in lw.summary(mlp(), torch.zeros(4, 10, dtype=torch.float64)).error
    with pytest.raises(lw.DataError, match="column 'city'"):
        lw.summary(mlp(), pd.DataFrame({"city": ["Rome"]}))


def test_many_rows_are_counted_and_few_pass():
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    model[1].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    found = lw.summary(model, torch.zeros(10_000, 4))
    assert found.n_rows == 10_000
    assert seen[0] <= 100
    assert lw.summary(model, torch.zeros(1, 4)).n_rows == 0
    assert lw.summary(model, torch.zeros(1, 4), n_rows=77).n_rows == 77


@pytest.mark.parametrize(
    ("parameters", "n_rows", "said"),
    [
        (683, 455, "683 parameters for 455 rows: 1.5 a row; enough to learn the rows by heart"),
        (683, 1000, "0.68 a row; fewer than rows"),
        (683, 20_000, "0.034 a row; too few"),
        (1, 1, "1 parameter for 1 row: 1 a row"),
        (10**6, 10, "1,000,000 parameters for 10 rows: 100,000 a row"),
        (0, 10, ""),
        (10, 0, ""),
    ],
)
def test_capacity_says_what_so_many_parameters_mean(parameters, n_rows, said):
    assert said in capacity(parameters, n_rows)
    assert bool(said) == bool(capacity(parameters, n_rows))


def test_a_notebook_gets_a_table_with_its_text_escaped():
    class Odd(nn.Module):
        def extra_repr(self):
            return "<script>"

        def forward(self, x):
            return x

    page = lw.summary(nn.Sequential(Odd()), torch.zeros(1, 1))._repr_html_()
    assert "<script>" not in page
    assert "Odd(&lt;script&gt;)" in page
    assert page.startswith("<table>")


def test_long_names_wrap_and_nothing_is_cut():
    name = "a_rather_long_name_for_a_layer_of_a_network_that_goes_on_and_on"
    lines = str(lw.summary(nn.Sequential(OrderedDict({name: nn.Linear(3, 1)})))).splitlines()
    assert max(map(len, lines)) <= 80
    cells = lines[2 : lines.index("")]
    assert "".join(line.split()[0] for line in cells) == name


def test_a_network_without_parameters_or_layers_has_a_summary():
    assert "no parameters" in str(lw.summary(nn.Sequential(), torch.zeros(1)))
    assert "no parameters" in str(lw.summary(nn.ReLU(), torch.zeros(2, 2)))


def test_what_is_no_module_is_refused():
    with pytest.raises(lw.SettingError, match=r"nn.Module; got list"):
        lw.summary([nn.Linear(1, 1)])
