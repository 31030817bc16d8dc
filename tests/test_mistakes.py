"""Why a layer refused its input: the layer, both shapes, and a mend that works."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.network.mistakes import explain
from layerwise.network.walk import walk
from nets import Towers


def _told(model, inputs):
    found = walk(model, inputs)
    assert found.error is not None
    return explain(found)


def _runs(model, inputs):
    found = walk(model, inputs)
    assert found.error is None, found.error


class Own(nn.Module):
    """A forward with code of its own between its layers."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 6), nn.Linear(6, 2), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


S, L = nn.Sequential, nn.Linear
X = torch.randn(8, 4)
IMAGES = torch.rand(8, 3, 6, 6)

# model, inputs, what is told, and the mend: model and inputs that run
CASES = {
    "layers that do not meet": (
        S(L(4, 18), nn.ReLU(), nn.Dropout(), L(20, 5)), X,
        "layer '3' (Linear(20, 5)) takes 20 features and gets 18, shape (8, 18), from layer '0' "
        "(Linear(4, 18)): make it Linear(18, 5), or let layer '0' give 20",
        S(L(4, 18), nn.ReLU(), nn.Dropout(), L(18, 5)), X,
    ),
    "another number of columns": (
        S(L(5, 2)), X,
        "layer '0' (Linear(5, 2)) takes 5 features and gets 4, shape (8, 4), from the data: make "
        "it Linear(4, 2)",
        S(L(4, 2)), X,
    ),
    "one column without a dimension": (
        L(1, 2), X[:, 0],
        "the layer (Linear(1, 2)) takes 1 feature and gets 8, shape (8,), from the data: "
        "X[:, None] makes it one feature of each row",
        L(1, 2), X[:, 0][:, None],
    ),
    "rows without columns": (
        L(4, 2), X[:, 0],
        "the layer (Linear(4, 2)) takes 4 features and gets 8, shape (8,), from the data: each "
        "row has one number only",
        L(4, 2), X,
    ),
    "no Flatten": (
        S(nn.Conv2d(3, 4, 3), nn.ReLU(), L(64, 2)), IMAGES,
        "layer '2' (Linear(64, 2)) takes 64 features and gets 4, shape (8, 4, 4, 4), from layer "
        "'0' (Conv2d(3, 4, 3)): put nn.Flatten() before it",
        S(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), L(64, 2)), IMAGES,
    ),
    "another size after Flatten": (
        S(nn.Conv2d(3, 4, 3), nn.Flatten(), L(100, 2)), IMAGES,
        "layer '2' (Linear(100, 2)) takes 100 features and gets 64, shape (8, 64), from layer '1' "
        "(Flatten()): make it Linear(64, 2)",
        S(nn.Conv2d(3, 4, 3), nn.Flatten(), L(64, 2)), IMAGES,
    ),
    "images without a channel": (
        nn.Conv2d(1, 4, 3), IMAGES[:, 0],
        "the layer (Conv2d(1, 4, 3)) takes 1 channel and gets 8, shape (8, 6, 6), from the data: "
        "X[:, None] adds a channel",
        nn.Conv2d(1, 4, 3), IMAGES[:, 0][:, None],
    ),
    "channels last": (
        nn.Conv2d(3, 4, 3), IMAGES.movedim(1, -1),
        "the layer (Conv2d(3, 4, 3)) takes 3 channels and gets 6, shape (8, 6, 6, 3), from the "
        "data: the channels are last here, X.movedim(-1, 1) brings them to where they go",
        nn.Conv2d(3, 4, 3), IMAGES.movedim(1, -1).movedim(-1, 1),
    ),
    "channels of another layer": (
        S(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)), IMAGES,
        "layer '2' (Conv2d(8, 2, 3)) takes 8 channels and gets 4, shape (8, 4, 4, 4), from layer "
        "'0' (Conv2d(3, 4, 3))",
        S(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), IMAGES,
    ),
    "a table for a convolution": (
        nn.Conv1d(4, 2, 1), torch.rand(8, 4, 2, 2),
        "the layer (Conv1d(4, 2, 1)) takes (N, channels, width) and gets (8, 4, 2, 2), from the "
        "data",
        nn.Conv2d(4, 2, 1), torch.rand(8, 4, 2, 2),
    ),
    "flat images": (
        nn.Conv2d(1, 2, 3), torch.rand(8, 36),
        "the layer (Conv2d(1, 2, 3)) takes (N, channels, height, width) and gets (8, 36), from "
        "the data",
        S(nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3)), torch.rand(8, 36),
    ),
    "steps without features": (
        nn.LSTM(1, 5, batch_first=True), X,
        "the layer (LSTM(1, 5, batch_first=True)) takes 1 feature at each step and gets 4, shape "
        "(8, 4), from the data: X[:, :, None] makes each number a step",
        nn.LSTM(1, 5, batch_first=True), X[:, :, None],
    ),
    "features of a step": (
        nn.GRU(3, 5), X[:, None],
        "the layer (GRU(3, 5)) takes 3 features at each step and gets 4, shape (8, 1, 4), from "
        "the data",
        nn.GRU(4, 5), X[:, None],
    ),
    "batch normalisation": (
        S(L(4, 6), nn.BatchNorm1d(5)), X,
        "layer '1' (BatchNorm1d(5)) takes 5 features and gets 6, shape (8, 6), from layer '0' "
        "(Linear(4, 6)): make it BatchNorm1d(6)",
        S(L(4, 6), nn.BatchNorm1d(6)), X,
    ),
    "layer normalisation": (
        S(L(4, 6), nn.LayerNorm(5)), X,
        "layer '1' (LayerNorm((5,))) normalises the last dimension, of size 5, and gets shape "
        "(8, 6), from layer '0' (Linear(4, 6))",
        S(L(4, 6), nn.LayerNorm(6)), X,
    ),
    "float64 values": (
        L(4, 2), X.double(),
        "the layer (Linear(4, 2)) has float32 weights and gets float64 values: pass X.float(), or "
        "make the network float64 with model.double()",
        L(4, 2).double(), X.double(),
    ),
    "float32 values for a float64 network": (
        L(4, 2).double(), X,
        "the layer (Linear(4, 2)) has float64 weights and gets float32 values: pass X.double(), "
        "or make the network float32 with model.float()",
        L(4, 2).double(), X.double(),
    ),
    "whole numbers": (
        L(4, 2), X.long(),
        "the layer (Linear(4, 2)) has float32 weights and gets int64 values: pass X.float()",
        L(4, 2), X.long().float(),
    ),
    "another type on the way": (
        Own(torch.Tensor.double), X,
        "layer 'b' (Linear(6, 2)) has float32 weights and gets float64 values: on its input call "
        ".float()",
        Own(torch.Tensor.relu), X,
    ),
    "decimals for an embedding": (
        nn.Embedding(9, 2), X,
        "the layer (Embedding(9, 2)) takes whole numbers and gets float32: pass X.long()",
        nn.Embedding(9, 2), X.abs().long(),
    ),
    "a code too high": (
        nn.Embedding(9, 2), torch.tensor([[0, 9]]),
        "the layer (Embedding(9, 2)) has rows 0 to 8 and is asked for 9",
        nn.Embedding(10, 2), torch.tensor([[0, 9]]),
    ),
    "a code below 0": (
        nn.Embedding(9, 2), torch.tensor([[-1, 3]]),
        "the layer (Embedding(9, 2)) has rows 0 to 8 and is asked for -1",
        nn.Embedding(9, 2), torch.tensor([[0, 3]]),
    ),
    "its own forward": (
        Own(lambda x: x.view(7, 7)), X,
        "the model's own forward failed after layer 'a' (Linear(4, 6)): RuntimeError: shape "
        "'[7, 7]' is invalid for input of size 48",
        Own(lambda x: x.view(8, 6)), X,
    ),
    "one input of two": (
        Towers(), X[:, :3],
        "the model's own forward failed: TypeError: Towers.forward() missing 1 required positional "
        "argument: 'b'. Several inputs go as ((X1, X2), y), or by name as "
        "({'left': X1, 'right': X2}, y)",
        Towers(), (X[:, :3], torch.rand(8, 5)),
    ),
    "an input of another name": (
        Towers(), {"a": X[:, :3], "c": torch.rand(8, 5)},
        "the model's own forward failed: TypeError: Towers.forward() got an unexpected keyword "
        "argument 'c'. Several inputs go as ((X1, X2), y), or by name as "
        "({'left': X1, 'right': X2}, y)",
        Towers(), {"a": X[:, :3], "b": torch.rand(8, 5)},
    ),
    "a layer with two inputs": (
        nn.Bilinear(4, 4, 2), X,
        "the layer (Bilinear(4, 4, 2)) refuses its input of shape (8, 4) and type float32: "
        "Bilinear.forward() missing 1 required positional argument: 'input2'. Several inputs go as "
        "((X1, X2), y), or by name as ({'left': X1, 'right': X2}, y)",
        nn.Bilinear(4, 4, 2), (X, X),
    ),
    "anything else": (
        S(nn.Unflatten(1, (3, 2))), X,
        "layer '0' (Unflatten(dim=1, unflattened_size=(3, 2))) refuses its input of shape (8, 4) "
        "and type float32: unflatten: Provided sizes [3, 2] don't multiply up to the size of dim 1 "
        "(4) in the input tensor",
        S(nn.Unflatten(1, (2, 2))), X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_layer_both_shapes_and_the_mend_are_told(name):
    model, inputs, told, _, _ = CASES[name]
    assert _told(model, inputs) == told


@pytest.mark.parametrize("name", CASES)
def test_the_mend_works(name):
    _, _, _, model, inputs = CASES[name]
    _runs(model, inputs)


def test_a_layer_without_a_tensor_is_told():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x):
            return self.a(None)

    told = _told(Odd(), X)
    assert told.startswith("layer 'a' (Linear(4, 2)) was called without a tensor: ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_devices_are_told():
    told = "has its weights on cuda:0 and gets values on cpu: move one of them"
    assert told in _told(nn.Linear(4, 2).cuda(), X)
