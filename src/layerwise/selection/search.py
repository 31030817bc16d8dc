"""Search for settings: many small trainings on folds, guided by those before them (Optuna)."""

from __future__ import annotations

import time as clock
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise import metrics, storage
from layerwise.errors import OutputError, SettingError
from layerwise.prepare import Notice, Prepared, Question, prepare, read
from layerwise.selection.folds import Fold, folds_of
from layerwise.selection.space import Space, default_space, read_space, settings_of, suggest
from layerwise.text import grid, number, wrapped

if TYPE_CHECKING:
    import optuna

    from layerwise.run import Run

STUDY = "study.db"  # within the search's folder, beside the folder of the best run
BEST = "best"
AT_ONCE = 4  # trials are asked for in such lots on any machine, so that all find the same


@dataclass(frozen=True)
class Trial:
    """One try, counted from 1: its settings, the metric over the folds, and how it ended.

    ``state`` is "complete", "pruned" (its first folds were worse than those of half the trials) or
    "failed".
    """

    number: int
    settings: dict[str, Any]
    value: float | None
    state: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found.

    Attributes
    ----------
    trials : all tries, in their order; the first has the settings as they stand
    metric : rmse or log_loss, less is better
    importance : of each setting, its share of what decides on the metric; empty with few trials
    run : the best settings, trained as an ordinary run and measured on the test rows
    """

    trials: list[Trial]
    metric: str
    importance: dict[str, float]
    run: Run
    seconds: float
    folder: Path | None = None
    notices: list[str] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The try with the best metric."""
        return best_of(self.trials)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "metric": self.metric, "best": vars(self.best), "importance": self.importance,
            "trials": [vars(trial) for trial in self.trials], "seconds": self.seconds,
            "folder": None if self.folder is None else str(self.folder),
            "test": {"network": self.run.metrics, **self.run.baselines},
        }  # fmt: skip

    def __str__(self) -> str:
        done = sorted(
            (t for t in self.trials if t.state == "complete"), key=lambda t: (t.value, t.number)
        )
        rows = [[str(t.number), number(float(t.value or 0)), words(t.settings)] for t in done[:8]]
        pruned = sum(trial.state == "pruned" for trial in self.trials)
        metric = self.metric.replace("_", " ")
        lines = [
            f"{len(self.trials)} trials, {pruned} pruned, in {self.seconds:.0f} s; "
            f"by {metric} over the folds:",
            "",
            grid(["trial", metric, "settings"], rows, left=3, gap=2),
        ]
        if self.importance:
            told = ", ".join(
                f"{n} {share:.0%}" for n, share in self.importance.items() if share > 0.01
            )
            lines += ["", wrapped(f"what mattered: {told}")]
        return "\n".join(lines)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The complete try with the least value."""
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        raise SettingError("no trial came to its end; allow more trials, or more time")
    return min(done, key=lambda trial: (trial.value, trial.number))


def words(settings: Mapping[str, Any]) -> str:
    """Settings in few characters."""
    told = []
    for name, value in settings.items():
        if isinstance(value, tuple | list):
            text = ",".join(map(str, value))
        else:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
        told.append(f"{'hidden' if name == 'hidden_layer_sizes' else name} {text}")
    return ", ".join(told) or "as they stand"


def search(
    source: Any = None,
    target: str | None = None,
    *,
    trials: int = 30,
    folds: int = 4,
    time_limit: float | None = None,
    space: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    sql: str | None = None,
    task: str = "auto",
    test: Any = 0.2,
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
    progress: Callable[[Trial, Trial | None], None] | None = None,
    **settings: Any,
) -> Search:
    """Search for good settings on folds of the training rows, then train with the best.

    Each trial trains one network for each fold, which decides on its epoch and is measured; the
    test rows are looked at once, by the run at the end. The first trial has the settings as they
    stand, so that the search never ends below them on its folds. Trials that are worse than the
    median after their first folds end early.

    Parameters
    ----------
    source, target, sql, task, test, weights, class_weight, group, time, roles, drop, schema,
    missing, encoding, baselines, random_state : as for `layerwise.train`
    trials : how many, at most
    folds : of the training rows
    time_limit : seconds after which no more trials begin
    space : by setting a list of choices, or (low, high) or (low, high, "log"); ``width`` and
        ``depth`` make the hidden layers. None looks at what matters for tables
    out : a folder. It keeps the trials as they end, in an SQLite file that Optuna's own tools read;
        the same search begun again with it goes on where it was, and ends the same
    report : called with sentences on the data
    progress : called after each trial with it and the best one so far
    **settings : of `layerwise.Recipe`; what is given is not searched for

    Returns
    -------
    Search

    Raises
    ------
    SettingError
        If Optuna is not installed, for a space outside the limits, or if no trial could end.
    DataError, OutputError
        As `layerwise.train` does.
    """
    optuna = _optuna()
    for name, value, least in (("trials", trials, 1), ("folds", folds, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(
                f"{name} has to be a whole number of at least {least}; got {value!r}"
            )
    data: dict[str, Any] = {
        "sql": sql, "task": task, "test": test, "weights": weights, "class_weight": class_weight,
        "group": group, "time": time, "roles": roles or {}, "drop": drop, "schema": schema,
        "missing": missing, "encoding": encoding,
        "random_state": random_state,
    }  # fmt: skip
    question = Question(
        source=source, target=target, valid=0, baselines=False,
        settings={**settings, "members": 1}, **data,
    )  # fmt: skip
    question.check()
    begin = clock.monotonic()
    notices: list[str] = []

    def notice(text: str) -> None:
        if text not in notices:
            notices.append(text)
            if report:
                report(text)

    prepared = prepare(question, *read(question), notice)
    asked = default_space(len(prepared.train)) if space is None else read_space(space)
    fixed = {"width", "depth"} if "hidden_layer_sizes" in settings else set()
    asked = {n: v for n, v in asked.items() if n not in settings and n not in fixed}
    if not asked:
        raise SettingError("there is no setting left to search for; leave some to the search")
    folder = None if out is None else Path(out)
    if folder is not None:
        storage.make_folder(folder)
        if (folder / BEST / "run.json").exists():
            raise OutputError(f"{folder} has a complete search in it; choose another folder")
    study = _study(optuna, folder, asked, random_state)
    tries = _Tries(question, prepared, folds, asked, random_state, optuna, study)
    deadline = None if time_limit is None else begin + time_limit
    found = tries.run(trials, deadline, progress)
    best = best_of(found)
    if report:
        report(f"training the best of {len(found)} trials: {words(best.settings)}")
    from layerwise.run import train

    run = train(
        source, target, **data, baselines=baselines, out=None if folder is None else folder / BEST,
        **{**settings, **best.settings},
    )  # fmt: skip
    return Search(
        found, metrics.DECIDING[prepared.target.task], _importance(optuna, study), run,
        round(clock.monotonic() - begin, 3), folder, notices,
    )  # fmt: skip


class _Tries:
    """Trials in lots, each on all folds, several trainings side by side."""

    def __init__(
        self, question: Question, prepared: Prepared, folds: int, space: Space, seed: int,
        optuna: Any, study: optuna.Study,
    ) -> None:  # fmt: skip
        inside = replace(question, test=0)
        known = (prepared.train.table, prepared.schema)
        self.folds = list(folds_of(inside, folds, known=known))
        self.question, self.space, self.seed = question, space, seed
        self.optuna, self.study = optuna, study
        self.metric = metrics.DECIDING[prepared.target.task]

    def run(
        self, trials: int, deadline: float | None,
        progress: Callable[[Trial, Trial | None], None] | None,
    ) -> list[Trial]:  # fmt: skip
        """All trials, those of an earlier search with the same folder first."""
        from layerwise.training import many

        found = [_known(trial, number) for number, trial in enumerate(self._ended(), start=1)]
        with ThreadPoolExecutor(many.processors()) as pool:
            while len(found) < trials and not (
                deadline is not None and found and clock.monotonic() >= deadline
            ):
                for trial in self._lot(min(AT_ONCE, trials - len(found)), len(found), pool):
                    found.append(trial)
                    if progress:
                        done = [t for t in found if t.state == "complete"]
                        progress(trial, best_of(done) if done else None)
        return found

    def _ended(self) -> list[Any]:
        state = self.optuna.trial.TrialState
        return [
            trial for trial in self.study.get_trials(deepcopy=False)
            if trial.state in (state.COMPLETE, state.PRUNED)
            or (trial.state == state.FAIL and "settings" in trial.user_attrs)
        ]  # fmt: skip

    def _lot(self, n: int, before: int, pool: ThreadPoolExecutor) -> list[Trial]:
        """So many trials, told to the study in their order once all have ended."""
        # A sampler anew for each lot: a search that is gone on with draws what it would have drawn.
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=self.seed + 1000 * before, n_startup_trials=8
        )
        begin = clock.monotonic()
        asked = [self.study.ask() for _ in range(n)]
        points = [
            {} if before + i == 0 else settings_of(suggest(trial, self.space))
            for i, trial in enumerate(asked)
        ]
        values: list[list[float]] = [[] for _ in asked]
        alive, broken = list(range(n)), dict[int, str]()
        for k, fold in enumerate(self.folds):
            learning = [(i, pool.submit(self._try, fold, points[i])) for i in alive]
            for i, waiting in learning:
                try:
                    values[i].append(waiting.result())
                except ArithmeticError as error:
                    broken[i] = str(error)
                    continue
                asked[i].report(sum(values[i]) / len(values[i]), k)
            last = k == len(self.folds) - 1
            alive = [i for i in alive if i not in broken and (last or not asked[i].should_prune())]
        seconds = round((clock.monotonic() - begin) / n, 3)
        return [
            self._tell(trial, points[i], values[i], i in broken, seconds)
            for i, trial in enumerate(asked)
        ]

    def _tell(
        self, trial: optuna.Trial, point: dict[str, Any], values: list[float], broken: bool,
        seconds: float,
    ) -> Trial:  # fmt: skip
        state = self.optuna.trial.TrialState
        number = len(self._ended()) + 1
        trial.set_user_attr("settings", {n: _plain(v) for n, v in point.items()})
        trial.set_user_attr("seconds", seconds)
        mean = sum(values) / len(values) if values else None
        if broken:
            self.study.tell(trial, state=state.FAIL)
            return Trial(number, point, None, "failed", seconds)
        if len(values) < len(self.folds):
            self.study.tell(trial, state=state.PRUNED)
            return Trial(number, point, mean, "pruned", seconds)
        self.study.tell(trial, mean)
        return Trial(number, point, mean, "complete", seconds)

    def _try(self, fold: Fold, point: dict[str, Any]) -> float:
        """The metric of one training on the rows of the fold that it did not learn from."""
        from layerwise.errors import TrainingError
        from layerwise.learn import learn

        prepared = fold.prepared
        recipe = replace(self.question, settings={**self.question.settings, **point}).check()
        assert prepared.test is not None  # noqa: S101  a fold is tested
        try:
            learnt = learn(
                prepared.train, prepared.test, prepared.schema, prepared.target, recipe,
                seed=self.seed + fold.number, class_weight=self.question.class_weight,
            )  # fmt: skip
        except TrainingError as error:
            raise ArithmeticError(str(error)) from None
        outputs = learnt.model.outputs(prepared.test.table)
        told = metrics.evaluate(prepared.target, prepared.test.y, outputs, prepared.test.weight)
        return told[self.metric]


def _known(trial: Any, number: int) -> Trial:
    """A trial of an earlier search."""
    attributes = trial.user_attrs
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in attributes["settings"].items()
    }
    told = list(trial.intermediate_values.values())
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    value = trial.value if state == "complete" else told[-1] if told else None
    return Trial(number, settings, value, state, attributes["seconds"])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _study(optuna: Any, folder: Path | None, space: Space, seed: int) -> Any:
    """A study in memory, or the one in the folder, without what was at work when it ended."""
    url = None if folder is None else f"sqlite:///{(folder / STUDY).absolute()}"
    study = optuna.create_study(
        storage=url, study_name="layerwise", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )  # fmt: skip
    told = {"space": repr(space), "seed": seed}
    before = study.user_attrs.get("search", told)
    if before != told:
        raise SettingError(
            f"the search in {folder} has another space or random_state; repeat the settings it was "
            "begun with, or choose another folder"
        )
    study.set_user_attr("search", told)
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _importance(optuna: Any, study: Any) -> dict[str, float]:
    """The settings' importance by PED-ANOVA (Watanabe et al., 2023), the largest first."""
    done = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(done) < 10:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        except (ValueError, RuntimeError):  # all trials alike: there is nothing to tell apart
            return {}
    return {name: round(float(share), 4) for name, share in found.items()}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise SettingError(
            "a search needs Optuna, which is not installed: pip install 'layerwise[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
