"""Multiple comparisons whose tests need not be independent."""

import numpy as np

from rankwise.analysis.scores import Floats


def bonferroni(p_K: Floats) -> Floats:
    """p values of K tests, each times K and at most 1.

    Unlike Holm's they agree with intervals at the level of `at_once`: below 5 % exactly where zero
    lies outside. NaN stays NaN, and is not counted.
    """
    return np.minimum(p_K * float(np.count_nonzero(~np.isnan(p_K))), 1.0)


def at_once(tests: int, level: float = 0.95) -> float:
    """Level of each of so many intervals at which all hold at once with `level` (Bonferroni)."""
    return 1 - (1 - level) / max(1, tests)


def holm(p: Floats) -> Floats:
    """Holm-adjusted p values (Scand. J. Stat. 6, 1979), in the order given.

    The same as statsmodels' `multipletests(p, method="holm")`, which runs the garbage collector at
    every call and so takes a hundred times as long as the rest of an analysis.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
