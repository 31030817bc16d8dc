"""Mistakes met before the first step: network, data and loss that do not fit each other.

What cannot work, or would work on other numbers than were meant, is an error that names the layer
or the row, both shapes and the mend. What would train, and surely not as meant, is in doubts.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import Loss
from layerwise.engine.torch import Rows, take
from layerwise.errors import DataError, NetworkError
from layerwise.network.keep import kept
from layerwise.network.mistakes import explain
from layerwise.network.walk import shape, walk, words
from layerwise.training.doubts import Pairs, head_doubts, linear_doubts, scale_doubts, target_doubts
from layerwise.training.fit import not_finite
from layerwise.training.losses import CLASSES, ELEMENTWISE, kind_of

_SAMPLE = 8  # rows are enough to see shapes and types
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")


def check_rows(rows: Rows, names: Sequence[str] = (), which: str = "") -> None:
    """Refuse rows with NaN or infinity, naming the first such cell.

    Parameters
    ----------
    rows : in memory
    names : of the columns of X
    which : "valid " for validation rows, in messages

    Raises
    ------
    DataError
    """
    for what, values in (("X", rows.X), ("y", rows.y)):
        cell = not_finite(values)
        if cell is None:
            continue
        row, column, value = cell
        where = f"{which}{what}, row {row + 1}"
        if column is not None:
            where += f", column {names[column]!r}" if column < len(names) else f", column {column}"
        raise DataError(
            f"{where} has {value}; fill or leave out such rows: one makes every weight nan"
        )


def check_batch(
    model: nn.Module,
    rows: Rows,
    loss: Any,
    compute: Loss,
    names: Sequence[str] = (),
) -> list[str]:
    """Run some rows through model and loss, and say in words what does not fit.

    Parameters
    ----------
    model : left as it was
    rows : on the model's device; all there are, or a batch of them
    loss : as the user gave it, whose kind says what y has to be
    compute : the same loss as a function of (outputs, y, w)
    names : of the columns of X

    Returns
    -------
    Sentences on what would train, and surely not as meant.

    Raises
    ------
    NetworkError
        For shapes and types that do not fit, naming the layer and both shapes.
    DataError
        For classes that the network has no output for.
    """
    part = slice(0, _SAMPLE)
    few, some, y = take(rows.X, part), take(rows.y, part), rows.y
    w = None if rows.w is None else rows.w[part]
    with kept(model), torch.enable_grad():
        model.eval()
        found = walk(model, few)
        if found.error is not None:
            raise NetworkError(explain(found)) from None
        kind = kind_of(loss)
        outputs = found.outputs
        known = isinstance(outputs, Tensor) and isinstance(y, Tensor)
        if known:
            _check_target(kind, outputs, some, y)  # type: ignore[arg-type]
        stretched = _check_loss(outputs, some, w, loss, compute)
        doubts = [*head_doubts(kind, found), *target_doubts(kind, y)] if known else []  # type: ignore[arg-type]
    return [*stretched, *doubts, *linear_doubts(found), *scale_doubts(found, few, rows.X, names)]


def _check_target(kind: str, outputs: Tensor, y: Tensor, all_y: Tensor) -> None:
    if kind in ELEMENTWISE.values():
        _check_same_shape(outputs, y)
        _check_float(kind, outputs, y)
        if kind in _BINARY:
            _check_zero_to_one(kind, outputs, all_y)
    elif kind in CLASSES.values():
        _check_classes(kind, outputs, y, all_y)
    elif len(outputs) != len(y):
        raise NetworkError(
            f"the network makes {len(outputs)} rows of {len(y)}: shape {shape(outputs)}"
        )


def _check_same_shape(outputs: Tensor, y: Tensor) -> None:
    if outputs.shape == y.shape:
        return
    told = f"the network gives {_n(outputs)} and y has {_n(y)}"
    try:
        wide = torch.broadcast_shapes(outputs.shape, y.shape)
    except RuntimeError:
        raise NetworkError(f"{told}; they have to be the same") from None
    mend = "y and outputs need the same shape"
    if outputs.dim() == y.dim() + 1 and outputs.shape[-1] == 1:
        mend = "give y a column, y[:, None], or end the network with nn.Flatten(0)"
    elif y.dim() == outputs.dim() + 1 and y.shape[-1] == 1:
        mend = "take y's column off, y[:, 0]"
    n = len(outputs)
    each = ", ".join("N" if size == n else str(size) for size in wide)
    raise NetworkError(
        f"{told}: the loss would stretch both to ({each}) and compare every row with every other. "
        f"{mend[0].upper()}{mend[1:]}"
    )


def _check_float(kind: str, outputs: Tensor, y: Tensor) -> None:
    # PyTorch brings integers and other floats to the outputs' type for these, and only these.
    if kind in ("mse_loss", "l1_loss", "smooth_l1_loss") or y.dtype == outputs.dtype:
        return
    raise NetworkError(
        f"y is {_type(y)} and the network gives {_type(outputs)}, which {kind} does not compare: "
        f"pass y.to(torch.{_type(outputs)})"
    )


def _check_zero_to_one(kind: str, outputs: Tensor, y: Tensor) -> None:
    out = ((y < 0) | (y > 1)).reshape(len(y), -1).any(dim=1).nonzero()
    if len(out):
        row = int(out[0])
        raise DataError(
            f"y, row {row + 1} is {y[row].flatten()[0]:g}; {kind} takes 0 and 1, or probabilities"
        )
    if kind == "binary_cross_entropy" and bool(((outputs < 0) | (outputs > 1)).any()):
        raise NetworkError(
            f"BCELoss takes probabilities and the network gives {outputs.min().item():.3g} to "
            f"{outputs.max().item():.3g}: take nn.BCEWithLogitsLoss(), which has the sigmoid inside"
        )


def _check_classes(kind: str, outputs: Tensor, y: Tensor, all_y: Tensor) -> None:
    name = {"cross_entropy": "cross-entropy", "nll_loss": "NLLLoss"}[kind]
    indices = f"class indices of shape {_rows_of(outputs)} and type int64"
    if outputs.dim() < 2:
        raise NetworkError(
            f"the network gives {_n(outputs)}; {name} takes one output for each class, (N, classes)"
        )
    n_classes = outputs.shape[1]
    if n_classes == 1:
        raise NetworkError(
            f"the network has one output, of which {name} is always 0: give it an output for each "
            "class, or take nn.BCEWithLogitsLoss() for two classes with one output"
        )
    same = y.shape == outputs.shape
    if y.is_floating_point():
        if same and kind == "cross_entropy":
            return
        told = "probabilities" if same else "class indices as decimals"
        raise NetworkError(f"y is {_type(y)} of shape {_n(y)}, {told}; {name} takes {indices}: "
                           f"{'y.argmax(1)' if same else 'y.long()'}")  # fmt: skip
    if same:
        mend = "y.argmax(1) makes indices"
        mend += ", y.float() makes probabilities of them" if kind == "cross_entropy" else ""
        raise NetworkError(
            f"y is one-hot in whole numbers, {_n(y)}; {name} takes {indices}: {mend}"
        )
    if y.shape != outputs.shape[:1] + outputs.shape[2:]:
        mend = ": y[:, 0]" if y.dim() == 2 and y.shape[1] == 1 and outputs.dim() == 2 else ""
        raise NetworkError(
            f"the network gives {_n(outputs)} and y has {_n(y)}; {name} takes {indices}{mend}"
        )
    if y.dtype != torch.int64:
        raise NetworkError(f"y is {_type(y)}; {name} takes {indices}: y.long()")
    bad = ((all_y >= n_classes) | (all_y < 0) & (all_y != -100)).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        raise DataError(
            f"y, row {row + 1} is class {int(all_y[tuple(bad[0])])}, and the network has outputs "
            f"for the classes 0 to {n_classes - 1}: give its last layer an output for each class, "
            "and number them from 0"
        )


def _check_loss(outputs: Any, y: Any, w: Tensor | None, loss: Any, compute: Loss) -> list[str]:
    """The loss itself on these rows; whatever it raises gets both shapes."""
    pairs = Pairs()
    try:
        with warnings.catch_warnings(), pairs:
            # PyTorch only warns of a target that it stretches; that is never meant.
            warnings.filterwarnings("error", message="Using a target size")
            value = compute(outputs, y, w)
    except NetworkError:
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        shapes = f"outputs {_told(outputs)} and y {_told(y)}"
        raise NetworkError(f"the loss {_name(loss)} refuses {shapes}: {said}") from None
    if value.dim() != 0:
        raise NetworkError(f"the loss gives shape {shape(value)}; it has to be one number")
    if not value.requires_grad:
        raise NetworkError(
            "the loss does not depend on any weight that could learn: parameters are frozen "
            "(requires_grad=False), or a detach() or no_grad() is on the way"
        )
    return pairs.doubts


def check_learns(model: nn.Module) -> None:
    """Refuse a model without a parameter that could learn.

    Raises
    ------
    NetworkError
    """
    if not any(p.requires_grad for p in model.parameters()):
        frozen = any(True for _ in model.parameters())
        raise NetworkError(
            "the model has no parameter that could learn"
            + (": all are frozen (requires_grad=False)" if frozen else "")
        )


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that would leave this model as it is.

    Raises
    ------
    NetworkError
    """
    check_learns(model)
    own = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not own & held:
        raise NetworkError(
            "the optimizer holds none of this model's parameters, so nothing would learn: make it "
            "from model.parameters() of this very model"
        )


# ---------------------------------------------------------------- words


def _n(tensor: Tensor) -> str:
    """A shape with N for the rows."""
    sizes = ["N", *map(str, tensor.shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})" if tensor.dim() else "no shape"


def _rows_of(outputs: Tensor) -> str:
    sizes = ["N", *map(str, outputs.shape[2:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{_n(value)} {_type(value)}"
    return type(value).__name__


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _name(loss: Any) -> str:
    if isinstance(loss, nn.Module):
        return words(loss)
    return str(getattr(loss, "__name__", loss))
