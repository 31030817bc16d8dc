"""Whatever PyTorch people keep their rows in, as rows in memory or as a loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from layerwise.engine.torch import Inputs, Loader, Rows, first, take, to_device
from layerwise.errors import DataError
from layerwise.training.losses import keeps_integers

_TOLD = (
    "data has to be (X, y) or (X, y, w), a TensorDataset, a Dataset or a DataLoader; several "
    "inputs go as ((X1, X2), y) or ({'name': X1, …}, y)"
)


@dataclass(frozen=True)
class Types:
    """What arrays become; tensors stay as they are.

    Attributes
    ----------
    floats : of the network's weights
    whole_inputs : whether integers stay integers, for a network with embeddings
    classes : whether an integer y stays one, such as class indices
    """

    floats: torch.dtype
    whole_inputs: bool = False
    classes: bool = False


def source_of(
    data: Any,
    types: Types,
    device: torch.device,
    name: str = "data",
    *,
    batch_size: int = 32,
    shuffle: bool = True,
) -> tuple[Rows | Loader, list[str]]:
    """The data as the engine takes them, and the names of a frame's columns.

    Parameters
    ----------
    data : (X, y) or (X, y, w); X a tensor, an array, a frame of numbers, a list, or a tuple or dict
        of such; or a ``TensorDataset`` or a ``Subset`` of one, which are rows in memory too; or any
        other ``Dataset``, put into a ``DataLoader``; or a ``DataLoader``, used as it is
    types : what arrays become
    device : where the rows have to be
    name : of the data in messages
    batch_size, shuffle : of the loader of a plain ``Dataset``

    Raises
    ------
    DataError
        For what cannot be read as rows of numbers, naming the column or the row.
    """
    if isinstance(data, DataLoader):
        return Loader(data, device), []
    if isinstance(data, Dataset):
        tensors = _in_memory(data)
        if tensors is None:
            shuffled = shuffle and not isinstance(data, IterableDataset)
            try:
                return Loader(DataLoader(data, batch_size, shuffle=shuffled), device), []
            except (TypeError, ValueError) as error:  # no len(), or a length of 0
                kind = type(data).__name__
                raise DataError(f"{name}: no DataLoader can be made of {kind}: {error}") from None
        data = tensors
    if not isinstance(data, tuple | list) or not 2 <= len(data) <= 3:
        what = f"{len(data)} parts" if isinstance(data, tuple | list) else type(data).__name__
        raise DataError(f"{name} has {what}; {_TOLD}")
    several = _are_inputs(data[0], data[1])
    X, names = _inputs(tuple(data[0]) if several else data[0], types, name)
    y = _answers(data[1], types, name)
    w = None if len(data) < 3 or data[2] is None else _weights(data[2], types, name)
    rows = Rows(X, y, w)
    _check_lengths(rows, name)
    if w is not None:
        rows = _weighted(rows, name)
    X, y, w = to_device((rows.X, rows.y, rows.w), device)
    return Rows(X, y, w), names


def rows_of(data: Any, model: nn.Module, loss: Any) -> tuple[Rows, list[str]]:
    """Rows in memory, in the types that the model and the loss take, where the model is."""
    types, device = types_for(model, keeps_integers(loss)), device_of(model)
    rows, names = source_of(data, types, device)
    assert isinstance(rows, Rows)  # noqa: S101  (X, y) never makes a loader
    return rows, names


def types_for(model: nn.Module, classes: bool) -> Types:
    """What arrays have to become for this model, and for a loss that takes classes or not."""
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return Types(floats, whole_inputs=embeds(model), classes=classes)


def embeds(model: nn.Module) -> bool:
    """Whether whole numbers may stand for rows of an embedding."""
    return any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules())


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def every(value: Inputs) -> list[Tensor]:
    """All tensors of several inputs."""
    if isinstance(value, Tensor):
        return [value]
    return list(value.values() if isinstance(value, dict) else value)


def detached(value: Inputs) -> Inputs:
    """The values alone, if they come from a network: its graph would not outlive the first step."""
    if isinstance(value, dict):
        return {name: one.detach() for name, one in value.items()}
    return value.detach() if isinstance(value, Tensor) else tuple(one.detach() for one in value)


def to_tensor(value: Any, floats: torch.dtype, *, whole: bool = False, name: str = "X") -> Tensor:
    """An array, frame, series or list of numbers as a tensor; a tensor as it is.

    Parameters
    ----------
    value : what to read
    floats : the type that numbers become
    whole : whether integers and booleans become int64 instead
    name : of the value in messages
    """
    return _tensor(value, floats, whole, name)[0]


def _tensor(value: Any, floats: torch.dtype, whole: bool, name: str) -> tuple[Tensor, list[str]]:
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise DataError(f"{name} is a sparse tensor; pass {name}.to_dense()")
        return value, []
    if isinstance(value, list) and value and all(isinstance(one, Tensor) for one in value):
        return torch.stack(value), []
    if hasattr(value, "toarray"):
        raise DataError(f"{name} is a sparse matrix; pass {name}.toarray()")
    frame = nw.from_native(value, allow_series=True, pass_through=True)
    names: list[str] = []
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, nw.DataFrame):
        names = [str(column) for column in frame.columns]
        for column, dtype in frame.collect_schema().items():
            if not (dtype.is_numeric() or dtype == nw.Boolean):
                raise DataError(
                    f"{name}, column {column!r} has {dtype}, not numbers; turn it into numbers, or "
                    "let layerwise.train or NetworkClassifier read the table: they encode it"
                )
    mend = _LABELS if name.endswith("y") else "encode it first"
    try:
        array = np.asarray(frame.to_numpy() if hasattr(frame, "to_numpy") else value)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        told = f"; {mend}" if "convert string" in str(error) else ""
        raise DataError(f"{name} cannot be read as numbers: {error}{told}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has {array.dtype} values, not numbers; {mend}")
    as_whole = whole and array.dtype.kind in "biu"
    kind = torch.int64 if as_whole else floats
    # NumPy has no bfloat16
    wanted = np.float32 if kind == torch.bfloat16 else str(kind).removeprefix("torch.")
    array = np.array(array, dtype=wanted, order="C", copy=not array.flags.writeable or None)
    return torch.from_numpy(array).to(kind), names


_LABELS = (
    "number the classes with np.unique(y, return_inverse=True)[1], or give the table to "
    "NetworkClassifier, which takes labels as they are"
)


def _inputs(X: Any, types: Types, name: str) -> tuple[Inputs, list[str]]:
    where = "X" if name == "data" else f"{name} X"
    whole = types.whole_inputs
    if isinstance(X, tuple | Mapping) and not X:
        raise DataError(f"{where} has no inputs")
    if isinstance(X, tuple):
        return tuple(_tensor(x, types.floats, whole, where)[0] for x in X), []
    if isinstance(X, Mapping):
        return {
            str(k): _tensor(x, types.floats, whole, f"{where} {k!r}")[0] for k, x in X.items()
        }, []
    return _tensor(X, types.floats, whole, where)


def _are_inputs(X: Any, y: Any) -> bool:
    """Whether a list holds several inputs of as many rows as y has, rather than the rows."""
    if not isinstance(X, list) or not hasattr(y, "__len__") or len(X) == len(y):
        return False
    arrays = [x for x in X if isinstance(x, Tensor | np.ndarray) and x.ndim > 0]
    return bool(X) and len(arrays) == len(X) and all(len(x) == len(y) for x in arrays)


def _answers(y: Any, types: Types, name: str) -> Inputs:
    where = "y" if name == "data" else f"{name} y"
    if isinstance(y, tuple):
        return tuple(_tensor(one, types.floats, types.classes, where)[0] for one in y)
    if isinstance(y, Mapping):
        return {str(k): _tensor(x, types.floats, types.classes, where)[0] for k, x in y.items()}
    return _tensor(y, types.floats, types.classes, where)[0]


def _weights(w: Any, types: Types, name: str) -> Tensor:
    values = _tensor(w, types.floats, False, "w")[0].to(types.floats)
    if values.dim() != 1:
        raise DataError(
            f"the third part of {name} has shape {tuple(values.shape)}; it is read as row weights "
            "(N,). Several inputs go as ((X1, X2), y)"
        )
    return values


def _check_lengths(rows: Rows, name: str) -> None:
    parts = [("X", x) for x in every(rows.X)] + [("y", y) for y in every(rows.y)]
    if rows.w is not None:
        parts.append(("w", rows.w))
    for what, one in parts:
        if one.dim() == 0:
            raise DataError(f"{name}: {what} is one number, {float(one):g}; it has to have rows")
    n = len(first(rows.X))
    if n == 0:
        raise DataError(f"{name} has no rows")
    for what, one in parts:
        if len(one) != n:
            raise DataError(
                f"{name}: X has {n} rows and {what if what != 'X' else 'another input'} has "
                f"{len(one)} rows; they have to match"
            )


def _weighted(rows: Rows, name: str) -> Rows:
    """Rows of weight 0 gone, the others' weights of mean 1."""
    w = rows.w
    assert w is not None  # noqa: S101  only called with weights
    bad = (~torch.isfinite(w) | (w < 0)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{name}: the weight of row {row + 1} is {float(w[row]):g}; weights have to be numbers "
            "of at least 0"
        )
    counted = w > 0
    if not counted.any():
        raise DataError(f"{name}: all weights are 0, which leaves no rows")
    if not counted.all():
        rows, w = Rows(take(rows.X, counted), take(rows.y, counted)), w[counted]
    return replace(rows, w=w / w.mean())


def _in_memory(data: Dataset[Any]) -> tuple[Any, ...] | None:
    """The tensors of a `TensorDataset`, or of a part of one, where they are rows already."""
    if isinstance(data, Subset):
        whole = _in_memory(data.dataset)
        rows = torch.as_tensor(data.indices)
        return None if whole is None else tuple(tensor[rows] for tensor in whole)
    if type(data) is not TensorDataset:
        return None
    n = len(data.tensors)
    if n > 3 or (
        n == 3 and not (data.tensors[2].is_floating_point() and data.tensors[2].dim() == 1)
    ):
        raise DataError(
            f"the TensorDataset has {n} tensors; two are read as (X, y), and three as (X, y, w) "
            "with floating row weights (N,). Several inputs go as ((X1, X2), y)"
        )
    return data.tensors
