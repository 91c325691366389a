"""Tiny studies of text: a tokenizer trained on a line, a random model of its vocabulary, files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tiny import CONFIGS, TARGETS, TASKS

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANIMALS = ("cat", "dog", "hen", "cow", "pig", "bee", "ant", "fox", "owl", "eel", "ram", "yak")
PLACES = ("mat", "hill", "road", "barn", "lake", "tree", "farm", "rock", "bank", "nest")
VOCABULARY = 300


def tiny_tokenizer(ends: bool = False, special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `VOCABULARY` tokens; with `ends` it closes every text as T5's does."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([sentence(a, p) for a in ANIMALS for p in PLACES], trainer)
    if ends:
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", chat_template=CHAT
    )


def sentence(animal: str, place: str) -> str:
    """A line of the tiny language."""
    return f"where is the {animal}? the {animal} sits on the {place}."


def rows_of(shape: str, count: int = 60) -> list[dict[str, Any]]:
    """Rows of one shape of data, all of them different."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        animal = ANIMALS[number % len(ANIMALS)]
        place = PLACES[(number // len(ANIMALS) + number) % len(PLACES)]
        question = f"{number}: where is the {animal}?"
        answer = f" the {animal} sits on the {place}."
        rows.append(
            {
                "text": {"text": f"{number}: {sentence(animal, place)}"},
                "pairs": {"prompt": question, "completion": answer},
                "chat": {
                    "messages": [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                },
                "translation": {"input": question, "target": answer},
                "labelled": {
                    "text": f"{number}: {sentence(animal, place)}",
                    "label": ("fur", "wings", "scales")[number % 3],
                },
            }[shape]
        )
    return rows


def tiny_spec(folder: Path, kind: str, shape: str, **more: Any) -> dict[str, Any]:
    """The spec of a study of random weights on tiny rows, written with them to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(shape)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tiny_tokenizer(ends=kind == "t5").save_pretrained(folder / "tokenizer")
    config = {**CONFIGS[kind], "vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2}
    return {
        "study": "tiny",
        "model": {
            "config": {"model_type": kind, "bos_token_id": 1, **config},
            "tokenizer": str(folder / "tokenizer"),
            "dtype": "float32",
            "attn_implementation": "eager",
        },
        "task": TASKS[kind],
        "data": {
            "source": str(folder / "rows.jsonl"),
            "split": {"validation": 12, "test": 8},
            "max_length": 48,
            "near_duplicates": 0,
            **{name: name for name in rows[0]},
        },
        "training": {
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "eval_steps": 2,
        },
        "lora": {"r": 4, "target_modules": list(TARGETS[kind])},
        "check_export": False,  # tests of it turn it on
        **more,
    }
