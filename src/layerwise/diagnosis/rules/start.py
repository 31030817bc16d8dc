"""Where the network starts: units that are equal, values far too large or too small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from layerwise.diagnosis.calls import LossCall
from layerwise.diagnosis.case import BINARY
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import NORMS, FirstBatch
from layerwise.diagnosis.graph import beneath, made_by, operation
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.words import listed
from layerwise.network.walk import Visit, leaves

_FLAT_ENDS = ("Tanh", "Sigmoid")


def _equal_units(seen: FirstBatch) -> list[str]:
    """Hidden linear layers whose units all start equal, but for the ends of residual branches."""
    branch = _branch_ends(seen)
    last = seen.weighted[-1].name if seen.weighted else None
    layers = [(n, m) for n, m in leaves(seen.model) if isinstance(m, nn.Linear)]
    if last is None and layers:
        last = layers[-1][0]
    found = []
    for name, module in layers:
        weight: Any = module.weight
        if name == last or name in branch or weight.shape[0] < 2 or not weight.requires_grad:
            continue
        rows = weight.detach()
        if bool(((rows - rows[0]).abs() <= 1e-7).all()):
            found.append(name)
    return found


def _branch_ends(seen: FirstBatch) -> set[str]:
    """Linear layers whose values are added to others, as at the end of a residual branch."""
    if seen.outputs is None or seen.outputs.grad_fn is None:
        return set()
    made = {made_by(v.output.grad_fn): v.name for v in seen.weighted if v.output is not None}
    ends = set()
    for node in beneath(seen.outputs.grad_fn):
        if operation(node) in ("Add", "Sub", "Mul"):
            others = [made_by(one) for one, _ in node.next_functions]
            if sum(one is not None and not hasattr(one, "variable") for one in others) > 1:
                ends |= {made[one] for one in others if one in made}
    return ends


@rule("symmetric-init", stage="first_batch")
def symmetric_init(seen: FirstBatch) -> Iterator[Finding]:
    """Units that start equal."""
    names = _equal_units(seen)
    if names:
        yield finding(
            "error", names[0],
            f"All units of {listed(names)} start equal and get equal gradients, so they stay "
            "copies of one another.",
            healthy="random weights that differ from unit to unit",
            why="A layer of equal units can do no more than one unit.",
            mend="layer.reset_parameters(), or nn.init.kaiming_uniform_(layer.weight)",
            layers=", ".join(names),
        )  # fmt: skip


@rule("init-scale", stage="first_batch")
def init_scale(seen: FirstBatch) -> Iterator[Finding]:
    """Weights that make values much too large or too small (Glorot and Bengio; He et al.)."""
    hidden = [v for v in seen.weighted[:-1] if v in seen.scales and _starts(v.module)]
    start, guess = _first_loss(seen)
    told = f"; the first loss is {start:.3g}, guessing would give {guess:.3g}" if guess else ""
    limits, given = [], _size_of_rows(seen)
    for visit in hidden:
        flat = _next_kind(seen, visit) in _FLAT_ENDS
        q = seen.scales[visit] / given  # large rows are no fault of the weights
        if not _normalised(seen, visit):
            limits.append((q, visit, 4.0 if flat else 10.0))
        given = 1.0 if flat else given
    large = [(q, v, limit) for q, v, limit in limits if not q <= limit and q == q]
    lost = bool(guess) and start > 50 * guess
    if large:
        q, visit, limit = large[0]
        yield _scale(
            "error" if lost else "warning", visit.name,
            f"'{visit.name}' starts with values of size {q:.3g}, expected about 1{told}.",
            size=q, limit=limit, **_loss_values(start, guess),
        )  # fmt: skip
        return
    if len(hidden) >= 3 and not any(isinstance(m, NORMS) for _, m in seen.case.layers):
        # biases hide how weights that are far too small let the rows' differences fade
        ways = [(seen.scales, 0.02)] + [(seen.signals, 5e-4)] * any(_tiny(v) for v in hidden)
        for sizes_of, least in ways:
            a, b = sizes_of[hidden[0]], sizes_of[hidden[-1]]
            # where nothing at all gets through, a layer is dead and not small
            if a > 0 and b / a < least and seen.signals[hidden[-1]] > 0:
                yield _scale(
                    "warning", hidden[-1].name,
                    f"Values shrink from size {a:.2g} at '{hidden[0].name}' to {b:.2g} at "
                    f"'{hidden[-1].name}', to be about the same{told}.",
                    size=b, ratio=b / a, limit=least, **_loss_values(start, guess),
                )  # fmt: skip
                return
    if guess and start > 5 * guess:
        yield _scale(
            "error" if lost else "warning", seen.last_layer,
            f"'{seen.last_layer}' starts with scores of size {_size_of(seen):.3g}{told}.",
            limit=5 * guess, **_loss_values(start, guess),
        )  # fmt: skip


def _size_of_rows(seen: FirstBatch) -> float:
    """Root mean square of what the first layer takes; 1 if that is less."""
    entry = seen.forward.entry
    if entry is None or not entry.is_floating_point():
        return 1.0
    size = float(entry.double().nan_to_num(0, 0, 0).square().mean().sqrt())
    return max(size, 1.0) if math.isfinite(size) else 1.0


def _starts(layer: Any) -> bool:
    """Whether a layer starts with weights that differ, not as a branch of zeros."""
    weight = layer.weight.detach()
    return bool((weight != weight.flatten()[0]).any())


def _tiny(visit: Visit) -> bool:
    """Whether weights are far smaller than PyTorch's own start, 1/sqrt(3 fan_in)."""
    weight: Any = visit.module.weight
    return float(weight.detach().std()) * math.sqrt(3 * weight.shape[1]) < 0.3


def _scale(severity: str, where: str, told: str, **values: float) -> Finding:
    return finding(
        severity, where, told,
        healthy="values of size about 1 in every layer, and a first loss near guessing",
        why="Too large values saturate and swing, too small ones leave no gradient.",
        mend="nn.init.kaiming_normal_(weight) before ReLU, xavier_normal_(weight, gain=5/3) "
        "before tanh", **values,
    )  # fmt: skip


def _size_of(seen: FirstBatch) -> float:
    return float(seen.outputs.detach().double().std()) if seen.outputs is not None else math.nan


def _loss_values(start: float, guess: float) -> dict[str, float]:
    return {"loss": start, "guess": guess} if guess else {}


def _first_loss(seen: FirstBatch) -> tuple[float, float]:
    """The loss of the start and of guessing among the classes; (0, 0) where it says nothing."""
    if seen.invented or seen.y_invented or seen.y_mended:
        return 0.0, 0.0
    for call in seen.calls:
        value = _mean_loss(call)
        if value is None or not math.isfinite(value):
            continue
        if seen.step_behind(call.outputs).operation in ("Softmax", "LogSoftmax"):
            continue
        C = call.outputs.shape[1] if call.kind == "cross_entropy" else 2
        return (value, math.log(C)) if C > 1 else (0.0, 0.0)
    return 0.0, 0.0


def _mean_loss(call: LossCall) -> float | None:
    from torch.nn import functional as F

    outputs, y = call.outputs.detach(), call.target
    try:
        if call.kind == "cross_entropy" and outputs.dim() == 2:
            return float(F.cross_entropy(outputs, y))
        if call.kind in BINARY and bool(((y >= 0) & (y <= 1)).all()):
            return float(getattr(F, call.kind)(outputs, y))
    except (RuntimeError, IndexError, ValueError):
        return None
    return None


def _normalised(seen: FirstBatch, visit: Visit) -> bool:
    """Whether a norm takes what a linear layer gave."""
    place = seen.visits.index(visit)
    following = seen.visits[place + 1 : place + 2]
    return any(isinstance(v.module, NORMS) for v in following)


def _next_kind(seen: FirstBatch, visit: Visit) -> str:
    """The activation that takes what a layer gave, as autograd names it."""
    if seen.outputs is None or seen.outputs.grad_fn is None or visit.output is None:
        return ""
    node = made_by(visit.output.grad_fn)
    for one in beneath(seen.outputs.grad_fn):
        takes = any(made_by(other) is node for other, _ in one.next_functions if other is not None)
        if takes and operation(one) in ("Tanh", "Sigmoid", "Relu"):
            return operation(one)
    return ""
