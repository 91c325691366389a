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
    """Final difference = keep * difference + drift; the parts of the drift's standard deviation.

    `absolute` is in units, `relative` times the difference, `rough` times its roughness. At share 1
    the final difference is the mean over all seeds, and the drift is what they add to the first.
    """

    keep: float
    relative: float
    absolute: float
    rough: float = 0.0


@dataclass(frozen=True, eq=False)
class Prior:
    """Drifts at some shares, by side, and what else recorded curves say.

    shares  ascending
    drifts  side -> one drift a share
    margin  distance at which an arm is left in the tie group of a full study half of the time, in
            units; margin_spread is the standard deviation of its logarithm over arms
    distances  quantiles (0, 10, ..., 100 %) of the final distance of an arm from the best, in units
    source  what the numbers were fitted to
    """

    shares: tuple[float, ...]
    drifts: Mapping[Side, tuple[Drift, ...]]
    margin: float
    margin_spread: float
    distances: tuple[float, ...]
    source: str

    def at(self, share: float, side: Side) -> Drift:
        """The drift at a share, linear between those known."""
        own = self.drifts[side]
        table = np.array([(d.keep, d.relative, d.absolute, d.rough) for d in own]).T
        return Drift(*(float(np.interp(share, self.shares, column)) for column in table))


def _drifts(*columns: tuple[float, ...]) -> tuple[Drift, ...]:
    return tuple(Drift(*row) for row in zip(*columns, strict=True))


PRIOR = Prior(
    shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    drifts={
        "below": _drifts(
            (0.61, 0.77, 0.85, 0.86, 0.81, 0.91, 0.93, 0.89, 0.93, 0.93),
            (0.05, 0.35, 0.26, 0.22, 0.20, 0.05, 0.05, 0.06, 0.05, 0.05),
            (2.31, 0.91, 0.64, 0.41, 0.47, 0.46, 0.47, 0.50, 0.61, 0.41),
            (5.00, 0.51, 0.06, 0.00, 0.62, 1.71, 1.05, 1.11, 1.03, 1.63),
        ),
        "same": _drifts(
            (0.67, 0.72, 0.74, 0.76, 0.74, 0.83, 0.85, 0.86, 0.87, 0.87),
            (0.80, 0.05, 0.05, 0.05, 0.11, 0.05, 0.05, 0.05, 0.05, 0.05),
            (0.30, 1.13, 0.65, 0.79, 0.75, 0.61, 0.65, 0.56, 0.54, 0.73),
            (0.00, 0.10, 0.00, 0.00, 0.51, 0.98, 0.39, 0.62, 1.31, 0.00),
        ),
        "above": _drifts(
            (0.73, 0.61, 0.64, 0.73, 0.60, 0.73, 0.82, 0.80, 0.79, 0.79),
            (0.63, 0.30, 0.26, 0.32, 0.24, 0.23, 0.21, 0.23, 0.23, 0.22),
            (0.90, 0.87, 0.78, 0.42, 0.59, 0.55, 0.44, 0.50, 0.66, 1.01),
            (1.17, 0.02, 0.04, 0.11, 0.49, 0.00, 0.48, 0.01, 0.04, 0.06),
        ),
        "other": _drifts(
            (0.00, 0.44, 0.00, 0.17, 0.30, 0.26, 0.00, 0.11, 0.05, 1.00),
            (1.19, 0.05, 0.05, 0.05, 0.05, 0.50, 0.05, 0.23, 0.38, 0.28),
            (0.30, 0.37, 0.35, 0.30, 0.30, 0.30, 0.35, 0.32, 0.30, 0.37),
            (5.00, 0.45, 0.21, 0.50, 0.71, 0.65, 0.64, 0.23, 0.79, 0.13),
        ),
    },
    margin=2.66,
    margin_spread=0.52,
    distances=(0.0, 0.7, 1.3, 2.2, 3.2, 4.1, 5.0, 6.2, 7.4, 8.9, 12.9),
    source="reviews, toy 0-3; margin of reviews, toy 0-6; 4 repetitions",
)
