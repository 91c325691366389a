"""Configurations compared in several blocks, such as models and tasks, each a contest of its own.

Inside a block configurations are compared as in a study. Over all blocks, the mean of a
configuration in a block takes the place of a run, and the block that of a seed: differences are
taken inside blocks, and what varies from block to block is their noise (a two-way layout with one
value a cell; Demsar, J. Mach. Learn. Res. 7, 2006, compares classifiers over data sets so, by
ranks). That holds on average for these blocks, and for others only if these were drawn like them.

Array suffixes: A configurations, K blocks, L values of one context column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from rankwise.analysis.comparisons import holm
from rankwise.analysis.quantiles import f_tail, t_quantile, t_tail
from rankwise.analysis.scores import Floats, Scores
from rankwise.analysis.variance import Components, components
from rankwise.analysis.verdict import LEVEL, Verdict, judge, judge_parts


@dataclass(frozen=True)
class OrderOfPair:
    """One configuration against another, block by block.

    blocks         in which both have a result
    better, worse, equal   blocks in which the mean of `arm` is better than that of `other`, ...
    surely_better, surely_worse   the same, significant after Holm over the blocks (5 %)
    by_noise       blocks in which noise alone would be expected to reverse the order of the
                   average; None where the noise inside blocks is unknown
    spread         standard deviation over blocks of the true difference: the variance of the
                   differences less that of their noise, 0 where that is negative; None likewise
    p              of the test that the difference is the same in all blocks; None likewise
    """

    arm: str
    other: str
    blocks: int
    better: int
    worse: int
    equal: int
    surely_better: int
    surely_worse: int
    by_noise: float | None
    spread: float | None
    p: float | None


@dataclass(frozen=True)
class Reversal:
    """A value of a context column in which `arm` is better than `other`, best over all blocks.

    blocks        with that value
    gain          how much better, on average over those blocks; low, high: its 95 % interval
    p_adjusted    two-sided, Holm over all configurations and values looked at
    """

    column: str
    value: str
    arm: str
    other: str
    blocks: int
    gain: float
    low: float
    high: float
    p_adjusted: float


@dataclass(frozen=True)
class AcrossColumn:
    """What holds for other values of one context column: its values are the sample.

    values    number of its values
    leaders   the best mean configuration in each value, with the value
    """

    column: str
    values: int
    leaders: tuple[tuple[str, str], ...]
    best: str | None
    tie_group: tuple[str, ...]
    winner: str | None


@dataclass(frozen=True, eq=False)
class ByBlock:
    """All blocks: the verdict of each, the order of pairs, and what holds across each column.

    contexts  the values of the context columns of each block
    rank_A    mean rank over the blocks in which a configuration has a result, 1 is best, by name
    won_A     number of blocks in which it has the best mean, by name
    order     every configuration against the one with the best mean over all blocks
    reversals values of context columns in which one is significantly better than that best (5 %)
    """

    names: tuple[str, ...]
    contexts: tuple[dict[str, Any], ...]
    verdicts: tuple[Verdict, ...]
    rank_A: dict[str, float]
    won_A: dict[str, int]
    order: tuple[OrderOfPair, ...]
    reversals: tuple[Reversal, ...]
    across: tuple[AcrossColumn, ...]


def compare_blocks(
    names: Sequence[str],
    contexts: Sequence[Mapping[str, Any]],
    blocks: Sequence[Scores],
    overall: Verdict,
    means: Scores,
) -> ByBlock:
    """Verdicts inside blocks, and how the order changes between them.

    Args:
        names: Of the blocks, in the order of `contexts` and `blocks`.
        blocks: The runs of each block.
        overall: The verdict over all blocks.
        means: What it was judged from: x_AS holds the mean of each configuration in each block.
    """
    parts = [components(scores) for scores in blocks]
    verdicts = tuple(judge_parts(s, part) for s, part in zip(blocks, parts, strict=True))
    x_AK = np.asarray(means.x_AS)
    lower = means.lower_is_better
    rank_AK = stats.rankdata(x_AK if lower else -x_AK, axis=0, nan_policy="omit")
    known_A = np.isfinite(x_AK).any(axis=1)
    best = [verdict.best for verdict in verdicts]
    others = [arm for arm in _by_place(overall) if arm != overall.best]
    return ByBlock(
        names=tuple(names),
        contexts=tuple(dict(context) for context in contexts),
        verdicts=verdicts,
        rank_A={
            arm: float(np.nanmean(rank_AK[a])) for a, arm in enumerate(means.arms) if known_A[a]
        },
        won_A={arm: best.count(arm) for arm in means.arms},
        order=tuple(order_of_pair(parts, arm, str(overall.best), lower) for arm in others),
        reversals=_reversals(parts, contexts, others, str(overall.best), lower),
        across=_across(means, contexts),
    )


def _by_place(verdict: Verdict) -> list[str]:
    ranked = [arm for arm in verdict.arms if arm.place is not None]
    return [arm.arm for arm in sorted(ranked, key=lambda arm: arm.place or 0)]


def order_of_pair(
    parts: Sequence[Components], arm: str, other: str, lower_is_better: bool = True
) -> OrderOfPair:
    """How often `arm` is better than `other`; `parts` are the fits of the blocks.

    Whether the difference is the same in all blocks: F is the variance of the K differences over
    the mean of their squared standard errors. Its degrees of freedom are Box's above (Ann. Math.
    Stat. 25, 1954, p. 290; K - 1 where all blocks are equally noisy) and Satterthwaite's below.
    """
    gain_K, error_K, df_K = _gains(parts, arm, other, lower_is_better)
    there_K = np.isfinite(gain_K)
    gain_K, error_K, df_K = gain_K[there_K], error_K[there_K], df_K[there_K]
    known_K = np.isfinite(error_K) & (error_K > 0)
    p_K = np.where(gain_K == 0, 1.0, 0.0)  # of two deterministic values
    p_K[known_K] = 2 * t_tail(np.abs(gain_K[known_K]) / error_K[known_K], df_K[known_K])
    p_K[~np.isfinite(error_K)] = 1.0
    sure_K = holm(p_K) < LEVEL
    by_noise, spread, p = _noise(gain_K, error_K, df_K)
    return OrderOfPair(
        arm=arm,
        other=other,
        blocks=len(gain_K),
        better=int(np.sum(gain_K > 0)),
        worse=int(np.sum(gain_K < 0)),
        equal=int(np.sum(gain_K == 0)),
        surely_better=int(np.sum(sure_K & (gain_K > 0))),
        surely_worse=int(np.sum(sure_K & (gain_K < 0))),
        by_noise=by_noise,
        spread=spread,
        p=p,
    )


def _gains(
    parts: Sequence[Components], arm: str, other: str, lower_is_better: bool
) -> tuple[Floats, Floats, Floats]:
    """How much better `arm` is in each block, standard error and df; NaN where not known (K,)."""
    found_K3 = np.full((len(parts), 3), np.nan)
    for k, part in enumerate(parts):
        if arm in part.arms and other in part.arms:
            c_A = np.zeros((1, len(part.arms)))
            c_A[0, part.arms.index(arm)] += 1
            c_A[0, part.arms.index(other)] -= 1
            one = part.contrasts(c_A)
            found_K3[k] = one.value[0], one.error[0], one.df[0]
    sign = -1.0 if lower_is_better else 1.0
    return sign * found_K3[:, 0], found_K3[:, 1], found_K3[:, 2]


def _noise(
    gain_K: Floats, error_K: Floats, df_K: Floats
) -> tuple[float | None, float | None, float | None]:
    """Expected reversals by noise, spread over blocks beyond noise, and p of one difference."""
    if len(gain_K) < 2 or not np.isfinite(error_K).all() or not (error_K > 0).all():
        return None, None, None
    noise_K = error_K**2
    between, within = float(np.var(gain_K, ddof=1)), float(noise_K.mean())
    total, squares, k = noise_K.sum(), (noise_K**2).sum(), len(gain_K)
    above = ((1 - 1 / k) * total) ** 2 / (squares * (1 - 2 / k) + (total / k) ** 2)
    below = total**2 / (noise_K**2 / df_K).sum()
    p = float(f_tail(between / within, above, below))
    by_noise = float(stats.norm.sf(abs(gain_K.mean()) / error_K).sum())
    return by_noise, float(np.sqrt(max(between - within, 0.0))), p


def _reversals(
    parts: Sequence[Components],
    contexts: Sequence[Mapping[str, Any]],
    others: Sequence[str],
    best: str,
    lower_is_better: bool,
) -> tuple[Reversal, ...]:
    """Every configuration against the best, over the blocks of each value of each column."""
    values = [
        (column, np.array([repr(context[column]) == value for context in contexts]))
        for column in contexts[0]
        for value in dict.fromkeys(repr(context[column]) for context in contexts)
    ]
    found: list[Reversal] = []
    for arm in others:
        gains = _gains(parts, arm, best, lower_is_better)
        for column, has_K in values:
            of_K = has_K & np.isfinite(gains[0])
            tested = _average(*(x_K[of_K] for x_K in gains))
            if tested is not None and 0 < of_K.sum() < len(contexts):
                shown = str(contexts[int(np.argmax(of_K))][column])
                found.append(Reversal(column, shown, arm, best, int(of_K.sum()), *tested))
    if not found:
        return ()
    adjusted = holm(np.array([one.p_adjusted for one in found]))
    return tuple(
        replace(one, p_adjusted=float(p))
        for one, p in zip(found, adjusted, strict=True)
        if p < LEVEL and one.gain > 0
    )


def _average(
    gain_K: Floats, error_K: Floats, df_K: Floats
) -> tuple[float, float, float, float] | None:
    """Mean gain over some blocks, its 95 % interval and its p; None where nothing is known.

    By the noise inside the blocks, with Satterthwaite's degrees of freedom, where that is known;
    else by a one-sample t test over the blocks.
    """
    k = len(gain_K)
    if k and np.isfinite(error_K).all() and (error_K > 0).all():
        error = float(np.sqrt((error_K**2).sum()) / k)
        df = float((error_K**2).sum() ** 2 / (error_K**4 / df_K).sum())
    elif k > 1 and np.ptp(gain_K) > 0:
        error, df = float(np.std(gain_K, ddof=1) / np.sqrt(k)), float(k - 1)
    else:
        return None
    mean, half = float(gain_K.mean()), float(t_quantile(0.975, df)) * error
    return mean, mean - half, mean + half, float(2 * t_tail(abs(mean) / error, df))


def _across(means: Scores, contexts: Sequence[Mapping[str, Any]]) -> tuple[AcrossColumn, ...]:
    """For every context column with two values or more, where there are other columns too."""
    varying = [
        column for column in contexts[0] if len({repr(context[column]) for context in contexts}) > 1
    ]
    if len(varying) < 2:
        return ()
    return tuple(_across_column(means, contexts, column) for column in varying)


def _across_column(
    means: Scores, contexts: Sequence[Mapping[str, Any]], column: str
) -> AcrossColumn:
    """The contest with the values of one column in the place of seeds."""
    values = list(dict.fromkeys(context[column] for context in contexts))
    x_AL = np.full((len(means.arms), len(values)), np.nan)
    x_AK = np.asarray(means.x_AS)
    for place, value in enumerate(values):
        of_K = [k for k, context in enumerate(contexts) if context[column] == value]
        x_AL[:, place] = _fitted(means, x_AK[:, of_K])
    sign_AL = x_AL if means.lower_is_better else -x_AL
    found = judge(_means(means, x_AL))
    leaders = tuple(
        (str(value), means.arms[int(np.nanargmin(sign_AL[:, place]))])
        for place, value in enumerate(values)
        if np.isfinite(sign_AL[:, place]).any()
    )
    return AcrossColumn(column, len(values), leaders, found.best, found.tie_group, found.winner)


def _fitted(means: Scores, x_AK: Floats) -> Floats:
    """The mean of each configuration over some blocks, adjusted for those that it misses (A,)."""
    part = components(_means(means, x_AK))
    found = np.full(len(means.arms), np.nan)
    for place, arm in enumerate(part.arms):
        found[means.arms.index(arm)] = part.fitted_A[place]
    return found


def _means(means: Scores, x_AS: Floats) -> Scores:
    return Scores(
        metric=means.metric,
        arms=means.arms,
        seeds=tuple(range(x_AS.shape[1])),
        x_AS=x_AS,
        lower_is_better=means.lower_is_better,
    )
