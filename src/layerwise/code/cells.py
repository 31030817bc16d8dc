"""The cells of a table as pandas expressions: by role, by format, as the run took them."""

from __future__ import annotations

import codecs
import re
from typing import Any

from layerwise.code.facts import Facts
from layerwise.code.source import Source
from layerwise.code.words import entries, listed, quoted
from layerwise.data.kinds import NUMBER
from layerwise.errors import DataError, SettingError
from layerwise.model.model import Model


def csv_options(source: Source) -> list[str]:
    """What ``pd.read_csv`` has to be told beyond its usual."""
    options = [f"sep={quoted(source.way.delimiter)}"] if source.way.delimiter != "," else []
    if codecs.lookup(source.encoding).name not in ("utf-8", "utf-8-sig"):
        options.append(f"encoding={quoted(source.encoding)}")
    return options + (["index_col=False"] if source.trailing else [])


def missing_words(model: Model) -> list[str]:
    """The words for gaps; an empty cell always is one."""
    return list(dict.fromkeys(("", *(word.strip() for word in model.schema.missing))))


def missing_numbers(model: Model) -> list[float]:
    """The words for gaps that are numbers, which -999.0 is too if -999 is."""
    return [float(word) for word in missing_words(model) if re.fullmatch(NUMBER, word)]


def number_columns(model: Model, *, answered: bool) -> list[str]:
    """The columns whose cells are numbers, with target and weight if the rows have answers."""
    names = [step.name for step in model.encoder.steps if step.type == "number"]
    weight = model.schema.role("weight")
    if answered and (model.target.is_regression or model.target.classes.dtype.kind in "iuf"):
        names.append(model.target.name)
    return listed([*names, *([weight] if answered and weight is not None else [])])


def spelled(model: Model, source: Source, facts: Facts) -> list[str]:
    """The columns that the file has as numbers or truth values and the network as names.

    Raises
    ------
    SettingError
        For dates that are read as something else.
    """
    if source.way.form == "csv":
        return []
    found = []
    for step in model.encoder.steps:
        kind = facts.kinds.get(step.name)
        if kind == "datetime" and step.type in ("number", "category"):
            raise SettingError(
                f"column {step.name!r} has dates that the run took as a {step.type}, which the "
                "script cannot; write it so in the table, train on that, and ask for its code"
            )
        if kind == "number" and step.type != "number":
            found.append(step.name)
        if kind == "boolean" and step.type == "category":
            found.append(step.name)
    return listed(found)


def lower(cells: str, source: Source) -> str:
    """Texts in lower case; truth values of typed files read as texts too."""
    return f"{cells}{'' if source.way.form == 'csv' else '.astype(str)'}.str.strip().str.lower()"


def truth(model: Model) -> str:
    """What true and false are to the network, by the words for them."""
    known = {"true": 1.0, "false": -1.0}
    if any(model.schema[s.name].said for s in model.encoder.steps if s.type == "boolean"):
        known |= {"1": 1.0, "0": -1.0}
    pairs = ", ".join(f"{quoted(word)}: {value}" for word, value in known.items())
    return f"{{{pairs}}}"


def moments(cells: str, source: Source, form: str) -> list[str]:
    """What ``pd.to_datetime`` is told to make moments in UTC of dates."""
    stripped = cells if source.way.form == "parquet" else f"{cells}.str.strip()"
    return [stripped, f"format={form}", "utc=True"]


def formats(model: Model) -> tuple[str, list[tuple[str, Any, str]]]:
    """How a column's dates are written, and the constant for that where columns differ."""
    forms = {s.name: model.schema[s.name].format for s in model.encoder.steps if s.type == "date"}
    if len(set(forms.values())) > 1:
        said = {name: quoted(form) for name, form in forms.items() if form}
        note = "of dates that are not in ISO form"
        return 'FORMATS.get(cells.name, "ISO8601")', [("FORMATS", entries(said), note)]
    return quoted(next(iter(forms.values()), None) or "ISO8601"), []


def answers(model: Model, source: Source, facts: Facts) -> str:
    """The target's column as numbers or labels."""
    kind = model.target.classes.dtype.kind
    if model.target.is_regression and facts.kinds.get(model.target.name) == "boolean":
        return f'({lower("cells[TARGET]", source)} == "true").astype(float)'
    if model.target.is_regression or kind in "iuf":
        return "cells[TARGET].astype(float)"
    return lower("cells[TARGET]", source) if kind == "b" else "cells[TARGET]"


def times(name: str, model: Model, source: Source, facts: Facts) -> dict[str, list[str]]:
    """How the column that orders the rows is read as dates; nothing, if it is numbers.

    Raises
    ------
    DataError
        If the table is gone and nothing else tells what its cells are.
    """
    entry = model.schema[name]
    known = {"date": "datetime", "number": "number", "weight": "number", "identifier": "number"}
    kind = facts.kinds.get(name) or known.get(entry.role)
    if kind == "datetime":
        return {"dates": moments("cells[TIME]", source, quoted(entry.format or "ISO8601"))}
    if kind == "number":
        return {"dates": []}
    raise DataError(
        f"{source.paths['TABLE']} is gone or has changed, so nothing tells what the cells of "
        f"{name!r} are, by which the rows were split; put the table back, or train anew"
    )


def groups(name: str, model: Model, source: Source, facts: Facts) -> str:
    """The column whose equal values stay together; their order decides which are drawn."""
    kind = facts.kinds.get(name)
    if kind == "number":
        return "cells[GROUP].astype(float)"
    if kind == "boolean":
        return f'{lower("cells[GROUP]", source)}.mask(cells[GROUP].isna(), "")'
    if kind == "datetime":
        form = quoted(model.schema[name].format or "ISO8601")
        dates = ", ".join(moments("cells[GROUP]", source, form))
        return f"pd.to_datetime({dates}).dt.tz_localize(None).to_numpy()"
    return 'cells[GROUP].fillna("")'
