"""The layer view: rows over epochs, final weights, and its drawings."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.insight.layers import Layers
from layerwise.insight.layers_drawing import GROUPS, at, limits, spark
from layerwise.run import Run
from layerwise.training.history import History
from small import rows

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Sequential(nn.Linear(40, 8), nn.Tanh()),
        nn.Linear(8, 1),
    )  # fmt: skip
    X = torch.randn(400, 6)
    history = lw.fit(model, (X, X[:, :1] ** 2), "mse", epochs=40)
    return model, history


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return lw.train(
        rows(), "sold", drop=["price", "band"], out=folder, epochs=12, baselines=False
    )  # fmt: skip


def test_weights_are_those_of_numpy(trained):
    model, history = trained
    layers = Layers.of(history, model)
    assert [one.layer for one in layers.weights] == ["0", "1", "3.0", "4"]
    assert sum(one.parameters for one in layers.weights) == lw.count_parameters(model)
    assert sum(one.share for one in layers.weights) == pytest.approx(1)
    for name in ("0", "3.0", "4"):
        weight = model.get_submodule(name).weight.detach().double().numpy()
        one = layers.weights_of(name)
        assert one.shape == weight.shape
        assert np.allclose(one.spectrum, np.linalg.svd(weight)[1], rtol=1e-5)
        assert 1 <= one.rank <= min(weight.shape) + 1e-9
    assert layers.weights_of("2") is None


def test_a_matrix_of_one_direction_uses_one(trained):
    layer = nn.Linear(5, 7)
    with torch.no_grad():
        layer.weight.copy_(torch.outer(torch.rand(7), torch.rand(5)))
        assert Layers.of(trained[1], layer).weights[0].rank == pytest.approx(1, abs=1e-3)
        nn.init.orthogonal_(layer.weight)
        assert Layers.of(trained[1], layer).weights[0].rank == pytest.approx(5)
        layer.weight.fill_(math.nan)
        assert Layers.of(trained[1], layer).weights[0].rank == 0
    assert Layers.of(trained[1]).weights == ()


def test_text_fits_80_columns_and_shows_every_layer(trained):
    text = str(Layers.of(trained[1], trained[0]))
    assert max(map(len, text.splitlines())) <= 80
    for title in GROUPS:
        assert title in text
    forward = text.partition("forward")[2].partition("\n\n")[0]
    for name in ("0 Linear", "1 BatchNorm1d", "2 ReLU", "3.0 Linear", "3.1 Tanh", "4 Linear"):
        assert name in forward
    backward = text.partition("backward")[2].partition("\n\n")[0]
    assert "ReLU" not in backward


def test_long_names_fit_80_columns(trained):
    place = "encoder.a_very_long_name."
    renamed = [{**row, "layer": place + row["layer"]} for row in trained[1].layers]
    text = str(Layers(tuple(renamed)))
    assert max(map(len, text.splitlines())) <= 80
    assert "3.1 Tanh" in text


def test_sparklines_share_one_scale():
    share, log = (
        GROUPS["activations: where they do not answer"][0],
        GROUPS["backward: norms of all weights of a layer"][0],
    )
    assert limits(share, [[0.2, 0.4]]) == (0, 1)
    assert spark(share, [0.0, 0.5, 1.0], 0, 1).strip() == "▁▅█"
    low, high = limits(log, [[1e-6, 1e-3], [1.0]])
    assert [round(at(log, 10.0**k, low, high) * (high - low)) + low for k in (-6, -3, 0)] == [
        -6,
        -3,
        0,
    ]
    assert spark(log, [math.nan, 1.0], low, high).strip() == "×█"


def test_the_svg_has_a_group_for_each_layer_and_takes_the_colour_of_the_page(trained):
    layers = Layers.of(trained[1], trained[0])
    svg = layers._repr_html_()
    root = ElementTree.fromstring(svg)
    groups = root.findall(f"{SVG}g")
    assert [
        one.find(f"{SVG}title").text.partition("\n")[0].split()[0] for one in groups
    ] == layers.names
    assert f"epochs 1 to {layers.epochs[-1]}" in root.get("aria-label")
    assert not re.search(r"(href|url\(|<script)", svg)
    assert "currentColor" in svg
    for box in root.iter(f"{SVG}rect"):
        assert 0 <= float(box.get("x")) <= 760
        assert float(box.get("width")) >= 0
    assert "nan" not in svg


def test_a_run_has_its_layers_also_when_it_is_loaded(run):
    loaded = Run.load(run.folder).layers
    assert loaded.rows == run.layers.rows
    assert loaded.weights == run.layers.weights
    assert loaded.best_epoch == run.layers.best_epoch
    assert loaded.n_members == len(run.model.members)
    assert str(loaded) == str(run.layers)
    json.dumps(loaded.to_json())


def test_frames_have_a_row_for_each_layer_and_epoch(trained):
    layers = Layers.of(trained[1])
    frame = layers.to_frame()
    assert len(frame) == len(trained[1].layers)
    assert set(frame["layer"]) == set(layers.names)


def test_several_networks_are_averaged(trained):
    _, history = trained
    rows = [{**row, "member": k, "mean": k * row["mean"]} for k in (1, 3) for row in history.layers]
    doubled = Layers.of(History(layers=rows))
    assert doubled.n_members == 2
    epochs, means = Layers.of(history).series("0", "mean")
    assert doubled.series("0", "mean") == (epochs, pytest.approx([2 * mean for mean in means]))
    assert "mean of 2 networks" in str(doubled)


def test_inspect_shows_the_layers(run, command):
    shown = command("inspect", "--layers", run.folder)
    assert shown.code == 0
    assert shown.out.rstrip() == str(run.layers)
    told = json.loads(command("inspect", "--layers", run.folder, "--json").out)
    assert len(told["rows"]) == len(run.layers.rows)
