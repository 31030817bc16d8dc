"""The loss around the weights, against a loss that is known in closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.errors import SettingError
from layerwise.insight.landscape import Landscape, Snapshots, landscape
from small import rows


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    return X, X @ torch.arange(5.0, dtype=torch.float64)[:, None]


def _linear():
    torch.manual_seed(0)
    return nn.Linear(5, 1, bias=False).double()


def test_of_a_linear_model_the_loss_is_a_parabola(data):
    model = _linear()
    found = landscape(model, *data, "mse", n_steps=9, max_rows=None)
    a, b, c = np.polyfit(found.steps, found.line, 2)
    assert np.allclose(np.polyval([a, b, c], found.steps), found.line, rtol=1e-9)
    expected = nn.functional.mse_loss(model(data[0]), data[1]).item()
    assert found.loss == pytest.approx(expected, rel=1e-12)
    assert found.sharpness == pytest.approx(2 * a, rel=1e-6)
    assert found.plane[4, 4] == pytest.approx(expected, rel=1e-12)
    assert found.plane[4] == pytest.approx(found.line)


def test_directions_are_as_long_as_the_weights_of_each_unit(data):
    from layerwise.insight.landscape import _filter_normalised

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    direction = _filter_normalised(weights, torch.Generator().manual_seed(3))
    assert sorted(direction) == ["0.weight", "2.weight"]
    for name, part in direction.items():
        assert torch.allclose(part.norm(dim=1), weights[name].norm(dim=1), rtol=1e-5)


def test_a_rescaled_network_has_the_same_landscape(data):
    X, y = (one.float() for one in data)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9, bias=False), nn.ReLU(), nn.Linear(9, 1, bias=False))
    before = landscape(model, X, y, "mse", n_steps=7)
    with torch.no_grad():
        model[0].weight *= 10
        model[2].weight /= 10
    after = landscape(model, X, y, "mse", n_steps=7)
    assert np.allclose(before.plane, after.plane, rtol=1e-4)


def test_the_path_lies_where_the_training_was(data):
    X, y = data
    model, path = _linear(), Snapshots()
    lw.fit(model, (X, y), "mse", torch.optim.SGD(model.parameters(), lr=0.01), epochs=12,
           batch_size=200, callbacks=[path], patience=None)  # fmt: skip
    assert path.epochs == list(range(1, 13))
    found = landscape(model, X, y, "mse", path=path, n_steps=15, max_rows=None)
    assert found.path.shape == (12, 2)
    assert found.path[-1] == pytest.approx([0, 0], abs=1e-9)
    assert sum(found.explained) > 0.99
    matrix = torch.stack([one["weight"].flatten() - path.weights[-1]["weight"].flatten()
                          for one in path.weights])  # fmt: skip
    singular = torch.linalg.svdvals(matrix).numpy()
    assert found.explained[0] == pytest.approx(singular[0] ** 2 / (singular**2).sum(), rel=1e-6)
    assert np.allclose(np.linalg.norm(found.path, axis=1), matrix.norm(dim=1), rtol=0.02)
    assert found.x[0] < found.path[:, 0].min()
    assert found.x[-1] > found.path[:, 0].max()


def test_looking_changes_nothing(data):
    X, y = (one.float() for one in data)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = landscape(model, X, y, "mse", n_steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert landscape(model, X, y, "mse", n_steps=3).plane.tolist() == first.plane.tolist()


def test_snapshots_thin_out_and_keep_the_first():
    X = torch.rand(20, 1)
    path = Snapshots(most=10)
    lw.fit(nn.Linear(1, 1), (X, X), "mse", epochs=45, callbacks=[path], patience=None)
    assert len(path) <= 11
    assert path.epochs[0] == 1
    assert len(set(np.diff(path.epochs))) == 1


def test_a_run_has_its_own_rows_and_loss():
    path = Snapshots()
    run = lw.train(rows(80), "band", drop=["price", "sold"], baselines=False, epochs=6, members=1,
                   callbacks=[path])  # fmt: skip
    found = landscape(run, path=path, n_steps=5)
    best = run.history.best
    assert found.n_rows == run.record["data"]["rows"]["train"]
    assert found.loss < 3 * best["train_loss"] + 0.1
    json.dumps(found.to_json())


def test_it_prints_at_80_columns(data):
    X, y = data
    line = landscape(_linear(), X, y, "mse", dimensions=1, n_steps=7)
    assert line.plane is None
    assert str(line).count("█") > 20
    text = str(landscape(_linear(), X, y, "mse", n_steps=11))
    assert "●" in text
    assert isinstance(line, Landscape)
    for one in (text, str(line)):
        assert max(map(len, one.splitlines())) <= 80


def test_what_cannot_be_looked_at_is_said(data):
    model = _linear()
    with pytest.raises(SettingError, match="at least 3 snapshots"):
        landscape(model, *data, "mse", path=[dict(model.named_parameters())] * 2)
    with pytest.raises(SettingError, match="another network"):
        landscape(model, *data, "mse", path=[dict(nn.Linear(2, 1).named_parameters())] * 3)
    with pytest.raises(SettingError, match="only a run has its own"):
        landscape(model)
    with pytest.raises(SettingError, match="dimensions"):
        landscape(model, *data, "mse", dimensions=3)
