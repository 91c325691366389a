"""The next configurations worth trying, by expected improvement, if settings act smoothly.

Candidates are the combinations of tried values that were not tried, and, around the best predicted
arms, one number changed to a value between two tried ones or, where it has three values or more and
no arm failed or collapsed at that end, one step beyond the range. Their gain is the expected
improvement E[max(min_A f_A - f, 0)] (Jones, Schonlau and Welch, J. Global Optimization 13, 1998,
eq. 15) over the draws of the model, in which the best of the tried arms is uncertain too.

Array suffixes: A arms, D draws, N candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from rankwise.analysis.factors import ABSENT, Factor, Settings, is_number, on_scale, text_of
from rankwise.analysis.smooth import Smooth
from rankwise.analysis.smooth_model import Point, SmoothModel, draw, numeric

MOST_CANDIDATES = 60
AROUND = 3


@dataclass(frozen=True)
class Proposal:
    """A configuration that was not tried.

    settings   (factor, value) of all that vary
    beyond     a value lies outside of the range tried
    value, low, high  predicted, with its 95 % interval, relative to the mean of the arms
    p_better   probability to be better than every arm tried
    gain       expected improvement over the best arm tried, in the metric
    """

    settings: tuple[tuple[str, str], ...]
    beyond: bool
    value: float
    low: float
    high: float
    p_better: float
    gain: float


@dataclass(frozen=True)
class _Candidate:
    point: Point
    texts: tuple[str, ...]
    beyond: bool


def propose(
    model: SmoothModel,
    found: Smooth,
    settings: Mapping[str, Settings],
    lower_is_better: bool,
    most: int = 3,
) -> tuple[Proposal, ...]:
    """The candidates with the largest expected improvement, the best first.

    `settings` holds those of all arms, failed and collapsed ones too: what was tried is not
    proposed again.
    """
    candidates = _candidates(model, [one.arm for one in found.predictions[:AROUND]], settings)
    if not candidates:
        return ()
    sign = 1.0 if lower_is_better else -1.0
    arms = len(model.points)
    loss_DN = draw(model, [one.point for one in candidates])
    gain_DN = loss_DN[:, :arms].min(axis=1, keepdims=True) - loss_DN[:, arms:]
    relative_DN = loss_DN[:, arms:] - loss_DN[:, :arms].mean(axis=1, keepdims=True)
    relative_DN += float(model.loss_A.mean())
    gain_N = np.maximum(gain_DN, 0.0).mean(axis=0)
    bounds_N = np.sort(sign * np.quantile(relative_DN, (0.025, 0.975), axis=0), axis=0)
    labels = [factor.label for factor in model.factors.varied]
    return tuple(
        Proposal(
            settings=tuple(zip(labels, candidates[n].texts, strict=True)),
            beyond=candidates[n].beyond,
            value=sign * float(relative_DN[:, n].mean()),
            low=float(bounds_N[0, n]),
            high=float(bounds_N[1, n]),
            p_better=float((gain_DN[:, n] > 0).mean()),
            gain=float(gain_N[n]),
        )
        for n in np.argsort(-gain_N, kind="stable")[:most]
    )


def _candidates(
    model: SmoothModel, best: Sequence[str], settings: Mapping[str, Settings]
) -> list[_Candidate]:
    arms, varied = model.factors.arms, model.factors.varied
    lost = [own for arm, own in settings.items() if arm not in arms]
    around = [
        own
        for arm in best
        for n, factor in enumerate(varied)
        for own in _changed(model, arms.index(arm), n, _new_values(factor, arms.index(arm), lost))
    ]
    tried = _tried(model, settings)
    found = {one.texts: one for one in [*_combinations(model), *reversed(around)]}
    return [one for texts, one in reversed(found.items()) if texts not in tried][:MOST_CANDIDATES]


def _changed(
    model: SmoothModel, arm: int, n: int, values: Sequence[tuple[float, bool]]
) -> list[_Candidate]:
    """An arm with new values of one factor."""
    varied, point = model.factors.varied, model.points[arm]
    texts = tuple(factor.levels[factor.level_A[arm]] for factor in varied)
    return [
        _Candidate(
            (*point[:n], float(on_scale([value], varied[n].scale)[0]), *point[n + 1 :]),
            (*texts[:n], _text(varied[n], value), *texts[n + 1 :]),
            beyond,
        )
        for value, beyond in values
    ]


def _new_values(factor: Factor, arm: int, lost: Sequence[Settings]) -> list[tuple[float, bool]]:
    """(value, whether beyond the range): half a step to either side, a whole one at an end."""
    if not numeric(factor):
        return []
    x_L, level = factor.position_L, factor.level_A[arm]
    values = [float(value or 0.0) for value in factor.values or ()]
    whole = all(value.is_integer() for value in values)
    found = []
    for other in (level - 1, level + 1):
        beyond = not 0 <= other < len(x_L)
        if beyond and (len(x_L) < 3 or _lost_beyond(factor, values[level], other > level, lost)):
            continue
        at = 2 * x_L[level] - x_L[2 * level - other] if beyond else (x_L[level] + x_L[other]) / 2
        value = float(2.0**at if factor.scale == "log" else at)
        value = float(round(value)) if whole else float(f"{value:.2g}")
        if value not in values and value >= (1 if whole else 0):
            found.append((value, beyond))
    return found


def _lost_beyond(factor: Factor, end: float, upper: bool, lost: Sequence[Settings]) -> bool:
    """Whether an arm failed or collapsed at this end of the range or further out."""
    values = [own.get(factor.settings[0]) for own in lost]
    numbers = [float(str(value)) for value in values if is_number(value)]
    return any(value >= end if upper else value <= end for value in numbers)


def _text(factor: Factor, value: float) -> str:
    """A new value; settings that move with it have none yet."""
    rest = ["in proportion"] * (len(factor.settings) - 1)
    return " / ".join([text_of(value), *rest])


def _combinations(model: SmoothModel) -> list[_Candidate]:
    """All combinations of levels, where each is possible and they are not too many."""
    varied = model.factors.varied
    size = int(np.prod([len(factor.levels) for factor in varied], dtype=np.float64))
    absent = any(ABSENT in level.split(" / ") for f in varied for level in f.levels)
    if absent or size > 10 * MOST_CANDIDATES or any(factor.degree for factor in varied):
        return []
    return [
        _Candidate(
            tuple(
                float(f.position_L[n]) if numeric(f) else float(n)
                for f, n in zip(varied, levels, strict=True)
            ),
            tuple(f.levels[n] for f, n in zip(varied, levels, strict=True)),
            False,
        )
        for levels in product(*(range(len(factor.levels)) for factor in varied))
    ]


def _tried(model: SmoothModel, settings: Mapping[str, Settings]) -> set[tuple[str, ...]]:
    """The values of all arms, as texts of the factors' levels."""
    return {
        tuple(
            " / ".join(text_of(own.get(name)) for name in factor.settings)
            for factor in model.factors.varied
        )
        for own in settings.values()
    }
