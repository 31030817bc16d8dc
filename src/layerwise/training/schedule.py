"""The learning rate of every step, as a function of the step alone: nothing to save or resume."""

from __future__ import annotations

import math


def rate_at(
    step: int, n_steps: int, *, lr: float, schedule: str = "constant", warmup: float = 0.0
) -> float:
    """The learning rate at one step.

    Parameters
    ----------
    step : counted from 0 over the whole training
    n_steps : steps of the whole training, if it runs all its epochs
    lr : the rate that the schedule scales
    schedule : constant; cosine and linear fall to 0; exponential falls to a hundredth; step is a
        tenth after each third; one_cycle climbs from a tenth for 30 % and then falls as a cosine
    warmup : share of the steps in which the rate climbs linearly to its value

    Examples
    --------
    >>> [round(rate_at(s, 5, lr=1.0, schedule="linear"), 2) for s in range(5)]
    [1.0, 0.8, 0.6, 0.4, 0.2]
    """
    n_warm = int(warmup * n_steps)
    if step < n_warm:
        return lr * (step + 1) / (n_warm + 1)
    t = (step - n_warm) / max(n_steps - n_warm, 1)
    match schedule:
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * t))
        case "linear":
            factor = 1 - t
        case "exponential":
            factor = 0.01**t
        case "step":
            factor = 0.1 ** math.floor(3 * t)
        case "one_cycle":
            rise = t / 0.3
            fall = 0.5 * (1 + math.cos(math.pi * (t - 0.3) / 0.7))
            factor = 0.1 + 0.9 * rise if t < 0.3 else fall
        case _:
            factor = 1.0
    return lr * factor
