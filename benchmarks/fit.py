"""What a default fit costs: CPU and wall seconds, and memory beyond that of torch.

    python benchmarks/fit.py [--rows 1000,2000] [--stages]

Generated tables of 15 columns, one process for each, so that none sees another's memory; the five
networks go on as many threads as there are processors. The first line of work in each process is
torch's own start, which is not counted. ``--stages`` adds where the time of `layerwise.train` goes,
of which "examine" is the doctor. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROWS = (1_000, 2_000, 10_000, 50_000)
COLUMNS = 15
HEAD = ("rows", "task", "CPU s", "per 1,000 rows", "wall s", "MB beyond torch", "epochs")


def table(n: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Columns of normal numbers; a bend, a product and a noisy line of the others to learn."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, COLUMNS))
    line = X[:, 3:] @ rng.normal(size=COLUMNS - 3) / 3
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + line + rng.normal(size=n) / 2
    return X, y if task == "regression" else (y > 0).astype(int)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def fit_one(n: int, task: str) -> dict[str, Any]:
    """One fit in this process."""
    import torch

    torch.nn.Linear(2, 2)(torch.zeros(1, 2)).sum().backward()
    from layerwise import NetworkClassifier, NetworkRegressor

    X, y = table(n, task)
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    kind = NetworkRegressor if task == "regression" else NetworkClassifier
    model = kind(random_state=0).fit(X, y)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    epochs = [len(member) for member in model.history_.members]
    return {"cpu": cpu, "wall": wall, "memory": peak() - before, "epochs": epochs}


def stages(n: int, task: str) -> dict[str, float]:
    """Seconds of each stage of `layerwise.train`, the second time in this process."""
    import layerwise

    X, y = table(n, task)
    columns = {f"x{i}": X[:, i] for i in range(COLUMNS)} | {"y": y}
    for _ in range(2):
        run = layerwise.train(columns, target="y", baselines=False)
    return dict(run.record["seconds"])


def apart(n: int, task: str, *more: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", str(n), task, *more]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def line(cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a default fit costs.")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="separated by commas")
    parser.add_argument("--stages", action="store_true", help="also those of layerwise.train")
    parser.add_argument("--one", nargs=2, metavar=("ROWS", "TASK"), help=argparse.SUPPRESS)
    ask = parser.parse_args()
    if ask.one:
        work = stages if ask.stages else fit_one
        print(json.dumps(work(int(ask.one[0]), ask.one[1])))
        return
    rows = [int(n) for n in ask.rows.split(",")]
    each = [(n, task) for n in rows for task in ("regression", "binary")]
    print(line(HEAD), line(["---:", "---", *["---:"] * 5]), sep="\n")
    for n, task in each:
        of = apart(n, task)
        cells = (
            f"{n:,}", task, f"{of['cpu']:.1f}", f"{1000 * of['cpu'] / n:.2f}",
            f"{of['wall']:.1f}", f"{of['memory']:.0f}", f"{min(of['epochs'])}-{max(of['epochs'])}",
        )  # fmt: skip
        print(line(cells), flush=True)
    for n, task in each if ask.stages else ():
        print(f"{n:,} {task}:", apart(n, task, "--stages"), flush=True)


if __name__ == "__main__":
    main()
