"""What a person sees while training: one calm line, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from layerwise.training.fit import EpochEnd

_WIDTH = 79
_BLOCK = 10  # lines of a live block at most
_EVERY_S = 1.0  # plain lines at most this often, so that a log stays readable


class Progress:
    """A callback that shows each epoch: live on a terminal, else as lines once a second."""

    def __init__(self, stream: TextIO, *, live: bool | None = None) -> None:
        self.stream = stream
        self.live = stream.isatty() if live is None else live
        self._shown = 0.0
        self._last: dict[int, EpochEnd] = {}  # of each network
        self._status: Any = None

    def __call__(self, event: EpochEnd) -> None:
        """Show one epoch."""
        self._last[event.member] = event
        if self.live:
            self._show_live(event)
        elif time.monotonic() - self._shown >= _EVERY_S:
            self._shown = time.monotonic()
            print(line(event), file=self.stream, flush=True)

    def close(self) -> None:
        """End the live lines, and let the last epoch stand."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._last and (self.live or self._shown):
            events = list(self._last.values())
            text = line(events[0], ended=True) if len(events) == 1 else all_ended(events)
            print(text, file=self.stream, flush=True)
            self._last = {}

    def _show_live(self, event: EpochEnd) -> None:
        from rich.console import Console
        from rich.status import Status

        if self._status is None:
            self._status = Status("", console=Console(file=self.stream))
            self._status.start()
        shown = sorted(self._last.values(), key=lambda one: one.member)[-_BLOCK:]
        # the spinner takes two places of the first line
        self._status.update("\n  ".join(line(one)[:77] for one in shown))


def line(event: EpochEnd, *, ended: bool = False) -> str:
    """Epoch, losses, metric, speed and time in at most 79 characters.

    Examples
    --------
    >>> from layerwise.training.fit import EpochEnd
    >>> row = {"epoch": 7, "train_loss": 0.31, "valid_loss": 0.35, "accuracy": 0.9, "lr": 0.001}
    >>> line(EpochEnd(row, 200, 6, 3.5, 41000.0))
    'epoch 7/200  train 0.3100  valid 0.3500  accuracy 0.900  best 6  ≤96 s'
    """
    row = event.row
    number = f"{event.member}/{event.members} " if event.members > 1 else ""
    parts = [f"{number}epoch {row['epoch']}/{event.epochs}", f"train {_loss(row['train_loss'])}"]
    if "valid_loss" in row:
        parts.append(f"valid {_loss(row['valid_loss'])}")
    known = {"epoch", "train_loss", "valid_loss", "loss", "lr", "seconds"}
    for name in [name for name in row if name not in known][:1]:
        parts.append(f"{name} {_short(row[name])}")
    parts.append(f"best {event.best_epoch}")
    if ended:
        parts.append(f"{event.elapsed_s:.1f} s")
    else:
        speed = f"{_thousands(event.rows_per_s)} rows/s"
        parts.append(speed)
        left = event.elapsed_s / row["epoch"] * (event.epochs - row["epoch"])
        if left >= 1 and event.elapsed_s >= 1:
            parts.append(f"≤{_duration(left)}")
        if len("  ".join(parts)) > _WIDTH:
            parts.remove(speed)
    return "  ".join(parts)[:_WIDTH]


def all_ended(events: Sequence[EpochEnd]) -> str:
    """One line on how the networks of a bag ended, in at most 79 characters."""
    events = sorted(events, key=lambda event: event.member)
    best = ", ".join(str(event.best_epoch) for event in events)
    most = max(event.row["epoch"] for event in events)
    seconds = max(event.elapsed_s for event in events)
    name = "valid_loss" if all("valid_loss" in event.row for event in events) else "train_loss"
    loss = sum(event.row[name] for event in events) / len(events)
    text = f"{len(events)} networks  {most} epochs  {name.split('_')[0]} {_loss(loss)}  best {best}"
    end = f"  {seconds:.1f} s"
    return text[: _WIDTH - len(end)] + end


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.3g}"


def _short(value: float) -> str:
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _thousands(value: float) -> str:
    return f"{value / 1000:.0f}k" if value >= 1000 else f"{value:.0f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
