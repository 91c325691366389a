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
from rankwise.data.order import IGNORED
from rankwise.spec.arms import Arm, Run
from rankwise.spec.models import GenerationSpec
from rankwise.store.writer import AnswersRecord, Store
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
from rankwise.train.likeness import likeness_to_targets

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
    for run, answers in zip(answering, answers_KP, strict=True):
        store.save_answers(run.id, run.arm.id, _records(questions, answers, tokenizer))


def ask_base(
    base: Forward,
    arms: Sequence[Arm],
    questions: Questions,
    task: Task,
    tokenizer: Any,
    store: Store,
) -> None:
    """Put every arm's prompts to the untouched base; once for arms of equal settings."""
    known = {record.arm_id for record in store.answers() if record.run_id == "base"}
    for asked, prompts in questions.items():
        same = [arm.id for arm in arms if arm.generation == asked]
        if known.isdisjoint(same):
            ends = end_tokens(base.model, tokenizer)
            (answers,) = generate(base, [0], prompts, asked, task, ends)
            store.save_answers("base", same[0], _records(prompts, answers, tokenizer))


def base_metrics(
    base: Forward, validation: Sequence[Example], task: Task, rows: int, tokenizer: Any
) -> dict[str, float]:
    """The untouched base on the validation examples: base_eval_loss and so on.

    Nothing for classification, where the base has no classifier of its own.
    """
    if task.name == "SEQ_CLS" or not validation:
        return {}
    (result,) = evaluate(base, [0], validation, task, rows)
    if task.name == "SEQ_2_SEQ_LM":
        (likeness,) = likeness_to_targets(base, [0], validation, task, tokenizer)
        result = replace(result, likeness=likeness)
    return {f"base_{name}": value for name, value in result.metrics().items()}


def unrated(store: Store, arms: Iterable[Arm]) -> list[AnswersRecord]:
    """Records of these arms with an answer that the base has not rated."""
    ids = {arm.id for arm in arms}
    return [
        record
        for record in store.answers()
        if record.arm_id in ids
        and any(one["ids"] and RATING not in one["measures"] for one in record.answers)
    ]


def rate_answers(
    base: Forward, arms: Sequence[Arm], questions: Questions, task: Task, store: Store
) -> None:
    """Add to every answer its perplexity under the untouched base, the same for all arms."""
    asked_of = {arm.id: arm.generation for arm in arms}
    for record in unrated(store, arms):
        prompts = questions[asked_of[record.arm_id]]
        spoken = [
            (question.ids, one["ids"])
            for question, one in zip(prompts, record.answers, strict=True)
        ]
        found = perplexities(base, spoken, task)
        rated = [
            one if value is None else {**one, "measures": {**one["measures"], RATING: value}}
            for one, value in zip(record.answers, found, strict=True)
        ]
        store.save_answers(record.run_id, record.arm_id, rated)


def _records(
    questions: Sequence[Question], answers: Sequence[Answer], tokenizer: Any
) -> list[dict[str, Any]]:
    """Answers with their measures, ready for the store; `ids` are their tokens."""
    records = []
    for question, answer in zip(questions, answers, strict=True):
        text = readable(answer.ids, tokenizer)
        measures = answer_measures(
            text, len(answer.ids), answer.cut_off, question.text, question.reference
        )
        said = {"answer": text, "measures": measures, "ids": list(answer.ids)}
        records.append({"prompt": question.text, "reference": question.reference, **said})
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
    (result,) = evaluate(base, [0], examples, replace(task, max_length=longest), RATED_ROWS)
    for place, loss in zip(asked, result.losses_E, strict=True):
        found[place] = math.exp(min(float(loss), 700.0))
    return found


def _spoken_example(prompt: IntArray, answer: Sequence[int], task: str) -> Example:
    ids = np.array(answer, dtype=np.int64)
    if task == "SEQ_2_SEQ_LM":
        return Example(prompt, ids, 0, "")
    silent = np.full(len(prompt), IGNORED, dtype=np.int64)
    return Example(np.concatenate([prompt, ids]), np.concatenate([silent, ids]), 0, "")
