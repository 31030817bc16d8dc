"""What PyTorch raises, as findings: the place, the cause and the change to make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.case import CLASSES, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.words import listed, loss_name
from layerwise.network.walk import Visit, Walk, shape


@dataclass(frozen=True)
class Trouble:
    """An exception and what was going on.

    Attributes
    ----------
    said : its message
    error : itself
    case : model, loss and rows
    phase : "forward", "loss", "backward", or "" where unknown
    visit : the layer that failed, if one did
    outputs, y : what the loss compared, as far as known
    """

    said: str
    error: BaseException
    case: Case
    phase: str
    visit: Visit | None
    outputs: Any
    y: Any

    @property
    def where(self) -> str:
        """The path of the layer that failed; "forward" where it was none."""
        return self.visit.name if self.visit is not None else "forward"


Reading = Callable[[Trouble, re.Match[str]], Iterator[Finding]]
_READINGS: list[tuple[str, re.Pattern[str], Reading]] = []


def translated(
    error: BaseException,
    case: Case,
    phase: str = "",
    found: Walk | None = None,
    y: Any = None,
    outputs: Any = None,
) -> list[Finding]:
    """An exception as findings; empty if it is none of those that are known.

    Parameters
    ----------
    error : as raised in the user's loop, or in a pass of the doctor's
    case : model, loss, optimizers and rows
    phase : "forward", "loss" or "backward", where that is known
    found : the calls of the layers up to the one that failed
    y, outputs : what the loss compared, as far as known

    Examples
    --------
    >>> error = RuntimeError("grad can be implicitly created only for scalar outputs")
    >>> [one.rule for one in translated(error, Case(nn.Linear(2, 1)))]
    ['loss-reduction']
    """
    visit = found.failed if found is not None else None
    if outputs is None and found is not None:
        outputs = found.outputs
    y = case.y if y is None else y
    trouble = Trouble(str(error).strip(), error, case, phase, visit, outputs, y)
    for rule, pattern, read in _READINGS:
        match = pattern.search(trouble.said)
        if match:
            stage = "first_batch" if phase else "training"
            return [
                replace(one, rule=one.rule or rule, stage=stage) for one in read(trouble, match)
            ]
    return []


def _reads(rule: str, *patterns: str) -> Callable[[Reading], Reading]:
    def register(read: Reading) -> Reading:
        _READINGS.extend((rule, re.compile(one, re.S | re.I), read) for one in patterns)
        return read

    return register


# ---------------------------------------------------------------- forward


@_reads("input-width", r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)")
def _width(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    _, got, expected, out = map(int, match.groups())
    where, first = _linear_of(trouble, expected, out)
    X = trouble.case.X
    columns = X.shape[-1] if isinstance(X, Tensor) and X.dim() > 1 else None
    of_data = first and (columns is None or columns == got)
    source = f"X has {got} columns" if of_data else f"{got} values arrive for each row"
    yield finding(
        "error", where,
        f"{source}, '{where}' expects {expected}.",
        healthy=f"{expected} on both sides",
        why="A matrix product needs as many columns as the layer has inputs.",
        mend=f"nn.Linear({got}, {out}) at '{where}'"
        + ("" if of_data else ", or let the layer before it give as many values"),
        got=got, expected=expected,
    )  # fmt: skip


@_reads("input-width", r"size mismatch, got input \((\d+)\), mat \((\d+)x(\d+)\), vec \((\d+)\)")
def _width_of_row(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    got, expected = int(match[4]), int(match[3])
    where = _linear_of(trouble, expected, int(match[2]))[0]
    yield finding(
        "error", where,
        f"The rows have no second dimension: {got} values arrive and '{where}' expects {expected} "
        "for each row.",
        healthy=f"X of shape (rows, {expected})",
        why="A layer reads the last dimension as the columns of one row.",
        mend="X = X.unsqueeze(1) for one column, or index rows as X[i:i+1]",
        got=got, expected=expected,
    )  # fmt: skip


@_reads(
    "input-width",
    r"running_mean should contain (\d+) elements not (\d+)",
    r"normalized_shape=\[(\d+)\], expected input with shape .*? got input of size ?\[.*?(\d+)\]",
)
def _norm_width(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    got, expected = sorted(map(int, match.groups()), key=lambda n: _is_size_of(trouble, n))
    where = trouble.where
    yield finding(
        "error", where,
        f"{got} values arrive for each row, '{where}' expects {expected}.",
        healthy="as many as the layer before gives",
        why="A norm keeps one scale for each value of a row.",
        mend=f"make '{where}' one of {got} values", got=got, expected=expected,
    )  # fmt: skip


def _is_size_of(trouble: Trouble, n: int) -> bool:
    """Whether the layer that failed was made for n values."""
    module = trouble.visit.module if trouble.visit is not None else None
    sizes = getattr(module, "num_features", None), *getattr(module, "normalized_shape", ())
    return n in sizes


def _linear_of(trouble: Trouble, expected: int, out: int) -> tuple[str, bool]:
    """The layer that refused its input, and whether it is the first one."""
    layers = [(n, m) for n, m in trouble.case.layers if isinstance(m, nn.Linear)]
    if trouble.visit is not None:
        name = trouble.visit.name
    else:
        sizes = (expected, out)
        fits = [n for n, m in layers if (m.in_features, m.out_features) == sizes]
        name = fits[0] if fits else "forward"
    return name, not layers or name in (layers[0][0], "forward")


@_reads(
    "dtype-mismatch",
    r"mat1 and mat2 must have the same dtype, but got (\w+) and (\w+)",
    r"expected m1 and m2 to have the same dtype, but got: (\S+) != (\S+)",
)
def _dtype_of_rows(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield _rows_type(trouble, match[1], match[2])


@_reads(
    "dtype-mismatch",
    r"expected scalar type (?!Long)(\w+) but found (\w+)",
    r"Input type \((\S+)\) and (?:weight|bias) type \((\S+)\) should be the same",
    r"Expected tensor for argument #1 'indices' to have .*? but got (\S+)",
    r"(mixed dtype) \(CPU\)",
)
def _dtype(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield _rows_type(trouble, match[match.lastindex or 1], match[1])


@_reads("dtype-mismatch", r"must be Tensor, not (numpy\.ndarray|list|DataFrame|Series)")
def _no_tensor(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "X",
        f"X is a {match[1]}; the model takes tensors.",
        healthy="a tensor of the type of the weights",
        why="Layers compute with tensors only.",
        mend="torch.as_tensor(X, dtype=torch.float32)", got=match[1],
    )  # fmt: skip


def _rows_type(trouble: Trouble, got: str, want: str) -> Finding:
    got, want = got.removeprefix("torch."), want.removeprefix("torch.")
    X = trouble.case.X
    if isinstance(trouble.visit and trouble.visit.module, nn.Embedding):
        want, mend = "int64", "X = X.long()"
    else:
        weight = next((p for p in trouble.case.model.parameters()), None)
        want = want if weight is None else _type(weight)
        mend = {"float64": "X = X.double()", "float16": "X = X.half()"}.get(want, "X = X.float()")
    got = _type(X) if isinstance(X, Tensor) else got
    return finding(
        "error", "X",
        f"X has type {got}; the model's weights have {want}.",
        healthy=f"X and weights both {want}",
        why="PyTorch does not mix types in a matrix product.",
        mend=mend, got=got, expected=want,
    )  # fmt: skip


# ---------------------------------------------------------------- targets


@_reads(
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
    got = _type(y) if isinstance(y, Tensor) else "another type"
    yield finding(
        "error", "y",
        f"y has type {got}; {loss} needs int64.",
        healthy="class indices of type int64",
        why="Class indices point at outputs, so they have to be whole numbers.",
        mend="y = y.long()", got=got, expected="int64",
    )  # fmt: skip


@_reads(
    "dtype-mismatch",
    r"expected floating point type for target with class probabilities, got (\w+)",
    r"not implemented for '(\w+)'",
)
def _class_types(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y, outputs = trouble.y, trouble.outputs
    if trouble.case.kind in CLASSES and isinstance(y, Tensor) and y.dim() < 2:
        if isinstance(outputs, Tensor) and outputs.dim() == 1 and not y.is_floating_point():
            last = _last_linear(trouble.case)
            one = labels_finding(trouble.case, outputs, y, last)
            yield replace(one, rule="labels-vs-outputs")
        else:
            yield from _class_type(trouble)
        return
    if trouble.phase == "forward" or not isinstance(y, Tensor):
        yield _rows_type(trouble, match[1], "float32")
        return
    yield finding(
        "error", "y",
        f"y has type {_type(y)} and shape {shape(y)}; {loss_name(trouble.case.loss)} needs "
        "float32 for one column per class, or class indices.",
        healthy="class indices (N,) of type int64, or probabilities (N, C) of type float32",
        why="With one column per class the targets are probabilities.",
        mend="y = y.float(), or y = y.argmax(dim=1)", got=_type(y), expected="float32",
    )  # fmt: skip


@_reads(
    "dtype-mismatch",
    r"Found dtype (\w+) but expected (\w+)",
    r"result type (\w+) can't be cast to the desired output type (\w+)",
    r"Subtraction, the `-` operator, with (?:two |a )(bool) tensor",
)
def _target_type(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y = trouble.y
    got = _type(y) if isinstance(y, Tensor) else match[1]
    outputs = trouble.outputs
    want = _type(outputs) if isinstance(outputs, Tensor) else "float32"
    yield finding(
        "error", "y",
        f"y has type {got}; {loss_name(trouble.case.loss)} needs {want}.",
        healthy=f"y and outputs both {want}",
        why="The loss hands its gradient back in the type of y, which the model does not take.",
        mend="y = y.double()" if want == "float64" else "y = y.float()", got=got, expected=want,
    )  # fmt: skip


@_reads("labels-vs-outputs", r"Target (-?\d+) is out of bounds", r"cur_target >= 0")
def _label(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield labels_finding(trouble.case, trouble.outputs, trouble.y, _last_linear(trouble.case))


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
    C = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() > 1 else 1
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


@_reads("labels-vs-outputs", r"all elements of target should be between 0 and 1")
def _share(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    y = trouble.y
    if isinstance(y, Tensor) and y.numel():
        yield shares_finding(y, loss_name(trouble.case.loss))


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


@_reads("missing-final-activation", r"all elements of input should be between 0 and 1")
def _no_probabilities(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    where = _last_linear(trouble.case)
    yield finding(
        "error", where,
        f"BCELoss expects probabilities, but '{where}' gives raw scores{_range(trouble.outputs)}.",
        healthy="outputs between 0 and 1",
        why="The logarithm of a number outside 0 .. 1 is no likelihood.",
        mend="nn.BCEWithLogitsLoss() on the raw scores, or nn.Sigmoid() after the last layer",
    )  # fmt: skip


@_reads(
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
    last, classes = _last_linear(trouble.case), trouble.case.kind in CLASSES
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
            f"y has type {_type(y)} and shape {shape(y)}; {loss_name(trouble.case.loss)} needs "
            f"class indices of type int64 and shape ({len(y)},).",
            healthy="class indices 0 .. C-1", why="This loss picks one output for each row.",
            mend="y = y.argmax(dim=1)", got=_type(y), expected="int64",
        ),
        rule="dtype-mismatch",
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


# ---------------------------------------------------------------- the rest


@_reads("batchnorm-single-row", r"Expected more than 1 value per channel when training")
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


@_reads("loss-reduction", r"grad can be implicitly created only for scalar outputs")
def _no_scalar(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "loss",
        "The loss that reaches backward() has one number for each row.",
        healthy="one number",
        why="A gradient is that of one number.",
        mend="reduction='mean', or loss.mean().backward()",
    )  # fmt: skip


@_reads("frozen-parameters", r"does not require grad and does not have a grad_fn")
def _no_graph(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    parameters = list(trouble.case.model.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        yield all_frozen(trouble.case)
        return
    where = _last_linear(trouble.case)
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


@_reads(
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


@_reads("params-not-in-optimizer", r"optimizer got an empty parameter list")
def _empty(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "optimizer", "The optimizer was given no parameters.",
        healthy="every weight of the model",
        why="A weight that no optimizer holds never changes.",
        mend="hold the layers as attributes or in nn.ModuleList, not in a Python list",
    )  # fmt: skip


# ---------------------------------------------------------------- words


def _last_linear(case: Case) -> str:
    named = [n for n, m in case.layers if isinstance(m, nn.Linear)]
    return named[-1] if named else "forward"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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
