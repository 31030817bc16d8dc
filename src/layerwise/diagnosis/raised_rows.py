"""What PyTorch raises in a forward pass: widths and types of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn

from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.translate import Trouble, reads
from layerwise.diagnosis.words import type_of


@reads("input-width", r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)")
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


@reads("input-width", r"size mismatch, got input \((\d+)\), mat \((\d+)x(\d+)\), vec \((\d+)\)")
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


@reads(
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


@reads(
    "dtype-mismatch",
    r"mat1 and mat2 must have the same dtype, but got (\w+) and (\w+)",
    r"expected m1 and m2 to have the same dtype, but got: (\S+) != (\S+)",
)
def _dtype_of_rows(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield rows_type(trouble, match[1], match[2])


@reads(
    "dtype-mismatch",
    r"expected scalar type (?!Long)(\w+) but found (\w+)",
    r"Input type \((\S+)\) and (?:weight|bias) type \((\S+)\) should be the same",
    r"Expected tensor for argument #1 'indices' to have .*? but got (\S+)",
    r"(mixed dtype) \(CPU\)",
)
def _dtype(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield rows_type(trouble, match[match.lastindex or 1], match[1])


@reads("dtype-mismatch", r"must be Tensor, not (numpy\.ndarray|list|DataFrame|Series)")
def _no_tensor(trouble: Trouble, match: re.Match[str]) -> Iterator[Finding]:
    yield finding(
        "error", "X",
        f"X is a {match[1]}; the model takes tensors.",
        healthy="a tensor of the type of the weights",
        why="Layers compute with tensors only.",
        mend="torch.as_tensor(X, dtype=torch.float32)", got=match[1],
    )  # fmt: skip


def rows_type(trouble: Trouble, got: str, want: str) -> Finding:
    """Rows of another type than the weights."""
    got, want = got.removeprefix("torch."), want.removeprefix("torch.")
    X = trouble.case.X
    if isinstance(trouble.visit and trouble.visit.module, nn.Embedding):
        want, mend = "int64", "X = X.long()"
    else:
        weight = next((p for p in trouble.case.model.parameters()), None)
        want = want if weight is None else type_of(weight)
        mend = {"float64": "X = X.double()", "float16": "X = X.half()"}.get(want, "X = X.float()")
    got = type_of(X) if isinstance(X, Tensor) else got
    return finding(
        "error", "X",
        f"X has type {got}; the model's weights have {want}.",
        healthy=f"X and weights both {want}",
        why="PyTorch does not mix types in a matrix product.",
        mend=mend, got=got, expected=want,
    )  # fmt: skip
