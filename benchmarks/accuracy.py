"""How accurate defaults are: layerwise beside linear models, scikit-learn's network and trees.

    python benchmarks/accuracy.py [--full] [--tables iris,wine] [--methods layerwise,CatBoost]
    python benchmarks/accuracy.py --settings '{"hidden_layer_sizes": [128, 128], "patience": 12}'

Three folds of each table: those that come with scikit-learn, and the CSV files of a folder with an
INDEX.csv (``--folder``, ../shared/tables by default) where there is one; large ones by samples of
1,000 and 5,000 rows, with ``--full`` whole as well. Everybody runs with default settings and one
thread, layerwise with its own default; what is not installed is left out. Each result is a line in
``--out``, so that a run that was stopped goes on where it was. Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn import metrics as m
from sklearn.compose import (
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler

FOLDS = 3
SAMPLES = (1000, 5000)
METRIC = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
Table = tuple[pd.DataFrame, np.ndarray, str]  # X, y, task

# ---------------------------------------------------------------- tables


def bundled(name: str) -> Table:
    data = getattr(datasets, f"load_{name}")(as_frame=True)
    tasks = {"diabetes": "regression", "breast_cancer": "binary"}
    return data.data, data.target.to_numpy(), tasks.get(name, "multiclass")


def from_file(path: Path, target: str, task: str) -> Table:
    frame = pd.read_csv(path)
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    frame[texts] = frame[texts].astype("category")
    y = frame.pop(target)
    return frame, y.to_numpy() if task == "regression" else LabelEncoder().fit_transform(y), task


def sampled(load: Callable[[], Table], n: int) -> Table:
    X, y, task = load()
    rows = np.random.default_rng(0).permutation(len(X))[:n]
    return X.iloc[rows].reset_index(drop=True), y[rows], task


def all_tables(folder: Path, full: bool) -> dict[str, Callable[[], Table]]:
    found: dict[str, Callable[[], Table]] = {}
    for name in ("iris", "wine", "breast_cancer", "digits", "diabetes"):
        found[name] = partial(bundled, name)
    if not (folder / "INDEX.csv").exists():
        return found
    for row in pd.read_csv(folder / "INDEX.csv").to_dict("records"):
        name, n = row["name"], row["rows"]
        load = partial(from_file, folder / f"{name}.csv", row["target"], row["task"])
        if n < 10_000 or full:
            found[name] = load
        found |= {f"{name}@{k}": partial(sampled, load, k) for k in SAMPLES if n > 1.5 * k}
    return found


def folds(X: pd.DataFrame, y: np.ndarray, task: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    kind = KFold if task == "regression" else StratifiedKFold
    yield from kind(FOLDS, shuffle=True, random_state=0).split(X, y)


# ---------------------------------------------------------------- methods


def layerwise(task: str, **settings: Any) -> Any:
    from layerwise import NetworkClassifier, NetworkRegressor

    kind = NetworkRegressor if task == "regression" else NetworkClassifier
    return kind(random_state=0, **settings)


class LayerwiseBest:
    """``layerwise.train`` with its preset best, on all rows that a fold gives."""

    def __init__(self, task: str) -> None:
        self.task = "regression" if task == "regression" else "classification"

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> None:
        from layerwise import train

        self.model = train(
            X.assign(**{"the target": y}), "the target", task=self.task, test=0, baselines=False,
            preset="best",
        ).model  # fmt: skip

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        return self.model.predict(X)

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        return self.model.predict_proba(X)


def spread() -> Any:
    """Numbers standardised, gaps filled and marked; categories one-hot."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (levels, make_column_selector(dtype_include="category")),
    )


def linear(task: str) -> Any:
    return make_pipeline(
        spread(), Ridge() if task == "regression" else LogisticRegression(max_iter=1000)
    )


def sklearn_mlp(task: str) -> Any:
    if task != "regression":
        return make_pipeline(spread(), MLPClassifier(random_state=0))
    network = TransformedTargetRegressor(MLPRegressor(random_state=0), transformer=StandardScaler())
    return make_pipeline(spread(), network)  # without a scaled target it learns next to nothing


def hist_gb(task: str) -> Any:
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return kind(random_state=0, categorical_features="from_dtype")


def lightgbm(task: str) -> Any:
    import lightgbm as lgb

    kind = lgb.LGBMRegressor if task == "regression" else lgb.LGBMClassifier
    return kind(random_state=0, n_jobs=1, verbose=-1)


def xgboost(task: str) -> Any:
    import xgboost as xgb

    kind = xgb.XGBRegressor if task == "regression" else xgb.XGBClassifier
    return kind(random_state=0, n_jobs=1, enable_categorical=True)


class CatBoost:
    """CatBoost, which takes categories by name and as text."""

    def __init__(self, task: str) -> None:
        import catboost as cb

        kind = cb.CatBoostRegressor if task == "regression" else cb.CatBoostClassifier
        self.model = kind(random_seed=0, thread_count=1, verbose=0, allow_writing_files=False)

    @staticmethod
    def texts(X: pd.DataFrame) -> pd.DataFrame:
        names = X.select_dtypes("category").columns
        return X.assign(**{name: X[name].astype(object).fillna("").astype(str) for name in names})

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> None:
        self.model.fit(self.texts(X), y, cat_features=list(X.select_dtypes("category")))

    def predict(self, X: pd.DataFrame) -> Any:
        return self.model.predict(self.texts(X))

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return self.model.predict_proba(self.texts(X))


def realmlp(task: str) -> Any:
    import pytabkit as tab

    kind = tab.RealMLP_TD_S_Regressor if task == "regression" else tab.RealMLP_TD_S_Classifier
    gaps = make_column_transformer(  # it takes categories by name, and no gaps in numbers
        (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
        remainder="passthrough", verbose_feature_names_out=False,
    )  # fmt: skip
    network = kind(random_state=0, n_threads=1, device="cpu")
    return make_pipeline(gaps.set_output(transform="pandas"), network)


METHODS: dict[str, tuple[str, Callable[[str], Any]]] = {  # the package that it needs
    "layerwise": ("layerwise", layerwise),
    "layerwise best": ("layerwise", LayerwiseBest),
    "linear": ("sklearn", linear),
    "sklearn MLP": ("sklearn", sklearn_mlp),
    "HistGB": ("sklearn", hist_gb),
    "LightGBM": ("lightgbm", lightgbm),
    "XGBoost": ("xgboost", xgboost),
    "CatBoost": ("catboost", CatBoost),
    "RealMLP": ("pytabkit", realmlp),
}

# ---------------------------------------------------------------- one result


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equally many rows."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return float(sum(abs(p[part].sum() - y[part].sum()) for part in parts if len(part)) / len(y))


def scores(
    task: str, y: np.ndarray, model: Any, X: pd.DataFrame, n_classes: int
) -> dict[str, float]:
    if task == "regression":
        answers = np.asarray(model.predict(X)).ravel()
        return {"rmse": m.root_mean_squared_error(y, answers), "r2": m.r2_score(y, answers)}
    p = np.asarray(model.predict_proba(X), dtype=float)
    p /= p.sum(axis=1, keepdims=True)
    binary = task == "binary"
    found = {
        "auc": m.roc_auc_score(y, p[:, 1] if binary else p, multi_class="ovr"),
        "log_loss": m.log_loss(y, p, labels=range(n_classes)),
        "accuracy": m.accuracy_score(y, p.argmax(axis=1)),
    }
    return found | ({"ece": calibration_error(y, p[:, 1])} if binary else {})


def run(make: Callable[[str], Any], table: Table, fold: int) -> dict[str, float]:
    X, y, task = table
    train, test = list(folds(X, y, task))[fold]
    model = make(task)
    cpu, wall = time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # networks that have not converged are part of a default
        model.fit(X.iloc[train], y[train])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        found = scores(task, y[test], model, X.iloc[test], len(np.unique(y)))
    return {**found, "cpu_s": cpu, "wall_s": wall, "rows": len(train)}


# ---------------------------------------------------------------- the table


def summary(lines: list[dict[str, Any]], tasks: dict[str, str], methods: list[str]) -> str:
    """Markdown: each table's metric, then mean rank, cost and calibration over all of them."""
    frame = pd.DataFrame(lines).groupby(["table", "method"]).mean(numeric_only=True).reset_index()
    rows, ranks = [], []
    names = [n for n in tasks if set(methods) <= set(frame[frame.table == n].method)]
    for name in names:
        metric = METRIC[tasks[name]]
        of = frame[frame.table == name].set_index("method")[metric][methods]
        rank = of.rank(ascending=metric != "auc")
        ranks.append(rank)
        shown = [f"{v:.0f}" if v >= 1e4 else f"{v:.4g}" for v in of]
        cells = [f"**{v}**" if r == 1 else v for v, r in zip(shown, rank)]
        rows.append([name, metric.replace("_", " "), *cells])
    chosen = frame[frame.table.isin(names)]
    cost = (1000 * chosen.cpu_s / chosen.rows).groupby(chosen.method).median()
    ece = chosen.groupby("method").ece.mean() if "ece" in chosen else {}
    rows.append(["mean rank", "", *(f"{v:.2f}" for v in pd.DataFrame(ranks).mean()[methods])])
    rows.append(["CPU s per 1,000 rows", "median", *(f"{cost[n]:.2g}" for n in methods)])
    if len(ece):
        rows.append(["calibration error", "binary, mean", *(f"{ece[n]:.4f}" for n in methods)])
    head = ["table", "metric", *methods]
    lines_out = [head, ["---", "---", *["---:"] * len(methods)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines_out)


def main() -> None:
    parser = argparse.ArgumentParser(description="How accurate defaults are.")
    parser.add_argument("--folder", type=Path, default=Path("../shared/tables"))
    parser.add_argument("--out", type=Path, default=Path("build/accuracy.jsonl"))
    parser.add_argument("--tables", help="names, separated by commas")
    parser.add_argument("--methods", help="names, separated by commas")
    parser.add_argument("--again", default="", help="methods whose earlier results do not count")
    parser.add_argument("--full", action="store_true", help="large tables whole as well")
    parser.add_argument(
        "--settings", action="append", default=[], metavar="JSON",
        help="layerwise with other settings as one more method; can be repeated",
    )  # fmt: skip
    ask = parser.parse_args()
    for said in ask.settings:
        METHODS[said] = ("layerwise", partial(layerwise, **json.loads(said)))
    loaders = all_tables(ask.folder, ask.full)
    if ask.tables:
        loaders = {name: loaders[name] for name in ask.tables.split(",")}
    usual = [name for name in METHODS if name != "layerwise best"]  # that is ten times the time
    named = ask.methods.split(",") + ask.settings if ask.methods else usual
    methods = list(dict.fromkeys(named))
    methods = [name for name in methods if importlib.util.find_spec(METHODS[name][0])]
    lines = [json.loads(line) for line in ask.out.open()] if ask.out.exists() else []
    lines = [line for line in lines if line["method"] not in ask.again.split(",")]
    done = {(line["table"], line["method"], line["fold"]): line for line in lines}
    ask.out.parent.mkdir(parents=True, exist_ok=True)
    ask.out.write_text("".join(json.dumps(line) + "\n" for line in done.values()))
    tasks = {}
    for name, load in loaders.items():
        table = load()
        tasks[name] = table[2]
        for method in methods:
            for fold in range(FOLDS):
                if (name, method, fold) in done:
                    continue
                result = {"table": name, "method": method, "fold": fold}
                result |= run(METHODS[method][1], table, fold)
                done[name, method, fold] = result
                with ask.out.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                value = result[METRIC[table[2]]]
                print(
                    f"{name} {method} {fold}: {value:.4g}, {result['cpu_s']:.2f} CPU s", flush=True
                )
    shown = [line for key, line in done.items() if key[0] in tasks and key[1] in methods]
    print("\n" + summary(shown, tasks, methods))


if __name__ == "__main__":
    main()
