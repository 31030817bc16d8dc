"""What every test shares."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ["COLUMNS"] = "80"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(0)
