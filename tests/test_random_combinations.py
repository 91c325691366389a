"""Random combinations of model, tokenizer, data and settings: a study is exact or is refused.

`RANKWISE_RANDOM_CASES=2000 .venv/bin/python -m pytest tests/test_random_combinations.py` tries more
of them than `make test` does.
"""

import json
import os
import random
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from random_models import (
    FAMILIES,
    POSITIONS,
    VOCABULARY,
    Checkpoint,
    Marks,
    make_tokenizer,
    save_checkpoint,
)
from rankwise.cli.app import look
from rankwise.errors import UserError
from rankwise.spec.arms import Run
from rankwise.store.reader import Reader
from rankwise.study.run import run_states, run_study
from tiny import CLASSES
from tiny_text import rows_of

CASES = int(os.environ.get("RANKWISE_RANDOM_CASES", "50"))
SHAPES = {
    "CAUSAL_LM": ("pairs", "pairs", "text", "chat"),
    "SEQ_CLS": ("labelled",),
    "SEQ_2_SEQ_LM": ("translation",),
}
ROWS = 24
NAMES = "names"  # targets or modules that are drawn by their number among those of the model
LABELS = (("fur", "wings", "scales"), (0, 1, 2), (False, True), ("yes", "no"), (0.5, 1.5, 2.0))
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"lora.bias": "all"},
    {"lora.bias": "lora_only"},
    {"lora.use_dora": True},
    {"lora.use_rslora": True},
    {"lora.use_rslora": True, "lora.use_dora": True, "lora.bias": "lora_only"},
    {"lora.init_lora_weights": "pissa"},
    {"lora.init_lora_weights": "olora"},
    {"lora.init_lora_weights": False},
    {"lora.rank_pattern": NAMES},
    {"lora.alpha_pattern": NAMES},
    {"lora.modules_to_save": NAMES},
    {"lora.modules_to_save": NAMES, "lora.bias": "all"},
    {"lora.exclude_modules": NAMES},
    {"lora.layers_to_transform": [1]},
    {"lora.lora_dropout": 0.2},
    {"ranks.strategy": "linear_decay"},
    {"ranks.strategy": "empirical"},
    {"training.gradient_accumulation_steps": 2},
    {"training.loraplus_lr_ratio": 4.0},
    {"method": "full"},
)
TARGETS = ("all-linear", "attention", "attention", "mlp", "attention-qkv", NAMES)


@dataclass(frozen=True)
class Combination:
    """One study; `changes` are the settings of its configurations, `numbers` stand for names."""

    checkpoint: Checkpoint
    marks: Marks
    shape: str
    changes: tuple[dict[str, Any], ...]
    labels: tuple[Any, ...] = ()
    long: bool = False
    max_length: int = 48
    numbers: tuple[int, ...] = (0, 0)
    attention: str = "eager"
    generation: dict[str, Any] = field(default_factory=dict)


def draw_combination(dice: random.Random) -> Combination:
    """A study of any kind: most of what is drawn is ordinary, so that much of it runs."""

    def mostly(usual: Any, *odd: Any) -> Any:
        return usual if dice.random() < 0.8 else dice.choice(odd)

    task = dice.choice(tuple(FAMILIES))
    kind = dice.choice(tuple(FAMILIES[task]))
    labels = mostly(LABELS[0], *LABELS[1:]) if task == "SEQ_CLS" else ()
    names = tuple(map(str, labels))
    classes = dice.choice((names, names[::-1], ("a", "b", "c"), ("a", "b"))) if labels else ()
    masked = task == "SEQ_CLS" and kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    swapped = FAMILIES[task][kind].get("pad_token_id") == 1
    closed = task == "SEQ_2_SEQ_LM"
    generation = {"prompts_from_validation": 2, "max_new_tokens": 3}
    return Combination(
        Checkpoint(
            task,
            kind,
            mostly("whole", "bare", *["masked"] * masked),
            mostly(VOCABULARY, VOCABULARY + 20, VOCABULARY - 20, VOCABULARY - 1),
            mostly(None, True, False),
            classes,
            mostly(True, False),
        ),
        Marks(
            pad=mostly(True, False),
            eos=mostly(True, False),
            bos=dice.random() < 0.5,
            template=mostly(True, False),
            begins=mostly(False, True),
            ends=mostly(closed, not closed),
            swapped=mostly(swapped, not swapped),
        ),
        dice.choice(SHAPES[task]),
        tuple(
            {"lora.target_modules": dice.choice(TARGETS), **dice.choice(CHANGES)}
            for _ in range(dice.choice((1, 1, 2)))
        ),
        labels,
        mostly(False, True),
        mostly(48, 8, POSITIONS - 2, POSITIONS, POSITIONS + 1),
        (dice.randrange(100), dice.randrange(100)),
        mostly("eager", "sdpa", "auto"),
        {} if task == "SEQ_CLS" else mostly({}, generation),
    )


def write(case: Combination, shelf: Path, folder: Path) -> Path:
    """Write model, tokenizer, rows and spec; models and tokenizers stay on the shelf for others."""
    model, tokenizer = shelf / key_of(case.checkpoint), shelf / key_of(case.marks)
    if not model.exists():
        save_checkpoint(case.checkpoint, model)
    if not tokenizer.exists():
        make_tokenizer(case.marks).save_pretrained(tokenizer)
    rows = rows_of(case.shape, ROWS)
    for number, row in enumerate(rows):
        if case.labels:
            row["label"] = case.labels[number % len(case.labels)]
        for column in ("text", "prompt", "input"):
            if case.long and column in row:
                row[column] += " and so on" * 40
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    spec: dict[str, Any] = {
        "study": "random",
        "model": {
            "name": str(model),
            "tokenizer": str(tokenizer),
            "dtype": "float32",
            "attn_implementation": case.attention,
        },
        "task": case.checkpoint.task,
        "data": {
            "source": str(folder / "rows.jsonl"),
            "split": {"validation": 6, "test": 0},
            "max_length": case.max_length,
            "near_duplicates": 0,
            **{name: name for name in rows[0]},
        },
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.02,
            "eval_steps": 3,
        },
        "lora": {"r": 4, "lora_alpha": 8},
        "configs": named(case, model),
    }
    if case.generation:
        spec["generation"] = case.generation
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder / "spec.yaml"


def key_of(value: Any) -> str:
    """A folder's name for a value, the same in every process."""
    return f"{zlib.crc32(repr(value).encode()):08x}"


def named(case: Combination, model: Path) -> list[dict[str, Any]]:
    """The configurations, with the names of modules for the numbers that were drawn."""
    with torch.device("meta"):
        structure = CLASSES[case.checkpoint.task].from_config(
            transformers.AutoConfig.from_pretrained(model)
        )
    kinds = (nn.Linear, transformers.pytorch_utils.Conv1D)
    linear = [name for name, one in structure.named_modules() if isinstance(one, kinds)]
    every = [name for name, one in structure.named_modules() if [*one.parameters(False)]]
    some = [linear[number % len(linear)].split(".")[-1] for number in case.numbers]
    given = {
        "lora.target_modules": some,
        "lora.rank_pattern": {some[0]: 2},
        "lora.alpha_pattern": {some[0]: 3.0},
        "lora.exclude_modules": some[:1],
        "lora.modules_to_save": [every[case.numbers[1] % len(every)].split(".")[-1]],
    }
    return [
        {
            "name": f"c{number}",
            **{
                key: given[key] if value == NAMES else value
                for key, value in change.items()
                if not (key.startswith("lora.") and change.get("method") == "full")
            },
        }
        for number, change in enumerate(case.changes)
    ]


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
        ids = torch.tensor(example.input_ids)[None]
        labels = torch.tensor(np.atleast_1d(example.labels))
        given = {}
        if task == "SEQ_2_SEQ_LM":
            given["decoder_input_ids"] = shift(model)(labels=labels[None])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **given).logits
        if task == "CAUSAL_LM":
            logits, labels = logits[:, :-1], labels[1:]
        logits = logits.reshape(len(labels), -1)
        found.append(float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")))
    return np.array(found)


def check(case: Combination, shelf: Path, folder: Path) -> str:
    """What became of a study: refused, or exact; anything else fails."""
    spec = write(case, shelf, folder)
    try:
        plan = look(spec, None)
    except UserError as error:
        return refused(error)
    check_labels(case, plan)
    try:
        for _ in run_study(plan, folder / "study"):
            pass
    except UserError as error:
        # A plan loads no weights: that an adapter is another one when reloaded is found with them.
        if "Nothing was trained" not in str(error):
            raise AssertionError(f"refused, but not by the plan: {error}") from error
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
@given(case=st.randoms(use_true_random=True).map(draw_combination))
@settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_a_random_study_is_exact_or_refused(case: Combination, shelf: Path) -> None:
    """What is stored is what plain transformers and peft find; or the plan says why not."""
    folder = shelf / "study"
    shutil.rmtree(folder, ignore_errors=True)
    with mock.patch("rankwise.study.run.product_peak", return_value=1e11):  # it takes 0.2 s
        check(case, shelf, folder)
