"""Structures compared each at its own best learning rate, corrected for having chosen it.

The best of several arms looks better than it is, the more so the more arms and the noisier. So the
choice is cross-fitted: the learning rate at which a structure is read, at one seed and on one fifth
of the examples, is the one that is best at the other seeds and on the other examples (with one
seed: on the other examples). What is read had no part in the choice (Stone, J. R. Stat. Soc. B 36,
1974, p. 111; Varma and Simon, BMC Bioinformatics 7:91, 2006). The structures are then judged as
arms are. Their values are those of a choice made with less data, so slightly too bad, not too good.

Array suffixes: M arms of one structure, S seeds, E examples, F folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.effects import Effects, factor_effects
from rankwise.analysis.factors import Settings
from rankwise.analysis.rates import Structure, is_rate, learning_rates, structures
from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge_parts

FOLDS = 5


@dataclass(frozen=True)
class TunedStructure:
    """One structure at its own best learning rate.

    rates       learning rates with a result
    chosen      the best one on all data
    share       share of the choices, over seeds and folds, that fell on it
    value       the metric by cross-fitted choice
    difference  from the best structure, with 95 % bounds and p adjusted as in the verdict; None for
                the best one and where the noise is unknown
    tied        may be the best structure
    """

    structure: Structure
    arms: tuple[str, ...]
    rates: tuple[float, ...]
    chosen: float
    share: float
    value: float
    difference: float | None
    low: float | None
    high: float | None
    p_adjusted: float | None
    tied: bool


@dataclass(frozen=True)
class Tuned:
    """All structures, best first, and the effects of the settings that make them."""

    structures: tuple[TunedStructure, ...]
    effects: Effects


def tune(scores: Scores, settings: Mapping[str, Settings], key: str) -> Tuned | None:
    """Compare structures at their own best learning rates.

    None where there is nothing to choose (one structure, or one learning rate in each), or where a
    choice cannot be kept apart from what is read (one seed without scores by example).
    """
    x_ASE = _by_example(scores)
    groups = {
        structure: own
        for structure, arms in structures(settings, key).items()
        if (own := [arm for arm in arms if np.isfinite(x_ASE[scores.arms.index(arm)]).any()])
    }
    if len(groups) < 2 or all(len(own) < 2 for own in groups.values()):
        return None
    w_E, fold_E = _weights(scores), _folds(scores)
    if len(scores.seeds) < 2 and fold_E.max() == 0:
        return None
    rates = learning_rates(settings, key)
    names = tuple(own[0] for own in groups.values())
    sign = 1.0 if scores.lower_is_better else -1.0
    chosen: dict[str, tuple[float, float]] = {}
    read = []
    for name, own in zip(names, groups.values(), strict=True):
        x_MSE = x_ASE[[scores.arms.index(arm) for arm in own]]
        best_SF = cross_fitted_choice(sign * x_MSE, w_E, fold_E)
        read.append(_read(x_MSE, best_SF, fold_E))
        on_all = int(np.argmin(_means(sign * x_MSE, w_E)))
        share = float((best_SF == on_all).sum() / max((best_SF >= 0).sum(), 1))
        chosen[name] = rates[own[on_all]], share
    found = _scores(scores, names, np.array(read))
    return _compared(found, groups, chosen, rates, settings, key)


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
    labels = scores.groups_E if scores.groups_E is not None else range(_by_example(scores).shape[2])
    number = {label: g for g, label in enumerate(dict.fromkeys(labels))}
    return np.array([number[label] % FOLDS for label in labels])


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


def _means(loss_MSE: Floats, w_E: Floats) -> Floats:
    run_MS = loss_MSE @ w_E / w_E.sum()
    return np.asarray(np.nanmean(np.where(np.isfinite(run_MS), run_MS, np.nan), axis=1))


def _scores(scores: Scores, names: tuple[str, ...], x_TSE: Floats) -> Scores:
    if scores.x_ASE is None:
        return replace(scores, arms=names, x_AS=x_TSE[:, :, 0])
    return replace(scores, arms=names, x_ASE=x_TSE)


def _compared(
    found: Scores,
    groups: Mapping[Structure, Sequence[str]],
    chosen: Mapping[str, tuple[float, float]],
    rates: Mapping[str, float],
    settings: Mapping[str, Settings],
    key: str,
) -> Tuned | None:
    parts = components(found)
    verdict = judge_parts(found, parts)
    against = {one.arm: one for one in verdict.with_best}
    fitted = dict(zip(parts.arms, parts.fitted_A.tolist(), strict=True))
    rows = []
    for structure, own in groups.items():
        name = own[0]
        if name not in fitted:
            continue
        gap = against.get(name)
        rows.append(
            TunedStructure(
                structure=structure,
                arms=tuple(own),
                rates=tuple(sorted({rates[arm] for arm in own})),
                chosen=chosen[name][0],
                share=chosen[name][1],
                value=fitted[name],
                difference=None if gap is None else gap.value,
                low=None if gap is None else gap.low,
                high=None if gap is None else gap.high,
                p_adjusted=None if gap is None else gap.p_adjusted,
                tied=name in verdict.tie_group,
            )
        )
    rows.sort(key=lambda row: row.value if found.lower_is_better else -row.value)
    plain = {
        name: {k: v for k, v in settings[name].items() if not is_rate(k, key)}
        for name in parts.arms
    }
    effects = factor_effects(found.metric, parts, plain, found.lower_is_better)
    return Tuned(tuple(rows), effects) if len(rows) > 1 else None
