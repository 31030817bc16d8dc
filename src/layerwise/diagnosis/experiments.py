"""What practitioners try before they trust a training, done on copies in a second or two.

Can the network learn a few rows by heart? Does it do better with the labels where they belong than
shuffled, and with its inputs than with blank ones? Does a row's answer depend on other rows?
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.case import AMOUNTS, BINARY, CLASSES, Case
from layerwise.diagnosis.copying import copied, random_states_kept
from layerwise.diagnosis.finding import Finding, finding
from layerwise.engine.torch import call
from layerwise.training.losses import loss_of

BY_HEART = 8  # rows
STEPS = 300
RATES = (0.01, 0.001)
MOST = 1500  # rows, for the two trials that train on more than a handful
SURE = 2.0  # standard errors by which one training has to beat another
LEARNT = 0.1  # of the loss at the start or of the best constant answer may be left


@dataclass(frozen=True)
class Trial:
    """One thing tried, and what came of it.

    Attributes
    ----------
    name : what was tried
    passed : whether the network did as it should; None if it could not be tried
    seen : what came of it, with its numbers
    values : the numbers
    found : what a failure means, if it means that something is wrong

    Examples
    --------
    >>> print(Trial("overfit one batch", True, "8 rows: the loss fell from 1.1 to 0.003."))
    passed  overfit one batch: 8 rows: the loss fell from 1.1 to 0.003.
    """

    name: str
    passed: bool | None
    seen: str
    values: dict[str, float] = field(default_factory=dict)
    found: Finding | None = None

    def __str__(self) -> str:
        """One line."""
        word = {True: "passed", False: "failed", None: "not tried"}[self.passed]
        return f"{word}  {self.name}: {self.seen}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name, "passed": self.passed, "seen": self.seen,
            "values": {k: v if math.isfinite(v) else None for k, v in self.values.items()},
        }  # fmt: skip


def experiment(case: Case) -> list[Trial]:
    """Try everything there is to try; nothing of the case is touched and nothing is raised.

    Parameters
    ----------
    case : with model, loss, X and y

    Returns
    -------
    The trials in order.

    Examples
    --------
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <...>
    >>> X = torch.randn(300, 4)
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> [t.passed for t in experiment(Case.of(model, nn.MSELoss(), None, X, X[:, :1] ** 2))]
    [True, True, True, True]
    """
    tries: tuple[tuple[str, Callable[[Case], list[Trial]]], ...] = (
        ("overfit one batch", _by_heart),
        ("shuffled labels and blank inputs", _against_nonsense),
        ("rows for themselves", _rows_alone),
    )
    trials = []
    for name, attempt in tries:
        with random_states_kept(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if not isinstance(case.X, Tensor) or not isinstance(case.y, Tensor):
                    raise ValueError("it needs rows X and targets y")
                trials += attempt(case)
            except Exception as error:  # what fails here is told by a finding of the first batch
                said = str(error).strip().partition("\n")[0]
                trials.append(Trial(name, None, said or type(error).__name__))
    return trials


# ------------------------------------------------------------ training on a copy


def _loss_of(loss: Any) -> Callable[[Any, Tensor], Tensor]:
    compute: Callable[..., Tensor] = loss_of(loss) if isinstance(loss, str) else loss

    def mean(outputs: Any, y: Tensor) -> Tensor:
        value = compute(outputs, y)
        return value if value.dim() == 0 else value.mean()

    return mean


@dataclass(eq=False)
class _Trained:
    """A copy of the case's network (or another) in training."""

    model: nn.Module
    loss: Callable[[Any, Tensor], Tensor]
    lr: float

    def __post_init__(self) -> None:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        if not weights:
            raise ValueError("no weight of the model may change")
        self.optimizer = torch.optim.Adam(weights, lr=self.lr)

    def step(self, X: Tensor, y: Tensor) -> float:
        loss = self.loss(call(self.model, X), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss)

    def value(self, X: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            return float(self.loss(call(self.model, X), y))


def _copy(case: Case, lr: float, dropout: bool = True) -> _Trained:
    model, loss, _ = copied(case.model, case.loss)
    model.train()
    if not dropout:
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
    return _Trained(model, _loss_of(loss), lr)


def _is_affine(model: nn.Module, X: Tensor) -> bool:
    """Whether outputs between two points lie between the outputs there, and are not all one."""
    if not X.is_floating_point() or X.dim() != 2:
        return False
    model = model.double()
    spread = X.double().std(0).nan_to_num() + 1e-3
    a, b = (X.double().mean(0) + 9 * spread * torch.randn(64, X.shape[1]).to(spread) for _ in "ab")
    try:
        with torch.no_grad():
            ends, middle = (call(model, a) + call(model, b)) / 2, call(model, (a + b) / 2)
    except (RuntimeError, IndexError, TypeError):  # codes of categories cannot be just any numbers
        return False
    size = ends.std().clamp_min(1e-300)
    return bool(size > 1e-12) and bool((middle - ends).abs().max() < 1e-6 * size)


# ------------------------------------------------------------ overfit one batch


def _by_heart(case: Case) -> list[Trial]:
    X, y = _distinct(case.X, case.y)
    probe = copied(case.model, None)[0].eval()
    name = "overfit one batch"
    if _is_affine(probe, X):
        return [Trial(name, None, "a linear model learns no more rows than it has columns.")]
    best, start, rate = math.inf, math.nan, RATES[0]
    for lr in RATES:
        network = _copy(case, lr, dropout=False)
        first, last = _drill(network, X, y)
        if not last >= best:
            best, start, rate = last, first, lr
        if _learnt(case, y, start, best):
            break
    values = {"rows": len(X), "start": start, "end": best, "lr": rate}
    seen = f"{len(X)} rows, {STEPS} steps of Adam: the loss went from {start:.3g} to {best:.3g}"
    if _learnt(case, y, start, best):
        return [Trial(name, True, seen + ".", values)]
    other, whose = _plain_network(case, X), "the loss and the targets"
    if other is not None:
        _, reached = _drill(other, X, y)
        values["plain"] = reached
        seen += f"; a plain network of 64 tanh units gets to {reached:.3g}"
        if not best > reached + LEARNT * abs(start - reached) and not _ends_at_zero(case):
            return [Trial(name, True, seen + ".", values)]
        if _learnt(case, y, start, reached):
            whose = "the network"
    found = finding(
        "warning", "forward" if whose == "the network" else "loss",
        f"The network could not learn {len(X)} rows by heart: the loss stayed at {best:.3g} of "
        f"{start:.3g}.",
        healthy=f"a loss near 0 on {len(X)} rows after {STEPS} steps",
        why="What cannot learn a handful of rows will not learn a table.",
        mend=f"look at {whose}: activations, first weights, what is cut off or frozen",
        **values,
    )  # fmt: skip
    found = replace(found, rule="loss-stuck", stage="first_batch")
    return [Trial(name, False, seen + ".", values, found)]


def _distinct(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A few different rows, spread over the table, with targets as different as can be."""
    order = torch.randperm(len(X))
    rows: list[int] = []
    seen: set[tuple[float, ...]] = set()
    for row in order.tolist():
        key = tuple(X[row].double().flatten().tolist())
        if key not in seen:
            seen.add(key)
            rows.append(row)
        if len(rows) >= 64:
            break
    targets = y[rows].double().flatten(1) if y.dim() > 1 else y[rows].double()[:, None]
    ranks = targets[:, 0].argsort()
    picked = ranks[torch.linspace(0, len(ranks) - 1, min(BY_HEART, len(ranks))).long()]
    index = torch.tensor(rows)[picked]
    return X[index], y[index]


def _drill(network: _Trained, X: Tensor, y: Tensor) -> tuple[float, float]:
    """The first loss and the lowest that stays."""
    losses = [network.step(X, y) for _ in range(STEPS)]
    return losses[0], min(losses[-20:])


def _learnt(case: Case, y: Tensor, start: float, end: float) -> bool:
    """Whether little is left of the loss; losses that may go below 0 have to fall by a lot."""
    spread = float(y.double().var(correction=0)) if case.kind in AMOUNTS else 0.0
    size = max(abs(start), 0.3) if not spread else max(min(start, spread), 1e-12)
    return math.isfinite(end) and (end <= LEARNT * size)


def _ends_at_zero(case: Case) -> bool:
    """Whether the loss of right answers is 0."""
    if case.kind in (*BINARY, *CLASSES):
        hard = not case.y.is_floating_point() or bool(((case.y == 0) | (case.y == 1)).all())
        return hard and not getattr(case.loss, "label_smoothing", 0)
    return case.kind in AMOUNTS


def _plain_network(case: Case, X: Tensor) -> _Trained | None:
    """A network that anything of this size can be learnt with; None for rows of another form."""
    if X.dim() != 2 or not X.is_floating_point():
        return None
    with torch.no_grad():
        outputs = call(copied(case.model, None)[0].eval(), X)
    if not isinstance(outputs, Tensor) or outputs.dim() > 2:
        return None
    wide = outputs.shape[1] if outputs.dim() == 2 else 1
    end: tuple[nn.Module, ...] = () if outputs.dim() == 2 else (nn.Flatten(0),)
    if case.kind == "binary_cross_entropy":
        end = (nn.Sigmoid(), *end)
    elif case.kind == "nll_loss":
        end = (nn.LogSoftmax(dim=1), *end)
    norm = nn.BatchNorm1d(X.shape[1])
    layers = (norm, nn.Linear(X.shape[1], 64), nn.Tanh(), nn.Linear(64, wide), *end)
    model = nn.Sequential(*layers).to(X.device, X.dtype)
    return _Trained(model, _loss_of(copied(case.model, case.loss)[1]), RATES[0])


# ------------------------------------------------------------ shuffled labels, blank inputs


def _against_nonsense(case: Case) -> list[Trial]:
    n = len(case.X)
    if n < 60:
        raise ValueError(f"{n} rows are too few to keep some aside")
    rows = torch.randperm(n)[:MOST]
    kept = rows[: len(rows) // 3]
    rows = rows[len(rows) // 3 :]
    X, y, held, target = case.X[rows], case.y[rows], case.X[kept], case.y[kept]
    blank = X[:1].expand_as(X).clone()
    mean = case.X.double().mean(0) if case.X.is_floating_point() else None
    if mean is not None and bool(torch.isfinite(mean).all()):
        blank = mean.to(X.dtype).expand_as(X).clone()
    true = _by_rows(case, X, y, held, target)
    shuffled = _by_rows(case, X, y[torch.randperm(len(y))], held, target)
    without = _by_rows(case, blank, y, blank[: len(held)], target)
    sums = "on {} rows kept aside the loss is {:.3g}, {} {:.3g}"
    trials = []
    for name, words, other in (
        ("shuffled labels", "with the labels shuffled", shuffled),
        ("blank inputs", "with every input the same", without),
    ):
        gap = other - true
        gap = gap[torch.isfinite(gap)]
        error = float(gap.std() / math.sqrt(max(len(gap), 1))) if len(gap) > 1 else math.nan
        better = float(gap.mean()) if len(gap) else math.nan
        values = {
            "rows": len(held), "loss": _mean(true), "other": _mean(other),
            "standard_errors": better / error if error else math.copysign(math.inf, better),
        }  # fmt: skip
        seen = sums.format(len(held), _mean(true), words, _mean(other)) + "."
        trials.append(Trial(name, bool(better > SURE * error), seen, values))
    if not any(trial.passed for trial in trials):
        found = finding(
            "warning", "y",
            f"With the labels shuffled or the inputs blank the network does as well on "
            f"{len(held)} rows kept aside: {trials[0].values['loss']:.3g} against "
            f"{trials[0].values['other']:.3g} and {trials[1].values['other']:.3g}.",
            healthy="a lower loss with true labels and true inputs",
            why="It has found nothing in the rows that says something about the labels.",
            mend="check that the rows of X and y belong together; then scale X, widen the network",
            **trials[0].values,
        )  # fmt: skip
        found = replace(found, rule="underfitting", stage="first_batch")
        trials[0] = replace(trials[0], found=found)
    return trials


def _mean(losses: Tensor) -> float:
    return float(losses[torch.isfinite(losses)].mean())


def _by_rows(case: Case, X: Tensor, y: Tensor, held: Tensor, target: Tensor) -> Tensor:
    """Train on some rows and return the losses of others, one by one, at the best moment."""
    network = _copy(case, 3e-3)
    best = torch.full((len(held),), math.inf)
    lowest = math.inf
    for step in range(STEPS):
        rows = torch.randint(len(X), (min(64, len(X)),))
        network.step(X[rows], y[rows])
        if step % 50 == 49:
            modes = [(one, one.training) for one in network.model.modules()]
            network.model.eval()
            with torch.no_grad():
                outputs = call(network.model, held)
                each = [
                    network.loss(outputs[i : i + 1], target[i : i + 1]) for i in range(len(held))
                ]
            for module, mode in modes:
                module.training = mode
            losses = torch.stack(each).double().cpu()
            if _mean(losses) < lowest:
                best, lowest = losses, _mean(losses)
    return best


# ------------------------------------------------------------ a row's loss and other rows


def _rows_alone(case: Case) -> list[Trial]:
    model, loss, _ = copied(case.model, case.loss)
    model.eval()
    compute = _loss_of(loss)
    X, y = case.X[:16], case.y[:16]
    name = "rows for themselves"
    others = 0.0
    if X.is_floating_point():  # the gradient of each row's answer by each row's input
        X = X.clone().requires_grad_()
        outputs = call(model, X)
        for row in range(min(4, len(X))):
            by = torch.autograd.grad(outputs[row].sum(), X, retain_graph=True, allow_unused=True)[0]
            if by is not None:
                size = by.abs().flatten(1).amax(1)
                rest = torch.cat([size[:row], size[row + 1 :]]).max()
                others = max(others, float(rest / size.max().clamp_min(1e-30)))
    with contextlib.suppress(IndexError), torch.no_grad():  # and the answers themselves
        plain = call(model, X.detach())
        moved = call(model, torch.cat([X.detach()[-1:], X.detach()[1:]]))
        if not torch.allclose(plain[1:], moved[1:], rtol=1e-4, atol=1e-5, equal_nan=True):
            others = max(others, 1.0)
    if others > 1e-6:
        seen = f"the answer for a row depends on other rows of the batch ({others:.2g} of its own)."
        found = _mixed(
            "forward",
            seen,
            others,
            "an operation runs over dimension 0, or a reshape "
            "mixes rows: keep dimension 0 for the rows (dim=1, no view across rows)",
        )
        return [Trial(name, False, seen, {"others": others}, found)]
    turned = _turned(compute, call(model, X), y)
    if turned is not None and turned > 1e-3:
        seen = "the loss of a row depends on the targets of other rows."
        found = _mixed("loss", seen, turned, "give outputs and targets the same shape, and the "
                       "loss one term for each row")  # fmt: skip
        built_in = isinstance(case.loss, nn.Module) and bool(case.kind)
        found = found if built_in else replace(found, severity="note")
        return [Trial(name, False, seen, {"others": turned}, found)]
    seen = "no row's answer or loss depends on another row (in evaluation mode)."
    return [Trial(name, True, seen, {"others": others})]


def _mixed(where: str, seen: str, others: float, mend: str) -> Finding:
    found = finding(
        "error", where, seen[0].upper() + seen[1:],
        healthy="each row's answer and loss depend on that row alone",
        why="Predictions would change with the company a row is in.",
        mend=mend, others=others,
    )  # fmt: skip
    return replace(found, rule="rows-not-independent", stage="first_batch")


def _turned(compute: Callable[[Any, Tensor], Tensor], outputs: Tensor, y: Tensor) -> float | None:
    """How far the gradients of the other rows turn when one row's target changes.

    Their common length may change (a mean by weights, a root); their direction may not.
    """
    outputs = outputs.detach().requires_grad_()
    flat = y.double().flatten(1) if y.dim() > 1 else y.double()[:, None]
    different = (flat != flat[:1]).any(dim=1).nonzero().flatten()
    if len(y) < 3 or not len(different):
        return None
    changed = y.clone()
    changed[0] = y[different[0]]
    ways = []
    for target in (y, changed):
        by = torch.autograd.grad(compute(outputs, target), outputs)[0][1:].flatten().double()
        ways.append(by / by.norm().clamp_min(1e-30))
    return float((ways[0] - ways[1]).abs().max())
