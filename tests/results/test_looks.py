"""Looking again is paid for: looks are noted with the study, and later ones may use less."""

from dataclasses import replace
from typing import Any

import pytest

from rankwise.cli.status import print_status, status_facts
from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.results.looks import KIND, is_declared, look_number, look_to_note, share
from rankwise.results.records import Records
from rankwise.store.schema import Fact
from rankwise.store.writer import Store


@pytest.fixture
def records(make_study: Any, some_settings: list[dict[str, Any]]) -> Records:
    def truth(settings: dict[str, Any]) -> float:
        return 0.3 if settings["lora.r"] > 4 else 0.6

    arms = [("small", some_settings[0]), ("large", some_settings[-1])]
    folder = make_study(arms=arms, truth=truth, seeds=(0, 1, 2), examples=200)
    with Store(folder) as store:
        return read_records(store)


def noted(records: Records) -> Records:
    look = look_to_note(records)
    return records if look is None else replace(records, notes=(*records.notes, Fact(KIND, look)))


def with_seeds(records: Records, seeds: int) -> Records:
    """The records of the first seeds alone."""
    runs = tuple(run for run in records.runs if run.seed < seeds)
    assert records.x_ASE is not None
    return replace(
        records,
        runs=runs,
        seeds=records.seeds[:seeds],
        x_AS=records.x_AS[:, :seeds],
        x_ASE=records.x_ASE[:, :seeds],
    )


def test_the_levels_of_all_looks_after_the_first_add_up_to_less_than_a_third() -> None:
    assert share(1) == 1
    assert sum(share(look) for look in range(2, 10_000)) < 1 / 3


def test_the_same_results_read_again_are_the_same_look(records: Records) -> None:
    assert look_number(records) == 1
    once = noted(records)
    assert look_number(once) == 1
    assert noted(once) is once


def test_one_seed_declares_no_winner_and_so_is_no_look(records: Records) -> None:
    assert look_to_note(with_seeds(records, 1)) is None


def test_more_seeds_are_another_look_with_less_of_the_level(records: Records) -> None:
    before = noted(with_seeds(records, 2))
    now = noted(replace(records, notes=before.notes))
    assert look_number(now) == 2
    alone, again = judge_records(records).verdict, judge_records(now).verdict
    assert again.share == share(2) == 0.125
    assert again.distances[1].p == pytest.approx(min(1, alone.distances[1].p / 0.125))
    assert again.distances[1].high > alone.distances[1].high
    text = to_markdown(tell(judge_records(now)))
    assert "This study was judged before, with fewer runs." in text
    assert "look 2 at the results, of 6 finished runs" in text
    assert "was judged before" not in to_markdown(tell(judge_records(records)))


def test_while_runs_are_missing_nothing_is_declared_and_nothing_is_spent(records: Records) -> None:
    assert judge_records(records).verdict.winner == "large"
    runs = tuple(
        replace(run, state="interrupted", value=None) if run.id == "small/seed-2" else run
        for run in records.runs
    )
    assert records.x_ASE is not None
    x_ASE = records.x_ASE.copy()
    x_ASE[[arm.name for arm in records.arms].index("small"), 2] = float("nan")
    half = replace(records, runs=runs, x_ASE=x_ASE)
    assert not is_declared(half)
    verdict = judge_records(half).verdict
    assert verdict.tie_group == ("large",)
    assert verdict.winner is None
    assert "no winner is declared while runs are missing" in to_markdown(tell(judge_records(half)))
    # Unless `rankwise run` itself has ended there, as its budget was spent.
    assert judge_records(noted(half)).verdict.winner == "large"


def test_status_says_so_far_while_runs_are_missing(
    make_study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(examples=40)
    print_status(status_facts(folder))
    assert "\nUse " in capsys.readouterr().out
    with Store(folder) as store:
        store.restart_run(store.runs()[0].id)
    facts = status_facts(folder)
    print_status(facts)
    said = capsys.readouterr().out
    assert not facts["declared"]
    assert "\nSo far " in said
    assert "\nUse " not in said
