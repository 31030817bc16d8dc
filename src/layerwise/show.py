"""What the commands print: runs, models, schemas and comparisons as text for 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise import metrics
from layerwise.network.summary import summarise
from layerwise.text import count, grid, number, wrapped
from layerwise.training.recipe import SETTINGS

if TYPE_CHECKING:
    from layerwise.data.schema import Schema
    from layerwise.data.table import Table
    from layerwise.model.model import Model
    from layerwise.run import Run


# ---------------------------------------------------------------- train


def show_training(run: Run) -> str:
    """The network beside its baselines, which epoch was kept, and where it all is."""
    record, model = run.record, run.model
    rows = record["data"]["rows"]
    target = model.target
    classes = "" if target.is_regression else f", {len(target.classes)} classes"
    parts = [
        f"{rows['train']:,} rows trained",
        *([f"{rows['valid']:,} validated"] if rows["valid"] or not record.get("members") else []),
        f"{rows['test']:,} tested",
    ]
    lines = [
        wrapped(f"{target.name}: {target.task}{classes} ({record['task_reason']})"),
        wrapped(f"{', '.join(parts)} (split {record['data']['split']})"),
        "",
        metric_table({"network": run.metrics, **run.baselines}),
        "",
    ]
    verdict = _verdict(record.get("score"), run.baselines)
    if verdict:
        lines.append(wrapped(verdict))
    why = {
        "patience": "no gain since",
        "epochs": "all epochs done",
        "time limit": "time limit reached",
    }
    stopped = record["stopped"].split(":")[0]
    size = f"{summarise(model.plan).total:,} parameters"
    members = record.get("members")
    if members:
        best = ", ".join(str(member["best_epoch"]) for member in members)
        lines.append(
            wrapped(
                f"{len(members)} networks of {size}, their answers averaged; kept are their "
                f"epochs {best} ({why.get(stopped, stopped)})"
            )
        )
    else:
        lines.append(
            f"epoch {record['best_epoch']} of {record['epochs']} kept "
            f"({why.get(stopped, stopped)}); {size}"
        )
    if len(record.get("tried", ())) > 1:
        lines.append(wrapped(_compared(record["tried"])))
    if "out_of_fold" in record:
        lines.append(wrapped(_held_out(target.task, record["out_of_fold"])))
    reason = record.get("engine_reason")
    if reason and record["engine"] == "torch":
        lines.append(wrapped(f"trained by PyTorch's own loop: {reason}"))
    elif record.get("engine"):
        lines.append("trained by the native core")
    alarms = show_findings(record.get("findings", ()))
    if alarms:
        lines += ["", alarms]
    if run.folder:
        path = shlex.quote(str(run.folder))
        lines += ["", f"saved in {run.folder}; next:", f"  layerwise inspect {path}",
                  f"  layerwise predict {path} NEW.csv -o answers.csv"]  # fmt: skip
    return "\n".join(lines)


def show_findings(findings: Sequence[Mapping[str, Any]]) -> str:
    """What the doctor warned of; notes, and what comes of other findings, are left to `doctor`."""
    from layerwise.diagnosis.finding import Finding

    told = [one for one in findings if one["severity"] != "note" and "explained_by" not in one]
    return "\n\n".join(f"the doctor's {Finding.from_json(dict(one))}" for one in told)


def _compared(tried: Sequence[Mapping[str, Any]]) -> str:
    """What several recipes came to; the network was trained with the best of them."""
    ended = sorted((one for one in tried if one["value"] is not None), key=lambda one: one["value"])
    told = [f"{one['name']} {number(one['value'])}" for one in ended]
    told += [f"{one['name']} diverged" for one in tried if one["value"] is None]
    return f"best of {len(tried)} recipes on the same rows held out: {', '.join(told)}"


def _held_out(task: str, found: Mapping[str, Any]) -> str:
    """The score on rows that no asked network was trained on, and how sure it is."""
    which = "rows that chose the epochs" if found["how"] == "validation" else "rows out of fold"
    told = []
    second = "r2" if task == "regression" else "accuracy"
    for name in (metrics.DECIDING.get(task, "log_loss"), second):
        if name in found["interval"]:
            low, high = found["interval"][name]
            value = number(found["metrics"][name])
            told.append(f"{name.replace('_', ' ')} {value} ({number(low)} to {number(high)})")
    return f"on {found['rows']:,} {which}: {', '.join(told)}, 95 %" if told else ""


def metric_table(by_name: Mapping[str, Mapping[str, float]]) -> str:
    """One row for each model, one column for each metric."""
    names = list(dict.fromkeys(name for found in by_name.values() for name in found))
    rows = [
        [name, *(number(found[m]) if m in found else "" for m in names)]
        for name, found in by_name.items()
    ]
    return grid(["", *(m.replace("_", " ") for m in names)], rows)


def _verdict(score: Mapping[str, Any] | None, baselines: Mapping[str, Mapping[str, float]]) -> str:
    """Whether the best baseline is better than the network, or no clear difference."""
    if score is None:  # of an older run
        return ""
    metric, value = score["metric"], score["value"]
    known = {name: found[metric] for name, found in baselines.items() if metric in found}
    best = min(known, key=lambda name: known[name], default=None)
    if best is None or known[best] > score["high"]:
        return ""
    figures = f"{metric.replace('_', ' ')} {number(known[best])} against {number(value)}"
    if known[best] < score["low"]:
        return f"the {best} baseline does better here: {figures}"
    ends = f"95 % interval {number(score['low'])} to {number(score['high'])}"
    return f"no clear difference to the {best} baseline: {figures} ({ends})"


# ---------------------------------------------------------------- evaluate


def evaluation(
    model: Model, source: Any, encoding: str, notice: Callable[[str], None]
) -> dict[str, Any]:
    """Metrics of a model on a table with answers, as plain values."""
    from layerwise.data.files import read_table
    from layerwise.prepare import labelled

    target = model.target
    kinds = model.schema.kinds()
    if not target.is_regression:
        kinds[target.name] = {"b": "boolean", "i": "number", "f": "number"}.get(
            target.classes.dtype.kind, "text"
        )  # type: ignore[assignment]
    else:
        kinds[target.name] = "number"
    table = read_table(source, kinds=kinds, missing=model.schema.missing, encoding=encoding)
    part = labelled(table, model.schema, target, notice)
    for said in model.encoder.notices(part.table):
        notice(said)
    outputs = model.outputs(part.table)
    result: dict[str, Any] = {
        "task": target.task,
        "target": target.name,
        "rows": len(part),
        "weighted": part.weight is not None,
        "metrics": metrics.evaluate(target, part.y, outputs, part.weight),
    }
    if not target.is_regression:
        matrix = metrics.confusion(target, part.y, target.decode(outputs), part.weight)
        result["classes"] = target.classes.tolist()
        result["confusion"] = matrix.tolist()
    return result


def show_evaluation(result: Mapping[str, Any]) -> str:
    """Metrics, and for classes the confusion matrix."""
    weighted = ", weighted" if result["weighted"] else ""
    lines = [f"{result['target']}: {result['task']}, {count(result['rows'], 'row')}{weighted}", ""]
    lines += [
        grid(
            ["", "value"], [[k.replace("_", " "), number(v)] for k, v in result["metrics"].items()]
        )
    ]
    if len(result.get("classes", [])) > 12:
        lines += ["", f"{len(result['classes'])} classes: the confusion matrix is in --json"]
    elif "confusion" in result:
        names = [str(label) for label in result["classes"]]
        rows = [
            [name, *(f"{n:,.0f}" if float(n).is_integer() else f"{n:,.1f}" for n in row)]
            for name, row in zip(names, result["confusion"])
        ]
        lines += ["", grid(["truth \\ answer", *names], rows)]
    return "\n".join(lines)


# ---------------------------------------------------------------- inspect


def description(model: Model) -> dict[str, Any]:
    """All there is to say about a model, as plain values."""
    layers = summarise(model.plan)
    return {
        "target": model.target.to_json(),
        "layers": [vars(row) for row in layers.rows],
        "parameters": layers.total,
        "members": len(model.members),
        "columns": model.schema.to_json()["columns"],
        "features": model.encoder.feature_names,
        "recipe": model.recipe,
        **model.info,
    }


def show_description(model: Model) -> str:
    """Task, layers, columns, metrics, and which epoch was kept."""
    target, info = model.target, model.info
    what = f"{target.name}: {target.task}"
    if not target.is_regression:
        labels = [str(label) for label in target.classes.tolist()]
        what += f" ({', '.join(labels[:8])}{' …' if len(labels) > 8 else ''})"
    trained = info.get("data", {}).get("rows", info.get("rows", {})).get("train", 0)
    lines = [wrapped(what), "", str(summarise(model.plan, n_rows=trained))]
    left_out = [column for column in model.schema if not column.is_input]
    rows = [[column.name, column.role, column.reason] for column in model.schema.inputs]
    rows += [[column.name, column.role, column.reason] for column in left_out]
    lines += ["", grid(["column", "role", "why"], rows, left=3)]
    if "metrics" in info:
        lines += ["", f"on {info['measured_on']} rows:",
                  metric_table({"network": info["metrics"], **info["baselines"]})]  # fmt: skip
    if len(model.members) > 1:
        best = ", ".join(str(epoch) for epoch in info.get("best_epochs", []))
        lines += ["", wrapped(f"{len(model.members)} networks, their answers averaged; kept are "
                              f"their epochs {best}")]  # fmt: skip
    else:
        lines += ["", f"epoch {info['best_epoch']} was kept"]
    if "out_of_fold" in info:
        lines.append(wrapped(_held_out(target.task, info["out_of_fold"])))
    changed = ["hidden_layer_sizes", "activation", "optimizer", "lr", "batch_size"]
    settings = ", ".join(
        f"{name} {_setting(model.recipe[name])}" for name in changed if name in model.recipe
    )
    lines += [wrapped(settings), f"layerwise {info['layerwise']}, torch {info['torch']}"]
    return "\n".join(lines)


def _setting(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# ---------------------------------------------------------------- compare


def comparison(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What tells runs apart, a dict for each, as plain values."""
    found = []
    for path, record in records.items():
        question = record.get("question", {})
        settings = dict(question.get("settings", {}))
        entry = {
            "run": path,
            "status": record["status"],
            "target": record.get("target", question.get("target")),
            "task": record.get("task", ""),
            "rows": record.get("data", {}).get("rows", {}).get("train", 0),
            "best_epoch": record.get("best_epoch"),
            "epochs": record.get("epochs"),
            "seconds": round(sum(record.get("seconds", {}).values()), 1),
            "settings": settings,
            "metrics": record.get("metrics", {}),
            "data": record.get("data", {}).get("fingerprint", ""),
        }
        found.append(entry)
    return found


def show_comparison(found: Sequence[Mapping[str, Any]]) -> str:
    """Runs side by side, the best of each target first."""
    lines = []
    for target in dict.fromkeys((entry["target"], entry["task"]) for entry in found):
        runs = [entry for entry in found if (entry["target"], entry["task"]) == target]
        metric = metrics.DECIDING.get(target[1], "log_loss")
        runs.sort(key=lambda entry: entry["metrics"].get(metric, float("inf")))
        shown = list(dict.fromkeys(name for entry in runs for name in entry["metrics"]))[:4]
        if metric not in shown and shown:
            shown = [metric, *shown[:3]]
        rows = [
            [Path(entry["run"]).name, _settings_words(entry["settings"]),
             f"{entry['best_epoch']}/{entry['epochs']}" if entry["epochs"] else entry["status"],
             *(number(entry["metrics"][m]) if m in entry["metrics"] else "" for m in shown)]
            for entry in runs
        ]  # fmt: skip
        title = f"{target[0]}: {target[1] or 'not finished'}, best {metric.replace('_', ' ')} first"
        header = ["run", "settings", "epoch", *(m.replace("_", " ") for m in shown)]
        lines += [title, "", grid(header, rows, left=2), ""]
        if len({entry["data"] for entry in runs}) > 1:
            lines += [
                "these runs were measured on different data; their figures do not compare",
                "",
            ]
    return "\n".join(lines).rstrip()


def _settings_words(settings: Mapping[str, Any]) -> str:
    words = (
        f"{SETTINGS[name].metadata.get('flag', name) if name in SETTINGS else name} "
        f"{_setting(value)}"
        for name, value in settings.items()
    )
    return ", ".join(words) or "defaults"


# ---------------------------------------------------------------- schema


def show_schema(table: Table, schema: Schema) -> str:
    """Each column's role and the reason, and the cells that do not fit."""
    rows = [[column.name, column.role, column.reason] for column in schema]
    lines = [f"{table.source}: {count(table.n_rows, 'row')}, {len(table.columns)} columns", "",
             grid(["column", "role", "why"], rows, left=3)]  # fmt: skip
    for column in table.columns.values():
        if column.odd is None:
            continue
        cells = ", ".join(f"{cell!r} in row {row + 1}" for row, cell in column.odd.examples)
        lines += ["", f"{column.name}: nearly all cells are {column.odd.kind}s, "
                      f"{column.odd.count:,} are not: {cells}"]  # fmt: skip
    return "\n".join(lines)
