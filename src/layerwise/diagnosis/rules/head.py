"""The head of the network, its loss and the targets: do the three go together?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from layerwise.diagnosis.case import AMOUNTS, Case
from layerwise.diagnosis.compared import targets_of
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.graph import Step
from layerwise.diagnosis.rules import rule
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
