"""One pass with an eye on each layer, and the state put back after it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from layerwise.network.keep import kept
from layerwise.network.layers import Dropout, InputLayer, set_dropout_generator
from layerwise.network.walk import leaves, walk, words
from nets import ZOO, Recurrent, Residual, mlp, zoo


@pytest.mark.parametrize("name", ZOO)
def test_a_walk_gives_what_a_plain_call_gives(name):
    model, X = zoo(name)
    model.eval()
    plain = model(**X) if isinstance(X, dict) else model(X)
    found = walk(model, X)
    assert torch.equal(found.outputs, plain)
    assert found.error is None
    assert found.failed is None


def test_each_call_of_a_layer_is_a_visit_with_its_inputs_and_outputs():
    model, X = mlp(), torch.randn(6, 10)
    visits = walk(model, X).visits
    assert [visit.name for visit in visits] == ["0", "1", "2", "3", "4"]
    assert torch.equal(visits[0].inputs[0], X)
    for before, after in pairwise(visits):
        assert after.inputs[0] is before.output
    assert visits[2].title == "layer '2' (Linear(18, 20))"


def test_a_model_that_is_one_layer_has_no_name():
    (visit,) = walk(nn.Linear(3, 1), torch.zeros(2, 3)).visits
    assert (visit.name, visit.title) == ("", "the layer (Linear(3, 1))")


def test_a_layer_that_returns_a_tuple_has_all_its_tensors():
    visit = walk(Recurrent(), torch.randint(50, (6, 7))).visits[1]
    assert [tuple(t.shape) for t in visit.outputs] == [(6, 7, 8), (1, 6, 8), (1, 6, 8)]


def test_the_layer_that_fails_is_named_with_what_it_got():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1), nn.ReLU())
    found = walk(model, torch.zeros(2, 3))
    assert found.outputs is None
    assert isinstance(found.error, RuntimeError)
    assert (found.failed.name, tuple(found.failed.inputs[0].shape)) == ("2", (2, 4))
    assert [visit.name for visit in found.visits] == ["0", "1", "2"]


def test_a_forward_that_fails_between_its_layers_blames_none_of_them():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(3, 4)

        def forward(self, x):
            return self.inp(x).reshape(7, 7)

    found = walk(Between(), torch.zeros(2, 3))
    assert found.failed is None
    assert found.error is not None
    assert [visit.name for visit in found.visits] == ["inp"]


def test_what_a_layer_gave_stays_although_the_next_works_in_place():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    X = torch.randn(20, 3)
    found = walk(model, X)
    assert torch.equal(found.visits[0].output, model[0](X))
    assert found.visits[0].output.min() < 0
    assert model[1].inplace


def test_a_look_sees_values_before_the_forward_changes_them():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(3, 4)

        def forward(self, x):
            x = self.inp(x)
            x *= 0
            return x

    seen = []
    found = walk(InPlace(), torch.ones(2, 3), lambda visit: seen.append(visit.output.clone()))
    assert seen[0].abs().min() > 0
    assert found.visits[0].output.abs().max() == 0


def test_no_hook_is_left_also_after_a_failure():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1))
    walk(model, torch.zeros(2, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_layer_under_two_names_is_seen_once_for_each_call():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.Tanh()))
    assert [name for name, _ in leaves(model)] == ["0.0", "0.1", "1.1"]
    visits = walk(model, torch.zeros(2, 4)).visits
    assert [visit.name for visit in visits] == ["0.0", "0.1", "0.0", "1.1"]
    assert all(visit.output is not None for visit in visits)


def test_what_uses_its_parts_without_calling_them_is_one_layer():
    for module in (
        InputLayer(1, [40], [13]),
        nn.MultiheadAttention(8, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
    ):
        assert [name for name, _ in leaves(module)] == [""]


def test_a_layer_is_told_as_people_write_it():
    assert words(nn.Linear(10, 18)) == "Linear(10, 18)"
    assert words(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))) == "Linear(2, 3)"
    assert words(nn.Conv2d(1, 8, (3, 5))) == "Conv2d(1, 8, (3, 5))"
    assert words(nn.MaxPool2d(2)) == "MaxPool2d(2, stride=2)"
    assert words(nn.GELU()) == "GELU()"
    assert words(nn.Embedding(10, 3, padding_idx=0)) == "Embedding(10, 3, padding_idx=0)"
    assert words(nn.ParameterList([nn.Parameter(torch.zeros(2))])) == "ParameterList(1)"

    class Long(nn.Module):
        def extra_repr(self):
            return "x" * 500

    assert len(words(Long())) <= 50


# ---------------------------------------------------------------- kept


def test_modes_buffers_gradients_and_random_state_come_back():
    model = Residual()
    model(torch.randn(6, 10)).sum().backward()
    model.blocks[0].eval()
    old = {name: p.grad for name, p in model.named_parameters()}
    copies = {name: grad.clone() for name, grad in old.items()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    with kept(model):
        model.train()(torch.randn(6, 10)).sum().backward()
        assert model.inp.weight.grad is not old["inp.weight"]
    for name, parameter in model.named_parameters():
        assert parameter.grad is old[name]
        assert torch.equal(parameter.grad, copies[name])
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_buffers_may_also_be_let_go():
    model = nn.BatchNorm1d(2)
    with kept(model, buffers=False):
        model(torch.randn(8, 2))
    assert model.num_batches_tracked == 1


def test_a_buffer_that_a_forward_replaced_is_the_old_one_again():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(1))

        def forward(self, x):
            self.last = x
            return x

    model = Last()
    buffer = model.last
    with kept(model):
        model(torch.ones(3))
    assert model.last is buffer


def test_the_private_generator_of_a_dropout_is_where_it_was():
    model = nn.Sequential(Dropout(0.5))
    generator = torch.Generator().manual_seed(3)
    set_dropout_generator(model, generator)
    before = generator.get_state()
    with kept(model):
        model(torch.ones(10))
        assert not torch.equal(generator.get_state(), before)
    assert torch.equal(generator.get_state(), before)


def test_all_comes_back_after_an_error_too():
    model = nn.Linear(2, 1)

    def fail():
        with kept(model):
            model.eval()
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert model.training
