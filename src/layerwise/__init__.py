"""Train, explain and ship fully connected neural networks for tables.

>>> import layerwise as lw
>>> sorted(lw.__all__)[:4]
['AttributionDisplay', 'CurvesDisplay', 'DataError', 'DataWarning']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerwise._version import __version__
from layerwise.errors import (
    DataError,
    DataWarning,
    LayerwiseError,
    ModelFileError,
    NetworkError,
    NetworkWarning,
    OutputError,
    SettingError,
    TrainingError,
)

if TYPE_CHECKING:
    from layerwise.any_module import fit
    from layerwise.data.files import read_table
    from layerwise.data.schema import Schema, infer_schema
    from layerwise.data.sql import read_sql
    from layerwise.diagnosis.examine import doctor
    from layerwise.diagnosis.finding import Finding
    from layerwise.diagnosis.watch import watch
    from layerwise.estimators import NetworkClassifier, NetworkRegressor
    from layerwise.insight.attribution import attribute
    from layerwise.insight.dependence import partial_dependence
    from layerwise.insight.displays import (
        AttributionDisplay,
        CurvesDisplay,
        ImportanceDisplay,
        LandscapeDisplay,
        LayersDisplay,
        PartialDependenceDisplay,
    )
    from layerwise.insight.importance import importance
    from layerwise.insight.landscape import Snapshots, landscape
    from layerwise.insight.layers import Layers
    from layerwise.insight.summary import count_parameters, summary
    from layerwise.insight.trace import trace
    from layerwise.model.model import Model
    from layerwise.run import Run, resume, train
    from layerwise.selection.cross_validation import cross_validate
    from layerwise.selection.search import search
    from layerwise.training.by_hand import backward, update
    from layerwise.training.recipe import Recipe

# Imported on first use: torch and scikit-learn take seconds that `--help` need not wait.
_HOMES = {
    "AttributionDisplay": "layerwise.insight.displays",
    "CurvesDisplay": "layerwise.insight.displays",
    "Finding": "layerwise.diagnosis.finding",
    "ImportanceDisplay": "layerwise.insight.displays",
    "LandscapeDisplay": "layerwise.insight.displays",
    "Layers": "layerwise.insight.layers",
    "LayersDisplay": "layerwise.insight.displays",
    "Model": "layerwise.model.model",
    "NetworkClassifier": "layerwise.estimators",
    "NetworkRegressor": "layerwise.estimators",
    "PartialDependenceDisplay": "layerwise.insight.displays",
    "Recipe": "layerwise.training.recipe",
    "Run": "layerwise.run",
    "Schema": "layerwise.data.schema",
    "Snapshots": "layerwise.insight.landscape",
    "attribute": "layerwise.insight.attribution",
    "backward": "layerwise.training.by_hand",
    "count_parameters": "layerwise.insight.summary",
    "cross_validate": "layerwise.selection.cross_validation",
    "doctor": "layerwise.diagnosis.examine",
    "fit": "layerwise.any_module",
    "importance": "layerwise.insight.importance",
    "infer_schema": "layerwise.data.schema",
    "landscape": "layerwise.insight.landscape",
    "partial_dependence": "layerwise.insight.dependence",
    "read_sql": "layerwise.data.sql",
    "read_table": "layerwise.data.files",
    "resume": "layerwise.run",
    "search": "layerwise.selection.search",
    "summary": "layerwise.insight.summary",
    "trace": "layerwise.insight.trace",
    "train": "layerwise.run",
    "update": "layerwise.training.by_hand",
    "watch": "layerwise.diagnosis.watch",
}

__all__ = [
    "AttributionDisplay",
    "CurvesDisplay",
    "DataError",
    "DataWarning",
    "Finding",
    "ImportanceDisplay",
    "LandscapeDisplay",
    "Layers",
    "LayersDisplay",
    "LayerwiseError",
    "Model",
    "ModelFileError",
    "NetworkClassifier",
    "NetworkError",
    "NetworkRegressor",
    "NetworkWarning",
    "OutputError",
    "PartialDependenceDisplay",
    "Recipe",
    "Run",
    "Schema",
    "SettingError",
    "Snapshots",
    "TrainingError",
    "__version__",
    "attribute",
    "backward",
    "count_parameters",
    "cross_validate",
    "doctor",
    "fit",
    "importance",
    "infer_schema",
    "landscape",
    "partial_dependence",
    "read_sql",
    "read_table",
    "resume",
    "search",
    "summary",
    "trace",
    "train",
    "update",
    "watch",
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
