"""What a section of the report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A sentence or several; ``soft`` for what explains rather than tells."""

    text: str
    soft: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first ``left`` columns are words, the others figures.

    ``best`` is the row that stands out, ``shades`` a number from 0 to 1 for each cell after the
    first column, ``folded`` whether it waits behind its caption.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    caption: str = ""
    best: int | None = None
    shades: Sequence[Sequence[float]] | None = None
    folded: bool = False
    kind: str = "grid"


@dataclass(frozen=True)
class Figure:
    """An ``<svg>`` and a sentence below it; ``data`` is what it shows, as a table to unfold."""

    svg: str
    caption: str
    data: Grid | None = None
    kind: str = "figure"


@dataclass(frozen=True)
class Row:
    """Figures side by side where there is room."""

    figures: Sequence[Figure]
    kind: str = "row"


@dataclass(frozen=True)
class Columns:
    """The table's columns: name, role, reason, gaps, the shape of the values, and odd cells."""

    columns: Sequence[dict[str, Any]]
    kind: str = "columns"


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    code: str
    kind: str = "code"


@dataclass(frozen=True)
class Findings:
    """What the doctor found, as plain values of its findings."""

    findings: Sequence[dict[str, Any]]
    kind: str = "findings"


Block = Text | Grid | Figure | Row | Columns | Code | Findings


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; without blocks it is left out."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
