"""Whole files or none, one writer to a folder, and a checksum that notices every bit."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise import storage
from layerwise.errors import ModelFileError, OutputError

# ---------------------------------------------------------------- whole files


def test_a_written_file_has_the_bytes_or_the_text(tmp_path):
    storage.write_whole(tmp_path / "a", b"\x00\xff")
    storage.write_whole(tmp_path / "b", "Ülm\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_bytes() == "Ülm\n".encode()


def test_files_have_the_rights_that_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write_whole(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left"), (errno.EACCES, "no permission"),
        (errno.EIO, "Input/output"),
    ],
)  # fmt: skip
def test_a_failure_leaves_the_old_file_and_nothing_else(call, number, words, tmp_path, monkeypatch):
    path = tmp_path / "model"
    storage.write_whole(path, b"old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    if call == "fsync":
        monkeypatch.setattr(storage.os, "fsync", fail)
    elif call == "replace":
        monkeypatch.setattr(storage.Path, "replace", fail)
    else:
        real = os.fdopen

        def fdopen(*arguments):
            file = real(*arguments)
            file.write = fail
            return _Failing(file, fail)

        monkeypatch.setattr(storage.os, "fdopen", fdopen)
    with pytest.raises(OutputError, match=f"model cannot be written: .*{words}"):
        storage.write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class _Failing:
    """A file whose writes fail."""

    def __init__(self, file, fail):
        self.file, self.write = file, fail

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model"
    storage.write_whole(path, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_a_half_written_file(tmp_path):
    path = tmp_path / "model"
    versions = [bytes([i]) * 200_000 for i in range(20)]
    storage.write_whole(path, versions[0])
    stop, bad = threading.Event(), []

    def read():
        while not stop.is_set():
            data = path.read_bytes()
            if len(data) != 200_000 or len(set(data)) != 1:
                bad.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions:
        storage.write_whole(path, version)
    stop.set()
    reader.join()
    assert not bad


@pytest.mark.parametrize(
    ("place", "words"),
    [(".", "is a folder"), ("no/such/file", "does not exist"), ("file/x", "does not exist|folder")],
)
def test_a_path_that_cannot_be_written_is_refused_beforehand(place, words, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=words):
        storage.check_file_output(tmp_path / place)
    storage.check_file_output(tmp_path / "new")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_folders_are_made_with_their_parents_but_not_over_a_file(tmp_path):
    assert storage.make_folder(tmp_path / "a" / "b").is_dir()
    assert storage.make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        storage.make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be made"):
        storage.make_folder(tmp_path / "file" / "below")


# ---------------------------------------------------------------- one writer


def test_a_second_process_is_kept_out_and_let_in_afterwards(tmp_path):
    code = (
        "import sys; from layerwise import storage\n"
        "try:\n  with storage.lock(sys.argv[1]): print('in')\n"
        "except storage.OutputError as error: print(error)"
    )
    other = [sys.executable, "-c", code, str(tmp_path)]
    with storage.lock(tmp_path):
        found = subprocess.run(other, capture_output=True, text=True, check=True).stdout
        assert "another run is at work" in found
        with pytest.raises(OutputError, match="another run"), storage.lock(tmp_path):
            pass  # a second thread or call of this process is kept out too
    assert not list(tmp_path.iterdir())
    found = subprocess.run(other, capture_output=True, text=True, check=True).stdout
    assert found == "in\n"


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path):
    code = (
        "import os, sys; from layerwise import storage\n"
        "with storage.lock(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with storage.lock(tmp_path):
        pass


# ---------------------------------------------------------------- packed files

ARRAYS = {
    "a": np.array([[1.5, -2.0]], dtype=np.float32),
    "b": np.array(7),
    "c": np.zeros((0, 3)),
    "d": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}
HEADER = {"format": 1, "name": "Ülm", "nested": {"list": [1, None, True, "x"]}}


def test_arrays_and_header_come_back_as_they_were(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(storage.pack(ARRAYS, HEADER))
    arrays, header = storage.unpack(path)
    assert {k: v for k, v in header.items() if k != "checksum"} == HEADER
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
            max_leaves=8,
        ),
    ),
    st.lists(st.integers(0, 3), max_size=3),
)
def test_any_plain_header_and_shape_come_back(tmp_path_factory, header, shape):
    header.pop("checksum", None)
    path = tmp_path_factory.mktemp("pack") / "file"
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    path.write_bytes(storage.pack({"x": array}, header))
    arrays, found = storage.unpack(path)
    del found["checksum"]
    assert found == header
    assert np.array_equal(arrays["x"], array)


def test_packing_is_deterministic_whatever_the_order_of_the_arrays():
    again = dict(reversed(ARRAYS.items()))
    assert storage.pack(ARRAYS, HEADER) == storage.pack(again, HEADER)


def test_a_packed_file_is_a_safetensors_file(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(storage.pack(ARRAYS, HEADER))
    arrays = safetensors.numpy.load_file(path)
    assert set(arrays) == set(ARRAYS)
    with safetensors.safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["layerwise"])["format"] == 1


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "file"
    data = storage.pack({"a": np.array([1.5, -2.0], dtype=np.float32)}, {"format": 1, "n": "x"})
    assert len(data) < 500
    unnoticed = []
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                storage.unpack(path)
            except ModelFileError:
                continue
            unnoticed.append((place, bit))
    assert not unnoticed


def test_every_length_but_the_whole_is_refused(tmp_path):
    path = tmp_path / "file"
    data = storage.pack({"a": np.array([1.5])}, {"format": 1})
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError):
            storage.unpack(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelFileError, match="damaged"):
        storage.unpack(path)


class _Trap:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.write_text, (self.place, "run")


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "x")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["empty", "random", "zip", "pickle", "safetensors", "text"])
def test_foreign_files_are_refused_and_no_code_of_them_runs(kind, tmp_path):
    path, trap = tmp_path / "file", tmp_path / "trap"
    path.write_bytes({
        "empty": b"",
        "random": np.random.default_rng(0).bytes(5000),
        "zip": _zip(),
        "pickle": pickle.dumps(_Trap(trap)),
        "safetensors": safetensors.numpy.save({"a": np.ones(3)}, {"layerwise": "{}"}),
        "text": b"checksum\\\":\\\"" + b"0" * 64 + b"\\\"",
    }[kind])  # fmt: skip
    with pytest.raises(ModelFileError, match="file"):
        storage.unpack(path)
    assert not trap.exists()


def test_what_is_no_file_is_refused_in_words(tmp_path):
    with pytest.raises(ModelFileError, match="is a folder"):
        storage.unpack(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read: No such file"):
        storage.unpack(tmp_path / "none")
