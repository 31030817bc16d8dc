"""Bad input on the command line: one clear message, the promised exit code, nothing written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save

import layerwise
from layerwise import folder, storage
from layerwise.errors import DataError, LayerwiseError, OutputError, SettingError, TrainingError

FAST = ["--epochs", "2", "--members", "1", "--no-baselines", "--hidden", "4", "--out", "run"]
N = 40


def table(size: object = None, price: object = None, header: str = "size,town,price") -> str:
    """A table of 40 rows; ``size`` and ``price`` may be functions of the row."""
    rows = []
    for i in range(N):
        a = size(i) if callable(size) else f"{i * i % 17}.5"
        c = price(i) if callable(price) else f"{3 * (i * i % 17) + i % 3}.5"
        rows.append(f"{a},{['Bonn', 'Ulm', 'Kiel'][i % 3]},{c}")
    return "\n".join([header, *rows]) + "\n"


def at(row: int, cell: str, other: str = "{i}") -> Callable[[int], str]:
    """Cells of a column, with another one in that row (counted from 1)."""
    return lambda i: cell if i == row - 1 else other.format(i=i * 7 % 11)


GOOD = table()
LINES = GOOD.splitlines()
CLASSES = table(price=lambda i: "big" if i % 2 else "small")
DAYS = table(size=lambda i: f"2024-01-{i % 28 + 1:02}", header="day,town,price")


class Bad(NamedTuple):
    """What goes in, and what has to come out."""

    name: str
    data: str | bytes
    code: int
    words: list[str]
    flags: tuple[str, ...] = ()
    file: str = "t.csv"


TABLES = [
    Bad("empty", "", 3, ["t.csv", "empty", "header"]),
    Bad("blank lines", "\n\n\n", 3, ["t.csv", "empty"]),
    Bad("header only", LINES[0] + "\n", 3, ["t.csv", "header", "no rows"]),
    Bad("one row", "\n".join(LINES[:2]), 3, ["t.csv", "'price'", "constant"]),
    Bad("two rows", "\n".join(LINES[:3]), 3, ["t.csv", "2 rows", "more rows"]),
    Bad("too many cells", "\n".join([*LINES[:5], "1,Ulm,3,4", *LINES[5:]]), 3,
        ["t.csv line 6", "4 cells", "header has 3", "quotes"]),
    Bad("too few cells", "\n".join([*LINES[:5], "1,Ulm", *LINES[5:]]), 3,
        ["t.csv line 6", "2 cells", "header has 3"]),
    Bad("binary", bytes(range(256)) * 20, 3, ["t.csv", "not text"]),
    Bad("binary without zeros", bytes(range(1, 256)) * 20, 3, ["t.csv", "not text"]),
    Bad("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), 3, ["t.csv", "not text"]),
    Bad("spreadsheet as csv", b"PK\x03\x04\x14\0" + bytes(99), 3, ["t.csv", "save it as CSV"]),
    Bad("spreadsheet", b"PK\x03\x04\x14\0", 3, ["t.xlsx", "spreadsheet", "CSV"], file="t.xlsx"),
    Bad("unknown suffix", GOOD, 3, ["t.doc", "format", ".csv"], file="t.doc"),
    Bad("no parquet", GOOD, 3, ["t.parquet", "no Parquet"], file="t.parquet"),
    Bad("no gzip", GOOD, 3, ["t.csv.gz", "cannot be read"], file="t.csv.gz"),
    Bad("latin-1", GOOD.replace("Kiel", "Köln").encode("latin-1"), 3,
        ["t.csv line 4", "not utf-8", "--encoding latin-1"]),
    Bad("utf-16", GOOD.encode("utf-16"), 3, ["t.csv", "--encoding utf-16"]),
    Bad("unknown encoding", GOOD, 2, ["'klingon'", "latin-1"], ("--encoding", "klingon")),
    Bad("column twice", table(header="size,size,price"), 3, ["t.csv", "'size'", "own name"]),
    Bad("target twice", table(header="size,price,price"), 3, ["t.csv", "'price'", "2 and 3"]),
    Bad("column without name", table(header="size,,price"), 3, ["t.csv", "column 2", "no name"]),
    Bad("constant target", table(price=lambda i: 7), 3, ["t.csv", "'price'", "constant", "'7'"]),
    Bad("target all gaps", table(price=lambda i: ""), 3, ["t.csv", "'price'", "every cell"]),
    Bad("infinite input", table(size=at(4, "inf")), 3, ["t.csv row 4", "'size'", "infinity"]),
    Bad("infinite target", table(price=at(4, "-inf")), 3, ["t.csv row 4", "'price'", "infinity"]),
    Bad("beyond float64", table(size=at(5, "1e400")), 3, ["t.csv row 5", "'size'", "infinity"]),
    Bad("huge target", table(price=lambda i: f"{(-1) ** i * 1.5}e308"), 3,
        ["t.csv", "'price'", "too large", "unit"], ("--task", "regression")),
    Bad("nearly numbers", table(size=at(4, "abc")), 3,
        ["t.csv", "'size'", "'abc' in row 4", "--missing 'abc'", "--as size=category"]),
    Bad("said to be numbers", table(size=at(4, "abc")), 3,
        ["t.csv row 4", "'size'", "'abc'", "--missing 'abc'"], ("--as", "size=number")),
    Bad("nearly a number target", table(price=at(4, "abc")), 3,
        ["t.csv", "'price'", "row 4", "--missing 'abc'", "--task classification"]),
    Bad("nearly dates", DAYS.replace("2024-01-06", "soon", 1), 3,
        ["t.csv", "'day'", "'soon' in row 6", "--missing 'soon'"]),
    Bad("regression on texts", CLASSES, 3, ["t.csv", "'price'", "texts such as"],
        ("--task", "regression")),
    Bad("a class for each row", table(price=lambda i: f"x{i}"), 3, ["t.csv", "40 classes"]),
    Bad("only an identifier", "\n".join(["id,price", *(f"{i},{i % 7}.5" for i in range(N))]), 3,
        ["t.csv", "no column to learn from", "id (identifier)", "--as"]),
    Bad("only the target", "\n".join(["price", *(f"{i}.5" for i in range(N))]), 3,
        ["t.csv", "no column to learn from", "only column"]),
    Bad("weight below 0", table(size=at(5, "-1", "1")), 3,
        ["t.csv row 5", "'size'", "-1", "negative", "at least 0"], ("--weights", "size")),
    Bad("weight missing", table(size=at(5, "", "1")), 3, ["t.csv row 5", "'size'", "gap"],
        ("--weights", "size")),
    Bad("weight infinite", table(size=at(5, "inf", "1")), 3, ["t.csv row 5", "infinite"],
        ("--weights", "size")),
    Bad("weight a text", table(size=at(5, "abc", "1")), 3, ["t.csv row 5", "'abc'"],
        ("--weights", "size")),
    Bad("weights all 0", table(size=lambda i: 0), 3, ["t.csv", "'size'", "all weights are 0"],
        ("--weights", "size")),
    Bad("weights huge", table(size=lambda i: "1e308"), 3, ["t.csv row 1", "too large"],
        ("--weights", "size")),
    Bad("time a text", GOOD, 3, ["t.csv", "'town'", "cannot order", "'Bonn'", "--as town=date"],
        ("--time", "town")),
    Bad("time with a gap", DAYS.replace("2024-01-06", "", 1), 3, ["t.csv", "row 6", "'day'"],
        ("--time", "day")),
    Bad("time all the same", table(size=lambda i: "2024-01-01", header="day,town,price"), 3,
        ["t.csv", "'day'", "all cells are"], ("--time", "day")),
    Bad("time of another form", DAYS.replace("-", "."), 3, ["t.csv row 1", "'day'", "%d/%m/%Y"],
        ("--time", "day", "--as", "day=date:%d/%m/%Y")),
    Bad("one group", table(size=lambda i: "a"), 3, ["t.csv", "'size'", "1 group", "at least 3"],
        ("--group", "size")),
    Bad("a class only in late rows", table(size=str, price=lambda i: "b" if i > 35 else "a"), 3,
        ["t.csv", "'price'", "only the class 'a'"], ("--time", "size")),
]  # fmt: skip

COLUMNS = [
    (["--target", "prize"], 3, ["t.csv", "'prize'", "Did you mean 'price'"]),
    (["--drop", "sise"], 3, ["t.csv", "'sise'", "'size'"]),
    (["--as", "sise=number"], 3, ["t.csv", "'sise'", "'size'"]),
    (["--as", "size=numbr"], 2, ["'size'", "'numbr'", "'number'"]),
    (["--as", "size"], 2, ["--as", "COLUMN=ROLE"]),
    (["--as", "town=target"], 3, ["'town' and 'price'", "target"]),
    (["--group", "sise"], 3, ["t.csv", "'sise'", "'size'"]),
    (["--time", "sise"], 3, ["t.csv", "'sise'", "'size'"]),
    (["--weights", "sise"], 3, ["t.csv", "'sise'", "'size'"]),
    (["--weights", "price"], 2, ["'price'", "--target", "--weights"]),
    (["--drop", "price"], 2, ["'price'", "--target", "--drop"]),
    (["--group", "size", "--weights", "size"], 2, ["'size'", "--group", "--weights"]),
    (["--group", "size", "--time", "size"], 2, ["group", "time"]),
    (["--time", "price"], 2, ["'price'", "--time"]),
    (["--drop", "size", "--drop", "town"], 3, ["no column to learn from", "size (ignore)"]),
]

SETTINGS = [
    (["--activation", "rely"], ["--activation", "'rely'", "'relu'"]),
    (["--optimizer", "adamm"], ["'adamm'", "'adam'"]),
    (["--optimizer-option", "foo=1"], ["AdamW", "'foo'"]),
    (["--optimizer-option", "foo"], ["--optimizer-option", "NAME=VALUE"]),
    (["--optimizer-option", "amsgrad=maybe"], ["AdamW", "'amsgrad'", "true or false"]),
    (["--task", "regresion"], ["'regresion'", "'regression'"]),
    (["--schedule", "cosin"], ["--schedule", "'cosine'"]),
    (["--loss", "bce"], ["'bce'", "regression", "mse"]),
    (["--lr", "abc"], ["--lr", "number", "'abc'"]),
    (["--lr", "0"], ["--lr", "above 0"]),
    (["--lr", "nan"], ["--lr", "number"]),
    (["--hidden", "0.5"], ["--hidden", "whole numbers", "0.5"]),
    (["--hidden", ""], ["--hidden", "whole numbers"]),
    (["--dropout", "2"], ["--dropout", "below 1", "2"]),
    (["--epochs", "0"], ["--epochs", "at least 1"]),
    (["--epochs", "1e400"], ["--epochs", "at least 1"]),
    (["--threads", "100000"], ["--threads", "at most"]),
    (["--batch-size", "many"], ["--batch-size", "'auto'"]),
    (["--valid", "2"], ["valid", "below 1"]),
    (["--test", "0.9", "--valid", "0.2"], ["valid and test", "no rows"]),
    (["--monitor", "foo"], ["'foo'", "rmse"]),
    (["--device", "foo"], ["'foo'", "cpu"]),
    (["--random-state", "-1"], ["random_state", "at least 0"]),
    (["--random-state", "abc"], ["--random-state", "integer"]),
    (["--class-weight", "balanced"], ["class_weight", "regression"]),
    (["--class-weight", "balancd"], ["--class-weight", "CLASS=WEIGHT"]),
    (["--epoch", "2"], ["--epoch", "--epochs", "--help"]),
    (["more.csv"], ["more.csv", "--help"]),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder of its own, without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file under a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refuse(command, code: int, words: list[str], *argv: str, stdin: bytes | None = None) -> str:  # type: ignore[no-untyped-def]
    """It ends with the code and the words, in one sentence, and leaves the disk as it was."""
    before = tree(Path())
    result = command(*argv, stdin=stdin)
    assert result.code == code, result.err
    assert not result.out
    assert "Traceback" not in result.err
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("layerwise: "), result.err
    assert sum(line.startswith("layerwise: ") for line in result.err.splitlines()) == 1
    for word in words:
        assert word in last
    assert tree(Path()) == before
    return last


# ---------------------------------------------------------------- train


@pytest.mark.parametrize("bad", TABLES, ids=lambda bad: bad.name)
def test_a_bad_table_is_refused(command, bad: Bad) -> None:  # type: ignore[no-untyped-def]
    data = bad.data.encode() if isinstance(bad.data, str) else bad.data
    Path(bad.file).write_bytes(data)
    refuse(command, bad.code, bad.words, "train", bad.file, "-t", "price", *FAST, *bad.flags)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    COLUMNS,
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_a_bad_column_is_refused(command, flags: list[str], code: int, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    refuse(command, code, words, "train", "t.csv", "--target", "price", *FAST, *flags)


@pytest.mark.parametrize(("flags", "words"), SETTINGS, ids=lambda x: " ".join(x))
def test_a_bad_setting_is_refused(command, flags: list[str], words: list[str]) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    refuse(command, 2, words, "train", "t.csv", "-t", "price", *FAST, *flags)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["train"], 2, ["TABLE", "--sql"]),
        (["train", "t.csv"], 2, ["--target"]),
        (["train", "t.csv", "-t"], 2, ["argument"]),
        (["train", "none.csv", "-t", "price"], 3, ["none.csv", "no such file"]),
        (["train", ".", "-t", "price"], 3, ["folder", "*.csv"]),
        (["train", "no*.csv", "-t", "price"], 3, ["'no*.csv'", "no file"]),
        (["train", "t.csv", "-t", "price", "--valid", "none.csv"], 3, ["validation", "none.csv"]),
        (["train", "t.csv", "-t", "price", "--valid", "abc"], 3, ["validation", "abc"]),
        (["train", "t.csv", "-t", "price", "--schema", "none.toml"], 3, ["none.toml"]),
        (["train", "t.csv", "-t", "price", "--out", "t.csv"], 1, ["t.csv", "name a folder"]),
        (["train", "t.csv", "-t", "price", "--out", "t.csv/x"], 1, ["t.csv/x"]),
        (["train", "--resume", "none"], 1, ["none", "no run folder"]),
        (["train", "--resume", "t.csv"], 1, ["t.csv", "run.json"]),
        (["train", "t.csv", "--resume", "x", "--lr", "1"], 2, ["--resume", "TABLE", "--lr"]),
        (["train", "--sql", "selec 1", "-t", "price"], 3, ["SQL", "selec"]),
        (["train", "--sql", "select 1; select 2", "-t", "price"], 3, ["SQL"]),
        (["train", "--sql", "copy (select 1) to 'x.csv'", "-t", "price"], 3, ["SELECT", "COPY"]),
        (["train", "--sql", "select * from 'none.csv'", "-t", "price"], 3, ["none.csv"]),
        (["train", "--sql", "select * from 'none.parquet'", "-t", "price"], 3, ["none.parquet"]),
        (["train", "--sql", "select sise from 't.csv'", "-t", "price"], 3, ["sise"]),
        (["train", "--sql", "select size from 't.csv'", "-t", "price"], 3, ["'price'"]),
        (["train", "--sql", "select price, price from 't.csv'", "-t", "price"], 3, ["two columns"]),
        (["train", "--sql", "select * from 't.csv' where size > 99", "-t", "price"], 3,
         ["no rows"]),
        (["trian"], 2, ["'trian'", "'train'"]),
        (["--foo"], 2, ["--foo"]),
        (["predict"], 2, ["RUN"]),
        (["inspect", "none"], 1, ["none"]),
        (["compare", "none"], 1, ["none"]),
        (["compare", "t.csv"], 1, ["t.csv", "run.json"]),
        (["schema", "none.csv"], 3, ["none.csv"]),
        (["schema", "t.csv", "-t", "prize"], 3, ["'prize'", "'price'"]),
        (["schema", "t.csv", "-o", "none/s.toml"], 1, ["none", "does not exist"]),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)  # fmt: skip
def test_a_bad_call_is_refused(command, argv: list[str], code: int, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    refuse(command, code, words, *argv)


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("[columns", "[colu mns", 3, ["no TOML", "line"]),
        ('"category"', '"categry"', 3, ["'town'", "'categry'", "'category'"]),
        ('role = "category"', 'rol = "category"', 3, ["'town'", "'rol'", "'role'"]),
        ('role = "category"', "", 3, ["'town'", "no role"]),
        ("town", "tonw", 3, ["t.csv", "'tonw'", "'town'"]),
        ('"category"', "3", 3, ["'town'", "unknown role 3"]),
        ('"category"', '"category"\nformat = "%Y"', 3, ["'town'", "format", "dates"]),
        ('"target"', '"ignore"', 2, ["--target", "price"]),
        ('"category"', '"target"', 3, ["'town' and 'price'"]),
        ('"category"', '"number"', 3, ["t.csv row 1", "'town'", "'Bonn'"]),
        ("missing =", "mising =", 3, ["'mising'", "missing"]),
    ],
)
def test_a_bad_schema_file_is_refused(
    command, old: str, new: str, code: int, words: list[str]
) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    assert command("schema", "t.csv", "-t", "price", "-o", "s.toml").code == 0
    text = Path("s.toml").read_text()
    assert old in text
    Path("s.toml").write_text(text.replace(old, new))
    refuse(command, code, words, "train", "t.csv", "--schema", "s.toml", *FAST)


def test_schema_file_and_flag_have_to_agree_on_the_target(command) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    command("schema", "t.csv", "-t", "price", "-o", "s.toml")
    flags = ["--schema", "s.toml", "-t", "size"]
    refuse(command, 2, ["s.toml", "'price'", "'size'"], "train", "t.csv", *flags, *FAST)


def test_a_loss_that_is_nan_at_once_leaves_no_run(command) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    flags = ["--optimizer", "sgd", "--lr", "1e30", "--dtype", "float32", "--batch-size", "4"]
    words = ["epoch 1", "step", "layer", "learning rate"]
    refuse(command, 1, words, "train", "t.csv", "-t", "price", *FAST, *flags)


def test_a_network_beyond_the_memory_is_refused(command) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    flags = ["--hidden", "10000000,10000000"]
    refuse(command, 1, ["memory", "--hidden"], "train", "t.csv", "-t", "price", *FAST, *flags)


def test_a_full_disk_before_the_first_epoch_leaves_nothing(command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refuse(command, 1, ["no space is left"], "train", "t.csv", "-t", "price", *FAST)


def test_no_permission_is_said(command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)

    def denied(path: Path, *args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    refuse(command, 1, ["no permission", "run"], "train", "t.csv", "-t", "price", *FAST)


def test_a_run_folder_in_use_is_left_alone(command) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    Path("run").mkdir()
    with storage.lock("run"):
        refuse(command, 1, ["another run", "run"], "train", "t.csv", "-t", "price", *FAST)
    assert Path("run").is_dir()


# ---------------------------------------------------------------- predict, evaluate, inspect


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The model files of a regression and of a classification, as bytes."""
    folder = tmp_path_factory.mktemp("trained")
    files = {}
    for name, text in (("numbers", GOOD), ("classes", CLASSES)):
        path = folder / f"{name}.csv"
        path.write_text(text)
        layerwise.train(
            path, "price", epochs=1, hidden_layer_sizes=4, baselines=False, out=folder / name
        )
        files[name] = (folder / name / "model.layerwise").read_bytes()
    return files


@pytest.fixture
def model(trained: dict[str, bytes], here: Path) -> dict[str, bytes]:
    """The models and a table to predict, in the test's folder."""
    for name, data in trained.items():
        Path(f"{name}.layerwise").write_bytes(data)
    Path("new.csv").write_text('size,town,who\n1,Ulm,=cmd()\n2,Bonn,+49\n3,Kiel,"-x"\n')
    Path("old.csv").write_text("as it was")
    return trained


M = "numbers.layerwise"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ("town\nUlm\n", 3, ["t.csv", "'size'"]),
        ("foo\nUlm\n", 3, ["t.csv", "'size'", "1 more"]),
        ("size,town\n3,Ulm\nabc,Ulm\n", 3, ["t.csv row 2", "'size'", "'abc'", "empty the cell"]),
        ("size,town\n3,Ulm\ninf,Ulm\n", 3, ["t.csv row 2", "'size'", "infinity"]),
        ("size,size,town\n3,3,Ulm\n", 3, ["t.csv", "'size'", "own name"]),
        ("size,town\n", 3, ["t.csv", "no rows"]),
        ("", 3, ["t.csv", "empty"]),
    ],
)
def test_predict_refuses_a_bad_table(
    command, model, data: str, code: int, words: list[str]
) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(data)
    refuse(command, code, words, "predict", M, "t.csv", "-o", "old.csv")
    if data:
        with pytest.raises(DataError, match=words[-1]), np.errstate(all="raise"):
            layerwise.Model.load(M).predict("t.csv")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([M, "none.csv"], 3, ["none.csv", "no such file"]),
        ([M, "new.csv", "--keep", "woh"], 3, ["new.csv", "'woh'", "'who'"]),
        ([M, "new.csv", "-p"], 2, ["probabilities", "numbers"]),
        ([M, "new.csv", "-o", "."], 1, ["folder"]),
        ([M, "new.csv", "-o", "none/x.csv"], 1, ["none", "does not exist"]),
        ([M, "new.csv", "-o", "/proc/x.csv"], 1, ["/proc"]),
        ([M, "new.csv", "-o", "x.docx"], 2, ["x.docx", ".parquet"]),
        ([M, "new.csv", "-o", "new.csv"], 2, ["new.csv", "another file"]),
        ([M, "new.csv", "-o", M], 2, [M, ".parquet"]),
        (["none", "new.csv"], 1, ["none"]),
        (["new.csv", "new.csv"], 1, ["new.csv", "not a model file"]),
        ([".", "new.csv"], 1, ["model.layerwise", "run folder"]),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_predict_refuses_a_bad_call(
    command, model, argv: list[str], code: int, words: list[str]
) -> None:  # type: ignore[no-untyped-def]
    refuse(command, code, words, "predict", *argv)


def test_predict_refuses_an_empty_standard_input(command, model) -> None:  # type: ignore[no-untyped-def]
    refuse(command, 3, ["standard input is empty"], "predict", M, stdin=b"")


def test_predict_refuses_a_kept_column_with_the_name_of_an_answer(command, model) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text("size,town,prediction\n1,Ulm,4\n")
    refuse(command, 2, ["'prediction'", "rename"], "predict", M, "t.csv", "--keep", "prediction")


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", ["empty"]),
        (lambda data: data[: len(data) // 3], ["cut short"]),
        (lambda data: data[:-1], ["damaged", "Copy it again"]),
        (lambda data: flipped(data, len(data) - 20), ["damaged"]),
        (lambda data: flipped(data, 200), ["damaged"]),
        (lambda data: data + b"x", ["damaged"]),
        (lambda data: b"PK\x03\x04" + data, ["not a model file"]),
        (lambda data: save({"a": np.zeros(3)}), ["not a model file"]),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate", "inspect"])
def test_a_damaged_or_foreign_model_is_refused(
    command, model, verb: str, damage, words: list[str]
) -> None:  # type: ignore[no-untyped-def]
    Path("bad.layerwise").write_bytes(damage(model["numbers"]))
    table = [] if verb == "inspect" else ["new.csv"]
    refuse(command, 1, ["bad.layerwise", *words], verb, "bad.layerwise", *table)


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("numbers", "size,town\n1,Ulm\n", 3, ["t.csv", "'price'"]),
        ("numbers", "size,town,price\n1,Ulm,abc\n", 3, ["t.csv row 1", "'price'", "'abc'"]),
        ("numbers", "size,town,price\n1,Ulm,\n", 3, ["t.csv", "no rows"]),
        ("numbers", "size,town,price\n1,Ulm,inf\n", 3, ["t.csv row 1", "infinity"]),
        ("classes", "size,town,price\n1,Ulm,giant\n", 3, ["t.csv", "no rows"]),
    ],
)
def test_evaluate_refuses_rows_without_a_known_target(
    command, model, name: str, data: str, code: int, words: list[str]
) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(data)
    refuse(command, code, words, "evaluate", f"{name}.layerwise", "t.csv")


def test_formulas_in_cells_are_made_harmless(command, model) -> None:  # type: ignore[no-untyped-def]
    result = command("predict", M, "new.csv", "--keep", "who", "-o", "x.csv")
    assert result.code == 0
    cells = [line.split(",")[0] for line in Path("x.csv").read_text().splitlines()]
    assert cells == ["who", "'=cmd()", "+49", "'-x"]
    assert "2 cells" in result.err


def test_a_full_device_is_said_and_not_replaced(command, model) -> None:  # type: ignore[no-untyped-def]
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    refuse(command, 1, ["/dev/full", "no space"], "predict", M, "new.csv", "-o", "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_an_odd_run_record_is_refused(command) -> None:  # type: ignore[no-untyped-def]
    Path("run").mkdir()
    for text in ("{", "[]", '{"status": "done"}'):
        Path("run/run.json").write_text(text)
        refuse(command, 1, ["run.json"], "compare", "run")
        refuse(command, 1, ["run.json"], "train", "--resume", "run")


# ---------------------------------------------------------------- the same words in Python


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"target": "prize"}, DataError, "Did you mean 'price'"),
        ({"target": None}, SettingError, "--target"),
        ({"drop": "sise"}, DataError, "'sise'"),
        ({"weights": "price"}, SettingError, "--weights"),
        ({"valid": 2}, SettingError, "below 1"),
        ({"valid": True}, SettingError, "share"),
        ({"lr": "abc"}, SettingError, "lr has to be a number"),
        ({"learning": 1}, SettingError, "unknown setting 'learning'"),
        ({"class_weight": {"big": "x"}}, SettingError, "regression"),
        ({"time": "town"}, DataError, "cannot order"),
        ({"lr": 1e30, "optimizer": "sgd", "batch_size": 4}, TrainingError, "learning rate"),
        ({"out": "t.csv"}, OutputError, "name a folder"),
    ],
)
def test_python_raises_the_same_words(
    arguments: dict, kind: type[LayerwiseError], words: str
) -> None:  # type: ignore[type-arg]
    Path("t.csv").write_text(GOOD)
    settings = {"target": "price", "epochs": 2, "hidden_layer_sizes": 4, "baselines": False}
    before = tree(Path())
    with pytest.raises(kind, match=words):
        layerwise.train("t.csv", **{**settings, "out": "run", "dtype": "float32", **arguments})
    assert tree(Path()) == before


def test_a_full_disk_later_keeps_what_the_checkpoint_has(command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    Path("t.csv").write_text(GOOD)
    event = folder.Keeper._event

    def full(keeper: folder.Keeper, what: dict) -> None:  # type: ignore[type-arg]
        if what["event"] == "epoch" and what["row"]["epoch"] == 2:
            raise OutputError("no space is left on the disk")
        event(keeper, what)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Keeper, "_event", full)
        result = command("train", "t.csv", "-t", "price", *FAST)
    assert result.code == 1
    assert "no space" in result.err
    assert Path("run/checkpoint.layerwise").exists()
    assert command("train", "--resume", "run").code == 0
    assert not Path("run/checkpoint.layerwise").exists()
    assert Path("run/model.layerwise").exists()
