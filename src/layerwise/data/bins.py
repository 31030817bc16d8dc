"""Where the bins of a number begin and end: at its values if they are few, else at quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_APART = 1e-4  # edges nearer than this, on the scale of the network's numbers, are one


def learn_bins(
    numbers: np.ndarray, n_bins: int, weight: np.ndarray | None = None
) -> list[np.ndarray]:
    """The edges of each number's bins, learnt on training rows.

    The hours of a day or the points of a rating are few values, and each may be another step: where
    they are few enough for twice ``n_bins``, a bin lies between each two neighbours, and the layer
    after it can answer each value freely. Otherwise edges are quantiles, so that each bin has about
    as many rows. A value that many rows share, such as the 0 of a column of gains that hardly
    anybody has, then counts as no more rows than make half a bin: else it would be nearly every
    quantile, and leave no bins to the values that tell rows apart.

    Parameters
    ----------
    numbers : array of shape (n_rows, n_numbers), encoded
    n_bins : of each number, at most; up to twice as many where each lies between neighbouring
        values; 0 for none
    weight : array of shape (n_rows,) or None; weight 2 is the row twice, 0 is
        no row

    Returns
    -------
    list of arrays
        For each number its edges, strictly ascending, from the lowest value to the highest; empty
        where it has no more than two values, as flags have.

    Examples
    --------
    >>> rows = np.column_stack([np.arange(9.0), np.arange(9) % 3, np.arange(9) % 2])
    >>> [edges.tolist() for edges in learn_bins(rows, 2)]
    [[0.0, 4.0, 8.0], [0.0, 1.0, 2.0], []]
    """
    if weight is not None and not weight.all():
        numbers, weight = numbers[weight > 0], weight[weight > 0]
    return [_edges(numbers[:, k], n_bins, weight) for k in range(numbers.shape[1])]


def _edges(x: np.ndarray, n_bins: int, weight: np.ndarray | None) -> np.ndarray:
    none = x[:0]
    if n_bins < 1 or not len(x):
        return none
    values, inverse = np.unique(x, return_inverse=True)
    edges = values
    if len(values) > 2 * n_bins + 1:
        rows = np.bincount(inverse, weight).astype(np.float64)
        rows = np.minimum(rows, rows.sum() / n_bins / 2)
        below = np.cumsum(rows)
        places = np.linspace(0, below[-1], n_bins + 1)[1:-1]
        inner = values[np.minimum(np.searchsorted(below, places), len(values) - 1)]
        edges = np.unique(np.concatenate([values[:1], inner, values[-1:]]))
    apart = np.concatenate([[True], np.diff(edges) > _APART])
    edges = edges[apart]
    return edges if len(edges) > 2 else none


def as_bins(edges: Sequence[np.ndarray]) -> list[int]:
    """How many bins each number has; 0 for none."""
    return [max(len(one) - 1, 0) for one in edges]
