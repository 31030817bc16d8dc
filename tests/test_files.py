"""Files and SQL: nothing is guessed, rounded or lost, and bad files are named in one sentence."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.data.encoder import Encoder
from layerwise.data.files import read_table
from layerwise.data.schema import infer_schema
from layerwise.data.sql import read_sql
from layerwise.data.table import text_column
from layerwise.errors import DataError, SettingError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test in a folder of its own, so that messages name files without a path."""
    monkeypatch.chdir(tmp_path)


def write(name, text, encoding="utf-8"):
    data = text if isinstance(text, bytes) else text.encode(encoding)
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


def cells(column):
    if column.kind == "text":
        return column.texts().tolist()
    values = column.values.astype(bool) if column.kind == "boolean" else column.values
    return [None if gap else value for value, gap in zip(values.tolist(), column.missing)]


def contents(table):
    return {name: cells(column) for name, column in table.columns.items()}


# ---------------------------------------------------------------- the same table from everywhere

FRAME = pd.DataFrame(
    {
        "size": [1.5, None, 3.0, -2e-7, 1e300],
        "rooms": pd.array([3, 4, None, 0, 12], dtype="Int64"),
        "town, in Bavaria": ["Ulm", 'say "hi"', None, "Köln\nam Rhein", " Bonn "],
        "zip": ["00123", "81541", "01067", None, "50667"],
        "garden": pd.array([True, None, False, False, True], dtype="boolean"),
        "sold": pd.to_datetime(["2020-01-01", "2021-05-06", None, "1969-12-31", "2020-02-29"]),
        "seen": pd.to_datetime(
            ["2020-01-01 10:00", None, "2020-01-01", "2020-01-01 00:00:00.000001", "2021-01-01"],
            format="ISO8601",
        ),
        "nothing": [None] * 5,
        "big": ["9007199254740993", "1", "2", "3", None],
    }
)


def as_json_lines(frame):
    rows = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    for row, exact in zip(rows, frame["size"]):  # pandas writes ten digits
        row["size"] = None if np.isnan(exact) else exact
    return "".join(json.dumps(row) + "\n" for row in rows)


def sources():
    """The same table, written in every form."""
    text = FRAME.to_csv(index=False)
    yield "csv", lambda: read_table(write("t.csv", text))
    yield "csv.gz", lambda: read_table(write("t.csv.gz", text))
    yield "path", lambda: read_table(Path(write("t.csv", text)).absolute())
    yield "utf-16", lambda: read_table(write("t.csv", text, "utf-16"), encoding="utf-16")
    yield "bom", lambda: read_table(write("t.csv", text, "utf-8-sig"))
    yield "semicolon", lambda: read_table(write("t.csv", FRAME.to_csv(index=False, sep=";")))
    yield "pipe", lambda: read_table(write("t.psv", FRAME.to_csv(index=False, sep="|")))
    yield "tsv", lambda: read_table(write("t.tsv", FRAME.to_csv(index=False, sep="\t")))
    yield "tsv.gz", lambda: read_table(write("t.tsv.gz", FRAME.to_csv(index=False, sep="\t")))
    crlf = FRAME.to_csv(index=False, lineterminator="\r\n")
    yield "crlf", lambda: read_table(write("t.csv", crlf))
    yield "jsonl", lambda: read_table(write("t.jsonl", as_json_lines(FRAME)))
    yield "jsonl.gz", lambda: read_table(write("t.ndjson.gz", as_json_lines(FRAME)))
    array = "[" + ",\n".join(as_json_lines(FRAME).splitlines()) + "]"
    yield "json", lambda: read_table(write("t.json", array))

    def parquet(name="t.parquet"):
        buffer = io.BytesIO()
        FRAME.to_parquet(buffer)
        return write(name, buffer.getvalue())

    yield "parquet", lambda: read_table(parquet())
    yield "parquet.gz", lambda: read_table(parquet("t.parquet.gz"))
    yield "sql of csv", lambda: read_sql(f"SELECT * FROM '{write('t.csv', text)}'")
    yield "sql of gz", lambda: read_sql(f"FROM '{write('t.csv.gz', text)}'")
    yield "sql of parquet", lambda: read_sql(f"FROM '{parquet()}'")
    yield "sql of json", lambda: read_sql(f'FROM "{write("t.jsonl", as_json_lines(FRAME))}"')
    yield "pandas", lambda: read_table(FRAME)
    yield "polars", lambda: read_table(pl.from_pandas(FRAME))
    yield "pyarrow", lambda: read_table(pa.Table.from_pandas(FRAME))
    yield "dict", lambda: read_table({name: FRAME[name] for name in FRAME})
    yield "lists", lambda: read_table({name: FRAME[name].tolist() for name in FRAME})


@pytest.mark.parametrize(("name", "read"), list(sources()), ids=[name for name, _ in sources()])
def test_the_same_table_is_the_same_from_every_kind_of_source(name, read):
    reference = read_table(FRAME)
    table = read()
    assert table.names == list(FRAME.columns)
    assert contents(table) == contents(reference)
    assert table.fingerprint() == reference.fingerprint()
    roles = {"zip": "category", "town, in Bavaria": "category"}
    schema = infer_schema(table, roles)
    assert [c.role for c in schema] == [c.role for c in infer_schema(reference, roles)]
    np.testing.assert_array_equal(
        Encoder.fit(table, schema).transform(table),
        Encoder.fit(reference, schema).transform(reference),
    )


def test_reading_agrees_with_pandas():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500)})
    frame["w"] = rng.integers(-(2**53) + 1, 2**53, 500)
    write("t.csv", frame.to_csv(index=False))
    reference = pd.read_csv("t.csv", dtype=str)  # its own parser is off by an ulp at times
    table = read_table("t.csv")
    for name in frame:
        np.testing.assert_array_equal(table[name].values, reference[name].map(float))


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=20, deadline=None)
def test_any_text_comes_back_from_csv_as_it_was(rows, delimiter, line_end):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("first", "second"), *rows])
    kinds = {"first": "text", "second": "text"}
    table = read_table(write("t.csv", buffer.getvalue()), kinds=kinds, missing=["NA"])
    for name, written in zip(kinds, zip(*rows)):
        for found, cell in zip(cells(table[name]), written):
            assert found == cell or (found is None and cell.strip() in ("", "NA"))


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "a": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "A": st.none() | st.booleans(),
                'q"~/.*$': st.none() | WORD,
            },
        ),
        min_size=1,
        max_size=6,
    ).filter(lambda rows: any(rows))
)
@settings(max_examples=15, deadline=None)
def test_json_lines_read_as_python_reads_them(rows):
    path = write("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = read_table(path, kinds={'q"~/.*$': "text"}, missing=[])
    for name in table.names:
        assert cells(table[name]) == [row.get(name) for row in rows]


# ---------------------------------------------------------------- types over the whole file


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        ("1", "12.7", "number"),
        ("1", "1e-3", "number"),
        ("2020-01-01", "2020-01-02 10:30:00", "datetime"),
        ("1", "007", "text"),
        ("1", "9007199254740993", "text"),
        ("true", "maybe", "text"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "sql"])
def test_the_last_of_thirty_thousand_rows_counts_like_the_first(form, first, last, kind):
    if form == "jsonl":
        plain = kind == "number" or last == "9007199254740993"
        quoted = [cell if plain else json.dumps(cell) for cell in (first, last)]
        rows = [f'{{"a":{cell}}}\n' for cell in quoted]
        if last == "007":
            pytest.skip("JSON has no such number")
        table = read_table(write("t.jsonl", rows[0] * 30000 + rows[1]))
    else:
        path = write("t.csv", "a\n" + f"{first}\n" * 30000 + f"{last}\n")
        table = read_table(path) if form == "csv" else read_sql(f"SELECT * FROM '{path}'")
    column = table["a"]
    assert column.kind == kind
    expected = {
        "number": last,
        "text": last,
        "datetime": "2020-01-02T10:30:00",
    }[kind]
    assert column.texts()[-1] == str(float(expected) if kind == "number" else expected)


@pytest.mark.parametrize("number", ["+5", "1.", ".5", "-.5e-3", "1E5", "1e308", "5e-324", "1e-400"])
def test_every_way_to_write_a_number_reads_as_python_reads_it(number):
    table = read_table(write("t.csv", f"a,b\n{number},1\n7,\n"))
    assert cells(table["a"]) == [float(number), 7.0]


@pytest.mark.parametrize("word", ["1_000", "0x10", "1,5", "12%", "1 000", "١٢", "--5", "1e", "e5"])
def test_what_is_no_plain_number_stays_text(word):
    table = read_table(write("t.csv", f'a,b\n"{word}",1\n7,2\n'))
    assert cells(table["a"]) == [word, "7"]


def test_leading_zeros_and_big_whole_numbers_stay_text_and_say_so():
    table = read_table(write("t.csv", "zip,id,n\n01067,9007199254740993,0\n81541,12,-0\n"))
    assert cells(table["zip"]) == ["01067", "81541"]
    assert table["zip"].note == "numbers with leading zeros in 1 cell, kept as text"
    assert cells(table["id"]) == ["9007199254740993", "12"]
    assert "beyond 2^53" in table["id"].note
    assert table["n"].kind == "number"


@pytest.mark.parametrize(
    ("arrow", "written"),
    [
        (pa.array([2**53 + 1, 2]), [str(2**53 + 1), "2"]),
        (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1), None]),
        (pa.array([Decimal(10**18 + 1), None]), [str(10**18 + 1), None]),
        (pa.array([Decimal("1.25"), None]), [1.25, None]),
    ],
)
def test_parquet_numbers_are_not_rounded(arrow, written):
    pq.write_table(pa.table({"a": arrow}), "t.parquet")
    assert cells(read_table("t.parquet")["a"]) == written


def test_cells_that_keep_a_column_from_being_numbers_are_found_with_their_rows():
    path = write("t.csv", "a,b\n" + "1,x\n" * 97 + "?,x\n2,x\nunknown,x\n")
    odd = read_table(path)["a"].odd
    assert (odd.kind, odd.count, odd.share) == ("number", 2, 0.02)
    assert odd.examples == ((97, "?"), (99, "unknown"))
    table = read_table(path, missing=["?", "unknown"])
    assert table["a"].kind == "number"
    assert table["a"].missing.sum() == 2
    assert read_table(write("t.csv", "a\n" + "1\n" * 8 + "x\n"))["a"].odd is None  # one in nine
    one = read_table(write("t.csv", "a\n" + "1\n" * 20000 + "x\n"))["a"]
    assert (one.kind, one.odd.examples) == ("text", ((20000, "x"),))
    lines = '{"a":1}\n' * 20 + '{"a":"?"}\n'
    assert read_table(write("t.jsonl", lines))["a"].odd.examples == ((20, "?"),)


def test_missing_words_count_as_gaps_in_every_kind_of_column():
    text = "n,t,b,d\n1,a,true,2020-01-01\nNA,NULL,n/a, NaN \n,,,\n-9,-,-,-\n"
    table = read_table(write("t.csv", text), missing=["NA", "NULL", "n/a", "NaN", "-9", "-"])
    assert [c.kind for c in table.columns.values()] == ["number", "text", "boolean", "datetime"]
    for column in table.columns.values():
        assert column.missing.tolist() == [False, True, True, True]
    pq.write_table(pa.table({"n": [1, -9, 3]}), "t.parquet")
    for source in ("t.parquet", {"n": [1, -9, 3]}, pd.DataFrame({"n": [1.0, -9.0, 3.0]})):
        assert cells(read_table(source, missing=["-9"])["n"]) == [1.0, None, 3.0]
    assert cells(read_sql("SELECT -9 AS n", missing=["-9"])["n"]) == [None]


def test_kinds_that_were_asked_for_are_given_or_the_cell_is_named():
    path = write("t.csv", "a,b,c\n1,2020-01-01,1\n07,x,0\n")
    table = read_table(path, kinds={"a": "number", "c": "boolean"})
    assert contents(table) == {"a": [1.0, 7.0], "b": ["2020-01-01", "x"], "c": [True, False]}
    assert cells(read_table(path, kinds={"a": "text"})["a"]) == ["1", "07"]
    with pytest.raises(DataError, match=r"t\.csv row 2, column 'b': 'x' is not a number") as error:
        read_table(write("t.csv", "b\n1\nx\n"), kinds={"b": "number"})
    assert "--missing 'x'" in str(error.value)
    with pytest.raises(DataError, match=r"t\.csv row 2, column 'b': 'x' is not an ISO date"):
        read_table(write("t.csv", "b\n2020-01-01\nx\n"), kinds={"b": "datetime"})


# ---------------------------------------------------------------- the form of the text


def test_byte_order_mark_line_ends_quotes_and_names():
    expected = {"größe": [1.0, 2.0], " b c": ["x\ny", 'p, "q"']}
    text = 'größe, b c\n1,"x\ny"\n2,"p, ""q"""\n'
    assert contents(read_table(write("t.csv", text))) == expected
    assert contents(read_table(write("t.csv", text, "utf-8-sig"))) == expected
    excel = text.replace("\n", "\r\n").replace("x\r\ny", "x\ny")  # a line feed inside the cell
    assert contents(read_table(write("t.csv", excel))) == expected
    assert contents(read_table(write("t.csv", text.removesuffix("\n")))) == expected
    lines = 'a,b\n\n1,x\n\n2,"y"\n\n'  # blank lines are no rows where there are two columns
    assert contents(read_table(write("t.csv", lines))) == {"a": [1.0, 2.0], "b": ["x", "y"]}
    assert contents(read_table(write("t.csv", '"a\nb",c\n1,2\n'))) == {"a\nb": [1.0], "c": [2.0]}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.csv", "a;b\n1,5;2\n", {"a": ["1,5"], "b": [2.0]}),
        ("t.csv", '"a;b",c\n1,2\n', {"a;b": [1.0], "c": [2.0]}),
        ("t.csv", "a;b, c, d, e\n1;2\n", {"a": [1.0], "b, c, d, e": [2.0]}),
        ("t.csv", "a|b\n1|2\n", {"a": [1.0], "b": [2.0]}),
        ("t.tsv", "a, b, c\td\n1\t2\n", {"a, b, c": [1.0], "d": [2.0]}),
        ("t.tsv", "a,b\n1,2\n", {"a": [1.0], "b": [2.0]}),
        ("t.csv", "a\n1\n\n3\n", {"a": [1.0, None, 3.0]}),
        ("t.csv", "a,A\n1,2\n", {"a": [1.0], "A": [2.0]}),
        ("t.csv", "select,#,'\n1,2,3\n", {"select": [1.0], "#": [2.0], "'": [3.0]}),
    ],
)
def test_the_delimiter_is_found(name, text, expected):
    assert contents(read_table(write(name, text))) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso8859-15", "utf-16-le", "shift_jis"])
def test_any_encoding_that_python_knows(encoding):
    word = "日本" if encoding == "shift_jis" else "Köln, Straße"
    path = write("t.csv", f'a,b\n1,"{word}"\n', encoding)
    assert contents(read_table(path, encoding=encoding)) == {"a": [1.0], "b": [word]}


def test_long_header_lines_and_many_columns():
    names = [f"{'long ' * 40}{i}" for i in range(350)]
    table = read_table(write("t.csv", f"{','.join(names)}\n{',' * 349}\n"), columns=names[-1:])
    assert table.names == names[-1:]
    row = {f"key {i}": i for i in range(300)}
    table = read_table(write("t.jsonl", json.dumps(row) + "\n"), columns=["key 299"])
    assert contents(table) == {"key 299": [299.0]}


def test_names_that_differ_only_in_case_are_different_columns():
    pq.write_table(pa.table({"a": [1], "A": [2], "x.y": [3]}), "t.parquet")
    expected = {"a": [1.0], "A": [2.0], "x.y": [3.0]}
    assert contents(read_table("t.parquet")) == expected
    assert contents(read_table(write("t.jsonl", '{"a":1,"A":2,"x.y":3}'))) == expected
    assert contents(read_sql('SELECT 1 AS a, 2 AS A, 3 AS "x.y"')) == expected


def test_paths_with_glob_characters_quotes_and_umlauts():
    for name in ("r[1].csv", "r*.csv", 'it\'s "ü".csv', "UPPER.CSV"):
        assert contents(read_table(write(name, "a\n1\n"))) == {"a": [1.0]}


def test_only_the_columns_that_are_asked_for():
    write("t.csv", "a,b\n1,2\n")
    pq.write_table(pa.table({"a": [1], "b": [2]}), "t.parquet")
    write("t.jsonl", '{"a":1,"b":2}\n')
    for source in ("t.csv", "t.parquet", "t.jsonl", {"a": [1], "b": [2]}):
        table = read_table(source, columns=["b", "not there"])
        assert (contents(table), table.n_rows) == ({"b": [2.0]}, 1)


# ---------------------------------------------------------------- several files


def test_a_glob_stacks_files_in_the_order_of_their_names():
    for name, text in (("p2.csv", "b,a\nx,2\ny,3\n"), ("p1.csv.gz", "a;b\n1;w\n")):
        write(name, text)
    table = read_table("p*")
    assert contents(table) == {"a": [1.0, 2.0, 3.0], "b": ["w", "x", "y"]}
    assert table.where(0) == "p1.csv.gz row 1"
    assert table.where(2) == "p2.csv row 2"
    assert "2 files (p1.csv.gz" in table.source


def test_a_glob_decides_types_over_all_files():
    write("p1.csv", "a\n1\n")
    write("p2.csv", "a\n2.5\n007\n")
    assert cells(read_table("p*.csv")["a"]) == ["1", "2.5", "007"]
    pq.write_table(pa.table({"a": [1, None], "d": ["2020-01-01", None]}), "p1.parquet")
    pq.write_table(pa.table({"d": ["soon"], "a": ["x"]}), "p2.parquet")
    table = read_table("p*.parquet")
    assert contents(table) == {"a": ["1", None, "x"], "d": ["2020-01-01", None, "soon"]}
    write("p1.jsonl", '{"a":1}\n{"a":null,"b":true}\n')
    write("p2.jsonl", '{"a":2.5,"c":"x"}\n')
    expected = {"a": [1.0, None, 2.5], "b": [None, True, None], "c": [None, None, "x"]}
    assert contents(read_table("p*.jsonl")) == expected


def test_a_column_of_gaps_in_one_file_takes_the_kind_it_has_in_the_others():
    pq.write_table(pa.table({"a": pa.nulls(1), "t": pa.nulls(1)}), "p1.parquet")
    pq.write_table(pa.table({"a": [1.5], "t": [True]}), "p2.parquet")
    assert contents(read_table("p*.parquet")) == {"a": [None, 1.5], "t": [None, True]}


def test_a_cell_in_the_second_file_is_named_with_that_file():
    write("p1.csv", "a\n1\n")
    write("p2.csv", "a\n2\nx\n")
    with pytest.raises(DataError, match=r"p2\.csv row 2, column 'a': 'x' is not a number"):
        read_table("p*.csv", kinds={"a": "number"})


# ---------------------------------------------------------------- SQL


def test_sql_reads_csv_with_the_strict_types():
    write("t.csv", "id,n\n007,1\n008,NA\n" + "9,1\n" * 30000 + "9,12.7\n")
    table = read_sql("SELECT id, n + 0 AS n FROM 't.csv' ORDER BY n DESC NULLS LAST;")
    assert table["id"].kind == "text"
    assert table["n"].values[0] == 12.7
    assert np.isnan(table["n"].values[-1])


def test_sql_keeps_order_and_runs_a_query_once():
    table = read_sql("SELECT x, x AS y FROM range(100000) t(x) USING SAMPLE 50 ROWS")
    np.testing.assert_array_equal(table["x"].values, table["y"].values)
    table = read_sql("SELECT x FROM range(5000) t(x) ORDER BY x DESC")
    np.testing.assert_array_equal(table["x"].values, np.arange(5000)[::-1])


def test_sql_joins_files_under_different_paths():
    write("a.csv", "id,x\n01,5\n02,6\n")
    write("b.csv", "id,y\n02,7\n")
    table = read_sql("SELECT * FROM './a.csv' JOIN 'b.csv' USING (id) -- done")
    assert contents(table) == {"id": ["02"], "x": [6.0], "y": [7.0]}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "has to be one SELECT; found none"),
        ("selec 1", "the SQL query failed: Parser Error: syntax error"),
        ("SELECT 1; SELECT 2", "has to be one SELECT; found SELECT, SELECT"),
        ("CREATE TABLE t (a INT)", "has to be one SELECT; found CREATE"),
        ("COPY (SELECT 1) TO 'out.csv'", "has to be one SELECT; found COPY"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called 'a'"),
        ("SELECT 1 AS a WHERE false", "the query gives no rows"),
        ("SELECT [1] AS a", r"column 'a' holds INTEGER\[\]; a cell has to be one value"),
        ("SELECT error('boom') AS a", "the SQL query failed: Invalid Input Error: boom"),
        ("FROM 'none.csv'", "none.csv"),
        ("FROM 'bad.csv'", r"bad\.csv line 3: 3 cells where the header has 2"),
    ],
)
def test_sql_that_gives_no_table_is_refused(query, says):
    write("bad.csv", "a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataError, match=says):
        read_sql(query)
    assert not Path("out.csv").exists()


# ---------------------------------------------------------------- bad files

MANY = "1,2\n" * 5000

BAD = {
    "empty": ("t.csv", "", "t.csv is empty"),
    "blank": ("t.csv", " \n\n", "t.csv is empty"),
    "blank first line": ("t.csv", "\na,b\n1,2\n", "t.csv line 1 is blank"),
    "header only": ("t.csv", "a,b\n", "t.csv has a header and no rows"),
    "short line": ("t.csv", "a,b\n1,2\n3\n", "t.csv line 3: 1 cells where the header has 2"),
    "long line": ("t.csv", f"a,b\n{MANY}3,4,5\n", "t.csv line 5002: 3 cells where"),
    "open quote": ("t.csv", 'a,b\n1,"2\n3,4\n', "t.csv line 2: a double quote is never closed"),
    "text after quote": ("t.csv", 'a,b\n1,"2"x\n', "t.csv line 2: .* text follows a closed one"),
    "mixed line ends": ("t.csv", "a,b\n1,2\r\n3,4\n", "t.csv.* lines end in different ways"),
    "endless line": ("t.csv", "a,b\n1," + "x" * 3_000_000, "t.csv line 2: a line is longer"),
    "binary": ("t.csv", bytes(range(256)) * 9, "t.csv is not text: .* zero bytes"),
    "spreadsheet": ("t.csv", b"PK\x03\x04abc", "t.csv is not text: .*spreadsheet"),
    "parquet": ("t.csv", b"PAR1abc", "t.csv is not text: .*Rename it if it is Parquet"),
    "latin-1": ("t.csv", b"a,b\n1,K\xf6ln\n", "t.csv line 2: the text is not utf-8"),
    "latin-1 late": ("t.csv", f"a,b\n{MANY}1,ö\n".encode("latin-1"), "t.csv line 5002: the tex"),
    "utf-16": ("t.csv", "a,b\n1,2\n".encode("utf-16"), "t.csv is not text: .*--encoding utf-16"),
    "twice": ("t.csv", "a,b,a\n1,2,3\n", r"t.csv: two columns are called 'a' \(number 1 and 3\)"),
    "no name": ("t.csv", ",b\n1,2\n", "t.csv: column 1 of 2 has no name"),
    "no last name": ("t.csv", "a,b,\n1,2,\n", "t.csv: column 3 of 3 has no name"),
    "no gzip": ("t.csv.gz", None, r"t.csv.gz cannot be read: Not a gzipped file"),
    "bad json": ("t.jsonl", '{"a":1}\n{"a":\n', "t.jsonl line 2 is no JSON"),
    "pretty json": ("t.json", '{\n"a":1\n}\n', "t.json line 1 is no JSON; expected one object on"),
    "json numbers": ("t.jsonl", '{"a":1}\n5\n', "t.jsonl row 2 is no JSON object .*: 5"),
    "json key twice": ("t.jsonl", '{"a":1,"a":2}\n', "t.jsonl row 1 is no JSON object"),
    "nested json": ("t.jsonl", '{"a":{"b":1}}\n', "column 'a' holds nested JSON"),
    "json list": ("t.jsonl", '{"a":[1]}\n', "column 'a' holds nested JSON"),
    "json without keys": ("t.jsonl", "{}\n{}\n", "t.jsonl has no columns"),
    "json without rows": ("t.jsonl", "\n", "t.jsonl has no rows"),
    "json latin-1": ("t.jsonl", '{"a":"ö"}\n'.encode("latin-1"), "t.jsonl: the text is not utf-8"),
    "no parquet": ("t.parquet", "hello", "t.parquet cannot be read: .*too small"),
    "suffix": ("t.dat", "a\n1\n", r"t.dat: cannot tell the format from the name. Known are \.csv"),
    "excel": ("t.xlsx", "x", "t.xlsx is a spreadsheet; save its sheet as CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gives_one_sentence_that_names_it(name):
    path, text, says = BAD[name]
    if text is None:
        Path(path).write_bytes(b"a,b\n1,2\n")
    else:
        write(path, text)
    with pytest.raises(DataError, match=says) as error:
        read_table(path)
    assert "\n" not in str(error.value)
    hidden = error.value.__suppress_context__ or error.value.__context__ is None
    assert hidden  # DuckDB's own error is not shown with it


@pytest.mark.parametrize(
    ("arrow", "says"),
    [
        ({"a": [[1]]}, r"column 'a' holds BIGINT\[\]; a cell has to be one value"),
        ({"a": [{"b": 1}], "c": [1]}, r"column 'a' holds STRUCT"),
        ({"a": [b"x"]}, "column 'a' holds BLOB"),
        ({"a": pa.array([], pa.int64())}, "t.parquet has no rows"),
        ({"a": [1], "": [2]}, "t.parquet: column 2 of 2 has no name"),
    ],
)
def test_parquet_that_is_no_table_of_cells(arrow, says):
    pq.write_table(pa.table(arrow), "t.parquet")
    with pytest.raises(DataError, match=says):
        read_table("t.parquet")


def test_parquet_with_a_name_twice():
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: two columns are called 'a'"):
        read_table("t.parquet")


def test_nested_columns_of_parquet_do_not_shift_the_names_of_others():
    pq.write_table(pa.table({"a": [{"x": 1, "y": [2]}], "B": [1], "b": [2]}), "t.parquet")
    assert contents(read_table("t.parquet", columns=["B", "b"])) == {"B": [1.0], "b": [2.0]}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("a,b\n1,2\n", "a\n1\n"), r"p2\.csv has no column 'b', which p1\.csv has"),
        (("a\n1\n", "a,c\n1,2\n"), r"p2\.csv has a column 'c', which p1\.csv has not"),
        (("a,b\n1,2\n", "a,b\n1,2\n3\n"), r"p2\.csv line 3: 1 cells where the header has 2"),
    ],
)
def test_files_that_do_not_belong_together(texts, says):
    for number, text in enumerate(texts, start=1):
        write(f"p{number}.csv", text)
    with pytest.raises(DataError, match=says):
        read_table("p*.csv")


def test_parquet_files_that_do_not_belong_together():
    pq.write_table(pa.table({"a": [1], "b": [1]}), "p1.parquet")
    pq.write_table(pa.table({"a": [1], "c": [1]}), "p2.parquet")
    with pytest.raises(DataError, match=r"p2\.parquet has no column 'b', which p1\.parquet has"):
        read_table("p*.parquet")


def test_files_of_several_formats_do_not_stack():
    write("p.csv", "a\n1\n")
    write("p.jsonl", '{"a":1}\n')
    with pytest.raises(DataError, match=r"'p\.\*' matches files of several formats"):
        read_table("p.*")


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        read_table("none.csv")
    with pytest.raises(DataError, match=r"no file matches 'none\*\.csv'"):
        read_table("none*.csv")
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        read_table(tmp_path)


def test_a_damaged_gzip_file_is_named():
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(50000)))
    for data in (whole[:5000], whole[:5000] + bytes(100) + whole[5100:]):
        Path("t.csv.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"t\.csv\.gz"):
            read_table("t.csv.gz")


def test_encodings_that_do_not_fit():
    with pytest.raises(SettingError, match="unknown encoding 'klingon'"):
        read_table(write("t.csv", "a\n1\n"), encoding="klingon")
    with pytest.raises(DataError, match=r"t\.csv: the text is not utf-16"):
        read_table(write("t.csv", "a,b\n1,23\n"), encoding="utf-16")
    with pytest.raises(DataError, match=r"t\.csv: the text is not cp1252"):
        read_table(write("t.csv", b"a\n\x81\n"), encoding="cp1252")


def test_nothing_in_memory_is_no_table_either():
    with pytest.raises(DataError, match="the table has no columns"):
        read_table({})


# ---------------------------------------------------------------- standard input, imports


@pytest.mark.parametrize(
    "data", [b"a;b\n1;x\n", b'{"a":1,"b":"x"}\n', "parquet"], ids=["csv", "json", "parquet"]
)
def test_standard_input_is_read_and_named(data, monkeypatch):
    if data == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"a": [1], "b": ["x"]}), buffer)
        data = buffer.getvalue()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    table = read_table("-")
    assert contents(table) == {"a": [1.0], "b": ["x"]}
    assert table.where(0) == "standard input row 1"


def test_errors_in_standard_input_say_standard_input(monkeypatch):
    for data, says in (
        (b"", "standard input is empty"),
        (b"a,b\n1\n", "standard input line 2: 1 cells"),
        (b"a\nx\n", "standard input row 1, column 'a': 'x' is not a number"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(DataError, match=f"^{says}"):
            read_table("-", kinds={"a": "number"})


def test_standard_input_has_an_encoding_too(monkeypatch):
    data = "a\nKöln\n".encode("latin-1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert cells(read_table("-", encoding="latin-1")["a"]) == ["Köln"]


def test_reading_imports_no_library_that_the_user_does_not_use():
    write("t.csv", "a,b\n1,x\n")
    write("t.jsonl", '{"a":1}\n')
    pq.write_table(pa.table({"a": [1, None], "b": ["x", "y"]}), "t.parquet")
    code = """
        import sys
        from layerwise.data.files import read_table
        from layerwise.data.sql import read_sql
        from layerwise.data.schema import infer_schema
        from layerwise.data.encoder import Encoder
        for path in ("t.csv", "t.jsonl", "t.parquet"):
            table = read_table(path)
            Encoder.fit(table, infer_schema(table)).transform(table)
            read_sql(f"SELECT * FROM '{path}'")
        read_table({"a": [1, None], "b": ["x", "y"]})
        heavy = {"pandas", "polars", "pyarrow", "torch", "sklearn", "scipy"}
        print(sorted(heavy & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_text_column_of_a_query_equals_one_built_by_hand():
    table = read_sql("SELECT * FROM (VALUES ('b'), (NULL), ('a')) t(x)")
    assert table["x"].levels == text_column("x", ["b", None, "a"]).levels
