"""The folder that keeps a run, and is all that those who watch it need.

It has ``model.layerwise``, ``history.jsonl`` (one event a line, flushed, so that others can follow
it), ``run.json`` (what was asked, what came out), ``schema.toml``, and while it trains
``checkpoint.layerwise``.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise import storage
from layerwise._version import __version__
from layerwise.data.schema import Schema
from layerwise.errors import DataError, ModelFileError, OutputError
from layerwise.model import file as model_file
from layerwise.out_of_fold import NAME as OUT_OF_FOLD
from layerwise.prepare import Prepared, Question
from layerwise.training.history import History

if TYPE_CHECKING:
    from layerwise.training.fit import EpochEnd

CHECKPOINT, RECORD, EVENTS, SCHEMA = (
    "checkpoint.layerwise", "run.json", "history.jsonl", "schema.toml",
)  # fmt: skip


def load_record(folder: str | Path) -> dict[str, Any]:
    """``run.json`` of a run folder as plain values."""
    path = Path(folder) / RECORD
    if not Path(folder).exists():
        raise ModelFileError(f"there is no run folder {folder}")
    if not path.exists():
        raise ModelFileError(f"{folder} is no run folder: it has no {RECORD}")
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from None
    if not isinstance(record, dict) or not {"status", "question", "data"} <= set(record):
        raise ModelFileError(f"{path} is no record of a run")
    return record


def read_events(folder: str | Path) -> list[dict[str, Any]]:
    """The events of a run so far; a last line cut short by a kill is left out."""
    path = Path(folder) / EVENTS
    events = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ModelFileError(f"{path} line {number} is no JSON") from None
    return events


def load_history(folder: str | Path, record: Mapping[str, Any]) -> History:
    """The history of a complete run, of a bag with that of each member."""
    epochs = [event for event in read_events(folder) if event["event"] == "epoch"]
    if "members" not in record:
        return _history(epochs, record)
    numbers = sorted({event["member"] for event in epochs})
    members = [
        _history([event for event in epochs if event["member"] == number], told)
        for number, told in zip(numbers, record["members"])
    ]
    return History.of_bag(members, record["stopped"])


def _history(epochs: Sequence[dict[str, Any]], told: Mapping[str, Any]) -> History:
    return History(
        [_numbers(event["row"]) for event in epochs], told["best_epoch"], told["stopped"],
        told.get("engine", "torch"), told.get("engine_reason", ""),
        [_numbers(row) for event in epochs for row in event.get("layers", [])],
    )  # fmt: skip


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of events, where JSON has null for NaN."""
    return {name: math.nan if value is None else value for name, value in row.items()}


class Keeper:
    """Writes the run folder while a training goes on."""

    def __init__(
        self, folder: Path, question: Question, resumed: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self._resumed = resumed
        self._record: dict[str, Any] = {
            "layerwise": __version__,
            "python": platform.python_version(),
            "command": list(sys.orig_argv),
            "started": _now(),
            "status": "running",
            "question": question.to_json(),
        }

    def begin(self, prepared: Prepared, data: Mapping[str, Any]) -> None:
        """The data are read: record what will be learnt from what."""
        if self._resumed is not None:
            before = self._resumed["data"]
            same = before["fingerprint"] == data["fingerprint"]
            if same and before.get("folds") != data.get("folds"):
                raise DataError(
                    f"the run in {self.folder} was begun by another layerwise, with its rows in "
                    f"{before.get('folds')} folds and not {data.get('folds')}; train anew"
                )
            if before != data:
                raise DataError(
                    f"{prepared.train.table.source} has changed since the run in {self.folder} "
                    "began, and going on would mix two tables; train anew"
                )
            if not _same_roles(Schema.from_toml(self.folder / SCHEMA), prepared.schema):
                raise DataError(
                    f"the schema is not that of {self.folder / SCHEMA} any more; train anew"
                )
            self._record |= {"started": self._resumed["started"], "resumed": _now()}
            self._cut_events()
        else:
            storage.write_whole(self.folder / SCHEMA, prepared.schema.to_toml())
            storage.write_whole(self.folder / EVENTS, "")
        self._record["data"] = dict(data)
        self._write()
        self._event({"event": "start", "at": _now(), "target": prepared.target.name,
                     "task": prepared.target.task, "rows": prepared.sizes})  # fmt: skip

    @property
    def tried(self) -> list[dict[str, Any]]:
        """The recipes that were compared before the run was stopped, if any were."""
        return list((self._resumed or {}).get("tried", []))

    def checkpoint(self) -> Any:
        """Where the training's state is saved and continued from."""
        from layerwise.training.checkpoint import Checkpoint

        return Checkpoint(self.folder / CHECKPOINT)

    def chosen(self, question: Question, tried: Sequence[Mapping[str, Any]]) -> None:
        """Recipes were compared: a run that goes on trains with the one that was taken."""
        self._record |= {"question": question.to_json()} | ({"tried": list(tried)} if tried else {})
        self._write()

    def epoch(self, event: EpochEnd) -> None:
        """A callback: append the epoch's row."""
        member = event.member if event.members > 1 else None
        self._epoch(event.row, event.best_epoch, event.layers, member)

    def epochs(self, history: History) -> None:
        """Append the rows of a bag that was trained unwatched."""
        for number, member in enumerate(history.members, start=1):
            for row in member.rows:
                layers = [one for one in member.layers if one["epoch"] == row["epoch"]]
                self._epoch(row, member.best_epoch, layers, number)

    def _epoch(
        self, row: Mapping[str, Any], best: int, layers: Sequence[Mapping[str, Any]],
        member: int | None,
    ) -> None:  # fmt: skip
        # JSON has no NaN: a loss that is none is written as null
        told: dict[str, Any] = {"event": "epoch", "row": _finite(row), "best_epoch": best}
        if member is not None:
            told["member"] = member
        if layers:
            told["layers"] = [_finite(one) for one in layers]
        self._event(told)

    def end(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The model is saved: record what came out."""
        self._record |= {**outcome, "finished": _now()}
        self._event({"event": "end", "at": _now(), "stopped": outcome["stopped"],
                     "best_epoch": outcome["best_epoch"]})  # fmt: skip
        self._write()
        if outcome["status"] == "done":
            for path in self._checkpoints().values():
                path.unlink(missing_ok=True)  # only now is nothing lost by it
        return self._record

    def fail(self, error: BaseException) -> None:
        """The training raised: record why, or leave nothing where nothing came of it."""
        if self._resumed is not None and "data" not in self._record:
            return  # it could not even go on: the run is as it was
        kept = self._checkpoints() or (self.folder / model_file.NAME).exists()
        if self._resumed is None and not kept:
            for name in (RECORD, EVENTS, SCHEMA, OUT_OF_FOLD):
                (self.folder / name).unlink(missing_ok=True)
            return
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self._record |= {"status": status, "error": str(error), "finished": _now()}
        with contextlib.suppress(OutputError):  # the disk may be what failed
            self._event({"event": "failed", "at": _now(), "error": str(error)})
            self._write()

    def _cut_events(self) -> None:
        """Forget the epochs after the last checkpoint: they will come again."""
        reached = {}
        for member, path in self._checkpoints().items():
            header = storage.unpack(path, "checkpoint")[1]
            ended = header.get("ended")
            epochs = len(ended["history"]["rows"]) if ended else header["checkpoint"]["epoch"]
            reached[member] = epochs
        events = [
            event for event in read_events(self.folder)
            if event["event"] == "start"
            or (
                event["event"] == "epoch"
                and event["row"]["epoch"] <= reached.get(event.get("member", 0), 0)
            )
        ]  # fmt: skip
        lines = "".join(json.dumps(event) + "\n" for event in events)
        storage.write_whole(self.folder / EVENTS, lines)

    def _checkpoints(self) -> dict[int, Path]:
        """The checkpoints there are: that of one network is number 0, members count from 1."""
        one = Path(CHECKPOINT)
        found = sorted(self.folder.glob(f"{one.stem}*{one.suffix}"))
        return {int(path.stem[len(one.stem) + 1 :] or 0): path for path in found}

    def _event(self, event: Mapping[str, Any]) -> None:
        try:
            with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self.folder / EVENTS} cannot be written: {error.strerror}"
            ) from None

    def _write(self) -> None:
        text = json.dumps(self._record, indent=1, ensure_ascii=False, default=_plain)
        storage.write_whole(self.folder / RECORD, text + "\n")


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for what is no number, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _plain(value: Any) -> Any:
    """What JSON does not know: NumPy's numbers and arrays as Python's, the rest as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _same_roles(one: Schema, other: Schema) -> bool:
    """Whether both read every column alike; reasons may differ."""
    return one.missing == other.missing and [(c.name, c.role, c.format) for c in one] == [
        (c.name, c.role, c.format) for c in other
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
