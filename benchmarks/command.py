"""What the commands cost around the epochs: wall seconds and peak memory of whole processes.

    python benchmarks/command.py [--rows 50000] [--repeat 3]

Writes a mixed table of 15 columns to a temporary folder, then times `layerwise --help`, `train`
(one network, all but its epochs, with the report, no baselines) and `predict` of 1,000 rows from
cold. The memory of `train` is compared with the table in memory and with a process that does one
pass of torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "layerwise"]
MB = 1 / 1024
TORCH_ALONE = """
import torch
network = torch.nn.Linear(20, 128)
network(torch.zeros(256, 20)).sum().backward()
"""


def write_table(path: Path, n: int) -> int:
    """A mixed table; returns its size in memory as columns (8 bytes a number, 4 a category)."""
    rng = np.random.default_rng(0)
    numbers = {f"n{i}": rng.normal(size=n) * 10**i for i in range(7)}
    counts = {f"k{i}": rng.poisson(3 + i, n) for i in range(2)}
    texts = {
        f"c{i}": rng.choice([f"level {i} {k}" for k in range(4 + 12 * i)], n) for i in range(4)
    }
    day = np.datetime64("2020-01-01") + rng.integers(0, 2000, n)
    y = numbers["n0"] + (texts["c0"] == "level 0 1") + 0.3 * rng.normal(size=n)
    columns = {**numbers, **counts, **texts, "day": day, "y": y}
    with path.open("w") as file:
        file.write(",".join(columns) + "\n")
        for row in zip(
            *(c.tolist() if c.dtype.kind != "M" else c.astype(str) for c in columns.values())
        ):
            file.write(",".join(map(str, row)) + "\n")
    return n * (8 * 9 + 8 + 8) + sum(n * column.dtype.itemsize for column in texts.values())


def run(arguments: list[str]) -> tuple[float, int, bytes]:
    """Wall seconds, peak kB and standard output of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - start, usage.ru_maxrss, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_table(folder / "mixed.csv", arguments.rows)
        write_table(folder / "new.csv", 1000)
        around, memory, predicts, helps, torches = [], [], [], [], []
        for i in range(arguments.repeat):
            helps.append(run([*COMMAND, "--help"])[0])
            _, torch_memory, _ = run([sys.executable, "-c", TORCH_ALONE])
            torches.append(torch_memory)
            out = folder / f"run{i}"
            wall, peak, output = run(
                [*COMMAND, "train", str(folder / "mixed.csv"), "-t", "y", "--no-baselines",
                 "--members", "1", "--epochs", "3", "--out", str(out), "--json", "--quiet"]
            )  # fmt: skip
            events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
            epochs = [event["row"]["seconds"] for event in events if event["event"] == "epoch"]
            around.append(wall - epochs[-1])
            memory.append(peak)
            stages = json.loads(output)["seconds"]
            predicts.append(run([*COMMAND, "predict", str(out), str(folder / "new.csv")])[0])
        median = statistics.median
        extra = median(memory) - median(torches)
        print(f"table: {arguments.rows:,} x 15, {size / 1e6:.1f} MB in memory")
        print(f"--help                               {median(helps):.2f} s")
        print(f"train, all but the epochs            {median(around):.2f} s  {stages}")
        print(f"predict 1,000 rows from cold         {median(predicts):.2f} s")
        print(
            f"train, peak memory                   {median(memory) * MB:.0f} MB; "
            f"torch alone, one step: {median(torches) * MB:.0f} MB; "
            f"beyond it {extra * MB:.0f} MB, {extra * 1024 / size:.1f} times the table"
        )


if __name__ == "__main__":
    main()
