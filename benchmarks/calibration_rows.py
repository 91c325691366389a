"""The rows of the calibration: rates over simulated studies, their bounds, and their table.

A module `calibration_*.py` beside this adds rows: each of its functions `..._rows(studies, seed)`
returns (what, values, low, high) for every row, with one value for each study.
"""

import importlib
import inspect
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Values = tuple[str, Sequence[float], float, float]
FREE = (0.0, 1.0)
COVERED = (0.935, 0.965)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, over how many studies, and the bounds if any."""

    what: str
    rate: float
    error: float
    studies: int
    low: float = 0.0
    high: float = 1.0

    @property
    def bounded(self) -> bool:
        """Whether anything is asked of it."""
        return (self.low, self.high) != FREE

    def met(self, slack: float) -> bool:
        """Whether the rate is within its bounds, give or take `slack` standard errors.

        With few studies all may agree: the error is at least what a rate at the bound would have.
        """

        if not self.studies:
            return True

        def error(bound: float) -> float:
            least = max(bound * (1 - bound), 0.0) / self.studies  # a bound above 1 is no rate
            return slack * max(self.error, float(np.sqrt(least)))

        return self.low - error(self.low) <= self.rate <= self.high + error(self.high)


def row(what: str, values: Sequence[float], low: float = 0.0, high: float = 1.0) -> Row:
    """A rate over studies, each of which counts the same, with its standard error."""
    x = np.array(values, dtype=np.float64)
    if not len(x):
        return Row(what, float("nan"), float("nan"), 0, low, high)
    error = float(x.std() / np.sqrt(len(x)))
    return Row(what, float(x.mean()), error, len(x), low, high)


def rows_beside(studies: int, seed: int, only: str = "", pool: Executor | None = None) -> list[Row]:
    """The rows of every module `calibration_*.py` here, `only` of those with this in the name.

    The folder must be on the path of modules, as it is for a script that lies there. In the
    processes of a `pool` they are the same.
    """
    asked = [(*place, studies, seed) for place in _functions(only)]
    run = map if pool is None else pool.map
    found = list(run(_values, *zip(*asked, strict=True)))
    return [row(*one) for values in found for one in values]


def _values(module: str, function: str, studies: int, seed: int) -> list[Values]:
    found: list[Values] = list(getattr(importlib.import_module(module), function)(studies, seed))
    return found


def _functions(only: str) -> Iterator[tuple[str, str]]:
    """Module and name of every function that has rows."""
    for file in sorted(Path(__file__).parent.glob("calibration_*.py")):
        if file.stem == "calibration_rows" or only not in file.stem:
            continue
        module = importlib.import_module(file.stem)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and name.endswith("_rows"):
                yield module.__name__, name


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| simulated studies | measured | ± 2 s.e. | studies | required |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        low, high, rate, error = (_shown(r, x) for x in (r.low, r.high, r.rate, 2 * r.error))
        asked = ""
        if r.bounded:
            bounds = f"{low} to {high}" if r.low > 0 else f"at most {high}"
            asked = f"at least {low}" if r.high == 1 else bounds
        lines.append(f"| {r.what} | {rate} | {error} | {r.studies:,} | {asked} |")
    return "\n".join(lines)


def _shown(r: Row, value: float) -> str:
    """A rate as a percentage; where more than 1 is allowed it is a number of things."""
    return f"{value:.1%}" if r.high <= 1 else f"{value:.2f}"
