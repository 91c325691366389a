"""The race stops what is lost, spends its level, and decides the same when asked again."""

from dataclasses import replace

import numpy as np
import pytest

from rankwise.search.prior import PRIOR
from rankwise.search.race import Decision, RaceRules, decide, is_audited
from rankwise.search.seen import Run, Seen
from search_studies import CONSTANT, LINEAR, seen_of

RULES = RaceRules(audit=0.0)
# The unit (standard error of a difference) of `seen_of` is 0.014.
CLOSE = {f"close {n}": (0.5 + 0.002 * n, 0.4, 0.3, 0.3) for n in range(5)}
LOST = {"lost": (1.5, 1.4, 1.3, 1.3)}


def at_half(curves=None, **options):
    curves = CLOSE | LOST if curves is None else curves
    return seen_of(curves, reached=dict.fromkeys(curves, 0.5), **options)


def stopped(decisions):
    return {one.arm for one in decisions if one.stop}


def test_a_clearly_worse_arm_is_stopped_and_no_other():
    seen = at_half()
    found = decide(seen, RULES, 0.5, seen.arms)
    assert stopped(found) == {"lost"}
    lost = found[-1]
    assert lost.reason == "no chance"
    assert lost.difference == pytest.approx(1.0, abs=0.01)
    assert 0 < lost.low < lost.forecast < lost.high
    assert lost.p < 0.01


def test_a_protected_arm_is_never_stopped():
    seen = at_half()
    found = decide(seen, replace(RULES, protect=frozenset({"lost"})), 0.5, seen.arms)
    assert stopped(found) == set()
    assert found[-1].reason == "protected"


def test_the_leader_is_never_stopped_however_few_chances_all_have():
    seen = at_half({"one": (0.5, 0.4, 0.3, 0.3)} | LOST)
    assert stopped(decide(seen, replace(RULES, level=1.0), 0.5, seen.arms)) == {"lost"}


def test_decisions_are_the_same_after_a_restart():
    seen = at_half()
    again = Seen(dict(reversed(seen.runs.items())), dict(seen.schedules), dict(seen.settings))
    rules = replace(RULES, audit=0.5, seed=3)
    assert decide(seen, rules, 0.5, seen.arms) == decide(again, rules, 0.5, again.arms)


def test_an_arm_within_the_tolerance_is_not_stopped():
    curves = CLOSE | {"near": (0.65, 0.55, 0.45, 0.45)}
    seen = at_half(curves)
    assert "near" in stopped(decide(seen, RULES, 0.5, seen.arms))
    assert stopped(decide(seen, replace(RULES, tolerance=0.3), 0.5, seen.arms)) == set()


def test_arms_of_another_schedule_are_not_compared_directly():
    """The same curve is lost beside arms of its own schedule, and not beside those of another."""
    behind = {"behind": (0.7, 0.6, 0.5, 0.5)}
    seen = at_half(CLOSE | behind)
    direct = decide(seen, RULES, 0.5, ["behind"])[0]
    schedules = dict.fromkeys(CLOSE, LINEAR) | {"behind": CONSTANT}
    other = decide(at_half(CLOSE | behind, schedules=schedules), RULES, 0.5, ["behind"])[0]
    assert direct.stop
    assert other.p > 3 * direct.p
    assert other.high - other.low > 1.5 * (direct.high - direct.low)


def test_a_worse_arm_of_another_schedule_is_compared_with_the_best_of_its_own():
    first = {f"first {n}": (0.5, 0.4, 0.3, 0.3) for n in range(3)}
    second = {f"second {n}": (0.6, 0.5, 0.4, 0.4) for n in range(3)}
    worst = {"worst": (2.0, 1.9, 1.8, 1.8)}
    schedules = dict.fromkeys(first, LINEAR) | dict.fromkeys(second | worst, CONSTANT)
    seen = at_half(first | second | worst, schedules=schedules)
    found = {one.arm: one for one in decide(seen, RULES, 0.5, seen.arms)}
    assert found["worst"].stop
    assert found["worst"].difference == pytest.approx(1.4, abs=0.01)


def test_a_diverged_arm_is_stopped_even_if_protected():
    seen = at_half()
    runs = dict(seen.runs) | {("lost", 0): Run(diverged=True)}
    seen = Seen(runs, seen.schedules, seen.settings)
    rules = replace(RULES, protect=frozenset({"lost"}), audit=1.0)
    found = decide(seen, rules, 0.5, ["lost"])[0]
    assert found.stop
    assert found.reason == "diverged"


def test_the_audit_lets_about_a_tenth_of_the_condemned_run_on():
    rules = replace(RULES, audit=0.1)
    drawn = [is_audited(replace(rules, seed=n), "arm", n) for n in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.1, abs=0.02)
    seen = at_half()
    found = decide(seen, replace(RULES, audit=1.0), 0.5, ["lost"])[0]
    assert (found.stop, found.audited, found.reason) == (False, True, "audited")


def test_the_level_is_spent():
    """What earlier stops have spent is not spent again."""
    doubtful = {f"doubtful {n}": (0.66, 0.56, 0.46, 0.46) for n in range(6)}
    seen = at_half(CLOSE | doubtful)
    fresh = decide(seen, RULES, 0.5, list(doubtful))
    spent = [Decision("gone", (0,), 0.25, True, "close 0", 1.0, 1, 1, 1, 0.9, False, "no chance")]
    assert stopped(fresh)
    assert stopped(decide(seen, RULES, 0.5, list(doubtful), spent)) == set()


def test_a_lower_level_stops_fewer_arms():
    doubtful = {f"doubtful {n}": (0.7 + 0.04 * n, 0.6 + 0.04 * n, 0.4, 0.4) for n in range(10)}
    seen = at_half(CLOSE | doubtful)
    counts = [
        len(stopped(decide(seen, replace(RULES, level=level), 0.5, seen.arms)))
        for level in (0.0, 0.001, 0.05)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_nothing_is_decided_of_one_arm_alone():
    seen = at_half({"one": (0.5, 0.4, 0.3, 0.3)})
    found = decide(seen, RULES, 0.5, ["one"])[0]
    assert not found.stop
    assert found.p == 1.0


def test_nothing_is_stopped_before_the_leader_has_learned():
    """As long as all get worse, those are ahead that have moved least."""
    bad = {"bad": (1.2, 1.2, 0.3, 0.3)}
    for now, expected in ((0.70, set()), (0.62, {"bad"})):
        seen = at_half({f"slow {n}": (0.70, now, 0.3, 0.3) for n in range(4)} | bad)
        assert stopped(decide(seen, RULES, 0.5, seen.arms)) == expected


def test_nothing_is_stopped_early_but_what_diverged():
    seen = seen_of(CLOSE | LOST, reached=dict.fromkeys(CLOSE | LOST, 0.25))
    assert stopped(decide(seen, RULES, 0.25, seen.arms)) == set()


def test_false_kills_stay_below_the_level_where_drifts_are_as_expected():
    """Arms whose drifts are drawn from the prior; those within the margin of the best tie."""
    rng = np.random.default_rng(3)
    unit = 0.1 * np.sqrt(2 / 100)
    lost = tied = stops = 0
    for draw in range(100):
        drift = PRIOR.at(0.5, "same")
        now_A = unit * np.array([0, *rng.uniform(0, 30, 9)])
        sd_A = np.hypot(drift.absolute * unit, drift.relative * now_A)
        sd_A[0] = 0.0  # drifts are relative to the reference
        final_A = drift.keep * now_A + sd_A * rng.standard_t(4, 10)
        margin_A = PRIOR.margin * unit * np.exp(PRIOR.margin_spread * rng.standard_normal(10))
        group = {f"arm {a}" for a in np.flatnonzero(final_A - final_A.min() <= margin_A)}
        curves = {f"arm {a}": (3 + d, 1 + d, 0.5, 0.5) for a, d in enumerate(now_A)}
        seen = at_half(curves, draw=draw)
        out = stopped(decide(seen, RULES, 0.5, seen.arms))
        lost, tied, stops = lost + len(out & group), tied + len(group), stops + len(out)
    assert stops > 100
    assert lost / tied <= RULES.level
