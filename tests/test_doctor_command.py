"""`layerwise doctor`: a table before training, in words, as JSON, with an exit code and a mend."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def loans(tmp_path):
    """A table with a rare class and a column that is only known afterwards."""
    rng = np.random.default_rng(0)
    age, income = rng.normal(40, 12, 300), rng.lognormal(8, 1, 300)
    late = (age - 40) / 12 + rng.normal(size=300) > 2.2
    noted = 100 + 50 * late + rng.uniform(0, 9, 300)
    path = tmp_path / "loans.csv"
    lines = [
        f"{a:.1f},{i:.0f},{n:.1f},{'yes' if d else 'no'}"
        for a, i, n, d in zip(age, income, noted, late)
    ]
    path.write_text("\n".join(["age,income,noted,late", *lines]) + "\n")
    return path


def rules(result):
    return [one["rule"] for one in json.loads(result.out)["findings"]]


def test_a_table_is_judged_before_training_in_the_words_of_flags(command, loans):
    result = command("doctor", loans, "--target", "late")
    assert result.code == 0, "warnings alone do not fail"
    assert "target-leakage" in result.out
    assert "mend:    --drop noted" in result.out
    assert "of the rows are 'yes'" in result.out
    assert "mend:    --class-weight balanced" in result.out
    assert not (loans.parent / "runs").exists()


def test_fail_on_decides_on_the_exit_code(command, loans):
    asked = ("doctor", loans, "--target", "late", "--quiet", "--fail-on")
    assert command(*asked, "warning").code == 4
    assert command(*asked, "error").code == 0
    assert command(*asked, "never").code == 0
    assert command(*asked, "sometimes").code == 2


def test_what_has_been_mended_by_flags_is_not_found_again(command, loans):
    asked = ("doctor", loans, "--target", "late", "--json", "--quiet")
    assert rules(command(*asked)) == ["target-leakage", "class-imbalance"]
    assert rules(command(*asked, "--drop", "noted")) == ["class-imbalance"]
    mended = command(
        *asked, "--drop", "noted", "--class-weight", "balanced", "--fail-on", "warning"
    )
    assert rules(mended) == []
    assert mended.code == 0
    assert rules(command(*asked, "--drop", "noted", "--lr", "7")) == [
        "class-imbalance",
        "lr-too-high",
        "weight-decay-too-strong",
    ]


def test_fix_shows_what_the_mend_changes(command, loans):
    asked = ("doctor", loans, "--target", "late", "--drop", "noted", "--fix", "--epochs", "3")
    result = command(*asked, "--json", "--quiet")
    tried = json.loads(result.out)["fix"]
    assert tried["flag"] == "--class-weight balanced"
    assert tried["gone"] is True
    assert set(tried["before"]) == set(tried["after"])
    assert "without" in command(*asked, "--quiet").out


def test_a_sound_table_has_no_findings(command, loans):
    result = command("doctor", loans, "--target", "income", "--drop", "noted")
    assert result.out == "no findings: nothing here looks wrong\n"


def test_a_table_that_cannot_be_read_and_a_wrong_flag_are_told_as_ever(command, loans):
    assert command("doctor", "nowhere.csv", "--target", "late").code == 3
    assert command("doctor", loans, "--target", "tomorrow").code == 3
    assert command("doctor", loans, "--target", "late", "--lr", "fast").code == 2
