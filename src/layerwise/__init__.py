"""Train, explain and ship fully connected neural networks for tables.

>>> import layerwise as lw
>>> sorted(lw.__all__)[:4]
['DataError', 'DataWarning', 'LayerwiseError', 'Model']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerwise._version import __version__
from layerwise.errors import (
    DataError,
    DataWarning,
    LayerwiseError,
    ModelFileError,
    OutputError,
    SettingError,
    TrainingError,
)

if TYPE_CHECKING:
    from layerwise.data.files import read_table
    from layerwise.data.schema import Schema, infer_schema
    from layerwise.data.sql import read_sql
    from layerwise.estimators import NetworkClassifier, NetworkRegressor
    from layerwise.model.model import Model
    from layerwise.run import Run, resume, train
    from layerwise.training.recipe import Recipe

# Imported on first use: torch and scikit-learn take seconds that `--help` need not wait.
_HOMES = {
    "Model": "layerwise.model.model",
    "NetworkClassifier": "layerwise.estimators",
    "NetworkRegressor": "layerwise.estimators",
    "Recipe": "layerwise.training.recipe",
    "Run": "layerwise.run",
    "Schema": "layerwise.data.schema",
    "infer_schema": "layerwise.data.schema",
    "read_sql": "layerwise.data.sql",
    "read_table": "layerwise.data.files",
    "resume": "layerwise.run",
    "train": "layerwise.run",
}

__all__ = [
    "DataError",
    "DataWarning",
    "LayerwiseError",
    "Model",
    "ModelFileError",
    "NetworkClassifier",
    "NetworkRegressor",
    "OutputError",
    "Recipe",
    "Run",
    "Schema",
    "SettingError",
    "TrainingError",
    "__version__",
    "infer_schema",
    "read_sql",
    "read_table",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layerwise' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
