"""How like the targets is what sequence-to-sequence models write."""

from collections.abc import Sequence
from typing import Any

from rankwise.analysis.answers import chrf, rouge_l
from rankwise.data.examples import Example
from rankwise.spec.models import GenerationSpec
from rankwise.train.batch import Task
from rankwise.train.evaluate import Forward
from rankwise.train.generate import Question, end_tokens, generate, readable

WRITTEN_EXAMPLES = 64  # targets that a model writes at every evaluation


def likeness_to_targets(
    bank: Forward, runs: Sequence[int], examples: Sequence[Example], task: Task, tokenizer: Any
) -> list[dict[str, float]]:
    """eval_rougeL (mean, 0..1) and eval_chrf (of the corpus, 0..100) of each run.

    Of the targets that it writes for the first `WRITTEN_EXAMPLES`, by greedy search, no longer
    than the longest true one: such a model is used for what it writes, not for its loss.
    """
    some = examples[:WRITTEN_EXAMPLES]
    references = [example.reference or "" for example in some]
    prompts = [
        Question(number, example.text, example.input_ids, example.reference)
        for number, example in enumerate(some)
    ]
    longest = max(len(example.labels) for example in some)
    asked = GenerationSpec.model_validate({"max_new_tokens": longest})
    ends = end_tokens(bank.model, tokenizer)
    answers_KP = generate(bank, runs, prompts, asked, task, ends)
    texts_KP = [[readable(one.ids, tokenizer) for one in answers] for answers in answers_KP]
    return [
        {
            "eval_rougeL": float(rouge_l(texts, references).mean()),
            "eval_chrf": chrf(texts, references),
        }
        for texts in texts_KP
    ]
