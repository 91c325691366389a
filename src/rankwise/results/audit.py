"""How often a race is wrong: how those ended that were to be stopped and ran on."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from rankwise.results.race import Race
from rankwise.results.records import Records


@dataclass(frozen=True)
class Audit:
    """Configurations to be stopped that ran on to the end, and those of them in the tie group then.

    low, high  95 % interval of the share of configurations to be stopped that would end there; None
               where none ran on to the end
    open       those that have not reached their end
    """

    arms: tuple[str, ...]
    tied: tuple[str, ...]
    open: tuple[str, ...]
    low: float | None
    high: float | None


def audit_of(records: Records, race: Race, tie_group: Sequence[str]) -> Audit:
    """How the configurations ended that were to be stopped and ran on."""
    finished = {run.arm for run in records.runs if run.finished}
    under_way = {r.arm for r in records.runs if r.state in ("planned", "running", "interrupted")}
    arms = [one.arm for one in race.audited]
    open_ = tuple(arm for arm in arms if arm in under_way and arm not in finished)
    done = tuple(arm for arm in arms if arm not in open_)
    tied = tuple(arm for arm in done if arm in tie_group)
    low, high = share_interval(len(tied), len(done)) if done else (None, None)
    return Audit(done, tied, open_, low, high)


def share_interval(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, Biometrika 26, 1934, p. 404)."""
    found = stats.binomtest(hits, of).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)
