"""A small table and models of it, for tests that need one and not its training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from layerwise.data.encoder import Encoder
from layerwise.data.files import read_table
from layerwise.data.schema import infer_schema
from layerwise.data.target import Target
from layerwise.model.model import Model
from layerwise.network.build import build, to_arrays
from layerwise.network.plan import design

TOWNS = ["Bonn", "Köln", "Ulm"]


def rows(n: int = 60, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of numbers with gaps, a category, a boolean, and the three targets."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(40, 120, n).round(1)
    size[:2] = [40, 120][:n]  # every table has the same range
    town = rng.choice(TOWNS, n)
    new = rng.random(n) < 0.4
    price = 3 * size + 40 * (town == "Ulm") + rng.normal(0, 5, n)
    return {
        "size": [None if i % 9 == 4 else float(x) for i, x in enumerate(size)],
        "town": town.tolist(),
        "new": ["yes" if x else "no" for x in new],
        "price": price.round(2).tolist(),
        "sold": ["sold" if p > 240 else "open" for p in price],
        "band": [["low", "mid", "top"][int(p > 220) + int(p > 260)] for p in price],
    }


def model(target: str = "sold", dtype: torch.dtype = torch.float32, seed: int = 0) -> Model:
    """An untrained model of the table; ``price`` is a regression, the others classify."""
    data = rows()
    others = [name for name in ("price", "sold", "band") if name != target]
    table = read_table({name: cells for name, cells in data.items() if name not in others})
    schema = infer_schema(table, {target: "target"})
    encoder = Encoder.fit(table, schema)
    if target == "price":
        learnt = Target.regression(np.array(data["price"]), None, target)
    else:
        learnt = Target.classification(np.unique(np.array(data[target], dtype=object)), target)
    plan = design(
        encoder.n_numbers, encoder.n_codes, learnt.n_outputs, hidden_layer_sizes=(5,), norm="batch"
    )
    arrays = to_arrays(build(plan, seed=seed, dtype=dtype))
    return Model(schema, encoder, plan, [arrays], learnt, {"lr": 0.1}, {"note": "untrained"})


def bag(target: str = "sold", dtype: torch.dtype = torch.float32, n: int = 3) -> Model:
    """Several untrained networks as one model."""
    several = [model(target, dtype, seed).members[0] for seed in range(n)]
    return replace(model(target, dtype), members=several)
