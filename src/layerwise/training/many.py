"""Several trainings side by side: the members of a bag, folds, seeds, candidates of a search."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from layerwise.engine.loss import Loss
from layerwise.engine.torch import FULL, Loader, Precision, Rows
from layerwise.errors import SettingError
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.fit import Callback, EpochEnd, Score, fit
from layerwise.training.history import History
from layerwise.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Job:
    """One training: what `layerwise.training.fit.fit` is called with, by the same names.

    Jobs may share rows, and rows may be parts of shared tensors (``Rows.index``), but no two may
    share a network, an optimizer or a checkpoint.
    """

    network: nn.Module
    loss: Loss
    train: Rows | Loader
    valid: Rows | Loader | None
    recipe: Recipe
    seed: int = 0
    score: Score | None = None
    higher_is_better: bool = False
    callbacks: Sequence[Callback] = ()
    checkpoint: Checkpoint | None = None
    optimizer: torch.optim.Optimizer | None = None
    feature_names: Sequence[str] = ()
    precision: Precision = FULL


Outcome = History | BaseException


def fit_many(jobs: Sequence[Job], threads: int | None = None) -> list[History]:
    """Train every job's network, several at a time; each as if it were alone, to the bit.

    Parameters
    ----------
    jobs : what to train; they begin in this order, and callbacks never run two at a time
    threads : how many train at a time; None for as many as there are processors

    Returns
    -------
    list of History
        In the order of the jobs. Ctrl-C ends those at work, which keep their best epoch.

    Raises
    ------
    Exception
        The first job's, in their order, that failed; the others are stopped once one has.
    KeyboardInterrupt
        If it comes before every job has an epoch to keep; `outcomes_of_many` tells them apart.

    Examples
    --------
    >>> from torch import nn
    >>> from layerwise.engine.loss import mse
    >>> X = torch.linspace(-1, 1, 20).reshape(-1, 1)
    >>> jobs = [
    ...     Job(nn.Linear(1, 1), mse, Rows(X, 2 * X), None, Recipe(epochs=3), seed=seed)
    ...     for seed in range(4)
    ... ]
    >>> [len(history) for history in fit_many(jobs, threads=2)]
    [3, 3, 3, 3]
    """
    histories = []
    for outcome in outcomes_of_many(jobs, threads, go_on=False):
        if isinstance(outcome, _Stopped):
            continue  # the reason is another job's
        if isinstance(outcome, BaseException):
            raise outcome
        histories.append(outcome)
    return histories


def outcomes_of_many(
    jobs: Sequence[Job], threads: int | None = None, *, go_on: bool = True
) -> list[Outcome]:
    """Like `fit_many`, with the history of each job or the error that ended it.

    ``go_on`` says whether the others are to go on when one has failed. A job that Ctrl-C ended
    before its first epoch did, or before it began, has a KeyboardInterrupt.
    """
    _refuse_shared(jobs)
    threads = threads or processors()
    if threads < 1:
        raise SettingError(f"threads has to be at least 1; got {threads}")
    turn = threading.Lock()
    run = _Run(go_on)
    jobs = [
        replace(job, callbacks=[_one_at_a_time(c, turn) for c in job.callbacks]) for job in jobs
    ]
    if min(threads, len(jobs)) <= 1:
        return [run.outcome(job) for job in jobs]
    with ThreadPoolExecutor(threads, "layerwise") as pool:
        futures = [pool.submit(run.outcome, job) for job in jobs]
        try:
            # Only this thread hears of Ctrl-C, and on some systems not while it waits for a lock.
            while wait(futures, timeout=0.05).not_done:
                pass
        except KeyboardInterrupt:
            run.interrupted.set()
    return [future.result() for future in futures]


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Stopped(Exception):
    """This job was stopped since another failed."""


class _Run:
    """What the jobs of one call share: whether to stop, and why."""

    def __init__(self, go_on: bool) -> None:
        self.go_on = go_on
        self.interrupted, self.failed = threading.Event(), threading.Event()

    def stop(self) -> bool:
        """Asked by each training now and then."""
        return self.interrupted.is_set() or self.failed.is_set()

    def outcome(self, job: Job) -> Outcome:
        """One job from beginning to end; nothing it raises goes past here."""
        try:
            if self.stop():
                raise KeyboardInterrupt
            history = fit(**vars(job), stop=self.stop)
        except KeyboardInterrupt as error:
            if self.failed.is_set():
                return _Stopped()
            self.interrupted.set()
            return error
        except BaseException as error:
            if not self.go_on:
                self.failed.set()
            return error
        if history.stopped == "interrupted":
            if self.failed.is_set():
                return _Stopped()
            self.interrupted.set()
        return history


def _one_at_a_time(callback: Callback, turn: threading.Lock) -> Callable[[EpochEnd], Any]:
    def called(event: EpochEnd) -> Any:
        with turn:
            return callback(event)

    return called


def _refuse_shared(jobs: Sequence[Job]) -> None:
    for name in ("network", "optimizer", "checkpoint"):
        found = [id(getattr(job, name)) for job in jobs if getattr(job, name) is not None]
        if len(set(found)) < len(found):
            raise SettingError(f"two trainings at a time cannot have the same {name}")
