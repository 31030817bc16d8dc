"""The quiet doctor of layerwise's own trainings: what they were given, and how they went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.stepping import decoupled
from layerwise.diagnosis.verdict import judge
from layerwise.diagnosis.watched import Look, Watched
from layerwise.engine.torch import Rows, first
from layerwise.training.history import History

_LOSSES = {
    "mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss, "bce": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
}  # fmt: skip


@dataclass(eq=False)
class Patient:
    """A training that the doctor looks at when it is over, as it was before it began.

    Attributes
    ----------
    case : a copy of the network and its optimizer, with the rows to come
    weighted : whether rows count differently, so that losses have no plain baseline
    network : that is trained
    """

    case: Case
    weighted: bool
    network: nn.Module

    def remember(self, history: History) -> History:
        """Let the history of this training tell the findings, once somebody asks for them.

        The network is copied as it is now; the rows are held as long as the history is.
        """
        watched = _watched(self, history)
        history.look = lambda: judge(watched)
        return history


def patient(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Any,
    rows: Rows,
    valid: Rows | None = None,
    *,
    batch_size: int,
    epochs: int,
    names: Sequence[str] = (),
    classes: Sequence[str] = (),
    balanced: bool = False,
) -> Patient:
    """Note how a training begins; nothing is looked at yet.

    Parameters
    ----------
    network, optimizer : copied
    loss : a module, or one of the names of `layerwise.fit`
    rows, valid : in memory, on the CPU or not
    batch_size, epochs : of the training to come
    names : of the columns of X
    classes : the names behind class indices
    balanced : whether weights make up for rare classes
    """
    memo: dict[int, Any] = {}
    copies = deepcopy(network, memo), deepcopy(optimizer, memo)
    loss = _LOSSES[loss]() if isinstance(loss, str) else loss
    rows = rows.picked()
    held = None if valid is None else valid.picked()
    case = Case(
        copies[0], loss, (copies[1],), rows.X, rows.y,
        X_val=held.X if held else None, y_val=held.y if held else None, batch_size=batch_size,
        epochs=epochs, drop_last=False, shuffle=True, names=tuple(names),
        sampled=balanced, original=network, classes=tuple(classes),
    )  # fmt: skip
    return Patient(case, rows.w is not None, network)


def _watched(patient: Patient, history: History) -> Watched:
    """The history as evidence; what came after the best epoch was thrown away and counts not."""
    case = patient.case
    kept = history.rows if history.stopped == "epochs" else history.rows[: history.best_epoch]
    per = max(-(-(case.n_rows or 1) // (case.batch_size or 1)), 1)
    rates = [float(row["lr"]) for row in kept if "lr" in row]
    seen = Watched(
        case, kind=case.kind, trained=deepcopy(patient.network),
        losses=[float(row["train_loss"]) for row in kept], weights=[1] * len(kept),
        n_valid=len(first(case.X_val)) if case.X_val is not None else None,
        starts=list(range(len(kept))), steps=per * len(kept), rates=rates, forwards=len(kept),
        per_pass=per, comparable=not patient.weighted,
        second_order=any(isinstance(one, torch.optim.LBFGS) for one in case.optimizers),
    )  # fmt: skip
    if history.stopped == "epochs" and all("valid_loss" in row for row in kept):
        seen.valid = [float(row["valid_loss"]) for row in kept[: history.best_epoch]]
    seen.looks = list(_looks(history.layers, per, case))
    return seen


def _looks(layers: Sequence[Mapping[str, Any]], per: int, case: Case) -> list[Look]:
    """The layers' rows as looks at steps, one for each epoch that was looked at."""
    epochs: dict[int, list[Mapping[str, Any]]] = {}
    for row in layers:
        if row.get("member", 1) == 1 and "gradient" in row:
            epochs.setdefault(int(row["epoch"]), []).append(row)
    optimizer = case.optimizers[0]
    decay = float(optimizer.param_groups[0].get("weight_decay", 0.0))
    return [
        # norms of a whole epoch are those of its middle
        Look(
            (epoch - 1) * per + per // 2, epoch - 1, _norms(rows, "gradient"),
            _norms(rows, "weight"), _norms(rows, "update"), decay, decoupled(optimizer),
        )
        for epoch, rows in sorted(epochs.items())
    ]  # fmt: skip


def _norms(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    return {str(row["layer"]): float(row[name]) for row in rows if row.get(name) is not None}
