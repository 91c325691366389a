"""Proposals: the same from the same facts, new every time, and better than chance with results."""

import importlib.util
import itertools
import math
import subprocess
import sys

import pytest

from rankwise.errors import SpecError
from rankwise.search.known import known_points, spread_point
from rankwise.search.sampler import Trial, ask, require_optuna
from rankwise.search.space import space_of
from rankwise.spec.identity import canonical
from searches import study

RATES = {"low": 1e-5, "high": 1e-1, "log": True}
WIDE = {"training.learning_rate": RATES, "lora.target_modules": [["q"], "all-linear", ["v"]]}
SMALL = {"lora.r": [2, 4, 8], "lora.target_modules": [["q"], "all-linear"]}


def loss(point):
    """Best at 1e-3 on all linear modules."""
    far = abs(math.log10(point["training.learning_rate"] / 1e-3))
    return far + (point["lora.target_modules"] != "all-linear")


def searched(kind, count, seed=0, value=loss, space=WIDE):
    space, trials = space_of(study(space)), []
    for _ in range(count):
        point = ask(space, kind, trials, 6, seed, len(trials))
        trials.append(Trial(point, value(point)))
    return trials


def late(kind, seeds, count):
    """The mean of what is proposed once there are eight results."""
    values = [trial.value for seed in seeds for trial in searched(kind, count, seed)[8:]]
    return sum(values) / len(values)


@pytest.mark.parametrize(("kind", "seeds"), [("tpe", range(4)), ("gp", range(1))])
def test_samplers_that_learn_come_nearer_to_the_best_than_chance(kind, seeds):
    count = 20 if kind == "tpe" else 12
    assert late(kind, seeds, count) < 0.8 * late("random", range(8), 20)


@pytest.mark.parametrize("kind", ["tpe", "gp", "random", "grid"])
def test_the_same_facts_give_the_same_proposals_one_by_one(kind):
    space = space_of(study(SMALL))
    known = [Trial(point, float(n)) for n, point in enumerate(list(space.points())[:3])]
    first = ask(space, kind, known, 2, 0, 3)
    assert ask(space, kind, known, 2, 0, 3) == first
    assert canonical(first) not in {canonical(one.point) for one in known}


@pytest.mark.parametrize("kind", ["tpe", "gp", "random", "grid"])
def test_a_finite_space_is_gone_through_once_and_then_exhausted(kind):
    space, trials = space_of(study(SMALL)), []
    while (point := ask(space, kind, trials, 2, 0, len(trials))) is not None:
        trials.append(Trial(point, float(len(trials))))
    found = {canonical(trial.point) for trial in trials}
    assert found == {canonical(point) for point in space.points()}
    assert len(trials) == space.size == 6


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_a_batch_without_results_is_spread_by_its_running_trials(kind):
    space, trials = space_of(study(WIDE)), searched(kind, 8)
    for _ in range(4):
        trials.append(Trial(ask(space, kind, trials, 6, 0, len(trials))))
    points = [canonical(trial.point) for trial in trials]
    assert len(set(points)) == len(points)


def test_failed_trials_and_other_seeds_are_no_obstacle():
    space = space_of(study(WIDE))
    failed = [Trial(one.point, failed=True) for one in searched("random", 3)]
    points = {canonical(ask(space, "tpe", failed, 2, seed, 3)) for seed in range(5)}
    assert len(points) > 1


@pytest.mark.parametrize(("hidden", "rate"), [(384, 1.82e-3), (2000, 5e-4), (4096, 2.86e-4)])
def test_the_first_proposal_has_the_rate_of_the_formula_and_names_its_source(hidden, rate):
    space = space_of(study({"training.learning_rate": RATES, "lora.r": [4, 16, 64]}))
    ten, three = known_points(space, {}, hidden)
    assert ten.point["training.learning_rate"] == pytest.approx(rate, rel=0.01)
    assert three.point["training.learning_rate"] == pytest.approx(0.3 * rate, rel=0.01)
    assert ten.point["lora.r"] == 16
    assert ten.source == "literature"
    assert "tinker-cookbook" in ten.why
    assert "tinker-feedback" in three.why


def test_what_is_known_is_taken_as_near_as_the_space_has_it_and_the_rest_from_the_study():
    space = space_of(study({"lora.r": [2, 8], "training.weight_decay": [0.0, 0.1]}))
    (one,) = known_points(space, {"lora.r": 2, "training.weight_decay": 0.1}, None)
    assert one.point == {"lora.r": 8, "training.weight_decay": 0.1}
    assert one.why == "rank 16, here 8"
    plain = space_of(study({"training.weight_decay": [0.0, 0.1]}))
    (one,) = known_points(plain, {"training.weight_decay": 0.1}, None)
    assert (one.point, one.source) == ({"training.weight_decay": 0.1}, "settings")


@pytest.mark.parametrize("seed", range(5))
def test_the_first_few_spread_points_are_in_every_part_of_the_space(seed):
    rates = "training.learning_rate"
    space = space_of(study({rates: RATES, "lora.lora_dropout": {"low": 0, "high": 0.4}}))
    points = [spread_point(space, number, seed).point for number in range(16)]
    cells = {(point[rates] > 1e-3, point["lora.lora_dropout"] > 0.2) for point in points}
    assert len(cells) == 4
    decades = sorted(math.log10(point[rates]) for point in points)
    assert max(b - a for a, b in itertools.pairwise(decades)) < 0.5  # 16 points over 4 decades


def test_without_optuna_one_message_says_which_extra_to_install(monkeypatch):
    monkeypatch.setattr("rankwise.search.sampler.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'rankwise\[search\]'"):
        require_optuna()
    assert importlib.util.find_spec("optuna") is not None


def test_a_grid_needs_no_optuna():
    script = (
        "import sys; sys.modules['optuna'] = None\n"
        "import rankwise.cli.app, rankwise.study.settled, rankwise.report.write\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
