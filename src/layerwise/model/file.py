"""The model file: one safetensors file with JSON, no code in it, checked to the bit.

Format 2. Arrays are named ``members.<member>.<name in the state_dict>``; the JSON has ``format``,
``schema``, ``encoder``, ``plan``, ``n_members``, ``target``, ``recipe``, ``info``, ``temperature``,
``limits`` and ``checksum``. Format 1 had neither temperature nor limits, and one member.
A file holds no time and no path, so the same training gives the same bytes. Readers of a later
layerwise keep reading every older format; each has a golden file in the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from layerwise import storage
from layerwise.data.encoder import Encoder
from layerwise.data.schema import Schema
from layerwise.data.target import Target
from layerwise.errors import LayerwiseError, ModelFileError
from layerwise.model.model import Model
from layerwise.network.plan import LAYERS, array_shapes, n_inputs

FORMAT = 2
NAME = "model.layerwise"  # within a run folder


def save(model: Model, path: str | Path) -> None:
    """Write the model, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    arrays = {
        f"members.{i}.{name}": array
        for i, member in enumerate(model.members)
        for name, array in member.items()
    }
    header = {
        "format": FORMAT,
        "schema": model.schema.to_json(),
        "encoder": model.encoder.to_json(),
        "plan": model.plan,
        "n_members": len(model.members),
        "target": model.target.to_json(),
        "recipe": model.recipe,
        "info": model.info,
        "temperature": model.temperature,
        "limits": None if model.limits is None else model.limits.tolist(),
    }
    storage.write_whole(path, storage.pack(arrays, header))


def load(path: str | Path) -> Model:
    """Read a model from its file or from a run folder; no code of the file is run.

    Raises
    ------
    ModelFileError
        If the file is missing, foreign, damaged by as much as one bit, of a newer format, or if
        an array has not the size that the plan asks for.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / NAME).exists():
            raise ModelFileError(f"{path} has no {NAME}; is it a run folder, and did the run end?")
        path = path / NAME
    if not path.exists():
        raise ModelFileError(f"there is no model at {path}")
    arrays, header = storage.unpack(path)
    number = header.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise ModelFileError(
            f"{path} has format {number}, newer than the {FORMAT} this layerwise reads; "
            "upgrade layerwise"
        )
    try:
        if not 1 <= header["n_members"] <= len(arrays):
            raise ModelFileError("it has no network")
        model = Model(
            Schema.from_json(header["schema"]),
            Encoder.from_json(header["encoder"]),
            header["plan"],
            [
                {
                    name.removeprefix(f"members.{i}."): array
                    for name, array in arrays.items()
                    if name.startswith(f"members.{i}.")
                }
                for i in range(header["n_members"])
            ],
            Target.from_json(header["target"]),
            header["recipe"] if number != 1 else {"members": 1, **header["recipe"]},
            header["info"],
            float(header.get("temperature", 1.0)),
            _limits(header.get("limits")),
        )
        _check_sizes(model)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, LayerwiseError) as error:
        raise ModelFileError(f"{path} is no valid model file: {error!r}") from None
    return model


def _limits(said: Any) -> np.ndarray | None:
    return None if said is None else np.array(said, dtype=np.float64)


def _check_sizes(model: Model) -> None:
    if not 0 < model.temperature < np.inf:
        raise ModelFileError(f"its temperature {model.temperature} is none")
    if model.limits is not None:
        low_high = (2, model.target.n_outputs)
        if model.limits.shape != low_high or not np.all(model.limits[0] <= model.limits[1]):
            raise ModelFileError(f"its limits are no lowest and highest output {low_high}")
    for layer in model.plan:
        if layer["type"] not in LAYERS:
            raise ModelFileError(f"its layer {layer['type']!r} is unknown; upgrade layerwise")
    expected = array_shapes(model.plan)
    for member in model.members:
        for name in member:
            if name not in expected:
                raise ModelFileError(f"array {name!r} belongs to no layer")
        for name, shape in expected.items():
            if name not in member:
                raise ModelFileError(f"array {name!r} is missing")
            if member[name].shape != shape:
                raise ModelFileError(f"array {name!r} has shape {member[name].shape}, not {shape}")
            if not np.all(np.isfinite(member[name])):
                raise ModelFileError(f"array {name!r} has values that are not finite")
    width = len(model.encoder.feature_names)
    if n_inputs(model.plan) != width:
        raise ModelFileError(
            f"the encoder gives {width} columns, the network takes {n_inputs(model.plan)}"
        )
    if model.plan[-1]["out_features"] != model.target.n_outputs:
        raise ModelFileError(
            f"the network has {model.plan[-1]['out_features']} outputs, the target asks for "
            f"{model.target.n_outputs}"
        )
