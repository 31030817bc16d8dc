"""Parameters that nobody moves: outside the optimizer, or frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.diagnosis.case import Case
from layerwise.diagnosis.finding import Finding, finding
from layerwise.diagnosis.first_batch import FirstBatch
from layerwise.diagnosis.mismatch import all_frozen
from layerwise.diagnosis.rules import rule
from layerwise.diagnosis.words import listed


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
