"""Sections to one HTML page."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from layerwise import storage
from layerwise._version import __version__
from layerwise.report.again import again
from layerwise.report.blocks import Section
from layerwise.report.curves import curves
from layerwise.report.layers import layers
from layerwise.report.needed import needed
from layerwise.report.network import network
from layerwise.report.predictions import predictions
from layerwise.report.slices import slices
from layerwise.report.subject import Subject
from layerwise.report.table import table
from layerwise.report.verdict import verdict

if TYPE_CHECKING:
    from layerwise.prepare import Prepared
    from layerwise.run import Run

NAME = "report.html"


def page(run: Run, prepared: Prepared) -> str:
    """The report as HTML.

    Parameters
    ----------
    run : what a training gave
    prepared : its rows, as `layerwise.prepare.prepare` dealt them out
    """
    subject = Subject(run, prepared)
    parts = (verdict, table, network, curves, layers, predictions, needed, slices, again)
    sections = [section for part in parts if (section := part(subject)).blocks]
    return render(f"{subject.target.name}: {subject.target.task}", sections)


def render(title: str, sections: list[Section]) -> str:
    """Any sections as one page."""
    made = datetime.now(UTC).date().isoformat()
    return _template().render(title=title, sections=sections, version=__version__, made=made)


def write(run: Run, prepared: Prepared, path: Path) -> Path:
    """Write the report, whole or not at all."""
    storage.write_whole(path, page(run, prepared))
    return path


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("layerwise.report"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["svg"] = Markup  # our own elements, whose texts are escaped where made
    return environment.get_template("report.html.jinja")
