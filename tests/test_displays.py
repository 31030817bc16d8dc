"""Pictures: what is on them is what the results say, and they go where they are told."""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.errors import SettingError
from small import rows

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def run():
    return lw.train(
        rows(90), "price", drop=["sold", "band"], baselines=False, epochs=8, members=1,
        hidden_layer_sizes=(8,), activation="relu",
    )  # fmt: skip


def test_curves_are_those_of_the_history(run):
    shown = lw.CurvesDisplay.from_run(run)
    lines = {line.get_label(): line for line in shown.ax_.get_lines()}
    assert lines["training"].get_ydata().tolist() == run.history["train_loss"]
    assert lines["validation"].get_ydata().tolist() == run.history["valid_loss"]
    assert f"kept: epoch {run.history.best_epoch}" in lines
    shown.figure_.canvas.draw()


def test_a_display_draws_on_the_axes_it_is_given(run):
    figure, ax = pyplot.subplots()
    shown = lw.CurvesDisplay(run.history).plot(ax)
    assert shown.ax_ is ax
    assert shown.figure_ is figure
    with pytest.raises(SettingError, match="has 4 axes; got 1"):
        run.layers.plot(ax)


def test_layers_have_a_line_for_each_layer_that_has_the_measure(run):
    shown = run.layers.plot()
    assert shown.ax_.shape == (2, 2)
    gradients = shown.ax_[0, 0].get_lines()
    named = [n for n in run.layers.names if run.layers.series(n, "gradient")[0]]
    assert len(gradients) == len(named)
    for line, name in zip(gradients, named):
        epochs, values = run.layers.series(name, "gradient")
        assert line.get_xdata().tolist() == epochs
        assert line.get_ydata().tolist() == values
    shown.figure_.canvas.draw()


def test_importances_have_a_point_for_each_column_the_first_on_top(run):
    found = lw.importance(run, n_repeats=3)
    shown = found.plot()
    points = shown.ax_.get_lines()[-1]
    assert points.get_xdata() == pytest.approx(found.importances_mean)
    assert np.all(np.diff(points.get_ydata()) < 0)
    assert [t.get_text() for t in shown.ax_.get_yticklabels()] == list(found.columns)
    shown.figure_.canvas.draw()


def test_partial_dependence_has_a_picture_for_each_column(run):
    shown = lw.PartialDependenceDisplay.from_run(run, ["size", "town"])
    size, town = shown.ax_
    found = lw.partial_dependence(run, "size")
    assert size.get_lines()[-1].get_ydata() == pytest.approx(found.average[:, 0])
    assert len(town.patches) == 3
    assert size.get_xlabel() == "size"
    shown.figure_.canvas.draw()


def test_attributions_have_a_bar_for_each_column(run):
    found = lw.attribute(run, rows(3))
    shown = found.plot(1)
    bars = [bar.get_width() for bar in shown.ax_.patches]
    assert bars == pytest.approx([found.values[1, k] for k in found.order(1)])
    assert lw.AttributionDisplay.from_run(run, rows(3), 2).attribution.values.shape == (3, 3)
    shown.figure_.canvas.draw()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_landscapes_mark_the_weights(dimensions):
    torch.manual_seed(0)
    X = torch.randn(60, 3)
    model, path = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)), lw.Snapshots()
    lw.fit(model, (X, X[:, :1] ** 2), "mse", epochs=6, callbacks=[path])
    rows = X, X[:, :1] ** 2, "mse"
    found = lw.landscape(model, *rows, path=path, dimensions=dimensions, n_steps=5)
    shown = found.plot()
    assert 0.0 in shown.ax_.get_lines()[-1].get_xdata()
    if dimensions == 2:
        assert any(len(line.get_xdata()) == len(path) for line in shown.ax_.get_lines())
    shown.figure_.canvas.draw()


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SettingError, match="pip install matplotlib"):
        lw.CurvesDisplay(run.history).plot()
