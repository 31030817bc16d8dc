"""The task: what the network has to say, how answers become numbers and numbers answers.

The network's last layer is linear. Regression has one output for each target, standardised while
training; two classes have one logit, more classes one logit each. Sigmoid and softmax are applied
here, when answering, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerwise.data.table import Column, Table
from layerwise.errors import DataError, SettingError, did_you_mean

Task = Literal["regression", "binary", "multiclass", "multilabel"]
FEW_CLASSES = 10  # whole numbers with at most this many different values read as classes


@dataclass(frozen=True, eq=False)
class Target:
    """How the target is encoded for one task; all of it learnt on training rows.

    Attributes
    ----------
    task : regression, binary, multiclass or multilabel
    classes : array of the class labels, sorted; empty for regression
    mean, scale : float64 arrays of shape (n_outputs,), of the regression target
    name : the target's column
    flat : whether y has one dimension
    """

    task: Task
    classes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    name: str = "y"
    flat: bool = True

    @property
    def n_outputs(self) -> int:
        """The width of the network's last layer."""
        if self.task == "regression":
            return len(self.mean)
        return 1 if self.task == "binary" else len(self.classes)

    @property
    def is_regression(self) -> bool:
        """Whether the answers are numbers."""
        return self.task == "regression"

    @classmethod
    def regression(cls, y: np.ndarray, weight: np.ndarray | None = None, name: str = "y") -> Target:
        """Learn mean and standard deviation of y, float array of shape (n_rows,) or (n_rows, k)."""
        columns = y.reshape(len(y), -1).astype(np.float64)
        # Divided by the largest first, so that squares of 1e300 stay finite.
        largest = np.maximum(np.abs(columns).max(axis=0), np.finfo(np.float64).tiny)
        shares = columns / largest
        middle = np.average(shares, axis=0, weights=weight)
        scale = largest * np.sqrt(np.average((shares - middle) ** 2, axis=0, weights=weight))
        mean = largest * middle
        # A constant's deviation is rounding noise; one ulp of the mean is no scale.
        scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)
        return cls("regression", np.array([]), mean, scale, name, y.ndim == 1)

    @classmethod
    def classification(cls, classes: np.ndarray, name: str = "y") -> Target:
        """Two classes or more, given sorted and without repeats."""
        task: Task = "binary" if len(classes) == 2 else "multiclass"
        return cls(task, classes, np.zeros(0), np.ones(0), name)

    @classmethod
    def multilabel(cls, n_labels: int, name: str = "y") -> Target:
        """Yes or no for each of several labels; y is 0/1 of shape (n_rows, n_labels)."""
        return cls("multilabel", np.arange(n_labels), np.zeros(0), np.ones(0), name, False)

    # ------------------------------------------------------------ answers to numbers

    def encode(self, y: np.ndarray) -> np.ndarray:
        """What the loss compares the outputs with.

        Returns
        -------
        regression: float64 (n_rows, n_outputs), standardised; binary: float64 (n_rows, 1) of 0
        and 1; multiclass: int64 (n_rows,) of class indices; multilabel: float64 (n_rows, n_labels)

        Raises
        ------
        DataError
            For a class that training did not have.
        """
        width = 1 if np.ndim(y) == 1 else np.shape(y)[1]
        if self.task in ("regression", "multilabel") and width != self.n_outputs:
            raise DataError(f"y has {width} columns; the network was made for {self.n_outputs}")
        if self.task == "regression":
            return (y.reshape(len(y), -1).astype(np.float64) - self.mean) / self.scale
        if self.task == "multilabel":
            return np.asarray(y, dtype=np.float64)
        codes = self.codes(y)
        if (codes < 0).any():
            label = np.asarray(y)[codes < 0][0]
            raise DataError(f"target {self.name!r}: class {label!r} was not in the training rows")
        return codes.astype(np.float64)[:, None] if self.task == "binary" else codes

    def codes(self, y: np.ndarray) -> np.ndarray:
        """Int64 array of shape (n_rows,): the index of each label in ``classes``, or -1."""
        index = {label: i for i, label in enumerate(self.classes.tolist())}
        labels = np.asarray(y)
        if labels.dtype.kind in "biuf":  # of texts, sorting costs more than asking for each
            known, rows = np.unique(labels, return_inverse=True)
            return np.array([index.get(one, -1) for one in known.tolist()], dtype=np.int64)[rows]
        return np.array([index.get(label, -1) for label in labels.tolist()], dtype=np.int64)

    # ------------------------------------------------------------ outputs to answers

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of shape (n_rows, n_outputs) as answers: numbers or labels."""
        if self.task == "regression":
            answers = outputs.astype(np.float64) * self.scale + self.mean
            return answers[:, 0] if self.flat else answers
        if self.task == "binary":
            return self.classes[(outputs[:, 0] > 0).astype(np.int64)]
        if self.task == "multiclass":
            return self.classes[outputs.argmax(axis=1)]
        return (outputs > 0).astype(np.int64)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs as probabilities of shape (n_rows, n_classes), in the order of classes."""
        if self.task == "regression":
            raise SettingError("a regression has no probabilities")
        logits = outputs.astype(np.float64)
        if self.task == "multiclass":
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
        # 1 / (1 + exp(-x)) without an exp that overflows, and precise on both sides.
        small = np.exp(-np.abs(logits))
        nearer, farther = 1 / (1 + small), small / (1 + small)
        positive = np.where(logits >= 0, nearer, farther)
        if self.task == "multilabel":
            return np.asarray(positive)
        return np.hstack([np.where(logits >= 0, farther, nearer), positive])

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """The outputs of shape (n_rows, n_outputs) that have these probabilities."""
        p = np.clip(probabilities, 1e-300, 1)
        if self.task == "multiclass":
            return np.log(p)
        if self.task == "binary":
            return np.log(p[:, 1:]) - np.log(p[:, :1])
        return np.log(p) - np.log(np.clip(1 - p, 1e-300, 1))

    def average(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The outputs that several networks' answers have in the mean.

        Of classes the probabilities are averaged, of a regression the numbers.

        Parameters
        ----------
        outputs : of each network, all of shape (n_rows, n_outputs)

        Returns
        -------
        float64 array of shape (n_rows, n_outputs): logits, or standardised numbers

        Examples
        --------
        >>> target = Target.classification(np.array(["no", "yes"]))
        >>> mean = target.average([np.array([[0.0]]), np.array([[np.log(3)]])])
        >>> target.probabilities(mean).round(3).tolist()  # of 0.5 and 0.75
        [[0.375, 0.625]]
        """
        if self.is_regression:
            return np.asarray(np.mean(outputs, axis=0, dtype=np.float64))
        total = self.probabilities(outputs[0])
        for one in outputs[1:]:
            total = total + self.probabilities(one)
        return self.logits(total / len(outputs))

    # ------------------------------------------------------------ as plain values

    def to_json(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "task": self.task,
            "name": self.name,
            "classes": self.classes.tolist(),
            "dtype": self.classes.dtype.str if self.classes.dtype.kind in "biuf" else "O",
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "flat": self.flat,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Target:
        """The target back from `to_json`."""
        dtype = object if state["dtype"] == "O" else np.dtype(state["dtype"])
        return cls(
            state["task"],
            np.array(state["classes"], dtype=dtype),
            np.array(state["mean"], dtype=np.float64),
            np.array(state["scale"], dtype=np.float64),
            state["name"],
            state["flat"],
        )


# ---------------------------------------------------------------- from a table's column


def labels_of(column: Column) -> np.ndarray:
    """The cells as labels: strings, True/False, or whole numbers; no cell may be a gap."""
    if column.kind == "boolean":
        return column.values.astype(bool)
    if column.kind == "number":
        whole = bool(np.all(column.values == np.floor(column.values)))
        return column.values.astype(np.int64) if whole else column.values
    return column.texts()


def infer_task(column: Column, said: str = "auto") -> tuple[str, str]:
    """Whether the target asks for classes or a number, and the rule that says so.

    Returns
    -------
    ("classification" or "regression", the reason in words)

    Raises
    ------
    DataError
        If the target cannot be learnt: all gaps, constant, a date, as many classes as rows.
    """
    name, present = column.name, column.take(~column.missing)
    if not len(present):
        raise DataError(f"target {name!r}: every cell is a gap, so there is nothing to learn")
    distinct = np.unique(present.values)
    if len(distinct) == 1:
        raise DataError(
            f"target {name!r} is constant: all {len(present):,} cells are {present.texts()[0]!r}. "
            "There is nothing to learn; is it the right column?"
        )
    if said not in ("auto", "classification", "regression"):
        known = did_you_mean(said, ("auto", "classification", "regression"))
        raise SettingError(f"unknown task {said!r}. {known}")
    if column.kind == "datetime":
        raise DataError(f"target {name!r} is a date; turn it into a number (days since …) first")
    if column.odd is not None and said != "classification":
        cell = column.odd.examples[0]
        what = {"number": "numbers", "datetime": "ISO dates"}[column.odd.kind]
        raise DataError(
            f"target {name!r} is nearly all {what}, but row {cell[0] + 1} has {cell[1]!r}. Count "
            f"it as a gap (--missing {cell[1]!r}), or say --task classification."
        )
    if said == "regression":
        if column.kind == "text":
            raise DataError(
                f"target {name!r} has texts such as {present.texts()[0]!r}; "
                "a regression needs numbers"
            )
        return "regression", "as you said"
    if said == "auto" and column.kind == "number":
        whole = bool(np.all(present.values == np.floor(present.values)))
        if not whole or (len(distinct) > FEW_CLASSES):
            return "regression", f"{len(distinct):,} different numbers"
        reason = (
            f"{len(distinct)} different whole numbers, at most {FEW_CLASSES} read as classes; "
            "--task regression reads them as numbers"
        )
    else:
        reason = "as you said" if said != "auto" else f"{len(distinct):,} different values"
    if len(distinct) > max(2, len(present) / 2):
        raise DataError(
            f"target {name!r} has {len(distinct):,} classes in {len(present):,} rows, more than "
            "one for every two rows: too few of each to learn. Is it the right column, or should "
            "it be --task regression?"
        )
    return "classification", reason


def target_values(column: Column, task: str) -> np.ndarray:
    """y as `Target` takes it; no cell may be a gap."""
    if task == "regression":
        return column.values.astype(np.float64)
    return labels_of(column)


def rows_with_target(table: Table, name: str) -> np.ndarray:
    """Indices of the rows whose target is no gap; an infinite one is an error."""
    column = table[name]
    if column.kind == "number":
        rows = np.flatnonzero(np.isinf(column.values))
        if rows.size:
            raise DataError(
                f"{table.where(int(rows[0]))}, target {name!r}: the number is infinity. "
                "Correct the cell or leave it empty."
            )
    return np.flatnonzero(~column.missing)
