"""The learning rate of every step, against torch's schedulers where it has one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerwise.training.recipe import SCHEDULES
from layerwise.training.schedule import rate_at

N = 30
TORCH = {
    "constant": lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
    "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=N),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=N),
    "exponential": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.01 ** (1 / N)),
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=N // 3, gamma=0.1),
}


@pytest.mark.parametrize("schedule", TORCH)
def test_the_rates_are_those_of_torchs_scheduler(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = TORCH[schedule](optimizer)
    for step in range(N):
        assert rate_at(step, N, lr=0.5, schedule=schedule) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_one_cycle_climbs_from_a_tenth_for_30_percent_and_falls_as_a_cosine():
    rates = [rate_at(s, 100, lr=2.0, schedule="one_cycle") for s in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[15] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[30] == max(rates) == pytest.approx(2.0)
    assert rates[65] == pytest.approx(1.0)  # half way down
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 69 / 70))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_climbs_linearly_and_then_the_schedule_begins(schedule):
    rates = [rate_at(s, 100, lr=1.0, schedule=schedule, warmup=0.1) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 11 for s in range(10)])
    assert rates[10:] == [rate_at(s, 90, lr=1.0, schedule=schedule) for s in range(90)]


@given(
    st.sampled_from(SCHEDULES), st.integers(1, 500), st.floats(0, 0.99), st.floats(1e-6, 10),
    st.data(),
)  # fmt: skip
def test_every_rate_is_between_0_and_lr(schedule, n, warmup, lr, data):
    step = data.draw(st.integers(0, n - 1))
    rate = rate_at(step, n, lr=lr, schedule=schedule, warmup=warmup)
    assert 0 < rate <= lr * (1 + 1e-12)
