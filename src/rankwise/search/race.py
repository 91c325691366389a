"""The race: at each rung, which configurations have almost no chance of ending in the tie group.

`decide` is a pure function of what was seen, the rules and the earlier decisions, so that a study
that is resumed decides the same again.

The level is spent over rungs and arms like this. The forecast gives every arm the probability p
that the verdict of a full study would leave it in the tie group. The sum of p over all arms is the
expected size of that group; the sum of p over the arms stopped so far, each at the time of its
stop, is how many of the group are expected to be lost. At every rung the arms of the smallest p are
stopped while the second sum stays within `level` times the first, and while p itself is small for
what a stop still saves (`most_p`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from rankwise.search.forecast import Forecast, forecast
from rankwise.search.pairs import has_learned
from rankwise.search.seen import SAME_SHARE, Seen
from rankwise.spec.models import EARLIEST_RUNG

# The reading of these names is the module's interface.
__all__ = ["Decision", "RaceRules", "Seen", "decide", "is_audited"]

# The chance above which an arm is not stopped, whatever is left of the level: as a stop at a late
# share saves little, it falls to zero with what is left of the schedule. Larger values spend the
# level early on doubtful arms. Chosen among a few on the tuning problems (docs/race.md).
MOST_P = 0.03


@dataclass(frozen=True)
class RaceRules:
    """How a study is raced.

    tolerance  differences up to this do not matter; 0 where none was given
    level      the share of the arms of the tie group that may be stopped
    protect    arms that are never stopped
    audit      the share of the arms to be stopped that runs on, to see how they end
    seed       of the study; draws the audit
    seeds      in the order in which they are used; further ones are the numbers after the largest
    most_seeds of one arm
    """

    tolerance: float = 0.0
    level: float = 0.05
    protect: frozenset[str] = frozenset()
    audit: float = 0.1
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    most_seeds: int = 8

    @property
    def planned(self) -> int:
        """Seeds of the full study whose tie group the chances refer to."""
        return max(len(self.seeds), 2)


@dataclass(frozen=True)
class Decision:
    """What was decided of one arm at one rung.

    seeds       its seeds that had started (none at share 0)
    share       the rung; 0 is the decision not to start it
    stop        its runs end here
    leader      the arm of the best forecast at that time
    difference  arm minus leader at this share, in pairs; None where they have no common share
    forecast    the final distance from the leader, its median
    low, high   one-sided 95 % bounds of that distance, each
    p           the probability to end in the tie group
    audited     to be stopped, but drawn to run on
    reason      "protected", "audited", "in the race", "no chance", "diverged"
    """

    arm: str
    seeds: tuple[int, ...]
    share: float
    stop: bool
    leader: str
    difference: float | None
    forecast: float
    low: float
    high: float
    p: float
    audited: bool
    reason: str


def decide(
    seen: Seen,
    rules: RaceRules,
    share: float,
    arms_at_rung: Sequence[str],
    earlier: Sequence[Decision] = (),
) -> tuple[Decision, ...]:
    """Decisions on the arms that have reached this share, in their order.

    At share 0 `arms_at_rung` are arms that did not start; a stop there means: do not start it.
    `earlier` are the decisions of this study so far, from which the level already spent is read.
    """
    found = forecast(seen, rules.tolerance, rules.planned)
    if found is None:
        return tuple(_without_forecast(seen, arm, share) for arm in arms_at_rung)
    to_stop = _to_stop(found, seen, rules, share, arms_at_rung, earlier)
    return tuple(_decision(found, seen, rules, share, arm, to_stop) for arm in arms_at_rung)


def most_p(share: float) -> float:
    """The largest chance at which an arm may be stopped at this share.

    At the end, where a stop only means that no further seeds are trained, it is that of the start.
    """
    return MOST_P * (1 - share if share < 1 - SAME_SHARE else 1.0)


def is_audited(rules: RaceRules, arm: str, seed: int = 0) -> bool:
    """Whether an arm to be stopped runs on: a hash decides, so that every call says the same."""
    digest = sha256(repr((rules.seed, arm, seed)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < rules.audit


def _to_stop(
    found: Forecast,
    seen: Seen,
    rules: RaceRules,
    share: float,
    arms_at_rung: Sequence[str],
    earlier: Sequence[Decision],
) -> frozenset[str]:
    """The arms of the smallest p, as far as the level goes; none before the leader has learned."""
    chosen = {arm for arm in arms_at_rung if _diverged(seen, arm)}
    lost = sum(one.p for one in earlier if one.stop)
    most = rules.level * sum(found.p.values())
    if 0 < share < EARLIEST_RUNG or not has_learned(seen, found.leader):
        return frozenset(chosen)
    for arm in sorted(set(arms_at_rung) - chosen - rules.protect, key=lambda a: (found.p[a], a)):
        lost += found.p[arm]
        if lost > most or found.p[arm] > most_p(share) or arm == found.leader:
            break
        chosen.add(arm)
    return frozenset(chosen)


def _decision(
    found: Forecast,
    seen: Seen,
    rules: RaceRules,
    share: float,
    arm: str,
    to_stop: frozenset[str],
) -> Decision:
    diverged = _diverged(seen, arm)
    audited = arm in to_stop and not diverged and share > 0 and is_audited(rules, arm)
    stop = diverged or (arm in to_stop and not audited)
    reason = "no chance" if stop else "audited" if audited else "in the race"
    if arm in rules.protect and not diverged:
        reason = "protected"
    low, middle, high = found.distance[arm]
    return Decision(
        arm=arm,
        seeds=seen.seeds[arm],
        share=share,
        stop=stop,
        leader=found.leader,
        difference=found.difference.get(arm),
        forecast=middle,
        low=low,
        high=high,
        p=found.p[arm],
        audited=audited,
        reason="diverged" if diverged else reason,
    )


def _diverged(seen: Seen, arm: str) -> bool:
    """Whether every run of an arm that started has diverged."""
    runs = [seen.runs[arm, seed] for seed in seen.seeds[arm]]
    return bool(runs) and all(run.diverged for run in runs)


def _without_forecast(seen: Seen, arm: str, share: float) -> Decision:
    """Nothing to compare with yet."""
    diverged = _diverged(seen, arm)
    reason = "diverged" if diverged else "in the race"
    nan = float("nan")
    seeds = seen.seeds[arm]
    return Decision(arm, seeds, share, diverged, arm, None, nan, nan, nan, 1.0, False, reason)
