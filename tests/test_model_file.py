"""A model in one file: the same answers after loading, without torch; nothing foreign passes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import layerwise
import small
from layerwise import storage
from layerwise.errors import DataError, DataWarning, ModelFileError
from layerwise.model.file import FORMAT, load, save
from layerwise.model.model import Model

GOLDEN = sorted((Path(__file__).parent / "golden").glob("model-format-*.layerwise"))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.layerwise"
    model = small.model()
    model.save(path)
    return model, path


def _rewrite(path, change):
    """The same file with another header or arrays, and a checksum that fits."""
    arrays, header = storage.unpack(path)
    del header["checksum"]
    change(arrays, header)
    path.write_bytes(storage.pack(arrays, header))


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("target", ["price", "sold", "band"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_model_gives_the_same_answers(target, dtype, tmp_path):
    model, path = small.model(target, dtype), tmp_path / "model.layerwise"
    model.save(path)
    again, new = Model.load(path), small.rows(20, seed=5)
    assert again.predict(new).tolist() == model.predict(new).tolist()
    table = model.read(new)
    assert np.array_equal(again.outputs(table), model.outputs(table))
    assert (again.plan, again.recipe, again.info) == (model.plan, model.recipe, model.info)
    for name, array in model.members[0].items():
        assert again.members[0][name].dtype == array.dtype
        assert np.array_equal(again.members[0][name], array)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save(small.model(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = load(tmp_path / "a")
    save(again, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_temperature_and_limits_stay(tmp_path):
    bag, path = small.bag("band"), tmp_path / "m"
    replace(bag, temperature=1.5).save(path)
    assert load(path).temperature == 1.5
    assert load(path).limits is None
    bag = small.bag("price")
    replace(bag, limits=np.array([[-0.1], [0.2]])).save(path)
    assert load(path).limits.tolist() == [[-0.1], [0.2]]
    assert np.ptp(load(path).outputs(bag.read(small.rows(30)))) <= 0.3 + 1e-12


def test_the_file_is_a_safetensors_file(saved):
    model, path = saved
    arrays = safetensors.numpy.load(path.read_bytes())
    assert set(arrays) == {f"members.0.{name}" for name in model.members[0]}


def test_members_are_averaged(saved):
    model, path = saved
    other = small.model(seed=1)
    bag = replace(model, members=[*model.members, *other.members])
    bag.save(path)
    data = small.rows(10)
    expected = (model.predict_proba(data) + other.predict_proba(data)) / 2
    np.testing.assert_allclose(Model.load(path).predict_proba(data), expected, 1e-12)


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_the_network_is_the_same_in_torch(target):
    limits = np.array([[-0.2], [0.3]]) if target == "price" else None
    for model in (
        small.model(target, torch.float64),
        replace(small.bag(target, torch.float64), temperature=1.3, limits=limits),
    ):
        table = model.read(small.rows(20))
        with torch.no_grad():
            expected = model.network()(torch.from_numpy(model.encode(table))).numpy()
        np.testing.assert_allclose(model.outputs(table), expected, 1e-12, 1e-12)


# ---------------------------------------------------------------- golden files


def test_every_format_has_a_golden_file():
    assert [path.stem for path in GOLDEN] == [f"model-format-{i + 1}" for i in range(FORMAT)]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_file_keeps_giving_its_answers(path):
    answers = json.loads(path.with_suffix(".json").read_text("utf-8"))
    model = layerwise.Model.load(path)
    assert path.stat().st_size < 20_000
    assert model.predict(answers["rows"]).tolist() == answers["classes"]
    found = model.predict_proba(answers["rows"])
    np.testing.assert_allclose(found, answers["probabilities"], atol=1e-6)


# ---------------------------------------------------------------- files that are refused


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="there is no model at"):
        load(tmp_path / "none.layerwise")
    with pytest.raises(ModelFileError, match=r"has no model.layerwise"):
        load(tmp_path)


def test_a_flipped_bit_is_noticed_anywhere(saved):
    _, path = saved
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(ModelFileError):
            load(path)


def test_a_newer_format_asks_for_an_upgrade(saved):
    _, path = saved
    _rewrite(path, lambda arrays, header: header.update(format=FORMAT + 1))
    with pytest.raises(ModelFileError, match=f"format {FORMAT + 1}, newer than .* upgrade"):
        load(path)


CHANGES = {
    "array 'x' belongs to no layer": lambda a, h: a.update({"members.0.x": np.ones(2)}),
    "array '1.bias' is missing": lambda a, h: a.pop("members.0.1.bias"),
    "array '1.bias' has shape": lambda a, h: a.update({"members.0.1.bias": np.ones(2)}),
    "array '1.bias' has values that are not finite": lambda a, h: a.update(
        {"members.0.1.bias": np.full(5, np.nan, np.float32)}
    ),
    "its temperature 0.0 is none": lambda a, h: h.update(temperature=0),
    "its limits are no lowest": lambda a, h: h.update(limits=[[2.0], [1.0]]),
    "it has no network": lambda a, h: h.update(n_members=0),
    "has no network": lambda a, h: h.update(n_members=10**12),
    "the encoder gives 4 columns, the network takes 3": lambda a, h: h["plan"][0].update(
        n_numbers=h["plan"][0]["n_numbers"] - 1
    ),
    "its layer 'Flatten' is unknown": lambda a, h: h["plan"].append({"type": "Flatten"}),
    "outputs, the target asks for": lambda a, h: h["target"].update(
        task="multiclass", classes=["a", "b", "c"]
    ),
}


@pytest.mark.parametrize("words", CHANGES)
def test_parts_that_do_not_fit_are_refused(words, saved):
    _, path = saved
    _rewrite(path, CHANGES[words])
    with pytest.raises(ModelFileError, match=words):
        load(path)


@pytest.mark.parametrize("entry", ["schema", "encoder", "plan", "n_members", "target"])
@pytest.mark.parametrize("value", [None, 3, "x", [], ["x"], {}, [{}]])
def test_a_header_that_makes_no_sense_is_refused(entry, value, saved):
    _, path = saved
    _rewrite(path, lambda arrays, header: header.update({entry: value}))
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize("entry", ["schema", "encoder", "plan", "n_members", "target"])
def test_a_header_without_an_entry_is_refused(entry, saved):
    _, path = saved
    _rewrite(path, lambda arrays, header: header.pop(entry))
    with pytest.raises(ModelFileError, match=entry):
        load(path)


def test_a_checkpoint_is_no_model(tmp_path):
    path = tmp_path / "checkpoint.layerwise"
    path.write_bytes(storage.pack({}, {"checkpoint": {}}))
    with pytest.raises(ModelFileError, match="no valid model file"):
        load(path)


# ---------------------------------------------------------------- prediction on raw columns


@pytest.mark.parametrize("target", ["price", "sold", "band"])
def test_columns_are_found_by_name_and_the_target_is_not_needed(target):
    model, data = small.model(target), small.rows(20, seed=3)
    inputs = {name: data[name] for name in ("size", "town", "new")}
    expected = model.predict(inputs).tolist()
    shuffled = {"extra": [None] * 20, **dict(reversed(inputs.items())), "price": ["?"] * 20}
    assert model.predict(shuffled).tolist() == expected
    assert model.predict(data).tolist() == expected


def test_a_csv_file_gives_the_same_answers(tmp_path):
    model, data = small.model("price"), small.rows(20, seed=3)
    path = tmp_path / "new.csv"
    lines = ["town,junk,new,size"]
    for i in range(20):
        size = "" if data["size"][i] is None else data["size"][i]
        lines.append(f"{data['town'][i]},x,{data['new'][i]},{size}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert model.predict(path).tolist() == model.predict(data).tolist()


def test_each_row_is_answered_as_if_it_were_alone():
    model, data = small.model("band", torch.float64), small.rows(12, seed=3)
    whole = model.predict_proba(data)
    for i in range(12):
        # a column that is all gaps in a single row is still a column
        size = np.nan if data["size"][i] is None else data["size"][i]
        one = model.read(
            {"size": np.array([size]), "town": [data["town"][i]], "new": [data["new"][i]]}
        )
        alone = model.target.probabilities(model.outputs(one))
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-12)


def test_probabilities_sum_to_one_and_agree_with_the_classes():
    for target in ("sold", "band"):
        model, data = small.model(target), small.rows(30, seed=2)
        proba = model.predict_proba(data)
        assert proba.shape == (30, len(model.target.classes))
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
        assert model.target.classes[proba.argmax(1)].tolist() == model.predict(data).tolist()


def test_new_levels_and_gaps_are_answered_with_a_warning():
    model, data = small.model(), small.rows(5)
    data["town"][2], data["town"][3] = "Berlin", None
    with pytest.warns(DataWarning) as caught:
        answers = model.predict(data)
    assert len(answers) == 5
    words = " ".join(str(one.message) for one in caught)
    assert "'town'" in words
    assert "'Berlin'" in words
    assert "gap" in words
    assert all(one.filename == __file__ for one in caught)


def test_known_rows_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small.model().predict(small.rows(60))


def test_a_missing_column_is_named_with_the_nearest_one():
    data = small.rows(5)
    data["twon"] = data.pop("town")
    with pytest.raises(DataError, match=r"no column 'town'. Did you mean 'twon'"):
        small.model().predict(data)
    with pytest.raises(DataError, match="no column"):
        small.model().predict({"other": [1, 2]})


def test_a_cell_of_the_wrong_kind_is_named_with_column_and_row():
    data = small.rows(5)
    data["size"] = ["50", "60", "large", "70", "80"]
    with pytest.raises(DataError, match=r"row 3.*'size'.*'large'"):
        small.model().predict(data)


def test_no_rows_give_no_answers():
    data = {name: np.array(cells[:0]) for name, cells in small.rows(1).items()}
    assert small.model("price").predict(data).shape == (0,)


def test_columns_kept_beside_the_answers_need_not_be_known():
    table = small.model().read({**small.rows(3), "id": ["a", "b", "c"]}, also=["id", "price"])
    assert table["id"].texts().tolist() == ["a", "b", "c"]


def test_predicting_from_a_file_imports_neither_torch_nor_scikit_learn(saved, tmp_path):
    _, path = saved
    code = (
        "import sys, json, layerwise\n"
        "model = layerwise.Model.load(sys.argv[1])\n"
        "rows = {'size': [80.5, 60.0], 'town': ['Ulm', 'Bonn'], 'new': ['yes', 'no']}\n"
        "print(json.dumps(model.predict(rows).tolist()))\n"
        "model.predict_proba(rows)\n"
        "heavy = [m for m in ('torch', 'sklearn', 'pandas', 'matplotlib') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {"size": [80.5, 60.0], "town": ["Ulm", "Bonn"], "new": ["yes", "no"]}
    assert json.loads(done.stdout) == small.model().predict(rows).tolist()
