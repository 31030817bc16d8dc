"""Write a real table to play with: 569 breast tumours, 30 measurements each, from scikit-learn.

    python examples/write_table.py FOLDER

writes FOLDER/tumours.csv with a diagnosis, and FOLDER/new_patients.csv with 40 rows without one.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main(folder: Path) -> None:
    data = load_breast_cancer()
    header = ["patient", *(name.replace(" ", "_") for name in data.feature_names), "diagnosis"]
    rows = [
        [f"P{number:04d}", *values, data.target_names[label]]
        for number, (values, label) in enumerate(
            zip(data.data.tolist(), data.target.tolist()), start=1
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "tumours.csv", header, rows[:-40])
    write(folder / "new_patients.csv", header[:-1], [row[:-1] for row in rows[-40:]])


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    print(f"wrote {path}: {len(rows)} rows, {len(header)} columns")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
