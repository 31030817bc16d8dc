"""Every layer over the epochs, as the layer view draws it."""

from __future__ import annotations

from layerwise.insight.layers import Layers
from layerwise.insight.layers_drawing import layers_svg
from layerwise.report.blocks import Figure, Section
from layerwise.report.subject import Subject


def layers(subject: Subject) -> Section:
    """The picture, if layers were looked at while training."""
    run = subject.run
    if not run.history.layers:
        return Section("layers", "Layers")
    seen = Layers.of(run.history, run.model)
    caption = "Rows are layers, from the first to the last; each curve goes over the epochs."
    return Section("layers", "Layers", [Figure(layers_svg(seen), caption)])
