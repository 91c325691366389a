"""Multiple comparisons whose tests need not be independent."""

import numpy as np

from rankwise.analysis.scores import Floats


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
