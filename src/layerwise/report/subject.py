"""What a report is about: a run, its rows, and its answers to the rows that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from layerwise import metrics

if TYPE_CHECKING:
    from layerwise.data.target import Target
    from layerwise.out_of_fold import OutOfFold
    from layerwise.prepare import Part, Prepared
    from layerwise.run import Run


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
        return metrics.DECIDING[self.target.task]

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
        return metrics.row_losses(self.target, self.part.y, self.outputs)

    def score(self, rows: np.ndarray | None = None) -> tuple[float, float]:
        """The deciding metric of all or some rows, and its standard error."""
        errors, weight = self.errors, self.weight
        if rows is not None:
            errors, weight = errors[rows], weight[rows]
        return metrics.with_error(self.target, errors, weight)
