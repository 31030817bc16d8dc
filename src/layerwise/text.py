"""Tables, sentences and figures as text for a terminal, and tables as HTML for a notebook."""

from __future__ import annotations

import html
import io
import shutil
import textwrap
from collections.abc import Sequence


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, gap: int = 3) -> str:
    """Aligned columns, the first ``left`` to the left; long cells wrap at the terminal's width."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    # rich puts one space between columns by itself
    table = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, gap - 2)
    )
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    file = io.StringIO()
    Console(file=file, width=width(), no_color=True, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def html_grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The same table for a notebook, which brings its own colours and lines."""

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ("left" if i < left else "right" for i in range(len(cells)))
        return "".join(
            f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def width() -> int:
    """How many columns the terminal has."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def wrapped(text: str) -> str:
    """A sentence at the terminal's width; words are kept whole."""
    return textwrap.fill(
        text, width(), break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )


def number(value: float) -> str:
    """A figure with four digits that matter.

    Examples
    --------
    >>> number(0.25), number(12.3456), number(-4567.8), number(0.00004)
    ('0.250', '12.35', '-4,568', '4.0e-05')
    """
    if abs(value) >= 1e9:
        return f"{value:.4g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:#.4g}"
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def count(n: int, thing: str) -> str:
    """How many of something.

    Examples
    --------
    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {thing}{'s' * (n != 1)}"
