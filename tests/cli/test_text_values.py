"""Language models: losses over padded batches, answers and sampling, beside transformers."""

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer

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


def test_the_verdict_weighs_every_target_alike(spoken):
    _, study = spoken
    rows = study.runs()
    for arm in study.facts()["verdict"]["arms"]:
        loss = float(rows[arm["arm"], 0]["best_eval_loss"])
        assert arm["mean"] == pytest.approx(loss, abs=1e-6)


def test_answers_are_those_that_transformers_generates_with_the_adapter(spoken):
    kind, study = spoken
    tokenizer = tiny_tokenizer(ends=kind == "t5")
    found = {(a["arm"], a["prompt"]): a for a in study.facts()["answers"]}
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
            answer = found[name, prompt]
            assert answer["answer"] == tokenizer.decode(made, skip_special_tokens=True)
            own = [*made.tolist(), 2].index(2)
            assert answer["measures"]["tokens"] == own
            assert answer["measures"]["cut_off"] == (own == 10)


COMMON = {
    "lora.r": 2,
    "generation.temperature": 1.7,
    "generation.top_p": 0.8,
    "generation.seed": 3,
}


def test_written_targets_are_compared_with_true_ones_by_rouge_and_chrf(tmp_path):
    study = make_study(
        tmp_path,
        "t5",
        "translation",
        configurations={"one": {}},
        training={"max_steps": 40, "eval_steps": 40, "learning_rate": 3e-2},
    ).run()
    tokenizer, model, row = tiny_tokenizer(ends=True), study.loaded("one"), study.runs()["one", 0]
    scorer = RougeScorer(["rougeL"])
    for part, rows in zip(("best", "test"), split_of(rows_of("translation"))[1:], strict=True):
        true = [one["target"] for one in rows]
        longest = max(len(tokenizer(text).input_ids) for text in true)
        written = []
        for one in rows:
            ids = tokenizer(one["input"], return_tensors="pt").input_ids
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=longest,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=0,
            )
            written.append(tokenizer.decode(made[0, 1:], skip_special_tokens=True))
        found = [scorer.score(a, b)["rougeL"].fmeasure for a, b in zip(true, written, strict=True)]
        assert len(set(found)) > 1
        assert float(row[f"{part}_eval_rougeL"]) == pytest.approx(np.mean(found), abs=1e-9)
        chrf = sacrebleu.corpus_chrf(written, [true]).score
        assert float(row[f"{part}_eval_chrf"]) == pytest.approx(chrf, abs=1e-9)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """All tokens about equally likely, so that an answer is what the noise makes it."""
    asked = {"generation.do_sample": True, "generation.temperature": 1e6}
    found = make_study(
        tmp_path_factory.mktemp("sampled"),
        "gpt2",
        "text",
        configurations={
            "one": {**asked, "lora.r": 2},
            "two": {**asked, "lora.r": 4},
            "other": {**asked, "lora.r": 2, "generation.seed": 1},
            "cool": {**asked, "lora.r": 2, "generation.top_p": 0.02},
            "common": {**asked, **COMMON},
        },
        generation={"prompts": PROMPTS, "max_new_tokens": 24},
        training={"max_steps": 1, "eval_steps": 1},
    )
    (found.model / "chat_template.jinja").unlink()  # or its end of turn would end answers as well
    return found.run()


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


@torch.no_grad()
def sampled_by_hand(model, prompt, number):
    """The likeliest token after noise, of the nucleus of 0.8 at temperature 1.7."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    while len(ids) < start + 24 and ids[-1] != 2:
        scores = model(torch.tensor([ids])).logits[0, -1].double().numpy() / 1.7
        falling = np.argsort(-scores)
        shares = np.exp(scores - scores.max())
        before = np.cumsum(shares[falling]) / shares.sum() - shares[falling] / shares.sum()
        scores[falling[before >= 0.8]] = -np.inf
        bits = np.random.SFC64((3, number, len(ids) - start)).random_raw(len(scores))
        uniform = ((bits >> np.uint64(12)) + 0.5) / 2.0**52
        ids.append(int(np.argmax(scores - np.log(-np.log(uniform)))))
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_sampling_is_by_temperature_and_nucleus_and_the_noise_of_seed_prompt_and_step(sampled):
    answers = {(a["arm"], a["prompt"]): a["answer"] for a in sampled.facts()["answers"]}
    model = sampled.loaded("common")
    for number, prompt in enumerate(PROMPTS):
        assert answers["common", prompt] == sampled_by_hand(model, prompt, number)
