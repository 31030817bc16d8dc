"""A linear layer right after bins: its products are taken by running sums, and are torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core_cases import Case
from layerwise.engine import native
from layerwise.engine.native import Native
from layerwise.engine.torch import Rows
from layerwise.network.layers import Dropout, InputLayer

SETS = native._core.instruction_sets() if native.AVAILABLE else []
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
WIDE = 40  # outputs from which the running sums are worth it, and a last panel that is not full


def _case(bins, n, seed, dtype, *, levels=(), widths=(), weighted=False, after=(), outputs=WIDE):
    """Rows that lie inside of the bins, on their edges and far outside."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    first = InputLayer(len(bins), list(levels), list(widths), dtype, list(bins))
    numbers, edges = rng.normal(size=(n, len(bins))), []
    for c, many in enumerate(bins):
        if many:
            edges.append(np.sort(rng.normal(size=many + 1)).astype(np.float32).astype(float))
            on_edge = rng.random(n) < 0.3
            numbers[on_edge, c] = rng.choice(edges[-1], on_edge.sum())
    numbers[rng.random(numbers.shape) < 0.1] *= 50
    if edges:
        first.edges.copy_(torch.from_numpy(np.concatenate(edges)))
    codes = [rng.integers(0, many + 1, n) for many in levels]
    X = torch.from_numpy(np.column_stack([numbers, *codes])).to(dtype)
    y = torch.from_numpy(rng.normal(size=(n, 2))).to(dtype)
    w = torch.from_numpy(rng.uniform(0.1, 2, n)).to(dtype) if weighted else None
    network = nn.Sequential(
        first, *after, nn.Linear(first.out_features, outputs), nn.Tanh(), nn.Linear(outputs, 2)
    ).to(dtype)
    return Case(network, "mse", Rows(X, y, w))


def _engine(one, **options):
    return Native(
        one.network, one.loss, torch.optim.SGD(one.network.parameters(), lr=0.1), one.rows,
        **options,
    )  # fmt: skip


def _is_torchs(one, **options):
    engine, near = _engine(one, **options), EXACT[one.dtype]
    one.network.eval()
    with torch.no_grad():
        expected = one.network(one.rows.X)
    torch.testing.assert_close(engine.predict(one.rows.X), expected, rtol=near, atol=10 * near)
    one.network.train()
    loss, gradients = engine.gradients(one.rows)
    value = one.loss(one.network(one.rows.X), one.rows.y, one.rows.w)
    assert loss == pytest.approx(value.item(), rel=10 * near)
    wanted = torch.autograd.grad(value, list(one.network.parameters()))
    limit = near * max(1.0, *(float(g.abs().max()) for g in wanted))
    for found, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "bins",
    [[16] * 15, [8], [0, 31, 0], [3, 32, 1, 0, 16], [16] * 40, [*[0] * 20, 9, 20], [400, 8]],
)
def test_products_over_bins_are_torchs(name, dtype, bins):
    for n in (1, 2, 33, 200):
        _is_torchs(_case(bins, n, n, dtype), instruction_set=name)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=24),
    st.integers(1, 70),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=3),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(30, 90),
    st.integers(0, 2**31),
)
def test_any_plan_of_bins_is_torchs(bins, n, categories, weighted, dtype, outputs, seed):
    levels, widths = [c[0] for c in categories], [c[1] for c in categories]
    one = _case(
        bins, n, seed, dtype, levels=levels, widths=widths, weighted=weighted, outputs=outputs
    )
    _is_torchs(one)


def test_dropout_between_bins_and_the_layer_counts():
    kept = _case([16] * 3, 40, 1, torch.float64, after=[Dropout(0.5)])
    plain = _case([16] * 3, 40, 1, torch.float64)
    torch.testing.assert_close(
        _engine(kept).predict(kept.rows.X), _engine(plain).predict(plain.rows.X)
    )
    row = Rows(kept.rows.X[:1], kept.rows.y[:1])
    for one, some_are_dropped in ((kept, True), (plain, False)):
        bins = _engine(one).gradients(row)[1][0][:, 3:]
        ones = (one.network[0](row.X)[0, 3:] == 1).nonzero()[:, 0]
        assert (bins[:, ones] == 0).all(0).any() == some_are_dropped
        assert (bins[:, ones] != 0).all(0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_that_is_not_finite_is_answered_as_in_torch(dtype):
    one = _case([16, 9, 0], 6, 0, dtype)
    X = one.rows.X.clone()
    X[0, 0], X[1, 1], X[2, 2], X[3, 1] = torch.nan, torch.nan, torch.inf, -torch.inf
    one.network.eval()
    with torch.no_grad():
        expected = one.network(X)
    found = _engine(one).predict(X)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    loss, _ = _engine(one).gradients(Rows(X, one.rows.y))
    assert loss != loss


def test_a_row_is_answered_alike_alone_and_among_others():
    one = _case([16] * 15, 300, 0, torch.float32)
    engine = _engine(one)
    together = engine.predict(one.rows.X)
    alone = torch.cat([engine.predict(one.rows.X[i : i + 1]) for i in range(300)])
    assert torch.equal(alone, together)
