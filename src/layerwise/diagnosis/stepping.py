"""What is remembered of an optimizer while a loop is watched: its steps, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerwise.diagnosis.watched import Look


class Stepping:
    """One optimizer, or a loop that changes the weights by hand.

    Attributes
    ----------
    mine : whether it holds weights of the watched model
    copied : the same optimizer, of the copied model
    steps, rates, looks : how many steps, their learning rates, and those seen closely
    longest : the longest run of steps that used gradients of earlier batches too
    empty : steps of the first three that found no gradient, though ``backward`` had made some
    absent : steps of the first three before which no gradient was made at all
    """

    def __init__(
        self,
        optimizer: Any = None,
        pairs: Sequence[tuple[str, Tensor]] = (),
        copied: Any = None,
    ) -> None:
        self.optimizer, self.copied = optimizer, copied
        self.names, self.parameters = [n for n, _ in pairs], [p for _, p in pairs]
        self.mine = bool(pairs)
        self.steps = self.empty = self.absent = self.longest = self._run = self._passes = 0
        self.rates: list[float] = []
        self.looks: list[Look] = []
        self.made_gradients = False
        self._clear = True
        self._before: list[Tensor] | None = None
        self._gradient: list[float] = []

    def has_gradients(self) -> bool:
        """Whether any of its gradients is there and not 0."""
        given = [p.grad for p in self.parameters if p.grad is not None]
        return any(bool(g.count_nonzero()) for g in given)

    def look_for_gradients(self) -> None:
        """A backward begins: were the gradients of the last step cleared?"""
        self._passes += 1
        if self._clear or (self.steps > 20 and self.steps % 10 > 1):
            return
        self._clear = not self.has_gradients()

    @property
    def momentum(self) -> float:
        """The momentum of plain steps, by which they add up."""
        group = self.optimizer.param_groups[0]
        return float(group.get("momentum", 0.0))

    def pass_by_hand(self) -> None:
        """A backward begins in a loop without optimizers, which may change the weights itself."""
        if self.steps > 20 or not self.parameters:
            return
        now = self.parameters[0].detach().clone()
        before, self._before = self._before, [now]
        if before is not None and not torch.equal(before[0], now):
            self._run = self._run + 1 if self.has_gradients() else 0
            self.longest = max(self.longest, self._run)
        self.steps += 1

    def begin(self, due: bool) -> None:
        """A step begins."""
        if not self.mine:
            return
        group = self.optimizer.param_groups[0]
        self.rates.append(group["lr"])
        if self.steps and self._passes:
            seen = self.steps <= 20 or self.steps % 10 <= 1
            self._run = 0 if self._clear or not seen else self._run + 1
            self.longest = max(self.longest, self._run)
        if due:
            self._before = [p.detach().clone() for p in self.parameters]
            given = [p.grad if p.grad is not None else p.new_zeros(1) for p in self.parameters]
            self._gradient = _norms([g.detach() for g in given])
            if self.steps < 3 and not any(self._gradient):
                self.empty += self.made_gradients
                self.absent += not self.made_gradients and all(
                    p.grad is None for p in self.parameters
                )
            self.made_gradients = False

    def end(self, epoch: int, flat: frozenset[str]) -> None:
        """A step has ended."""
        if self._before is not None:
            now = [p.detach() for p in self.parameters]
            group = self.optimizer.param_groups[0]
            moved = torch._foreach_sub(now, self._before)
            self.looks.append(
                Look(
                    self.steps, epoch, dict(zip(self.names, self._gradient)),
                    dict(zip(self.names, _norms(self._before))),
                    dict(zip(self.names, _norms(list(moved)))),
                    float(group.get("weight_decay", 0.0)), decoupled(self.optimizer), flat,
                )
            )  # fmt: skip
            self._before = None
        self.steps += 1
        self._clear = False
        self._passes = 0


def decoupled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weight decay acts beside the gradient, as in AdamW, and not through it."""
    group = optimizer.param_groups[0]
    return bool(group.get("decoupled_weight_decay")) or "W" in type(optimizer).__name__


def _norms(tensors: list[Tensor]) -> list[float]:
    """The norm of each tensor, with one look at the device."""
    return torch.stack([n.double() for n in torch._foreach_norm(tensors)]).tolist()
