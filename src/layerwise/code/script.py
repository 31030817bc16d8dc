"""From a run to a script: what the templates say, and what they leave out."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from layerwise.code import cells
from layerwise.code.facts import Facts, look
from layerwise.code.loop import Values, folds_of, layer_lines, loop_values, network_values
from layerwise.code.source import Source, Way, find_source
from layerwise.code.words import assign, call, docstring, entries, listed, plain, quoted
from layerwise.data.encoder import MAX_LEVELS, DateStep, NumberStep
from layerwise.errors import DataError, SettingError
from layerwise.model.model import Model
from layerwise.network.plan import ONE_HOT_LEVELS
from layerwise.prepare import Question, asked
from layerwise.training.recipe import Recipe

_ROWS = {
    "test": "test", "validation": "valid", "training": "train", "out-of-fold": "out_of_fold",
}  # fmt: skip
_STANDARD = ("copy", "glob", "gzip", "json", "math", "sys")


def train_script(model: Model, record: Mapping[str, Any]) -> str:
    """The whole training of a run: read, split, encode, train, measure.

    Parameters
    ----------
    model : that the run gave
    record : of the run: what was asked, of which data, how it ended

    Raises
    ------
    SettingError
        For a run on what pandas cannot read: a query, standard input, mixed formats.
    DataError
        For a table that pandas would read otherwise, or that is gone and needed.
    """
    question = asked(record)
    source = find_source(question)
    facts = look(question, source, model, record["data"]["fingerprint"])
    recipe = Recipe.from_json(model.recipe)
    values = _encoding(model, source, facts) | {"bag": _bag(model, record)}
    values |= _rows(question, model, record, source, facts)
    values |= network_values(model, recipe) | loop_values(model, record, recipe)
    values |= _weighting(question, model, facts)
    values["constants"] = _constants(question, model, source, recipe, values)
    core = getattr(recipe, "engine", "torch") != "torch"
    title = f"Predict {plain(model.target.name)!r} with a neural network, in plain PyTorch."
    text = (
        "The training of a layerwise run, written out. It reads, splits, encodes, trains and "
        "measures as the run did, with the same random numbers, and so ends in the same metrics"
        + (", but for rounding: the run's own core adds up in another order." if core else ".")
    )
    usage = "    python train.py" + ("" if values["own"] else " [TABLE]")
    values["docstring"] = docstring(title, text, *_in_memory(source), usage)
    return _render("train.py.jinja", values)


def predict_script(
    model: Model, where: Path | None = None, record: Mapping[str, Any] | None = None
) -> str:
    """The trained network and its encoder, to answer rows of a CSV file.

    Parameters
    ----------
    model : to be written out
    where : its ``.layerwise`` file, which the script reads; None for one beside the script, of the
        script's name
    record : of the run, so that new rows are read as its table was

    """
    source = Source({}, {}, Way())
    with contextlib.suppress(DataError, SettingError):  # of a query, say: new rows are usual CSV
        found = find_source(Question(**record["question"])) if record else source
        if found.way.form == "csv":
            source = Source({}, {}, replace(found.way, packed=False), found.encoding)
    values = _encoding(model, source, Facts(gaps=False), answered=False)
    path = f"Path({quoted(str(where))})" if where else 'Path(__file__).with_suffix(".layerwise")'
    off = {"Dropout": "dropout drops nothing", "BatchNorm1d": "norms use what they have learnt"}
    types = [layer["type"] for layer in model.plan]
    values |= {
        "columns": "columns",
        "own": [],
        "weight": None,
        "bag": _bag(model, {"data": {}}),
        "embedded": any(model.plan[0].get("embedding", ())),
        "input_layer": types[0] == "InputLayer",
        "binned": any(model.plan[0].get("bins", ())),
        "spread": False,
        "has_codes": bool(model.encoder.categories),
        "layers": layer_lines(model, trained=True),
        "evaluation": " and ".join(text for kind, text in off.items() if kind in types),
        "n_outputs": model.target.n_outputs,
        "constants": [
            ("TABLE", "sys.argv[1]", ""),
            ("MODEL", path, ""),
            *cells.formats(model)[1],
            ("MISSING", listed(cells.missing_words(model)), "cells that hold no value"),
        ],
    }
    title = f"Predict {plain(model.target.name)!r} for new rows, in plain PyTorch."
    text = "A network that layerwise has trained, without layerwise: MODEL is read as it is."
    if where is None:
        text += " That file belongs beside the script: run.model.save(...) writes it."
    values["docstring"] = docstring(title, text, "    python predict.py NEW_ROWS.csv > answers.csv")
    return _render("predict.py.jinja", values)


@functools.cache
def _templates() -> jinja2.Environment:
    """The templates, each compiled once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("layerwise.code"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= {"assign": assign, "call": call}
    return environment


def _render(name: str, values: Mapping[str, Any]) -> str:
    template = _templates().get_template(name)
    text = template.render(**values, imports=_imports(template.render(**values, imports="")))
    text = re.sub(r"\n{4,}", "\n\n\n", text.rstrip() + "\n")
    return re.sub(r"(# -+ [\w ]+\n)\n+(?=def |class )", r"\1\n\n", text)


def _imports(text: str) -> str:
    """The import lines of what the script uses."""
    lines = [f"import {name}" for name in _STANDARD if re.search(rf"\b{name}\.", text)]
    lines += ["from pathlib import Path"] if re.search(r"\bPath\(", text) else []
    lines += ["", "import numpy as np", "import pandas as pd", "import torch"]
    lines += ["from torch import nn"]
    lines += ["from torch.nn import functional as F"] if re.search(r"\bF\.", text) else []
    return "\n".join(lines)


# ---------------------------------------------------------------- what the templates are told


def _encoding(model: Model, source: Source, facts: Facts, *, answered: bool = True) -> Values:
    """Reading and encoding, which both scripts have; rows are answered or to be answered."""
    steps = [*model.encoder.numeric, *model.encoder.categories]
    categories = model.encoder.categories
    kinds = list(dict.fromkeys(step.type for step in steps))
    dates = [step for step in steps if isinstance(step, DateStep)]
    ranges = [step for step in steps if isinstance(step, NumberStep)]
    embedding = model.plan[0].get("embedding", ())
    return {
        "source": source,
        "facts": facts,
        "csv_options": cells.csv_options(source),
        "encoding": quoted("utf-8-sig" if source.way.marked else source.encoding),
        "number_words": cells.missing_numbers(model),
        "number_columns": cells.number_columns(model, answered=answered),
        "spelled": cells.spelled(model, source, facts),
        "task": model.target.task,
        "kinds": kinds,
        "encoders": "{" + ", ".join(f"{quoted(kind)}: {kind}" for kind in kinds) + "}",
        "gaps": {kind: any(s.gaps for s in steps if s.type == kind) for kind in kinds},
        "lower": cells.lower("cells", source),
        "truth": cells.truth(model),
        "dates": cells.moments("cells", source, cells.formats(model)[0]),
        "cycles": {cycle for step in dates for cycle in step.cycles},
        "cycles_differ": len({tuple(step.cycles) for step in dates}) > 1,
        "constant": any(getattr(step, "width", 1) == 0 for step in steps),
        "far": any(max(s.center - s.low, s.high - s.center) > 1e3 * s.width for s in ranges),
        "other": any(step.other for step in categories),
        "many": any(len(step.levels) == MAX_LEVELS for step in categories),
        "whole": any(re.fullmatch(r"[+-]?\d+", x) for step in categories for x in step.levels),
        "embedded": any(embedding),
        "one_hot": not all(embedding),
        "one_hot_levels": ONE_HOT_LEVELS,
        "dtype": str(model.dtype),
    }


def _rows(
    question: Question, model: Model, record: Mapping[str, Any], source: Source, facts: Facts
) -> Values:
    """Which rows there are, what is to be said of them, and which part each belongs to."""
    schema, target = model.schema, model.target
    weight, group, time = schema.role("weight"), question.group, question.time
    own = [name for name in source.paths if name != "TABLE"]
    shares = {"test": question.test, "valid": question.valid}
    shares = {name: 0 if name.upper() in own else share for name, share in shares.items()}
    n_folds = folds_of(record)
    if n_folds:
        shares["valid"] = 0
    drawn = [name for name in ("train", "valid", "test") if shares.get(name, 1)]
    extra = ["WEIGHT"] * (weight is not None) + ["GROUP"] * (group is not None)
    if time is not None and time not in (*model.encoder.names, target.name, weight):
        extra.append("TIME")
    sizes = record["data"]["rows"]
    return {
        "columns": f"[{', '.join(['*INPUTS', 'TARGET', *extra])}]",
        "own": own,
        "weight": weight,
        "group": group,
        "time": time,
        "answers": cells.answers(model, source, facts),
        "times": cells.times(time, model, source, facts) if time is not None else None,
        "groups": cells.groups(group, model, source, facts) if group is not None else "",
        "group_known": group in facts.kinds,
        "shares": shares,
        "drawn": drawn,
        # classes that no training row has
        "strange": not target.is_regression and bool(own or group or time),
        "parts": [name for name in ("valid", "test") if sizes[name]],
        "has_valid": bool(sizes["valid"] or n_folds),
        "n_outputs": target.n_outputs,
        "measured_on": record["measured_on"],
        "measured": _ROWS[record["measured_on"]],
        "metrics": list(record["metrics"]),
    }


def _bag(model: Model, record: Mapping[str, Any]) -> Values | None:
    """Of several networks how many they are, and of how many folds each holds one out."""
    if len(model.members) == 1:
        return None
    return {
        "members": len(model.members),
        "folds": folds_of(record),
        "temperature": None if model.temperature == 1 else model.temperature,
        "limits": model.limits is not None,
    }


def _weighting(question: Question, model: Model, facts: Facts) -> Values:
    """What rows count in the loss."""
    said = question.class_weight
    if isinstance(said, Mapping):
        labels = model.target.classes.tolist()
        names = {str(label): label for label in labels}
        weights = {names.get(str(label), label): value for label, value in said.items()}
        said = quoted([float(weights.get(label, 1)) for label in labels])
    some = said is not None or model.schema.role("weight") is not None
    return {"class_weight": said, "weighted": some and facts.weighted}


def _constants(
    question: Question, model: Model, source: Source, recipe: Recipe, values: Values
) -> list[tuple[str, Any, str]]:
    """The settings at the top of the training's script: name, value and a note."""
    folder = Path(question.folder or ".")
    found: list[tuple[str, Any, str]] = []
    for name, path in source.paths.items():
        near = Path(path).is_relative_to(folder)
        value = quoted(str(Path(path).relative_to(folder)) if near else path)
        if name == "TABLE" and not values["own"]:
            value = f"sys.argv[1] if len(sys.argv) > 1 else {value}"
        found.append((name, value, ""))
    found.append(("TARGET", quoted(model.target.name), ""))
    notes = {
        "weight": "2 is the row twice, 0 is no row",
        "group": "rows of one group stay together",
        "time": "the latest rows are for the test",
    }
    for name, note in notes.items():
        if values[name] is not None:
            found.append((name.upper(), quoted(values[name]), note))
    steps = [*model.encoder.numeric, *model.encoder.categories]
    names = listed(step.name for step in steps)
    roles = entries({step.name: quoted(step.type) for step in steps})
    found.append(("INPUTS", names if len(values["kinds"]) == 1 else roles, ""))
    found += cells.formats(model)[1]
    found.append(("MISSING", listed(cells.missing_words(model)), "cells that hold no value"))
    found.append(("SEED", quoted(int(question.random_state)), ""))
    if values["patience"]:
        found.append(("EPOCHS, PATIENCE", f"{recipe.epochs}, {recipe.patience}", ""))
    else:
        found.append(("EPOCHS", quoted(recipe.epochs), ""))
    found.append(("BATCH_SIZE", quoted(recipe.batch_size), ""))
    found.append(("LEARNING_RATE", quoted(recipe.lr), ""))
    bag = values["bag"]
    if bag and bag["temperature"]:
        note = "of the answers, found on rows that the networks had not seen"
        found.append(("TEMPERATURE", quoted(bag["temperature"]), note))
    if bag and values["stop_after"]:
        note = f"epochs of each network: {values['ended']}"
        found.append(("LAST", quoted(values["last_epochs"]), note))
    if recipe.device == "auto":
        found.append(("DEVICE", '"cuda" if torch.cuda.is_available() else "cpu"', ""))
    elif recipe.device != "cpu":
        found.append(("DEVICE", quoted(recipe.device), ""))
    return found


def _in_memory(source: Source) -> list[str]:
    """Where the script expects the tables that were in memory: a sentence, and code for each."""
    if not source.in_memory:
        return []
    lines = []
    for name, kind in source.in_memory.items():
        rows = {"TABLE": "table", "VALID": "valid", "TEST": "test"}[name]
        frame = f"pd.DataFrame({rows})" + (".add_prefix('x')" if kind == "ndarray" else "")
        lines.append(f"    {frame}.to_csv('{source.paths[name]}', index=False)")
    return ["The run's rows were in memory. Write them down first:", "\n".join(lines)]
