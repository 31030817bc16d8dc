"""What simple models reach on the rows that a network has trouble with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case
from layerwise.diagnosis.portrait import Portrait

MOST = 2000  # rows, so that it takes less than a second


@dataclass(frozen=True)
class Peers:
    """Scores: accuracy of classes, R2 of amounts.

    Attributes
    ----------
    measure : which of the two
    network : on the rows it learnt from
    linear, nearest : of a linear model and of nearest neighbours, on rows they have not seen
    chance : of the best answer that is the same for every row
    """

    measure: str
    network: float
    linear: float
    nearest: float
    chance: float


def compare(case: Case, end: Portrait) -> Peers | None:
    """Let a linear model and nearest neighbours try, by cross-validation.

    Parameters
    ----------
    case : with X and y as the network sees them
    end : the trained network

    Returns
    -------
    None for rows that are too few, or for targets of another kind.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind = case.kind or ""
    X, y, outputs = case.X, case.y, end.outputs
    if not isinstance(X, Tensor) or not isinstance(y, Tensor) or outputs is None or len(X) < 60:
        return None
    if len(y) != len(X) or (y.dim() > 1 and y.shape[1] != 1) or not bool(torch.isfinite(X).all()):
        return None
    rows = np.random.default_rng(0).permutation(len(X))[:MOST]
    table, target = X.detach().cpu().double().numpy()[rows], y.detach().cpu().flatten().numpy()
    seen = end.y.detach().cpu().flatten().numpy()
    amounts = kind in AMOUNTS
    models: tuple[object, object] = (RidgeCV(np.logspace(-3, 4, 8)), KNeighborsRegressor(10))
    if amounts:
        said = outputs.detach().cpu().double().flatten().numpy()
    elif kind in CLASSES and outputs.dim() == 2 and not y.is_floating_point():
        said = outputs.argmax(dim=1).cpu().numpy()
    elif kind in BINARY and outputs.numel() == len(seen):
        said = (outputs.flatten() > (0 if "logits" in kind else 0.5)).cpu().numpy()
        target, seen = target > 0.5, seen > 0.5
    else:
        return None
    if len(said) != len(seen):
        return None
    if not amounts:
        models = (LogisticRegression(max_iter=300), KNeighborsClassifier(10))
        if np.unique(target[rows], return_counts=True)[1].min() < 5:
            return None
    target = target[rows]
    scores = []
    for model in models:
        made = make_pipeline(StandardScaler(), model)
        with np.errstate(all="ignore"):
            scores.append(_score(amounts, target, cross_val_predict(made, table, target, cv=5)))
    if amounts:
        return Peers("R2", _score(True, seen, said), scores[0], scores[1], 0.0)
    chance = float(np.unique(seen, return_counts=True)[1].max() / len(seen))
    return Peers("accuracy", _score(False, seen, said), scores[0], scores[1], chance)


def _score(amounts: bool, y: np.ndarray, said: np.ndarray) -> float:
    if not amounts:
        return float(np.mean(y == said))
    spread = float(np.mean((y - y.mean()) ** 2))
    return 1 - float(np.mean((y - said) ** 2)) / spread if spread else 0.0
