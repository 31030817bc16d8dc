"""The report: one page that opens anywhere, says what the run says, and breaks on no name."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import root_mean_squared_error

import layerwise as lw
from layerwise.errors import DataError, OutputError
from layerwise.report import charts
from layerwise.report.again import command
from layerwise.report.subject import Subject
from layerwise.report.verdict import sentence

SMALL = {"epochs": 3, "hidden_layer_sizes": (8,), "members": 1}
if "members" not in lw.Recipe.__dataclass_fields__:
    SMALL.pop("members")


def people(n=200, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, n).astype(float)
    town = rng.choice(["Bern", "Basel", "Genf"], n)
    pay = 20 * age + 300 * (town == "Bern") + rng.normal(0, 50, n)
    since = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D")
    age[:9] = np.nan
    return pd.DataFrame({"age": age, "town": town, "since": since, "pay": pay})


def with_target(task):
    frame = people()
    if task == "binary":
        frame["pay"] = np.where(frame["pay"] > 1000, "much", "little")
    elif task == "multiclass":
        frame["pay"] = pd.cut(frame["pay"], 4, labels=list("abcd")).astype(str)
    return frame


@pytest.fixture(scope="module", params=["regression", "binary", "multiclass"])
def run(request):
    return lw.train(with_target(request.param), target="pay", baselines=False, **SMALL)


class Page(HTMLParser):
    """What a page consists of."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.labels, self.tags = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.tags.append(tag)
        self.ids += [said["id"]] if "id" in said else []
        self.links += [said["href"]] if "href" in said else []
        if tag == "svg":
            self.labels.append(said.get("aria-label"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_fetches_nothing_and_is_small(run, tmp_path):
    text = run.report(tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    outside = re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)|url\(|@import", text)
    assert not outside
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"] * text.count(
        "<svg"
    )
    assert "script" not in page.tags
    assert len(text) < 2_000_000


def test_every_picture_has_a_name_and_every_link_a_place(run, tmp_path):
    page = Page(run.report(tmp_path / "report.html").read_text("utf-8"))
    assert all(page.labels)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert {"verdict", "data", "network", "training", "answers", "again"} <= set(page.ids)


def test_the_score_is_that_of_the_metrics(run):
    subject = Subject(run, run.rows())
    value, error = subject.score()
    assert value == pytest.approx(run.metrics[subject.metric], rel=1e-9)
    assert error > 0


def test_the_interval_is_that_of_the_bootstrap(rng):
    run = lw.train(people(2000), target="pay", baselines=False, **SMALL)
    subject = Subject(run, run.rows())
    n = len(subject.part)
    drawn = [rng.integers(0, n, n) for _ in range(600)]
    y, said = subject.part.y, subject.answers
    spread = np.std([root_mean_squared_error(y[i], said[i]) for i in drawn])
    assert subject.score()[1] == pytest.approx(spread, rel=0.15)


def test_the_verdict_says_whether_the_company_is_better():
    run = lw.train(people(), target="pay", baselines=False, **SMALL)
    value, error = Subject(run, run.rows()).score()
    for other, words in (
        (value - 4 * error, "does better"),
        (value + 4 * error, "better than the best baseline"),
        (value, "no clear difference"),
    ):
        run.baselines.clear()
        run.baselines["linear"] = {"rmse": other}
        assert words in sentence(Subject(run, run.rows()))


def test_names_are_text_and_never_markup(tmp_path):
    frame = people().rename(columns={"age": "<script>alert('x')</script>", "town": 'a"&<b>'})
    frame['a"&<b>'] = frame['a"&<b>'].replace("Bern", "</svg><img src=x>")
    run = lw.train(frame, target="pay", baselines=False, **SMALL)
    page = Page(run.report(tmp_path / "report.html").read_text("utf-8"))
    assert not {"script", "img", "b"} & set(page.tags)


def test_a_loaded_run_gives_the_same_page(tmp_path):
    people().to_csv(tmp_path / "t.csv", index=False)
    run = lw.train(tmp_path / "t.csv", target="pay", out=tmp_path / "run", **SMALL)
    first = run.report().read_text("utf-8")
    assert lw.Run.load(tmp_path / "run").report().read_text("utf-8") == first
    assert "layerwise train" in first


def test_changed_rows_are_not_reported_on(tmp_path):
    people().to_csv(tmp_path / "t.csv", index=False)
    lw.train(tmp_path / "t.csv", target="pay", baselines=False, out=tmp_path / "run", **SMALL)
    people(seed=1).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"t.csv has changed since"):
        lw.Run.load(tmp_path / "run").report()
    assert not (tmp_path / "run" / "report.html").exists()


def test_rows_that_were_in_memory_are_said_to_be_gone(tmp_path):
    lw.train(people(), target="pay", baselines=False, out=tmp_path / "run", **SMALL)
    with pytest.raises(DataError, match="in memory and are gone"):
        lw.Run.load(tmp_path / "run").report()


def test_a_run_without_a_folder_asks_where_to(run):
    with pytest.raises(OutputError, match=r"run\.report\(path\)"):
        run.report()


def test_the_command_asks_the_same_question():
    question = {
        "source": "my table.csv", "target": "pay", "valid": 0.15, "test": 0.3, "drop": ["x y"],
        "roles": {"zip": "category"}, "class_weight": {"a": 2}, "baselines": False,
        "settings": {"hidden_layer_sizes": [8, 4], "lr": 0.01},
    }  # fmt: skip
    assert command(question, "runs/again") == (
        "layerwise train 'my table.csv' --target pay --test 0.3 --class-weight a=2 "
        "--as zip=category --drop 'x y' --no-baselines --hidden 8,4 --lr 0.01 --out runs/again"
    )


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7), (1e-9, 2e-9), (1e6, 1e9), (5, 5)])
def test_ticks_are_few_round_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 8
    room = 1e-9 * max(abs(low), abs(high))
    assert low - room <= min(found) <= max(found) <= high + room


def test_a_chart_draws_what_is_finite_and_skips_the_rest():
    chart = charts.Chart((0, 1), (0, 1), "a chart").line([0, 0.5, 1], [0, float("nan"), 1])
    path = re.search(r'class="line c0" d="([^"]*)"', chart.svg())[1]
    assert path.count("M") == 2
    assert "nan" not in path
