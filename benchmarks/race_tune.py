"""What recorded curves say of the way from a rung to the end: the numbers of `search/prior.py`.

Each repetition draws examples and one seed as a race has them. For every share the reference is
that of the forecast; each other arm of its schedule gives its difference there and its final one,
the mean over all seeds, both in units of the standard error over examples. Fitted by the likelihood
of a t distribution, each problem with the same weight.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from curves.curves import Curves
from numpy.typing import NDArray
from race_replay import Replay, repetition
from scipy import optimize, stats

from rankwise.search.pairs import Side, pair_of, reference_of, unit_of
from rankwise.search.prior import Drift, Prior

Floats = NDArray[np.float64]
SIDES: tuple[Side, ...] = ("below", "same", "above", "other")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DF = 4.0
DECILES = np.linspace(0, 1, 11)
# Distances beyond this many units say nothing about arms that may be tied.
FAR = 60.0
# Two problems do not show that a drift has no spread.
LEAST_RELATIVE, LEAST_ABSOLUTE = 0.05, 0.3


@dataclass(frozen=True)
class Way:
    """One arm from a share to the end, in units; `problem` is a number."""

    problem: int
    share: float
    side: Side
    difference: float
    final: float


def ways_of(curves: Curves, problem: int, repetitions: int) -> Iterable[Way]:
    """All ways of all repetitions."""
    for number in range(repetitions):
        replay = repetition(curves, 10_000 + number)
        finals = _finals(replay)
        for share in replay.shares[:-1]:
            yield from _at_share(replay, share, finals, problem)


def _at_share(
    replay: Replay, share: float, finals: dict[str, float], problem: int
) -> Iterable[Way]:
    replay.trained.clear()
    for arm in replay.order:
        replay.train(arm, replay.seeds[0], share)
    seen = replay.seen()
    live = [arm for arm in replay.order if seen.runs[arm, replay.seeds[0]].at(share) is not None]
    reference = reference_of(seen, live)
    pairs = [p for arm in live if arm != reference if (p := pair_of(seen, arm, reference))]
    unit = unit_of(seen, pairs)
    assert unit is not None
    others = [arm for arm in live if seen.schedules[arm] != seen.schedules[reference]]
    second = reference_of(seen, others) if others else None
    for pair in pairs:
        if pair.side == "other" and pair.arm != second:
            continue
        final = finals[pair.arm] - finals[reference]
        if np.isfinite(final):
            yield Way(problem, share, pair.side, pair.difference / unit, final / unit)
    for arm in others:
        own = pair_of(seen, arm, second) if second and arm != second else None
        if own is not None and second is not None:
            final = finals[arm] - finals[second]
            if np.isfinite(final):
                yield Way(problem, share, own.side, own.difference / unit, final / unit)


def _finals(replay: Replay) -> dict[str, float]:
    """The result of each arm, the mean over all seeds."""
    found = {}
    for arm in replay.order:
        own = [replay.result(arm, seed) @ replay.weights_E for seed in replay.seeds]
        found[arm] = float(np.mean(own)) if np.isfinite(own).all() else np.inf
    return found


def fit(ways: Sequence[Way], most_keep: float = 1.5) -> Drift:
    """The drift of one share and side."""
    d_N = np.array([way.difference for way in ways])
    f_N = np.array([way.final for way in ways])
    counts = np.bincount([way.problem for way in ways])
    w_N = np.array([1 / counts[way.problem] for way in ways])

    def loss(x: Floats) -> float:
        keep, relative, absolute = min(max(x[0], 0), most_keep), np.exp(x[1]), np.exp(x[2])
        sd_N = np.hypot(absolute, relative * d_N)
        density_N = stats.t.logpdf((f_N - keep * d_N) / sd_N, DF) - np.log(sd_N)
        return float(-(w_N * density_N).sum() / w_N.sum())

    best = min(
        (
            optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 600})
            for start in ([0.7, -1.5, 1.0], [1.0, -2.5, 0.0])
        ),
        key=lambda one: one.fun,
    )
    keep, relative, absolute = best.x[0], np.exp(best.x[1]), np.exp(best.x[2])
    keep = float(np.clip(keep, 0, most_keep))
    return Drift(keep, float(max(relative, LEAST_RELATIVE)), float(max(absolute, LEAST_ABSOLUTE)))


def noise_of(curves: Curves, repetitions: int) -> tuple[list[tuple[float, bool]], float]:
    """(distance, tied) of every arm of full studies; and the spread over seeds; in units."""
    members, seeds = [], []
    for number in range(repetitions):
        replay = repetition(curves, 10_000 + number)
        for arm in replay.order:
            replay.train(arm, replay.seeds[0], 1.0)
        seen = replay.seen()
        live = [arm for arm in replay.order if seen.runs[arm, replay.seeds[0]].finished]
        reference = reference_of(seen, live)
        pairs = [p for arm in live if arm != reference if (p := pair_of(seen, arm, reference))]
        unit = unit_of(seen, pairs)
        assert unit is not None
        verdict = replay.verdict([(a, s) for a in replay.order for s in replay.seeds])
        members += [(one.value / unit, one.arm in verdict.tie_group) for one in verdict.distances]
        near = [one.arm for one in verdict.distances[: len(verdict.distances) // 2]]
        means_AS = np.array(
            [[replay.result(a, s) @ replay.weights_E for s in replay.seeds] for a in near]
        )
        off_AS = means_AS - means_AS.mean(axis=1, keepdims=True)
        off_AS -= off_AS.mean(axis=0)
        df = (len(near) - 1) * (len(replay.seeds) - 1)
        seeds.append(np.sqrt(np.nansum(off_AS**2) / df) / unit)
    return members, float(np.median(seeds))


def margin_of(members: Sequence[Sequence[tuple[float, bool]]]) -> tuple[float, float]:
    """The distance at which half of the arms are tied, and the spread of its logarithm (probit)."""

    def loss(x: Floats) -> float:
        total = 0.0
        for own in members:
            distance_N = np.array([max(d, 1e-3) for d, _ in own])
            sign_N = np.array([1.0 if tied else -1.0 for _, tied in own])
            z_N = sign_N * (x[0] - np.log(distance_N)) / np.exp(x[1])
            total -= float(stats.norm.logcdf(z_N).mean())
        return total

    best = optimize.minimize(loss, [1.0, -0.7], method="Nelder-Mead")
    return float(np.exp(best.x[0])), float(np.exp(best.x[1]))


def prior_of(problems: Sequence[Curves], repetitions: int) -> Prior:
    """The prior fitted to these problems."""
    ways = [w for n, one in enumerate(problems) for w in ways_of(one, n, repetitions)]
    ways = [way for way in ways if abs(way.difference) < FAR]
    drifts: dict[Side, tuple[Drift, ...]] = {}
    for side in SIDES:
        own = []
        for share in SHARES[:-1]:
            here = [w for w in ways if w.side == side and abs(w.share - share) < 0.051]
            own.append(fit(here, 1.0 if side == "other" else 1.5))
        drifts[side] = (*own, Drift(1.0, 0.0, 1.0))
    noise = [noise_of(one, repetitions) for one in problems]
    margin, spread = margin_of([members for members, _ in noise])
    seed = np.mean([one for _, one in noise])
    quantiles = [np.quantile([d for d, _ in members], DECILES) for members, _ in noise]
    distances = tuple(np.mean(quantiles, axis=0).round(1).tolist())
    names = ", ".join(one.problem for one in problems)
    return Prior(
        SHARES,
        drifts,
        margin,
        spread,
        float(seed),
        distances,
        f"{names}; {repetitions} repetitions",
    )


def as_source(prior: Prior) -> str:
    """The prior as it stands in `search/prior.py`."""
    lines = ["PRIOR = Prior(", f"    shares={prior.shares},", "    drifts={"]
    for side, own in prior.drifts.items():
        lines.append(f'        "{side}": _drifts(')
        for name in ("keep", "relative", "absolute"):
            column = ", ".join(f"{getattr(drift, name):.2f}" for drift in own)
            lines.append(f"            ({column}),")
        lines.append("        ),")
    lines += [
        "    },",
        f"    margin={prior.margin:.2f},",
        f"    margin_spread={prior.margin_spread:.2f},",
    ]
    lines += [f"    seed={prior.seed:.2f},", f"    distances={prior.distances},"]
    return "\n".join([*lines, f'    source="{prior.source}",', ")"])
