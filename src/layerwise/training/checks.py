"""Mistakes met before the first step: network, data and loss that do not fit each other.

What cannot work, or would work on other numbers than were meant, is an error that names the layer
or the row, both shapes and the mend. What would train, and surely not as meant, is in doubts.py.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.engine.loss import Loss
from layerwise.engine.torch import Rows, take
from layerwise.errors import DataError, NetworkError, SettingError
from layerwise.network.keep import kept
from layerwise.network.mistakes import explain
from layerwise.network.walk import shape, walk, words
from layerwise.training.doubts import (
    Pairs,
    head_doubts,
    linear_doubts,
    mixing_doubts,
    scale_doubts,
    target_doubts,
)
from layerwise.training.fit import not_finite
from layerwise.training.losses import CLASSES, ELEMENTWISE, kind_of
from layerwise.training.source import detached, embeds, every

_SAMPLE = 8  # rows are enough to see shapes and types
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")


def check_model(model: Any) -> None:
    """Refuse what is no module that can be looked into.

    Raises
    ------
    SettingError
    """
    if inspect.isclass(model):
        raise SettingError(f"model is the class {model.__name__}; give an instance")
    if not isinstance(model, nn.Module):
        raise SettingError(f"model has to be an nn.Module; got {type(model).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise SettingError("a scripted module cannot be looked into; give the one it was made of")


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
    for what, values, columns in (("X", rows.X, names), ("y", rows.y, ())):
        cell = not_finite(values)
        if cell is None:
            continue
        row, column, value = cell
        where = f"{which}{what}, row {row + 1}"
        if column is not None:
            named = repr(columns[column]) if column < len(columns) else str(column)
            where += f", column {named}"
        raise DataError(
            f"{where} has {value}; fill or leave out such rows: one makes every weight nan"
        )


def check_batch(
    model: nn.Module,
    rows: Rows,
    loss: Any,
    compute: Loss,
    names: Sequence[str] = (),
    *,
    whole: bool = False,
) -> list[str]:
    """Run some rows through model and loss, and say in words what does not fit.

    Parameters
    ----------
    model : left as it was
    rows : on the model's device; all there are, or a batch of them
    loss : as the user gave it, whose kind says what y has to be
    compute : the same loss as a function of (outputs, y, w)
    names : of the columns of X
    whole : run all of the rows, for a loader whose batches a model may be made for

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
    part = slice(None) if whole else _sample(model, rows)
    X, y = detached(rows.X), detached(rows.y)
    few, some = take(X, part), take(y, part)
    w = None if rows.w is None else rows.w[part]
    kind = kind_of(loss)
    with kept(model), torch.enable_grad():
        model.eval()
        found = walk(model, few)
        if found.error is not None:
            # What a layer raises is told in full; in the model's own code the line counts.
            raise NetworkError(explain(found)) from (None if found.failed else found.error)
        outputs = found.outputs
        doubts: list[str] = []
        if isinstance(outputs, Tensor) and isinstance(y, Tensor):
            _check_target(kind, outputs, some, y, getattr(loss, "ignore_index", -100))  # type: ignore[arg-type]
            doubts = [*head_doubts(kind, found, y), *target_doubts(kind, y)]
        doubts += _check_loss(model, outputs, some, w, loss, compute)
        doubts += [*linear_doubts(found), *scale_doubts(found, few, X, names)]
        return [*doubts, *mixing_doubts(model, found, few)]


def _sample(model: nn.Module, rows: Rows) -> Tensor:
    """The first rows, and for embeddings those with the lowest and highest codes."""
    chosen = torch.arange(min(_SAMPLE, len(rows)), device=rows.device)
    if embeds(model):
        for x in every(rows.X):
            codes = x.reshape(len(x), -1).double()
            if codes.shape[1] > 32:  # tokens of one vocabulary rather than columns
                codes = torch.stack([codes.amin(dim=1), codes.amax(dim=1)], dim=1)
            chosen = torch.cat([chosen, codes.argmin(dim=0), codes.argmax(dim=0)])
    return chosen.unique()


def _check_target(kind: str, outputs: Tensor, y: Tensor, all_y: Tensor, ignore: int) -> None:
    known = kind in (*ELEMENTWISE.values(), *CLASSES.values())
    if outputs.shape[:1] != y.shape[:1] and (known or outputs.dim()):
        made = f"{len(outputs)} rows" if outputs.dim() else "one number"
        raise NetworkError(
            f"the network makes {made} of {len(y)} rows, shape {shape(outputs)}: keep dimension "
            "0, the rows, as it is in every reshape, squeeze and mean"
        )
    if kind in ELEMENTWISE.values():
        _check_same_shape(outputs, y)
        _check_float(kind, outputs, y)
        if kind in _BINARY:
            _check_zero_to_one(kind, outputs, all_y)
    elif kind in CLASSES.values():
        _check_classes(kind, outputs, y, all_y, ignore)


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
    # The others bring integers and other floats to the outputs' type.
    if kind not in (*_BINARY, "huber_loss") or y.dtype == outputs.dtype:
        return
    raise NetworkError(
        f"y is {_type(y)} and the network gives {_type(outputs)}, which {kind} does not compare: "
        f"pass y.to(torch.{_type(outputs)})"
    )


def _check_zero_to_one(kind: str, outputs: Tensor, y: Tensor) -> None:
    out = ((y < 0) | (y > 1)).nonzero()
    if len(out):
        place = tuple(out[0].tolist())
        raise DataError(
            f"y, row {place[0] + 1} has {float(y[place]):g}; {kind} takes 0 and 1, or probabilities"
        )
    if kind == "binary_cross_entropy" and bool(((outputs < 0) | (outputs > 1)).any()):
        raise NetworkError(
            f"BCELoss takes probabilities and the network gives {outputs.min().item():.3g} to "
            f"{outputs.max().item():.3g}: take nn.BCEWithLogitsLoss(), which has the sigmoid inside"
        )


def _check_classes(kind: str, outputs: Tensor, y: Tensor, all_y: Tensor, ignore: int) -> None:
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
        mend = "y.argmax(1)" if same else "y.long(), or y.astype(int) of an array"
        raise NetworkError(
            f"y is {_type(y)} of shape {_n(y)}, {told}; {name} takes {indices}: {mend}"
        )
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
    bad = (((all_y >= n_classes) | (all_y < 0)) & (all_y != ignore)).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        raise DataError(
            f"y, row {row + 1} is class {int(all_y[tuple(bad[0])])}, and the network has outputs "
            f"for the classes 0 to {n_classes - 1}: give its last layer an output for each class, "
            "and number them from 0"
        )


def _check_loss(
    model: nn.Module, outputs: Any, y: Any, w: Tensor | None, loss: Any, compute: Loss
) -> list[str]:
    """The loss itself and its gradients; whatever they raise gets both shapes."""
    pairs = Pairs()
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        with warnings.catch_warnings(), pairs:
            # PyTorch only warns of a target that it stretches; that is never meant.
            warnings.filterwarnings("error", message="Using a target size")
            value = compute(outputs, y, w)
    except NetworkError:
        raise
    except Exception as error:
        raise _refused(f"the loss {_name(loss)} refuses", outputs, y, error) from error
    if value.dim() != 0:
        raise NetworkError(f"the loss gives shape {shape(value)}; it has to be one number")
    if not value.requires_grad or not learning:
        raise NetworkError(
            "the loss does not depend on any weight that could learn: parameters are frozen "
            "(requires_grad=False), or a detach() or no_grad() is on the way"
        )
    try:
        torch.autograd.grad(value, learning, allow_unused=True)
    except Exception as error:
        raise _refused("the backward pass fails for", outputs, y, error) from error
    return pairs.doubts


def _refused(what: str, outputs: Any, y: Any, error: Exception) -> NetworkError:
    said = str(error).strip().partition("\n")[0]
    return NetworkError(f"{what} outputs {_told(outputs)} and y {_told(y)}: {said}")


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
    own = {id(p) for p in model.parameters()}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not own & held:
        raise NetworkError(
            "the optimizer holds none of this model's parameters, so nothing would learn: make it "
            "from model.parameters() of this very model"
        )


def optimizer_doubts(model: nn.Module, loss: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """An optimizer that lacks parameters of the model and holds others in their place."""
    inside = [*model.parameters(), *(loss.parameters() if isinstance(loss, nn.Module) else ())]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    strange = held - {id(p) for p in inside}
    missing = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if not strange or not missing:
        return []
    return [
        f"the optimizer holds {len(strange)} parameters that are not the model's and lacks "
        f"{len(missing)} that are, such as {missing[0]!r}: make it after the last layer is in place"
    ]


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
