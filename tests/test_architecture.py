"""The house's rules: imports run downward, torch comes late, and few hops lead to the step."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise

ROOT = Path(layerwise.__file__).parent

# From the bottom to the top; what stands in one line may import each other.
LEVELS = [
    ["errors", "_version", "beside", "text"],
    ["storage"],
    ["data", "engine"],
    ["network", "metrics"],
    ["training", "model", "out_of_fold"],
    ["prepare", "progress"],
    ["insight"],
    ["diagnosis"],
    ["weights", "folder"],
    ["bagging"],
    ["baselines", "learn", "code", "report", "any_module"],
    ["judging"],
    ["shortlist"],
    ["run", "estimators"],
    ["checkup"],
    ["show", "selection"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
APART = {
    "engine": {"engine"},
    "data": {"data", "errors"},
    "network": {"network", "engine", "errors", "text"},
    "storage": {"errors"},
    "training": {"training", "engine", "network", "storage", "errors"},
    "model": {"model", "network", "data", "storage", "errors"},
    "insight": {
        "prepare",
        "metrics",
        "model",
        "training",
        "network",
        "data",
        "engine",
        "storage",
        "errors",
        "text",
    },
    "diagnosis": {"diagnosis", "insight", "training", "network", "engine", "errors", "text"},
    "code": {"code", "weights", "prepare", "model", "training", "network", "data", "errors"},
    "out_of_fold": {"data", "storage"},
    "errors": set(),
    "text": set(),
}


def _room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imports(tree: ast.AST) -> set[str]:
    """The rooms that a file imports anywhere, but for types only."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "layerwise":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("layerwise."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("layerwise.")]
            found |= {name.split(".")[1] for name in names}
        found |= _imports(node)
    return found


FILES = [p for p in sorted(ROOT.rglob("*.py")) if p.relative_to(ROOT) != Path("__init__.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward_only(path):
    room = _room(path)
    used = _imports(ast.parse(path.read_text("utf-8"))) - {room}
    assert room in LEVEL, "a new room: give it its level here"
    upward = {one for one in used if LEVEL[one] >= LEVEL[room]}
    assert not upward, f"{room} must not import {upward}"
    assert used <= APART.get(room, used), f"{room} must not import {used - APART[room]}"


LIGHT = [
    "layerwise", "layerwise.data.files", "layerwise.data.encoder", "layerwise.data.target",
    "layerwise.data.split", "layerwise.network.plan", "layerwise.network.forward",
    "layerwise.network.summary", "layerwise.model.model", "layerwise.model.file",
    "layerwise.model.answers", "layerwise.storage", "layerwise.training.recipe",
    "layerwise.training.schedule", "layerwise.training.history", "layerwise.prepare",
    "layerwise.run", "layerwise.cli", "layerwise.show", "layerwise.metrics", "layerwise.progress",
    "layerwise.code.script",
]  # fmt: skip


def test_torch_and_scikit_learn_wait_until_they_are_needed():
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in ('torch', 'sklearn', 'pandas', 'polars', 'matplotlib'):\n"
        "        assert heavy not in sys.modules, f'{name} imports {heavy}'"
    )
    command = [sys.executable, "-c", code, *LIGHT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_says_what_it_is():
    for name in layerwise.__all__:
        value = getattr(layerwise, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert set(dir(layerwise)) == set(layerwise.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        layerwise.trian  # noqa: B018


def test_at_most_four_of_our_frames_lie_between_fit_and_the_step(monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def look(self, closure=None):
        frames = [
            (Path(frame.filename), frame.function)
            for frame in inspect.stack(context=0)
            if Path(frame.filename).is_relative_to(ROOT)
        ]
        seen.append(frames)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", look)
    X = np.random.default_rng(0).normal(size=(60, 2))
    classifier = layerwise.NetworkClassifier(
        optimizer="sgd", epochs=1, hidden_layer_sizes=(2,), engine="torch", members=1
    )
    classifier.fit(X, (X[:, 0] > 0).astype(int))
    names = [name for _, name in seen[0]]
    assert names[-1] == "fit"
    assert names[0] == "train_epoch"
    between = len(names) - 1  # all but NetworkClassifier.fit itself
    assert between <= 4, names
