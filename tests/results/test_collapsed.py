"""Configurations that learned nothing or lost it again are set aside from effects, and named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.scores import Scores
from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.collapsed import collapsed_arms, without
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.results.records import Records
from rankwise.store.reader import Reader

ONE_CLASS = {"eval_accuracy": 0.5, "eval_macro_f1": 1 / 3, "eval_matthews": 0.0, "eval_loss": 0.7}
RISES = ((40, 0.5), (80, 0.4), (120, 0.9))


@pytest.fixture
def records(plain_study: Path) -> Records:
    with Reader(plain_study) as store:
        return read_records(store)


def with_runs(records: Records, names: tuple[str, ...], **changes: Any) -> Records:
    """The same records with these facts of the runs named."""
    runs = tuple(replace(run, **changes) if run.id in names else run for run in records.runs)
    return replace(records, runs=runs)


def test_a_constant_prediction_in_half_of_the_runs_sets_an_arm_aside(records: Records) -> None:
    assert collapsed_arms(records) == {}
    half = with_runs(records, ("r4_lr0.005_q/seed-0",), validation=ONE_CLASS)
    assert collapsed_arms(half) == {"r4_lr0.005_q": "learned nothing"}


def test_one_of_three_runs_is_no_collapse(make_study: Any) -> None:
    with Reader(make_study(seeds=(0, 1, 2), examples=60)) as store:
        records = read_records(store)
    one = with_runs(records, ("r4_lr0.005_q/seed-0",), validation=ONE_CLASS)
    assert collapsed_arms(one) == {}


def test_an_arm_no_better_than_the_untrained_base_learned_nothing(records: Records) -> None:
    worst = max((run for run in records.runs if run.finished), key=lambda run: run.value or 0.0)
    base = {"eval_loss": (worst.value or 0.0) - 1e-6}
    known = replace(records, study=records.study | {"base_metrics": base})
    assert set(collapsed_arms(known).values()) == {"learned nothing"}
    assert worst.arm in collapsed_arms(known)


def test_a_late_divergence_is_told_from_overfitting_by_the_training_loss(records: Records) -> None:
    arm = ("r16_lr0.001_q/seed-0", "r16_lr0.001_q/seed-1")
    falling = tuple((step, 1.0 - step / 200) for step in range(0, 121, 10))
    rising = tuple((step, 0.5 + max(step - 80, 0) / 50) for step in range(0, 121, 10))
    diverged = with_runs(records, arm, curve=RISES, train_curve=rising)
    overfitted = with_runs(records, arm, curve=RISES, train_curve=falling)
    assert collapsed_arms(diverged) == {"r16_lr0.001_q": "diverged late"}
    assert collapsed_arms(overfitted) == {}


def test_the_report_names_what_is_set_aside_and_the_ranking_keeps_it(records: Records) -> None:
    arm = "r16_lr0.001_qv"
    runs = (f"{arm}/seed-0", f"{arm}/seed-1")
    judgement = judge_records(with_runs(records, runs, validation=ONE_CLASS))
    assert judgement.effects is not None
    assert judgement.effects.collapsed == (arm,)
    pairs = [p for f in judgement.effects.factors for d in f.differences for p in d.pairs]
    assert pairs
    assert not any(arm in pair for pair in pairs)
    assert arm in judgement.verdict.pairs.arms
    text = to_markdown(tell(judgement))
    assert f"Set aside: `{arm}`, whose runs learned nothing." in text
    assert "7 of 8 combinations of these settings, so the values assume" in text


def test_nothing_is_set_aside_where_fewer_than_two_arms_would_be_left() -> None:
    scores = Scores("eval_loss", ("a", "b", "c"), (0, 1), x_AS=np.arange(6.0).reshape(3, 2))
    assert without(scores, {"a": "learned nothing", "b": "learned nothing"}) is scores
    assert without(scores, dict.fromkeys(scores.arms, "learned nothing")) is scores
    assert without(scores, {"a": "learned nothing"}).arms == ("b", "c")
