"""The guide is true: its code runs, prints what it shows, and its pictures and links are there.

How a chapter is written, for all who write one:

- Every ```` ```python ```` block runs, in order, in one namespace per chapter, in an empty folder
  that has to be empty again at the end.
- A ```` ```text ```` block right after it (blank lines between at most) is what it prints, stdout
  and stderr together. What prints needs one; a text block without code is an error.
- ```` ```python raises=RuntimeError ```` has to fail; the text ends with ``RuntimeError: message``
  as Python writes it. ```` ```python warns=UserWarning ```` has to warn; its warnings are lines
  ``UserWarning: message`` in the text. Anywhere else a warning is an error.
- ``…`` in a text block stands for anything within the line; a line that is only ``…`` stands for
  any number of lines. For timings, versions, paths and long messages.
- Numbers may differ a little between machines: `close` is the rule.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
import torch

GUIDE = Path(__file__).parent.parent / "docs" / "guide"
CHAPTERS = sorted(GUIDE.glob("[0-9][0-9]-*.md"))
PAGES = [GUIDE / "README.md", *CHAPTERS]
SECONDS = 10.0  # of CPU time for a chapter; meant to stay below 5, imports not counted
LARGEST_PICTURE = 80_000  # bytes

# A fence may be indented, as in a list: then its lines are too.
FENCE = re.compile(r"^( *)```(?P<kind>[^\n]*)\n(?P<body>.*?)^\1```[ \t]*$", re.M | re.S)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


# ------------------------------------------------------------------ reading a chapter


@dataclass(frozen=True)
class Block:
    """A ``python`` block, its line in the file, its option, and the text block after it."""

    code: str
    line: int
    raises: str | None = None
    warns: str | None = None
    expected: str | None = None


def blocks_of(text: str) -> list[Block]:
    """The code of a chapter, each block with the text it should print."""
    fences = list(FENCE.finditer(text))
    blocks, used = [], set()
    for i, fence in enumerate(fences):
        language, *options = fence["kind"].split() or [""]
        if language != "python":
            continue
        line = text.count("\n", 0, fence.start("body"))
        given = dict(option.partition("=")[::2] for option in options)
        assert given.keys() <= {"raises", "warns"}, f"line {line}: unknown option {options}"
        following = fences[i + 1] if i + 1 < len(fences) else None
        expected = None
        if following and following["kind"].strip() == "text":
            between = text[fence.end() : following.start()]
            if not between.strip():
                expected = dedent(following["body"])
                used.add(i + 1)
        code = dedent(fence["body"])
        blocks.append(Block(code, line, given.get("raises"), given.get("warns"), expected))
    for i, fence in enumerate(fences):
        line = text.count("\n", 0, fence.start())
        assert fence["kind"].strip() != "text" or i in used, (
            f"line {line + 1}: a text block with no python block right before it"
        )
    return blocks


# ------------------------------------------------------------------ running it


def run(block: Block, names: dict[str, object], path: str) -> str:
    """Run one block and give what it printed, its error and warnings included."""
    code = "\n" * block.line + block.code  # so that a traceback names the chapter's own line
    out = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(out))
        stack.enter_context(warnings.catch_warnings())
        warned = _show_warnings(out) if block.warns else []
        if not block.warns:
            warnings.simplefilter("error")
        try:
            exec(compile(code, path, "exec"), names)
        except Exception as error:
            if type(error).__name__ != block.raises:
                raise
            out.write("".join(traceback.format_exception_only(error)))
        else:
            assert not block.raises, f"line {block.line + 1}: {block.raises} was not raised"
    if block.warns:
        assert block.warns in warned, f"line {block.line + 1}: {block.warns} was not warned of"
    return out.getvalue()


def _show_warnings(out: io.StringIO) -> list[str]:
    names: list[str] = []

    def show(message, category, *_rest):
        names.append(category.__name__)
        out.write(f"{category.__name__}: {message}\n")

    warnings.simplefilter("always")
    warnings.showwarning = show
    return names


# ------------------------------------------------------------------ comparing what it printed


def close(shown: str, found: str) -> bool:
    """The one rule for numbers.

    A whole number (``12``, ``2.``) has to be met exactly. A number with decimals or an exponent
    may be off by 1 %, or by one unit in the last digit shown, whichever is more.
    """
    difference = abs(float(found) - float(shown))
    digits, _, exponent = shown.lower().partition("e")
    decimals = len(digits.partition(".")[2])
    if not decimals and not exponent:
        return difference == 0
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return difference <= max(0.01 * abs(float(shown)), 1.000001 * unit)


def line_matches(shown: str, found: str) -> bool:
    """Whether a printed line is the one shown: words exactly, spaces in any number."""
    shown, found = _spaced(shown), _spaced(found)
    parts = re.split(f"({NUMBER}|…)", shown)
    pattern = "".join(
        ".*?" if part == "…" else f"({NUMBER})" if i % 2 else re.escape(part)
        for i, part in enumerate(parts)
    )
    met = re.fullmatch(pattern, found)
    numbers = [part for part in parts[1::2] if part != "…"]
    return met is not None and all(close(a, b) for a, b in zip(numbers, met.groups()))


def _spaced(line: str) -> str:
    """One space for many, and none after a bracket, where the place of a sign may be empty."""
    return re.sub(r"\[ ", "[", " ".join(line.split()))


def first_difference(shown: str, found: str) -> str | None:
    """Where printed text leaves the text shown, in words; None where it does not."""
    wanted, printed = shown.rstrip().split("\n"), found.rstrip().split("\n")
    if _lines_match(wanted, printed):
        return None
    pairs = [*zip(wanted, printed)]
    at = next((i for i, (a, b) in enumerate(pairs) if not line_matches(a, b)), len(pairs))
    return (
        f"line {at + 1} of the output: shown {(wanted[at : at + 1] or ['nothing'])[0]!r}, "
        f"printed {(printed[at : at + 1] or ['nothing'])[0]!r}\nall that was printed:\n{found}"
    )


def _lines_match(shown: list[str], found: list[str]) -> bool:
    if not shown:
        return not found
    if shown[0].strip() == "…":
        return any(_lines_match(shown[1:], found[i:]) for i in range(len(found) + 1))
    return bool(found) and line_matches(shown[0], found[0]) and _lines_match(shown[1:], found[1:])


# ------------------------------------------------------------------ the chapters


@pytest.fixture
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run in; torch as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_prints_what_it_shows(chapter, clean_folder):
    for name in ("layerwise.estimators", "sklearn.datasets", "sklearn.model_selection"):
        importlib.import_module(name)  # what imports take is not the chapter's
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports much more

    blocks = blocks_of(chapter.read_text())
    assert blocks, "a chapter without code"
    names: dict[str, object] = {"__name__": "__main__"}
    began = time.process_time()
    for block in blocks:
        where = f"{chapter.name}, block at line {block.line}"
        printed = run(block, names, str(chapter))
        if block.expected is None:
            assert not printed, f"{where} prints, and no text block shows it:\n{printed}"
        else:
            difference = first_difference(block.expected, printed)
            assert difference is None, f"{where}: {difference}"
    took = time.process_time() - began
    left = sorted(path.name for path in clean_folder.iterdir())
    assert not left, f"{chapter.name} leaves files behind: {left}"
    assert took < SECONDS, f"{chapter.name} takes {took:.1f} s"


def test_every_chapter_has_its_number_and_leads_to_the_next():
    contents = (GUIDE / "README.md").read_text()
    assert [int(path.name[:2]) for path in CHAPTERS] == [*range(1, len(CHAPTERS) + 1)]
    for i, chapter in enumerate(CHAPTERS):
        text = chapter.read_text()
        assert text.startswith(f"# {i + 1}. "), chapter.name
        assert f"]({chapter.name})" in contents, f"the contents do not name {chapter.name}"
        assert "<details>" in text, f"{chapter.name} has no exercises with answers"
        if i + 1 < len(CHAPTERS):
            last = text.rstrip().rpartition("\n")[2]
            assert f"]({CHAPTERS[i + 1].name})" in last, f"{chapter.name} does not end in a link on"


# ------------------------------------------------------------------ links and pictures


def links(page: Path) -> list[tuple[bool, str]]:
    """Each link outside of code, and whether it is a picture."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    return [(bool(mark), target) for mark, target in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


PICTURES = sorted({target for page in PAGES if page.exists() for p, target in links(page) if p})


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_link_of_the_guide_leads_somewhere(page):
    for _, target in links(page):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(to), f"{page.name}: no heading for {target}"


def test_every_picture_is_small_well_formed_and_shown_somewhere():
    for target in PICTURES:
        assert re.fullmatch(r"pictures/[a-z0-9-]+\.svg", target), target
        drawing = (GUIDE / target).read_bytes()
        assert len(drawing) < LARGEST_PICTURE, f"{target}: {len(drawing):,} bytes"
        assert ElementTree.fromstring(drawing).tag.endswith("svg"), target
    drawn = {f"pictures/{path.name}" for path in (GUIDE / "pictures").iterdir()}
    assert drawn == set(PICTURES), f"shown in no chapter: {sorted(drawn - set(PICTURES))}"


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Path], Path]]:
    """The guide's own drawing script."""
    monkeypatch.syspath_prepend(str(GUIDE))
    before = set(sys.modules)
    from draw import draw as function

    with torch.random.fork_rng(devices=[]):
        yield function
    for name in set(sys.modules) - before:
        if name == "style" or name.startswith("draw"):
            del sys.modules[name]


@pytest.mark.parametrize("target", PICTURES, ids=lambda target: Path(target).stem)
def test_the_script_still_draws_every_picture(target, draw, tmp_path):
    again = draw(Path(target).stem, tmp_path)
    first, second = ElementTree.parse(again).getroot(), ElementTree.parse(GUIDE / target).getroot()
    assert first.get("viewBox") == second.get("viewBox"), "drawn anew it has another size"


# ------------------------------------------------------------------ the checks themselves


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("loss 0.4462", "loss 0.4500", True),  # within 1 %
        ("loss 0.4462", "loss 0.4600", False),
        ("loss 0.03", "loss 0.04", True),  # one unit of the last digit
        ("loss 0.03", "loss 0.05", False),
        ("loss 1e-08", "loss 2e-08", True),
        ("loss 1e-08", "loss 1e-07", False),
        ("torch.Size([3, 4])", "torch.Size([3, 5])", False),  # whole numbers are exact
        ("tensor([1., 2.])", "tensor([1., 3.])", False),
        ("tensor([ 0.5000, -2.1000])", "tensor([0.5001, -2.1000])", True),
        ("epoch 12  0.3 s", "epoch 12   0.3 s", True),  # spaces in any number, but some
        ("took … s", "took 0.731 s", True),
        ("took … s", "took 0.731 ms", False),
        ("a word", "another word", False),
    ],
)
def test_lines_are_compared_by_words_exactly_and_numbers_nearly(shown, found, same):
    assert line_matches(shown, found) is same


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a\n", "a\nb\n", False),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("a\n…\nz\n", "a\nb\nc\n", False),
        ("…\n", "", True),
    ],
)
def test_texts_are_compared_line_by_line(shown, found, same):
    assert (first_difference(shown, found) is None) is same


def test_blocks_know_their_options_and_their_text():
    one, two, three = blocks_of(
        "# 1. T\n\n```python\nx = 1\n```\n\nwords\n\n```python raises=ValueError\nint('a')\n```\n\n"
        "```text\nValueError: …\n```\n\n```python warns=UserWarning\npass\n```\n"
    )
    assert (one.code, one.line, one.expected) == ("x = 1\n", 3, None)
    assert (two.raises, two.expected) == ("ValueError", "ValueError: …\n")
    assert (three.warns, three.expected) == ("UserWarning", None)
    with pytest.raises(AssertionError, match="line 1: a text block"):
        blocks_of("```text\nalone\n```\n")
    with pytest.raises(AssertionError, match="unknown option"):
        blocks_of("```python skip\n```\n")
    (inside,) = blocks_of(
        "1. In a list:\n\n   ```python\n   x = 1\n   ```\n\n   ```text\n   a\n   ```\n"
    )
    assert (inside.code, inside.line, inside.expected) == ("x = 1\n", 3, "a\n")


def test_errors_and_warnings_have_to_come_where_they_are_promised():
    failing = Block("print(1)\nint('a')\n", 0, raises="ValueError")
    assert run(failing, {}, "x").splitlines()[0] == "1"
    assert "ValueError: invalid literal" in run(failing, {}, "x")
    with pytest.raises(AssertionError, match="was not raised"):
        run(Block("x = 1\n", 0, raises="ValueError"), {}, "x")
    with pytest.raises(ZeroDivisionError):
        run(Block("1 / 0\n", 0, raises="ValueError"), {}, "x")
    warning = "import warnings\nwarnings.warn('mind')\n"
    assert run(Block(warning, 0, warns="UserWarning"), {}, "x") == "UserWarning: mind\n"
    with pytest.raises(AssertionError, match="was not warned"):
        run(Block("x = 1\n", 0, warns="UserWarning"), {}, "x")
    with pytest.raises(UserWarning):
        run(Block(warning, 0), {}, "x")
