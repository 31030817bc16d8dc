"""Work that a second process does comes out as if it were done here."""

from __future__ import annotations

import json
import math
import operator
import os
import subprocess
import sys

import pytest

from layerwise import beside
from layerwise.beside import Beside


@pytest.fixture
def no_sklearn(monkeypatch):
    """As in a process that has not imported scikit-learn, where a second one is worth it."""
    monkeypatch.setattr(beside.sys, "modules", {"sys": sys})


def test_answers_come_from_another_process_in_order(no_sklearn):
    with Beside() as other:
        pid, root = other.ask(os.getpid), other.ask(math.sqrt, 16.0)
        assert pid() != os.getpid()
        assert root() == 4.0


def test_an_error_there_is_raised_here(no_sklearn):
    with Beside() as other:
        answer = other.ask(operator.truediv, 1, 0)
        with pytest.raises(ZeroDivisionError):
            answer()
        assert other.ask(max, 1, 2)() == 2


def test_the_work_is_done_here_where_no_other_process_is_to_be_had(no_sklearn, monkeypatch):
    with Beside() as other:
        answer = other.ask(os.getpid)
        other.end()
        assert answer() == os.getpid()
    monkeypatch.setattr(beside.sys, "executable", "/nowhere/python")
    with Beside() as other:
        assert other.ask(os.getpid)() == os.getpid()


def test_a_process_that_dies_is_no_harm(no_sklearn):
    with Beside() as other:
        answer = other.ask(os._exit, 3)
        process = other._process
        process.wait(timeout=20)
        later = other.ask(os.getpid)
        assert later() == os.getpid()
        assert answer is not None


def test_nothing_is_left_running(no_sklearn):
    with Beside() as other:
        process = other._process
    assert process.poll() is not None


def test_where_scikit_learn_is_imported_there_is_nothing_to_save():
    import sklearn  # noqa: F401

    with Beside() as other:
        assert other._process is None
        assert other.ask(os.getpid)() == os.getpid()


def test_the_baselines_are_the_same_from_either_process(tmp_path):
    program = """
import sys, json
{first}
import layerwise as lw
rows = 120
table = {{"a": [i % 7 for i in range(rows)], "b": [str(i % 3) for i in range(rows)],
         "y": [float(i % 7) + i % 3 for i in range(rows)]}}
run = lw.train(table, "y", epochs=2, hidden_layer_sizes=(4,))
print(json.dumps([run.metrics, run.baselines, "sklearn" in sys.modules]))
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program.format(first=first)],
            capture_output=True, text=True, check=True,
        ).stdout
        for first in ("", "import sklearn")
    ]  # fmt: skip
    there, here = map(json.loads, outputs)
    assert there[:2] == here[:2]
    assert (there[2], here[2]) == (False, True)
