"""Cohorts: which runs share a base."""

import pytest

from rankwise.spec.arms import Run, make_arms
from rankwise.spec.models import StudySpec
from rankwise.study.cohorts import cohorts_of


def runs_of(seeds=(0, 1), **parts):
    spec = StudySpec.model_validate(
        {
            "study": "s",
            "model": {"name": "m"},
            "task": "CAUSAL_LM",
            "data": {"source": "x.txt", "text": "text"},
        }
        | parts
    )
    return [Run(arm, seed) for arm in make_arms(spec) for seed in seeds]


def test_a_run_is_named_after_its_arm_and_seed():
    assert runs_of()[1].id == "r8_a8/seed-1"


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 12, 16, 99])
def test_every_run_is_in_one_cohort_and_no_cohort_is_larger_than_memory(most):
    runs = runs_of(grid={"lora.r": list(range(1, 9))})
    cohorts = cohorts_of(runs, lambda some: most)
    assert sorted(r.id for c in cohorts for r in c) == sorted(r.id for r in runs)
    sizes = [len(c) for c in cohorts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-16 // most)


def test_runs_of_one_seed_come_together():
    cohorts = cohorts_of(runs_of(grid={"lora.r": list(range(1, 9))}), lambda some: 8)
    assert [{r.seed for r in c} for c in cohorts] == [{0}, {1}]


@pytest.mark.parametrize(
    ("key", "values"),
    [("training.per_device_train_batch_size", [4, 8]), ("lora.use_dora", [True, False]),
     ("model.quantization", ["none", "nf4"])],
)  # fmt: skip
def test_runs_without_a_common_base_or_batch_are_apart(key, values):
    cohorts = cohorts_of(runs_of(grid={key: values, "lora.r": [2, 4]}), lambda some: 99)
    assert [len(c) for c in cohorts] == [4, 4]
    assert all(len({r.arm.settings[key] for r in c}) == 1 for c in cohorts)


def test_full_fine_tuning_trains_alone():
    runs = runs_of(grid={"lora.r": [2, 4]}, configs=[{"method": "full"}])
    cohorts = cohorts_of(runs, lambda some: 99)
    assert sorted(len(c) for c in cohorts) == [1, 1, 4]


def test_large_runs_make_smaller_cohorts():
    runs = runs_of(seeds=(0,), grid={"lora.r": [64, 64 + 1, 1, 2, 3, 4]})

    def fits(some):  # as many as fit in 70 ranks, from the first on
        total = 0
        for count, run in enumerate(some):
            total += run.arm.lora.r
            if total > 70:
                return count
        return len(some)

    cohorts = cohorts_of(runs, fits)
    assert all(sum(r.arm.lora.r for r in c) <= 70 for c in cohorts)
    assert sum(len(c) for c in cohorts) == 6


def test_a_run_that_fits_nowhere_still_gets_its_cohort():
    assert [len(c) for c in cohorts_of(runs_of(), lambda some: 0)] == [1, 1]
