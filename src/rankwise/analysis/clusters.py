"""Groups of examples of unequal weight: how much their spread says, and with what certainty.

Array suffixes: G groups of examples, K rows of contributions (fitted arms, or runs).
"""

import numpy as np

from rankwise.analysis.scores import Floats


def spread_of_groups(share_G: Floats | None, s_KG: Floats) -> tuple[float, float]:
    """Factor for sums of squares over groups, and their degrees of freedom.

    `s_KG` are the groups' contributions to means, each row summing to zero; the variance of a mean
    is factor * sum of s^2. For G groups of equal weight (share_G None) these are G / (G - 1) and
    G - 1. Otherwise groups of many examples weigh more, so that fewer of them count: both follow
    from s = (I - share 1') e with independent e_g of variance c_g: V, the covariance of s, has the
    trace that is expected of the sum, and tr(V)^2 / tr(V^2) degrees of freedom (Satterthwaite 1946;
    Bell and McCaffrey, Survey Methodology 28, 2002), with c_g as `_variances` estimates it.
    """
    groups = s_KG.shape[1]
    if share_G is None:
        return groups / (groups - 1), float(groups - 1)
    c_G = _variances(share_G, (s_KG**2).mean(axis=0))
    total = float(c_G.sum())
    if total == 0:
        return groups / (groups - 1), float(groups - 1)
    p, q, m = float(share_G @ share_G), float(c_G @ c_G), float(share_G @ c_G)
    expected = total - 2 * m + total * p
    diagonal_G = total * share_G**2 - 2 * share_G * c_G
    outer = 2 * p * q + 2 * m**2 - 4 * total * p * m + (total * p) ** 2
    square = q + 2 * float(c_G @ diagonal_G) + outer
    return total / expected, max(expected**2 / square, 1.0)


def _variances(share_G: Floats, square_G: Floats) -> Floats:
    """Variance of each group's contribution: a * share^2 + b * share, from two moments.

    `a` is what the examples of a group have in common, `b` what each has alone.
    """
    p, groups = float(share_G @ share_G), len(share_G)
    total, relative = float(square_G.sum()), float((square_G / share_G).sum())
    scale = p * groups - 1.0
    if scale < 1e-9:
        return np.full(groups, total / groups)
    together = (total * groups - relative) / scale
    alone = (relative * p - total) / scale
    if together < 0:
        together, alone = 0.0, 1.0
    if alone < 0:
        together, alone = 1.0, 0.0
    return together * share_G**2 + alone * share_G
