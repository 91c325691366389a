"""Why runs end without a result."""

import math

import pytest

from rankwise.analysis.curves import Ending, StepRecord, diagnose
from rankwise.report.remarks import explained


def steps(norms, losses=None, rate=1e-3):
    losses = losses or [2.0 - 0.01 * n for n in range(len(norms))]
    return tuple(
        StepRecord(n, loss, norm, rate)
        for n, (norm, loss) in enumerate(zip(norms, losses, strict=True), start=1)
    )


def why(ending):
    """The diagnosis of a run in words."""
    return explained(diagnose(ending))


def test_rising_gradients_are_an_explosion_and_the_remedy_names_a_lower_rate():
    found = why(Ending("diverged", steps=steps([1, 1, 2, 5, 20, 90, math.inf])))
    assert "exploded" in found.cause
    assert found.bad_step == 7
    assert "0.0003" in found.remedy
    assert "max_grad_norm" in found.remedy
    assert found.certain


def test_a_bad_first_step_is_not_blamed_on_the_learning_rate():
    found = why(Ending("diverged", steps=steps([math.nan], [math.nan])))
    assert "The first step was not finite" in found.cause
    assert "a lower learning rate cannot help" in found.remedy
    same = why(Ending("diverged", message="loss not finite at step 1", bad_step=1))
    assert same.cause == found.cause
    assert same.bad_step == 1


def test_a_spike_points_at_its_batch():
    run = steps([1, 1.1, 0.9, 1, 1.2, 0.8, 60, math.nan])
    found = why(Ending("diverged", steps=run))
    assert "One batch" in found.cause
    assert "that batch" in found.remedy
    assert not found.certain


def test_a_sudden_end_in_float16_is_taken_for_overflow():
    run = steps([1, 1.1, 0.9, 1, 1.1, math.inf])
    assert "float16" in why(Ending("diverged", steps=run, dtype="float16")).cause
    assert "without a sign" in why(Ending("diverged", steps=run, dtype="float32")).cause


@pytest.mark.parametrize("bad", [True, False])
@pytest.mark.parametrize("losses", [[1.4, 2270104.0], [1.4, 1.5, 300.0], [0.01, 0.02, 40.0]])
def test_a_loss_that_leaps_is_blamed_on_the_learning_rate_whatever_comes_after(losses, bad):
    norms = [1.3] * (len(losses) - 1) + [607817408.0]
    run = steps(norms + [math.nan] * bad, losses + [math.nan] * bad, rate=1e6)
    found = why(Ending("diverged", steps=run, dtype="float32", bad_step=len(run)))
    assert found.certain
    assert "The loss rose from" in found.cause
    assert "1e+05 or less" in found.remedy
    assert "float32" not in found.remedy


def test_the_evidence_quotes_the_bad_step_and_the_norms_before_it():
    found = why(Ending("diverged", steps=steps([1, 1, 2, 5, 20, math.nan])))
    assert any("step 6" in words and "0.001" in words for words in found.evidence)
    assert any("1, 2, 5, 20" in words for words in found.evidence)


@pytest.mark.parametrize(
    ("state", "cause", "remedy"),
    [
        ("out_of_memory", "Out of memory", "gradient accumulation"),
        ("crashed", "raised an error", "message above"),
        ("pruned", "no failure", "not ranked"),
        ("stopped_early", "Early stopping", "best evaluation counts"),
        ("interrupted", "interrupted", "continues"),
    ],
)
def test_the_five_other_outcomes_are_told_apart(state, cause, remedy):
    found = why(Ending(state, "what was said", steps([1, 1]), planned=100))
    assert cause in found.cause
    assert remedy in found.remedy
    assert "what was said" in found.evidence
    assert any("2 of 100 steps" in words for words in found.evidence)


def test_a_run_in_order_has_no_failure():
    assert why(Ending("done", steps=steps([1, 1]))).cause == "No failure is recorded."
