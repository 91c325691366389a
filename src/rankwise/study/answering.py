"""What is asked of the models, and what is kept of what they say.

Every trained run answers the prompts of its arm, and of the arms that share its training; the
untouched base answers the same prompts. Each answer is measured, and at the end rated by the one
base: how likely it finds the answer's tokens.

Legend: K runs, P prompts, T tokens.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rankwise.analysis.answers import answer_measures, chrf, rouge_l
from rankwise.data.examples import Example
from rankwise.data.order import IGNORED
from rankwise.spec.arms import Arm, Run
from rankwise.spec.models import GenerationSpec
from rankwise.store.schema import Answer as StoredAnswer
from rankwise.store.schema import AnswersRecord
from rankwise.store.writer import Store
from rankwise.text import first_line
from rankwise.train.batch import Task
from rankwise.train.evaluate import Forward, evaluate
from rankwise.train.generate import (
    Answer,
    IntArray,
    Question,
    end_tokens,
    generate,
    readable,
)

Questions = Mapping[GenerationSpec, Sequence[Question]]
SPOKEN_EXAMPLES = 64  # targets that a sequence-to-sequence model writes at every evaluation
RATED_ROWS = 32
RATING = "base_perplexity"


def ask_runs(
    bank: Forward,
    answering: Sequence[Run],
    asked: GenerationSpec,
    questions: Sequence[Question],
    task: Task,
    tokenizer: Any,
    store: Store,
) -> None:
    """Put the same prompts to the selected runs of a bank, and keep their answers.

    Args:
        bank: With K runs selected.
        answering: Whose answers these are, K runs.
        asked: The settings that they have in common.
        questions: The prompts.
        task: CAUSAL_LM or SEQ_2_SEQ_LM.
        tokenizer: Writes the answers out.
        store: Where they go. A failure goes there too, and costs no training already done.
    """
    names = ", ".join(run.id for run in answering)
    answers_KP = _answers(bank, names, asked, questions, task, tokenizer, store)
    if not answers_KP:
        return
    configs = {config.key: config.id for config in store.configs()}
    for run, answers in zip(answering, answers_KP, strict=True):
        run_id = store.run_id(run.arm.training_id, run.seed)
        records = _records(questions, answers, tokenizer)
        store.save_answers(configs[run.arm.id], run_id, records)


def ask_base(
    base: Forward,
    arms: Sequence[Arm],
    questions: Questions,
    task: Task,
    tokenizer: Any,
    store: Store,
) -> None:
    """Put every arm's prompts to the untouched base; once for arms of equal settings."""
    configs = {config.key: config.id for config in store.configs()}
    known = {record.config_id for record in store.answers() if record.run_id is None}
    for asked, prompts in questions.items():
        same = [configs[arm.id] for arm in arms if arm.generation == asked]
        if known.isdisjoint(same):
            for answers in _answers(base, "base", asked, prompts, task, tokenizer, store):
                store.save_answers(same[0], None, _records(prompts, answers, tokenizer))


def _answers(
    bank: Forward,
    names: str,
    asked: GenerationSpec,
    questions: Sequence[Question],
    task: Task,
    tokenizer: Any,
    store: Store,
) -> list[list[Answer]]:
    """As `generate`; where that fails an empty list, and a note of it in the store."""
    try:
        return generate(bank, questions, asked, task, end_tokens(bank.model, tokenizer))
    except (RuntimeError, MemoryError) as error:
        store.add_fact("no_answers", who=names, error=first_line(error))
        return []


def base_metrics(
    base: Forward, validation: Sequence[Example], task: Task, rows: int, tokenizer: Any
) -> dict[str, float]:
    """The untouched base on the validation examples: eval_loss and so on.

    Nothing for classification, where the base has no classifier of its own.
    """
    if task.name == "SEQ_CLS" or not validation:
        return {}
    (result,) = evaluate(base, validation, task, rows)
    if task.name == "SEQ_2_SEQ_LM":
        (likeness,) = likeness_to_targets(base, validation, task, tokenizer)
        result = replace(result, likeness=likeness)
    return result.metrics()


def unrated(store: Store, arms: Iterable[Arm]) -> list[AnswersRecord]:
    """Records of these arms with an answer that the base has not rated."""
    keys = {arm.id for arm in arms}
    asked = {config.id for config in store.configs() if config.key in keys}
    return [
        record
        for record in store.answers()
        if record.config_id in asked
        and any(one.ids and RATING not in (one.measures or {}) for one in record.answers)
    ]


def rate_answers(
    base: Forward, arms: Sequence[Arm], questions: Questions, task: Task, store: Store
) -> None:
    """Add to every answer its perplexity under the untouched base, the same for all arms."""
    generation = {arm.id: arm.generation for arm in arms}
    asked_of = {
        config.id: generation[config.key] for config in store.configs() if config.key in generation
    }
    for record in unrated(store, arms):
        prompts = questions[asked_of[record.config_id]]
        spoken = [
            (question.ids, one.ids) for question, one in zip(prompts, record.answers, strict=True)
        ]
        found = perplexities(base, spoken, task)
        rated = [
            one if value is None else replace(one, measures={**(one.measures or {}), RATING: value})
            for one, value in zip(record.answers, found, strict=True)
        ]
        store.save_answers(record.config_id, record.run_id, rated)


def _records(
    questions: Sequence[Question], answers: Sequence[Answer], tokenizer: Any
) -> list[StoredAnswer]:
    """Answers with their measures, ready for the store."""
    records = []
    for question, answer in zip(questions, answers, strict=True):
        text = readable(answer.ids, tokenizer)
        measures = answer_measures(
            text, len(answer.ids), answer.cut_off, question.text, question.reference
        )
        ids = tuple(int(token) for token in answer.ids)
        records.append(StoredAnswer(question.text, question.reference, text, ids, measures))
    return records


def perplexities(
    base: Forward, spoken: Sequence[tuple[IntArray, Sequence[int]]], task: Task
) -> list[float | None]:
    """exp of the mean loss of each answer's tokens after its prompt; None for an empty answer.

    Args:
        base: One model, the untouched base.
        spoken: (prompt ids, answer ids).
        task: As for `generate`.
    """
    asked = [place for place, (_, answer) in enumerate(spoken) if len(answer)]
    found: list[float | None] = [None] * len(spoken)
    if not asked:
        return found
    examples = [_spoken_example(*spoken[place], task.name) for place in asked]
    longest = max(len(example.input_ids) for example in examples)
    (result,) = evaluate(base, examples, replace(task, max_length=longest), RATED_ROWS)
    for place, loss in zip(asked, result.losses_E, strict=True):
        found[place] = math.exp(min(float(loss), 700.0))
    return found


def _spoken_example(prompt: IntArray, answer: Sequence[int], task: str) -> Example:
    ids = np.array(answer, dtype=np.int64)
    if task == "SEQ_2_SEQ_LM":
        return Example(prompt, ids, 0, "")
    silent = np.full(len(prompt), IGNORED, dtype=np.int64)
    return Example(np.concatenate([prompt, ids]), np.concatenate([silent, ids]), 0, "")


def likeness_to_targets(
    bank: Forward, examples: Sequence[Example], task: Task, tokenizer: Any
) -> list[dict[str, float]]:
    """eval_rougeL (mean, 0..1) and eval_chrf (of the corpus, 0..100) of every selected run.

    Of the targets that it writes for the first `SPOKEN_EXAMPLES`, by greedy search, no longer than
    the longest true one: a sequence-to-sequence model is used for what it writes, not for its loss.
    """
    some = examples[:SPOKEN_EXAMPLES]
    references = [example.reference or "" for example in some]
    prompts = [
        Question(number, example.text, example.input_ids, example.reference)
        for number, example in enumerate(some)
    ]
    asked = GenerationSpec.model_validate({"max_new_tokens": longest_target(some)})
    answers_KP = generate(bank, prompts, asked, task, end_tokens(bank.model, tokenizer))
    texts_KP = [[readable(one.ids, tokenizer) for one in answers] for answers in answers_KP]
    return [
        {
            "eval_rougeL": float(rouge_l(texts, references).mean()),
            "eval_chrf": chrf(texts, references),
        }
        for texts in texts_KP
    ]


def longest_target(examples: Sequence[Example]) -> int:
    """Tokens of the longest target."""
    return max(len(example.labels) for example in examples)
