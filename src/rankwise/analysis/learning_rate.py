"""The learning rate as a confound: was it tuned for every structure, and is the best at an edge?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rankwise.analysis.factors import Settings, find_factors

Kind = Literal["not varied", "at the lowest", "at the highest", "inside"]


@dataclass(frozen=True)
class LearningRateFlag:
    """One structure, that is one set of all other settings that vary, and its learning rates.

    tried     learning rates in ascending order, those of failed arms included
    finished  those whose arm has a score
    best      the one with the best score; None if no arm finished
    kind      "not varied": only one learning rate; "at the lowest" or "at the highest": the best is
              at an end of the range tried, so a better one may lie outside; "inside": neither
    """

    structure: tuple[tuple[str, str], ...]
    arms: tuple[str, ...]
    tried: tuple[float, ...]
    finished: tuple[float, ...]
    best: float | None
    kind: Kind


def learning_rate_flags(
    settings: Mapping[str, Settings],
    score: Mapping[str, float | None],
    lower_is_better: bool = True,
    key: str = "learning_rate",
) -> tuple[LearningRateFlag, ...]:
    """A flag for each structure of `settings`; `score` is None for an arm without a finished run.

    `key` names the learning rate, with or without a prefix such as `training.`. Arms that do not
    have it are left out.
    """
    found = {arm: _rate(own, key) for arm, own in settings.items()}
    arms = [arm for arm, rate in found.items() if rate is not None]
    others = {arm: {k: v for k, v in settings[arm].items() if not _is(k, key)} for arm in arms}
    varied = find_factors(arms, others).varied if arms else ()
    structures: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for a, arm in enumerate(arms):
        levels = tuple((f.label, f.levels[f.level_A[a]]) for f in varied)
        structures.setdefault(levels, []).append(arm)
    rates = {arm: rate for arm, rate in found.items() if rate is not None}
    return tuple(
        _flag(structure, members, rates, score, lower_is_better)
        for structure, members in structures.items()
    )


def _is(name: str, key: str) -> bool:
    return name == key or name.endswith(f".{key}")


def _rate(settings: Settings, key: str) -> float | None:
    for name, value in settings.items():
        if _is(name, key) and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _flag(
    structure: tuple[tuple[str, str], ...],
    arms: list[str],
    rates: Mapping[str, float],
    score: Mapping[str, float | None],
    lower_is_better: bool,
) -> LearningRateFlag:
    tried = tuple(sorted({rates[arm] for arm in arms}))
    scored = [(value, rates[arm]) for arm in arms if (value := score.get(arm)) is not None]
    best = (min(scored) if lower_is_better else max(scored))[1] if scored else None
    kind = _kind(tried, best)
    finished = tuple(sorted({rate for _, rate in scored}))
    return LearningRateFlag(structure, tuple(arms), tried, finished, best, kind)


def _kind(tried: tuple[float, ...], best: float | None) -> Kind:
    if len(tried) == 1:
        return "not varied"
    if best == tried[0]:
        return "at the lowest"
    return "at the highest" if best == tried[-1] else "inside"
