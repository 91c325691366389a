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
    margin  distance up to which an arm is left in the tie group of a full study, in units
    seed    standard deviation of a run over seeds beside the others, in units
    source  what the numbers were fitted to
    """

    shares: tuple[float, ...]
    drifts: Mapping[Side, tuple[Drift, ...]]
    margin: float
    seed: float
    source: str

    def at(self, share: float, side: Side) -> Drift:
        """The drift at a share, linear between those known."""
        own = self.drifts[side]
        table = ([d.keep for d in own], [d.relative for d in own], [d.absolute for d in own])
        return Drift(*(float(np.interp(share, self.shares, column)) for column in table))


def _drifts(*columns: tuple[float, ...]) -> tuple[Drift, ...]:
    return tuple(Drift(*row) for row in zip(*columns, strict=True))


PRIOR = Prior(
    shares=(0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
    drifts={
        "below": _drifts(
            (0.5, 0.7, 0.8, 0.9, 1.0, 1.0),
            (0.4, 0.3, 0.2, 0.15, 0.1, 0.0),
            (4.0, 3.0, 2.5, 2.0, 2.0, 1.0),
        ),
        "same": _drifts(
            (0.5, 0.7, 0.8, 0.9, 1.0, 1.0),
            (0.5, 0.4, 0.3, 0.2, 0.1, 0.0),
            (4.0, 3.0, 2.5, 2.0, 2.0, 1.0),
        ),
        "above": _drifts(
            (0.4, 0.5, 0.6, 0.7, 0.9, 1.0),
            (0.6, 0.5, 0.4, 0.3, 0.1, 0.0),
            (5.0, 4.0, 3.0, 2.0, 2.0, 1.0),
        ),
        "other": _drifts(
            (0.4, 0.5, 0.6, 0.7, 0.9, 1.0),
            (0.8, 0.7, 0.6, 0.4, 0.2, 0.0),
            (8.0, 7.0, 5.0, 4.0, 2.0, 1.0),
        ),
    },
    margin=3.0,
    seed=1.0,
    source="not fitted yet: set by hand",
)
