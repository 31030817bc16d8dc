"""What every test shares."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

os.environ["COLUMNS"] = "80"
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores: threads of one would wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for those of another


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(0)


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run ``layerwise`` with these arguments in this process."""
    from layerwise.__main__ import main

    def run(*argv: object, stdin: bytes | None = None) -> Result:
        capsys.readouterr()
        handler, form = signal.getsignal(signal.SIGTERM), warnings.formatwarning
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["layerwise", *map(str, argv)])
            if stdin is not None:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            try:
                with pytest.raises(SystemExit) as stopped:
                    main()
            finally:
                signal.signal(signal.SIGTERM, handler)
                warnings.formatwarning = form
        out, err = capsys.readouterr()
        return Result(int(stopped.value.code or 0), out, err)

    return run
