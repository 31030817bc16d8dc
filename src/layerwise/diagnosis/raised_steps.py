"""What PyTorch raises around a step: backward passes, weights, optimizers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.mismatch import all_frozen
from layerwise.diagnosis.translate import Trouble, reads
from layerwise.diagnosis.words import last_linear


@reads("batchnorm-single-row", r"Expected more than 1 value per channel when training")
def _single_row(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    case = trouble.case
    name = trouble.visit.name if trouble.visit is not None else ""
    of = f"'{name}'" if name else "batch norm"
    size = f"batch_size={case.batch_size + 1}" if case.batch_size else "another batch_size"
    yield finding(
        "error", "batch_size",
        f"A batch has one row; {of} needs at least two to take a deviation.",
        healthy="at least two rows in every batch",
        why="The deviation of a single value is 0, so batch norm refuses it.",
        mend=f"DataLoader(..., drop_last=True), or {size}", layer=name,
    )  # fmt: skip


@reads("loss-reduction", r"grad can be implicitly created only for scalar outputs")
def _no_scalar(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "loss",
        "The loss that reaches backward() has one number for each row.",
        healthy="one number",
        why="A gradient is that of one number.",
        mend="reduction='mean', or loss.mean().backward()",
    )  # fmt: skip


@reads("frozen-parameters", r"does not require grad and does not have a grad_fn")
def _no_graph(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    parameters = list(trouble.case.model.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        yield all_frozen(trouble.case)
        return
    where = last_linear(trouble.case)
    told = f"the path behind '{where}' is cut"
    if not trouble.phase and _whole_by_itself(trouble.case):
        where, told = "loop", "the loop cuts it, before or after the model"
    yield replace(
        finding(
            "error", where,
            f"The loss has no way back to any weight: {told}.",
            healthy="a path from the loss to every weight",
            why="Without it no gradient arrives, and nothing can be learnt.",
            mend="take out the no_grad(), detach(), .data, .item() or torch.tensor(...) around the "
            "model, or between its outputs and the loss",
        ),
        rule="no-gradient-to-layer",
    )  # fmt: skip


def _whole_by_itself(case: Case) -> bool:
    """Whether model and loss alone have a path that the loop must have cut."""
    from layerwise.diagnosis.first_batch import FirstBatch

    value = FirstBatch.of(case).value
    return value is not None and value.requires_grad


@reads(
    "inplace-update",
    r"a (?:view of a )?leaf Variable that requires grad (?:is being used in|has been|.*?) an? "
    r"in-?place operation",
    r"leaf variable has been moved into the graph interior",
    r"cannot assign '(.*?)' as parameter '(\w+)'",
    r"has been modified by an inplace operation",
    r"modified by an in-?place operation",
)
def _in_place(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    weight = "cannot assign" in trouble.said or "leaf" in trouble.said
    place = "loop" if weight else trouble.where
    what = "A weight" if weight else "A value of the forward pass"
    mend = (
        "let the optimizer do it, or: with torch.no_grad(): p -= lr * p.grad" if weight
        else "h = h * 2 instead of h *= 2, nn.ReLU(inplace=False), and one backward() before the "
        "step that changes the weights"
    )  # fmt: skip
    yield finding(
        "error", place, f"{what} is changed in place while autograd still needs it.",
        healthy="values that autograd keeps stay as they are",
        why="The gradient would be that of other numbers, so PyTorch refuses.", mend=mend,
    )  # fmt: skip


@reads("params-not-in-optimizer", r"optimizer got an empty parameter list")
def _empty(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "optimizer", "The optimizer was given no parameters.",
        healthy="every weight of the model",
        why="A weight that no optimizer holds never changes.",
        mend="hold the layers as attributes or in nn.ModuleList, not in a Python list",
    )  # fmt: skip
