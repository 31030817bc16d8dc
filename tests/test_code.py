"""The code of a run: without layerwise it ends where the run has ended, and reads well."""

from __future__ import annotations

import ast
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics  # noqa: F401  imported here, it needs no second process in every training
import torch
from ruff import find_ruff_bin

from layerwise import NetworkClassifier, NetworkRegressor, train
from layerwise.code.loop import OPTIMIZERS
from layerwise.code.script import predict_script
from layerwise.code.words import assign, docstring, plain, quoted
from layerwise.errors import DataError, ModelFileError, SettingError
from layerwise.run import Run
from layerwise.training.optimizer import OPTIMIZERS as KNOWN

QUICK = {
    "epochs": 4, "hidden_layer_sizes": (8, 5), "lr": 0.02, "batch_size": 32, "baselines": False,
    "engine": "torch", "members": 1,
}  # fmt: skip
MODULES = {"copy", "glob", "gzip", "json", "math", "sys", "pathlib", "numpy", "pandas", "torch"}
NUMBERS = ["size", "zeros", "rooms", "depth"]
DATES = {"seen": "date:%d.%m.%Y"}
ROLES = {"roles": DATES, "drop": ["weight", "group", "block", "time"]}


def _table(n: int = 260) -> pd.DataFrame:
    """Every kind of column, with gaps, and three targets."""
    rng = np.random.default_rng(0)
    days = pd.Series(pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 1500, n), "D"))
    hours = pd.Timestamp("2020-06-01") + pd.to_timedelta(rng.integers(0, 9000, n), "h")
    size, town = rng.lognormal(4, 1, n).round(2), rng.choice(["Bonn", "Köln", 'a, "b"', "Ulm"], n)
    depth = rng.normal(0, 1, n).round(6)  # no two rows are alike, whose order rounding would decide
    zeros = np.where(rng.random(n) < 0.7, 0, rng.normal(3, 1, n).round(3))  # its quartiles are 0
    new = rng.random(n) < 0.4
    cuts = [0.4, 0.8]
    price = 3 * np.log(size) + zeros + 4 * (town == "Ulm") + 2 * new + rng.normal(0, 1, n)
    table = pd.DataFrame(
        {
            "size": size, "depth": depth, "new": np.where(new, "True", "false"), "zeros": zeros,
            "town": np.where(np.arange(n) == 77, "It's rare", town), "rooms": rng.integers(1, 9, n),
            "street": rng.choice([f"s{i:02}" for i in range(50)], n),
            "day": days.dt.strftime("%Y-%m-%d"), "seen": days.dt.strftime("%d.%m.%Y"),
            "at": pd.Series(hours).dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
            "weight": rng.choice([0, 1, 2, 0.5], n), "group": rng.choice(list("abcdefghijklm"), n),
            "block": rng.integers(0, 25, n), "time": rng.integers(0, 90, n),
            "price": price.round(3), "sold": np.where(price > np.median(price), "yes", "no"),
            "band": np.array(["low", "mid", "top"])[np.digitize(price, np.quantile(price, cuts))],
            "dear": price > np.median(price),
        }
    ).astype(object)  # fmt: skip
    for name, share in (("size", 0.1), ("town", 0.05), ("new", 0.1), ("at", 0.05), ("group", 0.02)):
        table.loc[rng.random(n) < share, name] = None
    return table


TABLE = _table()
TARGETS = ["price", "sold", "band", "dear"]


def _write(path, columns=None, rows=slice(None), **options):
    (TABLE if columns is None else TABLE[columns]).iloc[rows].to_csv(path, index=False, **options)
    return str(path)


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    """In a folder of its own; a script sets torch's threads and random state, which come back."""
    monkeypatch.chdir(tmp_path)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.random.set_rng_state(state)


def _checked(text: str, name: str = "script.py") -> Path:
    """The script's file, if it imports nothing it should not, and reads as ruff wants it to."""
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported <= MODULES
    path = Path(name)
    path.write_text(text, "utf-8")
    rules = ["--select", "E,F,W,I,B,UP,C4,SIM,RUF,NPY", "--ignore", "B905,RUF001"]
    for asked in (["check", *rules], ["format", "--diff"]):
        flags = ["--isolated", "--line-length", "100", str(path)]
        done = subprocess.run([find_ruff_bin(), *asked, *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return path


def _run(path: Path, monkeypatch, capsys, *arguments: str) -> tuple[dict, str]:
    """What the script has at its end, and what it printed."""
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        names = runpy.run_path(str(path))
    return names, capsys.readouterr().out


def _assert_same(run: Run, names: dict) -> None:
    """The same metrics, best epoch and weights, to the last bit."""
    assert set(names["metrics"]) == set(run.metrics)
    for name, value in run.metrics.items():
        assert names["metrics"][name] == pytest.approx(value, rel=1e-10, abs=1e-10), name
    if run.history.members:
        assert names["best_epochs"] == [member.best_epoch for member in run.history.members]
        assert names["last_epochs"] == [len(member) for member in run.history.members]
        networks = [network.state_dict() for network in names["bag"]]
    else:
        assert names["best_epoch"] == run.history.best_epoch
        assert names["epoch"] == len(run.history)
        networks = [names["best_weights"]]
    for member, weights in zip(run.model.members, networks, strict=True):
        for ours, theirs in zip(member.values(), weights.values(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def trip(monkeypatch, capsys):
    """Train, ask for the code, run it, and compare; returns the script."""

    def go(source, target, *arguments, **settings) -> str:
        run = train(source, target, **{**QUICK, **settings})
        text = run.code()
        names, printed = _run(_checked(text), monkeypatch, capsys, *arguments)
        _assert_same(run, names)
        for name in run.metrics:
            assert f"{name}  " in printed
        return text

    return go


# ---------------------------------------------------------------- it ends where the run ended


@pytest.mark.parametrize("target", TARGETS)
def test_with_every_kind_of_column(trip, target):
    others = [name for name in TARGETS if name != target]
    trip(_write("t.csv"), target, roles=DATES, drop=[*ROLES["drop"], *others])


@pytest.mark.parametrize("target", TARGETS[:3])
def test_with_row_weights(trip, target):
    others = [name for name in TARGETS if name != target]
    settings = {"roles": DATES, "drop": ["group", "block", "time", *others]}
    trip(_write("t.csv"), target, weights="weight", **settings)


@pytest.mark.parametrize("said", ["balanced", {"yes": 3}])
@pytest.mark.parametrize("weights", [None, "weight"])
def test_with_class_weights(trip, said, weights):
    table = _write("t.csv", [*NUMBERS, "sold", "weight"])
    drop = [] if weights else ["weight"]
    trip(table, "sold", class_weight=said, weights=weights, drop=drop)


SPLITS = {
    "by group": {"group": "group"},
    "by numbered group": {"group": "block"},
    "by time": {"time": "time"},
    "by date": {"time": "seen", "roles": DATES},
    "without validation": {"valid": 0},
    "without a test": {"test": 0},
    "without either": {"valid": 0, "test": 0},
    "by group, no test": {"group": "group", "test": 0},
    "by time, no validation": {"time": "time", "valid": 0},
}


BAGS = {
    "price": {"target": "price", "members": 3},
    "sold": {"target": "sold", "members": 2, "dropout": 0.1, "schedule": "cosine", "warmup": 0.1},
    "band": {"target": "band", "members": 6, "bins": 4, "norm": "batch"},
    "bins": {"target": "price", "members": 2, "bins": 8, "drop_also": ["street"]},
    "one": {"target": "price", "members": 1, "bins": 8, "drop_also": ["street", "town", "new"]},
    "weights": {"target": "price", "members": 2, "weights": "weight", "bins": 5},
    "class weights": {"target": "sold", "members": 2, "class_weight": "balanced"},
    "group": {"target": "price", "members": 3, "group": "group"},
    "time": {"target": "sold", "members": 2, "time": "time"},
    "no test": {"target": "sold", "members": 7, "test": 0},
    "no test, few": {"target": "price", "members": 3, "test": 0, "monitor": "mae"},
    "no valid": {"target": "band", "members": 2, "valid": 0},
    "one row more": {"target": "sold", "members": 5, "batch_size": 33},
    "plain optimizer": {"target": "price", "members": 2, "optimizer": "rprop"},
    "lbfgs": {"target": "price", "members": 2, "optimizer": "lbfgs", "epochs": 2},
}


@pytest.mark.parametrize("name", BAGS)
def test_with_several_networks(trip, name):
    settings = {"epochs": 3, **BAGS[name]}
    target, also = settings.pop("target"), settings.pop("drop_also", [])
    others = [one for one in TARGETS if one != target]
    special = [settings.get(one) for one in ("weights", "group", "time")]
    drop = [one for one in [*ROLES["drop"], *others, *also] if one not in special]
    trip(_write("t.csv"), target, roles=DATES, drop=drop, **settings)


@pytest.mark.parametrize("split", SPLITS)
def test_with_every_split(trip, split):
    said = SPLITS[split]
    extra = [name for name in (said.get("group"), said.get("time")) if name]
    target = "price" if "no" in split else "band"
    trip(_write("t.csv", [*NUMBERS, *extra, target]), target, **said)


@pytest.mark.parametrize("own", [("valid",), ("test",), ("valid", "test")])
def test_with_tables_of_their_own(trip, own):
    columns = [*NUMBERS, "town", "band"]
    table = _write("t.csv", columns, slice(0, 180))
    rows = {"valid": slice(180, 220), "test": slice(220, 260)}
    trip(table, "band", **{name: _write(f"{name}.csv", columns, rows[name]) for name in own})


def test_with_a_class_of_one_row_and_a_class_that_no_training_row_has(trip):
    table = TABLE[[*NUMBERS, "band"]].copy()
    table.loc[5, "band"] = "only"
    table.iloc[:200].to_csv("t.csv", index=False)
    table.loc[230:, "band"] = "never"
    table.iloc[200:].to_csv("v.csv", index=False)
    trip("t.csv", "band", test="v.csv")


SCHEDULES = ["cosine", "linear", "exponential", "step", "one_cycle"]


@pytest.mark.parametrize(("schedule", "warmup"), [*((s, 0) for s in SCHEDULES), ("constant", 0.3)])
def test_with_every_schedule(trip, schedule, warmup):
    table = _write("t.csv", [*NUMBERS, "price"])
    trip(table, "price", schedule=schedule, warmup=warmup)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_with_every_optimizer(trip, optimizer):
    trip(
        _write("t.csv", [*NUMBERS, "sold"]),
        "sold",
        optimizer=optimizer.lower(),
        epochs=2,
        batch_size=90,
    )


OTHERS = {
    "an optimizer's options": {"optimizer": "sgd", "optimizer_options": {"nesterov": True}},
    "no decay": {"weight_decay": 0, "optimizer_options": {"betas": [0.8, 0.99]}},
    "clipping": {"clip_norm": 0.5, "clip_value": 0.1},
    "clipped LBFGS, norm and dropout": {
        "optimizer": "lbfgs", "lr": 0.5, "norm": "batch", "dropout": 0.2, "clip_norm": 1.0,
        "schedule": "cosine", "warmup": 0.1, "epochs": 2, "batch_size": 90,
    },
    "batch norm and dropout": {"norm": "batch", "dropout": 0.3},
    "layer norm": {"norm": "layer", "activation": "gelu"},
    "a saturating activation": {"activation": "tanh"},
    "a self-normalising one": {"activation": "selu"},
    "no hidden layer": {"hidden_layer_sizes": 0},
    "another loss": {"loss": "huber"}, "absolute errors": {"loss": "l1"},
    "a lone last row": {"batch_size": 13, "schedule": "linear", "norm": "batch"},
    "batches of one row": {"batch_size": 1, "epochs": 1, "schedule": "linear"},
    "float64": {"dtype": "float64", "batch_size": "auto"},
    "a metric that decides": {"monitor": "r2", "min_delta": 0.001},
    "another metric that decides": {"monitor": "median_error"},
    "early stopping": {"epochs": 60, "patience": 2},
    "another seed": {"random_state": 12345},
    "the device of the machine": {"device": "auto", "monitor": "rmse"},
    "a callback that ends it": {
        "callbacks": [lambda end: end.row["epoch"] == 2], "schedule": "cosine",
    },
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_with(trip, what):
    trip(_write("t.csv", [*NUMBERS, "price"]), "price", **OTHERS[what])


def test_with_weights_where_a_metric_decides(trip):
    table = _write("t.csv", [*NUMBERS, "weight", "price", "sold"])
    trip(table, "sold", weights="weight", monitor="roc_auc", drop=["price"])
    trip(table, "price", weights="weight", monitor="median_error", drop=["sold"])


def test_with_few_rows_in_double_precision(trip):
    table = _write("t.csv", [*NUMBERS, "town", "band", "weight"], slice(0, 150))
    settings = {"batch_size": "auto", "lr": "auto", "epochs": 12}
    trip(table, "band", weights="weight", **settings)
    trip(table, "size", drop=["weight", "band"], **settings)


def test_with_more_rows_than_are_measured_at_once(trip, rng):
    x = rng.normal(size=(17_000, 2)).round(3)
    table = pd.DataFrame({"x": x[:, 0], "y": x[:, 1] + x[:, 0], "w": rng.random(17_000).round(2)})
    table.to_csv("t.csv", index=False)
    settings = {"valid": 0.5, "test": 0, "batch_size": 4096, "epochs": 2}
    trip("t.csv", "y", drop=["w"], **settings)
    trip("t.csv", "y", weights="w", monitor="mae", **settings)


# ---------------------------------------------------------------- as every table is written

MIXED = ["size", "new", "zeros", "town", "day", "price"]


@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("t.tsv", {"sep": "\t"}, {}),
        ("t.csv", {"sep": ";", "lineterminator": "\r\n"}, {}),
        ("t.psv", {"sep": "|"}, {}),
        ("t.csv", {"encoding": "latin-1"}, {"encoding": "latin-1"}),
        ("t.csv", {"encoding": "utf-8-sig"}, {}),
        ("t.csv", {"encoding": "utf-16"}, {"encoding": "utf-16"}),
        ("t.csv.gz", {}, {}),
    ],
)
def test_csv(trip, name, options, settings):
    trip(_write(name, MIXED, **options), "price", **settings)


def test_several_files(trip):
    _write("a1.csv", MIXED, slice(0, 100))
    _write("a2.csv", MIXED, slice(100, None))
    trip("a*.csv", "price")


def _typed() -> pd.DataFrame:
    """A table whose cells have types: true, 1 and 0.5 are no texts."""
    table = TABLE[["size", "town", "day", "zeros", "block", "price"]].copy()
    table["dear"] = (TABLE["price"] > 15).astype(bool)
    table["half"] = TABLE["rooms"].astype(float) + 0.5 * (TABLE["block"] > 12)
    return table.infer_objects()


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.jsonl.gz", "t*.jsonl"])
def test_json(trip, name):
    lines, table = name != "t.json", _typed()
    if "*" in name:
        table.iloc[:90].to_json("t1.jsonl", orient="records", lines=lines)
        table = table.iloc[90:]
    table.to_json(name.replace("*", "2"), orient="records", lines=lines)
    trip(name, "price", roles={"half": "category"})


def test_parquet(trip):
    table = _typed()
    table["day"], table["size"] = pd.to_datetime(table["day"]), table["size"].astype("float32")
    table["dear"] = table["dear"].astype("boolean").mask(table["block"] < 2)
    table["block"] = table["block"].astype("Int64").mask(table["block"] == 3)
    table["town"] = table["town"].astype("category")
    table.to_parquet("t.parquet")
    trip("t.parquet", "price", roles={"half": "category"})
    trip("t.parquet", "price", roles={"dear": "category", "block": "category"}, group="half")


@pytest.mark.parametrize("group", ["group", "block"])
def test_a_table_that_was_in_memory_is_expected_as_a_file(trip, group):
    _write("table.csv", [*MIXED, group])
    text = trip(TABLE[[*MIXED, group]], "price", group=group)
    assert "to_csv('table.csv', index=False)" in text.split('"""')[1]


def test_words_and_numbers_that_are_gaps(trip, rng):
    table = TABLE[[*NUMBERS, "town", "price"]].copy()
    table.loc[rng.random(len(table)) < 0.2, "zeros"] = "-999.0"
    table.loc[rng.random(len(table)) < 0.2, "size"] = " ? "
    table.loc[rng.random(len(table)) < 0.2, "price"] = -999
    table.to_csv("t.csv", index=False)
    trip("t.csv", "price", missing=["?", "-999"])


def test_roles_that_were_said(trip):
    table = TABLE[[*NUMBERS, "price"]].assign(flag=TABLE["dear"].astype(int))
    table.assign(rooms=table["rooms"].astype(float)).to_csv("t.csv", index=False)
    trip("t.csv", "price", roles={"rooms": "category", "flag": "boolean"})


def test_columns_that_say_little(trip, rng):
    table = TABLE[["size", "price"]].copy()
    table["once"] = (np.arange(len(table)) == len(table) - 1).astype(int)
    table["far"] = np.where(np.arange(len(table)) % 50 == 7, 1e9, rng.normal(size=len(table)))
    table.to_csv("t.csv", index=False)
    trip("t.csv", "price", test=0, valid=0.1)


def test_many_levels(trip, rng):
    names = [f"k{i:04}" for i in rng.integers(0, 1300, 5200)]
    pd.DataFrame({"k": names, "y": rng.normal(size=5200)}).to_csv("t.csv", index=False)
    trip("t.csv", "y", epochs=1)


def test_a_delimiter_at_the_end_of_each_line(trip, rng):
    lines = [f"{x:.3f},{y:.3f},{x + y:.4f}," for x, y in rng.normal(size=(250, 2))]
    Path("t.csv").write_text("\n".join(["a,b,c", *lines]))
    trip("t.csv", "c")


def test_names_cannot_become_code(trip, rng):
    names = ['a "q"', "b\\'n", '"""\nprint(1)', "{{ 1 }}", "# c", "'\"'"]
    table = pd.DataFrame(rng.normal(size=(250, 6)), columns=names)
    table["#\n'''"] = rng.choice(["u", '"', "\\"], 250)
    table.to_csv("it's.csv", index=False)
    trip("it's.csv", "{{ 1 }}")
    trip("it's.csv", '"""\nprint(1)')


def test_another_table_as_an_argument(trip):
    table = _write("t.csv", [*NUMBERS, "price"])
    Path("moved.csv").write_bytes(Path(table).read_bytes())
    trip(table, "price", "moved.csv")


def test_a_table_that_is_gone_or_has_changed_since(monkeypatch, capsys):
    columns = [*NUMBERS, "town", "day", "block", "band"]
    run = train(_write("t.csv", columns), "band", group="block", **QUICK)
    plain = run.code()
    Path("t.csv").rename("moved.csv")
    text = run.code()
    names, _ = _run(_checked(text), monkeypatch, capsys, "moved.csv")
    _assert_same(run, names)
    assert len(text) > len(plain)  # what the table could have shown not to be needed
    _write("t.csv", columns, slice(0, 200))
    assert run.code() == text


# ---------------------------------------------------------------- it reads well


def test_it_has_only_what_the_run_needs():
    run = train(_write("t.csv", ["size", "rooms", "price"]), "price", **QUICK)
    text = run.code()
    assert text.count("\n") < 190
    for word in (
        "category",
        "boolean",
        "to_datetime",
        "weights=",
        "schedule",
        "InputLayer",
        "clip",
    ):
        assert word not in text
    assert '"size"' in text
    assert "LEARNING_RATE = 0.02" in text
    assert "nn.Linear(8, 5)" in text


def test_it_runs_by_itself_in_another_process():
    run = train(_write("t.csv", [*NUMBERS, "sold"]), "sold", **QUICK)
    _checked(run.code(), "train.py")
    hide = "import runpy, sys; sys.modules['layerwise'] = sys.modules['sklearn'] = None; "
    code = hide + "runpy.run_path('train.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines() if line.startswith(" "))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        run.metrics, abs=1e-6
    )


def test_the_table_of_optimizers_is_torchs():
    assert {name.lower() for name in OPTIMIZERS} == set(KNOWN)
    for name, said in OPTIMIZERS.items():
        accepted = set(KNOWN[name.lower()].__init__.__annotations__)
        accepted -= {"weight_decay"} if name == "LBFGS" else set()
        assert set(said) == accepted & {"weight_decay", "momentum", "fused"}, name


@pytest.mark.parametrize(
    "text", ["", "a", 'a"', "a'", "a'\"", "\\", "\\'", '\\"\n', "é\x00\u2028", "'''"]
)
def test_quoted_text_is_the_text(text):
    assert ast.literal_eval(quoted(text)) == text
    assert (
        ast.literal_eval(
            assign("x", [quoted(text)] * 40, "note").split(" = ")[1].split("  # fmt")[0]
        )
        == [text] * 40
    )
    assert isinstance(
        ast.parse(docstring(plain(text) or "title", "text", "    code")).body[0], ast.Expr
    )


# ---------------------------------------------------------------- the trained network alone


def _answers(text, rows, monkeypatch, capsys) -> pd.DataFrame:
    _, printed = _run(_checked(text, "predict.py"), monkeypatch, capsys, rows)
    return pd.read_csv(io.StringIO(printed), dtype={"prediction": str}, keep_default_na=False)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"norm": "batch", "dropout": 0.1, "dtype": "float64"}, {"members": 3, "bins": 6}],
)
def test_predicting_alone_answers_as_predict_does(target, settings, command, monkeypatch, capsys):
    others = [name for name in TARGETS if name != target]
    drop = [*ROLES["drop"], *others]
    train(_write("t.csv"), target, out="run", roles=DATES, drop=drop, **{**QUICK, **settings})
    new = TABLE.drop(columns=target).copy()
    new.loc[3:5, ["size", "town", "new", "day", "at", "rooms"]] = None
    new.loc[7, ["town", "size"]] = ["Nowhere", 1e9]
    new.to_csv("new.csv", index=False)
    proba = [] if target == "price" else ["-p"]
    assert command("predict", "run", "new.csv", "-o", "theirs.csv", "-q", *proba).code == 0
    assert command("code", "run", "--predict-only", "-o", "predict.py").code == 0
    ours = _answers(Path("predict.py").read_text("utf-8"), "new.csv", monkeypatch, capsys)
    theirs = pd.read_csv("theirs.csv", dtype={"prediction": str}, keep_default_na=False)
    assert list(ours) == list(theirs)
    if target == "price":
        ours, theirs = ours.astype(float), theirs.astype(float)
    else:
        assert (ours["prediction"] == theirs["prediction"]).all()
    numbers = [name for name in ours if name != "prediction" or target == "price"]
    np.testing.assert_allclose(ours[numbers], theirs[numbers], rtol=1e-9, atol=1e-9)


def test_predicting_alone_from_a_model_file(monkeypatch, capsys):
    X, y = TABLE[["zeros", "town"]], TABLE["rooms"].to_numpy(int)
    X.to_csv("new.csv", index=False)
    for network, answers in (
        (NetworkRegressor((3,), epochs=1), np.column_stack([y, y**2]).astype(float)),
        (NetworkClassifier((3,), epochs=1), np.column_stack([y > 3, y > 5, y > 2]).astype(int)),
        (NetworkClassifier((3,), epochs=1), y),
    ):
        network.fit(X, answers)
        network.model_.save("m.layerwise")
        found = _answers(
            predict_script(network.model_, Path("m.layerwise")), "new.csv", monkeypatch, capsys
        )
        expected = network.predict(X)
        columns = 1 if expected.ndim == 1 else expected.shape[1]
        np.testing.assert_allclose(
            found.iloc[:, :columns].astype(float).to_numpy().reshape(expected.shape),
            expected,
            rtol=1e-9,
        )


def test_predicting_alone_in_python():
    table = TABLE[[*NUMBERS, "price"]]
    kept, loose = train(table, "price", out="run", **QUICK), train(table, "price", **QUICK)
    model = str(Path("run") / "model.layerwise")
    assert f"MODEL = Path({quoted(model)})" in kept.code(predict_only=True)
    assert 'Path(__file__).with_suffix(".layerwise")' in loose.code(predict_only=True)


# ---------------------------------------------------------------- the command, and what has no code


@pytest.fixture
def run_folder():
    train(_write("t.csv", [*NUMBERS, "price"]), "price", out="run", **QUICK)
    return Path("run")


def test_the_command_writes_the_script_or_prints_it(run_folder, command):
    shown = command("code", run_folder)
    assert shown.code == 0
    assert shown.out == Run.load(run_folder).code()
    assert 'else "t.csv"' in shown.out  # from the folder of the training
    written = command("code", run_folder, "-o", "train.py")
    assert (written.code, written.out) == (0, "")
    assert Path("train.py").read_text("utf-8") == shown.out
    assert "python train.py" in written.err


def test_predicting_alone_copies_the_model_beside_the_script(run_folder, command):
    saved = (run_folder / "model.layerwise").read_bytes()
    assert command("code", run_folder, "--predict-only", "-o", "p.py").code == 0
    assert Path("p.layerwise").read_bytes() == saved
    inside = command("code", run_folder, "--predict-only", "-o", run_folder / "model.py")
    assert inside.code == 0
    assert (run_folder / "model.layerwise").read_bytes() == saved
    file = command("code", run_folder / "model.layerwise", "--predict-only")
    assert "MODEL = Path(" in file.out


def test_the_command_refuses_what_it_cannot_write(run_folder, command):
    for out, words in ((".", "is a folder"), ("no/train.py", "does not exist"), ("train", ".py")):
        refused = command("code", run_folder, "-o", out)
        assert refused.code != 0
        assert words in refused.err
    assert command("code", "nowhere").code == 1
    assert "no model" in command("code", "nowhere", "--predict-only").err


def test_a_run_that_is_not_complete_has_no_code(run_folder):
    record = json.loads((run_folder / "run.json").read_text("utf-8"))
    del record["metrics"]
    (run_folder / "run.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(ModelFileError, match="not complete"):
        Run.load(run_folder)


def test_what_pandas_cannot_read_again_has_no_code(monkeypatch):
    table = _write("t.csv", [*NUMBERS, "price"])
    asked = train(None, "price", sql=f"select * from '{table}'", **QUICK)
    with pytest.raises(SettingError, match=r"SQL query.*train on that file"):
        asked.code()
    assert "read_csv" in asked.code(predict_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(table).read_bytes())))
        piped = train("-", "price", **QUICK)
    with pytest.raises(SettingError, match=r"standard input.*train on that file"):
        piped.code()
    _write("test.tsv", [*NUMBERS, "price"], sep="\t")
    mixed = train(table, "price", test="test.tsv", **QUICK)
    with pytest.raises(SettingError, match="not all written in one way"):
        mixed.code()


def test_cells_that_pandas_would_read_otherwise_have_no_code():
    rows = [f'{i % 7}, "{"xyz"[i % 3]}",{i % 5}.5' for i in range(250)]
    Path("t.csv").write_text("\n".join(["a,b,c", *rows]))
    run = train("t.csv", "c", task="regression", **QUICK)
    with pytest.raises(DataError, match=r"row 1, column 'b'.*spaces around it"):
        run.code()


def test_a_run_cut_within_its_first_epoch_has_no_code():
    run = train(_write("t.csv", [*NUMBERS, "price"]), "price", time_limit=1e-9, **QUICK)
    with pytest.raises(SettingError, match="in its first epoch"):
        run.code()


def test_typed_dates_that_were_read_as_numbers_have_no_code():
    table = _typed()
    table["day"] = pd.to_datetime(table["day"])
    table.to_parquet("t.parquet")
    run = train("t.parquet", "price", roles={"day": "number"}, **QUICK)
    with pytest.raises(SettingError, match="'day' has dates"):
        run.code()
