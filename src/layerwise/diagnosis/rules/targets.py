"""The targets: shape, type, classes and kind, against outputs and loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from layerwise.diagnosis.calls import LossCall
from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES
from layerwise.diagnosis.compared import targets_of
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.mismatch import labels_finding, shape_finding, shares_finding
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.words import loss_name


@rule("target-shape-broadcast", stage="first_batch")
def target_shape_broadcast(seen: FirstBatch) -> Iterator[Finding]:
    """Outputs and targets that PyTorch stretches to compare all with all."""
    X, y = seen.case.X, seen.case.y
    tables = isinstance(X, Tensor) and isinstance(y, Tensor) and X.dim() and y.dim()
    if tables and len(X) != len(y):
        yield finding(
            "error", "y",
            f"X has {len(X)} rows and y has {len(y)}.",
            healthy="one target for each row",
            why="Rows without their own targets are compared with others'.",
            mend="take X and y from the same rows", rows=len(X), targets=len(y),
        )  # fmt: skip
        return
    for call in seen.calls:
        outputs, target = call.outputs, call.target
        if call.kind not in AMOUNTS or seen.y_mended or outputs.shape == target.shape:
            continue
        if not outputs.dim() or not target.dim():
            continue
        try:
            wide = torch.broadcast_shapes(outputs.shape, target.shape)
        except RuntimeError:
            continue
        if wide.numel() > max(outputs.numel(), target.numel()) or outputs.numel() != target.numel():
            yield shape_finding(seen.case, outputs, target, seen.last_layer)
            return
    made, given = seen.outputs, seen.y
    if seen.calls or seen.losses.stretched is None or made is None or not made.dim():
        return
    if isinstance(given, Tensor) and made.shape != given.shape:
        yield shape_finding(seen.case, made, given, seen.last_layer)


@rule("labels-vs-outputs", stage="first_batch")
def labels_vs_outputs(seen: FirstBatch) -> Iterator[Finding]:
    """Class indices without an output, and two classes that are not 0 and 1."""
    if seen.y_invented:
        return
    for call in seen.calls:
        y = seen.case.y if seen.y_mended else targets_of(seen, call)
        if not isinstance(y, Tensor) or not y.numel():
            continue
        if call.kind in BINARY:
            finite = y[torch.isfinite(y.double())]
            if len(finite) and bool(((finite < 0) | (finite > 1)).any()):
                yield shares_finding(finite, loss_name(call.kind))
            continue
        if call.kind not in CLASSES or y.is_floating_point() or call.outputs.dim() != 2:
            continue
        known = y[y != call.options.get("ignore_index", -100)]
        if y.dim() > 1 or not len(known):
            continue
        C, low, high = call.outputs.shape[1], int(known.min()), int(known.max())
        if low < 0 or high >= C:
            yield labels_finding(seen.case, call.outputs, y, seen.last_layer)
        elif C > 3 and high + 1 < C / 2:
            yield finding(
                "note", seen.last_layer,
                f"The last layer has {C} outputs, and the labels use only {low} .. {high}.",
                healthy=f"{high + 1} outputs",
                why="Outputs without rows only take probability from the others.",
                mend=f"{high + 1} outputs at '{seen.last_layer}'", outputs=C, highest=high,
            )  # fmt: skip


@rule("loss-task-mismatch", stage="first_batch")
def loss_task_mismatch(seen: FirstBatch) -> Iterator[Finding]:
    """A loss for amounts on class names, and losses that are constant."""
    if seen.y_invented:
        return
    for call in seen.calls:
        y = targets_of(seen, call)
        if not call.outputs.dim():
            continue
        one = call.outputs.dim() == 1 or call.outputs.shape[-1] == 1
        if call.kind == "cross_entropy" and call.outputs.dim() == 2 and one:
            if y.is_floating_point():
                yield finding(
                    "error", "loss",
                    "With one output CrossEntropyLoss is always 0, so nothing can be learned.",
                    healthy="one output for each class",
                    why="The softmax of a single score is 1, whatever the score.",
                    mend="nn.BCEWithLogitsLoss() for two classes, nn.MSELoss() for amounts",
                    outputs=1,
                )  # fmt: skip
        elif call.kind in AMOUNTS and one and not seen.y_mended:
            yield from _names_as_numbers(seen, call, y)


def _names_as_numbers(seen: FirstBatch, call: LossCall, y: Tensor) -> Iterator[Finding]:
    values = y.flatten().double()
    if not len(values) or not bool((values == values.round()).all()):
        return
    kinds, counts = values.unique(return_counts=True)
    K, low = len(kinds), int(kinds[0])
    if K == 2 and low == 0 and seen.step_behind(call.outputs).operation == "Sigmoid":
        yield finding(
            "note", "loss",
            f"{loss_name(call.kind)} after a sigmoid on targets 0 and 1.",
            healthy="nn.BCEWithLogitsLoss() on the raw score",
            why="Its gradient fades where the answer is surely wrong.",
            mend="nn.BCEWithLogitsLoss() without the sigmoid",
        )  # fmt: skip
    even = bool((counts.double() / len(values) > 0.2 / K).all())
    if 3 <= K <= 30 and low in (0, 1) and int(kinds[-1]) == low + K - 1 and even:
        yield finding(
            "warning", "loss",
            f"y holds {K} different whole numbers, {low} .. {low + K - 1}. If these are names of "
            f"classes, squared error would treat class {low + K - 1} as far from class {low}.",
            healthy="a loss for classes, if they are classes",
            why="Names have no distances.",
            mend=f"names: nn.CrossEntropyLoss() with {K} outputs"
            + (" and y - 1" if low else "") + "; amounts: leave it",
            classes=K,
        )  # fmt: skip


@rule("dtype-mismatch", stage="first_batch")
def dtype_mismatch(seen: FirstBatch) -> Iterator[Finding]:
    """Targets of another float type than the outputs, which PyTorch promotes."""
    if seen.y_invented or seen.y_mended:
        return
    for call in seen.calls:
        y, outputs = call.target, call.outputs
        if call.kind in ("cross_entropy", "nll_loss") or not y.is_floating_point():
            continue
        if y.dtype != outputs.dtype and not seen.troubles:
            yield finding(
                "note", "y",
                f"y has type {str(y.dtype)[6:]}, the outputs {str(outputs.dtype)[6:]}.",
                healthy="the same type", why="PyTorch promotes it, which only costs time.",
                mend="y = y.to(outputs.dtype)", got=str(y.dtype)[6:],
            )  # fmt: skip
