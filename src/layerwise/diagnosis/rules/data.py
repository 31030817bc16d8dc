"""The rows: gaps, scales, columns that say nothing or too much, classes, order, batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case
from layerwise.diagnosis.columns import different, leaking, same_order, spread
from layerwise.diagnosis.compared import targets_of
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.words import share_of


def table_of(case: Case) -> Tensor | None:
    """X in float64 where it is a table of numbers with rows."""
    X = case.X
    if not isinstance(X, Tensor) or X.dim() != 2 or not X.numel() or X.is_complex():
        return None
    return X.detach().cpu().double()


@rule("nan-in-data", stage="static")
def nan_in_data(case: Case) -> Iterator[Finding]:
    """Cells that are no finite numbers."""
    for where in ("X", "y", "X_val", "y_val"):
        values = getattr(case, where)
        if not isinstance(values, Tensor) or not values.is_floating_point():
            continue
        bad = ~torch.isfinite(values)
        if not bool(bad.any()):
            continue
        place = bad.nonzero()[0].tolist()
        n, told, extra = int(bad.sum()), where, {}
        if where.startswith("X") and len(place) == 2:
            columns = bad.any(dim=0).nonzero().flatten().tolist()
            told = f"{where}, column {case.column(columns[0])}"
            told += f" and {len(columns) - 1} more" if len(columns) > 1 else ""
            extra = {"column": case.column(columns[0]).strip("'")}
        yield finding(
            "error", where,
            f"{n} cell{'s' * (n != 1)} of {told} {'are' if n != 1 else 'is'} nan or infinite, the "
            f"first in row {place[0]}.",
            healthy="finite numbers only",
            why="After one step on such a row every weight will be nan."
            if where in ("X", "y") else "The validation loss is nan, and no epoch is the best.",
            mend="fill or drop such rows; log1p instead of log; look for divisions by 0",
            row=place[0], cells=n, **extra,
        )  # fmt: skip


@rule("unscaled-features", stage="first_batch")
def unscaled_features(seen: FirstBatch) -> Iterator[Finding]:
    """Columns far from the size of 1 where the first linear map takes them."""
    entry = seen.forward.entry
    if seen.invented or entry is None or entry.dim() != 2 or not entry.is_floating_point():
        return
    X = table_of(seen.case)
    given = seen.X.detach() if isinstance(seen.X, Tensor) else None
    raw = given is not None and given.shape == entry.shape and torch.equal(
        given.to(entry.dtype).nan_to_num(), entry.nan_to_num()
    )  # fmt: skip
    values = X if raw and X is not None else entry.cpu().double()
    sizes = values.nan_to_num(0, 0, 0).square().mean(dim=0).sqrt()
    top, middle = float(sizes.max()), float(sizes.median())
    if not math.isfinite(top):
        return
    if top > 20 or (top > 5 and top > 100 * middle):
        j = int(sizes.argmax())
        name = seen.case.column(j) if values.shape[1] == _width(X) else str(j)
        others = "" if len(sizes) == 1 else f", most others around {middle:.2g}"
        large = int((sizes > 20).sum())
        yield finding(
            "error" if top > 1000 else "warning", "X",
            f"Column {name} has values around {top:.3g}{others}.",
            healthy="columns of size about 1 (20 at most) where the first layer takes them",
            why="The large one drowns the rest and forces a tiny learning rate."
            if len(sizes) > 1 else "Large inputs force a tiny learning rate.",
            mend="standardise with the training rows' mean and deviation: "
            "(X - X_train.mean(0)) / X_train.std(0)",
            column=name.strip("'"), rms=top, median=middle, limit=20, columns=max(large, 1),
        )  # fmt: skip
    elif float(sizes.max()) < 1e-3 and top > 0:
        yield finding(
            "warning", "X",
            f"No column has values beyond {top:.1g}.",
            healthy="columns of size about 1",
            why="Such small inputs hardly move the network.",
            mend="standardise with the training rows' mean and deviation",
            column=seen.case.column(0).strip("'"), rms=top, limit=1e-3,
        )  # fmt: skip


def _width(X: Tensor | None) -> int:
    return X.shape[1] if X is not None else 0


@rule("unscaled-targets", stage="first_batch")
def unscaled_targets(seen: FirstBatch) -> Iterator[Finding]:
    """Amounts far from where the network starts."""
    if seen.y_invented:
        return
    for call in seen.calls:
        if call.kind not in AMOUNTS or call.target.is_complex():
            continue
        y = targets_of(seen, call).double()
        y = (y.flatten(1) if y.dim() > 1 else y[:, None]).cpu() if y.dim() else y.reshape(1, 1)
        y = y[torch.isfinite(y).all(dim=1)]
        if len(y) < 2:
            continue
        means, stds = y.mean(dim=0), y.std(dim=0, correction=0)
        j = int(torch.maximum(means.abs(), stds).argmax())
        mean, std = float(means[j]), float(stds[j])
        if abs(mean) <= 30 and std <= 30:
            continue
        if std == 0:
            continue
        answers = call.outputs.detach().double().cpu()
        answers = answers.flatten(1) if answers.dim() > 1 else answers[:, None]
        if not bool(torch.isfinite(answers).all()) or j >= answers.shape[1]:
            continue
        answers = answers[:, j]
        start = float((answers.mean() - mean).square() + std**2)  # the loss of such answers, if
        spread_of = float(answers.std(correction=0))  # they say nothing of the rows yet
        inside = start <= 5 * std**2 and spread_of > 0.03 * std
        if inside or not (start > 5 * std**2 or std > 30):
            continue
        yield finding(
            "error" if std > 1000 or abs(mean) > 50 * std else "warning", "y",
            f"Targets lie around {mean:.3g} +- {std:.3g}; the network starts around "
            f"{float(answers.mean()):.2g} +- {spread_of:.2g}.",
            healthy="targets around 0 with a deviation of about 1",
            why=_far(seen.case, mean, std),
            mend="standardise y with the training rows' mean and deviation and undo it when "
            "predicting, or set the last bias to y.mean()",
            mean=mean, std=std, limit=30, start=spread_of,
        )  # fmt: skip
        return


def _far(case: Case, mean: float, std: float) -> str:
    """How far that is in steps, where the optimizer's steps have a known size."""
    for one in case.optimizers:
        if "betas" in one.defaults and one.param_groups[0]["lr"] > 0:
            steps = (abs(mean) + std) / float(one.param_groups[0]["lr"])
            return f"Its last bias would need about {steps:,.0f} steps to get there."
    return "The first losses and gradients are huge, and the way is long for usual steps."


@rule("constant-feature", stage="static")
def constant_feature(case: Case) -> Iterator[Finding]:
    """Columns that never change."""
    X = table_of(case)
    if X is None or len(X) < 10:
        return
    still = (X[0] == X).all(dim=0)
    nearly = still.clone()
    if len(X) >= 1000:
        common = X.mode(dim=0).values
        nearly |= (common == X).double().mean(dim=0) >= 0.999
    k, d = int(nearly.sum()), X.shape[1]
    if not k:
        return
    names = [case.column(j) for j in nearly.nonzero().flatten().tolist()[:4]]
    more = f" and {k - 4} more" if k > 4 else ""
    hardly = "never" if bool(still.any()) else "hardly ever"
    yield finding(
        "warning" if int(still.sum()) > 0.3 * d else "note", "X",
        f"{k} of {d} columns {hardly} change{'s' * (k == 1)}: {', '.join(names)}{more}.",
        healthy="columns that differ between rows",
        why="A column that is the same for all rows says nothing about any.",
        mend="drop them; look for a failed join or a wrong default",
        column=names[0].strip("'"), constant=k, columns=d,
    )  # fmt: skip


@rule("target-leakage", stage="static")
def target_leakage(case: Case) -> Iterator[Finding]:
    """A column that gives the answer away (Kaufman et al., 2012)."""
    X, y = table_of(case), case.y
    if X is None or not isinstance(y, Tensor) or len(y) != len(X) or X.shape[1] < 2:
        return
    if len(X) < 30 or (y.dim() > 1 and y.numel() != len(y)):
        return
    y = y.detach().cpu().flatten()
    found = leaking(X, y, classes=case.kind in (*CLASSES, *BINARY))
    if found is None:
        return
    j, measure, value = found
    yield finding(
        "warning", "X",
        f"Column {case.column(j)} alone gives the answer ({measure} {value:.4f}).",
        healthy="columns that each say a part",
        why="Would you know it when you predict? If not, the network will fail there.",
        mend="find out when the column is recorded; drop it if that is after the fact",
        column=case.column(j).strip("'"), value=value, measure=measure,
    )  # fmt: skip


@rule("class-imbalance", stage="static")
def class_imbalance(case: Case) -> Iterator[Finding]:
    """A rare class without a remedy."""
    y, loss = case.y, case.loss
    if not isinstance(y, Tensor) or not y.numel() or case.sampled or case.kind == "":
        return
    if any(getattr(loss, name, None) is not None for name in ("weight", "pos_weight")):
        return
    y = y.detach().cpu()
    if case.kind in CLASSES and not y.is_floating_point() and y.dim() == 1:
        y = y[(y != getattr(loss, "ignore_index", -100)) & (y >= 0)]
        labels, counts = y.unique(return_counts=True)
    elif case.kind in BINARY and bool(((y == 0) | (y == 1)).all()):
        table = y.reshape(len(y), -1).double()
        ones = table.sum(dim=0)
        j = int((torch.minimum(ones, len(y) - ones)).argmin())
        labels, counts = table[:, j].long().unique(return_counts=True)
    else:
        return
    if len(labels) < 2 or int(counts.max()) <= 10 * int(counts.min()):
        return
    rare, major, n = int(counts.argmin()), int(counts.argmax()), int(counts.sum())
    p, q = int(counts[rare]) / n, int(counts[major]) / n
    ratio = int(counts[major]) / int(counts[rare])
    yield finding(
        "warning", "y",
        f"{share_of(p)} of the rows are '{case.label(int(labels[rare]))}'; always answering "
        f"'{case.label(int(labels[major]))}' is right {q:.1%} of the time.",
        healthy="at most 10 rows of one class for each of another, or weights",
        why="The rare class hardly counts in the loss, so it is hardly learnt.",
        mend=(f"pos_weight=torch.tensor({ratio:.0f}.)" if case.kind in BINARY
              else "nn.CrossEntropyLoss(weight=n / (C * counts))")
        + "; judge by recall or AUC, not by accuracy",
        rare=int(labels[rare]), share=p, ratio=ratio, limit=10,
    )  # fmt: skip


def order_finding(y: Tensor, kind: str, batch_size: int | None) -> Finding | None:
    """Rows that stand in the order of their targets; None if they do not.

    Parameters
    ----------
    y : the targets in the order in which batches take them, each epoch
    kind : of the loss, as in ``torch.nn.functional``
    batch_size : rows of a batch, or None
    """
    n = len(y)
    if n < 20 or (batch_size is not None and batch_size >= n) or y.numel() != n:
        return None
    y = y.detach().cpu().flatten().double()
    if not bool(torch.isfinite(y).all()):
        return None
    labels, counts = y.unique(return_counts=True)
    if len(labels) < 2:
        return None
    if kind in (*CLASSES, *BINARY):
        shares = counts.double() / n
        expected = float(n * (1 - shares.square().sum()))
        changes = int((y[1:] != y[:-1]).sum())
        if changes >= 0.2 * expected:
            return None
        whole = batch_size is not None and any(
            len(part) > 1 and bool((part == part[0]).all()) for part in y.split(batch_size)
        )
        told = f"the class changes {changes} times from row to row, {expected:.0f} by chance"
        values = {"changes": changes, "expected": expected}
    else:
        centred = y - y.mean()
        near = float((centred[1:] * centred[:-1]).sum() / centred.square().sum())
        rank = abs(spread(y, torch.arange(n, dtype=torch.float64)))
        if near <= 0.8 or rank <= 0.9:
            return None
        whole, told = False, f"rank correlation with the row number {rank:.2f}"
        values = {"autocorrelation": near, "spearman": rank}
    return finding(
        "error" if whole else "warning", "loop",
        f"The rows are sorted by the target ({told}) and never shuffled."
        + (" Whole batches hold one class." if whole else ""),
        healthy="batches drawn in a random order",
        why="The net keeps forgetting what it saw first.",
        mend="DataLoader(..., shuffle=True)", **values,
    )  # fmt: skip


@rule("sorted-no-shuffle", stage="static")
def sorted_no_shuffle(case: Case) -> Iterator[Finding]:
    """Rows ordered by target in a loop that does not shuffle."""
    if case.shuffle is not False or not isinstance(case.y, Tensor) or not case.y.dim():
        return
    found = order_finding(case.y, case.kind, case.batch_size)
    if found is not None:
        yield found


@rule("batch-size", stage="static")
def batch_size(case: Case) -> Iterator[Finding]:
    """Batches that are too large for the table."""
    b, n = case.batch_size, case.n_rows
    if not b or not n:
        return
    better = max(8, min(n // 20, 256))
    closures = any(isinstance(o, torch.optim.LBFGS) for o in case.optimizers)
    steps = (case.epochs or 0) * (n // b if case.drop_last else math.ceil(n / b))
    if b > n and case.drop_last:
        yield finding(
            "error", "batch_size",
            f"With drop_last and {n} rows no batch of {b} is ever made.",
            healthy="batches smaller than the table",
            why="The loop runs without a single step.",
            mend=f"batch_size={better}, or drop_last=False", batch_size=b, rows=n,
        )  # fmt: skip
    elif case.epochs and 2 * b >= n and steps < 100 and not closures:
        each = steps // case.epochs
        yield finding(
            "warning", "batch_size",
            f"{'One step' if each == 1 else f'{each} steps'} per epoch: {case.epochs} epochs are "
            f"only {steps} steps.",
            healthy="some hundred steps in all",
            why="An optimizer of the first order moves a little in each step.",
            mend=f"batch_size={better}", batch_size=b, rows=n, steps=steps, limit=100,
        )  # fmt: skip
    elif b > n:
        yield finding(
            "note", "batch_size",
            f"The batch size {b} is larger than the table of {n} rows.",
            healthy="batches smaller than the table",
            why="Each epoch is one step on all rows.", mend=f"batch_size={better}",
            batch_size=b, rows=n,
        )  # fmt: skip


@rule("val-preprocessing", stage="static")
def val_preprocessing(case: Case) -> Iterator[Finding]:
    """Validation rows that were prepared in another way than the training rows."""
    X, V = table_of(case), case.X_val
    if X is None or not isinstance(V, Tensor) or V.dim() != 2 or V.shape[1] != X.shape[1]:
        return
    V = V.detach().cpu().double()
    off = different(X, V)
    d, k = X.shape[1], int(off.sum())
    if min(len(X), len(V)) < 30 or k < 2 or k <= 0.3 * d:
        return
    j = int(off.nonzero()[0])
    a, b = float(V[:, j].mean()), float(X[:, j].mean())
    ordered = same_order(X, V)
    yield finding(
        "error" if k > 0.6 * d else "warning", "X_val",
        f"Validation column {case.column(j)} has mean {a:.3g}, training {b:.3g}, and so it is in "
        f"{k} of {d} columns"
        + (": the columns stand in another order." if ordered else "."),
        healthy="validation columns with about the training columns' mean and deviation",
        why="The network answers other numbers than it learnt from; or the two sets differ.",
        mend="take the columns in the same order: X_val[X.columns]" if ordered
        else "fit the scaler on the training rows and apply it to both",
        column=case.column(j).strip("'"), columns=k, mean=a, training_mean=b,
    )  # fmt: skip
