"""Every command from end to end on a small table, its help, its streams and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import typer

from layerwise import folder
from layerwise.cli import app
from layerwise.training.recipe import SETTINGS

FAST = ["--epochs", "2", "--members", "1", "--no-baselines", "--hidden", "4"]
COMMANDS = ["train", "predict", "evaluate", "inspect", "compare", "schema"]
TOWNS = ["Bonn", "Ulm", "Kiel"]
HEADER = "size,town,day,house,w,price,kind\n"


def row(i: int) -> str:
    """A house: its price is three times its size, and those above 8 are big."""
    a = i * 7 % 17
    kind = "big" if a > 8 else "small"
    day = f"2024-{i % 9 + 1:02}-{i % 28 + 1:02}"
    return f"{a}.5,{TOWNS[i % 3]},{day},h{i // 3},{i % 3},{3 * a}.25,{kind}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder of its own, with a table and without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "houses.csv").write_text(HEADER + "".join(map(row, range(60))))
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run for each task."""
    import layerwise

    folder = tmp_path_factory.mktemp("trained")
    path = folder / "houses.csv"
    path.write_text(HEADER + "".join(map(row, range(60))))
    for target in ("price", "kind"):
        drop = {"price", "kind"} - {target}
        layerwise.train(
            path, target, drop=drop, epochs=1, hidden_layer_sizes=4, baselines=False,
            out=folder / target,
        )  # fmt: skip
    return folder


def shell(*argv: object, **more: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    call = [sys.executable, "-m", "layerwise", *map(str, argv)]
    return subprocess.run(call, capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload,no-any-return]


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_each_flag_has_help(command, name: str) -> None:  # type: ignore[no-untyped-def]
    result = command(name, "--help")
    assert result.code == 0
    assert "Traceback" not in result.err
    parsed = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert parsed.help
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.out).split())
    for parameter in parsed.params:
        assert parameter.help, parameter.name
        assert parameter.help.split()[0] in shown
        if parameter.opts[0].startswith("--") and len(parameter.opts[0]) < 15:
            assert parameter.opts[0] in shown
    assert max(map(len, result.out.splitlines())) <= 80


def test_every_setting_of_the_recipe_is_a_flag(command) -> None:  # type: ignore[no-untyped-def]
    parsed = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    flags = {parameter.name for parameter in parsed.params}
    assert set(SETTINGS) <= flags


def test_without_a_command_the_help_is_shown(command) -> None:  # type: ignore[no-untyped-def]
    result = command()
    assert result.code == 2
    assert all(name in result.out for name in COMMANDS)
    assert not result.err


def test_help_and_use_of_a_model_import_no_torch(trained: Path) -> None:
    """One process for all of them: torch must not be there after any."""
    code = """
import sys
from layerwise.__main__ import main
for argv in (["--help"], ["--version"], ["train", "--help"], ["schema", "houses.csv"],
             ["predict", {run!r}, "houses.csv"], ["evaluate", {run!r}, "houses.csv"],
             ["inspect", {run!r}], ["compare", {run!r}], ["train", "houses.csv"]):
    sys.argv = ["layerwise", *argv]
    try:
        main()
    except SystemExit as stopped:
        assert (stopped.code or 0) == (2 if argv == ["train", "houses.csv"] else 0), argv
    assert "torch" not in sys.modules, argv
"""
    call = [sys.executable, "-c", code.replace("{run!r}", repr(str(trained / "price")))]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- train


def test_train_shows_the_result_on_stdout_and_the_way_on_stderr(command) -> None:  # type: ignore[no-untyped-def]
    result = command("train", "houses.csv", "-t", "price", "--drop", "kind", *FAST, "--out", "run")
    assert result.code == 0
    assert "price: regression" in result.out
    assert "layerwise predict run" in result.out
    assert "epoch 1/2" in result.err
    assert "epoch 1/2" not in result.out
    assert max(map(len, (result.out + result.err).splitlines())) <= 80
    files = sorted(path.name for path in Path("run").iterdir())
    assert files == [
        "history.jsonl", "model.layerwise", "report.html", "run.json", "schema.toml",
    ]  # fmt: skip


def test_train_without_out_names_a_folder_after_the_table(command) -> None:  # type: ignore[no-untyped-def]
    for _ in range(2):
        assert command("train", "houses.csv", "-t", "price", *FAST, "-q").code == 0
    names = [path.name for path in Path("runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("houses-") for name in names)


def test_train_with_baselines_compares_them(command) -> None:  # type: ignore[no-untyped-def]
    argv = ["train", "houses.csv", "-t", "price", "--epochs", "1", "--hidden", "4", "--json", "-q"]
    record = json.loads(command(*argv).out)
    assert set(record["baselines"]) == {"constant", "linear", "boosted trees"}


def test_json_is_one_object_and_nothing_else(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    run, classes = trained / "price", trained / "kind"
    for argv in (
        ["train", "houses.csv", "-t", "kind", *FAST, "--out", "run"],
        ["predict", run, "houses.csv"],
        ["predict", classes, "houses.csv", "-p", "--keep", "day"],
        ["predict", run, "houses.csv", "-o", "x.csv"],
        ["evaluate", classes, "houses.csv"],
        ["inspect", run],
        ["compare", run, classes],
        ["schema", "houses.csv"],
    ):
        result = command(*argv, "--json")
        assert result.code == 0, result.err
        assert len(result.out.splitlines()) == 1
        json.loads(result.out, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def test_quiet_says_nothing_beside_the_result(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    Path("new.csv").write_text("size,town,day,house,w\n999,Rome,2024-01-01,h1,1\n")
    assert command("predict", trained / "price", "new.csv").err
    assert not command("predict", trained / "price", "new.csv", "-q").err
    assert not command("train", "houses.csv", "-t", "price", *FAST, "-q").err


def test_no_colours_where_none_are_wanted(command) -> None:  # type: ignore[no-untyped-def]
    for argv in (["--help"], ["train", "--help"], ["schema", "houses.csv"], ["trian"]):
        result = command(*argv)
        assert "\x1b" not in result.out + result.err


def test_schema_is_written_edited_and_enforced(command) -> None:  # type: ignore[no-untyped-def]
    result = command("schema", "houses.csv", "-t", "price", "-o", "s.toml")
    assert result.code == 0
    assert not result.out
    assert "--schema s.toml" in result.err
    path = Path("s.toml")
    path.write_text(re.sub(r'(columns."kind"\].*\nrole = )"\w+"', r'\1"ignore"', path.read_text()))
    argv = ["train", "houses.csv", "--schema", "s.toml", *FAST, "--out", "run", "-q"]
    assert command(*argv).code == 0
    columns = json.loads(command("inspect", "run", "--json").out)["columns"]
    roles = {column["name"]: column["role"] for column in columns}
    assert roles["kind"] == "ignore"
    assert roles["price"] == "target"


def test_flags_say_what_columns_are(command) -> None:  # type: ignore[no-untyped-def]
    argv = ["--as", "w=category", "--drop", "kind", "--drop", "house", "--missing", "Kiel"]
    command("train", "houses.csv", "-t", "price", *FAST, *argv, "--out", "run", "-q")
    found = json.loads(command("inspect", "run", "--json").out)
    roles = {column["name"]: column["role"] for column in found["columns"]}
    assert (roles["w"], roles["kind"], roles["house"]) == ("category", "ignore", "ignore")


def test_sql_and_glob_read_the_same_rows(command) -> None:  # type: ignore[no-untyped-def]
    Path("a-1.csv").write_text(HEADER + "".join(map(row, range(30))))
    Path("a-2.csv").write_text(HEADER + "".join(map(row, range(30, 60))))
    records = []
    for argv in (["houses.csv"], ["a-*.csv"], ["--sql", "select * from 'houses.csv'"]):
        result = command("train", *argv, "-t", "price", *FAST, "--json", "-q")
        assert result.code == 0, result.err
        records.append(json.loads(result.out))
    assert records[0]["metrics"] == records[1]["metrics"] == records[2]["metrics"]


def test_standard_input_is_a_table(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    data = Path("houses.csv").read_bytes()
    result = command("train", "-", "-t", "price", *FAST, "--out", "run", stdin=data)
    assert result.code == 0, result.err
    piped = command("predict", trained / "price", stdin=data)
    assert piped.out == command("predict", trained / "price", "houses.csv").out


def test_weights_and_class_weights_count(command) -> None:  # type: ignore[no-untyped-def]
    argv = ["train", "houses.csv", "-t", "kind", "--drop", "price", *FAST, "--json"]
    plain = json.loads(command(*argv, "-q").out)
    weighted = command(*argv, "--weights", "w")
    assert "20 rows of weight 0 are left out" in weighted.err
    assert sum(json.loads(weighted.out)["data"]["rows"].values()) == 40
    for said in ("balanced", "big=3,small=1"):
        result = command(*argv, "--class-weight", said, "-q")
        assert result.code == 0, result.err
        assert json.loads(result.out)["metrics"] != plain["metrics"]


def test_rows_are_split_by_group_by_time_and_by_tables_of_their_own(command) -> None:  # type: ignore[no-untyped-def]
    Path("v.csv").write_text(HEADER + "".join(map(row, range(60, 70))))
    argv = ["train", "houses.csv", "-t", "price", *FAST, "--json", "-q"]
    splits = []
    for flags in (["--group", "house"], ["--time", "day"], ["--time", "day", "--drop", "day"]):
        result = command(*argv, *flags)
        assert result.code == 0, result.err
        splits.append(json.loads(result.out)["data"]["split"])
    assert "20 groups" in splits[0]
    assert splits[1] == splits[2] == "by time, the latest for the test"
    own = json.loads(command(*argv, "--valid", "v.csv", "--test", "v.csv").out)
    assert own["data"]["rows"] == {"train": 60, "valid": 10, "test": 10}


def test_a_row_counter_can_be_the_time(command) -> None:  # type: ignore[no-untyped-def]
    lines = ["step,size,price", *(f"{i},{i * 7 % 17},{i % 13}.5" for i in range(40))]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    result = command("train", "t.csv", "-t", "price", "--time", "step", *FAST, "--json")
    assert result.code == 0, result.err
    assert "'step' is left out (identifier)" in result.err


# ---------------------------------------------------------------- use and compare


def test_predict_writes_each_format(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    run = trained / "kind"
    shown = command("predict", run, "houses.csv", "-p", "--keep", "town")
    assert shown.out.splitlines()[0] == "town,prediction,probability big,probability small"
    assert len(shown.out.splitlines()) == 61
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        result = command("predict", run, "houses.csv", "-p", "--keep", "town", "-o", name)
        assert result.code == 0, result.err
        assert not result.out
        assert "60 rows" in result.err
    assert Path("a.csv").read_text() == shown.out
    assert Path("a.tsv").read_text() == shown.out.replace(",", "\t")
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    parquet = duckdb.sql("select * from 'a.parquet'").fetchall()
    assert [tuple(one.values()) for one in rows] == parquet
    assert rows[0]["probability big"] + rows[0]["probability small"] == pytest.approx(1)


def test_predict_needs_neither_target_nor_order_and_keeps_strange_columns(command, trained) -> None:  # type: ignore[no-untyped-def]
    whole = command("predict", trained / "price", "houses.csv").out
    lines = [line.split(",") for line in Path("houses.csv").read_text().splitlines()]
    swapped = [[*line[3::-1], line[4], f"00{i}" if i else "key"] for i, line in enumerate(lines)]
    Path("new.csv").write_text("\n".join(map(",".join, swapped)) + "\n")
    result = command("predict", trained / "price", "new.csv", "--keep", "key")
    assert [line.split(",")[1] for line in result.out.splitlines()] == whole.splitlines()
    assert result.out.splitlines()[1].startswith("001,")  # as the cell was written


def test_an_output_that_is_a_link_stays_one(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    Path("link.csv").symlink_to("real.csv")
    assert command("predict", trained / "price", "houses.csv", "-o", "link.csv").code == 0
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_text().startswith("prediction\n")


def test_evaluate_shows_metrics_and_the_confusion(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    result = command("evaluate", trained / "kind", "houses.csv")
    assert result.code == 0
    assert "truth \\ answer" in result.out
    found = json.loads(command("evaluate", trained / "kind", "houses.csv", "--json").out)
    assert sum(map(sum, found["confusion"])) == found["rows"] == 60
    assert "rmse" in command("evaluate", trained / "price", "houses.csv").out


def test_inspect_takes_a_run_folder_or_a_model_file(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    result = command("inspect", trained / "kind")
    assert result.code == 0
    assert "kind: binary (big, small)" in result.out
    assert "Linear" in result.out
    model = command("inspect", trained / "kind" / "model.layerwise").out
    assert result.out.startswith(model)
    # what the doctor found while training is kept in the folder, not in the model
    assert "target-leakage" in result.out.removeprefix(model)


def test_compare_puts_runs_of_one_target_together(command, trained: Path) -> None:  # type: ignore[no-untyped-def]
    command("train", "houses.csv", "-t", "price", *FAST, "--dropout", "0.1", "--out", "r2", "-q")
    result = command("compare", trained / "price", trained / "kind", "r2")
    assert result.code == 0
    assert "price: regression, best rmse first" in result.out
    assert "hidden 4" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_wide_names_and_many_columns_stay_within_the_screen(command) -> None:  # type: ignore[no-untyped-def]
    names = [*(f"c{i}" for i in range(38)), "a name of " + "many words " * 9, "[bold]kind[/bold]"]
    lines = [",".join(names)]
    for i in range(80):
        lines.append(",".join([*(f"{i * k % 37}.5" for k in range(1, 40)), f"[red]class {i % 10}"]))
    Path("t.csv").write_text("\n".join(lines) + "\n")
    argv = ["train", "t.csv", "-t", names[-1], *FAST, "--out", "run"]
    for call in (argv, ["inspect", "run"], ["evaluate", "run", "t.csv"], ["schema", "t.csv"]):
        result = command(*call)
        assert result.code == 0, result.err
        assert max(map(len, result.out.splitlines())) <= 80, result.out
        if call[0] != "evaluate":
            assert "[bold]kind[/bold]" in result.out
    assert "[red]" in command("evaluate", "run", "t.csv").out


# ---------------------------------------------------------------- interrupt and resume


def interrupted(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Ctrl-C at the end of an epoch."""
    event = folder.Keeper.epoch

    def stop(keeper: folder.Keeper, what: object) -> None:
        event(keeper, what)  # type: ignore[arg-type]
        if what.row["epoch"] == epoch:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(folder.Keeper, "epoch", stop)


def test_an_interrupt_keeps_the_best_and_resume_ends_in_the_same_bytes(
    command, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    argv = [
        "train",
        "houses.csv",
        "-t",
        "price",
        "--epochs",
        "6",
        "--hidden",
        "4",
        "--patience",
        "0",
    ]
    assert command(*argv, "--no-baselines", "--out", "whole").code == 0
    with monkeypatch.context() as patch:
        interrupted(patch, 3)
        result = command(*argv, "--no-baselines", "--out", "run")
    assert result.code == 130
    assert "layerwise train --resume run" in result.err
    assert "interrupted" in result.err
    assert command("predict", "run", "houses.csv").code == 0
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    resumed = command("train", "--resume", "run")
    assert resumed.code == 0, resumed.err
    model = Path("whole/model.layerwise").read_bytes()
    assert Path("run/model.layerwise").read_bytes() == model
    assert not Path("run/checkpoint.layerwise").exists()
    again = command("train", "--resume", "run", "--no-report")
    assert again.code == 0
    assert "complete" in again.err
    assert Path("run/model.layerwise").read_bytes() == model


def test_an_interrupt_before_the_first_epoch_leaves_nothing(command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import layerwise.learn

    def stop(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layerwise.learn, "fit", stop)
    result = command("train", "houses.csv", "-t", "price", *FAST, "--out", "deep/run")
    assert result.code == 130
    assert result.err == "layerwise: interrupted\n"
    assert not Path("deep").exists()


def test_an_interrupt_while_the_baselines_are_fitted_keeps_the_network(
    command, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    import sklearn  # noqa: F401  where it is there, the baselines are fitted in this process

    import layerwise.baselines

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layerwise.baselines, "compare", stop)
    argv = ["train", "houses.csv", "-t", "price", "--epochs", "2", "--hidden", "4", "--out", "run"]
    result = command(*argv)
    assert result.code == 130
    assert "the network is complete" in result.err
    assert "--resume" not in result.err
    assert json.loads(Path("run/run.json").read_text())["status"] == "done"
    assert command("predict", "run", "houses.csv").code == 0


def test_resume_refuses_a_table_that_has_changed(command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with monkeypatch.context() as patch:
        interrupted(patch, 1)
        command("train", "houses.csv", "-t", "price", *FAST, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    with Path("houses.csv").open("a") as file:
        file.write(row(60))
    result = command("train", "--resume", "run")
    assert result.code == 3
    assert "houses.csv has changed" in result.err
    Path("houses.csv").unlink()
    assert command("train", "--resume", "run").code == 3
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_kill_end_alike(number: signal.Signals) -> None:
    flags = ["--epochs", "1000000", "--patience", "0", "--no-baselines", "--hidden", "4", "-q"]
    call = [sys.executable, "-m", "layerwise", "train", "houses.csv", "-t", "price", *flags]
    process = subprocess.Popen(
        [*call, "--out", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(Path().glob("run/checkpoint*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume run" in err
    assert "(interrupted)" in out
    assert Path("run/model.layerwise").exists()


def test_a_reader_that_goes_away_is_no_error(trained: Path) -> None:
    Path("many.csv").write_text("size,town,day,house,w\n" + "1,Ulm,2024-01-01,h1,1\n" * 20000)
    call = [sys.executable, "-m", "layerwise", "predict", str(trained / "price"), "many.csv", "-q"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"prediction\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_a_stdout_that_is_full_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        call = [sys.executable, "-m", "layerwise", "schema", "houses.csv"]
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_works_as_a_module_and_tells_its_version() -> None:
    done = shell("--version", env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0
    assert re.fullmatch(r"layerwise \d+\..*\n", done.stdout)
