"""Small real tokenizers, trained in milliseconds on a line of text; no download."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[CLS]", "[SEP]"]
CORPUS = ["the cat sat on the mat and the dog ran after the cat", "Tell me a joke about the dog"]


def make_tokenizer(around: str | None = None, **more: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; `around` is a template such as '<s> $A' for special tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    if around is not None:
        inner.post_processor = processors.TemplateProcessing(
            single=around,
            special_tokens=[(mark, SPECIAL.index(mark)) for mark in SPECIAL if mark in around],
        )
    names = {"pad_token": "<pad>", "eos_token": "</s>", **more}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(scope="session")
def tokenizer_with() -> Callable[..., PreTrainedTokenizerFast]:
    """Makes a tokenizer of one's own, as `make_tokenizer` does."""
    return make_tokenizer


@pytest.fixture(scope="session")
def gpt_tokenizer() -> PreTrainedTokenizerFast:
    """Adds nothing of its own, as GPT-2's."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Starts every text with <s>, as Llama's."""
    return make_tokenizer("<s> $A", bos_token="<s>")


@pytest.fixture(scope="session")
def bert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] before, [SEP] after."""
    return make_tokenizer("[CLS] $A [SEP]")


@pytest.fixture(scope="session")
def t5_tokenizer() -> PreTrainedTokenizerFast:
    """</s> after, as T5's."""
    return make_tokenizer("$A </s>")


@pytest.fixture(scope="session")
def endless_tokenizer() -> PreTrainedTokenizerFast:
    """Has no end-of-text token."""
    return make_tokenizer(eos_token=None)


@pytest.fixture
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(eos_token="<|im_end|>", chat_template=CHATML)


@pytest.fixture
def marked_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(eos_token="<|im_end|>", chat_template=MARKED)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes | list[dict[str, Any]]], Path]:
    """Write a file under tmp_path, compressed if its name says so; rows become JSON lines."""

    def write_file(name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        if isinstance(content, str):
            content = content.encode()
        packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
        path = tmp_path / name
        path.write_bytes(packed.get(path.suffix, bytes)(content))
        return path

    return write_file
