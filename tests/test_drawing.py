"""A trace as a table, as a drawing for the terminal and as a picture."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import layerwise as lw
from layerwise.insight.drawing import decades, figure, position, power, shortened
from nets import ZOO, mlp, zoo

SVG = "{http://www.w3.org/2000/svg}"


def _trace(model, X, outputs=3):
    n = len(X) if isinstance(X, torch.Tensor) else len(next(iter(X.values())))
    return lw.trace(model, X, torch.arange(n) % outputs, "cross_entropy")


def _deep(n_layers, width=16):
    torch.manual_seed(0)
    layers = [
        m for _ in range((n_layers - 1) // 2) for m in (nn.Linear(width, width), nn.Sigmoid())
    ]
    return _trace(nn.Sequential(*layers, nn.Linear(width, 3)), torch.randn(20, width))


def _sick():
    """Dead, saturated and not finite, all in one."""

    class Poison(nn.Module):
        def forward(self, x):
            return torch.where(x > 2, math.nan, x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), Poison())
    with torch.no_grad():
        model[0].bias[:3] = -90
        model[2].weight *= 1e4
    model.append(nn.Linear(8, 3))
    X = torch.randn(50, 4)
    X[0, 0] = math.inf
    return _trace(model, X)


@pytest.mark.parametrize("name", ZOO)
def test_table_and_drawing_fit_80_columns_and_show_every_layer(name):
    found = _trace(*zoo(name))
    for text in (str(found), found.drawing()):
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line == line.rstrip() for line in lines)
        for row in found.rows:
            assert sum(row.name[-8:] in line for line in lines) >= 2  # forward and backward


def test_the_table_tells_loss_shapes_and_gradients():
    found = _trace(mlp(), torch.randn(6, 10), 5)
    text = str(found)
    assert text == repr(found)
    assert f"loss {found.loss:.3g} of 6 rows" in text
    for row in found.rows:
        assert f"{row.gradient.rms:.1e}" in text
        assert figure(row.values.maximum) in text
    assert "saturated" not in text  # a column that would tell nothing is not there


def test_dead_saturated_and_not_finite_are_shown_everywhere():
    found = _sick()
    for text in (str(found), found.drawing(), found.svg()):
        assert "nan" in text
    assert found.rows[1].dead == 3
    assert "3 dead" in found.drawing()
    assert re.search(r"\d+ % saturated", found.drawing())
    assert max(map(len, found.drawing().splitlines())) <= 80


def test_gradient_bars_are_as_long_as_their_logarithm():
    found = _deep(9)
    lines = found.drawing().partition("backward")[2].splitlines()[1:-1]
    assert len(lines) == 1 + len(found.rows)
    lengths = [sum((c >= "▉" and c <= "█") or c == "█" for c in line) for line in lines]
    sizes = [row.gradient.rms for row in (*found.inputs, *found.rows)]
    low, high = decades(sizes)
    room = (80 - lines[0].index("█") - 2) if "█" in lines[0] else None
    for length, size in zip(lengths, sizes):
        expected = position(size, low, high)
        longest = max(lengths) / position(max(sizes), low, high)
        assert abs(length - expected * longest) <= 2
    assert room is None or room > 20


def test_the_axis_names_powers_of_ten_at_their_places():
    found = _deep(9)
    low, high = decades([row.gradient.rms for row in (*found.inputs, *found.rows)])
    axis = found.drawing().splitlines()[-1]
    assert power(low) in axis
    assert power(high) in axis


@pytest.mark.parametrize("n_layers", [1, 3, 21, 61])
def test_a_picture_is_valid_xml_that_stands_alone(n_layers):
    svg = _deep(n_layers).svg()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "style", "rect", "path", "text", "g", "title"}
    links = re.findall(r"(?:href|src|url\(|@import|http)[^\s]*", svg)
    assert links == ['http://www.w3.org/2000/svg"']
    assert "prefers-color-scheme:dark" in svg
    assert len(svg) < 20_000 + 4_000 * n_layers


@pytest.mark.parametrize("name", ZOO)
def test_everything_in_a_picture_lies_on_its_card(name):
    found = _trace(*zoo(name))
    root = ElementTree.fromstring(found.svg())
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter():
        if element.tag in (f"{SVG}text", f"{SVG}rect"):
            assert 0 <= float(element.get("x")) <= width
            assert 0 <= float(element.get("y")) <= height
        if element.tag == f"{SVG}rect":
            assert float(element.get("x")) + float(element.get("width")) <= width
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for row in found.rows:
        assert shortened(row.name, 22) in texts


def test_a_picture_also_shows_what_cannot_be_measured():
    svg = _sick().svg()
    ElementTree.fromstring(svg)
    assert "alarm" in svg
    assert not re.search(r'(?:x|y|width|height|d)="[^"]*(?:nan|inf)', svg)


@pytest.mark.parametrize("n_rows", [1, 5])
def test_wide_layers_and_single_rows_can_be_drawn(n_rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 3))
    found = _trace(model, torch.randn(n_rows, 784))
    svg = found.svg()
    ElementTree.fromstring(svg)
    assert len(svg) < 40_000
    assert found.drawing()


def test_widths_of_the_strips_are_in_proportion_to_the_units():
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 25))
    svg = _trace(model, torch.randn(30, 100)).svg()
    spans = [
        float(b) - float(a)
        for a, b in re.findall(r'class="funnel" d="M([\d.]+) [\d.]+H([\d.]+)', svg)
    ]
    assert spans[0] == pytest.approx(2 * spans[1], abs=0.3)


def test_all_text_is_escaped():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleDict({'a<b>&"c"\x0b': nn.Linear(4, 3)})

        def forward(self, x):
            return next(iter(self.inner.values()))(x)

    found = _trace(Odd(), torch.randn(6, 4))
    root = ElementTree.fromstring(found.svg())
    assert any('a<b>&"c"' in (element.text or "") for element in root.iter(f"{SVG}text"))
    assert "<b>" not in found.svg()
    assert "<b>" not in found._repr_html_()


def test_a_picture_is_saved_as_it_is_and_only_as_svg(tmp_path):
    found = _trace(mlp(), torch.randn(6, 10), 5)
    found.save(tmp_path / "pass.svg")
    assert (tmp_path / "pass.svg").read_text("utf-8") == found.svg() + "\n"
    with pytest.raises(lw.SettingError, match=r"\.svg file; got '.*pass.png'"):
        found.save(tmp_path / "pass.png")
    with pytest.raises(lw.OutputError):
        found.save(tmp_path / "nowhere" / "pass.svg")


def test_the_same_trace_is_the_same_picture():
    assert _deep(5).svg() == _deep(5).svg()


def test_a_scale_holds_what_it_shows():
    for sizes in ([1e-5, 3e-2], [1.0], [0.0, 2e-3], [math.nan, 1e2], [0.0], [], [None, 1e-300]):
        low, high = decades(sizes)
        assert low < high
        for size in sizes:
            if size and math.isfinite(size):
                assert 0 < position(size, low, high) <= 1
    assert position(0.0, -3, 0) == 0
    assert position(math.inf, -3, 0) == 1


@pytest.mark.parametrize(
    "value", [0.0, 1.0, -1.0, 0.1234567, -123.456, 9999.5, -1e300, 1e-300, math.nan, -math.inf]
)
def test_a_figure_takes_eight_columns_at_most(value):
    assert len(figure(value)) <= 9
    assert float(figure(value)) == pytest.approx(value, rel=0.06, nan_ok=True)


def test_a_long_name_keeps_its_end():
    assert shortened("encoder.layers.0.linear1", 10) == "…0.linear1"
    assert shortened("short", 10) == "short"
