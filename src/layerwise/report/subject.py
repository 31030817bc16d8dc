"""What a report is about: a run, its rows, and its answers to the rows that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from layerwise.data.target import Target
    from layerwise.out_of_fold import OutOfFold
    from layerwise.prepare import Part, Prepared
    from layerwise.run import Run

# The metric that decides: proper scores, not thresholds.
DECIDING = {"regression": "rmse", "binary": "log_loss", "multiclass": "log_loss"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A run with its rows at hand."""

    run: Run
    prepared: Prepared

    @property
    def target(self) -> Target:
        """The task."""
        return self.run.model.target

    @cached_property
    def part(self) -> Part:
        """The rows that the run is measured on; of a bag without test rows those held out."""
        held = self.held
        if held is None:
            return self.prepared.measured
        train = self.prepared.train
        places = train.table.rows if train.table.rows is not None else np.arange(len(train))
        return train.take(np.flatnonzero(np.isin(places, held.rows)))

    @property
    def held(self) -> OutOfFold | None:
        """The answers out of fold, if it is by them that the run is measured."""
        told = self.run.record["measured_on"] == "out-of-fold"
        return self.run.out_of_fold if told else None

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return DECIDING[self.target.task]

    @cached_property
    def outputs(self) -> np.ndarray:
        """Raw outputs of shape (n_rows, n_outputs)."""
        if self.held is not None:
            return self.held.outputs
        return self.run.model.outputs(self.part.table)

    @cached_property
    def answers(self) -> np.ndarray:
        """Numbers or labels, shape (n_rows,)."""
        return self.target.decode(self.outputs)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of shape (n_rows, n_classes)."""
        return self.target.probabilities(self.outputs)

    @cached_property
    def weight(self) -> np.ndarray:
        """Row weights, 1 where there are none."""
        given = self.part.weight
        return np.ones(len(self.part)) if given is None else given

    @cached_property
    def errors(self) -> np.ndarray:
        """What each row adds to the deciding metric: its squared error, or its log loss."""
        if self.target.is_regression:
            return np.asarray((self.answers - self.part.y) ** 2)
        codes = self.target.codes(self.part.y)
        p = self.probabilities[np.arange(len(codes)), codes]
        return -np.log(np.clip(p, np.finfo(np.float64).eps, 1))

    def score(self, rows: np.ndarray | None = None) -> tuple[float, float]:
        """The deciding metric of some rows, and its standard error.

        The error of a mean over rows is their deviation over the root of how many they are (of
        weighted rows, as many as they are worth: Kish, 1965); that of a root of it follows by the
        delta method.
        """
        errors, weight = self.errors, self.weight
        if rows is not None:
            errors, weight = errors[rows], weight[rows]
        mean = float(np.average(errors, weights=weight))
        effective = weight.sum() ** 2 / (weight**2).sum()
        spread = float(np.average((errors - mean) ** 2, weights=weight))
        error = float(np.sqrt(spread / max(effective - 1, 1)))
        if not self.target.is_regression:
            return mean, error
        root = float(np.sqrt(mean))
        return root, error / (2 * root) if root else 0.0
