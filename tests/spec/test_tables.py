"""The tables of metrics and tasks are complete, and nothing beside them decides what they say."""

import ast
import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import peft
import pytest
import transformers

import rankwise
from rankwise.spec.models import DataSpec
from rankwise.spec.tasks import (
    METRICS,
    TASKS,
    MetricName,
    TaskName,
    gain,
    has_classes,
    is_causal,
    lower_is_better,
    metric_of,
    title_of,
)
from rankwise.train.evaluate import Evaluation

ROOT = Path(rankwise.__file__).parent
OWN = {"spec/tasks.py", "spec/metrics.py"}
LOSSES = np.array([0.5, 1.5])
CLASSES = (np.array([0, 1]), np.array([0, 0]))
YIELDED = {
    "CAUSAL_LM": Evaluation(LOSSES, np.ones(2)),
    "SEQ_CLS": Evaluation(LOSSES, np.ones(2), *CLASSES),
    "SEQ_2_SEQ_LM": Evaluation(
        LOSSES, np.ones(2), likeness={"eval_rougeL": 0.5, "eval_chrf": 40.0}
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_yields_the_metrics_of_its_task_within_their_ranges(task: str) -> None:
    found = YIELDED[task].metrics()
    assert tuple(found) == TASKS[task].metrics
    for name, value in found.items():
        assert METRICS[name].low <= value <= METRICS[name].high


def test_a_metric_is_kept_by_example_where_an_evaluation_has_its_terms() -> None:
    kept = {name for name, metric in METRICS.items() if metric.by_example}
    assert kept == {"eval_loss", "eval_accuracy"}  # Evaluation.losses_E and .correct_E


def test_the_spec_allows_the_tasks_and_the_deciding_metrics_of_the_tables() -> None:
    assert get_args(TaskName) == tuple(TASKS)
    assert set(get_args(MetricName)) == {m.name for m in METRICS.values() if m.decides}
    for kind in TASKS.values():
        assert kind.name in peft.TaskType.__members__
        assert hasattr(transformers, kind.auto_class)
        assert {name for shape in kind.columns for name in shape} <= set(DataSpec.model_fields)
        assert "eval_loss" in kind.deciding


def test_a_metric_is_known_whatever_it_was_measured_of() -> None:
    for name in ("base_eval_accuracy", "test_accuracy", "accuracy", "eval_accuracy"):
        assert metric_of(name) is METRICS["eval_accuracy"]
    assert metric_of("merged_eval_loss") is METRICS["eval_loss"]
    assert metric_of("bleu") is None
    assert title_of("eval_macro_f1") == "validation macro F1"
    assert title_of("eval_exact_match") == "exact match"


def test_the_direction_of_an_unknown_column_is_guessed_from_its_name() -> None:
    low = {"eval_loss": True, "perplexity": True, "word_error_rate": True, "dev NLL": True}
    high = {"eval_chrf": False, "accuracy": False, "bleu": False, "eval_matthews": False}
    assert {name: lower_is_better(name) for name in low | high} == low | high


def test_a_gain_is_positive_where_the_value_is_better() -> None:
    assert gain("eval_loss", 1.0, 3.0) == 2.0
    assert gain("eval_accuracy", 0.25, 0.5) == -0.25
    assert math.isnan(gain("eval_loss", math.nan, 1.0))


def test_a_name_of_no_task_is_neither_causal_nor_a_classifier() -> None:
    assert is_causal("CAUSAL_LM")
    assert has_classes("SEQ_CLS")
    for name in ("SEQ_2_SEQ_LM", "TOKEN_CLS", None):
        assert not is_causal(name)
        assert not has_classes(name)


def decisions(source: str) -> list[str]:
    """Places where code names a task, or reads a direction off a metric's name."""
    by_name = r"""endswith\(\(?["']loss|[=!]= ["']eval_loss|["']eval_loss["'] [=!]="""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in TASKS:
            found.append(f"line {node.lineno}: {node.value}")
    for number, line in enumerate(source.splitlines(), 1):
        if re.search(by_name, line):
            found.append(f"line {number}: {line.strip()}")
    return found


def test_no_module_beside_the_tables_decides_by_the_name_of_a_task_or_a_metric() -> None:
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        if place not in OWN and not place.startswith("tasks/"):
            assert not decisions(path.read_text()), place


@pytest.mark.parametrize(
    "line",
    [
        'if task == "SEQ_CLS": pass',
        'if name in ("CAUSAL_LM", other): pass',
        'low = metric.endswith("loss")',
        'low = metric.endswith(("loss", "perplexity"))',
        'sign = 1 if metric == "eval_loss" else -1',
    ],
)
def test_a_planted_decision_is_found(line: str) -> None:
    assert decisions(line)
