"""Several networks of one plan as one module, which answers with their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bag(nn.Module):
    """The mean answer of several networks, as raw outputs.

    Of classes the probabilities are averaged and given back as logits, so that a sigmoid or softmax
    of them is the mean; of a regression the numbers are averaged.

    Parameters
    ----------
    members : networks from (N, n_inputs) to raw outputs (N, n_outputs)
    task : regression, binary, multiclass or multilabel
    temperature : the logits are divided by it; above 1 it makes the answers more careful
    limits : array of shape (2, n_outputs), the lowest and highest outputs of a regression, or None

    Shape
    -----
    Input (N, n_inputs); output (N, n_outputs): logits, or standardised numbers.

    Examples
    --------
    >>> always = [nn.Linear(2, 1), nn.Linear(2, 1)]
    >>> for member, logit in zip(always, (0.0, 1.0986)):
    ...     _ = nn.init.zeros_(member.weight), nn.init.constant_(member.bias, logit)
    >>> answer = torch.sigmoid(Bag(always, "binary")(torch.ones(1, 2)))  # of 0.5 and 0.75
    >>> round(answer.item(), 3)
    0.625
    """

    temperature: Tensor
    limits: Tensor | None

    def __init__(
        self,
        members: Sequence[nn.Module],
        task: str,
        temperature: float = 1.0,
        limits: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.task = task
        dtype = next(self.members.parameters()).dtype
        self.register_buffer("temperature", torch.tensor(temperature, dtype=dtype))
        self.register_buffer(
            "limits", None if limits is None else torch.from_numpy(limits).to(dtype)
        )

    def forward(self, X: Tensor) -> Tensor:
        """(N, n_inputs) to (N, n_outputs)."""
        outputs = torch.stack([member(X) for member in self.members])
        if self.task == "regression":
            mean = outputs.mean(dim=0)
            return mean if self.limits is None else mean.clamp(self.limits[0], self.limits[1])
        if self.task == "multiclass":
            mean = F.log_softmax(outputs, dim=-1).logsumexp(dim=0) - math.log(len(self.members))
        else:
            yes, no = F.logsigmoid(outputs), F.logsigmoid(-outputs)
            mean = yes.logsumexp(dim=0) - no.logsumexp(dim=0)
        return mean / self.temperature

    def extra_repr(self) -> str:
        """What ``print(bag)`` shows."""
        limits = "" if self.limits is None else f", limits={self.limits.tolist()}"
        return f"task={self.task}, temperature={self.temperature.item():.4g}{limits}"
