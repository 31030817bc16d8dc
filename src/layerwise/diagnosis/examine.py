"""`layerwise.doctor`: look at model, loss, optimizer and rows before a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.experiments import experiment
from layerwise.diagnosis.finding import Findings
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.rules import apply_rules
from layerwise.training.checks import check_model


def doctor(
    model: nn.Module,
    loss: Any,
    optimizer: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    X_val: Any = None,
    y_val: Any = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    shuffle: bool | None = None,
    drop_last: bool | None = None,
    names: Sequence[str] | None = None,
    tests: bool = False,
) -> Findings:
    """Say what would keep this training from working, and how to mend it.

    The modules, the loss, the optimizer and the rows are looked at, and one forward and one
    backward pass are made on a copy. Nothing of yours is touched: weights, buffers, gradients,
    modes and random states are what they were.

    Parameters
    ----------
    model : any module
    loss : a loss of ``torch.nn``, a function of (outputs, y), or a name of `layerwise.fit`
    optimizer : an instance, a list of them, or None
    X, y : the training rows, as tensors, arrays or a frame of numbers; or X a ``DataLoader`` and y
        None, whose batch size, order and ``drop_last`` are then read from it
    X_val, y_val : the validation rows
    batch_size, epochs, shuffle, drop_last : of the training to come, as far as they are settled
    names : of the columns of X
    tests : also do what practitioners try: overfit one batch, shuffle the labels, blank the inputs,
        look for rows that depend on other rows

    Returns
    -------
    Findings
        A list of `layerwise.Finding`, what to mend first at the top.

    Raises
    ------
    SettingError
        For a model that is no module. Nothing else is raised: what fails is a finding.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))
    >>> X, y = torch.randn(60, 4), torch.arange(60) % 3
    >>> for finding in doctor(model, nn.CrossEntropyLoss(), None, X, y):
    ...     print(finding.rule, "at", finding.where)
    softmax-before-ce at 3
    """
    check_model(model)
    case = Case.of(
        model, loss, optimizer, X, y, X_val=X_val, y_val=y_val, batch_size=batch_size,
        epochs=epochs, shuffle=shuffle, drop_last=drop_last, names=names,
    )  # fmt: skip
    seen = examine(case)
    return tried(case, seen) if tests else seen


def tried(case: Case, seen: Findings) -> Findings:
    """The findings with what comes of trying; what a known error explains is not said again."""
    trials = experiment(case)
    more = [] if seen.errors else [trial.found for trial in trials if trial.found is not None]
    return Findings([*seen, *seen.explained, *more], seen.skipped, trials)


def examine(case: Case) -> Findings:
    """What the rules of the first two stages find in a case."""
    found, skipped = apply_rules("static", case)
    first = FirstBatch.of(case)
    more, also = apply_rules("first_batch", first)
    return Findings([*found, *more, *first.troubles], [*skipped, *also, *first.skipped])
