"""Which engine trains: the core where it can, torch where it cannot, with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.engine.choose import choose
from layerwise.engine.loss import mse
from layerwise.engine.native import AVAILABLE
from layerwise.engine.plan import Refused
from layerwise.engine.torch import Precision, Rows

needs_core = pytest.mark.skipif(not AVAILABLE, reason="built without the native core")


def _choose(name="auto", network=None, width=4, **options):
    network = network or nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(network.parameters())
    return choose(
        name, network, mse, optimizer, Rows(torch.ones(5, 3), torch.ones(5, 1)), **options
    )


@needs_core
def test_auto_takes_the_core_where_it_can():
    engine, reason = _choose()
    assert (engine.name, reason) == ("native", "")


def test_auto_goes_to_torch_where_the_core_cannot_and_says_why():
    engine, reason = _choose(network=nn.Sequential(nn.Linear(3, 1), nn.CELU()))
    assert engine.name == "torch"
    assert "CELU" in reason or not AVAILABLE


def test_native_insists():
    with pytest.raises(Refused):
        _choose("native", network=nn.Sequential(nn.Linear(3, 1), nn.CELU()))


def test_torch_never_takes_the_core():
    engine, reason = _choose("torch")
    assert (engine.name, reason) == ("torch", "as you said")


@needs_core
def test_mixed_precision_and_large_layers_on_several_threads_are_torchs():
    assert _choose(precision=Precision("cpu", torch.bfloat16))[0].name == "torch"
    large = {"width": 10_000, "batch_size": 4000}
    assert _choose(**large, threads=2)[0].name == "torch"
    assert _choose(**large, threads=1)[0].name == "native"
    assert _choose("native", **large, threads=2)[0].name == "native"


def test_every_training_says_which_engine_it_had(tmp_path, command):
    path = tmp_path / "t.csv"
    path.write_text("size,price\n" + "".join(f"{i % 20},{i % 20 * 2.5}\n" for i in range(80)))
    for engine in ("torch", "auto"):
        told = command("train", path, "-t", "price", "--epochs", 2, "--no-baselines", "-q",
                       "--engine", engine, "--out", tmp_path / engine)  # fmt: skip
        assert told.code == 0
        run = lw.Run.load(tmp_path / engine)
        assert run.history.engine == run.record["engine"]
        expected = "native core" if run.history.engine == "native" else "PyTorch's own loop"
        assert expected in told.out


@needs_core
def test_both_engines_end_in_the_same_answers(rng):
    X = rng.normal(size=(400, 5))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    answers = [
        lw.NetworkRegressor((16, 16), epochs=30, dropout=0, random_state=0, engine=engine)
        .fit(X, y)
        .predict(X)
        for engine in ("native", "torch")
    ]  # without dropout, whose masks each engine draws for itself
    assert abs(answers[0] - answers[1]).max() < 1e-3
