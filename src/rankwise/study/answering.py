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

from rankwise.analysis.answers import answer_measures
from rankwise.data.examples import Example
from rankwise.data.order import Tokens
from rankwise.spec.arms import Arm, Run
from rankwise.spec.models import GenerationSpec
from rankwise.spec.tasks import TASKS, has_classes
from rankwise.store.schema import Answer, AnswersRecord
from rankwise.store.writer import Store
from rankwise.study.record import run_id
from rankwise.tasks.by_name import example_of
from rankwise.train.batch import Task
from rankwise.train.evaluate import Forward, evaluate
from rankwise.train.generate import Answer as GeneratedAnswer
from rankwise.train.generate import (
    Question,
    end_tokens,
    generate,
    likeness_to_targets,
    readable,
)

Questions = Mapping[GenerationSpec, Sequence[Question]]
RATED_ROWS = 32
RATING = "base_perplexity"


def ask_runs(
    bank: Forward,
    places: Sequence[int],
    answering: Sequence[Run],
    asked: GenerationSpec,
    questions: Sequence[Question],
    task: Task,
    tokenizer: Any,
    store: Store,
) -> None:
    """Put the same prompts to runs of a bank, and keep their answers.

    Args:
        bank: Where the runs are.
        places: Their K numbers in the bank.
        answering: Whose answers these are, K runs.
        asked: The settings that they have in common.
        questions: The prompts.
        task: CAUSAL_LM or SEQ_2_SEQ_LM.
        tokenizer: Writes the answers out.
        store: Where they go.
    """
    answers_KP = generate(bank, places, questions, asked, task, end_tokens(bank.model, tokenizer))
    configs = config_ids(store)
    for run, answers in zip(answering, answers_KP, strict=True):
        kept = _kept(questions, answers, tokenizer)
        store.save_answers(configs[run.arm.id], run_id(store, run), kept)


def config_ids(store: Store) -> dict[str, int]:
    """The store's numbers of the configurations, by their keys."""
    return {config.key: config.id for config in store.configs()}


def ask_base(
    base: Forward,
    arms: Sequence[Arm],
    questions: Questions,
    task: Task,
    tokenizer: Any,
    store: Store,
) -> None:
    """Put every arm's prompts to the untouched base; once for arms of equal settings."""
    known = {record.config_id for record in store.answers() if record.run_id is None}
    configs = config_ids(store)
    for asked, prompts in questions.items():
        same = [configs[arm.id] for arm in arms if arm.generation == asked]
        if known.isdisjoint(same):
            ends = end_tokens(base.model, tokenizer)
            (answers,) = generate(base, [0], prompts, asked, task, ends)
            store.save_answers(same[0], None, _kept(prompts, answers, tokenizer))


def base_metrics(
    base: Forward, validation: Sequence[Example], task: Task, rows: int, tokenizer: Any
) -> dict[str, float]:
    """The untouched base on the validation examples: eval_loss and so on.

    Nothing for classification, where the base has no classifier of its own.
    """
    if has_classes(task.name) or not validation:
        return {}
    (result,) = evaluate(base, [0], validation, task, rows)
    if TASKS[task.name].compares_texts:
        (likeness,) = likeness_to_targets(base, [0], validation, task, tokenizer)
        result = replace(result, likeness=likeness)
    return result.metrics()


def unrated(store: Store, arms: Iterable[Arm]) -> list[AnswersRecord]:
    """Records of these configurations with an answer that the base has not rated."""
    keys = {arm.id for arm in arms}
    ids = {number for key, number in config_ids(store).items() if key in keys}
    return [
        record
        for record in store.answers()
        if record.config_id in ids
        and any(one.ids and RATING not in one.measures for one in record.answers)
    ]


def rate_answers(
    base: Forward, arms: Sequence[Arm], questions: Questions, task: Task, store: Store
) -> None:
    """Add to every answer its perplexity under the untouched base, the same for all."""
    configs = config_ids(store)
    asked_of = {configs[arm.id]: arm.generation for arm in arms}
    for record in unrated(store, arms):
        prompts = questions[asked_of[record.config_id]]
        pairs = [
            (question.ids, one.ids) for question, one in zip(prompts, record.answers, strict=True)
        ]
        found = perplexities(base, pairs, task)
        rated = [
            one if value is None else replace(one, measures={**one.measures, RATING: value})
            for one, value in zip(record.answers, found, strict=True)
        ]
        store.save_answers(record.config_id, record.run_id, rated)


def _kept(
    questions: Sequence[Question], answers: Sequence[GeneratedAnswer], tokenizer: Any
) -> list[Answer]:
    """Answers with their measures, as the store keeps them."""
    kept = []
    for question, answer in zip(questions, answers, strict=True):
        text = readable(answer.ids, tokenizer)
        measures = answer_measures(
            text, len(answer.ids), answer.cut_off, question.text, question.reference
        )
        kept.append(Answer(question.text, question.reference, text, answer.ids, measures))
    return kept


def perplexities(
    base: Forward, spoken: Sequence[tuple[Tokens, Sequence[int]]], task: Task
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
    examples = [
        example_of(prompt, np.array(answer, dtype=np.int64), task.name)
        for prompt, answer in (spoken[place] for place in asked)
    ]
    longest = max(len(example.input_ids) for example in examples)
    (result,) = evaluate(base, [0], examples, replace(task, max_length=longest), RATED_ROWS)
    for place, loss in zip(asked, result.losses_E, strict=True):
        found[place] = math.exp(min(float(loss), 700.0))
    return found
