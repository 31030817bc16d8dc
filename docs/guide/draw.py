"""Draw the pictures of the guide: `python docs/guide/draw.py [NAME …]`, or `make guide`.

Each ``draw_*.py`` beside this file has a list ``PICTURES`` of functions without arguments. Each
gives a matplotlib ``Figure``, or the text of an SVG, that ends up in
``pictures/<name of the function, with - for _>.svg``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from style import RC, save

HERE = Path(__file__).parent


def pictures() -> dict[str, Callable[[], Figure | str]]:
    """Each picture's name and the function that draws it."""
    modules = [importlib.import_module(file.stem) for file in sorted(HERE.glob("draw_*.py"))]
    functions = [function for module in modules for function in module.PICTURES]
    return {function.__name__.replace("_", "-"): function for function in functions}


def draw(name: str, folder: Path = HERE / "pictures") -> Path:
    """Draw one picture into a folder."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small networks train faster so, and the same everywhere
    try:
        with mpl.rc_context(RC):
            return save(pictures()[name](), folder / f"{name}.svg")
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for name in sys.argv[1:] or pictures():
        path = draw(name)
        sys.stdout.write(f"{path.relative_to(HERE)}  {path.stat().st_size / 1000:.0f} kB\n")
