"""Answers as columns and files: formulas made harmless, numbers untouched, read back equal."""

from __future__ import annotations

import csv
import io
import json

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small
from layerwise.data.files import read_table
from layerwise.errors import SettingError
from layerwise.model.answers import answer_columns, as_csv, write_answers

COLUMNS = {
    "id": ["a", 'b "x", y', None],
    "prediction": [1.5, -2.25, 1e300],
    "n": [1, -2, 3],
    "yes": [True, False, True],
}


def _answers(target, probabilities=False, keep=()):
    model = small.model(target)
    table = model.read(small.rows(20), also=keep)
    return model, answer_columns(model, table, probabilities=probabilities, keep=keep)


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_the_predictions_are_the_models(target):
    model, columns = _answers(target)
    assert columns == {"prediction": model.predict(small.rows(20)).tolist()}


@pytest.mark.parametrize("target", ["sold", "band"])
def test_each_class_has_a_column_of_its_probability(target):
    model, columns = _answers(target, probabilities=True)
    classes = model.target.classes.tolist()
    assert list(columns) == ["prediction", *(f"probability {label}" for label in classes)]
    proba = np.column_stack([columns[f"probability {label}"] for label in classes])
    np.testing.assert_array_equal(proba, model.predict_proba(small.rows(20)))


def test_kept_columns_stand_first_as_they_were():
    _, columns = _answers("sold", keep=["town", "size"])
    assert list(columns) == ["town", "size", "prediction"]
    assert columns["town"] == small.rows(20)["town"]
    assert columns["size"][4] is None


def test_a_regression_has_no_probabilities():
    with pytest.raises(SettingError, match="answers with numbers"):
        _answers("price", probabilities=True)


def test_a_kept_column_does_not_vanish_under_an_answer():
    model = small.model()
    table = model.read({**small.rows(3), "prediction": ["x"] * 3}, also=["prediction"])
    with pytest.raises(SettingError, match="'prediction' has the name of an answer"):
        answer_columns(model, table, keep=["prediction"])


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
     "＝1", "＋1", "－x", "＠x"],
)  # fmt: skip
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(cell):
    text, changed = as_csv({"x": [cell], cell: ["y"]})
    assert changed == 2
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["x", "'" + cell], ["'" + cell, "y"]]


@pytest.mark.parametrize("cell", ["-2.5", "+3", "-1e-5", "a=b", "x-y", "", "1", "O'Neil", " =1"])
def test_numbers_and_plain_texts_are_left_alone(cell):
    text, changed = as_csv({"x": [cell, "y"]})
    assert changed == 0
    assert list(csv.reader(io.StringIO(text)))[1] == [cell]


def test_numbers_keep_every_digit():
    values = [0.1, 1 / 3, -1e-300, 12345678901234567.0, -0.0]
    text, _ = as_csv({"x": values})
    assert [float(line) for line in text.splitlines()[1:]] == values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_no_written_text_begins_as_a_formula_and_all_can_be_had_back(cells):
    text, changed = as_csv({"x": cells, "y": [0] * len(cells)})
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    found = [row[0] for row in rows]
    assert [
        one.removeprefix("'") if one != cell else one for one, cell in zip(found, cells)
    ] == cells
    assert changed == sum(one != cell for one, cell in zip(found, cells))
    for one in found:
        assert not one.startswith(("=", "@", "\t=", "\r", "\n"))


# ---------------------------------------------------------------- files


def test_csv_and_tsv_are_read_back_equal(tmp_path):
    for suffix in (".csv", ".tsv", ".txt"):
        path = tmp_path / f"answers{suffix}"
        assert write_answers(COLUMNS, path) == 0
        table = read_table(path)
        assert table.names == list(COLUMNS)
        assert table["id"].texts().tolist() == COLUMNS["id"]
        assert table["prediction"].values.tolist() == COLUMNS["prediction"]
        assert table["n"].values.tolist() == COLUMNS["n"]


def test_jsonl_is_read_back_equal(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_answers(COLUMNS, path)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert {name: [row[name] for row in rows] for name in COLUMNS} == COLUMNS


def test_parquet_is_read_back_equal_with_its_types(tmp_path):
    path = tmp_path / "it's.parquet"
    columns = {**COLUMNS, 'odd "name"': ["ä", "=1", "🙂"], "gaps": [None, None, None]}
    write_answers(columns, path)
    quoted = str(path).replace("'", "''")
    relation = duckdb.sql(f"select * from '{quoted}'")
    assert relation.columns == list(columns)
    assert relation.fetchall() == list(zip(*columns.values()))
    types = dict(zip(relation.columns, map(str, relation.types)))
    assert (types["prediction"], types["n"], types["yes"]) == ("DOUBLE", "BIGINT", "BOOLEAN")


def test_names_that_differ_in_case_only_stay_two_columns(tmp_path):
    path = tmp_path / "answers.csv"
    write_answers({"a": [1], "A": [2]}, path)
    assert path.read_text() == "a,A\n1,2\n"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_no_rows_are_written_as_no_rows(suffix, tmp_path):
    path = tmp_path / f"answers{suffix}"
    write_answers({"prediction": []}, path)
    if suffix == ".parquet":
        assert duckdb.sql(f"select * from '{path}'").fetchall() == []
    else:
        assert path.read_text() == ("prediction\n" if suffix == ".csv" else "")


def test_an_unknown_ending_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(SettingError, match=r"\.csv, \.tsv, \.jsonl or \.parquet"):
        write_answers(COLUMNS, tmp_path / "answers.xlsx")
    assert not list(tmp_path.iterdir())
