"""How long the report on a large table takes: `rankwise report`, from its start to its end.

    python benchmarks/outside_tables.py

Ends with 1 where a table takes more than its bound, in seconds of one core (other processes on the
machine do not count).
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("cola", "mnli", "rte", "sst2")
METHODS = ("adapter", "bitfit", "full", "ia3", "lora", "prefix")


@dataclass(frozen=True)
class Table:
    """A table and the most seconds of one core that its report may take."""

    what: str
    bound: float
    rows: Callable[[np.random.Generator], Iterator[dict[str, Any]]]


def small_blocks(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """1,680 rows."""
    sizes = (16, 32, 64, 128, 256, 512, 1024)
    for model, task, n, method, seed in product("ab", TASKS, sizes, METHODS, range(5)):
        gain = METHODS.index(method) * (-0.01 if task == "cola" else 0.01)
        value = 0.6 + 0.02 * np.log2(n) + gain + rng.normal(0, 0.01)
        yield {"model": model, "task": task, "n": n, "method": method, "seed": seed,
               "f1": round(float(value), 4)}  # fmt: skip


def large_blocks(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """10,000 rows."""
    for task, n, method, seed in product(range(20), range(5), range(10), range(10)):
        value = task + 0.01 * method + rng.normal(0, 0.02)
        yield {"task": f"t{task}", "n": 8 * 2**n, "method": f"m{method}", "seed": seed,
               "eval_loss": round(float(value), 4)}  # fmt: skip


def one_contest(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """10,000 rows of 1,000 configurations: a random search with ten seeds each."""
    for _ in range(1000):
        rate, r = 10 ** rng.uniform(-5, -2), int(rng.choice([2, 4, 8, 16]))
        for seed in range(10):
            value = abs(np.log10(rate) + 3.5) * 0.1 + rng.normal(1, 0.02)
            yield {"learning_rate": rate, "r": r, "seed": seed, "eval_loss": round(value, 4)}


def reruns(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """10,000 rows of 500 configurations, reruns that no seed pairs."""
    for r, rate, rerun in product(range(1, 21), range(25), range(20)):
        yield {"r": r, "learning_rate": rate / 1e4 + 1e-4, "replicate": rerun,
               "eval_loss": round(1 + r / 100 + rng.normal(0, 0.02), 4)}  # fmt: skip


TABLES = (
    Table("1,680 rows: 2 models x 4 tasks x 7 sizes, 6 configurations, 5 seeds", 5, small_blocks),
    Table("10,000 rows: 100 blocks, 10 configurations, 10 seeds", 60, large_blocks),
    Table("10,000 rows: 1,000 configurations, 10 seeds", 60, one_contest),
    Table("10,000 rows: 500 configurations, 20 unlabelled reruns", 60, reruns),
)


def seconds(table: Table, folder: Path) -> tuple[float, float]:
    """Seconds of one core, and on the clock."""
    path = folder / "table.csv"
    rows = list(table.rows(np.random.default_rng(0)))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    command = [sys.executable, "-c", "from rankwise.cli.app import main; main()", "report"]
    before, start = os.times(), time.perf_counter()
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    clock, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return used - before.children_user - before.children_system, clock


def main() -> None:
    """Print a table; 1 where a bound is missed."""
    missed = False
    print("| table | seconds of one core | bound | on the clock |\n|---|---:|---:|---:|")
    for table in TABLES:
        with tempfile.TemporaryDirectory() as folder:
            used, clock = seconds(table, Path(folder))
        print(f"| {table.what} | {used:.1f} | {table.bound:g} | {clock:.1f} |", flush=True)
        missed |= used > table.bound
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
