"""One forward and backward pass on a copy of the model, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerwise.diagnosis.case import Case


@dataclass(eq=False)
class FirstBatch:
    """What one batch shows; `case` is all that was known before it."""

    case: Case
    outputs: Any = None
    error: Exception | None = None

    @classmethod
    def of(cls, case: Case) -> FirstBatch | None:
        """Run the first rows of a case; None if there are none."""
        return None
