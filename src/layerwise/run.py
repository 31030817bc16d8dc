"""One training from a table to a model: read, split, learn, measure, keep."""

from __future__ import annotations

import contextlib
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise import out_of_fold, storage
from layerwise.beside import Beside
from layerwise.errors import DataError, ModelFileError, OutputError, TrainingError
from layerwise.folder import RECORD, Keeper, load_history, load_record
from layerwise.judging import begin_company, judge
from layerwise.model import file as model_file
from layerwise.model.model import Model
from layerwise.prepare import Notice, Prepared, Question, asked, prepare, read
from layerwise.training.history import History
from layerwise.training.recipe import COMPARING, Recipe, with_preset

if TYPE_CHECKING:
    from layerwise.insight.layers import Layers
    from layerwise.learn import Learnt
    from layerwise.training.fit import Callback


@dataclass(frozen=True, eq=False)
class Run:
    """What a training gave.

    Attributes
    ----------
    model : raw columns to answers, with the weights of the best epoch
    history : one row for each epoch
    metrics : of the network, on the rows that ``record["measured_on"]`` names: test, else
        validation, else training rows
    baselines : the same metrics of a constant, a linear model and boosted trees
    record : everything in ``run.json``, as plain values
    folder : where it is kept, or None
    prepared : the rows of its parts; of a loaded run None, and read again when needed
    out_of_fold : of a bag, its answers for rows that the members were not trained on; or None
    """

    model: Model
    history: History
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    record: dict[str, Any]
    folder: Path | None = None
    prepared: Prepared | None = None
    out_of_fold: out_of_fold.OutOfFold | None = None

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder; torch is not needed."""
        folder = Path(folder)
        record = load_record(folder)
        if "metrics" not in record:
            raise ModelFileError(
                f"the run in {folder} is not complete (status {record['status']}); go on with it: "
                f"layerwise train --resume {folder}"
            )
        model = model_file.load(folder)
        history = load_history(folder, record)
        held, path = None, folder / out_of_fold.NAME
        if path.exists():
            held = out_of_fold.OutOfFold.load(path, model.target)
        return cls(
            model, history, record["metrics"], record["baselines"], record, folder,
            out_of_fold=held,
        )  # fmt: skip

    def rows(self) -> Prepared:
        """The rows of training, validation and test; of a loaded run they are read again.

        Raises
        ------
        DataError
            If the data were in memory and are gone, or have changed since.
        """
        if self.prepared is not None:
            return self.prepared
        question = asked(self.record)
        refuse_gone(question)
        table, schema = read(question)
        prepared = prepare(question, table, schema, lambda _: None)
        if table.fingerprint() != self.record["data"]["fingerprint"]:
            raise DataError(f"{table.source} has changed since the run was trained on it")
        return prepared

    def report(self, path: str | Path | None = None) -> Path:
        """Write one HTML page on the run: verdict, data, network, curves, answers, errors.

        Parameters
        ----------
        path : ``report.html`` in the run's folder if None

        Raises
        ------
        OutputError
            If it cannot be written, or the run has no folder and no path is given.
        DataError
            If the run's rows are gone.
        """
        from layerwise.report.page import NAME, write

        if path is None and self.folder is None:
            raise OutputError("this run has no folder; say where the report goes: run.report(path)")
        run = replace(self, prepared=self.rows())  # read once for all of its parts
        return write(run, run.rows(), Path(path) if path else Path(self.folder or "") / NAME)

    @property
    def layers(self) -> Layers:
        """Every layer over the epochs, and the weights that were kept."""
        from layerwise.insight.layers import Layers

        return Layers.of(self.history, self.model)

    def code(self, predict_only: bool = False) -> str:
        """The run as one Python script that needs torch, NumPy and pandas, and no layerwise.

        Parameters
        ----------
        predict_only : the trained network alone, to answer new rows, and not its training; the
            script reads the run's ``model.layerwise``

        Raises
        ------
        SettingError
            For a run on what pandas cannot read: a query, standard input, mixed formats.
        DataError
            For a table that is gone and needed, or that pandas would read otherwise.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> iris = load_iris(as_frame=True).frame
        >>> run = train(iris, target="target", baselines=False, epochs=1)
        >>> [line for line in run.code().splitlines() if line.startswith("EPOCHS")]
        ['EPOCHS, PATIENCE = 1, 10']
        """
        from layerwise.code import script

        if predict_only:
            saved = None if self.folder is None else self.folder / model_file.NAME
            return script.predict_script(self.model, saved, self.record)
        return script.train_script(self.model, self.record)


def train(
    source: Any = None,
    target: str | None = None,
    *,
    sql: str | None = None,
    task: str = "auto",
    valid: Any = 0.15,
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
    preset: str = "default",
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    report: Callable[[str], None] | None = None,
    **settings: Any,
) -> Run:
    """Train a network on a table and measure it on rows it has not seen.

    Parameters
    ----------
    source : path of a CSV, TSV, JSON-lines or Parquet file (also gzipped, or a glob), or a
        DataFrame, a dict of columns, an array
    target : the column to predict
    sql : a query over files, instead of a source
    task : "classification", "regression", or "auto" to let the target's values decide
    valid, test : shares of the rows, or tables of their own. Validation rows decide on the best
        epoch; test rows are looked at once, at the end
    weights : a column of row weights of at least 0; 2 is the row twice, 0 is no row
    class_weight : "balanced", or a dict from class to weight; counts in training and in choosing
        the epoch, while the metrics count rows by ``weights`` alone
    group : a column whose equal values stay in one part
    time : a column by which the latest rows are tested and those before them validate
    roles : what columns are, e.g. ``{"zip": "category", "day": "date:%d/%m/%Y"}``
    drop : columns to ignore
    schema : a schema file, as ``layerwise schema`` writes it; it is enforced
    missing : more words that count as gaps
    encoding : of text files
    baselines : whether to fit a constant, a linear model and boosted trees beside it
    random_state : of everything random; the global state is left alone
    preset : "fast", "default" or "best": settings of `layerwise.training.recipe.PRESETS`, under
        those that are given by name; "best" first compares the recipes of `layerwise.shortlist`,
        which takes ten to twenty times as long
    out : a folder for the run; without it nothing is written
    callbacks : called with each `layerwise.training.fit.EpochEnd`
    report : called with sentences on what there is to know about the data
    **settings : of `layerwise.Recipe`, e.g. ``hidden_layer_sizes=(128, 64), dropout=0.1``

    Returns
    -------
    Run

    Raises
    ------
    DataError
        For a table that cannot be learnt from, naming file, column and row.
    SettingError
        For a setting outside its limits.
    OutputError
        If ``out`` cannot be written or has a run in it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> iris = load_iris(as_frame=True).frame
    >>> run = train(iris, target="target", baselines=False, hidden_layer_sizes=(16,))
    >>> sorted(run.metrics)
    ['accuracy', 'balanced_accuracy', 'f1', 'log_loss', 'roc_auc']
    >>> run.model.predict(iris.head(2))
    array([0, 0])
    """
    question = Question(
        source=source, target=target, sql=sql, task=task, valid=valid, test=test, weights=weights,
        class_weight=class_weight, group=group, time=time, roles=roles or {},
        drop=drop, schema=schema, missing=missing, encoding=encoding, baselines=baselines,
        random_state=random_state, settings=with_preset(preset, settings),
        compare=preset in COMPARING,
    )  # fmt: skip
    question.check()
    if out is None:
        with Beside() as beside:
            return _train(question, None, callbacks, report, beside)
    folder = Path(out)
    if (folder / RECORD).exists():
        raise OutputError(
            f"{folder} has a run in it already; choose another folder, or go on with it (--resume)"
        )
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    storage.make_folder(folder)
    try:
        with storage.lock(folder), Beside() as beside:
            return _train(question, Keeper(folder, question), callbacks, report, beside)
    finally:
        for one in made:  # nothing came of it: leave nothing behind
            with contextlib.suppress(OSError):
                one.rmdir()


def resume(
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    report: Callable[[str], None] | None = None,
) -> Run:
    """Go on with a run that was killed or interrupted; it ends in the bytes it would have ended in.

    Raises
    ------
    ModelFileError
        If the folder has no run.
    DataError
        If the data have changed since, or were in memory and are gone.
    """
    folder = Path(folder)
    record = load_record(folder)
    if record["status"] == "done":
        if report:
            report(f"{folder} is complete: epoch {record['best_epoch']} was kept")
        return Run.load(folder)
    try:
        question = asked(record)
    except TypeError as error:
        raise ModelFileError(
            f"{folder / RECORD} asks for what this layerwise does not know: {error}"
        ) from None
    refuse_gone(question)
    with storage.lock(folder), Beside() as beside:
        return _train(question, Keeper(folder, question, record), callbacks, report, beside)


def refuse_gone(question: Question) -> None:
    """Whether the rows can be read again."""
    for name in ("source", "valid", "test"):
        if isinstance(getattr(question, name), dict):
            raise DataError(
                f"the run's {name} rows were in memory and are gone; only files can be read again"
            )
    if question.sql and question.folder not in (None, str(Path.cwd())):
        raise DataError(
            f"the run's query was asked in {question.folder}; go on from that folder, since the "
            "query names files from there"
        )
    if question.source == "-":
        raise DataError(
            "the run was read from standard input, which is gone; train again from a file"
        )


# ---------------------------------------------------------------- the training itself


def _train(
    question: Question,
    keeper: Keeper | None,
    callbacks: Sequence[Callback],
    report: Callable[[str], None] | None,
    beside: Beside,
) -> Run:
    """Read, split, learn, measure, keep."""
    began = clock.monotonic()
    recipe = question.check()
    laps = _Laps()
    notices: list[str] = []

    def notice(text: str) -> None:
        notices.append(text)
        if report:
            report(text)

    table, schema = read(question)
    prepared = prepare(question, table, schema, notice)
    data: dict[str, Any] = {
        "fingerprint": table.fingerprint(), **_own_fingerprints(question, prepared),
        "split": prepared.split, "rows": prepared.sizes,
    }  # fmt: skip
    if prepared.fold is not None:
        data["folds"] = int(prepared.fold.max()) + 1
    del table
    laps.end("read")
    try:
        if keeper:
            keeper.begin(prepared, data)
        late = _share(began, recipe.time_limit, 0.92)
        company = begin_company(question, prepared, beside, late)
        from layerwise.learn import learn  # imports torch: only once there is something to train

        laps.end("start torch")
        learnt, tried = None, keeper.tried if keeper else []
        if question.compare:
            from layerwise.shortlist import with_best_recipe

            half = _share(began, recipe.time_limit, 0.5)
            question, tried, learnt = with_best_recipe(
                question, prepared, keeper, half, report or (lambda _: None), notice
            )
            recipe = Recipe.from_json(learnt.model.recipe) if learnt else question.check()
            laps.end("compare")
        learnt = learnt or learn(
            prepared.train, prepared.valid, prepared.schema, prepared.target, recipe,
            fold=prepared.fold, seed=question.random_state, class_weight=question.class_weight,
            deadline=_share(began, recipe.time_limit, 0.85),
            callbacks=[*callbacks, *([keeper.epoch] if keeper else [])],
            checkpoint=keeper.checkpoint() if keeper else None, examined=True,
        )  # fmt: skip
        laps.end("train")
        for entry in prepared.schema.inputs:
            if entry.name not in learnt.model.encoder.names:
                notice(f"column {entry.name!r} is left out: the training rows have gaps only")
        stopped = learnt.history.stopped
        if stopped == "interrupted" and company:
            company = None  # who interrupts does not want to wait for them
            beside.end()
        outcome = {
            "status": "interrupted" if stopped == "interrupted" else "done",
            "target": prepared.target.name,
            "task": prepared.target.task,
            "task_reason": prepared.task_reason,
            "data": data,
            "epochs": len(learnt.history),
            "best_epoch": learnt.history.best_epoch,
            "stopped": stopped,
            "engine": learnt.history.engine,
            "engine_reason": learnt.history.engine_reason,
            **_members(learnt.history, recipe, notice),
            **judge(prepared, learnt.model, learnt.out_of_fold, beside, company, notice, late),
            "notices": notices,
            "recipe": recipe.to_json(),
            **({"tried": tried} if tried else {}),
        }
        laps.end("evaluate")
        outcome["findings"] = _findings(learnt, notice)
        laps.end("examine")
        kept = ("data", "measured_on", "metrics", "baselines", "out_of_fold")
        told = {name: outcome[name] for name in kept if name in outcome}
        model = learnt.model.with_info({"random_state": int(question.random_state), **told})
        if keeper:
            if learnt.out_of_fold is not None:
                learnt.out_of_fold.save(keeper.folder / out_of_fold.NAME, model.target)
            model_file.save(model, keeper.folder / model_file.NAME)
            laps.end("save")
            outcome = keeper.end({**outcome, "seconds": laps.seconds})
    except BaseException as error:
        if keeper:
            keeper.fail(error)
        raise _in_words(error) from None
    record = {"seconds": laps.seconds, "question": question.to_json(), **outcome}
    return Run(
        model, learnt.history, outcome["metrics"], outcome["baselines"], record,
        keeper.folder if keeper else None, prepared, learnt.out_of_fold,
    )  # fmt: skip


def _findings(learnt: Learnt, notice: Notice) -> list[dict[str, Any]]:
    """What the doctor says of this training."""
    try:
        return list(learnt.history.findings.to_json())
    except Exception as error:  # a training is no worse for a doctor who stumbles
        notice(f"the doctor could not look at this training: {type(error).__name__}: {error}")
        return []


def _share(began: float, time_limit: float | None, share: float) -> float | None:
    """The moment when this share of the time is over."""
    return None if time_limit is None else began + share * time_limit


def _members(history: History, recipe: Recipe, notice: Notice) -> dict[str, Any]:
    """Of a bag, how the training of each member ended; and what there was no time for."""
    if not history.members:
        return {}
    if recipe.time_limit is not None and history.stopped != "interrupted":
        late = sum(member.stopped == "time limit" for member in history.members)
        gone = recipe.members - len(history.members)
        some = [f"{gone} of {recipe.members} networks"] if gone else []
        some += [f"later epochs of {late}"] if late else []
        if some:
            notice(f"left out for want of time: {' and '.join(some)}")
    told = ("best_epoch", "stopped", "engine", "engine_reason")
    return {
        "members": [
            {"epochs": len(member), **{name: getattr(member, name) for name in told}}
            for member in history.members
        ]
    }


def _in_words(error: BaseException) -> BaseException:
    """An error of memory as a sentence; any other as it is."""
    text = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in text or "out of memory" in text)
    ):
        return TrainingError(
            "the memory is not enough for this network and its batches; take smaller hidden "
            "layers (--hidden) or a smaller --batch-size"
        )
    return error


def _own_fingerprints(question: Question, prepared: Prepared) -> dict[str, str]:
    """Of validation and test rows that came as tables of their own."""
    parts = {"valid": prepared.valid, "test": prepared.test}
    return {
        f"{name}_fingerprint": part.table.fingerprint()
        for name, part in parts.items()
        if part is not None and not isinstance(getattr(question, name), int | float)
    }


class _Laps:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = clock.monotonic()

    def end(self, stage: str) -> None:
        now = clock.monotonic()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
