"""What PyTorch raises in a loss: types, shapes and values of targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layerwise.diagnosis.case import CLASSES
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.mismatch import labels_finding, shape_finding, shares_finding
from layerwise.diagnosis.raised_rows import rows_type
from layerwise.diagnosis.translate import Trouble, reads
from layerwise.diagnosis.words import last_linear, loss_name, type_of
from layerwise.network.walk import shape


@reads(
    "dtype-mismatch",
    r"expected target dtype to be Long or Byte, but got (\w+)",
    r"expected scalar type Long but found (\w+)",
)
def _indices(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield from _class_type(trouble)


def _class_type(trouble: Trouble) -> Iterator[Finding]:
    y, loss = trouble.y, loss_name(trouble.case.loss)
    if isinstance(y, Tensor) and y.is_floating_point() and _has_fractions(y):
        yield replace(
            finding(
                "error", "loss",
                f"y holds amounts such as {_some(y)}; {loss} needs the numbers of classes.",
                healthy="class indices 0 .. C-1 for this loss, or a loss for amounts",
                why="A loss for classes cannot compare amounts.",
                mend="nn.MSELoss() for amounts, with one output",
            ),
            rule="loss-task-mismatch",
        )  # fmt: skip
        return
    got = type_of(y) if isinstance(y, Tensor) else "another type"
    yield finding(
        "error", "y",
        f"y has type {got}; {loss} needs int64.",
        healthy="class indices of type int64",
        why="Class indices point at outputs, so they have to be whole numbers.",
        mend="y = y.long()", got=got, expected="int64",
    )  # fmt: skip


@reads(
    "dtype-mismatch",
    r"expected floating point type for target with class probabilities, got (\w+)",
    r"not implemented for '(\w+)'",
)
def _class_types(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y, outputs = trouble.y, trouble.outputs
    if trouble.case.kind in CLASSES and isinstance(y, Tensor) and y.dim() < 2:
        if isinstance(outputs, Tensor) and outputs.dim() == 1 and not y.is_floating_point():
            last = last_linear(trouble.case)
            one = labels_finding(trouble.case, outputs, y, last)
            yield replace(one, rule="labels-vs-outputs")
        else:
            yield from _class_type(trouble)
        return
    if trouble.phase == "forward" or not isinstance(y, Tensor):
        yield rows_type(trouble, match[1], "float32")
        return
    yield finding(
        "error", "y",
        f"y has type {type_of(y)} and shape {shape(y)}; {loss_name(trouble.case.loss)} needs "
        "float32 for one column per class, or class indices.",
        healthy="class indices (N,) of type int64, or probabilities (N, C) of type float32",
        why="With one column per class the targets are probabilities.",
        mend="y = y.float(), or y = y.argmax(dim=1)", got=type_of(y), expected="float32",
    )  # fmt: skip


@reads(
    "dtype-mismatch",
    r"Found dtype (\w+) but expected (\w+)",
    r"result type (\w+) can't be cast to the desired output type (\w+)",
    r"Subtraction, the `-` operator, with (?:two |a )(bool) tensor",
)
def _target_type(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y = trouble.y
    got = type_of(y) if isinstance(y, Tensor) else match[1]
    outputs = trouble.outputs
    want = type_of(outputs) if isinstance(outputs, Tensor) else "float32"
    yield finding(
        "error", "y",
        f"y has type {got}; {loss_name(trouble.case.loss)} needs {want}.",
        healthy=f"y and outputs both {want}",
        why="The loss hands its gradient back in the type of y, which the model does not take.",
        mend="y = y.double()" if want == "float64" else "y = y.float()", got=got, expected=want,
    )  # fmt: skip


@reads("labels-vs-outputs", r"Target (-?\d+) is out of bounds", r"cur_target >= 0")
def _label(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield labels_finding(trouble.case, trouble.outputs, trouble.y, last_linear(trouble.case))


@reads("labels-vs-outputs", r"all elements of target should be between 0 and 1")
def _share(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y = trouble.y
    if isinstance(y, Tensor) and y.numel():
        yield shares_finding(y, loss_name(trouble.case.loss))


@reads("missing-final-activation", r"all elements of input should be between 0 and 1")
def _no_probabilities(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    where = last_linear(trouble.case)
    yield finding(
        "error", where,
        f"BCELoss expects probabilities, but '{where}' gives raw scores{_range(trouble.outputs)}.",
        healthy="outputs between 0 and 1",
        why="The logarithm of a number outside 0 .. 1 is no likelihood.",
        mend="nn.BCEWithLogitsLoss() on the raw scores, or nn.Sigmoid() after the last layer",
    )  # fmt: skip


@reads(
    "target-shape-broadcast",
    r"Using a target size \(torch\.Size\((.*?)\)\) that is different to the input size "
    r"\(torch\.Size\((.*?)\)\)",
    r"Target size \(torch\.Size\((.*?)\)\) must be the same as input size \(torch\.Size\((.*?)\)\)",
    r"The size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton",
    r"0D or 1D target tensor expected, multi-target not supported",
    r"Expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)",
    r"For 1D input, 1D target must have size 1",
    r"size mismatch \(got input: (.*?), target: (.*?)\)",
)
def _shapes(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    if trouble.phase == "forward" or trouble.visit is not None:
        return
    outputs, y = trouble.outputs, trouble.y
    if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
        return
    last, classes = last_linear(trouble.case), trouble.case.kind in CLASSES
    if classes and y.is_floating_point() and _has_fractions(y):
        yield from _class_type(trouble)
    elif classes and outputs.dim() == 1 and y.dim() == 1 and len(y) == len(outputs):
        yield replace(labels_finding(trouble.case, outputs, y, last), rule="labels-vs-outputs")
    elif classes and y.dim() == 2 and y.shape == outputs.shape and y.shape[1] > 1:
        yield from _one_hot(trouble, y)
    else:
        yield shape_finding(trouble.case, outputs, y, last)


def _one_hot(trouble: Trouble, y: Tensor) -> Iterator[Finding]:
    yield replace(
        finding(
            "error", "y",
            f"y has type {type_of(y)} and shape {shape(y)}; {loss_name(trouble.case.loss)} needs "
            f"class indices of type int64 and shape ({len(y)},).",
            healthy="class indices 0 .. C-1", why="This loss picks one output for each row.",
            mend="y = y.argmax(dim=1)", got=type_of(y), expected="int64",
        ),
        rule="dtype-mismatch",
    )  # fmt: skip


def _has_fractions(y: Tensor) -> bool:
    finite = y[torch.isfinite(y)]
    return bool((finite != finite.round()).any())


def _some(y: Tensor) -> str:
    fractions = y[y != y.round()].flatten()
    return f"{float(fractions[0]):.3g}" if len(fractions) else "1"


def _range(outputs: Any) -> str:
    if not isinstance(outputs, Tensor) or not outputs.numel():
        return ""
    return f" ({float(outputs.min()):.2g} .. {float(outputs.max()):.2g})"
