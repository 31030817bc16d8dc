"""Data of all kinds become the same rows, and what cannot be read is named."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

from layerwise.engine.torch import Loader, Rows
from layerwise.errors import DataError
from layerwise.training.source import (
    Types,
    detached,
    device_of,
    every,
    rows_of,
    source_of,
    to_tensor,
    types_for,
)

CPU = torch.device("cpu")
FLOAT = Types(torch.float32)
X = np.array([[1.5, 2, -3], [4, 5, 6], [7, 8, 9.25], [0, 1, 2]])
Y = np.array([[1.0], [0.5], [2], [3]])


def _rows(data, types=FLOAT, **options):
    rows, names = source_of(data, types, CPU, **options)
    assert isinstance(rows, Rows)
    return rows, names


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


KINDS = {
    "float64": X,
    "float32": X.astype("f4"),
    "float16": X.astype("f2"),
    "big-endian": X.astype(">f8"),
    "Fortran order": np.asfortranarray(X),
    "every other": np.repeat(X, 2, axis=0)[::2],
    "backwards": X[::-1][::-1],
    "read-only": _read_only(X),
    "list": X.tolist(),
    "list of arrays": list(X),
    "list of tensors": list(torch.tensor(X, dtype=torch.float32)),
    "tensor": torch.tensor(X, dtype=torch.float32),
    "pandas": pd.DataFrame(X, columns=["a", "b", "c"]),
    "pandas of mixed types": pd.DataFrame(X, columns=["a", "b", "c"]).astype({"b": "int8"}),
    "pandas with Int64": pd.DataFrame(X, columns=["a", "b", "c"]).astype({"b": "Int64"}),
    "pandas view": pd.DataFrame(np.repeat(X, 2, axis=0), columns=["a", "b", "c"]).iloc[::2],
    "polars": pl.DataFrame(X, schema=["a", "b", "c"]),
    "polars lazy": pl.DataFrame(X, schema=["a", "b", "c"]).lazy(),
    "objects": X.astype(object),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_all_kinds_are_the_same_rows(kind):
    rows, names = _rows((KINDS[kind], Y))
    assert rows.X.dtype == rows.y.dtype == torch.float32
    assert rows.X.is_contiguous()
    torch.testing.assert_close(rows.X, torch.tensor(X, dtype=torch.float32))
    torch.testing.assert_close(rows.y, torch.tensor(Y, dtype=torch.float32))
    assert rows.w is None
    assert names == (["a", "b", "c"] if "pandas" in kind or "polars" in kind else [])


def test_columns_without_text_for_a_name_get_one():
    assert _rows((pd.DataFrame(X), Y))[1] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, 2, 1]),
        np.array([0, 1, 2, 1], dtype=np.uint8),
        [0, 1, 2, 1],
        pd.Series([0, 1, 2, 1]),
        pd.Series([0, 1, 2, 1], dtype="Int64"),
        pd.Series([0, 1, 2, 1], dtype="category"),
        pl.Series([0, 1, 2, 1]),
        torch.tensor([0, 1, 2, 1]),
        [torch.tensor(i) for i in (0, 1, 2, 1)],
    ],
    ids=lambda y: type(y).__name__,
)
def test_classes_stay_whole_numbers_where_the_loss_wants_them(y):
    rows, _ = _rows((X, y), Types(torch.float32, classes=True))
    assert rows.y.dtype == torch.int64
    assert rows.y.tolist() == [0, 1, 2, 1]


def test_whole_numbers_become_floats_elsewhere():
    rows, _ = _rows((X.astype(int), np.array([0, 1, 2, 1])), Types(torch.float64))
    assert rows.X.dtype == rows.y.dtype == torch.float64
    assert _rows((X, np.array([True, False, True, True])))[0].y.tolist() == [1, 0, 1, 1]


def test_tensors_stay_as_they_are_and_share_their_memory():
    for tensor in (torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 2, dtype=torch.uint8)):
        rows, _ = _rows((tensor, tensor[:, 0]))
        assert rows.X is tensor
        assert rows.y.dtype == tensor.dtype
    array = np.ones((4, 2), dtype=np.float32)
    assert _rows((array, Y))[0].X.data_ptr() == array.ctypes.data


def test_a_read_only_array_is_copied_and_no_warning_comes():
    array = _read_only(X.astype("f4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows, _ = _rows((array, Y))
    rows.X.add_(1)
    np.testing.assert_array_equal(array, X.astype("f4"))


def test_types_follow_the_model_and_the_loss():
    words = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 2).double())
    assert types_for(nn.Linear(2, 1).double(), False) == Types(torch.float64)
    assert types_for(words, True) == Types(torch.float32, whole_inputs=True, classes=True)
    assert types_for(nn.Flatten(), False) == Types(torch.float32)
    assert device_of(nn.Flatten()) == CPU
    rows, _ = rows_of((X.astype(int), [0, 1, 2, 1]), words, nn.CrossEntropyLoss())
    assert rows.X.dtype == rows.y.dtype == torch.int64
    assert to_tensor(X, torch.bfloat16).dtype == torch.bfloat16
    assert to_tensor([[1, 2]], torch.float32, whole=True).dtype == torch.int64


def test_several_inputs_come_as_a_tuple_a_dict_or_a_list():
    rows, names = _rows(((X, pd.DataFrame(Y)), Y))
    assert isinstance(rows.X, tuple)
    assert names == []
    assert [x.shape for x in every(rows.X)] == [(4, 3), (4, 1)]
    rows, _ = _rows(({"left": X, "right": Y}, Y))
    assert list(rows.X) == ["left", "right"]
    rows, _ = _rows(([X, Y], Y))
    assert isinstance(rows.X, tuple)
    assert len(rows) == 4


def test_several_answers_come_as_a_tuple_or_a_dict():
    rows, _ = _rows((X, (Y, [0, 1, 2, 1])), Types(torch.float32, classes=True))
    assert [y.dtype for y in rows.y] == [torch.float32, torch.int64]
    rows, _ = _rows((X, {"a": Y, "b": Y}))
    assert list(rows.y) == ["a", "b"]


def test_values_can_be_had_without_their_graph():
    x = torch.ones(3, requires_grad=True) * 2
    for value in (x, (x, x), {"a": x}):
        assert not any(one.requires_grad for one in every(detached(value)))


# ---------------------------------------------------------------- weights


def test_weights_get_the_mean_1_and_rows_of_weight_0_are_gone():
    for kind in (list, np.array, pd.Series, torch.tensor):
        w = kind([1, 0, 2, 5])
        rows, _ = _rows((X, Y, w))
        torch.testing.assert_close(rows.w, torch.tensor([1.0, 2, 5]) * 3 / 8)
        torch.testing.assert_close(rows.X, torch.tensor(X[[0, 2, 3]], dtype=torch.float32))
        torch.testing.assert_close(rows.y, torch.tensor(Y[[0, 2, 3]], dtype=torch.float32))
    assert _rows((X, Y, None))[0].w is None
    rows, _ = _rows(((X, X), (Y, Y), [0, 1, 1, 1]))
    assert {len(one) for one in (*rows.X, *rows.y, rows.w)} == {3}


@pytest.mark.parametrize(
    ("w", "told"),
    [
        ([1, -1, 1, 1], "the weight of row 2 is -1; weights have to be numbers of at least 0"),
        ([1, 1, np.nan, 1], "the weight of row 3 is nan"),
        ([1, 1, 1, np.inf], "the weight of row 4 is inf"),
        ([0, 0, 0, 0], "all weights are 0, which leaves no rows"),
        ([1, 1], "X has 4 rows and w has 2"),
        (Y, r"has shape \(4, 1\); it is read as row weights \(N,\). Several inputs go as"),
        (["a"] * 4, "w has <U1 values, not numbers; encode it first"),
    ],
)
def test_weights_that_are_none_are_refused(w, told):
    with pytest.raises(DataError, match=told):
        _rows((X, Y, w))


# ---------------------------------------------------------------- datasets


class Items(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[i], Y[i]


class Unsized(Dataset):
    def __getitem__(self, i):
        return X[i], Y[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y))


def test_tensors_in_a_dataset_are_rows_in_memory():
    data = TensorDataset(torch.tensor(X), torch.tensor(Y))
    rows, _ = _rows(data)
    assert rows.X is data.tensors[0]
    assert _rows(TensorDataset(torch.tensor(X), torch.tensor(Y), torch.ones(4)))[0].w is not None
    part = random_split(random_split(data, [3, 1])[0], [2, 1])[0]
    rows, _ = _rows(part)
    expected = [part[i][0].tolist() for i in range(2)]
    assert rows.X.tolist() == expected
    assert _rows(Subset(data, [2, 2, 0]))[0].y.tolist() == Y[[2, 2, 0]].tolist()


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.ones(4, 2), torch.ones(4, 2), torch.ones(4, dtype=torch.int64)),
        (torch.ones(4, 2), torch.ones(4, 2), torch.ones(4, 1)),
        (torch.ones(4, 2),) * 4,
    ],
)
def test_a_dataset_of_more_tensors_is_not_guessed_at(tensors):
    with pytest.raises(DataError, match=r"the TensorDataset has [34] tensors.*\(\(X1, X2\), y\)"):
        _rows(TensorDataset(*tensors))
    with pytest.raises(DataError, match="the TensorDataset has"):
        _rows(Subset(TensorDataset(*tensors), [0]))


@pytest.mark.parametrize(
    ("data", "n_steps"),
    [
        (Items(), 2),
        (Subset(Items(), [0, 1]), 1),
        (ConcatDataset([Items(), Items()]), 3),
        (Stream(), None),
        (DataLoader(Items(), 1), 4),
    ],
)
def test_other_datasets_are_read_by_a_loader(data, n_steps):
    source, names = source_of(data, FLOAT, CPU, batch_size=3)
    assert isinstance(source, Loader)
    assert (names, source.n_steps(3)) == ([], n_steps)
    n, inputs, y, w = next(iter(source.batches(None, 3)))
    assert len(inputs) == len(y) == n
    assert w is None


def test_a_dataset_is_shuffled_for_training_only():
    def firsts(shuffle):
        source, _ = source_of(Items(), FLOAT, CPU, batch_size=4, shuffle=shuffle)
        return [next(iter(source.batches(None, 4)))[1][0, 0].item() for _ in range(20)]

    torch.manual_seed(0)
    assert set(firsts(False)) == {1.5}
    assert len(set(firsts(True))) > 1


def test_a_loader_is_passed_through():
    loader = DataLoader(Items(), 3)
    assert source_of(loader, FLOAT, CPU)[0].loader is loader


# ---------------------------------------------------------------- what cannot be read


DATES = pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2020-01-01"])})
TEXT = pd.DataFrame({"a": [1, 2, 3, 4], "town": ["Ulm", "Bonn", "Köln", "Ulm"]})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((X, Y[:3]), "data: X has 4 rows and y has 3 rows; they have to match"),
        (((X, X[:2]), Y), "data: X has 4 rows and another input has 2 rows"),
        ((X, (Y, Y[:1])), "data: X has 4 rows and y has 1 rows"),
        ((X[:0], Y[:0]), "data has no rows"),
        (([], []), "data has no rows"),
        (((), Y), "X has no inputs"),
        (({}, Y), "X has no inputs"),
        ((X, 3.0), "data: y is one number, 3; it has to have rows"),
        ((torch.tensor(2.0), Y), "data: X is one number, 2"),
        ((X,), r"data has 1 parts; data has to be \(X, y\)"),
        ((X, Y, None, Y), "data has 4 parts"),
        ({"X": X, "y": Y}, "data has dict; data has to be"),
        (X, r"data has ndarray; data has to be \(X, y\)"),
        (torch.ones(4, 3), "data has Tensor"),
        (pd.DataFrame(X), "data has DataFrame"),
        ((sparse.csr_matrix(X), Y), r"X is a sparse matrix; pass X.toarray\(\)"),
        ((torch.tensor(X).to_sparse(), Y), r"X is a sparse tensor; pass X.to_dense\(\)"),
        ((TEXT, Y), "X, column 'town' has .*, not numbers; .*layerwise.train or NetworkClassifier"),
        ((pl.DataFrame({"a": [1] * 4, "b": list("abcd")}), Y), "X, column 'b' has String"),
        ((DATES, Y[:1]), "X, column 'when' has Datetime"),
        ((X, ["a", "b", "a", "b"]), r"y has <U1 values.*np.unique\(y, return_inverse=True\)\[1\]"),
        ((X, pd.Series(["a", "b", "a", "b"])), "NetworkClassifier, which takes labels"),
        ((X.astype(str), Y), "X has <U32 values, not numbers; encode it first"),
        ((np.array([["a", 1]], dtype=object), Y[:1]), "X cannot be read as numbers"),
        ((X + 1j, Y), "X has complex128 values, not numbers"),
        (([[1, 2], [3]], Y[:2]), "X cannot be read as numbers"),
        (Unsized(), "data: no DataLoader can be made of Unsized"),
        (Subset(Items(), []), "data: no DataLoader can be made of Subset"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(data, told):
    with pytest.raises(DataError, match=told):
        source_of(data, FLOAT, CPU)


def test_validation_data_go_by_their_name():
    for data, told in (
        ((X[:0], Y[:0]), "^valid has no rows"),
        ((TEXT, Y), "^valid X, column 'town'"),
        ((X, list("abab")), r"^valid y has <U1 values.*np.unique"),
        ((X, Y, [0] * 4), "^valid: all weights are 0"),
    ):
        with pytest.raises(DataError, match=told):
            source_of(data, FLOAT, CPU, "valid")
