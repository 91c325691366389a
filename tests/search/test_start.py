"""The order of starts: spread out first, then where it pays; and what a race costs, told before."""

from dataclasses import replace

import pytest

from rankwise.search.race import Decision, RaceRules
from rankwise.search.simulate import expected_runs
from rankwise.search.start import next_starts, spread_out
from search_studies import seen_of

RULES = RaceRules()
RUNGS = tuple(n / 10 for n in range(1, 11))
RATES, TARGETS = (1e-4, 1e-3, 1e-2), ("q", "all")
ARMS = {f"{rate:g} {t}": (rate, t) for rate in RATES for t in TARGETS}
SETTINGS = {a: {"learning_rate": rate, "targets": t} for a, (rate, t) in ARMS.items()}
LOSS = {1e-4: 1.5, 1e-3: 0.4, 1e-2: 3.0}
CURVES = {arm: (2.0, LOSS[rate], LOSS[rate], LOSS[rate]) for arm, (rate, _) in ARMS.items()}


def test_the_first_arms_have_all_learning_rates():
    first = spread_out(seen_of(CURVES, reached=dict.fromkeys(ARMS, 0.0), settings=SETTINGS))[:3]
    assert {ARMS[arm][0] for arm in first} == set(RATES)


def test_once_something_is_known_the_most_promising_start_and_none_that_is_ruled_out():
    reached = {"0.0001 all": 0.0, "0.001 all": 0.0, "0.01 all": 0.0}
    seen = seen_of(
        CURVES | {"more": (2.0, 0.5, 0.5, 0.5)},
        reached=reached,
        settings=SETTINGS | {"more": {"learning_rate": 2e-3, "targets": "q"}},
    )
    assert next_starts(seen, RULES, 1) == ("0.001 all",)
    gone = [Decision("0.001 all", (), 0.0, True, "x", None, 1, 1, 1, 0, False, "no chance")]
    assert "0.001 all" not in next_starts(seen, RULES, 3, gone)
    assert next_starts(seen, replace(RULES, protect=frozenset({"0.01 all"})), 1) == ("0.01 all",)


def test_without_settings_arms_start_in_the_order_of_the_study():
    seen = seen_of(CURVES, reached=dict.fromkeys(ARMS, 0.0))
    assert next_starts(seen, RULES, 2) == tuple(ARMS)[:2]


def test_a_race_is_expected_to_cost_less_than_all_runs_and_more_with_more_arms():
    few, many = expected_runs(8, RUNGS, RULES), expected_runs(24, RUNGS, RULES)
    for arms, found in ((8, few), (24, many)):
        low, middle, high = found.race
        assert low <= middle <= high < arms
        assert found.total[1] >= middle
    assert many.race[1] > few.race[1]


def test_a_budget_bounds_what_a_race_with_rounds_is_expected_to_cost():
    free = expected_runs(24, RUNGS, RULES)
    bounded = expected_runs(24, RUNGS, RULES, budget=free.race[2] + 1)
    assert bounded.total[2] <= free.race[2] + 1 + 1e-9 or bounded.total[2] == bounded.race[2]
    assert bounded.total[1] < free.total[1]
    assert bounded == expected_runs(24, RUNGS, RULES, budget=free.race[2] + 1)


def test_a_stricter_level_is_expected_to_cost_more():
    strict = expected_runs(24, RUNGS, replace(RULES, level=0.0, audit=0.0))
    assert strict.race == pytest.approx((24, 24, 24))
    assert expected_runs(24, RUNGS, replace(RULES, audit=0.0)).race[1] < 24
