"""A plan as ``nn.Sequential``, with weights drawn for its activation from a private generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from layerwise.network.layers import Dropout, InputLayer
from layerwise.network.plan import Layer

# He et al. (2015) for rectifiers and their smooth kin, Glorot & Bengio (2010) for saturating
# functions and the linear output, LeCun et al. (1998) for SELU (Klambauer et al., 2017).
_INIT = {
    "ReLU": "he", "LeakyReLU": "he", "ELU": "he", "GELU": "he", "SiLU": "he", "Mish": "he",
    "Softplus": "he", "SELU": "lecun", "Tanh": "glorot", "Sigmoid": "glorot", "Hardtanh": "glorot",
    "Identity": "glorot",
}  # fmt: skip


def build(
    plan: Sequence[Layer],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    edges: np.ndarray | None = None,
) -> nn.Sequential:
    """Build the network and draw its weights.

    Weights are drawn in float64 and then cast, so that both precisions start at the same point.
    Biases start at 0, embeddings at N(0, 1 / width).

    Parameters
    ----------
    plan : as `layerwise.network.plan.design` gives it
    seed : of the private generator; torch's global random state is left alone
    dtype : of all parameters
    edges : of the input layer's bins, all numbers' one after another (`layerwise.data.bins`)

    Examples
    --------
    >>> from layerwise.network.plan import design
    >>> build(design(2, [], 1, hidden_layer_sizes=(3,)))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    network: Any = nn.Sequential(*(_module(layer, dtype) for layer in plan))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for i, layer in enumerate(plan):
            if layer["type"] == "Linear":
                after = next((one["type"] for one in plan[i + 1 :] if one["type"] in _INIT), "")
                _draw(network[i], _INIT.get(after, "glorot"), generator)
            elif layer["type"] == "InputLayer":
                _draw_embeddings(network[i], generator)
                if edges is not None and edges.size:
                    network[i].edges.copy_(torch.from_numpy(edges))
    return network


def from_arrays(plan: Sequence[Layer], arrays: Mapping[str, np.ndarray]) -> nn.Sequential:
    """The network with these weights, in evaluation mode."""
    dtype = torch.float64 if any(a.dtype == np.float64 for a in arrays.values()) else torch.float32
    network = nn.Sequential(*(_module(layer, dtype) for layer in plan))
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network.eval()


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all weights and buffers, by their name in the ``state_dict``."""
    return {
        name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()
    }


def _module(layer: Layer, dtype: torch.dtype) -> nn.Module:
    arguments: dict[str, Any] = {key: value for key, value in layer.items() if key != "type"}
    kind = layer["type"]
    if kind == "InputLayer":
        return InputLayer(**arguments, dtype=dtype)
    if kind == "Dropout":
        return Dropout(**arguments)
    if kind == "Linear":
        return _linear(**arguments, dtype=dtype)
    if kind in ("BatchNorm1d", "LayerNorm"):
        return getattr(nn, kind)(**arguments, dtype=dtype)
    return getattr(nn, kind)(**arguments)


def _linear(in_features: int, out_features: int, dtype: torch.dtype) -> nn.Linear:
    """An ``nn.Linear`` with zeros, to be drawn later.

    torch's constructor would draw from the global generator, and ``skip_init`` would import torch's
    compiler, which takes seconds.
    """
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = in_features, out_features
    linear.weight = nn.Parameter(torch.zeros(out_features, in_features, dtype=dtype))
    linear.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype))
    return linear


def _draw(linear: Any, rule: str, generator: torch.Generator) -> None:
    weight, bias = linear.weight, linear.bias
    out_features, in_features = weight.shape
    if rule == "glorot":
        limit = (6 / (in_features + out_features)) ** 0.5
        drawn = torch.empty(weight.shape, dtype=torch.float64)
        drawn.uniform_(-limit, limit, generator=generator)
    else:
        std = ((2 if rule == "he" else 1) / max(in_features, 1)) ** 0.5
        drawn = torch.empty(weight.shape, dtype=torch.float64)
        drawn.normal_(0, std, generator=generator)
    weight.copy_(drawn)
    bias.zero_()


def _draw_embeddings(layer: Any, generator: torch.Generator) -> None:
    for table in layer.tables:
        if isinstance(table, nn.Embedding):
            drawn = torch.empty(table.weight.shape, dtype=torch.float64)
            drawn.normal_(0, table.embedding_dim**-0.5, generator=generator)
            table.weight.copy_(drawn)
            table.weight[0] = 0
