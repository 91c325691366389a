"""What recorded curves say of the way from a rung to the end.

The numbers are fitted by `python benchmarks/race.py --tune` to the tuning problems of
`benchmarks/curves`; the unit is the standard error over examples of a difference in pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankwise.search.pairs import Side


@dataclass(frozen=True)
class Drift:
    """Final difference = keep * difference + drift; the parts of the drift's standard deviation."""

    keep: float
    relative: float
    absolute: float


@dataclass(frozen=True, eq=False)
class Prior:
    """Drifts at some shares, by side, and what else recorded curves say.

    shares  ascending
    drifts  side -> one drift a share
    margin  distance at which an arm is left in the tie group of a full study half of the time, in
            units; margin_spread is the standard deviation of its logarithm over arms
    seed    standard deviation of a run over seeds beside the others, in units
    distances  quantiles (0, 10, ..., 100 %) of the final distance of an arm from the best, in units
    source  what the numbers were fitted to
    """

    shares: tuple[float, ...]
    drifts: Mapping[Side, tuple[Drift, ...]]
    margin: float
    margin_spread: float
    seed: float
    distances: tuple[float, ...]
    source: str

    def at(self, share: float, side: Side) -> Drift:
        """The drift at a share, linear between those known."""
        own = self.drifts[side]
        table = ([d.keep for d in own], [d.relative for d in own], [d.absolute for d in own])
        return Drift(*(float(np.interp(share, self.shares, column)) for column in table))


def _drifts(*columns: tuple[float, ...]) -> tuple[Drift, ...]:
    return tuple(Drift(*row) for row in zip(*columns, strict=True))


PRIOR = Prior(
    shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    drifts={
        "below": _drifts(
            (1.15, 1.13, 1.03, 1.01, 1.01, 0.96, 0.97, 0.97, 0.93, 1.00),
            (0.48, 0.19, 0.15, 0.13, 0.13, 0.10, 0.13, 0.11, 0.10, 0.00),
            (4.07, 3.55, 2.95, 2.67, 2.15, 2.19, 1.63, 1.25, 1.23, 1.00),
        ),
        "same": _drifts(
            (0.98, 0.79, 0.80, 0.74, 0.85, 0.81, 0.81, 0.83, 0.86, 1.00),
            (0.50, 0.57, 0.43, 0.43, 0.17, 0.21, 0.13, 0.10, 0.10, 0.00),
            (4.55, 1.70, 1.22, 2.01, 1.99, 1.78, 1.59, 1.27, 1.26, 1.00),
        ),
        "above": _drifts(
            (1.25, 0.82, 0.81, 0.85, 0.88, 0.88, 0.90, 0.89, 0.91, 1.00),
            (0.29, 0.18, 0.17, 0.14, 0.12, 0.12, 0.10, 0.12, 0.12, 0.00),
            (2.73, 3.44, 3.02, 2.68, 1.98, 1.41, 1.46, 1.08, 1.36, 1.00),
        ),
        "other": _drifts(
            (1.50, 1.37, 1.50, 1.27, 1.50, 1.50, 1.32, 1.27, 1.24, 1.00),
            (0.50, 0.40, 0.30, 0.30, 0.30, 0.20, 0.20, 0.10, 0.10, 0.00),
            (6.49, 4.45, 3.13, 3.32, 2.26, 2.07, 1.56, 1.22, 1.30, 1.00),
        ),
    },
    margin=2.82,
    margin_spread=0.49,
    seed=1.23,
    distances=(0.0, 0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 40.0, 100.0),
    source="simulated curves",
)
