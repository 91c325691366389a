"""Random combinations of model, tokenizer, data and settings: a study is exact or is refused.

`RANKWISE_RANDOM_CASES=2000 .venv/bin/python -m pytest -n0 tests/test_random_combinations.py` tries
more of them than `make test` does. The case that failed is printed last.
"""

import os
import random
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch.nn import functional as F

from random_models import make_tokenizer
from random_studies import Combination, draw_combination, write_study
from rankwise.cli.app import look
from rankwise.errors import UserError
from rankwise.spec.arms import Run
from rankwise.store.reader import Reader
from rankwise.study.outlook import run_states
from rankwise.study.run import run_study
from tiny import CLASSES

CASES = int(os.environ.get("RANKWISE_RANDOM_CASES", "20"))
SKIPPED = {  # they take half of the time: a measurement, and what is compared here another way
    "product_peak": lambda *_: 1e11,
    "check_adapters": lambda *_: (),
}


def loaded(case: Combination, base: Path) -> Any:
    """The base as a user of transformers loads it."""
    classes = {"num_labels": len(case.labels)} if case.labels else {}
    model = CLASSES[case.checkpoint.task].from_pretrained(
        base,
        dtype=torch.float32,
        attn_implementation="eager",
        ignore_mismatched_sizes=True,
        **classes,
    )
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        tokenizer = make_tokenizer(case.marks)
        given = tokenizer.pad_token_id
        config.pad_token_id = tokenizer.eos_token_id if given is None else given
    return model.eval()


def shift(model: Any) -> Any:
    """What makes a decoder's input of its targets, as transformers' collator calls it."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner.prepare_decoder_input_ids_from_labels


@torch.no_grad()
def losses(model: Any, task: str, examples: Any) -> np.ndarray:
    """Sum of the losses of every row (E,), each row alone and without padding."""
    found = []
    for example in examples:
        ids = torch.tensor(example.input_ids).long()[None]
        labels = torch.tensor(np.atleast_1d(example.labels)).long()
        given = {}
        if task == "SEQ_2_SEQ_LM":
            given = {"decoder_input_ids": shift(model)(labels=labels[None]), "use_cache": False}
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **given).logits
        if task == "CAUSAL_LM":
            logits, labels = logits[:, :-1], labels[1:]
        logits = logits.reshape(len(labels), -1)
        found.append(float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")))
    return np.array(found)


def check(case: Combination, shelf: Path, folder: Path) -> str:
    """What became of a study: refused, or exact; anything else fails."""
    spec = write_study(case, shelf, folder)
    try:
        plan = look(spec, None)
    except UserError as error:
        return refused(error)
    check_labels(case, plan)
    try:
        for _ in run_study(plan, folder / "study"):
            pass
    except UserError as error:
        # A plan loads no weights. What is found with them alone must be found before training.
        with Reader(folder / "study") as store:
            assert {record.state for record in store.runs()} <= {"planned"}
        return refused(error)
    with Reader(folder / "study") as store:
        states = run_states(store)
        count = store.examples("validation").weights.sum()
        for run in plan.runs:
            record = states[run.arm.training_id, run.seed]
            assert record.state == "done", record.failure
            stored = store.evaluation_at(record.id, record.best_step).metrics["eval_loss"]
            found = reloaded(case, plan, run, folder / "study/adapters" / record.folder) / count
            assert found == pytest.approx(stored, rel=2e-5), f"{stored} stored, {found} reloaded"
    return "exact"


def refused(error: UserError) -> str:
    """A refusal is one message for a user."""
    assert str(error).strip()
    assert "Traceback" not in str(error)
    return f"refused: {error}"


def check_labels(case: Combination, plan: Any) -> None:
    """Where a checkpoint knows the classes of the data, they keep its order."""
    known = [name.lower() for name in case.checkpoint.classes]
    names = [name.lower() for name in plan.data.label_names or ()]
    if case.checkpoint.saved == "whole" and set(known) == set(names):
        assert names == known


def reloaded(case: Combination, plan: Any, run: Run, adapter: Path) -> float:
    """Sum of the losses of the validation part, by plain transformers and peft."""
    base = loaded(case, Path(plan.spec.model.name))
    examples, task = plan.data.validation, case.checkpoint.task
    before = losses(base, task, examples)
    if run.arm.method == "full":
        model = loaded(case, adapter)
    else:
        model = PeftModel.from_pretrained(base, adapter).eval()
    after = losses(model, task, examples)
    assert np.abs(after - before).max() > 1e-4, "what is reloaded is the untrained base"
    return float(after.sum())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.filterwarnings("ignore")  # of the code of the models, which is not this project's
@given(dice=st.randoms(use_true_random=True))
@settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_a_random_study_is_exact_or_refused(dice: random.Random, shelf: Path) -> None:
    """What is stored is what plain transformers and peft find; or the plan says why not."""
    case = draw_combination(dice)
    note(repr(case))
    folder = shelf / "study"
    shutil.rmtree(folder, ignore_errors=True)
    with mock.patch.multiple("rankwise.study.run", **SKIPPED):
        check(case, shelf, folder)
