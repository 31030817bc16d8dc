"""The doctor's judge has a case for every rule, and sees a miss and a false alarm."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from layerwise.diagnosis.finding import RULES

FILE = Path(__file__).parents[1] / "benchmarks" / "doctor.py"


@pytest.fixture(scope="module")
def judge():
    path = [*sys.path]
    spec = importlib.util.spec_from_file_location("doctor_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_every_rule_has_a_faulty_case_and_there_are_many_healthy_ones(judge):
    sick = [case for case in judge.CASES if case.sick]
    assert {rule for case in sick for rule in case.rules} == set(RULES)
    assert len(sick) >= 60
    assert sum(not case.sick for case in judge.CASES) >= 40


def test_the_names_of_the_cases_differ(judge):
    names = [case.name for case in judge.CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["a_label_of_minus_one", "float64_classifier"])
def test_a_case_is_judged_by_what_doctor_and_watch_say(judge, name):
    case = next(case for case in judge.CASES if case.name == name)
    result = judge.judge(case)
    assert result["found"] == result["located"] == case.sick
    assert not result["spurious"]
    assert not result["broken"]


def test_a_miss_and_a_false_alarm_are_seen(judge):
    sick = next(case for case in judge.CASES if case.name == "labels_count_from_one")
    missed = judge.judge(judge.Case("another", sick.make, ("class-imbalance",)))
    assert not missed["found"]
    assert judge.judge(judge.Case("well", sick.make))["spurious"]
