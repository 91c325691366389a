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
            (0.96, 1.01, 0.96, 0.94, 0.95, 0.94, 0.96, 0.95, 0.93, 1.00),
            (0.60, 0.39, 0.29, 0.24, 0.19, 0.15, 0.14, 0.10, 0.09, 0.00),
            (2.44, 1.39, 1.00, 0.92, 1.08, 1.07, 0.75, 0.81, 0.76, 1.00),
        ),
        "same": _drifts(
            (0.92, 0.72, 0.77, 0.78, 0.85, 0.90, 0.94, 0.95, 0.89, 1.00),
            (0.05, 0.40, 0.20, 0.32, 0.05, 0.16, 0.10, 0.05, 0.05, 0.00),
            (3.45, 1.55, 1.12, 1.23, 1.42, 1.17, 1.06, 0.92, 1.00, 1.00),
        ),
        "above": _drifts(
            (1.13, 0.77, 0.75, 0.80, 0.81, 0.83, 0.88, 0.86, 0.86, 1.00),
            (0.39, 0.32, 0.27, 0.24, 0.22, 0.21, 0.19, 0.16, 0.17, 0.00),
            (1.42, 1.54, 1.40, 1.04, 0.91, 0.79, 0.74, 0.72, 0.82, 1.00),
        ),
        "other": _drifts(
            (0.70, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00),
            (2.79, 1.61, 1.72, 0.05, 0.90, 1.45, 0.75, 0.44, 0.26, 0.00),
            (2.74, 2.38, 1.73, 2.15, 1.36, 0.38, 0.38, 0.61, 0.73, 1.00),
        ),
    },
    margin=2.79,
    margin_spread=0.47,
    seed=1.01,
    distances=(0.0, 1.7, 3.2, 4.2, 6.1, 7.7, 9.5, 12.0, 15.6, 26.3, 81.4),
    source="toy-0, toy-1, toy-2, toy-3, simulated-100, simulated-101, simulated-102, simulated-103; 5 repetitions",
)
