"""Random combinations of model, tokenizer, data and settings, written as studies."""

import json
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from torch import nn
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
from tiny import CLASSES
from tiny_text import rows_of

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


def write_study(case: Combination, shelf: Path, folder: Path) -> Path:
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
