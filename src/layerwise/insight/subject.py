"""What is to be explained: a model, and rows with answers that it was not trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerwise.data.files import read_table
from layerwise.data.table import Column, Table
from layerwise.data.target import Target
from layerwise.errors import DataWarning, SettingError
from layerwise.metrics import HIGHER_IS_BETTER, evaluate, names
from layerwise.model.model import Model
from layerwise.prepare import Part, labelled


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and rows to explain it on.

    Attributes
    ----------
    model : the model
    part : rows, answers and weights
    rows : what they are called: "test", "validation", "training" or "given"
    """

    model: Model
    part: Part
    rows: str

    def sample(self, most: int | None, random_state: int) -> Subject:
        """The same with at most so many rows, drawn without putting back."""
        n = len(self.part)
        if most is None or n <= most:
            return self
        picked = np.sort(np.random.default_rng(random_state).choice(n, most, replace=False))
        return Subject(self.model, self.part.take(picked), self.rows)

    def repeated(self, times: int) -> Subject:
        """All rows so many times, one whole after the other."""
        rows = np.tile(np.arange(len(self.part)), times)
        return Subject(self.model, self.part.take(rows), self.rows)

    def outputs(self, column: Column | None = None) -> np.ndarray:
        """Raw outputs of the rows; with another column in place of the one of its name."""
        table = self.part.table
        if column is not None:
            table = Table({**table.columns, column.name: column}, table.n_rows, table.source)
        return self.model.outputs(table)


def model_of(model: Any) -> Model:
    """The model of a run or an estimator, or the model itself.

    Raises
    ------
    SettingError
        For what is none of these.
    """
    if isinstance(model, Model):
        return model
    for name in ("model", "model_"):  # of a run, of a fitted estimator
        if isinstance(getattr(model, name, None), Model):
            return getattr(model, name)
    raise SettingError(
        "this explains a run of layerwise.train, a layerwise.Model or a fitted NetworkClassifier "
        f"or NetworkRegressor; got {type(model).__name__}"
    )


def subject_of(model: Any, data: Any = None, y: Any = None) -> Subject:
    """The model, and the rows to explain it on.

    Parameters
    ----------
    model : a run, a model or an estimator
    data : rows with the target column, in any form that `read_table` takes; or without it, if y is
        given; or None for the rows that a run was measured on
    y : the answers of the rows

    Warns
    -----
    DataWarning
        If the model has been trained on these very rows.

    Raises
    ------
    SettingError
        If there are no rows.
    DataError
        For rows that the model cannot read.
    """
    found = model_of(model)
    if data is None:
        if not hasattr(model, "rows"):
            raise SettingError(
                "give rows with answers that the model was not trained on; a run has its own: "
                "layerwise.Run.load(folder)"
            )
        prepared = model.rows()
        return Subject(found, prepared.measured, prepared.measured_on)
    if y is not None:
        table = found.read(data)
        answers = np.asarray(y)
        if len(answers) != table.n_rows:
            raise SettingError(f"there are {table.n_rows:,} rows and {len(answers):,} answers in y")
        return Subject(found, Part(table, answers), "given")
    part, fingerprint = _read(found, data)
    if fingerprint == found.info.get("data", {}).get("fingerprint"):
        if hasattr(model, "rows"):
            prepared = model.rows()
            return Subject(found, prepared.measured, prepared.measured_on)
        warnings.warn(
            "the model was trained on most of these rows, so what they tell is too sure; explain "
            "the run itself, which knows its test rows, or give rows that are new to it",
            DataWarning, stacklevel=3,
        )  # fmt: skip
    return Subject(found, part, "given")


def _read(model: Model, data: Any) -> tuple[Part, str]:
    """Rows with answers, and the fingerprint of the whole table."""
    kinds = model.schema.kinds()
    target = model.target
    if target.is_regression:
        kinds[target.name] = "number"
    else:
        kind = {"b": "boolean", "i": "number", "f": "number"}
        kinds[target.name] = kind.get(target.classes.dtype.kind, "text")  # type: ignore[assignment]
    table = read_table(data, kinds=kinds, missing=model.schema.missing)
    return labelled(table, model.schema, target, lambda _: None), table.fingerprint()


# ---------------------------------------------------------------- how good the answers are


@dataclass(frozen=True, eq=False)
class Score:
    """A metric of the task on fixed rows, for several weightings of them at once.

    Attributes
    ----------
    name : of the metric; rmse of a regression and log_loss of classes see more than right or wrong
    sign : 1 if lower is better, else -1
    """

    target: Target
    y: np.ndarray
    name: str

    @classmethod
    def of(cls, target: Target, y: np.ndarray, name: str | None = None) -> Score:
        """The metric of this name, or the task's own."""
        name = name or ("rmse" if target.is_regression else "log_loss")
        if name not in names(target):
            known = ", ".join(names(target))
            raise SettingError(f"metric {name!r} is none of a {target.task} task: {known}")
        return cls(target, y, name)

    @property
    def sign(self) -> float:
        """1 if lower is better, -1 if higher is."""
        return -1.0 if self.name in HIGHER_IS_BETTER else 1.0

    @property
    def quick(self) -> bool:
        """Whether it is a mean over rows, so that many weightings cost little."""
        return self.y.ndim == 1 and self.name in ("rmse", "mae", "log_loss", "accuracy")

    def __call__(self, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Array of shape (n_weightings,) from weights of shape (n_weightings, n_rows)."""
        if not self.quick:
            return np.array([self._slow(outputs, one) for one in weights])
        found = weights @ self._rows(outputs) / weights.sum(axis=1)
        return np.asarray(np.sqrt(found) if self.name == "rmse" else found)

    def _slow(self, outputs: np.ndarray, weight: np.ndarray) -> float:
        there = weight > 0
        found = evaluate(self.target, self.y[there], outputs[there], weight[there])
        return found.get(self.name, np.nan)

    def _rows(self, outputs: np.ndarray) -> np.ndarray:
        """What the metric is a mean of, for each row."""
        if self.name == "log_loss":
            p = self.target.probabilities(outputs)
            right = p[np.arange(len(p)), self.target.codes(self.y)]
            return np.asarray(-np.log(np.maximum(right, np.finfo(p.dtype).eps)))
        answers = self.target.decode(outputs)
        if self.name == "accuracy":
            return np.asarray(answers == self.y, dtype=np.float64)
        errors = np.abs(answers - self.y)
        return np.asarray(errors**2 if self.name == "rmse" else errors)
