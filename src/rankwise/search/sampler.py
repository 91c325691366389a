"""Proposals by Optuna's samplers, from what is known alone.

An Optuna study is made in memory for each proposal, from the trials so far in their order, with a
sampler whose seed is a function of the study's seed and the number of trials. So the same facts
give the same proposal, and nothing has to be kept beside them.

Trials without a result are told as running: tpe then takes them for bad ones (constant liar), and
gp for what its model expects of them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

from rankwise.errors import SpecError
from rankwise.search.space import Choices, Dimension, Point, Space
from rankwise.spec.identity import canonical

DEFAULT_STARTUP = 8
# Proposals in a row that may be points known before, until one is drawn from those left.
REPEATS = 20


@dataclass(frozen=True)
class Trial:
    """A point that was tried. Less is better.

    value   None while there is none
    failed  it ended without one, through no fault of its settings
    """

    point: Point
    value: float | None = None
    failed: bool = False


def require_optuna() -> None:
    """Refuse a search where Optuna is not installed.

    Raises:
        SpecError: as said, with the extra to install.
    """
    if find_spec("optuna") is None:
        raise SpecError(
            "search: needs Optuna, which is not installed; pip install 'rankwise[search]', or give "
            "the configurations in grid or configs"
        )


def ask(
    space: Space, kind: str, trials: Sequence[Trial], startup: int, seed: int, proposed: int
) -> Point | None:
    """The next point, which none of the trials has; None where all have been tried.

    Args:
        space: What is searched.
        kind: tpe, random, grid or gp.
        trials: What is known, in its order.
        startup: Results that tpe and gp need; with fewer they draw at random.
        seed: Of the study.
        proposed: Proposals so far; the grid goes on behind them.
    """
    used = {canonical(trial.point) for trial in trials}
    left = space.unused(used)
    if left is not None and not left:
        return None
    number = _hash(seed, len(trials))
    told = trials if kind in ("tpe", "gp") else trials[len(trials) - proposed :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samplers that Optuna calls experimental
        study = _study(space, kind, told, startup, seed if kind == "grid" else number)
        for _ in range((space.size or 0) - proposed if kind == "grid" else REPEATS):
            point = _point(space, study.ask(_distributions(space)).params)
            if canonical(point) not in used:
                return point
    if left is not None:
        return left[number % len(left)]
    return _drawn(space, used, number)


def _drawn(space: Space, used: set[str], seed: int) -> Point:
    """A new point of a large space, at random."""
    draw = 0
    while True:
        u_D = [_hash(seed, draw, d) / 2**32 for d in range(len(space.dimensions))]
        point = space.at(u_D)
        if canonical(point) not in used:
            return point
        draw += 1


def _hash(*parts: int) -> int:
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:4])


def _study(space: Space, kind: str, trials: Sequence[Trial], startup: int, seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=_sampler(space, kind, startup, seed))
    state = optuna.trial.TrialState
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=state.FAIL
                if trial.failed
                else state.RUNNING
                if trial.value is None
                else state.COMPLETE,
                value=None if trial.failed else trial.value,
                params=_params(space, trial.point),
                distributions=_distributions(space),
            )
        )
    return study


def _sampler(space: Space, kind: str, startup: int, seed: int) -> Any:
    from optuna import samplers

    if kind == "tpe":
        return samplers.TPESampler(
            n_startup_trials=startup, multivariate=True, constant_liar=True, seed=seed
        )
    if kind == "gp":
        return samplers.GPSampler(n_startup_trials=startup, seed=seed)
    if kind == "grid":
        choices = {d.setting: _codes(d) for d in space.dimensions if isinstance(d, Choices)}
        return samplers.GridSampler(choices, seed=seed)
    return samplers.RandomSampler(seed=seed)


def _codes(one: Choices) -> list[Any]:
    """What stands for the values of a list: places of numbers, the spelling of others."""
    return list(range(len(one.values))) if one.ordered else [canonical(v) for v in one.values]


def _distributions(space: Space) -> dict[str, Any]:
    return {one.setting: _distribution(one) for one in space.dimensions}


def _distribution(one: Dimension) -> Any:
    from optuna import distributions

    if isinstance(one, Choices):
        if one.ordered:
            return distributions.IntDistribution(0, len(one.values) - 1)
        return distributions.CategoricalDistribution(_codes(one))
    if one.whole:
        return distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return distributions.FloatDistribution(one.low, one.high, log=one.log)


def _params(space: Space, point: Point) -> dict[str, Any]:
    return {
        one.setting: _codes(one)[one.values.index(point[one.setting])]
        if isinstance(one, Choices)
        else point[one.setting]
        for one in space.dimensions
    }


def _point(space: Space, params: dict[str, Any]) -> Point:
    return {
        one.setting: one.values[_codes(one).index(params[one.setting])]
        if isinstance(one, Choices)
        else one.rounded(params[one.setting])
        for one in space.dimensions
    }
