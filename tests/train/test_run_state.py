"""A run may be stopped, saved, loaded and joined to other runs, and notices nothing of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rankwise.errors import StoreError
from rankwise.spec.arms import Run
from rankwise.train.cohort import take_out
from rankwise.train.run_state import RunState, load_run_states, save_run_states
from tiny import tiny_arms, tiny_cohort

STEPS = 8
LORA = [
    {"lora.r": 4, "lora.lora_dropout": 0.2, "training.gradient_accumulation_steps": 2},
    {"lora.r": 2, "training.lr_scheduler_type": "cosine", "training.warmup_steps": 3},
    {"lora.r": 6, "lora.lora_dropout": 0.1, "training.weight_decay": 0.1},
]
KINDS = {
    "lora": LORA,
    "dora": [{"lora.use_dora": True, **change} for change in LORA],
    "loraplus": [{"training.loraplus_lr_ratio": 4, **change} for change in LORA],
    "sgd": [{"training.optim": "sgd", **change} for change in LORA],
    "adafactor": [{"training.optim": "adafactor", **change} for change in LORA],
    "optimizers": [
        {"training.optim": optim, **change}
        for optim, change in zip(("adafactor", "adamw_torch", "sgd"), LORA, strict=True)
    ],
    "bias": [{"lora.bias": word, **LORA[0]} for word in ("lora_only", "all", "none")],
    "pissa": [{"lora.init_lora_weights": "pissa", **change} for change in LORA],
}
FAMILIES = ("gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5")


def runs_of(kind, changes):
    """Runs of three seeds that are evaluated at every third step and at the last."""
    named = [{"name": f"arm{n}", **change} for n, change in enumerate(changes)]
    arms = tiny_arms(kind, named, max_steps=STEPS, eval_steps=3)
    return [Run(arm, seed) for seed, arm in enumerate(arms)]


def saved(cohort, folder):
    """The runs of a cohort through files, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, state in enumerate(take_out(cohort)):
        save_run_states([state], folder / f"{number}.safetensors")
        found[state.run.id] = load_run_states([state.run], folder / f"{number}.safetensors")[
            state.run
        ]
    return found


def trained(kind, runs, folder, batches=None, **more):
    """These runs, trained to the end or for some batches: their cohort and what it told."""
    cohort, told = tiny_cohort(kind, runs, folder, **more)
    return cohort, told.train(cohort, batches)


def check_same(run, told, state, parts, at_end, atol=1e-5):
    """The steps and evaluations told in parts, and the last state, are those of `told`, `state`."""
    together = np.concatenate([part.steps(run) for part in parts])
    np.testing.assert_allclose(together, told.steps(run), rtol=0, atol=atol)
    pairs = zip(told.evaluations(run), [e for p in parts for e in p.evaluations(run)], strict=True)
    for one, other in pairs:
        assert one.step == other.step
        ours, theirs = one.evaluation.losses_E, other.evaluation.losses_E
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    assert (at_end.step, at_end.best_step, at_end.status) == (STEPS, state.best_step, "done")
    for group in ("weights", "best_weights"):
        for name, weight in getattr(state, group).items():
            found = getattr(at_end, group)[name]
            torch.testing.assert_close(found, weight, rtol=0, atol=atol)


def check_journey(kind, runs, folder, **more):
    """Runs that stop, leave, wait and join at other steps equal themselves alone."""
    first, second, third = runs
    alone = {}
    for run in runs:
        cohort, told = trained(kind, [run], folder / "alone", **more)
        alone[run.id] = told, take_out(cohort)[0]
    # Two runs train for five batches, the third alone for two.
    cohort, one = trained(kind, [first, second], folder / "a", batches=5, **more)
    states = saved(cohort, folder / "a")
    cohort, two = trained(kind, [third], folder / "b", batches=2, **more)
    states |= saved(cohort, folder / "b")
    assert states[third.id].step < states[second.id].step
    # The third joins the first for three batches, and then all three go on to their end.
    pair = [third, first]
    cohort, three = trained(
        kind, pair, folder / "c", batches=3, states=[states[r.id] for r in pair], **more
    )
    states |= saved(cohort, folder / "c")
    cohort, four = trained(
        kind, runs, folder / "d", states=[states[run.id] for run in runs], **more
    )
    for run, at_end in zip(runs, take_out(cohort), strict=True):
        check_same(run, *alone[run.id], (one, two, three, four), at_end)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_that_stops_and_joins_others_equals_an_undisturbed_one(kind, tmp_path):
    check_journey(kind, runs_of(kind, LORA), tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("changes", [name for name in KINDS if name != "lora"])
def test_whatever_it_trains(kind, changes, tmp_path):
    check_journey(kind, runs_of(kind, KINDS[changes]), tmp_path)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_whichever_modules_it_trains_in_full(tmp_path):
    saved_modules = (["pooler"], ["LayerNorm"], ["word_embeddings"])
    changes = [{"lora.modules_to_save": s, **c} for s, c in zip(saved_modules, LORA, strict=True)]
    check_journey("bert", runs_of("bert", changes), tmp_path)


def test_over_a_quantised_base(tmp_path):
    pytest.importorskip("bitsandbytes")
    from train.test_quantized import quantised

    base = quantised("llama", "nf4")
    check_journey("llama", runs_of("llama", LORA), tmp_path, base=base.model)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("batches", [1, 2, 5, 7])
def test_full_fine_tuning_goes_on_where_it_was(kind, batches, tmp_path):
    full = {"method": "full", "training.learning_rate": 1e-3, "training.weight_decay": 0.1}
    run = runs_of(kind, [{**full, "training.gradient_accumulation_steps": 2}])[0]
    cohort, told = trained(kind, [run], tmp_path)
    whole = take_out(cohort)[0]
    cohort, before = trained(kind, [run], tmp_path, batches=batches)
    states = list(saved(cohort, tmp_path).values())
    cohort, after = trained(kind, [run], tmp_path, states=states)
    check_same(run, told, whole, (before, after), take_out(cohort)[0], atol=0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("batches", [1, 3, 6])
def test_the_same_cohort_formed_again_gives_the_same_bytes(kind, batches, tmp_path):
    runs = runs_of(kind, LORA)
    cohort, told = trained(kind, runs, tmp_path)
    whole = take_out(cohort)
    cohort, before = trained(kind, runs, tmp_path, batches=batches)
    states = list(saved(cohort, tmp_path).values())
    cohort, after = trained(kind, runs, tmp_path, states=states)
    for run, state, at_end in zip(runs, whole, take_out(cohort), strict=True):
        check_same(run, told, state, (before, after), at_end, atol=0)
        for group in ("weights", "best_weights", "optimizer"):
            ours, theirs = getattr(at_end, group), getattr(state, group)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_stopped_run_keeps_its_patience_and_its_best_step(tmp_path):
    eager = {"training.learning_rate": 0.3, "training.early_stopping_patience": 2, "lora.r": 8}
    (arm,) = tiny_arms("bert", [eager], max_steps=24, eval_steps=2)
    run = Run(arm, 0)
    cohort, _ = trained("bert", [run], tmp_path)
    whole = take_out(cohort)[0]
    assert whole.status == "stopped_early"
    cohort, _ = trained("bert", [run], tmp_path, batches=whole.step - 1)
    states = list(saved(cohort, tmp_path).values())
    assert states[0].status == "running"
    cohort, _ = trained("bert", [run], tmp_path, states=states)
    at_end = take_out(cohort)[0]
    assert (at_end.status, at_end.step, at_end.best_step, at_end.best) == (
        "stopped_early", whole.step, whole.best_step, whole.best
    )  # fmt: skip


def test_taking_runs_out_does_not_disturb_those_that_train_on(tmp_path):
    runs = runs_of("gpt2", LORA)
    _, told = trained("gpt2", runs, tmp_path / "a")
    cohort, other = trained("gpt2", runs, tmp_path / "b", batches=3)
    early = take_out(cohort)
    copied = [{name: w.clone() for name, w in state.weights.items()} for state in early]
    other.train(cohort)
    for run, state, copy in zip(runs, early, copied, strict=True):
        np.testing.assert_array_equal(other.steps(run), told.steps(run))
        assert all(torch.equal(state.weights[name], copy[name]) for name in copy)


def test_the_state_of_another_run_is_refused(tmp_path):
    one, other, _ = runs_of("gpt2", LORA)
    save_run_states([RunState(one, STEPS)], tmp_path / "one.safetensors")
    with pytest.raises(StoreError, match=r"holds no state of arm1/seed-1"):
        load_run_states([other], tmp_path / "one.safetensors")


def test_a_state_of_an_earlier_version_keeps_its_moments(tmp_path):
    run = runs_of("gpt2", LORA)[0]
    cohort, _ = trained("gpt2", [run], tmp_path, batches=4)
    (state,) = saved(cohort, tmp_path).values()
    path, old = tmp_path / "0.safetensors", tmp_path / "old.safetensors"
    names = {"/optimizer/exp_avg/": "/first_moments/", "/optimizer/exp_avg_sq/": "/second_moments/"}
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    for new, before in names.items():
        tensors = {name.replace(new, before): value for name, value in tensors.items()}
    save_file(tensors, old, facts)
    found = load_run_states([run], old)[run].optimizer
    assert found.keys() == state.optimizer.keys()
    assert len(found) == 2 * len(state.weights)
    assert all(torch.equal(found[name], state.optimizer[name]) for name in found)


@pytest.mark.parametrize("optim", ["sgd", "adafactor"])
@pytest.mark.parametrize("batches", [1, 4])
def test_another_optimizer_goes_on_with_the_same_bytes(optim, batches, tmp_path):
    runs = runs_of("bert", KINDS[optim])
    cohort, told = trained("bert", runs, tmp_path)
    whole = take_out(cohort)
    cohort, before = trained("bert", runs, tmp_path, batches=batches)
    states = list(saved(cohort, tmp_path).values())
    cohort, after = trained("bert", runs, tmp_path, states=states)
    for run, state, at_end in zip(runs, whole, take_out(cohort), strict=True):
        check_same(run, told, state, (before, after), at_end, atol=0)
        assert at_end.optimizer.keys() == state.optimizer.keys()
        assert bool(state.optimizer) == (optim == "adafactor")
        assert all(torch.equal(at_end.optimizer[n], v) for n, v in state.optimizer.items())


GO_ON = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from train.test_run_state import LORA, load_run_states, runs_of, save_run_states, take_out, trained
runs = runs_of("gpt2", LORA)
for folder in map(Path, sys.argv[2:]):
    before = [folder / f"{number}.safetensors" for number in range(len(runs))]
    states = [load_run_states([run], path)[run] for run, path in zip(runs, before, strict=True)]
    cohort, _ = trained("gpt2", runs, folder, states=states)
    for number, state in enumerate(take_out(cohort)):
        save_run_states([state], folder / f"end{number}.safetensors")
"""
AT_STEPS = (5, 2, 1)


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory):
    """Folders of runs that a new process has trained on together to their end.

    In `together` they were one cohort that was stopped after 3 batches; in `joined` each was
    trained alone and stopped at another step.
    """
    runs = runs_of("gpt2", LORA)
    together, joined = (tmp_path_factory.mktemp(name) for name in ("together", "joined"))
    cohort, _ = trained("gpt2", runs, together, batches=3)
    saved(cohort, together)
    for number, (run, batches) in enumerate(zip(runs, AT_STEPS, strict=True)):
        cohort, _ = trained("gpt2", [run], joined / "before", batches=batches)
        save_run_states(take_out(cohort), joined / f"{number}.safetensors")
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", GO_ON, tests, together, joined], check=True)
    return together, joined


def ends_of(runs, folder):
    """The states with which the new process ended."""
    return [
        load_run_states([run], folder / f"end{n}.safetensors")[run] for n, run in enumerate(runs)
    ]


def test_a_new_process_goes_on_with_the_same_bytes(gone_on, tmp_path):
    runs = runs_of("gpt2", LORA)
    cohort, _ = trained("gpt2", runs, tmp_path)
    for ended, state in zip(ends_of(runs, gone_on[0]), take_out(cohort), strict=True):
        assert ended.seen == state.seen
        for name, weight in state.weights.items():
            assert torch.equal(ended.weights[name], weight)


def test_runs_at_other_steps_join_in_a_new_process(gone_on, tmp_path):
    runs = runs_of("gpt2", LORA)
    paths = [gone_on[1] / f"{number}.safetensors" for number in range(len(runs))]
    begun = [load_run_states([run], path)[run] for run, path in zip(runs, paths, strict=True)]
    assert len({(state.step, state.batches) for state in begun}) == 3
    for run, ended in zip(runs, ends_of(runs, gone_on[1]), strict=True):
        cohort, told = trained("gpt2", [run], tmp_path / "alone")
        (alone,) = take_out(cohort)
        losses = [one["loss"] for one in ended.seen]  # of all steps, for there are no more
        np.testing.assert_allclose(losses, told.steps(run), rtol=0, atol=1e-5)
        assert (ended.step, ended.best_step) == (alone.step, alone.best_step)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(ended.weights[name], weight, rtol=0, atol=1e-5)


def test_a_run_that_is_evaluated_late_is_evaluated_when_it_goes_on(tmp_path):
    """Stopped between a batch and the evaluation that was due after it."""
    run = runs_of("gpt2", LORA)[1]
    _, told = trained("gpt2", [run], tmp_path)
    cohort, before = trained("gpt2", [run], tmp_path, batches=3)
    assert before.evaluations(run) == []
    states = list(saved(cohort, tmp_path).values())
    _, after = trained("gpt2", [run], tmp_path, states=states)
    assert [one.step for one in after.evaluations(run)] == [3, 6, 8]
    for one, other in zip(after.evaluations(run), told.evaluations(run), strict=True):
        np.testing.assert_array_equal(one.evaluation.losses_E, other.evaluation.losses_E)
