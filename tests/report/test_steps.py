"""The report says at which steps runs are read, and why two numbers of one curve differ."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankwise.report.compare import compare_arms
from rankwise.report.document import to_markdown
from rankwise.report.write import tell, write_runs_csv
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.results.records import Records
from rankwise.store.writer import Store
from stored import RECORD

NAMES = ("steady", "volatile")
EXAMPLES, SEEDS = 120, (0, 1, 2)


def written(
    folder: Path,
    metric: str = "eval_loss",
    groups: int = EXAMPLES,
    evaluations: int = 6,
    noise: Callable[[str], float] = lambda name: 1.5 if name == "volatile" else 0.5,
) -> Path:
    """A study of two equal configurations whose evaluations differ by chance alone."""
    rng = np.random.default_rng(5)
    hard_E = rng.gamma(1.0, 1.0, EXAMPLES)
    with Store(folder, create=True) as store:
        spec = {"study": "s", "objective": {"metric": metric}, "seeds": list(SEEDS)}
        store.begin_study(replace(RECORD, spec=spec))
        hashes = [str(e) for e in range(EXAMPLES)]
        groups_E = np.arange(EXAMPLES) % groups
        store.save_examples("validation", hashes, groups_E, np.ones(EXAMPLES))
        for number, name in enumerate(NAMES):
            training = store.add_training(f"t{number}")
            store.add_config(f"c{number}", training, name, {"lora.r": number})
            for seed in SEEDS:
                run, every = store.add_run(training, seed), []
                shape = (evaluations, EXAMPLES)
                for t, losses_E in enumerate(hard_E + noise(name) * rng.normal(0, 1, shape)):
                    every.append((float(losses_E.mean()), 10 * (t + 1)))
                    values = {"eval_loss": every[-1][0], "eval_macro_f1": -every[-1][0]}
                    store.save_evaluation(run, 10 * (t + 1), "validation", losses_E, None, values)
                store.set_best(run, min(every)[1])
                store.set_state(run, "done")
    return folder


def records_of(folder: Path) -> Records:
    with Store(folder) as store:
        return read_records(store)


def chapters_of(records: Records) -> dict[str, str]:
    parts = to_markdown(tell(judge_records(records))).split("\n## ")
    return {part.partition("\n")[0]: part for part in parts}


def row_of(chapter: str, name: str, at: int = 0) -> list[str]:
    """The cells of a configuration's row in the table of a chapter."""
    rows = [line for line in chapter.splitlines() if line.startswith("|") and f"`{name}`" in line]
    return [cell.strip() for cell in rows[at].strip("|").split("|")]


def head_of(chapter: str) -> list[str]:
    line = next(line for line in chapter.splitlines() if line.startswith("|"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_curves_have_the_number_of_the_ranking_and_say_why_their_own_best_differs(
    tmp_path: Path,
) -> None:
    found = chapters_of(records_of(written(tmp_path / "s")))
    ranking, curves = found["Ranking"], found["Learning curves"]
    for name in NAMES:
        ranked = row_of(ranking, name)[head_of(ranking).index("validation loss")]
        cells = row_of(curves, name)
        assert cells[head_of(curves).index("ranked")] == ranked
        assert cells[head_of(curves).index("best")] != ranked
    assert "Each part is read at the step that is best on the other parts" in curves
    assert "the best value of the mean curve, at one step for all seeds" in curves
    assert "chosen on other validation examples" in ranking


def test_what_choosing_on_the_same_examples_would_have_shown_is_said_in_numbers(
    tmp_path: Path,
) -> None:
    records = records_of(written(tmp_path / "s"))
    curves = chapters_of(records)["Learning curves"]
    gains = {
        arm.name: np.mean(
            [(run.value or 0) - run.validation["eval_loss"] for run in records.runs_of(arm.name)]
        )
        for arm in records.arms
    }
    digits = judge_records(records).digits + 1
    assert gains["volatile"] > gains["steady"] > 0
    assert f"by up to {gains['volatile']:.{digits}f} (`volatile`)" in curves
    assert f"by {np.mean(list(gains.values())):.{digits}f} on average" in curves


def test_where_all_parts_have_one_step_it_is_said_that_nothing_changes(tmp_path: Path) -> None:
    records = records_of(written(tmp_path / "s", noise=lambda name: 0.0))
    assert "Here it changes nothing" in chapters_of(records)["Learning curves"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"metric": "eval_macro_f1"}, "macro F1 is not kept example by example"),
        ({"groups": 1}, "all validation examples form one group"),
    ],
)
def test_where_steps_are_chosen_on_the_examples_that_rank_the_ranking_warns(
    tmp_path: Path, options: dict[str, object], why: str
) -> None:
    found = chapters_of(records_of(written(tmp_path / "s", **options)))
    ranking = found["Ranking"]
    assert "at its best step, chosen on the same validation examples" in ranking
    assert why in ranking
    assert "looks better than it is" in ranking
    assert "chosen on the same validation examples" in found["Learning curves"]


def test_with_one_evaluation_there_was_nothing_to_choose(tmp_path: Path) -> None:
    text = to_markdown(tell(judge_records(records_of(written(tmp_path / "s", evaluations=1)))))
    assert "each run at its only evaluation" in text
    assert "looks better than it is" not in text


def test_the_table_of_runs_has_the_exported_and_the_ranked_value(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    with Store(folder) as store:
        records = read_records(store)
        write_runs_csv(store, records, tmp_path / "runs.csv")
    head, *rows = (tmp_path / "runs.csv").read_text().splitlines()
    for run, row in zip(records.runs, rows, strict=True):
        cells = dict(zip(head.split(","), row.split(","), strict=True))
        assert float(cells["best_eval_loss"]) == run.validation["eval_loss"]
        assert float(cells["ranked_eval_loss"]) == run.value
        assert cells["ranked_eval_macro_f1"] == cells["best_eval_macro_f1"]


def test_a_comparison_of_two_has_the_ranked_values_and_says_where_they_are_read(
    tmp_path: Path,
) -> None:
    folder = written(tmp_path / "s")
    text, facts = compare_arms(folder, *NAMES)
    arms = {arm.name: arm for arm in records_of(folder).arms}
    for one in facts["metrics"]:
        found = [one["first"], one["second"]]
        assert found == pytest.approx([arms[name].validation[one["metric"]] for name in NAMES])
    assert "where a metric is kept example by example, else at its best step" in text
