"""What a configuration costs alone is measured without a trace."""

import gc

import pytest
import torch

from company import runs_of
from rankwise.train.batch import parts_of
from rankwise.train.probe import probe_cost
from tiny import tiny_cohort


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_nothing_is_kept_of_a_trial(kind, tmp_path):
    cohort, _ = tiny_cohort(kind, runs_of(kind, [{}, {"lora.r": 2}, {"lora.r": 3}]), tmp_path)
    parts = list(parts_of([cohort.validation], [0], [0], cohort.task))

    def trial() -> None:
        probe_cost(cohort.bank, 0, cohort.task, parts, 1, 0, cohort.validation, 1)

    trial()  # the first one leaves gradients
    before = tensors()
    trial()
    trial()
    assert tensors() == before
