"""Columns compared: with the answers, and in training rows with validation rows."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 5000
AUC = 0.999
CORRELATION = 0.995


def leaking(X: Tensor, y: Tensor, *, classes: bool) -> tuple[int, str, float] | None:
    """The column that alone gives the answer, how that was measured, and how well.

    Parameters
    ----------
    X : (N, d) float64
    y : (N,) class indices or amounts
    classes : whether y names classes

    Examples
    --------
    >>> X = torch.arange(40.0, dtype=torch.float64).reshape(20, 2)
    >>> leaking(X, X[:, 1] ** 3, classes=False)
    (0, 'rank correlation', 1.0)
    """
    if len(X) > MOST:
        chosen = torch.linspace(0, len(X) - 1, MOST).long()
        X, y = X[chosen], y[chosen]
    y = y.double()
    sound = torch.isfinite(X).all(dim=1) & torch.isfinite(y)
    X, y = X[sound], y[sound]
    if len(X) < 2:
        return None
    labels, codes = y.unique(return_inverse=True)
    if len(labels) < 2:
        return None
    if classes and len(labels) == 2:
        scores, name, limit = _auc(X, codes), "AUC", AUC
    elif classes:
        if len(labels) > 30:
            return None
        scores, name, limit = _thresholds(X, codes, len(labels)), "accuracy", CORRELATION
    else:
        plain, ranked = _correlation(X, y), _correlation(_ranks(X), _ranks(y[:, None])[:, 0])
        scores = torch.maximum(plain, ranked)
        name = "correlation" if float(plain.max()) >= CORRELATION else "rank correlation"
        limit = CORRELATION
    j = int(scores.argmax())
    return (j, name, float(scores[j])) if float(scores[j]) >= limit else None


def spread(a: Tensor, b: Tensor) -> float:
    """The rank correlation of two columns, with its sign."""
    ranks = _ranks(torch.stack([a, b], dim=1))
    ranks = ranks - ranks.mean(dim=0)
    size = ranks.square().sum(dim=0).prod().sqrt()
    return float(ranks.prod(dim=1).sum() / size) if size > 0 else 0.0


def _ranks(X: Tensor) -> Tensor:
    """Ranks within each column, ties sharing their mean."""
    result = torch.empty_like(X, dtype=torch.float64)
    for j in range(X.shape[1]):
        _, codes, counts = X[:, j].unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        result[:, j] = (last - (counts.double() - 1) / 2)[codes]
    return result


def _correlation(X: Tensor, y: Tensor) -> Tensor:
    X, y = X - X.mean(dim=0), y - y.mean()
    size = X.square().sum(dim=0).sqrt() * y.square().sum().sqrt()
    return torch.where(size > 0, (X * y[:, None]).sum(dim=0).abs() / size, 0.0)


def _auc(X: Tensor, codes: Tensor) -> Tensor:
    """The larger of AUC and 1 - AUC of each column, by the rank sum."""
    ones = codes == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    ranks = _ranks(X)
    auc = (ranks[ones].sum(dim=0) - n1 * (n1 + 1) / 2) / (n1 * n0)
    return torch.maximum(auc, 1 - auc)


def _thresholds(X: Tensor, codes: Tensor, K: int) -> Tensor:
    """The best accuracy of cutting each column into one stretch for each class."""
    scores = torch.zeros(X.shape[1], dtype=torch.float64)
    for j in range(X.shape[1]):
        x, order = X[:, j].sort()
        y = codes[order]
        middles = torch.stack([x[y == k].median() for k in range(K)])
        ends = torch.cat([x[1:] != x[:-1], torch.tensor([True])]).nonzero().flatten() + 1
        ends = torch.cat([torch.zeros(1, dtype=torch.long), ends])
        best = torch.zeros(len(ends), dtype=torch.float64)
        for place, k in enumerate(middles.argsort().tolist()):
            hits = torch.cat([torch.zeros(1), (y == k).double().cumsum(0)]).double()[ends]
            before = best - hits if place else torch.where(ends == 0, 0.0, -torch.inf) - hits
            best = hits + before.cummax(0).values
        scores[j] = best[-1] / len(y)
    return scores


def different(X: Tensor, V: Tensor) -> Tensor:
    """Of which columns mean or deviation differ by far, more than by chance."""
    means, stds = X.mean(dim=0), X.std(dim=0, correction=0)
    others, widths = V.mean(dim=0), V.std(dim=0, correction=0)
    chance = 3 * widths / len(V) ** 0.5
    moved = (others - means).abs() > 3 * stds + chance
    ratio = widths / stds
    return (stds > 0) & (moved | (ratio > 5) | ((ratio < 0.2) & (len(V) >= 30)))


def same_order(X: Tensor, V: Tensor) -> bool:
    """Whether validation columns put into another order would be as the training columns are."""
    means, stds = X.mean(dim=0), X.std(dim=0, correction=0).clamp(min=1e-12)
    apart = (V.mean(dim=0)[None] - means[:, None]).abs() / stds[:, None]
    widths = V.std(dim=0, correction=0).clamp(min=1e-12)
    cost = (apart + (widths[None] / stds[:, None]).log().abs()).nan_to_num(1e9, 1e9, 1e9)
    order = torch.arange(len(cost))
    for _ in range(len(cost)):  # the nearest pair first
        row, column = divmod(int(cost.argmin()), len(cost))
        order[row] = column
        cost[row], cost[:, column] = torch.inf, torch.inf
    if bool((order == torch.arange(len(order))).all()):
        return False
    return not bool(different(X, V[:, order]).any())
