"""A search in a study: proposals are facts, results are told, and a killed study goes on alike."""

import json

import numpy as np
import pytest
import yaml

from black_box import rankwise
from rankwise.cli.app import look
from rankwise.results.from_store import read_records
from rankwise.search.race import Decision
from rankwise.search.sampler import Trial
from rankwise.search.seen import Run, Schedule, Seen
from rankwise.store.reader import Reader
from rankwise.study.proposals import KIND, Warm
from rankwise.study.run import run_study
from rankwise.study.search import level_of, trials_of, with_stored_proposals
from tiny_text import tiny_spec

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "lora.r": [2, 4, 8],
    "lora.target_modules": [["query", "value"], "all-linear"],
}


def written(folder, search=None, **more):
    """The spec of a tiny search, written."""
    spec = tiny_spec(
        folder,
        "bert",
        "labelled",
        search={"space": SPACE, "startup": 3, **(search or {})},
        lora={"lora_dropout": 0.0},
        training={"max_steps": 4, "eval_steps": 2, "per_device_train_batch_size": 4},
        race={"at_once": 3, "audit": 0.0},
        **{"seeds": [0, 1], "budget": {"runs": 7}, **more},
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder / "study.yaml"


def run(spec, out, most=None):
    """Run a study; closed after this many tuples of events, as Ctrl-C does."""
    running = run_study(look(spec, []), out)
    for number, _ in enumerate(running):
        if number == most:
            running.close()
            return


def proposals(out):
    with Reader(out) as store:
        return [fact.data for fact in store.facts() if fact.kind == KIND]


def losses(out):
    with Reader(out) as store:
        return {r.id: (r.state, r.value) for r in read_records(store).runs if r.value is not None}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    spec = written(folder)
    run(spec, folder / "out")
    return spec, folder / "out"


def test_proposals_begin_with_the_literature_then_spread_out_then_the_sampler(study):
    sources = [one["source"] for one in proposals(study[1])]
    assert sources[:3] == ["literature", "literature", "spread out"]
    assert len(sources) > 3
    assert set(sources[3:]) == {"tpe"}
    assert "tinker-cookbook" in proposals(study[1])[0]["why"]


def test_what_is_proposed_is_trained_within_the_budget_and_some_of_it_is_left_for_seeds(study):
    _spec, out = study
    with Reader(out) as store:
        runs, evaluated = store.runs(), 0.0
        for one in runs:
            steps = [int(found["step"]) for found in store.evaluation_metrics(one.id)]
            evaluated += max(steps, default=0) / 4
    assert 5 < evaluated <= 7
    assert {one.seed for one in runs} == {0, 1}


def test_the_spec_in_the_store_is_the_users(study):
    spec, out = study
    with Reader(out) as store:
        stored = yaml.safe_load(store.study().spec_yaml)
        names = [config.name for config in store.configs() if config.current]
    assert "configs" not in stored
    assert stored["search"]["space"] == yaml.safe_load(spec.read_text())["search"]["space"]
    assert names == [one["name"] for one in proposals(out)]


def test_a_study_that_is_stopped_again_and_again_has_the_proposals_and_runs_of_one_that_is_not(
    study, tmp_path
):
    spec = written(tmp_path)
    for most in (4, 9, 12):
        run(spec, tmp_path / "out", most)
    run(spec, tmp_path / "out")
    point = ("name", "point", "source", "why")
    assert [{k: one[k] for k in point} for one in proposals(tmp_path / "out")] == [
        {k: one[k] for k in point} for one in proposals(study[1])
    ]
    again, before = losses(tmp_path / "out"), losses(study[1])
    assert again.keys() == before.keys()
    for name, (state, value) in before.items():
        assert again[name][0] == state
        assert again[name][1] == pytest.approx(value, abs=1e-5)


def test_plan_status_report_and_export_know_the_proposals_and_a_second_call_trains_nothing(study):
    spec, out = study
    names = [one["name"] for one in proposals(out)]
    code, text, err = rankwise("plan", spec, "--out", out)
    assert code == 0, err
    assert all(name in text for name in names)
    assert "literature: " in text
    code, text, err = rankwise("run", spec, "--out", out, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(text)["begin"] == json.loads(text)["new"] == []
    code, text, err = rankwise("run", spec, "--out", out)
    assert code == 0, err
    assert "loading" not in err
    code, text, err = rankwise("export", out, "best", "--to", out.parent / "best")
    assert code == 0, err
    assert "search" not in yaml.safe_load((out / "recommended.yaml").read_text())
    assert f"proposed {names[0]}: literature" in (out / "report.md").read_text().replace("\\", "")


def test_what_is_told_are_results_forecasts_and_the_worst_for_what_diverged(study):
    spec, out = study
    with Reader(out) as store:
        plan = with_stored_proposals(look(spec, []), store)
        trials = trials_of(plan, store)
        records = read_records(store)
    assert [trial.point for trial in trials] == [one.point for one in plan.search.proposals]
    for trial, proposal in zip(trials, plan.search.proposals, strict=True):
        mean = records.arm(proposal.name).mean
        if mean is not None:
            assert trial.value == pytest.approx(mean, abs=1e-9)
    assert any(records.arm(one.name).mean is not None for one in plan.search.proposals)


def test_a_stopped_configuration_is_told_at_its_leaders_level_plus_its_forecast():
    schedule = Schedule("linear", 0.0, 10)
    finished = {0.5: np.full(4, 1.4), 1.0: np.full(4, 1.0)}
    runs = {
        ("best", 0): Run(finished, finished=True),
        ("best", 1): Run({1.0: np.full(4, 1.2)}, finished=True),
        ("stopped", 0): Run({0.5: np.full(4, 1.9)}),
        ("going on", 0): Run({0.5: np.full(4, 1.5)}),
        ("lost", 0): Run({}, diverged=True),
    }
    seen = Seen(runs, dict.fromkeys(("best", "stopped", "going on", "lost"), schedule))
    stop = Decision("stopped", (0,), 0.5, True, "best", 0.5, 0.3, 0.1, 0.6, 0.0, False, "no chance")
    assert level_of(seen, [stop], "best") == pytest.approx(1.1)
    assert level_of(seen, [stop], "stopped") == pytest.approx(1.4)
    assert level_of(seen, [stop], "going on") is None
    assert level_of(seen, [stop], "lost") is None


def again(spec, path, **search):
    """The same study in another file, searched otherwise."""
    changed = yaml.safe_load(spec.read_text())
    changed["search"] |= search
    path.write_text(yaml.safe_dump(changed))
    return path


def test_a_warm_start_tells_what_lies_inside_the_space_and_says_how_many(study, tmp_path):
    spec, out = study
    new = again(spec, tmp_path / "new.yaml", warm_start=[str(out)], most=2, startup=20)
    plan = look(new, [])
    (warm,) = plan.search.warm
    with Reader(out) as store:
        done = [arm for arm in read_records(store).arms if arm.mean is not None]
    assert len(warm.trials) == len(done) > 2
    assert (warm.outside, warm.same_data) == (0, True)
    code, text, err = rankwise("plan", new, "--out", tmp_path / "out")
    assert code == 0, err
    assert f"{len(done)} finished configurations inside the space" in " ".join(text.split())
    known = {json.dumps(trial.point, sort_keys=True) for trial in warm.trials}
    assert len(plan.search.proposals) == 2
    assert not known & {json.dumps(p.point, sort_keys=True) for p in plan.search.proposals}
    narrow = {**SPACE, "lora.r": [16, 32]}
    other = look(again(spec, tmp_path / "other.yaml", warm_start=[str(out)], space=narrow), [])
    assert other.search.warm[0].trials == ()
    assert other.search.warm[0].outside == len(done)


def test_results_on_other_data_are_told_from_the_best_of_this_study_on():
    warm = Warm("there", (Trial({"lora.r": 2}, 3.0), Trial({"lora.r": 4}, 3.5)), False, 0)
    assert [one.value for one in warm.shifted(1.0)] == [1.0, 1.5]
    same = Warm("there", warm.trials, True, 0)
    assert [one.value for one in same.shifted(1.0)] == [3.0, 3.5]


def test_a_warm_start_from_another_base_is_refused_before_anything_is_loaded(study, tmp_path):
    spec = written(tmp_path, {"warm_start": [str(study[1])]})
    changed = yaml.safe_load(spec.read_text())
    changed["model"]["config"]["num_hidden_layers"] = 1
    spec.write_text(yaml.safe_dump(changed))
    code, _, err = rankwise("run", spec, "--out", tmp_path / "out")
    assert code == 2
    assert "is no study on the same base and task (model.config.num_hidden_layers was 2" in err
    assert "loading" not in err


def test_a_target_that_the_base_lacks_is_refused_though_it_would_be_proposed_late(tmp_path):
    space = {"lora.r": [2, 4], "lora.target_modules": [["query"], ["quary"]]}
    code, _, err = rankwise("run", written(tmp_path, {"space": space}), "--out", tmp_path / "out")
    assert code == 2
    assert "quary" in err
    assert "loading" not in err


def test_configurations_of_the_spec_are_raced_beside_the_proposals_and_told(tmp_path):
    space = {"lora.r": [2, 4], "training.learning_rate": [1e-3, 1e-2]}
    own = [{"name": "mine", "lora.r": 2, "training.learning_rate": 1e-3}]
    spec = written(
        tmp_path, {"space": space, "startup": None}, configs=own, seeds=[0], budget={"runs": 9}
    )
    plan = look(spec, [])
    assert next(arm.name for arm in plan.arms) == "mine"
    run(spec, tmp_path / "out")
    with Reader(tmp_path / "out") as store:
        names = [config.name for config in store.configs() if config.current]
        trials = trials_of(with_stored_proposals(plan, store), store)
    assert len(names) == 4  # the whole space, each point once
    assert {trial.point["lora.r"] for trial in trials} == {2, 4}
    assert trials[0].value is not None
