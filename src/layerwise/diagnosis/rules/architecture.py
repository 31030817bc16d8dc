"""The network itself: what is linear, cut, frozen, dropped, equal, or of the wrong size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.case import AMOUNTS, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import NORMS, FirstBatch
from layerwise.diagnosis.graph import beneath, is_last, operation
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.waking import gradients_after, moved_a_little
from layerwise.diagnosis.words import listed, share_of
from layerwise.network.walk import Visit

_DROPOUT = (nn.modules.dropout._DropoutNd,)
_STAIRS = ("Round", "Floor", "Ceil", "Sign", "Sgn", "Trunc", "Heaviside", "FloorDivide")


# ---------------------------------------------------------------- linear layers in a row


@rule("linear-stack", stage="first_batch")
def linear_stack(seen: FirstBatch) -> Iterator[Finding]:
    """Linear layers with no activation between."""
    modules = dict(seen.model.named_modules())
    runs = [run for run in seen.linear_runs if all(_linear(modules.get(n)) for n in run)]
    for run in runs:
        yield _stack(seen, run, [modules[name] for name in run])
    named = [v for v in seen.weighted if any(p.requires_grad for p in v.module.parameters())]
    if not runs and len({v.name for v in named}) > 1 and _adds_up(seen):
        first, last = named[0].name, named[-1].name
        yield finding(
            "warning", first,
            f"The whole network is one linear map: f(a) + f(b) - f(0) = f(a + b), though it has "
            f"{len({v.name for v in named})} Linear layers, '{first}' to '{last}'.",
            healthy="an activation between Linear layers",
            why="Layers without an activation can do no more than a single one.",
            mend=f"put nn.ReLU() after '{first}'" + _unused(seen),
            layers=", ".join(v.name for v in named),
        )  # fmt: skip


def _linear(module: Any) -> bool:
    return isinstance(module, nn.Linear)


def _stack(seen: FirstBatch, run: list[str], layers: list[Any]) -> Finding:
    inner = [layer.out_features for layer in layers[:-1]]
    a, b = layers[0].in_features, layers[-1].out_features
    narrow = min(inner) < min(a, b)
    return finding(
        "note" if narrow else "warning", run[0],
        f"{len(run)} Linear layers in a row without an activation ({listed(run)}) are together "
        "one linear map.",
        healthy="an activation between Linear layers",
        why=f"They do no more than one Linear({a}, {b})"
        + (f" of rank {min(inner)} would." if narrow else " would."),
        mend=f"put nn.ReLU() after '{run[0]}'" + _unused(seen),
        layers=", ".join(run), narrowest=min(inner),
    )  # fmt: skip


def _unused(seen: FirstBatch) -> str:
    """Activations that the model has and does not call."""
    called = {visit.name for visit in seen.visits}
    kinds = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU)
    idle = [n for n, m in seen.model.named_modules() if isinstance(m, kinds) and n not in called]
    return f"; '{idle[0]}' is defined and never called" if idle else ""


def _adds_up(seen: FirstBatch) -> bool:
    """Whether f(a) + f(b) - f(0) = f(a + b) in evaluation mode, for rows of several sizes."""
    X = seen.X
    if not isinstance(X, Tensor) or not X.is_floating_point() or X.dim() != 2:
        return False
    generator = torch.Generator().manual_seed(0)
    with moved_a_little(seen.model):  # branches that start at zero must not hide what they are
        for size in (1.0, 30.0):
            parts = torch.randn(2, 64, X.shape[1], generator=generator).to(X) * size
            a, b = parts[0], parts[1]
            given = [seen.evaluated(one) for one in (a, b, a + b, torch.zeros_like(a))]
            fa, fb, fab, f0 = (None if g is None else g.detach().double() for g in given)
            if fa is None or fb is None or fab is None or f0 is None or fa.shape != fab.shape:
                return False
            scale = float((fab - f0).abs().max())
            if not scale > 1e-6 or float((fa + fb - f0 - fab).abs().max()) > 1e-4 * scale:
                return False
    return True


# ---------------------------------------------------------------- gradients that do not arrive


@rule("no-gradient-to-layer", stage="first_batch")
def no_gradient_to_layer(seen: FirstBatch) -> Iterator[Finding]:
    """Layers that forward does not call, or from which the path to the loss is cut."""
    if (seen.invented and not seen.visits) or seen.found.error is not None or seen.value is None:
        return
    if not any(p.requires_grad for p in seen.model.parameters()):
        return  # everything is frozen, which has a rule of its own
    called = {visit.name for visit in seen.visits}
    if not seen.value.requires_grad:
        where = seen.last_layer
        yield _cut(where, [where], "the loss")
        return
    idle: list[str] = []
    cut: list[str] = []
    for name, module in seen.case.layers:
        own = _gradients(seen, name, module)
        if own and all(g is None for g in own):
            (cut if name in called else idle).append(name)
    for name in idle:
        yield finding(
            "error", name,
            f"Layer '{name}' gets no gradient: it is never called in forward.",
            healthy="every layer takes part in forward",
            why="It stays as it is at the start, and does nothing.",
            mend=f"call '{name}' in forward, or delete it",
        )  # fmt: skip
    order = [visit.name for visit in seen.visits if visit.name in cut]
    if order:
        later = [v.name for v in seen.visits if v.name not in cut and _has_weights(v)]
        position = max(i for i, v in enumerate(seen.visits) if v.name == order[-1])
        after = [v.name for v in seen.visits[position + 1 :] if v.name in later]
        yield _cut(order[-1], list(dict.fromkeys(order)), f"'{after[0]}'" if after else "the loss")
    elif not idle:
        yield from _faded(seen)


def _gradients(seen: FirstBatch, name: str, module: nn.Module) -> list[Tensor | None]:
    prefix = f"{name}." if name else ""
    own = [f"{prefix}{p}" for p, one in module.named_parameters() if one.requires_grad]
    return [seen.gradients[one] for one in own if one in seen.gradients]


def _has_weights(visit: Visit) -> bool:
    return any(p.requires_grad for p in visit.module.parameters())


def _cut(where: str, names: list[str], before: str) -> Finding:
    several = len(names) > 1
    return finding(
        "error", where,
        f"Layer{'s' * several} {listed(names)} get{'s' * (not several)} no gradient: the path "
        f"before {before} is cut.",
        healthy="a gradient for every layer that is to learn",
        why="Without a gradient the weights stay as they are at the start.",
        mend=f"after '{where}' take out detach(), .data, no_grad(), numpy(), torch.tensor(...), "
        "round, argmax or a comparison",
        layers=", ".join(names),
    )  # fmt: skip


def _faded(seen: FirstBatch) -> Iterator[Finding]:
    """Layers whose gradient is exactly 0, also after steps that would wake up a zero head."""
    zero = _zero_layers(seen, seen.gradients)
    everything = len(zero) == len([1 for n, m in seen.case.layers if _gradients(seen, n, m)])
    if not zero or everything or not _steps_of_stairs(seen):
        return
    later = gradients_after(seen, steps=3)
    still = [name for name in zero if name in _zero_layers(seen, later)] if later else []
    if still:
        yield _cut(still[-1], still, "the loss")


def _zero_layers(seen: FirstBatch, gradients: dict[str, Tensor | None]) -> list[str]:
    found = []
    for name, module in seen.case.layers:
        prefix = f"{name}." if name else ""
        own = [gradients.get(f"{prefix}{p}") for p, _ in module.named_parameters()]
        known = [g for g in own if g is not None]
        if known and not any(bool(g.count_nonzero()) for g in known):
            found.append(name)
    return found


def _steps_of_stairs(seen: FirstBatch) -> bool:
    """Whether something on the way is flat wherever it has a slope, such as rounding."""
    if seen.outputs is None or seen.outputs.grad_fn is None:
        return False
    return any(operation(node) in _STAIRS for node in beneath(seen.outputs.grad_fn))


# ---------------------------------------------------------------- dropout and norms


@rule("dropout-misuse", stage="first_batch")
def dropout_misuse(seen: FirstBatch) -> Iterator[Finding]:
    """Dropout that leaves hardly anything, or works on finished predictions; a norm on them."""
    for name, module in seen.case.layers:
        if isinstance(module, _DROPOUT) and module.p > 0.7:
            yield _rate(module.p, name)
    functional = [p for p, drops in seen.forward.dropout if drops and p > 0.7]
    if functional and not any(isinstance(m, _DROPOUT) for _, m in seen.case.layers):
        yield _rate(max(functional), "forward")
    if seen.found.error is not None:
        return
    last = max((i for i, v in enumerate(seen.visits) if _linear(v.module)), default=None)
    if last is None or seen.outputs is None:
        return
    after = seen.visits[last + 1 :]
    behind = [v for v in after if v.output is not None and is_last(v.output, seen.outputs)]
    dropped = [(v.name, v.module.p) for v in behind if isinstance(v.module, _DROPOUT)]
    if seen.forward.dropped is not None and not dropped:
        p, result = seen.forward.dropped
        if is_last(result, seen.outputs):
            dropped = [(seen.visits[last].name, p)]
    for where, p in dropped:
        if p > 0:
            yield finding(
                "error", where,
                f"Dropout after '{seen.visits[last].name}' sets finished predictions to zero at "
                "random.",
                healthy="dropout between hidden layers",
                why="The loss then compares zeros with the targets, whatever the network says.",
                mend="move the dropout before the last Linear", p=p,
            )  # fmt: skip
    for visit in behind:
        regression = seen.case.kind in AMOUNTS or any(c.kind in AMOUNTS for c in seen.calls)
        if isinstance(visit.module, NORMS) and regression:
            yield finding(
                "warning", visit.name,
                f"A norm layer ('{visit.name}') stands after the last Linear "
                f"('{seen.visits[last].name}').",
                healthy="the last Linear's own values as predictions",
                why="It brings predictions to mean 0 and deviation 1 in every batch, so a row's "
                "answer depends on the other rows.",
                mend="remove it, or move it before the last Linear",
            )  # fmt: skip


def _rate(p: float, where: str) -> Finding:
    return finding(
        "error" if p >= 0.95 else "warning", where,
        f"Dropout(p={p:g}) throws away {share_of(p)} of the values; did you mean to keep "
        f"{share_of(p)}?",
        healthy="p of 0.1 to 0.5",
        why="p is the share that is dropped, not kept.",
        mend=f"p={1 - p:.1f}" if p < 0.95 else f"p={max(1 - p, 0.1):.1f}", p=p, limit=0.7,
    )  # fmt: skip


@rule("batchnorm-single-row", stage="static")
def batchnorm_single_row(case: Case) -> Iterator[Finding]:
    """Batch norm and a batch of one row."""
    b, n = case.batch_size, case.n_rows
    held = [
        name for name, m in case.layers
        if isinstance(m, nn.BatchNorm1d) and (m.training or not case.model.training)
    ]  # fmt: skip
    if not held or not b or (isinstance(case.X, Tensor) and case.X.dim() > 2):
        return
    rest = 0 if n is None or b > n else n % b
    if b == 1:
        seen, mend = "Every batch has one row", "batch_size=32"
    elif n == 1 or (rest == 1 and not case.drop_last):
        seen, mend = "The last batch of every epoch has one row", "drop_last=True or batch_size="
        mend += str(b + 1)
    else:
        return
    yield finding(
        "error", "batch_size",
        f"{seen}; batch norm ('{held[0]}') needs at least two.",
        healthy="at least two rows in every batch",
        why="The deviation of a single value is 0, so batch norm refuses it.",
        mend=mend, rows=n or 0, batch_size=b, rest=1, layer=held[0],
    )  # fmt: skip
