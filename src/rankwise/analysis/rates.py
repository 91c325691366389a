"""The learning rate hides other settings: was it tuned for every structure, and where is it best?

A structure is one set of all other settings that vary. Array suffixes: A arms, L learning rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankwise.analysis.additive import Errors
from rankwise.analysis.curvature import Optimum, Place, find_optimum
from rankwise.analysis.factors import Settings, find_factors, is_number
from rankwise.analysis.variance import Components, Estimates

Structure = tuple[tuple[str, str], ...]
Kind = Place | Literal["not varied"]


@dataclass(frozen=True)
class LearningRateFlag:
    """One structure and its learning rates.

    structure (factor, level) of all other settings that vary
    tried     learning rates in ascending order, those of failed arms included
    finished  those whose arm has a score
    best      the one with the best mean, an observation; None if no arm finished
    best_arms the arms that have it
    optimum   where the best one lies; None with fewer than two that finished
    kind      "not varied": only one learning rate; "at the lowest", "at the highest": it is better
              than all others, so a better one may lie outside; "inside": the best one lies inside
              the range; "open": neither is shown
    """

    structure: Structure
    arms: tuple[str, ...]
    tried: tuple[float, ...]
    finished: tuple[float, ...]
    best: float | None
    best_arms: tuple[str, ...]
    optimum: Optimum | None
    kind: Kind

    @property
    def at_the_edge(self) -> bool:
        """Whether a better learning rate may lie outside, as far as these results show."""
        return self.kind in ("at the lowest", "at the highest")


def learning_rate_flags(
    settings: Mapping[str, Settings],
    parts: Components,
    lower_is_better: bool = True,
    key: str = "learning_rate",
) -> tuple[LearningRateFlag, ...]:
    """A flag for each structure of `settings`; arms that are not in `parts` have no result.

    `key` names the learning rate, with or without a prefix such as `training.`. Arms that do not
    have it are left out.
    """
    rates = learning_rates(settings, key)
    pairs = parts.pairs()
    return tuple(
        _flag(structure, members, rates, (parts, pairs), lower_is_better)
        for structure, members in structures(settings, key).items()
    )


def learning_rates(settings: Mapping[str, Settings], key: str) -> dict[str, float]:
    """The learning rate of each arm that has one."""
    found = {
        arm: [value for name, value in own.items() if is_rate(name, key) and is_number(value)]
        for arm, own in settings.items()
    }
    return {arm: float(str(values[0])) for arm, values in found.items() if values}


def is_rate(name: str, key: str) -> bool:
    """Whether a setting is the learning rate, with a prefix or without."""
    return name == key or name.endswith(f".{key}")


def structures(settings: Mapping[str, Settings], key: str) -> dict[Structure, list[str]]:
    """The arms of each structure, among those that have a learning rate."""
    arms = list(learning_rates(settings, key))
    others = {arm: {k: v for k, v in settings[arm].items() if not is_rate(k, key)} for arm in arms}
    varied = find_factors(arms, others).varied if arms else ()
    found: dict[Structure, list[str]] = {}
    for a, arm in enumerate(arms):
        levels = tuple((f.label, f.levels[f.level_A[a]]) for f in varied)
        found.setdefault(levels, []).append(arm)
    return found


def _flag(
    structure: Structure,
    arms: list[str],
    rates: Mapping[str, float],
    judged: tuple[Components, Estimates],
    lower_is_better: bool,
) -> LearningRateFlag:
    parts, pairs = judged
    tried = tuple(sorted({rates[arm] for arm in arms}))
    done = [arm for arm in arms if arm in parts.arms]
    finished = tuple(sorted({rates[arm] for arm in done}))
    sign = 1.0 if lower_is_better else -1.0
    level_LA = np.array([_weights(parts, done, rates, rate) for rate in finished])
    best = None
    if finished:
        best = finished[int(np.argmin(sign * level_LA @ parts.fitted_A))]
    optimum = None
    if len(finished) > 1:
        between = None
        if len(finished) == len(done):  # one arm a rate: its differences are known already
            at = [parts.arms.index(arm) for arm in sorted(done, key=lambda arm: rates[arm])]
            own = np.ix_(at, at)
            between = Estimates(pairs.value[own], pairs.error[own], pairs.df[own])
        errors = Errors(parts, "noise")
        optimum = find_optimum(errors, "log", finished, level_LA, sign, tried, between)
    return LearningRateFlag(
        structure=structure,
        arms=tuple(arms),
        tried=tried,
        finished=finished,
        best=best,
        best_arms=tuple(arm for arm in done if rates[arm] == best),
        optimum=optimum,
        kind=_kind(tried, best, optimum),
    )


def _weights(
    parts: Components, arms: Sequence[str], rates: Mapping[str, float], rate: float
) -> list[float]:
    """The mean over the arms of one learning rate, as weights of all arms."""
    own = [arm for arm in arms if rates[arm] == rate]
    return [own.count(arm) / len(own) for arm in parts.arms]


def _kind(tried: tuple[float, ...], best: float | None, optimum: Optimum | None) -> Kind:
    if len(tried) == 1:
        return "not varied"
    if optimum is not None:
        return optimum.place
    if best == tried[0]:
        return "at the lowest"
    if best == tried[-1]:
        return "at the highest"
    return "open" if best is None else "inside"
