"""Tables in memory: whatever frame they come from, cells keep their values and gaps."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.data.frames import from_values, table_of
from layerwise.data.kinds import CellError, drop_missing, settle, to_boolean, to_datetime, to_number
from layerwise.data.table import MISSING, Table, text_column, to_text
from layerwise.errors import DataError


def column(cells, missing=MISSING):
    return table_of({"x": cells}, missing=missing)["x"]


def cells(column):
    """The cells as plain values, None where empty."""
    if column.kind == "text":
        return column.texts().tolist()
    values = column.values.astype(bool) if column.kind == "boolean" else column.values
    return [None if gap else value for value, gap in zip(values.tolist(), column.missing)]


MOMENT = dt.datetime(2020, 1, 1, 12, 30)

# For each kind of pandas column: its cells, and what they have to become.
PANDAS = {
    "int": (pd.Series([3, 1]), "number", [3.0, 1.0]),
    "Int64": (pd.Series([3, None], dtype="Int64"), "number", [3.0, None]),
    "Float64": (pd.Series([1.5, None], dtype="Float64"), "number", [1.5, None]),
    "float32": (pd.Series([1.5, None], dtype="float32"), "number", [1.5, None]),
    "bool": (pd.Series([True, False]), "boolean", [True, False]),
    "boolean": (pd.Series([True, None], dtype="boolean"), "boolean", [True, None]),
    "str": (pd.Series(["a", None]), "text", ["a", None]),
    "string": (pd.Series(["a", None], dtype="string"), "text", ["a", None]),
    "object": (pd.Series(["a", pd.NA], dtype=object), "text", ["a", None]),
    "object numbers": (pd.Series([2.5, pd.NA], dtype=object), "number", [2.5, None]),
    "categorical": (pd.Series(["b", None], dtype="category"), "text", ["b", None]),
    "categorical numbers": (pd.Series([10, None, 9], dtype="category"), "text", ["10", None, "9"]),
    "dates": (pd.Series([MOMENT.date(), None]), "datetime", [dt.datetime(2020, 1, 1), None]),
    "datetimes": (pd.Series([MOMENT, pd.NaT]), "datetime", [MOMENT, None]),
    "zoned": (
        pd.Series([pd.Timestamp("2020-01-01 13:30", tz="Europe/Berlin"), pd.NaT]),
        "datetime",
        [MOMENT, None],
    ),
    "durations": (pd.to_timedelta(pd.Series([90, None]), unit="s"), "number", [90.0, None]),
    "decimals": (pd.Series([Decimal("1.25"), None]), "number", [1.25, None]),
    "arrow ints": (pd.Series([3, None], dtype="int64[pyarrow]"), "number", [3.0, None]),
    "arrow strings": (pd.Series(["a", None], dtype="string[pyarrow]"), "text", ["a", None]),
    "arrow times": (
        pd.Series([MOMENT, None], dtype="timestamp[us][pyarrow]"),
        "datetime",
        [MOMENT, None],
    ),
    "bytes": (pd.Series([b"a", None]), "text", ["a", None]),
    "nothing": (pd.Series([None, None], dtype=object), "number", [None, None]),
}


@pytest.mark.parametrize("name", PANDAS)
def test_every_pandas_dtype_keeps_its_cells_and_gaps(name):
    series, kind, expected = PANDAS[name]
    found = table_of(series.to_frame("x"), missing=MISSING)["x"]
    assert (found.kind, cells(found)) == (kind, expected)
    alone = column(series)
    assert (alone.kind, cells(alone)) == (kind, expected)


def test_a_pandas_index_is_not_looked_at():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}, index=[7, 0, 7])
    assert table_of(frame).fingerprint() == table_of(frame.reset_index(drop=True)).fingerprint()


POLARS = {
    "int": (pl.Series([3, None]), "number", [3.0, None]),
    "int128": (pl.Series([3, 4], dtype=pl.Int128), "number", [3.0, 4.0]),
    "float": (pl.Series([float("nan"), None, 1.0]), "number", [None, None, 1.0]),
    "bool": (pl.Series([True, None]), "boolean", [True, None]),
    "string": (pl.Series(["a", None]), "text", ["a", None]),
    "enum": (pl.Series(["b", None], dtype=pl.Enum(["b", "a"])), "text", ["b", None]),
    "categorical": (pl.Series(["b", None], dtype=pl.Categorical), "text", ["b", None]),
    "date": (pl.Series([MOMENT.date(), None]), "datetime", [dt.datetime(2020, 1, 1), None]),
    "zoned": (
        pl.Series([MOMENT, None], dtype=pl.Datetime("ns", "America/New_York")),
        "datetime",
        [MOMENT, None],
    ),
    "duration": (pl.Series([dt.timedelta(minutes=1), None]), "number", [60.0, None]),
    "decimal": (pl.Series([Decimal("1.5"), None]), "number", [1.5, None]),
    "time": (pl.Series([dt.time(1, 2), None]), "text", ["01:02:00", None]),
    "null": (pl.Series([None, None]), "number", [None, None]),
    "big": (pl.Series([2**60 + 1, None]), "text", [str(2**60 + 1), None]),
    "big decimal": (pl.Series([Decimal(2**60 + 1), None]), "text", [str(2**60 + 1), None]),
    "unsigned": (pl.Series([2**64 - 1, None], dtype=pl.UInt64), "text", [str(2**64 - 1), None]),
}


@pytest.mark.parametrize("name", POLARS)
def test_every_polars_dtype_keeps_its_cells_and_gaps_also_as_arrow_and_lazy(name):
    series, kind, expected = POLARS[name]
    frame = series.to_frame("x")
    sources = [frame, frame.lazy(), {"x": series}]
    if name != "int128":  # Arrow has no such type
        sources.append(frame.to_arrow())
    for source in sources:
        found = table_of(source, missing=MISSING)["x"]
        assert (found.kind, cells(found)) == (kind, expected)


class OnlyStream:
    """What every Arrow library offers, and nothing else."""

    def __init__(self, source):
        self.source = source

    def __arrow_c_stream__(self, requested_schema=None):
        return self.source.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make",
    [OnlyStream, lambda t: OnlyStream(t.to_reader()), lambda t: t.to_reader(), lambda t: t],
    ids=["stream", "stream read once", "reader", "table"],
)
def test_an_arrow_stream_is_a_table_also_if_it_can_be_read_only_once(make):
    arrow = pa.table({"n": [1.5, None], "t": ["x", None], "b": [True, False], "d": [MOMENT, None]})
    found = table_of(make(arrow))
    assert {name: cells(found[name]) for name in found.names} == arrow.to_pydict()


def test_a_duckdb_relation_is_run_once_so_that_its_rows_stay_together():
    relation = duckdb.connect().sql("SELECT x, x AS y FROM (SELECT random() AS x FROM range(50))")
    table = table_of(relation)
    assert np.unique(table["x"].values).size == 50
    np.testing.assert_array_equal(table["x"].values, table["y"].values)


def test_columns_of_a_relation_that_differ_only_in_case_are_refused():
    with pytest.raises(DataError, match="'a' and 'A' differ in nothing but case"):
        table_of(duckdb.connect().sql("SELECT 1 AS a, 2 AS A"))


def test_numpy_arrays_also_structured_of_objects_and_masked():
    plain = table_of(np.array([[1, 2], [3, 4]]))
    assert plain.names == ["x0", "x1"]
    assert cells(plain["x1"]) == [2.0, 4.0]
    mixed = np.array([[1, "a"], [None, "NA"], [2.5, "b"]], dtype=object)
    assert [cells(c) for c in table_of(mixed, missing=MISSING).columns.values()] == [
        [1.0, None, 2.5],
        ["a", None, "b"],
    ]
    kinds = [("n", "i4"), ("t", "U3"), ("d", "M8[D]")]
    rows = np.ma.array(
        [(1, "x", "2020-01-01"), (2, "y", "2020-01-02")],
        dtype=kinds,
        mask=[(0, 1, 0), (1, 0, 1)],
    )
    found = table_of(rows)
    assert cells(found["n"]) == [1.0, None]
    assert cells(found["t"]) == [None, "y"]
    assert cells(found["d"]) == [dt.datetime(2020, 1, 1), None]
    assert cells(table_of(rows.data)["n"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1.0, None]),
        ([1.5, 2.5], [1.5, None]),
        ([True, False], [True, None]),
        (["a", "b"], ["a", None]),
        (np.array([1, 2], "M8[D]"), [dt.datetime(1970, 1, 2), None]),
        (np.array([1, 2], "m8[s]"), [1.0, None]),
    ],
)
def test_what_is_masked_is_a_gap(values, expected):
    assert cells(column(np.ma.array(values, mask=[False, True]))) == expected


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ([1, "NA", 3], "number", [1.0, None, 3.0]),
        ([1, "a", 2.5, True], "text", ["1", "a", "2.5", "true"]),
        ([12.0, "a"], "text", ["12", "a"]),
        ([float("nan"), "a"], "text", [None, "a"]),
        ([2**53 + 1, 0.5], "text", [str(2**53 + 1), "0.5"]),
        ([2**63, -1], "text", [str(2**63), "-1"]),
        ([2**53 - 1, None], "number", [float(2**53 - 1), None]),
        ([Decimal("0.5"), 1], "number", [0.5, 1.0]),
        ([MOMENT, dt.date(2020, 1, 2)], "datetime", [MOMENT, dt.datetime(2020, 1, 2)]),
        ([dt.timedelta(seconds=3), None], "number", [3.0, None]),
        (["true", "FALSE", None], "boolean", [True, False, None]),
        (["2020-01-01", "2020-01-01T12:30"], "datetime", [dt.datetime(2020, 1, 1), MOMENT]),
        (["1", "2"], "text", ["1", "2"]),  # text in a frame was meant to be text
        ((1, 2), "number", [1.0, 2.0]),
        (range(2), "number", [0.0, 1.0]),
        (pa.array([2**60 + 1, None]), "text", [str(2**60 + 1), None]),
    ],
)
def test_lists_of_python_objects_are_not_bent_into_one_type(given, kind, expected):
    found = column(given)
    assert (found.kind, cells(found)) == (kind, expected)


def test_a_mixed_column_of_nearly_all_numbers_says_which_cells_are_none():
    odd = column([*range(99), "n.a."]).odd
    assert (odd.kind, odd.count, odd.examples) == ("number", 1, ((99, "n.a."),))
    assert column([*range(9), "n.a.", "?"]).odd is None  # fewer than 90 %


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "NoneType is no table"),
        (b"file.csv", "bytes is no table"),
        ([1, 2], "list is no table"),
        (np.zeros(3), r"shape \(3,\) is no table"),
        (np.zeros((1, 2, 3)), r"expected \(n_rows, n_columns\)"),
        ({"a": [1], "b": [1, 2]}, r"unequal length \(a: 1, b: 2\)"),
        ({"a": 1}, r"column 'a' has shape \(\)"),
        ({1: [1], "1": [2]}, "two columns are called '1'"),
        ({"a": [1j]}, "column 'a' holds cells of type complex"),
        ({"a": np.array([1j])}, "column 'a' has dtype complex128"),
        ({"a": [{"b": 1}]}, "holds cells of type dict; a cell has to be one value"),
        ({"a": [[1], [2]]}, "holds cells of type list"),
        (pd.DataFrame({"a": [(1, 2)]}), "holds cells of type tuple"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), r"'a' \(number 1 and 2\)"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "two columns are called '1'"),
        (pl.DataFrame({"a": [[1]]}), r"column 'a' holds List\(Int64\)"),
        (pa.table({"a": [{"b": 1}]}), "column 'a' holds Struct"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(data, says):
    with pytest.raises(DataError, match=says):
        table_of(data)


# ---------------------------------------------------------------- one column


def test_missing_words_are_gaps_with_spaces_around_them_and_as_numbers():
    text = drop_missing(text_column("x", ["NA", " NA ", "a", None, "NAT"]), ["NA"])
    assert cells(text) == [None, None, "a", None, "NAT"]
    number = drop_missing(from_values("x", np.array([1.0, -999.0, np.inf])), ["-999", "inf", "NA"])
    assert cells(number) == [1.0, None, None]


@pytest.mark.parametrize(
    ("cells_", "kind"),
    [
        (["1", " -2.5e3 ", ".5"], "number"),
        (["01", "2"], "text"),
        (["-007", "2"], "text"),
        (["0", "-0", "0.5"], "number"),
        ([str(2**53), "1"], "text"),
        ([str(2**53 - 1), "1"], "number"),
        (["1_000", "2"], "text"),
        (["١٢", "2"], "text"),  # Arabic digits are no numbers in CSV files either
        (["0x10", "2"], "text"),
        (["2020-01-01", "2020-12-31"], "datetime"),
        (["2020-01-01 10:00 +01:00"], "text"),
        (["20200101"], "number"),
        (["true", "False"], "boolean"),
        (["yes", "no"], "text"),
    ],
)
def test_cells_without_a_type_are_what_all_of_them_are(cells_, kind):
    assert settle(text_column("x", cells_)).kind == kind


def test_dates_that_no_calendar_has_keep_a_column_text_and_are_named():
    found = column(["2020-02-01"] * 20 + ["2020-02-30"])
    assert found.kind == "text"
    assert (found.odd.kind, found.odd.examples) == ("datetime", ((20, "2020-02-30"),))


def test_times_with_a_zone_are_turned_into_utc():
    found = column(["2020-01-01T12:30:00Z", "2020-01-01 13:30+01:00", "2020-01-01T12:30:00.000001"])
    assert found.values.astype(str).tolist() == [
        "2020-01-01T12:30:00.000000",
        "2020-01-01T12:30:00.000000",
        "2020-01-01T12:30:00.000001",
    ]


@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1))
@settings(max_examples=50, deadline=None)
def test_numbers_survive_the_way_through_text(numbers):
    found = column([None if n is None else float(n) for n in numbers])
    assert cells(to_number(to_text(found))) == cells(found)


@given(st.lists(st.none() | st.text(), min_size=1))
@settings(max_examples=50, deadline=None)
def test_text_columns_hold_exactly_the_strings_they_were_given(strings):
    found = text_column("x", strings)
    assert found.texts().tolist() == strings
    assert list(found.levels) == sorted({s for s in strings if s is not None})
    assert found.missing.tolist() == [s is None for s in strings]


@given(st.lists(st.none() | st.datetimes(), min_size=1))
@settings(max_examples=50, deadline=None)
def test_moments_survive_the_way_through_text(moments):
    found = column(np.array(moments, "M8[us]"))
    assert cells(to_datetime(to_text(found))) == moments


def test_conversions_name_row_and_cell_that_do_not_fit():
    text = text_column("age", ["1", None, "old", "older"])
    with pytest.raises(CellError, match=r"row 3, column 'age': 'old' is not a number \(2 such"):
        to_number(text)
    with pytest.raises(CellError, match="row 1, column 'age': '1' is not an ISO date"):
        to_datetime(text)
    with pytest.raises(CellError, match="is not a date of the form '%d/%m/%Y'"):
        to_datetime(text, "%d/%m/%Y")
    with pytest.raises(CellError, match="row 3, column 'age': 'old' is not true or false"):
        to_boolean(text)
    with pytest.raises(CellError, match=r"'x{37}\.\.\.' is not"):
        to_number(text_column("x", ["x" * 50]))


def test_conversions_between_kinds():
    assert cells(to_number(column([True, None, False]))) == [1.0, None, 0.0]
    assert cells(to_boolean(column([1, 0, None]))) == [True, False, None]
    assert cells(to_text(column([-0.0, 1.0, 1.5, None]))) == ["0", "1", "1.5", None]
    assert cells(to_text(column([True, None]))) == ["true", None]
    assert cells(to_text(column([MOMENT.date(), MOMENT]))) == ["2020-01-01", "2020-01-01T12:30:00"]
    assert cells(to_datetime(column([20200131]), "%Y%m%d")) == [dt.datetime(2020, 1, 31)]
    nothing = column([None, None])
    for convert in (to_text, to_boolean, to_datetime, to_number):
        assert convert(nothing).missing.all()


# ---------------------------------------------------------------- tables


def test_the_fingerprint_tells_tables_apart_and_nothing_else():
    base = {"a": [1.0, None, 3.0], "b": ["x", "y", None]}
    mark = table_of(base).fingerprint()
    assert table_of({"b": base["b"], "a": base["a"]}).fingerprint() == mark
    assert table_of(pd.DataFrame(base)).fingerprint() == mark
    assert table_of(pl.DataFrame(base)).fingerprint() == mark
    longer = table_of({"a": [9.0, 1.0, None, 3.0], "b": ["unused", "x", "y", None]})
    assert longer.take(np.array([1, 2, 3])).fingerprint() == mark
    for other in (
        {"a": [1.0, None, 3.5], "b": ["x", "y", None]},
        {"a": [1.0, None, 3.0], "b": ["x", None, "y"]},
        {"a": [1.0, None, 3.0], "c": ["x", "y", None]},
        {"a": ["1", None, "3"], "b": ["x", "y", None]},
        {"a": [1.0, None, 3.0]},
    ):
        assert table_of(other).fingerprint() != mark
    assert table_of({"a": [0.0]}).fingerprint() == table_of({"a": [-0.0]}).fingerprint()
    assert table_of({"a": ["a", "b"]}).fingerprint() != table_of({"a": ["a\0b", "b"]}).fingerprint()
    negative_nan = np.array([-np.nan, 1.0])
    assert table_of({"a": negative_nan}).fingerprint() == table_of({"a": [None, 1.0]}).fingerprint()


def test_rows_that_were_taken_know_where_they_stood():
    table = table_of({"a": [1, 2, 3, 4]})
    assert table.where(2) == "the table row 3"
    assert table.take(np.array([3, 1])).where(0) == "the table row 4"
    masked = table.take(np.array([False, True, True, False]))
    assert masked.take(np.array([1])).where(0) == "the table row 3"
    two = Table(table.columns, 4, "2 files", (("a.csv", 3), ("b.csv", 1)))
    assert [two.where(row) for row in (0, 2, 3)] == ["a.csv row 1", "a.csv row 3", "b.csv row 1"]
    assert two.take(np.array([3])).where(0) == "b.csv row 1"


def test_an_unknown_column_is_an_error_with_the_nearest_name():
    table = table_of({"price": [1], "size": [2]})
    assert "price" in table
    assert len(table) == 1
    assert table.select(["size"]).names == ["size"]
    with pytest.raises(DataError, match=r"has no column 'prise'\. Did you mean 'price'"):
        table["prise"]
