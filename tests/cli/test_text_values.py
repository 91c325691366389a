"""Language models: losses over padded batches, answers and sampling, beside transformers."""

import numpy as np
import pytest
import torch

from black_box import START, answered, evaluated, make_study, split_of, texts, train
from tiny_text import rows_of, tiny_tokenizer

SHAPES = {"gpt2": "text", "llama": "pairs", "t5": "translation"}
PROMPTS = ["where is the cat?", "the owl sits on"]


def examples_of(kind, rows):
    return texts(rows) if SHAPES[kind] == "text" else answered(rows, kind)


def uneven(shape):
    """Rows of very different lengths, so that padding is most of some of them."""
    rows = rows_of(shape)
    for number, row in enumerate(rows):
        for column in ("text", "completion", "target"):
            if column in row and number % 3 == 0:
                row[column] = row[column][: 12 + number % 5]
    return rows


@pytest.fixture(scope="module", params=SHAPES)
def spoken(request, tmp_path_factory):
    kind = request.param
    study = make_study(
        tmp_path_factory.mktemp(kind),
        kind,
        SHAPES[kind],
        configurations={
            "start": {"training.learning_rate": START},
            "plain": {},
            "accumulated": {"training.gradient_accumulation_steps": 2},
        },
        rows=uneven(SHAPES[kind]),
        training={"max_steps": 5, "eval_steps": 5},
        generation={"prompts": PROMPTS, "max_new_tokens": 10},
    )
    return kind, study.run()


def test_losses_of_every_step_are_those_of_unpadded_rows_in_peft(spoken):
    kind, study = spoken
    examples = examples_of(kind, split_of(uneven(SHAPES[kind]))[0])
    lengths = [len(ids) + len(labels) for ids, labels in examples]
    assert max(lengths) > 1.5 * min(lengths)
    for name, parts in (("plain", 1), ("accumulated", 2)):
        model = study.loaded("start", trainable=True)
        losses = train(
            model, study.task, examples, 0, max_steps=5, gradient_accumulation_steps=parts
        )
        np.testing.assert_allclose(study.logged()[name, 0], losses, rtol=0, atol=5e-5)


def test_held_out_losses_are_means_over_targets_of_unpadded_rows(spoken):
    kind, study = spoken
    parts = dict(zip(("best", "test"), split_of(uneven(SHAPES[kind]))[1:], strict=True))
    for (name, seed), row in study.runs().items():
        model = study.loaded(name, seed)
        for part, rows in parts.items():
            loss = evaluated(model, study.task, examples_of(kind, rows))
            assert float(row[f"{part}_eval_loss"]) == pytest.approx(loss, abs=2e-5)
            perplexity = float(row[f"{part}_eval_perplexity"])
            assert perplexity == pytest.approx(np.exp(loss), rel=1e-4)


def test_answers_are_those_that_transformers_generates_with_the_adapter(spoken):
    kind, study = spoken
    tokenizer = tiny_tokenizer(ends=kind == "t5")
    found = {(a["arm"], a["prompt"]): a["answer"] for a in study.facts()["answers"]}
    for name in ("start", "plain"):
        model = study.loaded(name)
        for prompt in PROMPTS:
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=10,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=0,
            )
            made = made[0, 1 if kind == "t5" else ids.shape[1] :]
            assert found[name, prompt] == tokenizer.decode(made, skip_special_tokens=True)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """All tokens about equally likely, so that an answer is what the noise makes it."""
    asked = {"generation.do_sample": True, "generation.temperature": 1e6}
    return make_study(
        tmp_path_factory.mktemp("sampled"),
        "gpt2",
        "text",
        configurations={
            "one": {**asked, "lora.r": 2},
            "two": {**asked, "lora.r": 4},
            "other": {**asked, "lora.r": 2, "generation.seed": 1},
            "cool": {**asked, "lora.r": 2, "generation.top_p": 0.02},
        },
        generation={"prompts": PROMPTS, "max_new_tokens": 24},
        training={"max_steps": 1, "eval_steps": 1},
    ).run()


def test_every_token_is_sampled_with_noise_of_its_own(sampled):
    tokenizer = tiny_tokenizer()
    answers = {(a["arm"], a["prompt"]): a["answer"] for a in sampled.facts()["answers"]}
    for name in ("one", "two", "other"):
        for prompt in PROMPTS:
            assert len(set(tokenizer(answers[name, prompt]).input_ids)) > 8
    assert answers["one", PROMPTS[0]] != answers["one", PROMPTS[1]]
    assert answers["one", PROMPTS[0]] != answers["other", PROMPTS[0]]
    assert answers["one", PROMPTS[0]] == answers["two", PROMPTS[0]]  # one noise for all


def test_top_p_leaves_few_tokens_to_sample_from(sampled):
    tokenizer = tiny_tokenizer()
    answers = {(a["arm"], a["prompt"]): a["answer"] for a in sampled.facts()["answers"]}
    answer = answers["cool", PROMPTS[0]]  # 0.02 of about 300 tokens of equal probability
    assert answer != answers["one", PROMPTS[0]]
    assert len(set(tokenizer(answer).input_ids)) > 1
