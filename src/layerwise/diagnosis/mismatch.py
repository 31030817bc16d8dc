"""Findings on outputs and targets that do not go together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layerwise.diagnosis.case import CLASSES, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.words import listed, loss_name
from layerwise.network.walk import shape


def labels_finding(case: Case, outputs: Any, y: Any, last: str) -> Finding:
    """Labels that the model has no output for."""
    y = case.y if isinstance(case.y, Tensor) and case.y.dim() == 1 else y
    if not isinstance(y, Tensor) or not y.numel():
        return finding(
            "error", "y", "Some labels have no output.", healthy="labels 0 .. C-1",
            why="A class index points at an output.", mend="y - y.min(), or more outputs",
        )  # fmt: skip
    known = y[y != getattr(case.loss, "ignore_index", -100)]
    low, high = int(known.min()), int(known.max())
    if isinstance(outputs, Tensor):
        C = outputs.shape[1] if outputs.dim() > 1 else 1
    else:
        C = getattr(dict(case.model.named_modules()).get(last), "out_features", 1)
    where, n = "y", len(known.unique())
    if C == 1:
        where = last
        mend = f"nn.BCEWithLogitsLoss() with y.float().unsqueeze(1), or {max(n, 2)} outputs"
    elif low == -1 and high == 1 and n == 2:
        mend = "y = (y + 1) // 2"
    elif low > 0 and high - low < C:
        mend = f"y = y - {low}"
    elif low < 0:
        mend = f"number the classes 0 .. {n - 1}, or ignore_index={low} if those are gaps"
    else:
        where, mend = last, f"widen '{last}' to {high + 1} outputs"
        if high + 1 > 2 * n and n <= C:
            where, mend = "y", f"number the {n} classes 0 .. {n - 1}: torch.unique(y, "
            mend += "return_inverse=True)[1]"
    return finding(
        "error", where,
        f"Labels run from {low} to {high}, but the last layer '{last}' has {C} "
        f"output{'s' * (C != 1)}, so only 0 .. {C - 1} are valid.",
        healthy=f"labels 0 .. {C - 1} for {C} outputs",
        why="A class index points at one of the outputs.",
        mend=mend, lowest=low, highest=high, outputs=C,
    )  # fmt: skip


def shares_finding(y: Tensor, loss: str) -> Finding:
    """Targets outside 0 .. 1 for a loss that takes probabilities."""
    values = y.detach().unique()
    low, high = float(values.min()), float(values.max())
    if len(values) > 2:
        return replace(
            finding(
                "error", "loss",
                f"y runs from {low:.3g} to {high:.3g} with {len(values)} different values; {loss} "
                "compares probabilities.",
                healthy="targets 0 and 1, or shares between them",
                why="Outside 0 .. 1 this loss falls without bound as the outputs grow.",
                mend="nn.MSELoss() if y holds amounts, nn.CrossEntropyLoss() if it holds classes",
                lowest=low, highest=high, distinct=len(values),
            ),
            rule="loss-task-mismatch",
        )  # fmt: skip
    mend = "y = (y + 1) / 2" if (low, high) == (-1, 1) else f"y = (y - {low:g}) / {high - low:g}"
    return finding(
        "error", "y",
        f"y holds {low:g} and {high:g}, but {loss} takes only 0 .. 1.",
        healthy="the two classes as 0 and 1",
        why="Outside 0 .. 1 this loss falls without bound as the outputs grow.",
        mend=mend if high > low else "y = y - y.min()", lowest=low, highest=high,
    )  # fmt: skip


def shape_finding(case: Case, outputs: Tensor, y: Tensor, last: str) -> Finding:
    """Outputs and targets of different shapes."""
    a, b, where = shape(outputs), shape(y), "y"
    wide = _stretched(outputs, y)
    n, X = len(outputs), case.X
    if outputs.shape[:1] != y.shape[:1]:
        rows = len(X) if isinstance(X, Tensor) and X.dim() else n
        where = "forward" if rows == len(y) else "y"
        mend = (
            "keep dimension 0, the rows, as it is in every reshape" if where == "forward"
            else "take X and y from the same rows: the same slice, the same batch"
        )  # fmt: skip
    elif outputs.dim() == y.dim() + 1 and outputs.shape[-1] == 1:
        mend = "y = y.unsqueeze(1), or outputs.squeeze(1) before the loss"
    elif y.dim() == outputs.dim() + 1 and y.shape[-1] == 1:
        mend = "y = y.squeeze(1), or outputs.unsqueeze(1) before the loss"
    elif y.dim() == 2 and y.shape[1] == 1 and case.kind in CLASSES:
        mend = "y = y.squeeze(1)"
    else:
        wanted = y.shape[1] if y.dim() > 1 else 1
        mend = f"give '{last}' {wanted} output{'s' * (wanted != 1)}"
        mend += "" if y.dim() > 1 else ", and y = y.unsqueeze(1)"
    if wide is None:
        seen, why = f"Predictions have shape {a}, targets {b}.", "They cannot be compared."
    else:
        seen = (
            f"Predictions have shape {a}, targets {b}; PyTorch stretches both to {wide} and "
            "compares every prediction with every target."
        )
        why = "The best such a model can do is predict the mean."
    if case.kind in CLASSES:
        seen = f"Predictions have shape {a}, targets {b}."
        why = f"{loss_name(case.loss)} takes one class index for each row."
    return finding(
        "error", where, seen, healthy="the same shape on both sides" if case.kind not in CLASSES
        else f"targets of shape ({n},)", why=why, mend=mend, outputs=a, targets=b,
    )  # fmt: skip


def _stretched(outputs: Tensor, y: Tensor) -> str | None:
    try:
        return str(tuple(torch.broadcast_shapes(outputs.shape, y.shape)))
    except RuntimeError:
        return None


def all_frozen(case: Case) -> Finding:
    """A model of which nothing can learn."""
    names = [name for name, m in case.layers if any(True for _ in m.parameters(recurse=False))]
    where = names[0] if names else "optimizer"
    return finding(
        "error", where,
        f"All parameters are frozen (requires_grad=False): {listed(names)}.",
        healthy="requires_grad=True for what is to learn",
        why="Nothing can learn.",
        mend="model.requires_grad_(True), and an optimizer made after that",
        layers=", ".join(names),
    )  # fmt: skip
