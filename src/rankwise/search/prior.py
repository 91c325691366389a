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
            (0.76, 0.80, 0.87, 0.90, 0.92, 0.93, 0.94, 0.95, 0.95, 0.95),
            (0.40, 0.20, 0.20, 0.13, 0.13, 0.09, 0.07, 0.05, 0.05, 0.05),
            (2.44, 1.74, 1.00, 0.84, 0.78, 0.53, 0.51, 0.51, 0.51, 0.50),
            (0.14, 0.46, 0.71, 0.66, 0.72, 0.81, 1.25, 1.21, 1.11, 0.82),
        ),
        "same": _drifts(
            (0.67, 0.70, 0.76, 0.77, 0.83, 0.87, 0.91, 0.92, 0.94, 0.94),
            (0.34, 0.16, 0.16, 0.16, 0.16, 0.10, 0.10, 0.09, 0.09, 0.05),
            (1.72, 1.08, 0.74, 0.74, 0.74, 0.56, 0.56, 0.56, 0.56, 0.56),
            (0.42, 0.47, 0.83, 0.53, 0.90, 0.90, 1.48, 1.06, 0.85, 0.48),
        ),
        "above": _drifts(
            (0.90, 0.83, 0.78, 0.73, 0.73, 0.74, 0.78, 0.81, 0.83, 0.86),
            (0.64, 0.61, 0.36, 0.34, 0.30, 0.30, 0.27, 0.25, 0.25, 0.17),
            (1.94, 1.22, 0.97, 0.91, 0.64, 0.64, 0.64, 0.59, 0.59, 0.59),
            (0.00, 0.00, 0.00, 0.13, 0.13, 0.13, 0.17, 0.21, 0.30, 0.22),
        ),
        "other": _drifts(
            (0.18, 0.30, 0.54, 0.71, 0.61, 0.39, 0.32, 0.34, 0.46, 0.60),
            (1.08, 1.08, 0.52, 0.52, 0.52, 0.52, 0.52, 0.52, 0.52, 0.24),
            (2.12, 0.65, 0.61, 0.61, 0.36, 0.36, 0.36, 0.36, 0.36, 0.36),
            (0.31, 0.64, 0.67, 0.75, 0.47, 0.63, 0.47, 0.59, 0.37, 0.44),
        ),
    },
    margin=2.29,
    margin_spread=0.57,
    distances=(0.0, 0.6, 1.4, 2.6, 3.3, 4.3, 5.3, 6.6, 7.8, 10.6, 19.3),
    source="reviews, book and toy 0 to 6 of benchmarks; 20 repetitions each",
)
