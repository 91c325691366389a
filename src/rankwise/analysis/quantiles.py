"""Quantiles and tails of Student's t, chi-square and F: the numbers of `scipy.stats`, faster.

A verdict asks for thousands of them, mostly of few values each, for which the checks of
`scipy.stats` take most of the time; the functions of `scipy.special` that it calls have none.
Arguments may be arrays of any shapes that fit together; degrees of freedom may be infinite.
"""

from typing import Any

from scipy import special


def t_quantile(p: Any, df: Any) -> Any:
    """Where Student's t with `df` degrees of freedom has the area `p` below it."""
    return special.stdtrit(df, p)


def t_at_tail(p: Any, df: Any) -> Any:
    """Where it has the area `p` above it: exact for a small `p`, where 1 - p would be rounded."""
    return -special.stdtrit(df, p)


def t_tail(t: Any, df: Any) -> Any:
    """The area above `t`."""
    return special.stdtr(df, -t)


def chi2_quantile(p: Any, df: Any) -> Any:
    """Where chi-square with `df` degrees of freedom has the area `p` below it."""
    return 2 * special.gammaincinv(df / 2, p)


def f_tail(f: Any, df: Any, below_df: Any) -> Any:
    """The area above `f` of F with `df` degrees of freedom above the line and `below_df` below."""
    return special.fdtrc(df, below_df, f)
