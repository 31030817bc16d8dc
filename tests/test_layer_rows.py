"""What is recorded of each layer while it is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.engine import native
from layerwise.folder import read_events
from layerwise.run import Run
from layerwise.training.layers import LOOK, Recorder, spacing
from small import rows

ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(not native.AVAILABLE, reason="no core")),
]


def _data(n=300, width=6):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(n, width, generator=generator)
    return X, X[:, :1] * X[:, 1:2]


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 8), nn.Tanh()), nn.Linear(8, 1)
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_tell_what_torch_sees_of_the_first_step(engine):
    model, (X, y) = _network(), _data()
    other = _network()
    history = lw.fit(
        model, (X, y), "mse", torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1, batch_size=300, engine=engine,
    )  # fmt: skip
    outputs = [X]
    for layer in (other[0], other[1], other[2][0], other[2][1], other[3]):
        outputs.append(layer(outputs[-1]))
    nn.functional.mse_loss(outputs[-1], y).backward()
    by_name = {row["layer"]: row for row in history.layers}
    assert list(by_name) == ["0", "1", "2.0", "2.1", "3"]
    for row, output in zip(by_name.values(), outputs[1:]):
        assert row["epoch"] == 1
        assert row["mean"] == pytest.approx(output.mean().item(), rel=1e-3, abs=1e-6)
        assert row["deviation"] == pytest.approx(output.std(correction=0).item(), rel=1e-3)
    kinds = [row["kind"] for row in by_name.values()]
    assert kinds == ["Linear", "ReLU", "Linear", "Tanh", "Linear"]
    for name in ("0", "2.0", "3"):
        layer = other.get_submodule(name)
        parameters = list(layer.parameters())
        gradient = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
        weight = math.sqrt(sum(float(p.detach().square().sum()) for p in parameters))
        row = by_name[name]
        assert row["gradient"] == pytest.approx(gradient, rel=1e-3)
        assert row["weight"] == pytest.approx(weight, rel=1e-3)
        assert row["update"] == pytest.approx(0.1 * gradient, rel=1e-3)
        assert row["ratio"] == pytest.approx(0.1 * gradient / weight, rel=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_dead_and_saturated_units_show_in_their_layer(engine):
    model, data = _network(), _data()
    with torch.no_grad():
        model[0].bias[:4] = -100
        model[2][0].bias[0] = 100
    layers = lw.fit(model, data, "mse", epochs=1, engine=engine).layers
    by_name = {row["layer"]: row for row in layers}
    assert by_name["1"]["dead"] == 4 / 16
    assert by_name["2.1"]["saturated"] >= 1 / 8
    assert by_name["2.1"]["beyond"] >= 1 / 8
    assert "saturated" not in by_name["0"]


@pytest.mark.parametrize("engine", ENGINES)
def test_looking_changes_nothing(engine, monkeypatch):
    told = []
    for every in (1, 0):
        monkeypatch.setattr(Recorder, "every", lambda self, epoch, every=every: every)
        model = _network()
        history = lw.fit(model, _data(), "mse", epochs=4, engine=engine)
        told.append((history["train_loss"], [p.tolist() for p in model.parameters()]))
        assert bool(history.layers) == bool(every)
    assert told[0] == told[1]


@pytest.mark.parametrize("n_rows", [1, 20, 150, 1000, 50_000, None])
@pytest.mark.parametrize("batch_size", [1, 32, 1024])
@pytest.mark.parametrize("engine", LOOK)
def test_looks_are_as_many_as_their_cost_allows_and_at_enough_rows(n_rows, batch_size, engine):
    look, record = LOOK[engine], 10
    step, epochs = spacing(n_rows, batch_size, look, record)
    steps = 1000 if n_rows is None else math.ceil(n_rows / batch_size)
    looked = math.ceil(steps / step)
    assert (look * looked + record) / ((steps + record) * epochs) <= 0.04
    assert looked * batch_size >= min(n_rows or math.inf, 256)


def test_parameters_beside_the_layers_have_a_row_of_their_own():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.inner = nn.Linear(6, 1)

        def forward(self, X):
            return self.scale * self.inner(X)

    layers = lw.fit(Scaled(), _data(), "mse", epochs=1).layers
    assert [(row["layer"], row["kind"]) for row in layers] == [("inner", "Linear"), ("", "Scaled")]
    assert layers[1]["weight"] == pytest.approx(1, rel=0.2)


def test_a_run_folder_keeps_them_a_line_for_each_epoch(tmp_path):
    run = lw.train(
        rows(), "sold", drop=["price", "band"], out=tmp_path / "run", epochs=4, baselines=False
    )
    assert run.history.layers
    again = Run.load(tmp_path / "run")
    assert again.history.layers == run.history.layers
    epochs = [event for event in read_events(tmp_path / "run") if event["event"] == "epoch"]
    looked = {row["epoch"] for row in run.history.layers}
    assert [bool(event.get("layers")) for event in epochs] == [
        event["row"]["epoch"] in looked for event in epochs
    ]


def test_a_callback_gets_the_rows_and_the_network():
    model, events = _network(), []
    history = lw.fit(model, _data(), "mse", epochs=3, callbacks=[events.append])
    assert [row for event in events for row in event.layers] == history.layers
    assert all(event.network is model for event in events)
