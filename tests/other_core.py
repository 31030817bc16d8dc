"""A plugin: ``LAYERWISE_CORE=path pytest -p other_core`` tests another build of the core."""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "layerwise.engine._core"


def load(path: str) -> None:
    """Let this extension be the core, before anything imports the one that is installed."""
    import layerwise.engine

    spec = importlib.util.spec_from_file_location(NAME, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = layerwise.engine._core = module
    spec.loader.exec_module(module)


if path := os.environ.get("LAYERWISE_CORE"):
    load(path)
