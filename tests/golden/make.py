"""Make the golden model file of the current format, once, and never again.

A model file that people have must stay readable. So these files are made by the layerwise that
introduced a format, are committed, and only the tests read them: ``python tests/golden/make.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import layerwise
from layerwise.model.file import FORMAT

HERE = Path(__file__).parent


def table(n: int, seed: int) -> dict[str, list[object]]:
    """Numbers with gaps, two categories (one of them embedded), a boolean and a date."""
    rng = np.random.default_rng(seed)
    size = rng.normal(80, 20, n).round(1)
    street = rng.integers(0, 35, n)
    kind = rng.choice(["flat", "house", "loft"], n)
    day = np.datetime64("2024-01-01") + rng.integers(0, 700, n)
    score = (size - 80) / 20 + (kind == "loft") + 0.3 * (street % 3) + rng.normal(0, 0.3, n)
    return {
        "size": [None if i % 11 == 3 else float(x) for i, x in enumerate(size)],
        "street": [f"street {i}" for i in street],
        "kind": kind.tolist(),
        "lift": ["yes" if x else "no" for x in rng.random(n) < 0.5],
        "day": [str(x) for x in day],
        "band": [["low", "mid", "top"][int(s > 0) + int(s > 1)] for s in score],
    }


def main() -> None:
    """Train on 400 rows, save the model and its answers to 12 others."""
    path = HERE / f"model-format-{FORMAT}.layerwise"
    if path.exists():
        sys.exit(f"{path} exists; a golden file is made once")
    run = layerwise.train(
        table(400, 0), target="band", hidden_layer_sizes=(4,), norm="batch", dropout=0.1,
        activation="gelu", epochs=20, baselines=False, members=3, bins=4,
    )  # fmt: skip
    run.model.save(path)
    rows = {name: cells for name, cells in table(12, 1).items() if name != "band"}
    answers = {
        "rows": rows,
        "classes": run.model.predict(rows).tolist(),
        "probabilities": run.model.predict_proba(rows).tolist(),
    }
    text = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
