"""The schema: what each column is and why, as a file that people edit, and enforced."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.data.files import read_table
from layerwise.data.frames import table_of
from layerwise.data.schema import (
    ColumnSchema,
    Schema,
    check_odd,
    enforce,
    infer_schema,
)
from layerwise.errors import DataError, SettingError

WORDS = [f"{a} {b}" for a in ("red", "old", "big", "wet", "new") for b in ("cat", "dog", "owl")]

COLUMNS = {
    "number": ([1.5, 2.5, None] * 10, "number", "numbers, 2 different; 10 of 30 are gaps"),
    "whole": ([3, 1, 4] * 10, "number", "whole numbers, 3 different"),
    "years": ([1990 + i for i in range(30)], "identifier", "counts the rows"),
    "customer_id": ([(i * 7919) % 10007 for i in range(30)], "identifier", "the name of a key"),
    "distinct": ([(i * 7919) % 10007 for i in range(30)], "number", "30 different"),
    "code": ([f"A{i}" for i in range(30)], "identifier", "30 texts, no two alike"),
    "town": (["Ulm", "Bonn", "Köln"] * 10, "category", "3 levels"),
    "few": (["x", None, None] * 10, "category", "1 levels; 20 of 30 are gaps"),
    "note": ([f"{w} was seen at the pond" for w in WORDS] * 2, "category", "15 levels"),
    "story": ([f"{i} owls were seen at the pond" for i in range(30)], "text", "free text: 30"),
    "street": ([f"s{i // 6 if i < 6 else i}" for i in range(30)], "text", "too many to learn"),
    "garden": ([True, None, False] * 10, "boolean", "true or false; 10 of 30 are gaps"),
    "sold": (["2020-01-01", "2021-05-06", None] * 10, "date", "from 2020-01-01 to 2021-05-06"),
    "same": ([7] * 30, "constant", "all 30 cells are '7'"),
    "same text": (["x"] * 30, "constant", "all 30 cells are 'x'"),
    "nothing": ([None] * 30, "constant", "every cell is a gap"),
    "same or gap": ([7, None, 7] * 10, "number", "1 different; 10 of 30 are gaps"),
    "huge": ([1e308, -1e308, *range(28)], "number", "30 different"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_column_has_a_role_and_says_why(name):
    cells, role, reason = COLUMNS[name]
    (column,) = infer_schema(table_of({name: cells}))
    assert column.role == role
    assert reason in column.reason


def test_numbers_that_have_to_stay_text_say_so():
    table = table_of({"big": [2**60, 2**60 + 1] * 5})
    assert "kept as text so that none is rounded" in infer_schema(table)["big"].reason


def test_roles_that_are_said_win():
    table = table_of({"zip": [1, 2], "price": [1.0, 2.0], "day": ["1/2/2020", "3/2/2020"]})
    schema = infer_schema(table, {"zip": "category", "price": "target", "day": "date:%d/%m/%Y"})
    assert [(c.role, c.format) for c in schema] == [
        ("category", None),
        ("target", None),
        ("date", "%d/%m/%Y"),
    ]
    assert schema["zip"].reason == "as you said"
    assert [c.name for c in schema.inputs] == ["zip", "day"]
    assert schema.role("target") == "price"
    assert schema.role("weight") is None
    assert schema.kinds() == {"zip": "text"}


@pytest.mark.parametrize(
    ("roles", "error", "says"),
    [
        ({"sise": "number"}, DataError, "no column 'sise'. Did you mean 'size'"),
        ({"size": "catgory"}, SettingError, "unknown role 'catgory'. Did you mean 'category'"),
        ({"size": "number:%d"}, SettingError, "only dates have a format, not 'number'"),
    ],
)
def test_roles_that_cannot_be_are_refused(roles, error, says):
    with pytest.raises(error, match=says):
        infer_schema(table_of({"size": [1, 2]}), roles)


def test_a_role_that_only_one_column_can_have():
    schema = Schema((ColumnSchema("a", "target"), ColumnSchema("b", "target")))
    with pytest.raises(DataError, match="'a' and 'b' all have the role 'target'"):
        schema.role("target")


# ---------------------------------------------------------------- as TOML and JSON

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
ODD = ['a "b"', "a.b", "[x]", "größe 😀", "a\nb", "a\\b", "\x7f", "\x00", "#", "'''", " ", "\u2028"]


def there_and_back(schema, folder, source=""):
    path = folder / "schema.toml"
    path.write_bytes(schema.to_toml(source).encode())
    return Schema.from_toml(path)


@given(st.lists(NAMES, min_size=1, unique=True), st.lists(NAMES), NAMES)
@settings(max_examples=60, deadline=None)
def test_any_column_name_survives_toml_and_json(tmp_path_factory, names, missing, reason):
    columns = tuple(ColumnSchema(name, "number", reason) for name in names)
    schema = Schema(columns, tuple(missing))
    found = there_and_back(schema, tmp_path_factory.mktemp("s"), source=reason)
    assert (found.names, found.missing) == (names, tuple(missing))
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_odd_names_roles_and_formats_survive_toml(tmp_path):
    columns = tuple(ColumnSchema(name, "date", f"why {name}", f"%d{name}") for name in ODD)
    found = there_and_back(Schema(columns), tmp_path, source="a\nb.csv")
    assert [(c.name, c.role, c.format) for c in found] == [(n, "date", f"%d{n}") for n in ODD]
    assert {c.reason for c in found} == {"from schema.toml"}


def test_the_toml_is_plain_and_gives_the_reasons():
    table = table_of({"size": [1.5, 2.5], "town": ["Ulm", "Bonn"]})
    text = infer_schema(table, missing=["?"]).to_toml("houses.csv")
    assert tomllib.loads(text) == {
        "missing": ["?"],
        "columns": {"size": {"role": "number"}, "town": {"role": "category"}},
    }
    assert '[columns."town"]  # 2 levels' in text
    assert "read from houses.csv" in text


def test_a_schema_saved_by_an_editor_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "schema.toml"
    path.write_text('[columns.a]\nrole = "number"\n', "utf-8-sig")
    assert Schema.from_toml(path)["a"].role == "number"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no columns; write one with: layerwise schema"),
        ("a = [", "is no TOML"),
        ("colums = 1", "unknown key 'colums'. Did you mean 'columns'"),
        ("columns = 1", "names no columns"),
        ('missing = "NA"\n[columns.a]\nrole = "number"', "missing has to be a list of words"),
        ("missing = [1]\n", "missing has to be a list of words"),
        ("[columns.a]\n", "column 'a': there is no role"),
        ("[columns]\na = 1", "column 'a': there is no role"),
        ('[columns.a]\nrol = "number"', "column 'a': unknown key 'rol'. Did you mean 'role'"),
        ('[columns.a]\nrole = "numbr"', "unknown role 'numbr'. Did you mean 'number'"),
        ("[columns.a]\nrole = 1", "unknown role 1"),
        ('[columns.a]\nrole = "date"\nformat = 1', "a format is text such as"),
        ('[columns.a]\nrole = "number"\nformat = "%d"', "only for dates"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_was_meant(tmp_path, text, says):
    path = tmp_path / "schema.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=says) as error:
        Schema.from_toml(path)
    assert "schema.toml" in str(error.value)


def test_a_schema_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Schema.from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no TOML"):
        Schema.from_toml(tmp_path / "bad.toml")


# ---------------------------------------------------------------- decided by people, enforced


def test_a_column_of_nearly_all_numbers_has_to_be_decided_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("age,x\n" + "1,1\n2,1\n" * 500 + "n.a.,1\n")
    table = read_table("t.csv")
    with pytest.raises(DataError) as error:
        check_odd(table, infer_schema(table))
    message = str(error.value)
    assert message.startswith("t.csv, column 'age': 99.9 % of the cells are numbers, 1 is not")
    assert "'n.a.' in row 1001" in message
    assert "--missing 'n.a.'" in message
    assert "--as age=category" in message
    check_odd(table, infer_schema(table, {"age": "category"}))
    check_odd(table, there_and_back(infer_schema(table), tmp_path))
    clean = read_table("t.csv", missing=["n.a."])
    check_odd(clean, infer_schema(clean))


def test_an_odd_cell_among_many_files_is_named_with_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p1.csv").write_text("a\n" + "1\n2\n" * 20)
    (tmp_path / "p2.csv").write_text("a\n1\n?\n")
    table = read_table("p*.csv")
    with pytest.raises(DataError, match=r"'\?' in p2\.csv row 2"):
        check_odd(table, infer_schema(table))


def test_columns_are_found_by_name_and_get_the_kind_of_their_role():
    first = table_of(
        {"n": [1.5, 2.0], "c": ["a", "b"], "b": [True, False], "d": ["2020-01-01"] * 2}
    )
    roles = {"n": "number", "c": "category", "b": "boolean", "d": "date"}
    schema = infer_schema(first, roles)
    later = table_of(
        {"extra": [1], "d": ["2021-01-01"], "b": [1], "c": [7], "n": ["3.5"]}, missing=()
    )
    found = enforce(later, schema, ["n", "c", "b", "d"])
    assert found.names == ["n", "c", "b", "d"]
    assert [c.kind for c in found.columns.values()] == ["number", "text", "boolean", "datetime"]
    assert found["c"].levels == ("7",)
    assert enforce(later, schema, ["n"]).names == ["n"]


@pytest.mark.parametrize(
    ("cells", "role", "says"),
    [
        (["1", "x"], "number", "the table row 2, column 'a': 'x' is not a number"),
        (["2020-01-01", "soon"], "date", "row 2, column 'a': 'soon' is not an ISO date"),
        (["1.2.2020", "2020"], "date:%d.%m.%Y", "'2020' is not a date of the form '%d.%m.%Y'"),
        (["true", "perhaps"], "boolean", "row 2, column 'a': 'perhaps' is not true or false"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(cells, role, says):
    table = table_of({"a": cells})
    with pytest.raises(DataError, match=says):
        enforce(table, infer_schema(table, {"a": role}), ["a"])


def test_a_row_that_was_taken_is_named_where_it_stood():
    table = table_of({"a": ["1", "2", "x"]})
    schema = infer_schema(table, {"a": "number"})
    with pytest.raises(DataError, match="row 3, column 'a'"):
        enforce(table.take(np.array([2])), schema, ["a"])


def test_a_column_that_is_gone_is_named():
    schema = infer_schema(table_of({"size": [1, 2], "town": ["a", "b"]}))
    with pytest.raises(DataError, match=r"no column 'size' \(and 1 more\). Did you mean 'sizes'"):
        enforce(table_of({"sizes": [1]}), schema, ["size", "town"])
    with pytest.raises(DataError, match=r"the schema has no column 'sizes'\. Did you"):
        schema["sizes"]


def test_dates_in_a_form_of_their_own():
    table = read_table(pd.DataFrame({"a": ["31/12/2020", None], "b": [20201231, 20210101]}))
    schema = infer_schema(table, {"a": "date:%d/%m/%Y", "b": "date:%Y%m%d"})
    found = enforce(table, schema, ["a", "b"])
    assert found["a"].values[0] == found["b"].values[0] == np.datetime64("2020-12-31")
    assert found["a"].missing.tolist() == [False, True]
