"""What simple models reach on the rows that a network has trouble with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case, baseline_of
from layerwise.diagnosis.copying import copied, random_states_kept
from layerwise.diagnosis.portrait import Portrait
from layerwise.training.losses import loss_of

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
    hopeless : whether neither of the two says more than a constant does
    """

    measure: str
    network: float
    linear: float
    nearest: float
    chance: float
    hopeless: bool


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
    noise = 1 / np.sqrt(len(target))
    if amounts:
        hopeless = scores[0] < 0.02 and scores[1] < 0.02
        return Peers("R2", _score(True, seen, said), scores[0], scores[1], 0.0, hopeless)
    chance = float(np.unique(target, return_counts=True)[1].max() / len(target))
    hopeless = max(scores) < chance + noise
    if hopeless:  # rare classes are seen in the probabilities before they win a vote
        made = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        proba = cross_val_predict(made, table, target, cv=5, method="predict_proba")
        told = proba[np.arange(len(target)), np.unique(target, return_inverse=True)[1]]
        shares = np.unique(target, return_counts=True)[1] / len(target)
        base = -float(np.sum(shares * np.log(shares)))
        hopeless = -float(np.mean(np.log(told.clip(1e-12)))) > 0.99 * base
    own = _score(False, seen, said)
    return Peers("accuracy", own, scores[0], scores[1], chance, hopeless)


def at_chance_on_others(case: Case, epochs: int) -> bool:
    """Whether the network, trained again on four fifths of the rows, is no use on the last fifth.

    Parameters
    ----------
    case : with the network as it was before the training, which is copied
    epochs : that it was trained for; at most 400 steps are made
    """
    X, y = case.X, case.y
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(X))[:MOST])
    inside, outside = rows[: len(rows) * 4 // 5], rows[len(rows) * 4 // 5 :]
    model, loss, _ = copied(case.model, case.loss)
    compute: Any = loss_of(loss)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    size = max(case.batch_size or 32, 8)
    steps = min(epochs * max(len(inside) // size, 1), 400)
    best = float("inf")
    base = baseline_of(case.kind, case.loss, y[outside])
    with random_states_kept(), torch.enable_grad():
        for step in range(steps):
            model.train()
            some = inside[torch.randint(len(inside), (size,))]
            optimizer.zero_grad()
            compute(model(X[some]), y[some]).backward()
            optimizer.step()
            if step % 20 == 19 or step == steps - 1:
                model.eval()
                with torch.no_grad():
                    best = min(best, float(compute(model(X[outside]), y[outside])))
    return base is not None and best > 0.97 * base


def _score(amounts: bool, y: np.ndarray, said: np.ndarray) -> float:
    if not amounts:
        return float(np.mean(y == said))
    spread = float(np.mean((y - y.mean()) ** 2))
    return 1 - float(np.mean((y - said) ** 2)) / spread if spread else 0.0
