"""Quantiles and tails have the numbers of `scipy.stats`."""

import numpy as np
import pytest
from scipy import stats

from rankwise.analysis import quantiles

RNG = np.random.default_rng(0)
P = np.concatenate([RNG.uniform(0, 1, 500), [1e-300, 1e-12, 0.5, 1 - 1e-12]])
DF = np.concatenate([np.exp(RNG.uniform(-1, 12, 502)), [1.0, np.inf]])
X = np.concatenate([RNG.standard_t(2, 502), [0.0, np.inf]])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (quantiles.t_quantile(P, DF), stats.t.ppf(P, DF)),
        (quantiles.t_at_tail(P, DF), stats.t.isf(P, DF)),
        (quantiles.t_tail(X, DF), stats.t.sf(X, DF)),
        (quantiles.chi2_quantile(P, DF[:-1].mean()), stats.chi2.ppf(P, DF[:-1].mean())),
        (quantiles.chi2_quantile(P[:-1], DF[:-1]), stats.chi2.ppf(P[:-1], DF[:-1])),
        (quantiles.f_tail(np.abs(X[:-1]), 3, DF[:-1]), stats.f.sf(np.abs(X[:-1]), 3, DF[:-1])),
    ],
)
def test_numbers_are_those_of_scipy(found, expected):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("df", [0.0, np.nan])
def test_where_there_is_no_distribution_there_is_no_number(df):
    assert np.isnan(quantiles.t_quantile(0.975, df))
    assert np.isnan(quantiles.t_tail(1.0, df))
    assert np.isnan(quantiles.chi2_quantile(0.5, df))
