"""The network as a plan: a list of layers in plain values, without torch.

The plan is what is printed, saved in the model file, built as ``nn.Sequential`` (build.py) and
run in NumPy (forward.py). A layer is a dict of its ``type``, as torch names it, and its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerwise.errors import SettingError, did_you_mean

Layer = dict[str, Any]

ACTIVATIONS: dict[str, Layer] = {
    "relu": {"type": "ReLU"},
    "leaky_relu": {"type": "LeakyReLU", "negative_slope": 0.01},
    "elu": {"type": "ELU", "alpha": 1.0},
    "selu": {"type": "SELU"},
    "gelu": {"type": "GELU"},
    "silu": {"type": "SiLU"},
    "mish": {"type": "Mish"},
    "softplus": {"type": "Softplus"},
    "tanh": {"type": "Tanh"},
    "sigmoid": {"type": "Sigmoid"},
    "hardtanh": {"type": "Hardtanh"},
    "identity": {"type": "Identity"},
}
NORMS = {"batch": "BatchNorm1d", "layer": "LayerNorm"}
LAYERS = {
    "InputLayer", "Linear", "Dropout", *NORMS.values(),
    *(layer["type"] for layer in ACTIVATIONS.values()),
}  # fmt: skip

ONE_HOT_LEVELS = 30  # with more codes a category is embedded


def embedding_width(n_codes: int) -> int:
    """Columns for a category of so many codes; 0 means one-hot.

    The rule of thumb ``1.6 n^0.56``, at most 50. Source: fastai's tabular models.
    """
    return 0 if n_codes <= ONE_HOT_LEVELS else min(50, round(1.6 * n_codes**0.56))


def design(
    n_numbers: int,
    n_codes: Sequence[int],
    n_outputs: int,
    *,
    bins: Sequence[int] = (),
    hidden_layer_sizes: Sequence[int] = (256, 128),
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str | None = None,
) -> list[Layer]:
    """Lay out a fully connected network.

    Parameters
    ----------
    n_numbers : how many leading columns of the input are numbers
    n_codes : for each category column after them, its number of codes besides 0
    n_outputs : width of the last layer, which is linear: its outputs are logits or numbers
    bins : for each number the bins of its piecewise-linear embedding, 0 for none; empty for none
        at all
    hidden_layer_sizes : units of each hidden layer; ``()`` is a linear model
    activation, norm : names of `ACTIVATIONS` and `NORMS`
    dropout : share of hidden values set to zero while training

    Returns
    -------
    list of layers, each ``{"type": …, argument: value}``

    Examples
    --------
    >>> [layer["type"] for layer in design(4, [], 1, hidden_layer_sizes=(8,))]
    ['Linear', 'ReLU', 'Linear']
    """
    if activation not in ACTIVATIONS:
        known = did_you_mean(activation, ACTIVATIONS)
        raise SettingError(f"unknown activation {activation!r}. {known}")
    if norm is not None and norm not in NORMS:
        raise SettingError(f"unknown norm {norm!r}. {did_you_mean(norm, NORMS)}")
    plan: list[Layer] = []
    width = n_numbers
    if n_codes or any(bins):
        widths = [embedding_width(n) for n in n_codes]
        first: Layer = {
            "type": "InputLayer", "n_numbers": n_numbers, "n_codes": list(n_codes),
            "embedding": widths,
        }  # fmt: skip
        if any(bins):
            first["bins"] = [int(n) for n in bins]
        plan.append(first)
        width = input_width(first)
    for units in hidden_layer_sizes:
        plan.append({"type": "Linear", "in_features": width, "out_features": int(units)})
        width = int(units)
        if norm == "batch":
            plan.append({"type": "BatchNorm1d", "num_features": width, "eps": 1e-5})
        elif norm == "layer":
            plan.append({"type": "LayerNorm", "normalized_shape": width, "eps": 1e-5})
        plan.append(dict(ACTIVATIONS[activation]))
        if dropout:
            plan.append({"type": "Dropout", "p": float(dropout)})
    plan.append({"type": "Linear", "in_features": width, "out_features": int(n_outputs)})
    return plan


def input_width(layer: Layer) -> int:
    """How many columns an input layer gives: its numbers, their bins, and the categories' columns.

    Examples
    --------
    >>> input_width(design(2, [3], 1, bins=[0, 4])[0])
    9
    """
    categories = sum(w or n for n, w in zip(layer["n_codes"], layer["embedding"]))
    return int(layer["n_numbers"]) + sum(layer.get("bins", ())) + categories


def array_shapes(plan: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array of the plan's network, as its ``state_dict`` names them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(plan):
        match layer["type"]:
            case "InputLayer":
                if any(layer.get("bins", ())):
                    shapes[f"{i}.edges"] = (sum(n + 1 for n in layer["bins"] if n),)
                for k, (n, width) in enumerate(zip(layer["n_codes"], layer["embedding"])):
                    if width:
                        shapes[f"{i}.tables.{k}.weight"] = (n + 1, width)
            case "Linear":
                shapes[f"{i}.weight"] = (layer["out_features"], layer["in_features"])
                shapes[f"{i}.bias"] = (layer["out_features"],)
            case "BatchNorm1d":
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{i}.{name}"] = (layer["num_features"],)
                shapes[f"{i}.num_batches_tracked"] = ()
            case "LayerNorm":
                shapes[f"{i}.weight"] = shapes[f"{i}.bias"] = (layer["normalized_shape"],)
    return shapes


def n_inputs(plan: Sequence[Layer]) -> int:
    """How many columns the network's input has."""
    first = plan[0]
    if first["type"] == "InputLayer":
        return int(first["n_numbers"]) + len(first["n_codes"])
    return int(first["in_features"])
