"""Encoder, network and target together: raw columns in, answers out. No torch needed."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.data.encoder import Encoder
from layerwise.data.files import read_table
from layerwise.data.schema import Schema, enforce
from layerwise.data.table import Kind, Table
from layerwise.data.target import Target
from layerwise.errors import DataError, DataWarning
from layerwise.network.forward import forward
from layerwise.network.plan import Layer

if TYPE_CHECKING:
    from torch import nn

_MANY = 2048  # rows; of fewer the threads cost more than they bring


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model.

    Attributes
    ----------
    schema : what the columns are
    encoder : columns to the network's matrix
    plan : the network's layers
    members : the weights of each network of the plan; their answers are averaged
    target : the task, and how outputs become answers
    recipe : the settings of the training, as plain values
    temperature : by which the logits of several members' mean answer are divided
    limits : of a regression with several members, the lowest and the highest output there can be,
        of shape (2, n_outputs); they are those of the training rows
    info : rows, metrics, the epoch kept, versions and the data's fingerprint, as plain values
    """

    schema: Schema
    encoder: Encoder
    plan: list[Layer]
    members: list[dict[str, np.ndarray]]
    target: Target
    recipe: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    limits: np.ndarray | None = None

    def read(self, data: Any, also: Sequence[str] = (), encoding: str = "utf-8") -> Table:
        """Read new rows: the columns the network needs, by name, and ``also`` some others.

        Raises
        ------
        DataError
            For a needed column that is gone, or a cell of the wrong kind, naming column and row.
        """
        names = [step.name for step in self.encoder.steps]
        beside = [name for name in also if name not in names]
        kinds: dict[str, Kind] = {n: k for n, k in self.schema.kinds().items() if n in names}
        kinds |= dict.fromkeys(beside, "text")  # as they are, also where the schema knows them not
        wanted = [*names, *beside]
        table = read_table(
            data, kinds=kinds, columns=wanted, missing=self.schema.missing, encoding=encoding
        )
        if any(name not in table for name in wanted) and not isinstance(data, Table):
            with contextlib.suppress(DataError):  # all its names, for the hint at the right one
                table = read_table(data, missing=self.schema.missing, encoding=encoding)
        known = enforce(table, self.schema, names)
        return replace(known, columns={**known.columns, **{n: table[n] for n in beside}})

    def outputs(self, table: Table) -> np.ndarray:
        """Raw outputs (logits, or standardised numbers) of shape (n_rows, n_outputs), float64.

        Several members answer with the mean of their probabilities (of their numbers), as logits.
        """
        outputs = self.member_outputs(self.encode(table))
        if len(outputs) == 1:
            return outputs[0]
        return self.finish(self.target.average(outputs))

    def member_outputs(self, X: np.ndarray) -> list[np.ndarray]:
        """Raw outputs of each member for encoded rows, several members at a time."""
        if len(self.members) == 1 or len(X) < _MANY:
            return [forward(self.plan, member, X) for member in self.members]
        with ThreadPoolExecutor(min(len(self.members), os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda member: forward(self.plan, member, X), self.members))

    def finish(self, outputs: np.ndarray) -> np.ndarray:
        """The mean answer of several members within its limits, or at its temperature."""
        if self.limits is not None:
            return np.clip(outputs, *self.limits)
        return outputs if self.temperature == 1 else outputs / self.temperature

    def encode(self, table: Table) -> np.ndarray:
        """The network's matrix of shape (n_rows, n_inputs), in the precision of its weights."""
        return self.encoder.transform(table, dtype=self.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The precision of the weights."""
        double = any(array.dtype == np.float64 for array in self.members[0].values())
        return np.dtype(np.float64 if double else np.float32)

    def predict(self, data: Any) -> np.ndarray:
        """Answers for raw rows: numbers, or class labels.

        Parameters
        ----------
        data : a path, a DataFrame, a dict of columns, an array: what `read_table` takes. Columns
            are found by name; the target need not be there; others are ignored

        Returns
        -------
        array of shape (n_rows,), or (n_rows, n_outputs) for several targets

        Raises
        ------
        DataError
            For a column that is gone or a cell that cannot be read, naming both.

        Warns
        -----
        DataWarning
            For what the training rows had not: new levels, gaps, values out of range.
        """
        return self.target.decode(self.outputs(self._read_and_warn(data)))

    def predict_proba(self, data: Any) -> np.ndarray:
        """Probabilities of shape (n_rows, n_classes), in the order of ``target.classes``."""
        return self.target.probabilities(self.outputs(self._read_and_warn(data)))

    def _read_and_warn(self, data: Any) -> Table:
        table = self.read(data)
        for notice in self.encoder.notices(table):
            warnings.warn(notice, DataWarning, stacklevel=3)
        return table

    def network(self, member: int | None = None) -> nn.Module:
        """The network in evaluation mode (imports torch).

        Parameters
        ----------
        member : one of several, counted from 0; None for all of them together

        Returns
        -------
        nn.Sequential, or of several members a `layerwise.network.bag.Bag`, which maps encoded rows
        to the same raw outputs as `outputs` does
        """
        from layerwise.network.build import from_arrays

        if member is not None or len(self.members) == 1:
            return from_arrays(self.plan, self.members[member or 0])
        from layerwise.network.bag import Bag

        networks = [from_arrays(self.plan, one) for one in self.members]
        return Bag(networks, self.target.task, self.temperature, self.limits).eval()

    def save(self, path: str | Path) -> None:
        """Write the model to one ``.layerwise`` file; see `layerwise.model.file`."""
        from layerwise.model.file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model file, or the model of a run folder."""
        from layerwise.model.file import load

        return load(path)

    def with_info(self, info: Mapping[str, Any]) -> Model:
        """The same model with more to tell about itself."""
        return replace(self, info={**self.info, **info})
