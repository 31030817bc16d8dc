"""What the docs say is true: examples run, commands and settings are described."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

import layerwise
from layerwise.cli import app
from layerwise.diagnosis import finding, rules, translate

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


def _rules_of_the_page() -> dict[str, tuple[set[str], list[str]]]:
    """The rules in docs/doctor.md, in their order: stages and severities."""
    rows = re.findall(
        r"^\| `([a-z-]+)` \| ([a-z_, ]+) \| ([a-z, ]+) \| [^|]+ \| [^|]+ \|$",
        (ROOT / "docs" / "doctor.md").read_text(),
        re.M,
    )
    return {name: (set(stages.split(", ")), grave.split(", ")) for name, stages, grave in rows}


def test_every_rule_of_the_doctor_is_in_its_table_with_its_stages():
    page = _rules_of_the_page()
    assert [*page] == [*finding.RULES]  # in the order of urgency
    registered = {name: set() for name in finding.RULES}
    for stage in finding.STAGES:
        for rule in rules.rules_of(stage):
            registered[rule.name].add(stage)
    for home in translate._HOMES:
        read = importlib.import_module(f"layerwise.diagnosis.{home}")
        for one in re.findall(r'rule="([a-z-]+)"', inspect.getsource(read)):
            registered[one].add("raised")
    for name, _, _ in translate._READINGS:
        registered[name].add("raised")
    assert {name: stages for name, (stages, _) in page.items()} == registered


def test_the_severities_of_the_rules_are_those_of_their_table():
    page = _rules_of_the_page()
    for name, (_, severities) in page.items():
        assert severities == [one for one in finding.SEVERITIES if one in severities], name
    torch.manual_seed(0)
    X, y = torch.randn(64, 4) * torch.tensor([1.0, 1.0, 1e4, 0.0]), torch.arange(64) % 3
    sick = nn.Sequential(
        nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1)
    )
    found = layerwise.doctor(
        sick, nn.CrossEntropyLoss(), torch.optim.SGD([*sick[0].parameters()]), X, y
    )
    found += layerwise.doctor(sick, nn.MSELoss(reduction="sum"), None, X, y, batch_size=1000)
    found += layerwise.doctor(nn.Linear(5, 1), nn.MSELoss(), None, X, y.float())
    assert len({one.rule for one in found}) > 6
    for one in found:
        assert one.severity in page[one.rule][1], one


def test_the_rule_of_ones_own_finds_what_it_says(monkeypatch):
    monkeypatch.setattr(rules, "_REGISTERED", [*rules._REGISTERED])
    (code,) = re.findall(
        r"```python\n(from layerwise.diagnosis.*?)```",
        (ROOT / "docs" / "doctor.md").read_text(),
        re.S,
    )
    exec(compile(code, "docs/doctor.md", "exec"), {})
    X, y = torch.randn(61, 2), torch.randn(61, 1)
    assert "even-rows" in layerwise.doctor(nn.Linear(2, 1), "mse", None, X, y).rules


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert [one for one in typer.main.get_command(app).commands if f"`{one}`" not in text] == []


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
