"""Names and numbers in findings."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from layerwise.diagnosis.case import Case

_LOSSES = {
    "cross_entropy": "CrossEntropyLoss", "nll_loss": "NLLLoss", "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss", "mse_loss": "MSELoss",
    "l1_loss": "L1Loss", "smooth_l1_loss": "SmoothL1Loss", "huber_loss": "HuberLoss",
    "poisson_nll_loss": "PoissonNLLLoss", "kl_div": "KLDivLoss",
}  # fmt: skip


def loss_name(loss: Any) -> str:
    """A loss as people know it.

    Examples
    --------
    >>> loss_name("mse_loss"), loss_name(nn.HuberLoss()), loss_name(max)
    ('MSELoss', 'HuberLoss', 'max')
    """
    if isinstance(loss, nn.Module):
        return type(loss).__name__
    return _LOSSES.get(str(loss), str(getattr(loss, "__name__", loss)))


def share_of(part: float) -> str:
    """A share in per cent, with the digits that matter.

    Examples
    --------
    >>> share_of(0.5), share_of(0.0012), share_of(1.0)
    ('50%', '0.12%', '100%')
    """
    return f"{part:.0%}" if part >= 0.1 or part == 0 else f"{part * 100:.2g}%"


def listed(names: list[str], most: int = 4) -> str:
    """Names in quotes; of many the first few.

    Examples
    --------
    >>> listed(["0", "2"]), listed(list("abcdef"))
    ("'0', '2'", "'a', 'b', 'c', 'd' and 2 more")
    """
    told = ", ".join(repr(name) for name in names[:most])
    return told + (f" and {len(names) - most} more" if len(names) > most else "")


def type_of(tensor: Tensor) -> str:
    """A tensor's type in words, e.g. float32."""
    return str(tensor.dtype).removeprefix("torch.")


def last_linear(case: Case) -> str:
    """The path of the last linear layer; "forward" if there is none."""
    named = [n for n, m in case.layers if isinstance(m, nn.Linear)]
    return named[-1] if named else "forward"
