"""The race stops what is lost, spends its level, and decides the same when asked again."""

from dataclasses import replace

import numpy as np
import pytest
from search_studies import CONSTANT, LINEAR, seen_of

from rankwise.search.race import Decision, RaceRules, decide, is_audited
from rankwise.search.seen import Run, Seen

RULES = RaceRules(rungs=(0.25, 0.5, 0.75, 1.0), audit=0.0)
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
    doubtful = {f"doubtful {n}": (0.56, 0.46, 0.36, 0.36) for n in range(6)}
    seen = at_half(CLOSE | doubtful)
    fresh = decide(seen, RULES, 0.5, list(doubtful))
    p = max(one.p for one in fresh)
    spent = [Decision("gone", (0,), 0.25, True, "close 0", 1.0, 1, 1, 1, 0.9, False, "no chance")]
    assert stopped(fresh)
    assert p > 0.001
    assert stopped(decide(seen, RULES, 0.5, list(doubtful), spent)) == set()


def test_a_lower_level_stops_fewer_arms():
    doubtful = {f"doubtful {n}": (0.5 + 0.02 * n, 0.4 + 0.02 * n, 0.4, 0.4) for n in range(10)}
    seen = at_half(CLOSE | doubtful)
    counts = [
        len(stopped(decide(seen, replace(RULES, level=level), 0.5, seen.arms)))
        for level in (0.001, 0.05, 0.5)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_nothing_is_decided_of_one_arm_alone():
    seen = at_half({"one": (0.5, 0.4, 0.3, 0.3)})
    found = decide(seen, RULES, 0.5, ["one"])[0]
    assert not found.stop
    assert found.p == 1.0
