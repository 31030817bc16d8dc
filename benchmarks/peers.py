"""The peers of `benchmarks/engine.py`: one network, one table, one epoch at a time in each.

A peer is a function of widths, batch size, optimizer, and the table's X and y; it gives back two
functions: one that draws the order of an epoch, where the peer lets it be drawn outside, and one
that trains the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

Peer = tuple[Callable[[], Any], Callable[[Any], None]]


def data(widths: list[int], rows: int):
    """A table of normal numbers, and classes where the network has several outputs."""
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


def _torch_parts(widths: list[int], optimizer: str, X, y):
    import torch
    from torch import nn

    torch.set_num_threads(1)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    network = _torch_network(widths)
    loss = nn.CrossEntropyLoss() if widths[-1] > 1 else nn.MSELoss()
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    return X, y, network, loss, kind(network.parameters(), lr=1e-3)


def run_loop(widths: list[int], batch: int, optimizer: str, X, y) -> Peer:
    """The notes' loop: a DataLoader over a TensorDataset."""
    from torch.utils.data import DataLoader, TensorDataset

    X, y, network, loss, step = _torch_parts(widths, optimizer, X, y)
    loader = DataLoader(TensorDataset(X, y), batch_size=batch, shuffle=True)

    def epoch(_: Any) -> None:
        for features, target in loader:
            step.zero_grad()
            loss(network(features), target).backward()
            step.step()

    return lambda: None, epoch


def run_torch(widths: list[int], batch: int, optimizer: str, X, y) -> Peer:
    """torch with batches by index, as layerwise's own torch engine has them."""
    import torch

    from layerwise.engine.torch import Rows, train_epoch
    from layerwise.training.losses import loss_of

    X, y, network, loss, step = _torch_parts(widths, optimizer, X, y)
    data, compute = Rows(X, y), loss_of(loss)
    return (
        lambda: torch.randperm(len(X)),
        lambda order: train_epoch(network, compute, step, data, order, batch),
    )


def run_native(widths: list[int], batch: int, optimizer: str, X, y) -> Peer:
    """The core; its first epoch is checked against torch's."""
    import copy

    import torch

    from layerwise.engine.native import Native
    from layerwise.engine.torch import Rows, train_epoch
    from layerwise.training.losses import loss_of

    X, y, network, loss, step = _torch_parts(widths, optimizer, X, y)
    data, compute, order = Rows(X, y), loss_of(loss), torch.randperm(len(X))
    plain = copy.deepcopy(network)
    engine = Native(network, compute, step, data)
    few = order[: 4 * batch]
    ours = engine.train_epoch(data, few, batch).loss
    again = type(step)(plain.parameters(), lr=1e-3)
    theirs = train_epoch(plain, compute, again, data, few, batch).loss
    assert abs(ours - theirs) < 1e-4 * theirs, f"the losses are {ours} and {theirs}"
    return (
        lambda: torch.randperm(len(X)),
        lambda order: engine.train_epoch(data, order, batch),
    )


def run_sklearn(widths: list[int], batch: int, optimizer: str, X, y) -> Peer:
    """MLPClassifier or MLPRegressor, one epoch at a time."""
    import warnings

    from sklearn.neural_network import MLPClassifier, MLPRegressor

    warnings.simplefilter("ignore")
    kind = MLPClassifier if widths[-1] > 1 else MLPRegressor
    network = kind(
        hidden_layer_sizes=tuple(widths[1:-1]), solver=optimizer, batch_size=batch,
        learning_rate_init=1e-3, momentum=0, alpha=0, max_iter=1, warm_start=True,
        random_state=0, tol=0,
    )  # fmt: skip
    return lambda: None, lambda _: network.fit(X, y.ravel())


def run_jax(widths: list[int], batch: int, optimizer: str, X, y) -> Peer:
    """One jitted scan over the whole epoch."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows, X, y = len(X), jnp.asarray(X), jnp.asarray(y)
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

    def epoch(order: Any) -> None:
        nonlocal state
        state = whole(state, order)
        jax.block_until_ready(state)

    return (
        lambda: jnp.asarray(rng.permutation(rows)[: steps * batch].reshape(steps, batch)),
        epoch,
    )


PEERS = {
    "native": run_native, "loop": run_loop, "torch": run_torch, "sklearn": run_sklearn,
    "jax": run_jax,
}  # fmt: skip
