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
            (0.74, 0.80, 0.87, 0.89, 0.92, 0.94, 0.96, 0.97, 0.96, 0.95),
            (0.30, 0.28, 0.22, 0.14, 0.11, 0.08, 0.05, 0.05, 0.05, 0.05),
            (2.92, 1.08, 0.83, 0.76, 0.64, 0.46, 0.46, 0.46, 0.46, 0.37),
            (0.14, 0.14, 0.38, 0.57, 0.97, 1.16, 1.18, 1.11, 0.68, 0.34),
        ),
        "same": _drifts(
            (0.76, 0.79, 0.84, 0.83, 0.87, 0.89, 0.91, 0.92, 0.91, 0.91),
            (0.14, 0.14, 0.14, 0.14, 0.14, 0.12, 0.11, 0.07, 0.05, 0.05),
            (2.65, 1.10, 0.54, 0.54, 0.52, 0.45, 0.45, 0.45, 0.41, 0.41),
            (0.00, 0.00, 0.00, 0.00, 0.39, 0.71, 0.73, 0.76, 0.78, 1.10),
        ),
        "above": _drifts(
            (1.19, 1.03, 0.87, 0.80, 0.80, 0.82, 0.84, 0.85, 0.86, 0.88),
            (1.09, 0.53, 0.47, 0.43, 0.27, 0.27, 0.27, 0.22, 0.22, 0.20),
            (1.33, 0.90, 0.69, 0.69, 0.69, 0.60, 0.60, 0.57, 0.57, 0.57),
            (0.49, 0.25, 0.05, 0.05, 0.05, 0.00, 0.22, 0.22, 0.22, 0.00),
        ),
        "other": _drifts(
            (0.78, 0.62, 0.32, 0.33, 0.16, 0.12, 0.23, 0.53, 0.77, 0.78),
            (1.52, 0.29, 0.29, 0.29, 0.29, 0.29, 0.29, 0.05, 0.05, 0.05),
            (1.80, 0.67, 0.62, 0.48, 0.38, 0.38, 0.38, 0.38, 0.38, 0.30),
            (0.00, 0.05, 0.05, 0.30, 0.60, 0.70, 0.58, 0.40, 0.45, 0.48),
        ),
    },
    margin=2.27,
    margin_spread=0.45,
    distances=(0.0, 0.4, 1.1, 1.8, 2.5, 3.2, 3.9, 5.1, 6.1, 7.2, 9.5),
    source="book (seed 0) and toy 0 to 6 of benchmarks; 3 repetitions each",
)
