"""Layers, shapes and parameters of a plan as rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from layerwise.network.build import build
from layerwise.network.plan import design
from layerwise.network.summary import count_parameters, summarise
from test_plan import PLANS


@settings(max_examples=30, deadline=None)
@given(PLANS)
def test_the_parameters_are_those_that_torch_counts(plan):
    network = build(plan)
    rows = summarise(plan)
    assert count_parameters(plan) == sum(p.numel() for p in network.parameters())
    for row, layer in zip(rows, network):
        assert row.parameters == sum(p.numel() for p in layer.parameters())
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_each_row_tells_name_layer_output_and_parameters():
    plan = design(2, [3, 40], 2, hidden_layer_sizes=(5,), norm="batch", dropout=0.25)
    found = [(r.name, r.layer, r.output, r.parameters) for r in summarise(plan)]
    assert found == [
        # an embedding of 40 levels and code 0 is 41 rows of round(1.6 * 40^0.56) = 13 columns
        ("0", "InputLayer(2 numbers, 1 one-hot, 1 embedded)", ("N", 2 + 3 + 13), 41 * 13),
        ("1", "Linear(18, 5)", ("N", 5), 18 * 5 + 5),
        ("2", "BatchNorm1d(5)", ("N", 5), 10),
        ("3", "ReLU()", ("N", 5), 0),
        ("4", "Dropout(0.25)", ("N", 5), 0),
        ("5", "Linear(5, 2)", ("N", 2), 12),
    ]


def test_large_widths_are_written_out():
    plan = design(3, [], 1, hidden_layer_sizes=(1_234_567,))
    assert summarise(plan)[0].layer == "Linear(3, 1234567)"
