"""The native core against the loop of the notes, torch by index, scikit-learn and JAX.

    python benchmarks/engine.py [--repeat 5] [--quick]

One table, four networks, microseconds a step (forward, backward, update). Every peer runs in a
process of its own on one thread and says the median of its epochs; the order of an epoch is drawn
before, except by the loop and scikit-learn, which draw it themselves. Ratios are theirs over ours,
so more is better for us. The core's first steps are compared with torch's before anything is timed.
A peer that is not installed (JAX) is left out. Then: how near the products come to the processor's
sgemm, one epoch on real tables, memory, time to load, and a grid search; last, what is promised and
what was met.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from peers import PEERS, data

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}

# widths, batch, optimizer, rows; and the ratios that are promised over each peer
CASES = {
    "4-2-1": ([4, 2, 1], 4, "sgd", 8_000),
    "10-64-64-1": ([10, 64, 64, 1], 32, "adam", 16_000),
    "50-256-256-10": ([50, 256, 256, 10], 256, "adam", 25_600),
    "100-512-512-512-1": ([100, 512, 512, 512, 1], 1024, "adam", 10_240),
}
PROMISED = {"loop": (500, 25, 3, 1.5), "jax": (12, 2.5, 1.0, 1.0), "sklearn": (300, 20, 1.8, 1.3)}
SGEMM, SEARCH = 0.75, 25  # of its speed; times faster
LIBRARIES = {
    "native": ["layerwise.engine.native", "layerwise.training.losses"],
    "torch": ["torch", "layerwise.training.losses"],
    "sklearn": ["sklearn.neural_network"],
}
# scikit-learn's bundled tables: hidden layers for one epoch in batches of 32 with Adam
TABLES = {"breast_cancer": [64, 64], "digits": [128], "diabetes": [32, 32], "wine": [16]}


def timed(draw: Callable[[], Any], epoch: Callable[[Any], None], repeat: int) -> list[float]:
    """Seconds of the processor for each epoch, after two that do not count."""
    seconds = []
    for _ in range(repeat + 2):
        order = draw()
        start = time.process_time()
        epoch(order)
        seconds.append(time.process_time() - start)
    return seconds[2:]


def measure(peer: str, case: str, repeat: int) -> dict[str, float]:
    """Microseconds a step, in this process."""
    widths, batch, optimizer, rows = CASES[case]
    if peer in ("loop", "torch", "sklearn") and case == "4-2-1":
        rows //= 4  # half a millisecond a step is enough to see
    seconds = timed(*PEERS[peer](widths, batch, optimizer, *data(widths, rows)), repeat)
    return {"us": statistics.median(seconds) / -(-rows // batch) * 1e6}


def elsewhere(*arguments: str) -> dict[str, Any] | None:
    """What a process of its own on one thread measures; None if the peer is not installed."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    if "No module named" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def sgemm() -> dict[str, float]:
    """GFLOP/s of NumPy's and torch's matrix product, and of a whole step of 100-64-32-1."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    a, t = np.random.default_rng(0).random((768, 768), np.float32), torch.rand(768, 768)
    widths, batch, rows = [100, 64, 32, 1], 128, 6_400
    draw, epoch = PEERS["native"](widths, batch, "sgd", *data(widths, rows))
    best = dict.fromkeys(("numpy", "torch", "step"), float("inf"))
    for _ in range(100):  # in turn, so that a busy machine slows all of them
        order = draw()
        for name, work in (
            ("numpy", lambda: a @ a), ("torch", lambda: t @ t), ("step", partial(epoch, order)),
        ):  # fmt: skip
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    peak = 2 * 768**3 / min(best["numpy"], best["torch"]) / 1e9
    products = sum((2 if i == 0 else 3) * a * b for i, (a, b) in enumerate(pairwise(widths)))
    own = 2 * products * rows / best["step"] / 1e9
    return {"sgemm": peak, "step": own, "share": own / peak}


def table(peer: str, name: str, repeat: int) -> dict[str, float]:
    """Milliseconds of an epoch on a bundled table, and megabytes that all of it took."""
    import resource

    import numpy as np
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    classes = len(np.unique(y)) < 20
    if not classes:
        y = (y - y.mean()) / y.std()
    y = y.astype(np.int64) if classes else y.astype(np.float32)[:, None]
    widths = [X.shape[1], *TABLES[name], len(np.unique(y)) if classes else 1]
    for library in LIBRARIES[peer]:
        importlib.import_module(library)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed(*PEERS[peer](widths, 32, "adam", X, y), repeat)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"ms": statistics.median(seconds) * 1e3, "mb": (after - before) / 1024}


IMPORTS = {
    "the core, without torch": "import layerwise.engine._core",
    "layerwise and what predicts": "import layerwise; layerwise.Model",
    "torch": "import torch",
    "scikit-learn's networks": "import sklearn.neural_network",
    "JAX": "import jax",
}


def loading(statement: str) -> float | None:
    """Seconds of the processor that an interpreter takes to import this."""
    best = []
    for one in ("pass", statement):
        code = f"import time; {one}; print(time.process_time())"
        runs = [
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            for _ in range(3)
        ]
        if any(run.returncode for run in runs):
            return None
        best.append(min(float(run.stdout) for run in runs))
    return best[1] - best[0]


SHAPES = ((16,), (32,), (64,), (32, 32), (64, 64))
RATES = (0.0003, 0.001, 0.003, 0.01)


def side_by_side(X: Any, y: Any) -> float:
    """The best candidate's mean accuracy: every fold of every candidate a job of `fit_many`."""
    import numpy as np
    import torch
    from sklearn.model_selection import StratifiedKFold

    from layerwise.engine.torch import Rows
    from layerwise.network.build import build
    from layerwise.network.plan import design
    from layerwise.training.losses import LOSSES
    from layerwise.training.many import Job, fit_many
    from layerwise.training.recipe import Recipe

    rows, classes = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    targets = classes[:, None]
    folds = [tuple(map(torch.tensor, fold)) for fold in StratifiedKFold(5).split(X, y)]
    candidates = [(shape, rate) for shape in SHAPES for rate in RATES]
    jobs = [
        Job(
            build(design(X.shape[1], [], 1, hidden_layer_sizes=shape, activation="relu")),
            LOSSES["bce"], Rows(rows, targets, index=learn), None,
            Recipe(
                optimizer="adam", lr=rate, weight_decay=0, batch_size=32, epochs=50,
                schedule="constant", warmup=0,
            ),
        )
        for shape, rate in candidates
        for learn, _ in folds
    ]  # fmt: skip
    fit_many(jobs)
    right = []
    for number, job in enumerate(jobs):
        held = folds[number % len(folds)][1]
        with torch.no_grad():
            right.append(((job.network(rows[held]) > 0) == (targets[held] > 0)).double().mean())
    return float(np.reshape(right, (len(candidates), -1)).mean(axis=1).max())


def search() -> dict[str, float]:
    """5 folds of 20 candidates on breast_cancer: GridSearchCV with MLPClassifier, and with ours."""
    import warnings

    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from layerwise import NetworkClassifier

    warnings.simplefilter("ignore")
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    theirs = GridSearchCV(
        make_pipeline(MLPClassifier(
            solver="adam", batch_size=32, alpha=0, max_iter=50, tol=0, n_iter_no_change=1000,
            random_state=0,
        )),
        {"mlpclassifier__hidden_layer_sizes": SHAPES, "mlpclassifier__learning_rate_init": RATES},
        cv=5,
    )  # fmt: skip
    ours = GridSearchCV(
        NetworkClassifier(
            activation="relu", optimizer="adam", weight_decay=0, batch_size=32, epochs=50,
            patience=None, validation_fraction=0, engine="native", random_state=0, members=1,
            bins=0, dropout=0, schedule="constant", warmup=0,
        ),
        {"hidden_layer_sizes": SHAPES, "lr": RATES},
        cv=5,
    )  # fmt: skip
    side_by_side(X[:60], y[:60])  # what is imported late is imported before the clock runs
    NetworkClassifier(epochs=1).fit(X[:60], y[:60])
    told = {}
    for name, run in (
        ("core", lambda: side_by_side(X, y)),
        ("ours", lambda: ours.fit(X, y).best_score_),
        ("theirs", lambda: theirs.fit(X, y).best_score_),
    ):
        start = time.process_time()
        told[f"{name}_score"] = float(run())
        told[name] = time.process_time() - start
    return told


def networks(repeat: int) -> list[tuple[str, float, float]]:
    """Print microseconds a step of every peer; what was promised, asked and found."""
    told = []
    print(f"{'us a step, one thread':22}" + "".join(f"{peer:>10}" for peer in PEERS))
    for number, case in enumerate(CASES):
        found = {
            peer: elsewhere("--peer", peer, "--case", case, "--repeat", str(repeat))
            for peer in PEERS
        }
        print(
            f"{case:22}"
            + "".join(f"{one['us']:10,.2f}" if one else f"{'-':>10}" for one in found.values()),
            flush=True,
        )
        for peer, bars in PROMISED.items():
            if found[peer]:
                ratio = found[peer]["us"] / found["native"]["us"]
                told.append((f"{case}, times faster than {peer}", bars[number], ratio))
    return told


def tables(repeat: int) -> None:
    """Print one epoch on each real table."""
    peers = ("native", "torch", "sklearn")
    print(f"\n{'ms an epoch (MB)':22}" + "".join(f"{peer:>16}" for peer in peers))
    for name in TABLES:
        line = f"{name:22}"
        for peer in peers:
            one = elsewhere("--peer", peer, "--table", name, "--repeat", str(repeat))
            line += f"{one['ms']:9.2f} ({one['mb']:4.0f})" if one else f"{'-':>16}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer")
    parser.add_argument("--case")
    parser.add_argument("--table")
    parser.add_argument("--quick", action="store_true", help="leave out the grid search")
    arguments = parser.parse_args()
    if arguments.peer in PEERS:
        one = table if arguments.table else measure
        what = arguments.table or arguments.case
        print(json.dumps(one(arguments.peer, what, arguments.repeat)))
        return
    if arguments.peer:
        print(json.dumps({"sgemm": sgemm, "search": search}[arguments.peer]()))
        return
    told = networks(arguments.repeat)
    tables(arguments.repeat)
    print(f"\n{'seconds to load':34}")
    for name, statement in IMPORTS.items():
        seconds = loading(statement)
        print(f"{name:34}" + (f"{seconds:6.2f}" if seconds is not None else f"{'-':>6}"))
    near = elsewhere("--peer", "sgemm")
    print(
        f"\n100-64-32-1, batch 128: {near['step']:.0f} GFLOP/s on one core, "
        f"sgemm {near['sgemm']:.0f}"
    )
    told.append(("100-64-32-1, share of sgemm's speed", SGEMM, near["share"]))
    if not arguments.quick:
        grid = elsewhere("--peer", "search")
        print("\n5 folds of 20 candidates on breast_cancer, CPU seconds (best score):")
        for name, who in (
            ("theirs", "GridSearchCV, MLPClassifier"), ("ours", "GridSearchCV, NetworkClassifier"),
            ("core", "jobs side by side"),
        ):  # fmt: skip
            print(f"{who:34}{grid[name]:6.1f} ({grid[f'{name}_score']:.4f})")
        told += [
            ("5 x 20 trainings side by side, times faster", SEARCH, grid["theirs"] / grid["core"]),
            ("the same by GridSearchCV, times faster", SEARCH, grid["theirs"] / grid["ours"]),
        ]
    print(f"\n{'promised':46}{'at least':>10}{'found':>10}")
    for name, bar, found in told:
        print(f"{name:46}{bar:10g}{found:10,.2f}   {'met' if found >= bar else 'missed'}")


if __name__ == "__main__":
    main()
