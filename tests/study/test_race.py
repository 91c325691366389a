"""A study with a budget of runs: whom it stops, who gets further seeds, and that it resumes."""

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import yaml

from black_box import rankwise
from rankwise.analysis.variance import components
from rankwise.cli.app import look
from rankwise.results.from_store import read_records
from rankwise.results.judge import scores_of, tolerance_of
from rankwise.results.records import distinct
from rankwise.store.reader import Reader
from rankwise.store.schema import from_blob
from rankwise.study import race
from rankwise.study.budget import committed, limit_of, run_costs
from rankwise.study.race import begun_runs, decisions
from rankwise.study.run import run_study
from rankwise.train.loop import Batched, Ended, Evaluating, Stepped
from stored import numbers
from tiny_text import tiny_spec

HOPELESS = 1e-5
STUDY = {
    "grid": {"lora.r": [4, 8], "training.learning_rate": [HOPELESS, 3e-3, 1e-2, 3e-2]},
    "seeds": [0, 1, 2],
    "lora": {"target_modules": "all-linear"},
    "training": {"max_steps": 10, "eval_steps": 1, "per_device_train_batch_size": 8},
    "budget": {"runs": 12},
    "race": {"at_once": 4, "audit": 0.0},
    "hardware": {"checkpoint_seconds": 0},
}


def written(folder, name="study.yaml", **more):
    spec = tiny_spec(folder, "llama", "text", **{**STUDY, **more})
    spec = {key: value for key, value in spec.items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(spec))
    return folder / name


def finish(spec, out):
    return [event for events in run_study(look(spec, []), out) for event in events]


def facts(out):
    with sqlite3.connect(out / "study.db") as db:
        found = db.execute("SELECT kind, data FROM fact WHERE kind LIKE 'race%' OR kind = 'look'")
        return sorted(((kind, json.loads(data)) for kind, data in found), key=lambda one: one[0])


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """A raced study, copied aside after every tuple of events."""
    folder = tmp_path_factory.mktemp("raced")
    spec, out = written(folder), folder / "out"
    told = []
    for events in run_study(look(spec, []), out):
        if not any(isinstance(event, Evaluating) for event in events):
            shutil.copytree(out, folder / "moments" / f"{len(told):04d}", symlinks=True)
        told.append(events)
    return spec, out, told


def states(spec, out):
    plan = look(spec, [])
    rate = {arm.training_id: arm.training.learning_rate for arm in plan.arms}
    return [(rate[key], seed, state) for key, seed, state, *_ in numbers(out)["run"]]


def test_a_hopeless_configuration_is_stopped_and_the_budget_is_kept(raced):
    spec, out, _ = raced
    found = states(spec, out)
    hopeless = [state for rate, _, state in found if rate == HOPELESS]
    assert "pruned" in hopeless
    assert {state for _, _, state in found} <= {"done", "pruned", "diverged"}
    assert sum(state == "done" for _, _, state in found) >= 3
    plan = look(spec, [])
    with Reader(out) as store:
        spent = committed(plan, store, begun_runs(store), run_costs(plan))
        assert spent <= limit_of(plan) == 12
        stopped = [one for one in decisions(store) if one.stop]
    assert all(one.p < 0.1 for one in stopped)
    assert all(one.leader != one.arm for one in stopped)


def test_further_seeds_are_for_those_that_may_be_best(raced):
    spec, out, _ = raced
    found = states(spec, out)
    assert {seed for _, seed, _ in found} > {0}
    assert all(rate != HOPELESS for rate, seed, _ in found if seed > 0)
    seeds = [data for kind, data in facts(out) if kind == "race_start" and data["seed"] > 0]
    assert {data["why"] for data in seeds} == {"contender"}


def test_the_place_of_a_stopped_run_is_taken_at_once(raced):
    _, _, told = raced
    sizes = [len(e.runs) for events in told for e in events if isinstance(e, Batched)]
    ends = [n for n, events in enumerate(told) if any(isinstance(e, Ended) for e in events)]
    begun = [data for kind, data in facts(raced[1]) if kind == "race_start"]
    assert "promising" in [data["why"] for data in begun], "others began where some were stopped"
    batches = [sum(isinstance(e, Batched) for e in events) for events in told]
    before = sum(batches[: ends[0] + 1])
    assert sizes[:before] == [4] * before
    assert sizes[before] == 4, "eight configurations, four at once"


def test_whatever_moment_a_raced_study_dies_at_it_goes_on_with_its_decisions(raced):
    spec, out, told = raced
    whole, decided, plan = numbers(out), facts(out), look(spec, [])
    steps = [sum(isinstance(event, Stepped) for event in events) for events in told]
    places = sorted((out.parent / "moments").iterdir())
    for place in places[:: max(1, len(places) // 5)]:
        again = [event for events in run_study(plan, place) for event in events]
        assert facts(place) == decided, place.name
        assert numbers(place) == whole, place.name
        made = sum(isinstance(event, Stepped) for event in again)
        assert made == sum(steps[int(place.name) + 1 :]), f"{place.name}: steps were made twice"


def test_a_run_that_survives_has_the_numbers_of_an_even_grid(raced, tmp_path):
    spec, out, _ = raced
    even = written(spec.parent, "even.yaml", budget=None, race=None, seeds=[0, 1])
    finish(even, tmp_path / "even")
    plans = [look(path, []) for path in (spec, even)]
    assert [arm.training_id for arm in plans[0].arms] == [arm.training_id for arm in plans[1].arms]
    grid = {tuple(row[:4]): row[4] for row in numbers(tmp_path / "even")["evaluation"]}
    seen = [row for row in numbers(out)["evaluation"] if row[1] in (0, 1)]
    assert len(seen) > 30
    for key, seed, split, step, losses, _ in seen:
        if split == "validation":
            expected = values(grid[key, seed, split, step])
            assert np.allclose(values(losses), expected, rtol=1e-5, atol=1e-6)


def values(blob):
    return from_blob(blob)


def test_a_protected_configuration_is_never_stopped_and_a_larger_budget_goes_on(tmp_path):
    protected = "r8_lr1e-5"
    race = {"at_once": 4, "audit": 0.0, "protect": [protected]}
    spec = written(tmp_path, race=race, budget={"runs": 4}, hardware={})
    finish(spec, tmp_path / "out")
    plan = look(spec, [])
    assert protected in [arm.name for arm in plan.arms]
    key = next(arm.training_id for arm in plan.arms if arm.name == protected)
    ends = {(row[0], row[1]): row[2] for row in numbers(tmp_path / "out")["run"]}
    assert ends[key, 0] in ("done", "diverged")
    assert not any(isinstance(event, Stepped) for event in finish(spec, tmp_path / "out"))
    spec = written(tmp_path, race=race, budget={"runs": 12}, hardware={})
    more = finish(spec, tmp_path / "out")
    assert any(isinstance(event, Stepped) for event in more)


def test_a_share_as_tolerance_is_one_of_the_best_result_as_in_the_report(raced):
    spec, out, _ = raced
    plan = look(spec, ["objective.tolerance=2%"])
    with Reader(out) as store:
        records = read_records(store)
        found = race._tolerance(plan, race.seen_of(plan, store))
    data = replace(distinct(records), tolerance="2%")
    assert found == pytest.approx(tolerance_of(data, components(scores_of(data))))
    assert found > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": {"runs": 1}}, "budget.runs: 1 cannot compare two configurations"),
        ({"budget": {"runs": 0}}, "budget.runs"),
        ({"budget": {"runs": 8, "tokens": 1000}}, "give runs or tokens, not both"),
        (
            {"budget": {"tokens": 50}},
            "budget.tokens: 50 is less than two full runs of the costliest",
        ),
        ({"race": {"protect": ["r2_lr1e-5"]}}, "race.protect: no configuration is named r2_lr1e-5"),
        ({"race": {"rungs": [0.5, 0.3]}}, "race.rungs: must ascend"),
        ({"race": {"rungs": [1.5]}}, "race.rungs"),
        ({"race": {"rungs": [0.2, 0.5]}}, "race.rungs[0]: must be greater than or equal to 0.3"),
        (
            {"grid": {"training.max_steps": [2, 3, 40]}, "budget": {"runs": 2}},
            "budget.runs: 2 is less than two full runs of the costliest configuration",
        ),
        ({"budget": None}, "race: needs a budget"),
        ({"grid": {}}, "there is one configuration to train, and nothing to race"),
        ({"objective": {"tolerance": -0.1}}, "objective.tolerance"),
    ],
)
def test_a_race_that_cannot_be_run_is_refused_before_anything_loads(more, message, tmp_path):
    spec = written(tmp_path, **more)
    code, said, error = rankwise("run", spec, "--out", tmp_path / "out")
    assert code == 2
    assert message in said + error
    assert not (tmp_path / "out" / "study.db").exists()
