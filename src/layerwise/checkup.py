"""The doctor on a table, before any training: rows, network and settings as `train` has them.

What it finds is mended by flags, and the safest of these can be tried at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from layerwise import metrics
from layerwise.data.bins import as_bins, learn_bins
from layerwise.data.encoder import Encoder
from layerwise.diagnosis.case import Case
from layerwise.diagnosis.examine import examine, tried
from layerwise.diagnosis.finding import Finding, Findings
from layerwise.engine.torch import first
from layerwise.errors import ModelFileError
from layerwise.folder import load_record
from layerwise.learn import loss_name, rows_of, torch_device
from layerwise.network.build import build
from layerwise.network.plan import design
from layerwise.prepare import Notice, Prepared, Question, prepare, read
from layerwise.run import train
from layerwise.text import grid, number, wrapped
from layerwise.training.optimizer import make_optimizer
from layerwise.training.recipe import settle

_LOSSES = {
    "mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss, "bce": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
}  # fmt: skip
EPOCHS = 15  # of a training that only shows what a mend changes


@dataclass(frozen=True)
class Mend:
    """A change of flags.

    Attributes
    ----------
    flag : as it is written on the command line
    data, settings : the same change for `layerwise.train`
    """

    flag: str
    data: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Tried:
    """One mend, and a brief training without and with it.

    Attributes
    ----------
    rule : of the finding that is mended
    flag : the mend
    measured_on : which rows
    before, after : metrics
    gone : whether the finding is gone
    """

    rule: str
    flag: str
    measured_on: str
    before: dict[str, float]
    after: dict[str, float]
    gone: bool

    def __str__(self) -> str:
        """The mend, the metrics without and with it, and whether the finding is gone."""
        names = list(self.before)
        rows = [
            [word, *(number(found[name]) for name in names)]
            for word, found in (("without", self.before), ("with", self.after))
        ]
        left = "is gone" if self.gone else "is still there"
        head = f"{self.flag}: {self.rule} {left}. Measured on the {self.measured_on} rows:"
        return "\n\n".join([wrapped(head), grid(["", *(n.replace("_", " ") for n in names)], rows)])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def check_table(question: Question, notice: Notice, *, tests: bool = False) -> Findings:
    """What would keep a training on this table from working.

    Parameters
    ----------
    question : as `layerwise.train` takes it; nothing is written
    notice : called with sentences on what there is to know about the data
    tests : also try what practitioners try

    Raises
    ------
    DataError
        For a table that cannot be learnt from, naming file, column and row.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> iris = load_iris(as_frame=True).frame
    >>> check_table(Question(source=iris, target="target"), print).alarms
    []
    """
    case, prepared = case_of(question, notice)
    seen = examine(case)
    found = tried(case, seen) if tests else seen
    told = [in_flags(one, prepared) for one in (*found, *found.explained)]
    return Findings(told, found.skipped, found.trials)


def check_run(folder: str | Path) -> Findings:
    """What the doctor found during a training that is over.

    Raises
    ------
    ModelFileError
        If there is no run, or the doctor did not look at it.
    """
    record = load_record(folder)
    if "findings" not in record:
        raise ModelFileError(
            f"{folder} has no findings: it was trained by an older layerwise. Look at its table: "
            "layerwise doctor TABLE --target COLUMN"
        )
    return Findings(Finding.from_json(one) for one in record["findings"])


def case_of(question: Question, notice: Notice) -> tuple[Case, Prepared]:
    """The case of a training to come: its rows as the network gets them, network and optimizer."""
    recipe = question.check()
    table, schema = read(question)
    prepared = prepare(question, table, schema, notice)
    part, target = prepared.train, prepared.target
    metrics.check_monitor(recipe.monitor, target)
    recipe = settle(recipe, len(part))
    device, dtype = torch_device("cpu"), np.dtype(recipe.dtype)
    encoder = Encoder.fit(part.table, prepared.schema, part.weight)
    rows = rows_of(encoder, target, part, None, dtype, device)
    held = prepared.valid and rows_of(encoder, target, prepared.valid, None, dtype, device)
    edges = learn_bins(first(rows.X)[:, : encoder.n_numbers].numpy(), int(recipe.bins), part.weight)
    plan = design(
        encoder.n_numbers, encoder.n_codes, target.n_outputs, bins=as_bins(edges),
        hidden_layer_sizes=recipe.hidden_layer_sizes, activation=recipe.activation,
        dropout=float(recipe.dropout), norm=recipe.norm,
    )  # fmt: skip
    ends = np.concatenate([np.empty(0, dtype), *edges])
    kind = getattr(torch, recipe.dtype)
    network = build(plan, seed=int(question.random_state), dtype=kind, edges=ends)
    case = Case(
        network, _LOSSES[loss_name(recipe, target)](), (make_optimizer(network, recipe),),
        rows.X, rows.y, held.X if held else None, held.y if held else None,
        batch_size=int(recipe.batch_size), epochs=recipe.epochs, drop_last=False, shuffle=True,
        names=tuple(encoder.feature_names),
        sampled=question.class_weight is not None or prepared.schema.role("weight") is not None,
        classes=() if target.is_regression else tuple(map(str, target.classes)),
    )  # fmt: skip
    return case, prepared


def mend_of(found: Finding, prepared: Prepared) -> Mend | None:
    """The change of flags that mends a finding; None where flags cannot."""
    if found.rule == "target-leakage":
        column = _raw_column(str(found.values.get("column", "")), prepared)
        return column and Mend(f"--drop {shlex.quote(column)}", {"drop": [column]}, {})
    if found.rule == "class-imbalance":
        return Mend("--class-weight balanced", {"class_weight": "balanced"}, {})
    known: dict[str, dict[str, Any]] = {
        "lr-too-high": {"lr": "auto"},
        "lr-too-low": {"lr": "auto", "schedule": "constant"},
        "weights-not-updating": {"lr": "auto"},
        "weight-decay-too-strong": {"weight_decay": "auto"},
        "batch-size": {"batch_size": "auto"},
        "batchnorm-single-row": {"batch_size": "auto"},
        "dropout-misuse": {"dropout": 0.1},
        "linear-stack": {"activation": "relu"},
        "vanishing-gradients": {"activation": "relu"},
        "saturated-activation": {"activation": "relu"},
    }
    settings = known.get(found.rule)
    if settings is None:
        return None
    flags = (f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    return Mend(" ".join(flags), {}, settings)


def _raw_column(feature: str, prepared: Prepared) -> Any:
    """The table's column behind a feature of the encoder."""
    names = [column.name for column in prepared.schema.inputs]
    fits = (name for name in names if feature == name or feature.startswith(f"{name} "))
    return max(fits, key=len, default=None)


def in_flags(found: Finding, prepared: Prepared) -> Finding:
    """The finding with its mend as flags, where there are such."""
    mend = mend_of(found, prepared)
    return found if mend is None else replace(found, mend=mend.flag)


def try_mend(question: Question, found: Findings, notice: Notice) -> Tried | None:
    """Train briefly without and with the safest mend; None if no flag mends anything found.

    Parameters
    ----------
    question : whose rows and settings are judged
    found : by `check_table`
    notice : called with what is going on

    Returns
    -------
    Both trainings' metrics on the validation rows; no rows are kept for a test.
    """
    prepared = prepare(question, *read(question), lambda _: None)
    mends = ((one, mend_of(one, prepared)) for one in found)
    chosen = next(((one, mend) for one, mend in mends if mend is not None), None)
    if chosen is None:
        return None
    one, mend = chosen
    data = {name: _joined(getattr(question, name), value) for name, value in mend.data.items()}
    mended = replace(question, **data, settings={**question.settings, **mend.settings})
    notice(f"training {EPOCHS} epochs without and with {mend.flag}")
    before, after = (_briefly(asked) for asked in (question, mended))
    left = check_table(mended, lambda _: None)
    return Tried(one.rule, mend.flag, "validation", before, after, one.rule not in left.rules)


def _joined(old: Any, new: Any) -> Any:
    return [*old, *new] if isinstance(new, list) else new


def _briefly(question: Question) -> dict[str, float]:
    """The metrics of a short training on rows of which none are kept for the test."""
    asked = vars(question)
    names = (
        "sql", "task", "valid", "weights", "class_weight", "group", "time", "roles", "drop",
        "schema", "missing", "encoding", "random_state",
    )  # fmt: skip
    epochs = min(int(question.settings.get("epochs", EPOCHS)), EPOCHS)
    run = train(
        question.source, question.target, **{name: asked[name] for name in names}, test=0,
        baselines=False, **{**question.settings, "epochs": epochs},
    )  # fmt: skip
    return run.metrics
