"""Structures compared each at its own best learning rate, corrected for having chosen it.

The best of several arms looks better than it is, the more so the more arms and the noisier. Two
corrections:

* The value of a structure is cross-fitted: at one seed and on one fifth of the examples it is read
  from the arm that is best at the other seeds and on the other examples (with one seed: on the
  other examples), so what is read had no part in the choice (Stone, J. R. Stat. Soc. B 36, 1974,
  p. 111; Varma and Simon, BMC Bioinformatics 7:91, 2006). As a choice made with less data it is
  slightly too bad, not too good.
* The distance of a structure from the best of the others is a minimum of maxima of differences of
  arms, min_b max_a (arm b of the structure - arm a of the others). It has bounds from those of the
  pairs: over the arms that are maximised none is lost (intersection-union test, Berger,
  Technometrics 24, 1982, p. 295), over those that are minimised the level is divided (Bonferroni).
  Intervals from the cross-fitted values themselves would be too narrow: what is read in one fold
  decides in the others (they held the truth in 91 % of simulated studies with 4 seeds).

Array suffixes: A arms, M arms of one structure, S seeds, E examples, F folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.additive import LEVEL
from rankwise.analysis.crossfit import fold_of
from rankwise.analysis.factors import Settings
from rankwise.analysis.quantiles import t_at_tail
from rankwise.analysis.rates import Structure, learning_rates, structures
from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.variance import Components, Estimates, components

MOST_QUANTILES = 1000


@dataclass(frozen=True)
class TunedStructure:
    """One structure at its own best learning rate.

    rates       learning rates with a result
    chosen      the best one on all data
    share       share of the choices, over seeds and folds, that fell on it
    mean        of the arm that is best on all data
    corrected   by cross-fitted choice
    behind      `mean` against the best of the other structures, as a loss: negative for the best
    low, high   95 % interval of that difference of the true best arms; None: the noise is unknown
    """

    structure: Structure
    arms: tuple[str, ...]
    rates: tuple[float, ...]
    chosen: float
    share: float
    mean: float
    corrected: float
    behind: float
    low: float | None
    high: float | None

    @property
    def worse(self) -> bool:
        """Another structure is better than this one, each at its own best rate."""
        return self.low is not None and self.low > 0

    @property
    def best(self) -> bool:
        """Better than all other structures."""
        return self.high is not None and self.high < 0


def tune(
    scores: Scores, parts: Components, settings: Mapping[str, Settings], key: str
) -> tuple[TunedStructure, ...]:
    """Structures at their own best learning rates, best first; `parts` are those of `scores`.

    Empty where there is nothing to choose (one structure, or one learning rate in each), or where a
    choice cannot be kept apart from what is read (one seed without scores by example).
    """
    groups = {
        structure: own
        for structure, arms in structures(settings, key).items()
        if (own := [arm for arm in arms if arm in parts.arms])
    }
    w_E, fold_E = _weights(scores), _folds(scores)
    nothing_to_choose = len(groups) < 2 or all(len(own) < 2 for own in groups.values())
    if nothing_to_choose or (len(scores.seeds) < 2 and fold_E.max() == 0):
        return ()
    rates, sign = learning_rates(settings, key), 1.0 if scores.lower_is_better else -1.0
    loss = dict(zip(parts.arms, (sign * parts.fitted_A).tolist(), strict=True))
    pairs = parts.pairs()
    corrected, choice = _corrected(scores, list(groups.values()), w_E, fold_E)
    rows = []
    for n, (structure, own) in enumerate(groups.items()):
        best = min(own, key=loss.__getitem__)
        others = [arm for other in groups.values() if other is not own for arm in other]
        low, high = distance(parts, pairs, own, others, sign)
        rows.append(
            TunedStructure(
                structure=structure,
                arms=tuple(own),
                rates=tuple(sorted({rates[arm] for arm in own})),
                chosen=rates[best],
                share=float(np.mean(choice[n] == own.index(best))),
                mean=sign * loss[best],
                corrected=corrected[n],
                behind=loss[best] - min(loss[arm] for arm in others),
                low=low,
                high=high,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.behind))


def distance(
    parts: Components, pairs: Estimates, own: Sequence[str], others: Sequence[str], sign: float
) -> tuple[float | None, float | None]:
    """95 % interval of the best of `own` minus the best of `others`, as losses.

    `pairs` are those of `parts`.
    """
    if parts.claim == "nothing":
        return None, None
    this, that = ([parts.arms.index(arm) for arm in group] for group in (own, others))
    at = np.ix_(this, that)
    value, error, df = sign * pairs.value[at], pairs.error[at], pairs.df[at]
    if df.size > MOST_QUANTILES:
        df = df.min()  # the quantiles take most of the time; these are a little too wide
    high = value + t_at_tail(LEVEL / 2 / len(own), df) * error
    low = value - t_at_tail(LEVEL / 2 / len(others), df) * error
    return float(low.min(axis=0).max()), float(high.max(axis=1).min())


def _corrected(
    scores: Scores, groups: Sequence[Sequence[str]], w_E: Floats, fold_E: Ints
) -> tuple[list[float], list[Ints]]:
    """The cross-fitted value of each structure, and the choices, positions in its arms."""
    x_ASE, sign = _by_example(scores), 1.0 if scores.lower_is_better else -1.0
    read, choices = [], []
    for own in groups:
        x_MSE = x_ASE[[scores.arms.index(arm) for arm in own]]
        best_SF = cross_fitted_choice(sign * x_MSE, w_E, fold_E)
        read.append(_read(x_MSE, best_SF, fold_E))
        choices.append(best_SF[best_SF >= 0])
    names = tuple(own[0] for own in groups)
    x_TSE = np.array(read)
    deep = scores.x_ASE is not None
    found = replace(
        scores, arms=names, x_ASE=x_TSE if deep else None, x_AS=None if deep else x_TSE[:, :, 0]
    )
    fitted = components(found)
    value = dict(zip(fitted.arms, fitted.fitted_A.tolist(), strict=True))
    return [value.get(name, float("nan")) for name in names], choices


def _by_example(scores: Scores) -> Floats:
    if scores.x_ASE is not None:
        return np.asarray(scores.x_ASE, dtype=np.float64)
    return np.asarray(scores.x_AS, dtype=np.float64)[:, :, None]


def _weights(scores: Scores) -> Floats:
    if scores.weights_E is not None:
        return np.asarray(scores.weights_E, dtype=np.float64)
    return np.ones(_by_example(scores).shape[2])


def _folds(scores: Scores) -> Ints:
    """Fold of each example; the examples of a group are in one fold."""
    groups = scores.groups_E
    return fold_of(range(_by_example(scores).shape[2]) if groups is None else groups)


def cross_fitted_choice(loss_MSE: Floats, w_E: Floats, fold_E: Ints) -> Ints:
    """The arm (S, F) that is best at the other seeds on the other folds; -1 where none has a run.

    With one seed, or no run at another one, the choice is made at the same seed on the other folds.
    An arm is chosen for a seed only if it has a run there.
    """
    seeds = loss_MSE.shape[1]
    folds = int(fold_E.max()) + 1
    in_EF = (fold_E[:, None] == np.arange(folds)) * w_E[:, None]
    sum_MSF = np.nan_to_num(loss_MSE) @ in_EF
    done_MS: NDArray[np.bool_] = np.asarray(np.isfinite(loss_MSE).all(axis=2))
    total_F = in_EF.sum(axis=0)
    left_F = total_F.sum() - total_F if folds > 1 else total_F
    rest_MSF = sum_MSF.sum(axis=2, keepdims=True) - sum_MSF if folds > 1 else sum_MSF
    mean_MSF = np.where(done_MS[:, :, None], rest_MSF / left_F, np.nan)
    best_SF = np.full((seeds, folds), -1)
    for s in range(seeds):
        others = [t for t in range(seeds) if t != s]
        able = np.flatnonzero(done_MS[:, s] & done_MS[:, others].any(axis=1))
        if not len(able) and folds > 1:
            able, others = np.flatnonzero(done_MS[:, s]), [s]
        if len(able):
            value_MF = np.nanmean(mean_MSF[able][:, others], axis=1)
            best_SF[s] = able[np.argmin(value_MF, axis=0)]
    return best_SF


def _read(x_MSE: Floats, best_SF: Ints, fold_E: Ints) -> Floats:
    """Scores (S, E) of the chosen arms; NaN for a seed at which no arm has a run."""
    best_SE = best_SF[:, fold_E]
    seeds_SE, examples_SE = np.indices(best_SE.shape)
    return np.asarray(np.where(best_SE < 0, np.nan, x_MSE[best_SE, seeds_SE, examples_SE]))
