"""What the docs say is true: examples run, commands and settings are described."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import typer

import layerwise
from layerwise.cli import app

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    one.name
    for one in pkgutil.walk_packages(layerwise.__path__, "layerwise.")
    if not one.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["layerwise", *MODULES])
def test_every_example_in_a_docstring_runs(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert not failed


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "diabetes.layerwise").exists()


def test_every_command_is_in_the_docs_and_every_flag_has_a_help_text():
    text = (ROOT / "docs" / "commands.md").read_text()
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        assert f"## layerwise {name} " in text, f"docs/commands.md does not describe {name}"
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def test_every_link_in_the_docs_leads_to_a_file():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_public_name_is_there_and_documented():
    for name in layerwise.__all__:
        value = getattr(layerwise, name)
        assert value is not None
        if name != "__version__":
            assert value.__doc__, name


def test_no_placeholder_is_left_in_the_docs():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        left = re.findall(r"^[A-Z_]{4,}$|\b(?:TODO|FIXME|XXX)\b", page.read_text(), re.M)
        assert not left, f"{page.name}: {left}"
