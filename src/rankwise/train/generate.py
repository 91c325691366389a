"""What the models say: the answers of all selected runs to the same prompts.

`generate` of transformers sees one batch: the P prompts of the first run, then those of the
second, and so on. Beams multiply rows in place (each row is followed by its copies), and beams are
reordered within one prompt only, so a run's rows stay together and the bank's blocks stay right in
the prompt, in the cache, and in every later step. A row that has ended is padded until the last
one has, and does not change.

What a checkpoint recommends for generation (a repetition penalty, top-k, its own temperature) is
put aside: the spec alone says how answers are made, equally for all arms.

Legend: K runs, P prompts, T tokens of a prompt, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from rankwise.analysis.answers import chrf, rouge_l
from rankwise.data.chat import template_of
from rankwise.data.examples import Example, prompt_ids
from rankwise.data.order import Tokens, pad_inputs
from rankwise.errors import SpecError
from rankwise.spec.models import DataSpec, GenerationSpec
from rankwise.spec.tasks import is_causal
from rankwise.tasks.by_name import prompt_of
from rankwise.train.batch import Task
from rankwise.train.evaluate import TOKENS_OF_A_PASS, Forward, passes


@dataclass(frozen=True, eq=False)
class Question:
    """One prompt: what a person reads, its token ids (T,), and what should be answered if known.

    `number` is its place among the prompts, by which sampling is keyed.
    """

    number: int
    text: str
    ids: Tokens
    reference: str | None


@dataclass(frozen=True)
class Answer:
    """New tokens without the one that ended them; `cut_off` where the limit did."""

    ids: tuple[int, ...]
    cut_off: bool


def questions_of(
    asked: GenerationSpec,
    data: DataSpec,
    task: str,
    validation: Sequence[Example],
    tokenizer: Any,
) -> tuple[Question, ...]:
    """The prompts of an arm: those of the spec, then some of the validation part, evenly spaced.

    Of plain text a prompt is the first half of a block, and its reference the second half.

    Raises:
        SpecError: more prompts than the validation part has, or a prompt without any token.
        DataError: the chat template refuses a prompt.
    """
    wanted = asked.prompts_from_validation
    if wanted > len(validation):
        raise SpecError(
            f"generation.prompts_from_validation: {wanted} prompts of {len(validation)} validation "
            f"examples; use {len(validation)} or less"
        )
    own = [
        Question(number, text, np.asarray(prompt_ids(text, data, tokenizer), np.int64), None)
        for number, text in enumerate(asked.prompts)
    ]
    for question in own:
        if not len(question.ids):
            raise SpecError(
                f"generation.prompts: the tokenizer makes no token of prompt {question.number + 1} "
                f"({question.text!r}); write at least one word"
            )
    places = [place * len(validation) // wanted for place in range(wanted)]
    held_out = [
        _question_from(validation[place], number, task, tokenizer)
        for number, place in enumerate(places, start=len(own))
    ]
    return (*own, *held_out)


def _question_from(example: Example, number: int, task: str, tokenizer: Any) -> Question:
    ids = prompt_of(example, task)
    if example.reference is not None:
        return Question(number, example.text, ids, example.reference)
    rest = example.input_ids[len(ids) :]
    return Question(number, readable(ids, tokenizer), ids, readable(rest, tokenizer))


def readable(ids: Sequence[int] | Tokens, tokenizer: Any) -> str:
    """The text of token ids, special tokens left out."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer: those of the checkpoint (an instruct model has its own), the
    tokenizer's end of text, and the chat template's end of turn; a model may have none of them,
    and then always speaks to the limit."""
    own = model.generation_config.eos_token_id
    found = [] if own is None else [own] if isinstance(own, int) else list(own)
    if tokenizer.chat_template is not None:
        end = template_of(tokenizer).end
        found += [tokenizer.convert_tokens_to_ids(end)] if end else []
    return tuple(sorted({*found, tokenizer.eos_token_id} - {None}))


@torch.no_grad()
def generate(
    bank: Forward,
    runs: Sequence[int],
    prompts: Sequence[Question],
    asked: GenerationSpec,
    task: Task,
    ends: Sequence[int],
) -> list[list[Answer]]:
    """The answers of some runs to the same P prompts: K lists of P.

    Args:
        bank: Where the runs are.
        runs: Their K numbers.
        prompts: What to ask.
        asked: max_new_tokens, beams, sampling.
        task: CAUSAL_LM (the prompt is continued) or SEQ_2_SEQ_LM (it is the encoder's input).
        ends: Ids that end an answer.
    """
    told: list[list[Answer]] = [[Answer((), False)] * len(prompts) for _ in runs]
    room = [asked.num_beams * (len(prompt.ids) + asked.max_new_tokens) for prompt in prompts]
    with bank.running(runs) as model:
        for places in passes(room, len(runs), len(prompts), TOKENS_OF_A_PASS):
            some = [prompts[place] for place in places]
            rows = _new_tokens(model, len(runs), some, asked, task, ends)
            for number, row in enumerate(rows):
                run, place = number // len(places), places[number % len(places)]
                told[run][place] = _answer(row, ends)
    return told


def _new_tokens(
    model: Any,
    runs: int,
    prompts: Sequence[Question],
    asked: GenerationSpec,
    task: Task,
    ends: Sequence[int],
) -> list[list[int]]:
    """What `generate` appends to each row, K*P lists, padding included."""
    ids_PT, mask_PT = _padded([prompt.ids for prompt in prompts], task)
    start = ids_PT.shape[1] if is_causal(task.name) else 1
    with _settings(model, asked, task, ends):
        sequences = model.generate(
            input_ids=ids_PT.repeat(runs, 1),
            attention_mask=mask_PT.repeat(runs, 1),
            logits_processor=_sampling([prompt.number for prompt in prompts], runs, asked, start),
        )
    rows: list[list[int]] = sequences[:, start:].tolist()
    return rows


def _padded(prompts: Sequence[Tokens], task: Task) -> tuple[Tensor, Tensor]:
    """Token ids and mask (P, T): a decoder is padded on the left, so that it goes on at the end."""
    side = "left" if is_causal(task.name) else "right"
    ids_PT, mask_PT = pad_inputs(prompts, task.pad_token_id, side=side)
    return torch.from_numpy(ids_PT).to(task.device), torch.from_numpy(mask_PT).to(task.device)


@contextmanager
def _settings(model: Any, asked: GenerationSpec, task: Task, ends: Sequence[int]) -> Iterator[None]:
    """For the duration, the model generates as the spec says, and by no default of its own.

    Only the tokens that its decoder starts with are kept. `generate` fills settings that it is
    not given from the model's own, so these are exchanged as a whole.
    """
    own = model.generation_config
    first = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    model.generation_config = GenerationConfig(
        max_new_tokens=asked.max_new_tokens,
        num_beams=asked.num_beams,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(ends) or None,
        pad_token_id=task.pad_token_id,
        **{name: getattr(own, name, None) for name in first},
    )
    try:
        yield
    finally:
        model.generation_config = own


def _sampling(
    numbers: Sequence[int], runs: int, asked: GenerationSpec, start: int
) -> LogitsProcessorList:
    if not asked.do_sample:
        return LogitsProcessorList()
    return LogitsProcessorList(
        [
            TemperatureLogitsWarper(asked.temperature),
            TopPLogitsWarper(asked.top_p),
            GumbelNoise(asked.seed, numbers, runs, start),
        ]
    )


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Sampling that belongs to the prompt: noise on the scores, of which the largest is taken.

    The largest of log p + g, g standard Gumbel, is a sample of p (the Gumbel-max trick; Gumbel
    1954; Maddison, Tarlow and Minka 2014, "A* Sampling", section 2). transformers draws from one
    generator for a whole batch, so that a row's draw would depend on the rows before it. Here it
    is a pure function of (seed, prompt, step), the same for all runs: they differ in what they
    learnt, not in what is drawn.
    """

    def __init__(self, seed: int, numbers: Sequence[int], runs: int, start: int) -> None:
        self.seed, self.numbers, self.runs, self.start = seed, tuple(numbers), runs, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (K*P, V) with the noise of this step added."""
        step = input_ids.shape[1] - self.start
        noise_PV = np.stack(
            [gumbel(scores.shape[1], self.seed, number, step) for number in self.numbers]
        )
        return scores + torch.from_numpy(noise_PV).to(scores).repeat(self.runs, 1)


def gumbel(size: int, *key: int) -> NDArray[np.float64]:
    """Standard Gumbel numbers (size,), a pure function of `key`: -log(-log u) of SFC64's bits."""
    bits = np.random.SFC64(key).random_raw(size)
    # 52 bits and a half: never 0, never 1, and exact in a double
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _answer(row: Sequence[int], ends: Sequence[int]) -> Answer:
    for length, token in enumerate(row):
        if token in ends:
            return Answer(tuple(row[:length]), False)
    return Answer(tuple(row), True)


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
