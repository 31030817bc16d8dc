"""The head of the network, its loss and the targets: do the three go together?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from layerwise.diagnosis.calls import LossCall
from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.graph import Step
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.translate import labels_finding, shape_finding, shares_finding
from layerwise.diagnosis.words import loss_name, share_of

_CUTTING = frozenset((
    "Relu", "Tanh", "Hardtanh", "Clamp", "Sigmoid", "Softmax", "Hardsigmoid", "Softplus",
    "LogSigmoid", "Threshold", "Abs",
))  # fmt: skip
_BENDING = frozenset(("LeakyRelu", "PreluKernel", "Elu", "Celu", "Gelu", "Silu", "Mish"))
_ROUND = 1e-4


def _sums_to_one(outputs: Tensor) -> bool:
    """Whether every row is a distribution over two or more classes."""
    if outputs.dim() < 2 or outputs.shape[1] < 2 or not outputs.numel():
        return False
    values = outputs.detach().double()
    inside = bool(((values >= 0) & (values <= 1)).all())
    return inside and bool(((values.sum(dim=1) - 1).abs() < _ROUND).all())


@rule("softmax-before-ce", stage="first_batch")
def softmax_before_ce(seen: FirstBatch) -> Iterator[Finding]:
    """Softmax in the model, and again in CrossEntropyLoss (Karpathy's fourth mistake)."""
    for call in seen.calls:
        if call.kind != "cross_entropy" or call.outputs.dim() < 2:
            continue
        step, C = seen.step_behind(call.outputs), call.outputs.shape[1]
        if C < 2:
            continue
        if step.operation == "LogSoftmax":
            yield finding(
                "note", step.where,
                f"The model ends with log-softmax ('{step.where}'), and CrossEntropyLoss applies "
                "it again.",
                healthy="raw scores, or NLLLoss after log-softmax",
                why="Twice is the same as once, so nothing is lost but clarity.",
                mend="leave the log-softmax out, or take nn.NLLLoss()",
            )  # fmt: skip
        elif step.operation == "Softmax" or _sums_to_one(call.outputs):
            floor = math.log(1 + (C - 1) / math.e)
            yield finding(
                "error", step.where,
                f"The model ends with softmax ('{step.where}'), but CrossEntropyLoss applies "
                "softmax itself.",
                healthy="raw scores (logits) for CrossEntropyLoss",
                why="Applied twice, gradients become tiny and the loss cannot fall below "
                f"{floor:.2f}.",
                mend=f"remove the softmax at '{step.where}'; apply it only to read predictions",
                classes=C, floor=floor,
            )  # fmt: skip


@rule("sigmoid-before-bce-logits", stage="first_batch")
def sigmoid_before_bce_logits(seen: FirstBatch) -> Iterator[Finding]:
    """Sigmoid in the model, and again in BCEWithLogitsLoss."""
    for call in seen.calls:
        if call.kind != "binary_cross_entropy_with_logits":
            continue
        step = seen.step_behind(call.outputs)
        if step.operation == "Sigmoid":
            yield finding(
                "error", step.where,
                f"Sigmoid is applied twice: by '{step.where}' and by BCEWithLogitsLoss.",
                healthy="raw scores (logits) for BCEWithLogitsLoss",
                why="The model can only say probabilities between 0.50 and 0.73.",
                mend="remove the sigmoid, or use nn.BCELoss() with it",
            )  # fmt: skip


@rule("missing-final-activation", stage="first_batch")
def missing_final_activation(seen: FirstBatch) -> Iterator[Finding]:
    """Raw scores for a loss that takes (log-)probabilities."""
    for call in seen.calls:
        outputs = call.outputs.detach()
        if not outputs.numel() or not outputs.is_floating_point():
            continue
        step = seen.step_behind(call.outputs)
        low, high = float(outputs.min()), float(outputs.max())
        told = f"({low:.2g} .. {high:.2g})"
        if call.kind == "binary_cross_entropy":
            if (low < 0 or high > 1) or step.operation in ("Addmm", "Mm"):
                yield _missing(
                    step, "BCELoss", "probabilities", "raw scores", told, low, high,
                    "nn.BCEWithLogitsLoss() on the raw scores, or nn.Sigmoid() last",
                )  # fmt: skip
        elif call.kind == "nll_loss" and outputs.dim() > 1:
            off = outputs.double().logsumexp(dim=1).abs()
            other_way = step.operation == "LogSoftmax"  # over the wrong dimension
            if bool((off > 1e-3).any()) and outputs.shape[1] > 1 and not other_way:
                plain = _sums_to_one(outputs)
                yield _missing(
                    step, "NLLLoss", "log-probabilities",
                    "plain probabilities" if plain else "raw scores", told, low, high,
                    "nn.LogSoftmax(dim=1) instead of the softmax" if plain
                    else "nn.CrossEntropyLoss() on the raw scores, or nn.LogSoftmax(dim=1) last",
                )  # fmt: skip


def _missing(
    step: Step, loss: str, wants: str, gets: str, told: str, low: float, high: float, mend: str
) -> Finding:
    return finding(
        "error", step.where,
        f"{loss} expects {wants}, but '{step.where}' gives {gets} {told}.",
        healthy=wants, mend=mend, lowest=low, highest=high,
        why=f"{loss} does not make {wants} itself, so it compares other numbers than were meant.",
    )  # fmt: skip


@rule("activation-on-logits", stage="first_batch")
def activation_on_logits(seen: FirstBatch) -> Iterator[Finding]:
    """An activation between the last layer and a loss that wants free scores."""
    for call in seen.calls:
        if call.kind not in ("cross_entropy", "binary_cross_entropy_with_logits"):
            continue
        step = seen.step_behind(call.outputs)
        own = "Softmax" if call.kind == "cross_entropy" else "Sigmoid"
        name = loss_name(call.kind)
        if step.operation in _BENDING:
            yield finding(
                "note", step.where,
                f"The scores handed to {name} pass through '{step.where}' last.",
                healthy="the last layer's own values",
                why="It bends the scores on one side, which rarely helps.",
                mend="remove the last activation",
            )  # fmt: skip
        elif step.operation in _CUTTING and step.operation != own:
            if own == "Softmax" and _sums_to_one(call.outputs):
                continue
            low, high = step.limits
            if math.isinf(low) and math.isinf(high):
                continue
            yield finding(
                "error", step.where,
                f"The scores handed to {name} must be free to be negative or large; "
                f"'{step.where}' limits them to {low:g} .. {high:g}.",
                healthy="the last layer's own values",
                why="Limited scores can never be sure, or never say no.",
                mend="remove the last activation", lowest=low, highest=high,
            )  # fmt: skip


@rule("softmax-axis", stage="first_batch")
def softmax_axis(seen: FirstBatch) -> Iterator[Finding]:
    """Softmax down the batch, or over one single column."""
    looked: list[Tensor | None] = [call.outputs for call in seen.calls] or [seen.outputs]
    for outputs in looked:
        if outputs is None or outputs.grad_fn is None:
            continue
        step = seen.step_behind(outputs)
        if step.operation not in ("Softmax", "LogSoftmax"):
            continue
        result, dim = step.node._saved_result, _signed(step.node._saved_dim)
        dim = dim % result.dim()
        if result.shape[dim] == 1:
            yield finding(
                "error", step.where,
                "Softmax over a single output is always 1.",
                healthy="sigmoid for one output, softmax for several",
                why="A constant answer has no gradient, so nothing is learnt.",
                mend="nn.Sigmoid() with nn.BCELoss(), or nn.BCEWithLogitsLoss() on the raw score",
                dim=dim, outputs=1,
            )  # fmt: skip
        elif dim == 0 and len(result) == len(outputs) > 1:
            yield finding(
                "error", step.where,
                f"Softmax at '{step.where}' runs down the batch (dim=0), so each row's answer "
                "depends on the other rows.",
                healthy="dim=1: the classes of one row sum to 1",
                why="The same row gets another answer in another batch.",
                mend="nn.Softmax(dim=1), or nn.LogSoftmax(dim=1)", dim=0,
            )  # fmt: skip


def _signed(number: int) -> int:
    """Autograd keeps a negative dimension as a number without sign."""
    return number - 2**64 if number >= 2**63 else number


@rule("output-range", stage="first_batch")
def output_range(seen: FirstBatch) -> Iterator[Finding]:
    """A last activation that cannot give the targets."""
    for call in seen.calls:
        if call.kind not in AMOUNTS or seen.y_invented or not call.target.numel():
            continue
        step = seen.step_behind(call.outputs)
        low, high = step.limits
        if math.isinf(low) and math.isinf(high):
            continue
        if step.operation == "Softmax" and 1 in call.outputs.shape[1:]:
            continue  # its own rule says why it is constant
        y = targets_of(seen, call).double()
        y = y[torch.isfinite(y)]
        slack = 1e-6 * max(1.0, float(y.abs().max()))
        outside = float(((y < low - slack) | (y > high + slack)).double().mean())
        if outside > 0.01:
            yield finding(
                "error", step.where,
                f"'{step.where}' can only give {low:g} .. {high:g}, but {share_of(outside)} of the "
                f"targets lie outside ({float(y.min()):.3g} .. {float(y.max()):.3g}).",
                healthy="a last layer without activation, or targets within its range",
                why="What the output cannot reach it cannot learn.",
                mend="remove the last activation, or scale y into the range",
                lowest=low, highest=high, outside=outside,
            )  # fmt: skip
        elif step.operation == "Relu":
            yield finding(
                "note", step.where,
                f"'{step.where}' ends the network with ReLU; the targets are never below 0.",
                healthy="a last layer without activation, or softplus",
                why="A row whose score is below 0 sends no gradient back.",
                mend="nn.Softplus() if the answers must not be negative",
            )  # fmt: skip


def targets_of(seen: FirstBatch, call: LossCall) -> Tensor:
    """All targets there are, if the loss compares them as they are; else those of the call."""
    y = seen.case.y
    if isinstance(y, Tensor) and isinstance(seen.y, Tensor) and not seen.y_mended:
        a, b = call.target.detach().flatten().double(), seen.y.flatten().double()
        if a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, equal_nan=True):
            return y.detach()
    return call.target.detach()


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
        try:
            wide = torch.broadcast_shapes(outputs.shape, target.shape)
        except RuntimeError:
            continue
        if wide.numel() > max(outputs.numel(), target.numel()) or outputs.numel() != target.numel():
            yield shape_finding(seen.case, outputs, target, seen.last_layer)
            return
    made, given = seen.outputs, seen.y
    if seen.calls or seen.losses.stretched is None or made is None:
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


@rule("loss-reduction", stage="static")
def loss_reduction(case: Case) -> Iterator[Finding]:
    """A loss that is added up over the batch, or not reduced at all."""
    reduction = getattr(case.loss, "reduction", None)
    if not isinstance(case.loss, nn.Module):
        return
    if reduction == "none":
        yield finding(
            "note", "loss",
            "The loss keeps one number for each row (reduction='none').",
            healthy="one number at backward()",
            why="backward() needs one number.",
            mend="reduction='mean', or average it in the loop", reduction="none",
        )  # fmt: skip
    elif reduction == "sum":
        b = case.batch_size
        plain = [o for o in case.optimizers if isinstance(o, torch.optim.SGD)]
        rate = max((g["lr"] for o in plain for g in o.param_groups), default=0.0)
        rows = b or 0
        times = f"{b} times" if b else "as many times as the batch has rows"
        yield finding(
            "warning" if rate * rows > 0.3 else "note", "loss",
            f"The loss is added up over the batch, so each step is {times} larger than with the "
            "mean.",
            healthy="reduction='mean'",
            why="The rate then depends on the batch size, and the last, smaller batch steps less.",
            mend=f"reduction='mean', or divide the rate by {b or 'the batch size'}",
            reduction="sum", batch_size=rows, lr=float(rate), limit=0.3,
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
