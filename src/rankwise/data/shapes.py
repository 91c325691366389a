"""From rows to examples, with one function for each kind of columns that a spec can name.

`classified`: text and label; `translated`: input and target; `blocks`: plain text; `answered`:
prompt and completion, or messages.

Shapes: T tokens of an input, L tokens of a seq2seq target. Labels of -100 carry no loss.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankwise.data.chat import NotTellable, Seen, chat_dialogue, template_of
from rankwise.data.labels import Classes
from rankwise.data.messages import TOOLS
from rankwise.data.order import IGNORED, Tokens
from rankwise.data.split import Part
from rankwise.data.tokenize import (
    READ,
    Dialogue,
    pair_dialogues,
    plain_ids,
    special_ids,
    token_ids,
)
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec

Tokenizer = Any
Notes = tuple[str, ...]
Made = tuple[tuple["Example", ...], Notes]


@dataclass(frozen=True, eq=False, slots=True)
class Example:
    """One training or evaluation example.

    Attributes:
        input_ids: (T,) token ids.
        labels: CAUSAL_LM (T,), not shifted (the model does that), -100 where there is no
            loss; SEQ_2_SEQ_LM (L,) target ids; SEQ_CLS () class id.
        group: equal for examples that are not independent: a value of `split.by`, the blocks of
            one text, neighbouring blocks of one long text.
        text: the text or the prompt, readable.
        reference: the completion, the last answer, the target, the label's name; None for text.
        asked: tokens before the completion or the last answer; None for other shapes.
    """

    input_ids: Tokens
    labels: Tokens
    group: int
    text: str
    reference: str | None = None
    asked: int | None = None

    @property
    def digest(self) -> str:
        """Hash of tokens and labels, equal for the same example in every study."""
        content = [self.input_ids.tolist(), self.labels.tolist()]
        return hashlib.sha256(repr(content).encode()).hexdigest()


def column_of(part: Part, column: str | None) -> list[Any]:
    """The values of one column; the spec was checked to name it."""
    assert column is not None
    return [row[column] for row in part.rows]


def classified(
    side: str, part: Part, data: DataSpec, tokenizer: Tokenizer, classes: Classes
) -> Made:
    texts = column_of(part, data.text)
    ids, cut = cut_ids(texts, data.max_length, tokenizer)
    numbers = [classes.number(value) for value in column_of(part, data.label)]
    shared = [np.array(number, dtype=np.int32) for number in range(len(classes.names))]
    made = tuple(
        Example(row, shared[number], int(group), text, classes.names[number])
        for row, number, group, text in zip(ids, numbers, part.groups, texts, strict=True)
        if number is not None
    )
    return made, _cut_note(side, cut, len(made), data.max_length)


def translated(side: str, part: Part, data: DataSpec, tokenizer: Tokenizer) -> Made:
    inputs = column_of(part, data.input)
    targets = column_of(part, data.target)
    ids, cut = cut_ids(inputs, data.max_length, tokenizer)
    labels, cut_targets = cut_ids(targets, data.max_length, tokenizer, target=True)
    made = tuple(
        Example(row, label, int(group), text, target)
        for row, label, group, text, target in zip(
            ids, labels, part.groups, inputs, targets, strict=True
        )
    )
    return made, (
        *_cut_note(f"{side} inputs", cut, len(made), data.max_length),
        *_cut_note(f"{side} targets", cut_targets, len(made), data.max_length),
    )


def cut_ids(
    texts: Sequence[str], max_length: int, tokenizer: Tokenizer, target: bool = False
) -> tuple[list[Tokens], int]:
    """Ids with the tokenizer's own special tokens, at most `max_length`, and how many were cut."""
    before, after = special_ids(tokenizer)
    if max_length <= len(before) + len(after):
        raise DataError(
            f"data.max_length: {max_length} leaves no room for text beside the "
            f"{len(before) + len(after)} special tokens of the tokenizer"
        )
    # one token more than allowed shows which rows are too long; only those are tokenised again
    rows = _cut(texts, max_length + 1, tokenizer, target)
    long = [at for at, row in enumerate(rows) if len(row) > max_length]
    for at, row in zip(
        long, _cut([texts[at] for at in long], max_length, tokenizer, target), strict=True
    ):
        rows[at] = row
    return rows, len(long)


def _cut(texts: Sequence[str], length: int, tokenizer: Tokenizer, target: bool) -> list[Tokens]:
    made = token_ids(texts, tokenizer, target, truncation=True, max_length=length)
    return [np.array(row, dtype=np.int32) for row in made]


def _cut_note(side: str, cut: int, n: int, max_length: int) -> Notes:
    return (f"{side}: {cut} of {n} rows cut to {max_length} tokens",) if cut else ()


def blocks(part: Part, data: DataSpec, tokenizer: Tokenizer, one_text: bool) -> tuple[Example, ...]:
    """Texts cut into blocks of `max_length` tokens; a block never holds two texts.

    Each block starts with what the tokenizer puts before a text (BOS, if anything). A row ends
    with the end-of-text token; a region of one long text does not, because the text continues.

    Blocks of a row share its group. In one long text neighbours share one: runs of about the cube
    root of the number of blocks, the order of the best block length for a variance under weak
    dependence (Künsch 1989; Hall, Horowitz and Jing 1995).
    """
    before, _ = special_ids(tokenizer)
    size = data.max_length - len(before)
    if size < 2:
        raise DataError(
            f"data.max_length: {data.max_length} leaves no token to predict in a block; "
            f"use {len(before) + 2} or more"
        )
    made: list[Example] = []
    for ids, group in zip(
        plain_ids(column_of(part, data.text), tokenizer), part.groups, strict=True
    ):
        if not one_text and tokenizer.eos_token_id is not None:
            ids = [*ids, tokenizer.eos_token_id]
        for start in range(0, len(ids), size):
            own = ids[start : start + size]
            block = np.array([*before, *own], dtype=np.int32)
            if len(block) > 1:
                made.append(Example(block, block, int(group), tokenizer.decode(own)))
    if not one_text:
        return tuple(made)
    run = max(1, round(len(made) ** (1 / 3)))
    return tuple(replace(example, group=at // run) for at, example in enumerate(made))


def answered(side: str, part: Part, data: DataSpec, tokenizer: Tokenizer) -> Made:
    """Prompts with completions, or conversations: loss on what `data.train_on` says."""
    notes: list[str] = []
    dialogues: Iterator[Dialogue | None]
    if data.messages is not None:
        dialogues = _conversations(side, part, data, tokenizer, notes)
    else:
        prompts, answers = column_of(part, data.prompt), column_of(part, data.completion)
        pairs = list(zip(prompts, answers, strict=True))
        _note_seams(side, pairs, notes)
        dialogues = pair_dialogues(pairs, tokenizer, data.train_on == "all")
        if tokenizer.eos_token_id is None:
            notes.append(
                f"{side}: the tokenizer has no end-of-text token, so "
                "the model does not learn where an answer ends"
            )
    made, cut, lost = [], 0, 0
    for dialogue, group in zip(dialogues, part.groups, strict=True):
        if dialogue is None:
            continue
        example = _cut_dialogue(dialogue, int(group), data.max_length)
        if example is None:
            lost += 1
        else:
            made.append(example)
            cut += len(dialogue.ids) > data.max_length
    notes += _cut_note(side, cut, len(part), data.max_length)
    if lost:
        notes.append(
            f"{side}: {lost} of {len(part)} rows left out, because data.max_length "
            f"{data.max_length} cuts off every token of their answers"
        )
    return tuple(made), tuple(notes)


def _note_seams(side: str, pairs: Sequence[tuple[str, str]], notes: list[str]) -> None:
    tight = [
        prompt[-10:] + answer[:10]
        for prompt, answer in pairs
        if not prompt[-1:].isspace() and not answer[:1].isspace()
    ]
    if tight:
        notes.append(
            f"{side}: {len(tight)} of {len(pairs)} prompts are followed by their completion "
            f"without a space or line end, such as {tight[0]!r}; the columns are joined as they are"
        )


def _conversations(
    side: str, part: Part, data: DataSpec, tokenizer: Tokenizer, notes: list[str]
) -> Iterator[Dialogue | None]:
    if not tokenizer.chat_template:
        raise DataError(
            "data.messages: the tokenizer has no chat template; use an instruct model, or "
            "columns data.prompt and data.completion of texts"
        )
    refused: Counter[str] = Counter()
    template, seen = template_of(tokenizer), Seen()
    for row in part.rows:
        try:
            messages, tools = row[str(data.messages)], row.get(TOOLS, [])
            made = chat_dialogue(messages, tools, template, seen, data.train_on)
        except NotTellable as error:
            made = None
            refused[str(error)] += 1
        yield made
    notes += seen.notes(side, tokenizer)
    told = "; ".join(f"{reason} ({n})" for reason, n in refused.most_common(3))
    if refused:
        notes.append(f"{side}: {refused.total()} of {len(part)} conversations left out: {told}")
    if refused.total() == len(part):
        raise DataError(f"data.messages: no conversation of the {side} part can be used: {told}")


def _cut_dialogue(dialogue: Dialogue, group: int, max_length: int) -> Example | None:
    """The example of a dialogue cut to `max_length`; None if no target token is left."""
    ids, of_answer = dialogue.ids[:max_length], dialogue.of_answer[:max_length].copy()
    of_answer[:1] = READ  # nothing precedes the first token, so no model can predict it
    if (of_answer == READ).all():
        return None
    kept = ids if len(ids) == len(dialogue.ids) else ids.copy()  # a view would keep all of them
    labels = np.where(of_answer == READ, np.int32(IGNORED), ids)
    # the cut may remove the last answers: text and reference are those of the last one left
    last = int(of_answer.max(initial=READ))
    if last == READ:  # tokens of a prompt alone
        return Example(kept, labels, group, dialogue.prompts[0])
    return Example(
        kept,
        labels,
        group,
        dialogue.prompts[last],
        dialogue.answers[last],
        int(np.flatnonzero(of_answer == last)[0]),
    )
