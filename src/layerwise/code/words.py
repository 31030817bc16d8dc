"""Values, calls and sentences as Python source, laid out as formatters would lay them out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100


def quoted(value: Any) -> str:
    """A value as Python writes it; text in double quotes, unless single ones need fewer escapes."""
    if not isinstance(value, str):
        return repr(value)
    body = repr("'\"" + value)[4:-1]  # with both kinds in it, repr takes single quotes
    if value.count('"') > value.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def listed(values: Iterable[Any]) -> list[str]:
    """The items of a list as source."""
    return [quoted(value) for value in values]


def entries(pairs: Mapping[str, str]) -> str:
    """A dict from texts to pieces of source, an entry a line."""
    return "{\n" + "".join(f"    {quoted(name)}: {one},\n" for name, one in pairs.items()) + "}"


def assign(name: str, value: str | Sequence[str], note: str = "", indent: int = 0) -> str:
    """An assignment of an expression or of a list of items; many items are packed into lines."""
    line = f"{name} = " + (value if isinstance(value, str) else f"[{', '.join(value)}]")
    beside = f"  # {note}" if note else ""
    if "\n" not in line and indent + len(line + beside) <= WIDTH:
        return line + beside
    above = [f"# {note[0].upper()}{note[1:]}:"] if note else []
    if isinstance(value, str) or indent + len(line) <= WIDTH:
        return "\n".join([*above, line])
    lines = [*above, f"{name} = ["]
    row = "   "
    for item in value:
        if len(row) > 3 and indent + len(row) + len(item) + 2 > WIDTH:
            lines, row = [*lines, row], "   "
        row += f" {item},"
    return "\n".join([*lines, row, "]  # fmt: skip"])


def call(
    function: str, arguments: Sequence[str], after: str = "", indent: int = 0, pad: int = 0
) -> str:
    """A call on one line, or with an argument a line; the others are indented by ``pad``."""
    line = f"{function}({', '.join(arguments)}){after}"
    if indent + len(line) <= WIDTH:
        return line
    inner = "".join(f"{' ' * pad}    {argument},\n" for argument in arguments)
    return f"{function}(\n{inner}{' ' * pad}){after}"


def plain(name: str) -> str:
    """A name for a docstring or a comment: nothing in it can end either."""
    kept = "".join(one if one.isprintable() else " " for one in name)
    return kept.replace("\\", "/").replace('"', "'")


def docstring(title: str, *parts: str) -> str:
    """What a script is: a title, paragraphs, and lines of code, which begin with spaces."""
    wrapped = [
        part if part.startswith(" ") else textwrap.fill(part, WIDTH, break_on_hyphens=False)
        for part in parts
    ]
    title = textwrap.shorten(title, WIDTH - 3, placeholder=" …")
    return '"""' + "\n\n".join([title, *wrapped]) + '\n"""'
