"""The network itself: what is linear, cut, frozen, dropped, equal, or of the wrong size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.calls import LossCall
from layerwise.diagnosis.case import AMOUNTS, BINARY, Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.graph import beneath, made_by, operation
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.translate import all_frozen
from layerwise.diagnosis.waking import gradients_after, moved_a_little
from layerwise.diagnosis.words import listed, share_of
from layerwise.network.walk import Visit, leaves

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_DROPOUT = (nn.modules.dropout._DropoutNd,)
_STAIRS = ("Round", "Floor", "Ceil", "Sign", "Sgn", "Trunc", "Heaviside", "FloorDivide")
_FLAT_ENDS = ("Tanh", "Sigmoid")


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


# ---------------------------------------------------------------- parameters nobody moves


@rule("params-not-in-optimizer", stage="static")
def params_not_in_optimizer(case: Case) -> Iterator[Finding]:
    """Parameters that no optimizer holds."""
    if not case.optimizers:
        return
    held = {id(p) for o in case.optimizers for g in o.param_groups for p in g["params"]}
    inside = dict(case.model.named_parameters())
    if isinstance(case.loss, nn.Module):
        inside |= {f"loss.{name}": p for name, p in case.loss.named_parameters()}
    missing = [n for n, p in inside.items() if p.requires_grad and id(p) not in held]
    if not missing:
        return
    strange = held - {id(p) for p in inside.values()}
    if not held & {id(p) for p in inside.values()}:
        reason = "The optimizer belongs to another model."
    elif strange:
        reason = "A layer was replaced after the optimizer was made."
    else:
        reason = "The optimizer was made from a part of the model."
    yield _not_held(listed(missing), reason, "make the optimizer after the model is complete: "
                    "torch.optim.Adam(model.parameters(), lr=1e-3)", len(missing))  # fmt: skip


@rule("params-not-in-optimizer", stage="first_batch")
def strangers_not_in_optimizer(seen: FirstBatch) -> Iterator[Finding]:
    """Weights that take part in the loss and that the model does not know."""
    case = seen.case
    held = {id(p) for o in case.optimizers for g in o.param_groups for p in g["params"]}
    pairs = zip(seen.strangers, seen.stranger_shapes)
    lost = [(one, size) for one, size in pairs if one not in held]
    if not lost:
        return
    places = _places(case.model)
    names = [places.get(one, f"a tensor of shape {size}") for one, size in lost]
    names = list(dict.fromkeys(names))
    listlike = any(one in places for one, _ in lost)
    yield _not_held(
        listed(names),
        "They sit in a Python list or dict." if listlike else "model.parameters() lacks them.",
        "hold layers in nn.ModuleList or nn.ModuleDict, tensors in nn.Parameter"
        if listlike else "make them attributes of the model, or give them to the optimizer",
        len(lost),
    )  # fmt: skip


def _not_held(names: str, reason: str, mend: str, n: int) -> Finding:
    return finding(
        "error", "optimizer",
        f"The optimizer does not hold {names}, so they never change. {reason}",
        healthy="every trainable weight in the optimizer",
        why="A weight that no optimizer holds stays at its start.",
        mend=mend, missing=n,
    )  # fmt: skip


def _places(model: nn.Module) -> dict[int, str]:
    """Where in lists, tuples and dicts of its modules a model holds tensors, by their ids."""
    found: dict[int, str] = {}

    def look(value: Any, path: str, depth: int) -> None:
        if isinstance(value, nn.Module):
            for name, p in value.named_parameters():
                found.setdefault(id(p), f"{path}.{name}")
        elif isinstance(value, Tensor):
            found.setdefault(id(value), path)
        elif isinstance(value, list | tuple) and depth < 3:
            for i, one in enumerate(value):
                look(one, f"{path}[{i}]", depth + 1)
        elif isinstance(value, dict) and depth < 3:
            for key, one in value.items():
                look(one, f"{path}[{key!r}]", depth + 1)

    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") and not isinstance(value, nn.Module):
                look(value, f"{name}.{attribute}" if name else attribute, 0)
    return found


@rule("frozen-parameters", stage="static")
def frozen_parameters(case: Case) -> Iterator[Finding]:
    """Parameters that are not to learn, and look as if they had never learnt."""
    parameters = list(case.model.parameters())
    if not parameters:
        return
    if not any(p.requires_grad for p in parameters):
        yield all_frozen(case)
        return
    frozen = []
    for name, module in case.layers:
        own = [p for p in module.parameters(recurse=False) if p.dim() > 1 and not p.requires_grad]
        if own:
            frozen.append((name, any(_at_random_start(p) for p in own)))
    fresh = [name for name, start in frozen if start]
    if fresh:
        yield finding(
            "warning", fresh[0],
            f"{listed(fresh)} {'are' if len(fresh) > 1 else 'is'} frozen at "
            f"{'their' if len(fresh) > 1 else 'its'} random start and will not learn.",
            healthy="frozen layers that have learnt before",
            why="The layers after it have to make do with a random map.",
            mend=f"model.get_submodule({fresh[0]!r}).requires_grad_(True), and a fresh optimizer",
            layers=", ".join(fresh),
        )  # fmt: skip
    elif frozen:
        names = [name for name, _ in frozen]
        yield finding(
            "note", names[0],
            f"{listed(names)} {'are' if len(names) > 1 else 'is'} frozen (requires_grad=False).",
            healthy="frozen on purpose",
            why="What is frozen does not learn.",
            mend="requires_grad_(True) if it is to learn",
        )  # fmt: skip


def _at_random_start(weight: Tensor) -> bool:
    """Whether a weight is uniform within PyTorch's default bound (Kolmogorov-Smirnov, 1 %)."""
    values = weight.detach().flatten().double().cpu()
    n, bound = len(values), 1 / math.sqrt(weight[0].numel())
    largest = float(values.abs().max())
    if n < 8 or largest > bound * 1.0001 or largest < bound * 0.5 ** (8 / n) * 0.8:
        return False
    ordered = ((values.sort().values / bound) + 1) / 2
    steps = torch.arange(n, dtype=torch.float64)
    far = torch.maximum((steps + 1) / n - ordered, ordered - steps / n).max()
    return float(far) * math.sqrt(n) < 1.628


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
    if last is None:
        return
    for visit in seen.visits[last + 1 :]:
        if isinstance(visit.module, _DROPOUT) and visit.module.p > 0:
            yield finding(
                "error", visit.name,
                f"Dropout after '{seen.visits[last].name}' sets finished predictions to zero at "
                "random.",
                healthy="dropout between hidden layers",
                why="The loss then compares zeros with the targets, whatever the network says.",
                mend="move the dropout before the last Linear", p=visit.module.p,
            )  # fmt: skip
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


# ---------------------------------------------------------------- the start


def _equal_units(seen: FirstBatch) -> list[str]:
    """Hidden linear layers whose units all start equal, but for the ends of residual branches."""
    branch = _branch_ends(seen)
    last = seen.weighted[-1].name if seen.weighted else None
    layers = [(n, m) for n, m in leaves(seen.model) if _linear(m)]
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
        for sizes_of, least in ((seen.scales, 0.02), (seen.signals, 5e-4)):
            a, b = sizes_of[hidden[0]], sizes_of[hidden[-1]]
            if a > 0 and b / a < least:
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
