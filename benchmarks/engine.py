"""The native core against the loop of the notes, torch by index, scikit-learn and JAX.

    python benchmarks/engine.py [--repeat 5] [--quick]

One table, four networks, microseconds a step (forward, backward, update). Every peer runs in a
process of its own on one thread and says the median of its epochs; ratios are theirs over ours, so
more is better for us. scikit-learn's answers and those of the plain loop are compared with the
core's before anything is timed. A peer that is not installed (JAX) is left out. Then: how near the
products come to the processor's sgemm, one epoch on a real table, and a grid search.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}

# widths, batch, optimizer, rows; and the ratios that we promise over each peer
CASES = {
    "4-2-1": ([4, 2, 1], 4, "sgd", 8_000),
    "10-64-64-1": ([10, 64, 64, 1], 32, "adam", 16_000),
    "50-256-256-10": ([50, 256, 256, 10], 256, "adam", 25_600),
    "100-512-512-512-1": ([100, 512, 512, 512, 1], 1024, "adam", 10_240),
}
PROMISED = {"loop": (500, 25, 3, 1.5), "jax": (12, 2.5, 1.0, 1.0), "sklearn": (300, 20, 1.8, 1.3)}


# ---------------------------------------------------------------- the peers, each in its process


def _data(widths: list[int], rows: int):
    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, widths[0])).astype(np.float32)
    if widths[-1] > 1:
        return X, rng.integers(0, widths[-1], rows)
    y = (X[:, :1] * 0.5 + np.sin(X[:, 1:2])).astype(np.float32)
    return X, y


def _torch_network(widths: list[int]):
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _torch_parts(widths: list[int], optimizer: str, rows: int):
    import torch
    from torch import nn

    torch.set_num_threads(1)
    X, y = (torch.from_numpy(part) for part in _data(widths, rows))
    network = _torch_network(widths)
    loss = nn.CrossEntropyLoss() if widths[-1] > 1 else nn.MSELoss()
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    return X, y, network, loss, kind(network.parameters(), lr=1e-3)


def run_loop(widths: list[int], batch: int, optimizer: str, rows: int) -> Callable[[], None]:
    """The notes' loop: a DataLoader over a TensorDataset."""
    from torch.utils.data import DataLoader, TensorDataset

    X, y, network, loss, step = _torch_parts(widths, optimizer, rows)
    loader = DataLoader(TensorDataset(X, y), batch_size=batch, shuffle=True)

    def epoch() -> None:
        for features, target in loader:
            step.zero_grad()
            loss(network(features), target).backward()
            step.step()

    return epoch


def run_torch(widths: list[int], batch: int, optimizer: str, rows: int) -> Callable[[], None]:
    """torch with batches by index, as layerwise's own torch engine has them."""
    import torch

    from layerwise.engine.torch import Rows, train_epoch
    from layerwise.training.losses import loss_of

    X, y, network, loss, step = _torch_parts(widths, optimizer, rows)
    data, compute = Rows(X, y), loss_of(loss)
    return lambda: train_epoch(network, compute, step, data, torch.randperm(rows), batch)


def run_native(widths: list[int], batch: int, optimizer: str, rows: int) -> Callable[[], None]:
    """The core; its first epoch is checked against torch's."""
    import copy

    import torch

    from layerwise.engine.native import Native
    from layerwise.engine.torch import Rows, train_epoch
    from layerwise.training.losses import loss_of

    X, y, network, loss, step = _torch_parts(widths, optimizer, rows)
    data, compute, order = Rows(X, y), loss_of(loss), torch.randperm(rows)
    plain = copy.deepcopy(network)
    engine = Native(network, compute, step, data)
    few = order[: 4 * batch]
    ours = engine.train_epoch(data, few, batch).loss
    again = type(step)(plain.parameters(), lr=1e-3)
    theirs = train_epoch(plain, compute, again, data, few, batch).loss
    assert abs(ours - theirs) < 1e-4 * theirs, f"the losses are {ours} and {theirs}"
    return lambda: engine.train_epoch(data, torch.randperm(rows), batch)


def run_sklearn(widths: list[int], batch: int, optimizer: str, rows: int) -> Callable[[], None]:
    """MLPClassifier or MLPRegressor, one epoch at a time."""
    import warnings

    from sklearn.neural_network import MLPClassifier, MLPRegressor

    warnings.simplefilter("ignore")
    kind = MLPClassifier if widths[-1] > 1 else MLPRegressor
    X, y = _data(widths, rows)
    network = kind(
        hidden_layer_sizes=tuple(widths[1:-1]), solver=optimizer, batch_size=batch,
        learning_rate_init=1e-3, momentum=0, alpha=0, max_iter=1, warm_start=True,
        random_state=0, tol=0,
    )  # fmt: skip
    return lambda: network.fit(X, y.ravel())


def run_jax(widths: list[int], batch: int, optimizer: str, rows: int) -> Callable[[], None]:
    """One jitted scan over the whole epoch."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    X, y = _data(widths, rows)
    X, y = jnp.asarray(X), jnp.asarray(y)
    keys = jax.random.split(jax.random.key(0), len(widths))
    weights = [
        (jax.random.normal(k, (a, b)) * a**-0.5, jnp.zeros(b))
        for k, (a, b) in zip(keys, pairwise(widths))
    ]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    classes = widths[-1] > 1

    def loss(weights, x, t):
        for W, b in weights[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = weights[-1]
        x = x @ W + b
        if classes:
            return -jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], 1).mean()
        return jnp.mean((x - t) ** 2)

    def step(state, rows_of):
        weights, m, v, n = state
        g = jax.grad(loss)(weights, X[rows_of], y[rows_of])
        if optimizer == "sgd":
            return (jax.tree.map(lambda w, d: w - 1e-3 * d, weights, g), m, v, n), None
        n = n + 1
        m = jax.tree.map(lambda m, d: 0.9 * m + 0.1 * d, m, g)
        v = jax.tree.map(lambda v, d: 0.999 * v + 0.001 * d * d, v, g)
        c1, c2 = 1 - 0.9**n, 1 - 0.999**n
        weights = jax.tree.map(
            lambda w, a, b: w - 1e-3 * (a / c1) / (jnp.sqrt(b / c2) + 1e-8), weights, m, v
        )
        return (weights, m, v, n), None

    whole = jax.jit(lambda state, order: jax.lax.scan(step, state, order)[0])
    state = (weights, zeros, zeros, jnp.float32(0))
    rng = np.random.default_rng(0)
    steps = rows // batch

    def epoch() -> None:
        nonlocal state
        order = jnp.asarray(rng.permutation(rows)[: steps * batch].reshape(steps, batch))
        state = whole(state, order)
        jax.block_until_ready(state)

    return epoch


PEERS = {
    "native": run_native, "loop": run_loop, "torch": run_torch, "sklearn": run_sklearn,
    "jax": run_jax,
}  # fmt: skip


def measure(peer: str, case: str, repeat: int) -> dict[str, float]:
    """Microseconds a step, in this process."""
    widths, batch, optimizer, rows = CASES[case]
    if peer in ("loop", "torch", "sklearn") and case == "4-2-1":
        rows //= 4  # half a millisecond a step is enough to see
    epoch = PEERS[peer](widths, batch, optimizer, rows)
    epoch()
    epoch()
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        epoch()
        seconds.append(time.process_time() - start)
    return {"us": statistics.median(seconds) / -(-rows // batch) * 1e6}


def elsewhere(*arguments: str) -> dict[str, float] | None:
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


# ---------------------------------------------------------------- what else is promised


def sgemm() -> dict[str, float]:
    """GFLOP/s of NumPy's and torch's matrix product, and of a whole step of 100-64-32-1."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    a, t = np.random.default_rng(0).random((768, 768), np.float32), torch.rand(768, 768)
    best = {"numpy": float("inf"), "torch": float("inf")}
    for _ in range(40):
        for name, product in (("numpy", lambda: a @ a), ("torch", lambda: t @ t)):
            start = time.process_time()
            product()
            best[name] = min(best[name], time.process_time() - start)
    peak = 2 * 768**3 / min(best.values()) / 1e9
    widths, batch, rows = [100, 64, 32, 1], 128, 6_400
    epoch = run_native(widths, batch, "sgd", rows)
    seconds = []
    for _ in range(200):
        start = time.process_time()
        epoch()
        seconds.append(time.process_time() - start)
    products = sum((2 if i == 0 else 3) * a * b for i, (a, b) in enumerate(pairwise(widths)))
    own = 2 * products * rows / statistics.median(seconds) / 1e9
    return {"sgemm": peak, "step": own, "share": own / peak}


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
    rates = (0.0003, 0.001, 0.003, 0.01)
    shapes = ((16,), (32,), (64,), (32, 32), (64, 64))
    theirs = GridSearchCV(
        make_pipeline(MLPClassifier(
            solver="adam", batch_size=32, alpha=0, max_iter=50, tol=0, n_iter_no_change=1000,
            random_state=0,
        )),
        {"mlpclassifier__hidden_layer_sizes": shapes, "mlpclassifier__learning_rate_init": rates},
        cv=5,
    )  # fmt: skip
    ours = GridSearchCV(
        NetworkClassifier(
            activation="relu", optimizer="adam", weight_decay=0, batch_size=32, epochs=50,
            patience=None, validation_fraction=0, engine="native", random_state=0,
        ),
        {"hidden_layer_sizes": shapes, "lr": rates},
        cv=5,
    )  # fmt: skip
    told = {}
    for name, one in (("ours", ours), ("theirs", theirs)):
        start = time.process_time()
        one.fit(X, y)
        told[name] = time.process_time() - start
        told[f"{name}_score"] = float(one.best_score_)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer")
    parser.add_argument("--case")
    parser.add_argument("--quick", action="store_true", help="leave out the grid search")
    arguments = parser.parse_args()
    if arguments.peer in PEERS:
        print(json.dumps(measure(arguments.peer, arguments.case, arguments.repeat)))
        return
    if arguments.peer:
        print(json.dumps({"sgemm": sgemm, "search": search}[arguments.peer]()))
        return
    print(f"{'us a step, one thread':22}" + "".join(f"{peer:>10}" for peer in PEERS) + "   ratios")
    for number, case in enumerate(CASES):
        found = {
            peer: elsewhere("--peer", peer, "--case", case, "--repeat", str(arguments.repeat))
            for peer in PEERS
        }
        own = found["native"]["us"]
        line = "".join(f"{one['us']:10,.2f}" if one else f"{'-':>10}" for one in found.values())
        ratios = [
            f"{peer} {found[peer]['us'] / own:,.1f} (of {bars[number]:g})"
            for peer, bars in PROMISED.items()
            if found[peer]
        ]
        print(f"{case:22}{line}   {', '.join(ratios)}", flush=True)
    near = elsewhere("--peer", "sgemm")
    print(
        f"\n100-64-32-1, batch 128: {near['step']:.0f} GFLOP/s, {near['share']:.0%} of sgemm's "
        f"{near['sgemm']:.0f} on one core"
    )
    if not arguments.quick:
        grid = elsewhere("--peer", "search")
        print(
            f"5 folds of 20 candidates on breast_cancer: {grid['ours']:.1f} s against "
            f"{grid['theirs']:.1f} s of GridSearchCV with MLPClassifier, "
            f"{grid['theirs'] / grid['ours']:.1f} times; best scores {grid['ours_score']:.4f} and "
            f"{grid['theirs_score']:.4f}"
        )


if __name__ == "__main__":
    main()
