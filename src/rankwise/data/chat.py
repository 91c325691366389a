"""Conversations through the tokenizer's own chat template, and what of them is learnt.

The template is given the messages and tools as `messages.py` leaves them. What it does not write is
not seen by the model: `Seen` counts that, so that it can be said.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rankwise.data.messages import CALLS, WEIGHT, Message, readable
from rankwise.data.tokenize import OTHER, READ, Dialogue, Piece, Tokenizer, dialogue, tokens_of
from rankwise.text import shorten

GENERATION_MARK = re.compile(r"\{%-?\s*generation\b")
PROBE = "zebra"  # an answer whose text no template is likely to hold
Tools = list[dict[str, Any]]


class NotTellable(ValueError):
    """The chat template does not show which tokens of a conversation are its answers."""


@dataclass
class Seen:
    """What happened to conversations on their way through the template, in numbers.

    Attributes:
        ended: Answers after which the end-of-text token was put, as the template writes no end.
        endless: Answers without an end, as the tokenizer has no such token either.
        lost: What the template does not write, in words.
    """

    ended: int = 0
    endless: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def notes(self, side: str, tokenizer: Tokenizer) -> list[str]:
        """What must be said."""
        told = [f"{side}: {what} ({n})" for what, n in self.lost.most_common()]
        if self.ended:
            told.append(
                "the chat template writes no end of turn after an answer; the end-of-text token "
                f"{tokenizer.eos_token} is put there, so that the model learns where answers end"
            )
        if self.endless:
            told.append(
                "the chat template writes no end of turn and the tokenizer has no end-of-text "
                "token, so the model does not learn where an answer ends"
            )
        return told


@dataclass(frozen=True)
class Template:
    """The chat template of a tokenizer.

    Attributes:
        words: The words of its text, among which are the fields that it reads.
        marks: Whether it marks answers by `{% generation %}`.
        end: What it writes after an answer to end the turn; empty where it writes nothing.
        special: Special tokens with which a marked answer may end.
    """

    tokenizer: Tokenizer
    words: frozenset[str]
    marks: bool
    end: str
    special: tuple[str, ...]


def template_of(tokenizer: Tokenizer) -> Template:
    """The template of a tokenizer that has one."""
    held = tokenizer.chat_template
    source = "\n".join(held.values()) if isinstance(held, dict) else str(held)
    begin = {tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token} - {tokenizer.eos_token}
    added = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    special = tuple({*added, tokenizer.eos_token} - {None, *begin})
    asked = {"role": "user", "content": "a"}
    try:
        text = render([asked, {"role": "assistant", "content": PROBE}], None, tokenizer)
    except NotTellable:
        text = ""
    rest = text.rpartition(PROBE)[2].strip()
    end = max((one for one in special if rest.startswith(one)), key=len, default="")
    marks = GENERATION_MARK.search(source) is not None
    return Template(tokenizer, frozenset(re.findall(r"\w+", source)), marks, end, special)


def chat_dialogue(
    messages: Sequence[Message],
    tools: Tools,
    template: Template,
    seen: Seen,
    train_on: str = "completions",
) -> Dialogue:
    """A conversation; learnt are the assistant's answers, but those of weight 0.

    With `train_on: last` only the last one is, and the template must leave nothing but the text
    before that as it is; with `all` every token is but those of answers of weight 0.

    Where the template marks them (`{% generation %}`) its marks are used. Otherwise an answer is
    what the template adds when the answer is added to the messages before it, up to its
    end-of-turn mark; the whole conversation must begin with each of these texts. An answer is
    learnt up to and with its end of turn; where the template writes none, the end-of-text token
    is put there.

    Args:
        messages: In normal form.
        tools: What may be called.
        template: Of the tokenizer.
        seen: Counts what must be said.
        train_on: As in the spec.

    Raises:
        NotTellable: The template refuses the messages, or changes earlier turns, or nothing of
            the conversation is learnt.
    """
    asked = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    if not asked:
        raise NotTellable("no message of the role assistant")
    if train_on == "last" and not template.marks:
        asked = asked[-1:]
    judged = asked if train_on != "last" else asked[-1:]
    learnt = [asked.index(at) for at in judged if messages[at].get(WEIGHT) != 0]
    if not learnt:
        raise NotTellable("no answer is to be learnt (weight 0)")
    plain = [{k: v for k, v in one.items() if k != WEIGHT} for one in messages]
    make = _marked_pieces if template.marks else _added_pieces
    every = make(plain, tools, asked, template.tokenizer)
    text = "".join(piece.text for piece in every)
    _check_calls(plain, tools, text, template)
    told = Seen()
    pieces = _with_ends(every, learnt, template, told, OTHER if train_on == "all" else READ)
    ((ids, of_answer),) = tokens_of([pieces], template.tokenizer)
    if max(of_answer, default=READ) < 0:
        raise NotTellable("the chat template marks nothing of its answers")
    _count_lost(messages, tools, text, template, told, train_on)
    seen.ended += told.ended
    seen.endless += told.endless
    seen.lost += told.lost
    prompts = [readable(plain[:at]) for at in asked]
    answers = [plain[at]["content"] for at in asked]
    for number, at in enumerate(asked):
        if any(name in plain[at] for name in CALLS):  # as the model writes them
            written = [one for one, of in zip(ids, of_answer, strict=True) if of == number]
            answers[number] = template.tokenizer.decode(written, skip_special_tokens=True).strip()
    return dialogue(ids, of_answer, prompts, answers)


def render(
    messages: Sequence[Message], tools: Tools | None, tokenizer: Tokenizer, ask: bool = False
) -> str:
    """The template's text for `messages`; with `ask` also the start of the assistant's turn."""
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=tools or None, tokenize=False, add_generation_prompt=ask
        )
    except Exception as error:  # whatever the code of a template raises
        raise NotTellable(f"the chat template raised an error: {shorten(error)}") from error
    return text


def _render_marked(
    messages: Sequence[Message], tools: Tools, tokenizer: Tokenizer
) -> tuple[str, list[tuple[int, int]]]:
    """The template's text, and where each of its marked stretches begins and ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, spans = render_jinja_template(
            [list(messages)],
            tools=tools or None,
            chat_template=tokenizer.get_chat_template(tools=tools or None),
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except Exception as error:  # whatever the code of a template raises
        raise NotTellable(f"the chat template raised an error: {shorten(error)}") from error
    return texts[0], spans[0]


def _marked_pieces(
    messages: Sequence[Message], tools: Tools, asked: Sequence[int], tokenizer: Tokenizer
) -> list[Piece]:
    """Pieces by the template's own marks, of which a turn may have several."""
    text, spans = _render_marked(messages, tools, tokenizer)
    owners: list[int] = []
    for number, at in enumerate(asked):
        before, earlier = _render_marked(messages[: at + 1], tools, tokenizer)
        if not text.startswith(before.rstrip()):
            break
        owners += [number] * (len(earlier) - len(owners))
    if len(owners) != len(spans):
        if len(spans) != len(asked):
            raise NotTellable("the chat template changes earlier turns when an answer is added")
        owners = list(range(len(asked)))
    pieces: list[Piece] = []
    done = 0
    for (start, end), number in zip(spans, owners, strict=True):
        pieces += [Piece(text[done:start]), Piece(text[start:end], number)]
        done = end
    return [*pieces, Piece(text[done:])]


def _added_pieces(
    messages: Sequence[Message], tools: Tools, asked: Sequence[int], tokenizer: Tokenizer
) -> list[Piece]:
    """Pieces by what the template adds for each answer."""
    whole = render(messages, tools, tokenizer)
    pieces: list[Piece] = []
    done = ""
    for number, at in enumerate(asked):
        before = render(messages[:at], tools, tokenizer, ask=True)
        after = render(messages[: at + 1], tools, tokenizer)
        if not (whole.startswith(after) and after.startswith(before) and before.startswith(done)):
            raise NotTellable("the chat template changes earlier turns when an answer is added")
        answer = after[len(before) :].rstrip()
        if messages[at]["content"].strip() not in answer:
            raise NotTellable("the chat template changes the text of an answer")
        pieces += [Piece(before[len(done) :]), Piece(answer, number)]
        done = before + answer
    return [*pieces, Piece(whole[len(done) :])]


def _with_ends(
    pieces: Sequence[Piece], learnt: Sequence[int], template: Template, seen: Seen, others: int
) -> list[Piece]:
    """The pieces with every learnt answer up to its end of turn; other answers are only read.

    Every piece of an answer has one behind it that is of no answer; `others` (READ or OTHER) says
    whether such pieces are learnt.
    """
    made = [
        piece
        if piece.answer in learnt
        else Piece(piece.text, others if piece.answer == READ else READ)
        for piece in pieces
    ]
    last = {piece.answer: at for at, piece in enumerate(made) if piece.text and piece.answer >= 0}
    for number, at in last.items():
        text = made[at].text.rstrip()
        rest = made[at].text[len(text) :] + made[at + 1].text
        if not text.endswith(template.special):
            end = _end_in(rest, template)
            if end:
                text, rest = text + rest[:end], rest[end:]
            elif template.tokenizer.eos_token is not None:
                text += template.tokenizer.eos_token
                seen.ended += 1
            else:
                seen.endless += 1
        made[at : at + 2] = [Piece(text, number), Piece(rest, others)]
    return made


def _end_in(rest: str, template: Template) -> int:
    """Where the end of turn that opens `rest` is over; 0 where none does."""
    start = len(rest) - len(rest.lstrip())
    for end in (template.end, template.tokenizer.eos_token):
        if end and rest.startswith(end, start):
            return start + len(end)
    return 0


def _check_calls(messages: Sequence[Message], tools: Tools, text: str, template: Template) -> None:
    """Refuse calls that do not reach the text: what is learnt would be an empty answer."""
    for name in CALLS:
        without = [{k: v for k, v in message.items() if k != name} for message in messages]
        if without == list(messages) or name in template.words:
            continue
        if render(without, tools, template.tokenizer) == text:
            raise NotTellable(f"the chat template does not write the {name} of an answer")


def _name_of(tool: dict[str, Any]) -> str:
    inner = tool.get("function")
    return str((inner if isinstance(inner, dict) else tool).get("name", ""))


def _count_lost(
    messages: Sequence[Message],
    tools: Tools,
    text: str,
    template: Template,
    seen: Seen,
    train_on: str,
) -> None:
    """Count what the model does not see, or does not learn though it should."""
    for tool in tools:
        if "tools" not in template.words or _name_of(tool) not in text:
            seen.lost["the chat template does not write the tools of a conversation"] += 1
    for message in messages:
        role = message["role"]
        if role != "assistant" and message["content"].strip() not in text:
            seen.lost[
                f"the chat template does not write a message of the role {role} as it is"
            ] += 1
        if message.get(WEIGHT) and train_on != "all":
            seen.lost[f"only answers are learnt, not a message of weight 1 of the role {role}"] += 1
        for name in message.keys() - {"role", "content", WEIGHT, *CALLS}:
            value = message[name]
            shown = value.strip() in text if isinstance(value, str) else True
            if name not in template.words or not shown:
                what = f"the chat template does not write the field {name} of a message as it is"
                seen.lost[what] += 1
