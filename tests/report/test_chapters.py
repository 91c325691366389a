"""Each chapter claims what its numbers bear, and is absent where it has nothing to say."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.store.schema import CostRecord
from rankwise.store.writer import Store

Arms = list[tuple[str, dict[str, Any]]]


def report_of(folder: Path) -> str:
    with Store(folder) as store:
        records = read_records(store)
    return to_markdown(tell(judge_records(records)))


def chapter(text: str, title: str) -> str:
    return text.split(f"## {title}")[1].split("\n## ")[0]


def full_arm(rate: float) -> dict[str, Any]:
    return {"method": "full", "training.learning_rate": rate, "training.max_steps": 120,
            "lora.r": 0, "lora.target_modules": []}  # fmt: skip


def with_full(settings: Sequence[dict[str, Any]]) -> Arms:
    return [("small", settings[0]), ("large", settings[-1]), ("full", full_arm(1e-5))]


def truth_with_full(settings: dict[str, Any]) -> float:
    return 0.40 if settings["method"] == "full" else 0.50 + 0.001 * settings["lora.r"]


def test_full_fine_tuning_is_set_against_the_best_adapter_with_an_interval(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    folder = make_study(arms=with_full(some_settings), truth=truth_with_full, examples=200)
    text = chapter(report_of(folder), "LoRA against full fine-tuning")
    assert "share of all parameters" in text
    assert "`small` against `full`: validation loss worse by 0.1" in text
    assert "`full` is better" in text
    assert "one set of settings only" in text
    assert "always change together, so only their joint effect is known" in report_of(folder)


def test_one_clear_winner_is_called_best(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    folder = make_study(arms=with_full(some_settings), truth=truth_with_full, seeds=(0, 1, 2))
    lines = report_of(folder).splitlines()
    assert lines[2].startswith(
        "**Use `full`**: its validation loss is better than that of each of the 2"
    )
    assert any(line.startswith("**Best:** `full`, validation loss 0.4") for line in lines)
    on_test = next(line for line in lines if line.startswith("On the test part"))
    assert (
        "`full` has the best mean and is significantly better than all others there too." in on_test
    )
    assert "`full` is recommended: it is significantly better than all others." in lines


def test_an_arm_with_less_memory_is_offered_with_its_price(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    folder = make_study(arms=with_full(some_settings), truth=truth_with_full, examples=200)
    with Store(folder) as store:
        trainings = {config.name: config.training_id for config in store.configs()}
        for name, gigabytes in (("small", 1.0), ("large", 2.0), ("full", 4.0)):
            cost = CostRecord(1.0, None, int(gigabytes * 2**30), "alone")
            store.save_cost(trainings[name], cost)
    text = chapter(report_of(folder), "The configuration to use")
    assert "`small` needs 1.0 GiB, 75 % less; its validation loss is worse by" in text


def test_one_seed_gives_no_winner_however_clear_the_examples(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    folder = make_study(arms=with_full(some_settings), truth=truth_with_full, seeds=(0,))
    text = report_of(folder)
    assert text.splitlines()[2].startswith("**Use `full`**: of these runs it has a better")
    assert "**Best of these runs:** `full`" in text
    assert "another seed may change the order, so no winner is declared" in text
    assert "it is the best of these runs; with one seed each" in text
    assert "the only one that can be the best" not in text
    assert "it is significantly better than all others." not in text
    assert "Noise floor: unknown" in text


def test_one_arm_is_compared_with_nothing(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    text = report_of(make_study(arms=[("only", some_settings[0])], examples=50))
    assert "**Only one configuration has a result:** `only`" in text
    assert "it is the only configuration with a result." in text
    assert "## What each setting does" not in text
    assert "## Quality against cost" not in text


def test_each_kind_of_failure_has_cause_evidence_and_remedy(make_study: Any) -> None:
    broken = {
        "r4_lr0.001_q/seed-0": ("out_of_memory", "needed 9 GiB, 8 were free", {"step": 2}),
        "r4_lr0.001_q/seed-1": ("crashed", "KeyError: 'x'", {"step": 5, "traceback": "T" * 300}),
        "r4_lr0.005_q/seed-0": ("interrupted", "signal 15", {"step": 50}),
    }
    folder = make_study(examples=50, broken=broken)
    text = report_of(folder)
    found = chapter(text, "Runs without a result")
    for run, (state, cause, _) in broken.items():
        line = next(one for one in found.splitlines() if one.startswith(f"- `{run}`"))
        assert state.replace("_", " ") in line
        assert cause in line
        assert line.index("**Cause:**") < line.index("**Evidence:**") < line.index("**Remedy:**")
    assert "T" * 300 in found
    assert "3 runs of 16" in found
    ranking = chapter(text, "Ranking")
    assert "| – | `r4_lr0.001_q` | no result, not ranked |" in ranking


def bent(curve: Sequence[float]) -> list[tuple[int, float]]:
    return [(10 * (n + 1), value) for n, value in enumerate(curve)]


def study_with_curve(
    make_study: Any, settings: dict[str, Any], curve: Sequence[float], training: Sequence[float]
) -> Path:
    folder: Path = make_study(arms=[("only", settings)], examples=20, evaluations=(10,))
    with Store(folder) as store:
        for run in store.runs():
            store.restart_run(run.id)
            wobble = 0.001 * run.seed
            for (step, value), loss in zip(bent(curve), training, strict=True):
                store.log(run.id, step, loss, math.nan, math.nan)
                losses = np.full(20, value + wobble)
                metrics = {"eval_loss": value + wobble}
                store.save_evaluation(run.id, step, "validation", losses, None, metrics)
            store.set_best(run.id, min(bent(curve), key=lambda point: point[1])[0])
            store.set_state(run.id, "done")
    return folder


@pytest.mark.parametrize(
    ("curve", "training", "still", "over"),
    [
        ([1.0, 0.8, 0.6, 0.5, 0.4], [1.0, 0.8, 0.6, 0.5, 0.4], "yes", "no"),
        ([1.0, 0.5, 0.6, 0.7, 0.8], [1.0, 0.8, 0.6, 0.5, 0.4], "no", "yes"),
        ([1.0, 0.5, 0.6, 0.7, 0.8], [1.0, 0.8, 0.9, 1.0, 1.1], "no", "no"),
        ([1.0, 0.5, 0.5, 0.5, 0.5], [1.0, 0.8, 0.6, 0.5, 0.4], "no", "no"),
    ],
)
def test_curves_are_described_by_numbers(
    make_study: Any,
    some_settings: list[dict[str, Any]],
    curve: list[float],
    training: list[float],
    still: str,
    over: str,
) -> None:
    folder = study_with_curve(make_study, some_settings[0], curve, training)
    text = chapter(report_of(folder), "Learning curves")
    row = next(line for line in text.splitlines() if line.startswith("| `only`"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[9], cells[10]) == (still, over)
    assert ("Still improving at the end: `only`" in text) is (still == "yes")


def test_a_tied_arm_is_neither_passed_over_nor_called_worse(tmp_path: Path) -> None:
    from rankwise.results.from_table import read_outside

    rows = [("best", 0.60, 9e6), ("close", 0.59, 5e6), ("cheap", 0.575, 1e6)]
    rows += [(f"bad{n}", 0.1, 2e6) for n in range(12)]
    lines = "\n".join(f"{a},{s},{int(p)},1319" for a, s, p in rows)
    (tmp_path / "t.csv").write_text(f"arm,accuracy,trainable_params,test_size\n{lines}\n")
    judgement = judge_records(read_outside(tmp_path / "t.csv"))
    assert set(judgement.verdict.tie_group) == {"best", "close", "cheap"}
    assert all(judgement.verdict.distance(arm).low == 0 for arm in judgement.verdict.tie_group)
    assert judgement.choice.arm == "best"
    cheaper = judgement.choice.recommendation.cheaper
    assert cheaper is not None
    assert cheaper.arm == "cheap"


def test_a_tolerance_turns_a_tie_into_the_cheapest_that_is_as_good(make_study: Any) -> None:
    spec = {"objective": {"metric": "eval_loss", "cost": "trainable_params", "tolerance": "20%"}}
    folder = make_study(spec=spec, examples=200)
    with Store(folder) as store:
        judgement = judge_records(read_records(store))
    verdict, choice = judgement.verdict, judgement.choice
    best = min(arm.fitted for arm in verdict.arms if arm.fitted is not None)
    assert verdict.tolerance == pytest.approx(0.2 * best)
    cost = {a.name: a.costs["trainable_params"].value for a in judgement.records.arms}
    assert choice.basis == "within"
    equal = [arm.arm for arm in verdict.arms if arm.equal]
    assert cost[str(choice.arm)] == min(cost[arm] for arm in equal)
    text = report_of(folder)
    assert "trainable parameters of the configurations shown to be within 0.1" in text
    assert ", within tolerance |" in text
    assert "tolerance: 20%" in text
