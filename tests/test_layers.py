"""The input layer of a table, and dropout from a private generator."""

from __future__ import annotations

import pytest
import torch

from layerwise.network.layers import Dropout, InputLayer, set_dropout_generator


def test_numbers_pass_and_codes_become_one_hot_columns():
    layer = InputLayer(2, [3], [0])
    X = torch.tensor([[0.5, -1.0, 1.0], [0.0, 2.0, 3.0]])
    expected = torch.tensor([[0.5, -1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0, 1.0]])
    assert torch.equal(layer(X), expected)
    assert layer.out_features == 5


def test_codes_become_the_rows_of_their_embedding():
    layer = InputLayer(1, [40, 2], [3, 0], dtype=torch.float64)
    with torch.no_grad():
        layer.tables[0].weight.copy_(torch.arange(41 * 3).reshape(41, 3))
    out = layer(torch.tensor([[7.0, 40.0, 1.0]], dtype=torch.float64))
    assert out.tolist() == [[7.0, 120.0, 121.0, 122.0, 1.0, 0.0]]
    assert layer.out_features == 1 + 3 + 2


def test_code_0_adds_nothing_and_learns_nothing():
    layer = InputLayer(0, [40], [3])
    with torch.no_grad():
        layer.tables[0].weight.normal_()
        layer.tables[0].weight[0] = 0
    layer(torch.zeros(4, 1)).sum().backward()
    assert layer(torch.zeros(4, 1)).abs().sum() == 0
    assert layer.tables[0].weight.grad.abs().sum() == 0


def test_a_number_says_how_far_it_fills_each_of_its_bins():
    layer = InputLayer(3, [2], [0], bins=[2, 0, 1], dtype=torch.float64)
    layer.edges.copy_(torch.tensor([-1.0, 0.0, 4.0, 10.0, 20.0]))
    X = torch.tensor([[-2.0, 7.0, 5.0, 1.0], [-0.25, 7.0, 12.5, 2.0], [1.0, 7.0, 30.0, 0.0]])
    filled = layer(X.double())[:, 3:6].tolist()
    assert filled == [[0.0, 0.0, 0.0], [0.75, 0.0, 0.25], [1.0, 0.25, 1.0]]
    assert layer.out_features == layer(X.double()).shape[1] == 3 + 3 + 2


def test_edges_are_no_parameters_and_are_kept_with_the_weights():
    layer = InputLayer(1, [], [], bins=[4])
    assert list(layer.parameters()) == []
    assert list(layer.state_dict()) == ["edges"]
    assert "bins=[4]" in repr(layer)


def test_the_precision_of_the_rows_is_kept():
    for dtype in (torch.float32, torch.float64):
        layer = InputLayer(1, [2], [0], dtype=dtype)
        assert layer(torch.zeros(1, 2, dtype=dtype)).dtype == dtype


def test_dropout_keeps_its_share_and_the_mean():
    layer = Dropout(0.3)
    layer.generator = torch.Generator().manual_seed(0)
    out = layer(torch.ones(200_000, dtype=torch.float64))
    kept = (out > 0).double().mean().item()
    # five standard deviations of a share: 5 sqrt(0.3 * 0.7 / 200000) = 0.0051
    assert kept == pytest.approx(0.7, abs=0.0052)
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]


def test_dropout_is_repeatable_and_leaves_the_global_state_alone():
    layer, X = Dropout(0.5), torch.ones(50)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        layer.generator = torch.Generator().manual_seed(3)
        drawn.append(layer(X))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gradient_of_dropout_is_its_mask():
    layer = Dropout(0.5)
    layer.generator = torch.Generator().manual_seed(0)
    X = torch.ones(20, requires_grad=True)
    out = layer(X)
    out.sum().backward()
    assert torch.equal(X.grad, out.detach())


def test_dropout_does_nothing_when_answering():
    layer = Dropout(0.9).eval()
    layer.generator = torch.Generator()
    X = torch.randn(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(X), X)


def test_dropout_without_a_generator_is_torchs_own():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ours = Dropout(0.4)(torch.ones(100))
        torch.manual_seed(5)
        assert torch.equal(ours, torch.nn.Dropout(0.4)(torch.ones(100)))


def test_the_generator_reaches_every_dropout_and_leaves():
    network = torch.nn.Sequential(Dropout(0.1), torch.nn.Sequential(Dropout(0.2)))
    generator = torch.Generator()
    set_dropout_generator(network, generator)
    assert network[0].generator is network[1][0].generator is generator
    set_dropout_generator(network, None)
    assert network[0].generator is None


def test_the_input_layer_prints_what_it_does():
    assert "numbers=2, categories=[one-hot 3, embedding 40→12]" in repr(
        InputLayer(2, [3, 40], [0, 12])
    )
