"""How to repeat the run, and what it was made with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from layerwise.report.blocks import Block, Code, Grid, Section, Text
from layerwise.report.subject import Subject
from layerwise.training.recipe import SETTINGS


def again(subject: Subject) -> Section:
    """The command, the versions, and the data's fingerprint."""
    record, info = subject.run.record, subject.run.model.info
    question = record["question"]
    blocks: list[Block] = []
    if isinstance(question.get("source"), str) or question.get("sql"):
        folder = str(subject.run.folder) if subject.run.folder else "runs/again"
        blocks.append(Code(command(question, "runs/again")))
        blocks.append(
            Text(
                f"Same table, same seed, same bytes. New rows: layerwise predict {folder} NEW.csv. "
                f"As plain PyTorch: layerwise code {folder} -o train.py.", soft=True,
            )
        )  # fmt: skip
    versions = [[name, str(info[name])] for name in ("layerwise", "torch", "numpy", "python")
                if name in info]  # fmt: skip
    facts = [
        *versions,
        ["random_state", str(question.get("random_state", 0))],
        ["data", record["data"].get("fingerprint", "")],
        ["begun", str(record.get("started", ""))],
        ["seconds", ", ".join(f"{k} {v:.1f}" for k, v in record.get("seconds", {}).items())],
    ]
    blocks.append(Grid(["", ""], [row for row in facts if row[1]], left=2))
    return Section("again", "How to repeat it", blocks)


def command(question: dict[str, Any], out: str) -> str:
    """The command line that asks the same question."""
    parts = ["layerwise", "train"]
    parts += ["--sql", question["sql"]] if question.get("sql") else [str(question["source"])]
    flags = {
        "target": None, "task": "auto", "valid": 0.15, "test": 0.2, "weights": None,
        "class_weight": None, "group": None, "time": None, "schema": None, "encoding": "utf-8",
        "random_state": 0,
    }  # fmt: skip
    for name, default in flags.items():
        value = question.get(name)
        if value is not None and value != default:
            parts += [f"--{name.replace('_', '-')}", _words(value)]
    for name, value in question.get("roles", {}).items():
        parts += ["--as", f"{name}={value}"]
    for flag in ("drop", "missing"):
        for value in question.get(flag, []):
            parts += [f"--{flag}", value]
    if question.get("baselines") is False:
        parts.append("--no-baselines")
    for name, value in question.get("settings", {}).items():
        flag = SETTINGS[name].metadata.get("flag", name) if name in SETTINGS else name
        parts += [f"--{flag.replace('_', '-')}", _words(value)]
    parts += ["--out", str(Path(out))]
    return " ".join(shlex.quote(part) for part in parts)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={one}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
