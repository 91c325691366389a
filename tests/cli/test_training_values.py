"""What training writes is what peft and a plain loop of torch come to."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from black_box import (
    START,
    classified,
    evaluated,
    make_study,
    predictions,
    rankwise,
    split_of,
    trained_steps,
    weights_of,
)
from tiny_text import rows_of

NAMES = ["fur", "scales", "wings"]
TRAIN, VALIDATION, TEST = (classified(part, NAMES) for part in split_of(rows_of("labelled")))

CHANGES = {
    "start": {"learning_rate": START},
    "plain": {},
    "unclipped": {"max_grad_norm": 0.0},
    "tightly clipped": {"max_grad_norm": 1e-3, "adam_epsilon": 1e-3},
    "accumulated": {"gradient_accumulation_steps": 3},
    "warm": {"warmup_steps": 2, "lr_scheduler_type": "cosine"},
    "constant": {"lr_scheduler_type": "constant", "learning_rate": 3e-2},
    "decayed": {"weight_decay": 0.5},
    "moments": {"adam_beta1": 0.5, "adam_beta2": 0.7},
    "epsilon": {"adam_epsilon": 1e-2},
}
SEEDS = (0, 3)
CASES = [(name, seed) for name in CHANGES if name != "start" for seed in SEEDS]


def named(changes):
    return {
        name.replace(" ", "-"): {f"training.{key}": value for key, value in change.items()}
        for name, change in changes.items()
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs of six steps that are evaluated at the last one alone, so that it is the best."""
    return make_study(
        tmp_path_factory.mktemp("training"),
        configurations=named(CHANGES),
        seeds=list(SEEDS),
        training={"max_steps": 6, "eval_steps": 6},
    ).run()


@pytest.fixture(scope="module")
def logged(study):
    return study.logged()


@pytest.fixture(scope="module")
def plain(study):
    """Every configuration in peft, from the run's own first weights: model and steps."""
    found = {}
    for name, seed in CASES:
        model = study.loaded("start", seed, trainable=True)
        change = {"max_steps": 6, **CHANGES[name]}
        found[name, seed] = model, trained_steps(model, "SEQ_CLS", TRAIN, seed, **change)
    return found


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_every_step_loses_what_it_loses_in_a_plain_loop_of_peft(study, logged, plain, name, seed):
    losses = logged[name.replace(" ", "-"), seed]
    np.testing.assert_allclose(losses, plain[name, seed][1][:, 0], rtol=0, atol=2e-5)


def test_steps_are_stored_with_the_rate_and_the_norm_that_a_plain_loop_has(study, plain):
    stored = study.stored_steps()
    for name, seed in CASES:
        numbers, *values = stored[name.replace(" ", "-"), seed].T
        assert numbers.tolist() == [1, 2, 3, 4, 5, 6]
        for found, expected in zip(values, plain[name, seed][1].T, strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)


def test_seeds_start_from_adapters_of_their_own(study):
    starts = [study.weights("start", seed) for seed in SEEDS]
    for name in starts[0]:
        same = torch.allclose(starts[0][name], starts[1][name], rtol=0, atol=1e-12)
        assert same == ("lora_A" not in name), name  # B is zero, the head is the checkpoint's


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_trained_weights_are_those_of_a_plain_loop_of_peft(study, plain, name, seed):
    found, start = study.weights(name.replace(" ", "-"), seed), study.weights("start", seed)
    expected = weights_of(plain[name, seed][0])
    assert found.keys() == expected.keys()
    for weight, value in expected.items():
        assert (value - start[weight]).norm() > 0, weight
        torch.testing.assert_close(found[weight], value, rtol=0, atol=1e-4)


def test_these_settings_tell_one_training_from_another(plain):
    """Else the comparisons above would not notice one that is ignored."""
    ends = {name: steps[-1, 0] for (name, seed), (_, steps) in plain.items() if seed == 0}
    values = sorted(ends.values())
    assert min(np.diff(values)) > 1e-4, ends


@pytest.mark.parametrize("part", ["best", "test"])
@pytest.mark.parametrize(("name", "seed"), CASES[:6])
def test_metrics_are_those_of_the_adapter_in_transformers(study, part, name, seed):
    row = study.runs()[name.replace(" ", "-"), seed]
    model = study.loaded(name.replace(" ", "-"), seed)
    examples = VALIDATION if part == "best" else TEST
    labels = np.array([label for _, (label,) in examples])
    guessed = predictions(model, examples)
    expected = {
        "loss": evaluated(model, "SEQ_CLS", examples),
        "accuracy": accuracy_score(labels, guessed),
        "macro_f1": f1_score(labels, guessed, average="macro", labels=range(3), zero_division=0),
        "matthews": matthews_corrcoef(labels, guessed),
    }
    for metric, value in expected.items():
        assert float(row[f"{part}_eval_{metric}"]) == pytest.approx(value, abs=1e-5), metric


# The best step, and the best run


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """Learning rates so high that the best step is not the last."""
    return make_study(
        tmp_path_factory.mktemp("wild"),
        configurations={
            "wild": {"training.learning_rate": 0.3},
            "wilder": {"training.learning_rate": 1.0},
            "tame": {"training.learning_rate": 0.03},
        },
        seeds=[0, 1, 2],
        training={"max_steps": 16, "eval_steps": 2, "lr_scheduler_type": "constant"},
    ).run()


def test_the_best_step_is_that_of_the_lowest_validation_loss(wild):
    rows, early = wild.runs(), 0
    for run in wild.facts()["runs"]:
        row = rows[run["arm"], run["seed"]]
        losses = dict(map(tuple, run["curve"]))
        assert sorted(losses) == list(range(2, 17, 2))
        assert int(row["best_step"]) == min(losses, key=losses.get)
        assert float(row["best_eval_loss"]) == min(losses.values())
        assert int(row["last_step"]) == 16
        assert float(row["last_eval_loss"]) == losses[16]
        early += losses[16] > min(losses.values()) + 0.01
    assert early >= 3


def test_validation_and_test_loss_are_those_of_the_best_weights_which_the_adapter_holds(wild):
    for (name, seed), row in wild.runs().items():
        model = wild.loaded(name, seed)
        for part, examples in (("best", VALIDATION), ("test", TEST)):
            loss = evaluated(model, "SEQ_CLS", examples)
            assert float(row[f"{part}_eval_loss"]) == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(
    ("metric", "better"), [("eval_loss", min), ("eval_accuracy", max)], ids=["loss", "accuracy"]
)
def test_export_takes_the_best_seed(wild, tmp_path, metric, better):
    study = wild
    if metric != "eval_loss":
        study = type(wild)(wild.spec, tmp_path / "out", wild.model, wild.task)
        study.run("--set", f"objective.metric={metric}")
    facts = [run for run in study.facts()["runs"] if run["arm"] == "tame"]
    values = {run["seed"]: run["validation"][metric] for run in facts}
    best = better(values, key=values.get)
    assert best != {min: max, max: min}[better](values, key=values.get)
    code, out, _ = rankwise("export", study.out, "tame", "--to", tmp_path / "one", "--json")
    assert code == 0
    assert json.loads(out)["seed"] == best
    file = "adapter_model.safetensors"
    kept = study.out / "adapters/tame" / f"seed-{best}" / file
    assert (tmp_path / "one" / file).read_bytes() == kept.read_bytes()


def test_the_merged_model_computes_what_was_measured(wild, tmp_path):
    code, out, _ = rankwise(
        "export", wild.out, "best", "--to", tmp_path / "merged", "--merged", "--json"
    )
    assert code == 0
    told = json.loads(out)
    merged = type(wild)(wild.spec, wild.out, tmp_path / "merged", wild.task).base()
    loss = evaluated(merged, "SEQ_CLS", VALIDATION)
    assert told["eval_loss"] == pytest.approx(loss, abs=1e-4)
    assert [merged.config.id2label[n] for n in range(3)] == NAMES


def test_report_and_status_and_recommendation_name_the_configuration_of_the_lowest_mean(wild):
    rows = wild.runs()
    means = {
        name: np.mean([float(rows[name, seed]["ranked_eval_loss"]) for seed in range(3)])
        for name in ("wild", "wilder", "tame")
    }
    facts = wild.facts()
    found = {arm["name"]: arm["mean"] for arm in facts["arms"]}
    assert found == pytest.approx(means, abs=1e-12)
    assert facts["verdict"]["best"] == min(means, key=means.get)
    _, out, _ = rankwise("status", wild.out, "--json")
    ranked = {arm["name"]: arm["eval_loss"] for arm in json.loads(out)["arms"]}
    assert ranked == pytest.approx(means, abs=1e-12)
    assert list(ranked) == sorted(means, key=means.get)


def test_the_report_has_the_numbers_of_runs_csv(wild):
    rows = wild.runs()
    for arm in wild.facts()["arms"]:
        of_arm = [rows[arm["name"], seed] for seed in range(3)]
        losses = [float(row["ranked_eval_loss"]) for row in of_arm]
        assert arm["spread"] == pytest.approx(np.std(losses, ddof=1), abs=1e-12)
        assert arm["best"] == min(losses)
        for part, prefix in (("validation", "ranked"), ("test", "test")):
            for metric, value in arm[part].items():
                mean = np.mean([float(row[f"{prefix}_{metric}"]) for row in of_arm])
                assert value == pytest.approx(mean, abs=1e-12), (part, metric)
        held = sum(weight.numel() for weight in wild.weights(arm["name"]).values())
        base = wild.base().num_parameters()
        for row in of_arm:
            assert int(row["trainable_params"]) == held
            assert int(row["storage_bytes"]) == 4 * held
            assert int(row["total_params"]) == base + held


def test_plan_counts_what_is_then_done(wild):
    plan, rows = wild.plan(), wild.runs()
    data = {part: plan["data"][part] for part in ("train", "validation", "test")}
    assert data == {"train": len(TRAIN), "validation": len(VALIDATION), "test": len(TEST)}
    assert sorted(run for cohort in plan["cohorts"] for run in cohort) == sorted(
        row["run"] for row in rows.values()
    )
    assert plan["runs"] == plan["trainings"] == 9
    for arm in plan["arms"]:
        row = rows[arm["name"], 0]
        assert arm["steps"] == int(row["last_step"])
        for cost in ("trainable_params", "total_params", "memory_bytes"):
            assert arm[cost] == int(row[cost])
        percent = 100 * arm["trainable_params"] / arm["total_params"]
        assert arm["trainable_percent"] == pytest.approx(percent)
    assert plan["seconds"] == pytest.approx(3 * sum(arm["seconds"] for arm in plan["arms"]))


# Beside other runs


def test_company_leaves_every_number_as_it_is_alone(tmp_path):
    """With dropout, other rows at one seed, other seeds, and batches cut into parts."""
    study = make_study(
        tmp_path,
        configurations={
            "dropping": {"lora.lora_dropout": 0.3},
            "few-rows": {"lora.lora_dropout": 0.3, "data.max_samples": 25},
            "small": {"lora.lora_dropout": 0.5, "lora.r": 2},
            "still": {"lora.lora_dropout": 0.0},
            "dora": {"lora.lora_dropout": 0.3, "lora.use_dora": True},
        },
        seeds=[0, 1],
        lora={"init_lora_weights": False},
        training={"per_device_train_batch_size": 20, "max_steps": 5, "eval_steps": 5},
    ).run()
    together = study.logged()
    assert len(together) == 10
    weights = {key: study.weights(*key) for key in together}
    shutil.rmtree(study.out)
    alone = study.run("--set", "hardware.max_runs=1").logged()
    for key, losses in alone.items():
        np.testing.assert_allclose(together[key], losses, rtol=0, atol=1e-5)
        for name, weight in study.weights(*key).items():
            torch.testing.assert_close(weights[key][name], weight, rtol=0, atol=1e-4)
    assert not np.allclose(alone["dropping", 0], alone["few-rows", 0], atol=1e-3)
    for name in ("dropping", "dora"):  # nothing is dropped in evaluations
        loss = evaluated(study.loaded(name), "SEQ_CLS", VALIDATION)
        assert float(study.runs()[name, 0]["best_eval_loss"]) == pytest.approx(loss, abs=1e-5)


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """The same row at every step, and weights that stay as they are: equal ones for all seeds."""
    return make_study(
        tmp_path_factory.mktemp("dropped"),
        configurations={
            "dropping": {"lora.lora_dropout": 0.5},
            "dropping-less": {"lora.lora_dropout": 0.1},
            "still": {"lora.lora_dropout": 0.0},
        },
        seeds=[0, 1],
        data={"max_samples": 1},
        lora={"init_lora_weights": "pissa"},
        training={
            "learning_rate": START,
            "max_steps": 40,
            "eval_steps": 40,
            "per_device_train_batch_size": 1,
        },
    ).run()


def test_every_step_and_every_seed_draws_its_own_dropout_mask(dropped):
    logged = dropped.logged()
    for seed in (0, 1):
        np.testing.assert_allclose(logged["still", seed], logged["still", 0][0], atol=1e-6)
        for name in ("dropping", "dropping-less"):
            assert len(np.unique(logged[name, seed].round(6))) == 40, (name, seed)
    assert np.abs(logged["dropping", 0] - logged["dropping", 1]).min() > 1e-6
