"""The estimators keep scikit-learn's contract, exactly, on any table."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from layerwise import DataWarning, Model, NetworkClassifier, NetworkRegressor, SettingError
from layerwise.engine import native
from layerwise.estimators import FOLDED
from layerwise.network.bag import Bag
from layerwise.training.recipe import Recipe

FAST = {"hidden_layer_sizes": (8,), "epochs": 5, "random_state": 0, "members": 1}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([NetworkClassifier(), NetworkRegressor()])
def test_every_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def mixed() -> tuple[pd.DataFrame, np.ndarray]:
    """300 rows with numbers, gaps, strings, booleans and dates; y depends on all of them."""
    rng = np.random.default_rng(1)
    n = 300
    size = rng.normal(size=n)
    town = rng.choice(["Bonn", "Ulm", "Kiel"], n)
    flat = rng.random(n) < 0.5
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, n), unit="D")
    y = size + (town == "Ulm") - flat + 0.001 * (day - pd.Timestamp("2020-01-01")).days
    X = pd.DataFrame({"size": size, "town": town, "flat": flat, "day": day})
    X.loc[::17, "size"] = np.nan
    X.loc[::23, "town"] = None
    return X, y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)


# ---------------------------------------------------------------- any table


@pytest.mark.parametrize("frame", ["pandas", "polars", "pyarrow", "dict"])
def test_the_same_table_in_any_frame_gives_the_same_answers(mixed, frame):
    X, y = mixed
    others = {
        "pandas": X,
        "polars": pl.from_pandas(X),
        "pyarrow": pa.Table.from_pandas(X, preserve_index=False),
        "dict": {name: X[name].to_numpy() for name in X},
    }
    reference = NetworkRegressor(**FAST).fit(X, y).predict(X)
    other = NetworkRegressor(**FAST).fit(others[frame], y).predict(others[frame])
    np.testing.assert_array_equal(other, reference)


def test_strings_gaps_booleans_and_dates_are_learnt(mixed):
    X, y = mixed
    model = NetworkRegressor((32,), random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    above = y > np.median(y)
    classifier = NetworkClassifier((32,), random_state=0).fit(X, np.where(above, "high", "low"))
    assert classifier.score(X, np.where(above, "high", "low")) > 0.9
    assert classifier.classes_.tolist() == ["high", "low"]


def test_gaps_and_levels_that_training_never_had_are_survived(mixed):
    X, y = mixed
    model = NetworkRegressor(**FAST).fit(X, y)
    new = X.head(3).copy()
    new.loc[0, "town"] = "Rome"
    new.loc[1, "day"] = pd.NaT
    assert np.isfinite(model.predict(new)).all()


def test_columns_are_found_by_name_and_a_wrong_name_is_refused(mixed):
    X, y = mixed
    model = NetworkRegressor(**FAST).fit(X, y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename(columns={"size": "area"}))


def test_free_text_is_left_out_with_a_warning(mixed):
    X, y = mixed
    X = X.assign(remark=[f"what they wrote in row {i}" for i in range(len(X))])
    with pytest.warns(DataWarning, match="'remark' is left out"):
        NetworkRegressor(**FAST).fit(X, y)


def test_sparse_and_dense_give_the_same(rng):
    X = rng.normal(size=(60, 5)) * (rng.random((60, 5)) < 0.4)
    y = X[:, 0] - X[:, 1]
    dense = NetworkRegressor(**FAST).fit(X, y).predict(X)
    for kind in (sparse.csr_matrix, sparse.csc_array):
        other = NetworkRegressor(**FAST).fit(kind(X), y).predict(kind(X))
        np.testing.assert_array_equal(other, dense)


@pytest.mark.parametrize(
    "labels",
    [["b", "a", "c"], [10, -3, 70], [True, False]],
    ids=["strings", "integers with gaps", "booleans"],
)
def test_labels_come_back_as_they_went_in(rng, labels):
    X = rng.normal(size=(60, 2))
    y = np.array(labels)[rng.integers(0, len(labels), 60)]
    model = NetworkClassifier(**FAST).fit(X, y)
    assert set(model.predict(X).tolist()) <= set(y.tolist())
    assert model.predict(X).dtype == y.dtype
    np.testing.assert_array_equal(model.classes_, np.unique(y))


# ---------------------------------------------------------------- answers


def test_probabilities_are_the_softmax_of_the_module_s_logits():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier(**FAST).fit(X, y)
    matrix = torch.from_numpy(model.model_.encode(model._table(X, reset=False)))
    with torch.no_grad():
        logits = model.module_(matrix)
    expected = torch.softmax(logits.double(), dim=1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)
    assert isinstance(model.module_, torch.nn.Sequential)
    assert isinstance(model.module_[-1], torch.nn.Linear), "no softmax in the network"


def test_five_networks_answer_with_their_mean_and_for_rows_they_have_not_seen():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier((8,), epochs=10, random_state=0).fit(X, y)
    assert isinstance(model.module_, Bag)
    assert [len(member) for member in model.history_.members] == [10] * 5
    with torch.no_grad():
        logits = model.module_(torch.from_numpy(model.model_.encode(model._table(X, reset=False))))
    expected = torch.softmax(logits.double(), dim=1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)
    assert model.out_of_fold_.y.tolist() == y.tolist()


def test_several_targets_and_several_labels_at_once(rng):
    X = rng.normal(size=(150, 3))
    Y = np.stack([X[:, 0], 100 * X[:, 1] + 5], axis=1)
    model = NetworkRegressor((32,), random_state=0).fit(X, Y)
    assert model.predict(X).shape == (150, 2)
    assert model.score(X, Y) > 0.9
    labels = (X > 0).astype(int)
    several = NetworkClassifier((32,), random_state=0).fit(X, labels)
    assert several.predict(X).shape == labels.shape
    assert several.score(X, labels) > 0.8


def test_it_learns_real_tables():
    X, y = load_breast_cancer(return_X_y=True)
    assert cross_val_score(NetworkClassifier((16,), random_state=0), X, y, cv=3).mean() > 0.95
    X, y = load_diabetes(return_X_y=True)
    assert cross_val_score(NetworkRegressor((16,), random_state=0), X, y, cv=3).mean() > 0.4


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("estimator", [NetworkClassifier, NetworkRegressor])
def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row(estimator, rng):
    X = rng.normal(size=(24, 3))  # fewer than are dealt into folds, also when repeated
    y = (X[:, 0] > 0).astype(int) if estimator is NetworkClassifier else X[:, 0]
    w = rng.integers(0, 4, 24)
    one = estimator((8,), random_state=0, epochs=50).fit(X, y, sample_weight=w)
    repeated = np.repeat(np.arange(24), w)
    assert len(repeated) < FOLDED
    other = estimator((8,), random_state=0, epochs=50).fit(X[repeated], y[repeated])
    answer = "predict_proba" if estimator is NetworkClassifier else "predict"
    np.testing.assert_allclose(
        getattr(one, answer)(X), getattr(other, answer)(X), rtol=1e-7, atol=1e-9
    )


def test_class_weight_counts_like_row_weights(rng):
    # booleans are encoded alike whatever the weights, so the two trainings are the very same
    X = rng.random((60, 3)) < 0.5
    y = np.array(["rare"] * 12 + ["often"] * 48)
    network = NetworkClassifier(**FAST, lr=0.05)
    by_class = clone(network).set_params(class_weight={"rare": 4}).fit(X, y).predict_proba(X)
    weight = np.where(y == "rare", 4.0, 1.0)
    by_row = clone(network).fit(X, y, sample_weight=weight).predict_proba(X)
    balanced = clone(network).set_params(class_weight="balanced").fit(X, y).predict_proba(X)
    plain = clone(network).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(by_class, by_row, atol=1e-9)
    np.testing.assert_allclose(by_class, balanced, atol=1e-9)
    assert np.abs(by_class - plain).max() > 0.01


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([-1.0] + [1.0] * 29, "row 1 has the weight -1"),
        ([1.0] * 29 + [np.nan], "row 30 has the weight missing"),
        ([1.0] * 29, "one weight for each row"),
        ([0.0] * 30, "all weights are zero"),
    ],
)
def test_bad_weights_are_refused_in_words(rng, weight, said):
    X = rng.normal(size=(30, 2))
    with pytest.raises(ValueError, match=said):
        NetworkRegressor(**FAST).fit(X, X[:, 0], sample_weight=np.array(weight))


# ---------------------------------------------------------------- repeatable


def _fit_and_predict(seed: int = 0) -> bytes:
    X, y = load_breast_cancer(return_X_y=True)
    model = NetworkClassifier((16,), dropout=0.2, epochs=3, random_state=seed)
    return model.fit(X, y).predict_proba(X).tobytes()


def test_the_same_bytes_in_threads_processes_after_fork_and_under_joblib():
    expected = _fit_and_predict()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(_fit_and_predict, [0] * 6)) == {expected}
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert set(processes.map(_fit_and_predict, [0, 0])) == {expected}
    assert set(joblib.Parallel(2)(joblib.delayed(_fit_and_predict)() for _ in range(2))) == {
        expected
    }
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert _fit_and_predict() == expected
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_fit_leaves_every_global_state_as_it_was(rng):
    X = rng.normal(size=(250, 3))
    before = (
        torch.random.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )
    NetworkRegressor((8,), dropout=0.5, epochs=3).fit(X, X[:, 0])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == before[3]
    assert torch.get_default_dtype() == before[4]


def test_pickle_copy_and_joblib_keep_the_answers(mixed, tmp_path):
    X, y = mixed
    model = NetworkRegressor(**FAST, dropout=0.1).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        joblib.load(tmp_path / "model.joblib"),
    ):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_the_saved_model_answers_as_the_estimator_does(mixed, tmp_path):
    X, y = mixed
    model = NetworkRegressor(**FAST).fit(X, y)
    model.model_.save(tmp_path / "m.layerwise")
    np.testing.assert_array_equal(Model.load(tmp_path / "m.layerwise").predict(X), model.predict(X))


# ---------------------------------------------------------------- going on


def test_warm_start_goes_on_where_the_last_fit_ended(rng):
    X = rng.normal(size=(60, 2))
    y = X[:, 0]
    model = NetworkRegressor((8,), epochs=20, warm_start=True, random_state=0).fit(X, y)
    first = model.history_[0]["train_loss"], model.history_[-1]["train_loss"]
    model.fit(X, y)
    assert model.history_[0]["train_loss"] < (first[0] + first[1]) / 2


def test_partial_fit_learns_step_by_step_and_knows_its_classes(rng):
    X = rng.normal(size=(200, 2))
    y = np.where(X[:, 0] > 0, "yes", "no")
    model = NetworkClassifier((16,), lr=0.01, random_state=0)
    with pytest.raises(ValueError, match="classes must be passed"):
        model.partial_fit(X[:50], y[:50])
    for _ in range(30):
        for start in range(0, 200, 50):
            rows = slice(start, start + 50)
            model.partial_fit(X[rows], y[rows], classes=["no", "yes"])
    assert model.score(X, y) > 0.95
    with pytest.raises(ValueError, match="not the same as on last call"):
        model.partial_fit(X, y, classes=["no", "yes", "maybe"])
    regressor = NetworkRegressor((16,), lr=0.01, random_state=0)
    for _ in range(60):
        regressor.partial_fit(X, X[:, 0])
    assert regressor.score(X, X[:, 0]) > 0.9


def test_own_validation_rows_decide(rng):
    X = rng.normal(size=(120, 2))
    y = X[:, 0]
    model = NetworkRegressor((8,), epochs=200, patience=3, lr=0.05, random_state=0)
    model.fit(X[:80], y[:80], X_val=X[80:], y_val=rng.normal(size=40))
    assert model.history_.stopped == "patience"
    assert model.n_iter_ < 200
    with pytest.raises(ValueError, match="X_val needs y_val"):
        model.fit(X, y, X_val=X)


def test_the_best_epoch_is_what_one_gets(rng):
    X = rng.normal(size=(400, 5))
    y = X[:, 0] + rng.normal(size=400)
    Xv, yv = X[300:], y[300:]
    model = NetworkRegressor((64,), epochs=60, patience=0, lr=0.01, random_state=0, members=1)
    model.fit(X[:300], y[:300], X_val=Xv, y_val=yv)
    losses = model.history_["valid_loss"]
    assert model.history_.best_epoch == int(np.argmin(losses)) + 1
    rmse = np.sqrt(np.mean((model.predict(Xv) - yv) ** 2))
    assert rmse == pytest.approx(model.history_.best["rmse"], rel=1e-5)


# ---------------------------------------------------------------- in scikit-learn's tools


def test_pipelines_searches_and_calibration_work():
    X, y = load_iris(return_X_y=True, as_frame=True)
    scaled = StandardScaler().set_output(transform="pandas")
    pipeline = make_pipeline(scaled, NetworkClassifier(**FAST))
    search = GridSearchCV(pipeline, {"networkclassifier__lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
    assert set(search.best_params_) == {"networkclassifier__lr"}
    assert search.best_estimator_[-1].feature_names_in_.tolist() == X.columns.tolist()
    CalibratedClassifierCV(NetworkClassifier(**FAST), cv=2).fit(X, y).predict_proba(X)
    assert clone(pipeline).get_params()["networkclassifier__hidden_layer_sizes"] == (8,)


def test_weights_and_validation_rows_are_routed_through_a_pipeline(rng):
    X = rng.normal(size=(60, 2))
    y = X[:, 0]
    with sklearn.config_context(enable_metadata_routing=True):
        network = NetworkRegressor(**FAST).set_fit_request(
            sample_weight=True, X_val=True, y_val=True
        )
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(scaler, network, transform_input=["X_val"])
        pipeline.fit(X, y, sample_weight=np.ones(60), X_val=X[:10], y_val=y[:10])
    assert "valid_loss" in pipeline[-1].history_[0]


def test_the_estimators_have_every_setting_of_the_recipe_with_its_default():
    recipe = Recipe()
    for estimator in (NetworkClassifier, NetworkRegressor):
        parameters = inspect.signature(estimator).parameters
        for name, value in vars(recipe).items():
            default = parameters[name].default
            assert (default or {} if name == "optimizer_options" else default) == value, name
            assert name in (estimator.__doc__ or ""), f"{name} is not documented"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": "rellu"}, "unknown activation 'rellu'. Did you mean 'relu'?"),
        ({"lr": -1}, "lr has to be above 0, or 'auto'; got -1"),
        ({"dropout": 1}, "dropout has to be at least 0 and below 1, or 'auto'; got 1"),
        ({"hidden_layer_sizes": (0.5,)}, "hidden_layer_sizes has to be whole numbers"),
        ({"optimizer": "adm"}, "unknown optimizer 'adm'"),
        ({"optimizer_options": {"nesterow": True}, "optimizer": "sgd"}, "'nesterov'"),
        ({"monitor": "rmsee"}, "monitor 'rmsee' is no metric"),
        ({"loss": "bce"}, "loss 'bce' does not fit a regression task"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"validation_fraction": 1.5}, "share"),
    ],
)
def test_a_bad_setting_is_named_when_fitting_not_before(rng, settings, said):
    X = rng.normal(size=(250, 2))
    model = NetworkRegressor(**{**FAST, **settings})
    with pytest.raises(SettingError) as caught:
        model.fit(X, X[:, 0])
    assert said in str(caught.value)


def test_a_loss_that_explodes_keeps_the_best_and_says_so(rng):
    X = rng.normal(size=(300, 2))
    model = NetworkRegressor((8,), optimizer="sgd", lr=0.5, epochs=200, random_state=0)
    y = X[:, 0] * 1.0
    with pytest.raises(ArithmeticError, match=r"epoch 1, step \d+: .*Lower the learning rate"):
        clone(model).set_params(lr=1e30).fit(X, y)


# The core's epochs are drawn some at a time, so that an interrupt in between is after the tenth.
@pytest.mark.parametrize(
    ("engine", "epochs"), [("auto", 10 if native.AVAILABLE else 13), ("torch", 13)]
)
def test_an_interrupt_keeps_the_best_epoch(engine, epochs, rng, monkeypatch):
    X = rng.normal(size=(300, 2))
    calls = []
    original = torch.randperm

    def interrupted(*args, **kwargs):  # each epoch begins with its shuffle
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "randperm", interrupted)
    model = NetworkRegressor((8,), engine=engine, random_state=0, members=1)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(X, X[:, 0])
    assert model.n_iter_ == epochs
    assert np.isfinite(model.predict(X)).all()


def test_a_network_that_is_gone_on_with_keeps_what_it_was_made_with(rng):
    X = rng.normal(size=(60, 3))
    model = NetworkRegressor((8,), epochs=3, warm_start=True, random_state=0).fit(X, X[:, 0])
    with pytest.raises(SettingError, match=r"hidden_layer_sizes was \(8,\).*is now \(50,\)"):
        model.set_params(hidden_layer_sizes=(50,)).fit(X, X[:, 0])
    model.set_params(hidden_layer_sizes=(8,), epochs=2, lr=0.1).fit(X, X[:, 0])
    assert model.n_iter_ == 2


def test_weights_of_a_later_part_count_against_those_of_the_first(rng):
    X = rng.normal(size=(80, 2))
    answers = []
    for weight in (1.0, 1e-9):
        model = NetworkRegressor((8,), optimizer="sgd", momentum=0.0, lr=0.1, random_state=0)
        model.partial_fit(X[:40], X[:40, 0], sample_weight=np.ones(40))
        before = model.predict(X)
        model.partial_fit(X[40:], -X[40:, 0], sample_weight=np.full(40, weight))
        answers.append(np.abs(model.predict(X) - before).max())
    assert answers[0] > 1e-3
    assert answers[1] < 1e-3


def test_balanced_classes_need_all_rows_at_once(rng):
    X = rng.normal(size=(40, 2))
    model = NetworkClassifier((4,), class_weight="balanced")
    with pytest.raises(SettingError, match="needs all rows at once"):
        model.partial_fit(X, X[:, 0] > 0, classes=[False, True])


def test_y_of_another_width_is_refused_and_not_broadcast(rng):
    X = rng.normal(size=(40, 2))
    model = NetworkRegressor((4,), epochs=2).partial_fit(X, X)
    with pytest.raises(ValueError, match="y has 1 columns; the network was made for 2"):
        model.partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match="y has 1 columns; the network was made for 2"):
        NetworkRegressor((4,), epochs=2).fit(X, X, X_val=X, y_val=X[:, 0])


def test_only_the_proportions_of_weights_count(rng):
    X = rng.normal(5, 2, size=(150, 2))
    w = rng.random(150) + 0.5
    w /= w.mean()
    one = NetworkRegressor(**FAST, dtype="float64").fit(X, X[:, 0], sample_weight=w)
    other = NetworkRegressor(**FAST, dtype="float64").fit(X, X[:, 0], sample_weight=w / 3000)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-6)
