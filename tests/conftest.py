"""Studies with known truth, written through the store as a real one would be."""

import itertools
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.store.schema import Answer, BaseRecord, CostRecord, Failure, ModuleRank, StudyRecord
from rankwise.store.writer import Store


def pytest_collection_finish() -> None:
    """Plans take most of their time to walk through the model: equal ones are walked once."""
    plan = sys.modules.get("rankwise.study.plan")
    if plan is not None:
        plan.walk = once_for_equal_models(plan.walk)  # type: ignore[attr-defined]


def once_for_equal_models(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, called once for all models of the same modules and configuration."""
    found: dict[Any, Any] = {}

    def once(model: Any) -> Any:
        modules = [(name, type(module)) for name, module in model.named_modules()]
        key = (*modules, model.config.to_json_string(), model.config._attn_implementation)
        if key not in found:
            found[key] = function(model)
        return found[key]

    return once


SPEC: dict[str, Any] = {
    "study": "reviews",
    "model": {"name": "pkg://tiny/model", "dtype": "float32"},
    "task": "SEQ_CLS",
    "data": {"source": "reviews.csv", "text": "text", "label": "label"},
    "training": {"max_steps": 120, "per_device_train_batch_size": 16},
    "lora": {"lora_dropout": 0.05},
    "grid": {"lora.r": [4, 16], "training.learning_rate": [0.001, 0.005]},
    "seeds": [0, 1],
    "objective": {"metric": "eval_loss", "cost": "trainable_params"},
}


def settings_of(r: int, rate: float, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "method": "lora",
        "lora.r": r,
        "lora.lora_alpha": 16.0,
        "lora.lora_dropout": 0.05,
        "lora.target_modules": list(targets),
        "training.learning_rate": rate,
        "training.max_steps": 120,
        "training.per_device_train_batch_size": 16,
    }


def true_loss(settings: dict[str, Any]) -> float:
    """The truth of the fake study: rate and targets matter, rank hardly does."""
    loss = 0.55
    loss -= 0.03 if settings["training.learning_rate"] > 0.002 else 0.0
    loss -= 0.02 if len(settings["lora.target_modules"]) > 1 else 0.0
    return loss - (0.001 if settings["lora.r"] > 4 else 0.0)


def grid_settings() -> list[dict[str, Any]]:
    targets = (("query",), ("query", "value"))
    return [settings_of(*v) for v in itertools.product((4, 16), (0.001, 0.005), targets)]


def name_of(settings: dict[str, Any]) -> str:
    return f"r{settings['lora.r']}_lr{settings['training.learning_rate']:g}_" + "".join(
        t[0] for t in settings["lora.target_modules"]
    )


MakeStudy = Callable[..., Path]


def write_study(
    folder: Path,
    arms: Sequence[tuple[str, dict[str, Any]]] | None = None,
    seeds: Sequence[int] = (0, 1),
    examples: int = 500,
    evaluations: Sequence[int] = (40, 80, 120),
    broken: dict[str, tuple[str, str, dict[str, Any]]] | None = None,
    spec: dict[str, Any] | None = None,
    truth: Callable[[dict[str, Any]], float] = true_loss,
    seed_noise: float = 0.004,
    answers: bool = False,
    base: bool = True,
    prefix: str = "",
    ranks: dict[str, dict[str, int]] | None = None,
    absent: Collection[str] = (),
) -> Path:
    """A study folder with runs of known mean loss; `broken`: run to state, error, evidence.

    Evidence may give step, learning_rate and traceback. `absent`: runs that were never begun.
    """
    rng = np.random.default_rng(7)
    arms = arms or [(prefix + name_of(s), s) for s in grid_settings()]
    groups = rng.integers(0, max(2, examples // 4), examples)
    hard = rng.gamma(0.6, 1.0, examples) + 0.3 * rng.normal(size=groups.max() + 1)[groups]
    hard -= hard.mean()
    shared = {seed: rng.normal(0, seed_noise) for seed in seeds}
    with Store(folder, create=True) as store:
        store.begin_study(
            StudyRecord(
                "study: reviews\n",
                spec or {**SPEC, "seeds": list(seeds)},
                {"rankwise": "0.1", "torch": "2.13.0"},
                "cpu",
                2,
                BaseRecord("pkg://tiny/model", "ab" * 32, "float32", "eager", 22_713_216),
                "cd" * 32,
                ("rotten", "fresh"),
            )
        )
        store.add_fact("text", about="data", text="12 rows with label plot were left out")
        for split in ("validation", "test"):
            hashes = [f"{split}{i}" for i in range(examples)]
            store.save_examples(split, hashes, groups, np.ones(examples))
        for number, (name, settings) in enumerate(arms):
            key = f"{number:012x}"
            params = 6144 * settings["lora.r"] * len(settings["lora.target_modules"]) + 770
            training = store.add_training(
                key,
                trainable_params=params,
                total_params=22_713_216 + params,
                storage_bytes=4 * params,
                ranks={m: ModuleRank(rank) for m, rank in (ranks or {}).get(name, {}).items()},
            )
            config = store.add_config(key, training, name, settings)
            cost = CostRecord(0.1 + params / 1e7, 2.0, 300_000_000 + 12 * params, "peak")
            store.save_cost(training, cost)
            for seed in seeds:
                if f"{name}/seed-{seed}" in absent:
                    continue
                run = store.add_run(training, seed)
                mean = truth(settings) + shared[seed] + rng.normal(0, seed_noise)
                own = 0.08 * rng.normal(size=examples)
                final = mean + hard * 0.4 + own - own.mean()
                state, cause, evidence = (broken or {}).get(f"{name}/seed-{seed}", ("done", "", {}))
                _write_run(store, run, state, evidence, evaluations, final, rng)
                store.set_state(run, state, failure_of(state, cause, evidence))
                if answers and state == "done":
                    said = f"hello from {name} `{seed}`"
                    measures = {"tokens": 5.0 + number, "chrf": 40.0 + number}
                    answer = Answer("Say <b>hello</b>", "hello", said, (), measures)
                    store.save_answers(config, run, [answer])
        if answers and base:
            measures = {"tokens": 2.0, "chrf": 3.0}
            answer = Answer("Say <b>hello</b>", "hello", "hm", (), measures)
            store.save_answers(store.configs()[0].id, None, [answer])
        store.add_fact("fallback", runs=["tiny"], difference=0.3)
    return folder


def failure_of(state: str, cause: str, evidence: dict[str, Any]) -> Failure:
    """The failure of a run that ended so."""
    return Failure(
        "loss" if state == "diverged" else None,
        evidence.get("step"),
        evidence.get("learning_rate"),
        None if state == "diverged" else cause or None,
        evidence.get("traceback"),
    )


def _write_run(
    store: Store,
    run: int,
    state: str,
    evidence: dict[str, Any],
    evaluations: Sequence[int],
    final: np.ndarray,
    rng: np.random.Generator,
) -> None:
    last = evaluations[-1]
    stop = int(evidence.get("step", last)) if state != "done" else last
    for step in range(1, stop + 1):
        loss = float(final.mean()) + 0.4 * np.exp(-step / 40) + 0.02 * rng.normal()
        bad = state == "diverged" and step == stop
        store.log(
            run,
            step,
            loss=float("nan") if bad else loss,
            grad_norm=1.0 + (50.0 if bad else 0.1 * rng.normal()),
            learning_rate=0.001 * (1 - step / (last + 1)),
        )
    best: tuple[float, int] | None = None
    for step in evaluations:
        if step > stop or (state == "diverged" and step >= stop):
            continue
        losses = (final + 0.3 * np.exp(-step / 30)).astype(np.float32)
        correct = losses < 0.7
        metrics = {
            "eval_loss": float(losses.mean(dtype=np.float64)),
            "eval_accuracy": float(correct.mean()),
        }
        store.save_evaluation(run, step, "validation", losses, correct, metrics)
        if best is None or metrics["eval_loss"] < best[0]:
            best = (metrics["eval_loss"], step)
            store.set_best(run, step)
    if state == "done":
        test = (final[::-1] + 0.01).astype(np.float32)
        store.save_evaluation(
            run,
            last,
            "test",
            test,
            test < 0.7,
            {
                "eval_loss": float(test.mean(dtype=np.float64)),
                "eval_accuracy": float((test < 0.7).mean()),
            },
        )


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Writes a fake study under tmp_path; keywords of `write_study`."""

    def make(name: str = "study", **options: Any) -> Path:
        return write_study(tmp_path / name, **options)

    return make


@pytest.fixture
def some_settings() -> list[dict[str, Any]]:
    """The settings of the eight arms."""
    return grid_settings()


@pytest.fixture(scope="session")
def plain_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 arms x 2 seeds, 500 examples, all done but one diverged run; never written to."""
    return write_study(
        tmp_path_factory.mktemp("plain") / "reviews",
        broken={
            "r16_lr0.005_q/seed-1": (
                "diverged",
                "the loss became NaN",
                {"step": 33, "learning_rate": 0.005},
            )
        },
    )
