"""The network's forward pass without torch: prediction from a model file.

On the native core where there is one (see on_core.py), else in NumPy, which is also the core's
reference. Sums are in float64 whatever the weights' precision, so that beyond the last digits of
float64 a row's answer does not depend on the rows beside it; on the core not even those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from layerwise.network.on_core import on_core
from layerwise.network.plan import Layer

_CHUNK = 4096  # rows at a time, so that hidden layers stay small


def forward(plan: Sequence[Layer], arrays: Mapping[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    """Run the plan with these weights, as torch does in evaluation mode.

    Parameters
    ----------
    plan : layers, see plan.py
    arrays : weights and buffers by their ``state_dict`` name
    X : array of shape (n_rows, n_inputs)

    Returns
    -------
    float64 array of shape (n_rows, n_outputs): logits, or standardised numbers
    """
    weights = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    answer = on_core(plan, weights) or partial(_forward, plan, weights)
    pieces = [answer(X[start : start + _CHUNK]) for start in range(0, max(len(X), 1), _CHUNK)]
    return np.concatenate(pieces)


def _forward(plan: Sequence[Layer], arrays: Mapping[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    h = np.asarray(X, dtype=np.float64)
    for i, layer in enumerate(plan):
        kind = layer["type"]
        if kind == "Linear":
            h = h @ arrays[f"{i}.weight"].T + arrays[f"{i}.bias"]
        elif kind == "InputLayer":
            h = _input(i, layer, arrays, h)
        elif kind == "BatchNorm1d":
            mean, var = arrays[f"{i}.running_mean"], arrays[f"{i}.running_var"]
            h = (h - mean) / np.sqrt(var + layer["eps"])
            h = h * arrays[f"{i}.weight"] + arrays[f"{i}.bias"]
        elif kind == "LayerNorm":
            h = h - h.mean(axis=1, keepdims=True)
            h = h / np.sqrt((h**2).mean(axis=1, keepdims=True) + layer["eps"])
            h = h * arrays[f"{i}.weight"] + arrays[f"{i}.bias"]
        elif kind != "Dropout":
            h = FUNCTIONS[kind](h, layer)
    return h


def _input(i: int, layer: Layer, arrays: Mapping[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    n_numbers = layer["n_numbers"]
    pieces, start = [X[:, :n_numbers]], 0
    for k, n in enumerate(layer.get("bins", ())):
        if n:
            edges = arrays[f"{i}.edges"][start : start + n + 1]
            share = (X[:, k, None] - edges[:-1]) / (edges[1:] - edges[:-1])
            pieces.append(np.clip(share, 0, 1))
            start += n + 1
    for k, (n, width) in enumerate(zip(layer["n_codes"], layer["embedding"])):
        codes = X[:, n_numbers + k].astype(np.int64)
        table = arrays[f"{i}.tables.{k}.weight"] if width else np.eye(n + 1)[:, 1:]
        pieces.append(table[codes])
    return np.hstack(pieces)


def _softplus(x: np.ndarray, threshold: float = np.inf) -> np.ndarray:
    return np.where(x > threshold, x, np.logaddexp(0, x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _gelu(x: np.ndarray, layer: Layer) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


# SELU's two constants are those of Klambauer et al. (2017), to double precision.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

FUNCTIONS: dict[str, Callable[[np.ndarray, Layer], np.ndarray]] = {
    "Identity": lambda x, _: x,
    "ReLU": lambda x, _: np.maximum(x, 0),
    "LeakyReLU": lambda x, layer: np.where(x >= 0, x, layer["negative_slope"] * x),
    "ELU": lambda x, layer: np.where(x > 0, x, layer["alpha"] * np.expm1(np.minimum(x, 0))),
    "SELU": lambda x, _: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "GELU": _gelu,
    "SiLU": lambda x, _: x * _sigmoid(x),
    "Mish": lambda x, _: x * np.tanh(_softplus(x)),
    "Softplus": lambda x, _: _softplus(x, 20),  # torch's own threshold
    "Tanh": lambda x, _: np.tanh(x),
    "Sigmoid": lambda x, _: _sigmoid(x),
    "Hardtanh": lambda x, _: np.clip(x, -1, 1),
}
