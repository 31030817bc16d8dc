"""Cross-validation: how good a network is on every row of a table, beside the baselines."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerwise.beside import Beside
from layerwise.judging import begin_company, judge
from layerwise.prepare import Notice, Question
from layerwise.selection.folds import Fold, Folds, folds_of
from layerwise.text import grid, html_grid, number, wrapped


@dataclass(frozen=True)
class Interval:
    """A mean over folds and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What came out, fold by fold.

    Attributes
    ----------
    folds : for each fold its repeat and number, the rows trained on and tested, the epoch that was
        kept, seconds, and for the network and each baseline its metrics
    how : how the rows were dealt
    target, task : of what
    seconds : in all
    """

    folds: list[dict[str, Any]]
    how: str
    target: str
    task: str
    seconds: float = 0.0
    notices: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The network and its baselines."""
        return list(self.folds[0]["metrics"])

    def scores(self, metric: str, name: str = "network") -> list[float]:
        """One metric of one model on each fold that could give it."""
        told = (fold["metrics"][name].get(metric, math.nan) for fold in self.folds)
        return [value for value in told if not math.isnan(value)]

    def interval(self, metric: str, name: str = "network", less: str | None = None) -> Interval:
        """Mean and 95 % interval of a metric; or of its difference to another model's.

        Folds share training rows, so that their deviation says too little: the variance is taken
        ``1 / k + n_test / n_train`` times (Nadeau & Bengio, 2003, Inference for the generalization
        error), with Student's t.

        Parameters
        ----------
        metric : as in the metrics of a run
        name : "network" or a baseline
        less : the model whose metric is subtracted, fold by fold
        """
        from scipy.stats import t

        values = self.scores(metric, name)
        if less is not None:
            values = [a - b for a, b in zip(values, self.scores(metric, less))]
        k = len(values)
        if not k:
            return Interval(math.nan, math.nan, math.nan)
        mean = sum(values) / k
        if k < 2:
            return Interval(mean, -math.inf, math.inf)
        variance = sum((v - mean) ** 2 for v in values) / (k - 1)
        tested = sum(fold["rows"]["test"] for fold in self.folds)
        trained = sum(fold["rows"]["train"] + fold["rows"]["valid"] for fold in self.folds)
        half = float(t.ppf(0.975, k - 1)) * math.sqrt(variance * (1 / k + tested / trained))
        return Interval(mean, mean - half, mean + half)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, with the intervals."""
        summary = {
            name: {m: vars(self.interval(m, name)) for m in self._metrics()} for name in self.names
        }
        return {**vars(self), "summary": summary}

    def to_frame(self) -> Any:
        """A row for each fold and model, as a pandas DataFrame (pandas has to be installed)."""
        import pandas as pd  # type: ignore[import-untyped]

        return pd.DataFrame([
            {"repeat": fold["repeat"], "fold": fold["fold"], "model": name, **metrics}
            for fold in self.folds for name, metrics in fold["metrics"].items()
        ])  # fmt: skip

    def _metrics(self) -> list[str]:
        return list(dict.fromkeys(m for fold in self.folds for m in fold["metrics"]["network"]))

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        metrics = self._metrics()
        rows = []
        for name in self.names:
            cells = []
            for metric in metrics:
                found = self.interval(metric, name)
                half = found.high - found.mean
                cells.append(
                    "" if math.isnan(found.mean) else f"{number(found.mean)}±{_short(half)}"
                )
            rows.append([name, *cells])
        return ["", *(metric.replace("_", " ") for metric in metrics)], rows

    def __str__(self) -> str:
        header, rows = self._cells()
        lines = [f"{self.target}: {self.task}, {self.how}", "", grid(header, rows, gap=2), ""]
        return "\n".join([*lines, wrapped(self._verdict())])

    def _repr_html_(self) -> str:
        header, rows = self._cells()
        return f"<p>{self.how}</p>{html_grid(header, rows)}<p>{self._verdict()}</p>"

    def _verdict(self) -> str:
        """Whether the network is better than the best baseline, fold by fold."""
        metric = "rmse" if self.task == "regression" else "log_loss"
        told = "± is half a 95 % interval over the folds."
        others = [name for name in self.names if name != "network" and self.scores(metric, name)]
        if not others or not self.scores(metric):
            return told
        best = min(others, key=lambda name: self.interval(metric, name).mean)
        found = self.interval(metric, less=best)
        word = metric.replace("_", " ")
        if found.high < 0:
            judged = f"the network is better than the best baseline, {best}"
        elif found.low > 0:
            judged = f"the {best} baseline does better"
        else:
            judged = (
                f"between the network and the best baseline, {best}, there is no clear difference"
            )
        return (
            f"{told} By {word} {judged}: {number(found.mean)} "
            f"({number(found.low)} to {number(found.high)})."
        )


def _short(half: float) -> str:
    """Half an interval with two digits."""
    return "∞" if math.isinf(half) else f"{half:.2g}" if half < 1000 else f"{half:,.0f}"


def cross_validate(
    source: Any = None,
    target: str | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    sql: str | None = None,
    task: str = "auto",
    valid: Any = 0.15,
    weights: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    group: str | None = None,
    time: str | None = None,
    roles: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    schema: str | Path | None = None,
    missing: Iterable[str] = (),
    encoding: str = "utf-8",
    baselines: bool = True,
    random_state: int = 0,
    report: Notice | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> CrossValidation:
    """Train once for each fold and measure on its rows, the baselines on the same.

    Everything that is learnt (encoder, classes, scaling, the epoch that is kept) is learnt without
    the rows that are tested.

    Parameters
    ----------
    source, target, sql, task, weights, class_weight, group, time, roles, drop, schema, missing,
    encoding, baselines, random_state : as for `layerwise.train`
    folds : how many; classes are stratified, groups stay whole, and by time each fold is tested by
        what was learnt from the rows before it
    repeats : how often the rows are dealt anew
    valid : share of a fold's training rows that choose the epoch of a single network
    report : called with sentences on the data
    progress : called after each fold with its entry in ``folds``
    **settings : of `layerwise.Recipe`

    Returns
    -------
    CrossValidation

    Raises
    ------
    DataError, SettingError
        As `layerwise.train` does.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> iris = load_iris(as_frame=True).frame
    >>> found = cross_validate(iris, "target", folds=3, baselines=False, members=1, epochs=20)
    >>> len(found.folds), found.interval("accuracy").mean > 0.8
    (3, True)
    """
    question = Question(
        source=source, target=target, sql=sql, task=task, valid=valid, test=0, weights=weights,
        class_weight=class_weight, group=group, time=time, roles=roles or {},
        drop=drop, schema=schema, missing=missing, encoding=encoding, baselines=baselines,
        random_state=random_state, settings=settings,
    )  # fmt: skip
    question.check()
    begin = clock.monotonic()
    notices: list[str] = []

    def notice(text: str) -> None:
        if text not in notices:
            notices.append(text)
            if report:
                report(text)

    dealt = folds_of(question, folds, repeats, notice)
    found = list(_each(dealt, notice, progress))
    return CrossValidation(
        found, dealt.how, dealt.whole.target.name, dealt.whole.target.task,
        round(clock.monotonic() - begin, 3), notices,
    )  # fmt: skip


def _each(
    dealt: Folds, notice: Notice, progress: Callable[[dict[str, Any]], None] | None
) -> Iterable[dict[str, Any]]:
    """Every fold's entry, in their order."""
    from layerwise.training import many

    # The members of a bag share the processors; of single networks several folds do.
    recipe = dealt.question.check()
    at_once = many.processors() if recipe.members == 1 and recipe.time_limit is None else 1
    with Beside() as beside, ThreadPoolExecutor(at_once) as pool:
        waiting = [(fold, pool.submit(_learn, dealt.question, fold)) for fold in dealt]
        for fold, learning in waiting:
            company = begin_company(dealt.question, fold.prepared, beside)
            learnt, seconds = learning.result()
            told = judge(fold.prepared, learnt.model, None, beside, company, notice)
            entry = {
                "repeat": fold.repeat, "fold": fold.number, "rows": fold.prepared.sizes,
                "best_epoch": learnt.history.best_epoch, "seconds": seconds,
                "metrics": {"network": told["metrics"], **told["baselines"]},
            }  # fmt: skip
            if progress:
                progress(entry)
            yield entry


def _learn(question: Question, fold: Fold) -> tuple[Any, float]:
    """The network of one fold, and its seconds."""
    from layerwise.learn import learn

    begin, prepared = clock.monotonic(), fold.prepared
    learnt = learn(
        prepared.train, prepared.valid, prepared.schema, prepared.target, question.check(),
        fold=prepared.fold, seed=question.random_state + fold.repeat - 1,
        class_weight=question.class_weight,
    )  # fmt: skip
    return learnt, round(clock.monotonic() - begin, 3)
