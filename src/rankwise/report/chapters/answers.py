"""Sample answers of the trained models and of the base."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.analysis.answers import arm_measures
from rankwise.report.document import (
    Block,
    Details,
    Paragraph,
    Quotes,
    Section,
    clean,
    code,
    table,
)
from rankwise.results.judge import Judgement, ranked
from rankwise.results.records import Answer, ArmFacts, generation_of
from rankwise.text import count, names, number

MOST_PROMPTS = 8
MOST_ANSWERS = 6


def answers(judgement: Judgement) -> Section | None:
    """Sample answers side by side, and the measures of all answers."""
    found = judgement.records.answers
    if not found:
        return None
    arms = [arm for arm in ranked(judgement) if any(one.arm == arm.name for one in found)]
    arms = arms or ranked(judgement)
    blocks: list[Block] = [measures_table(speakers(found, arms))]
    shown = speakers(found, arms[:MOST_ANSWERS])
    prompts = list(dict.fromkeys(answer.prompt for answer in found))
    quotes = [quotes_of(shown, prompt) for prompt in prompts[:MOST_PROMPTS]]
    blocks += quotes[:2]
    if quotes[2:]:
        blocks.append(Details(count(len(quotes) - 2, "more prompt"), tuple(quotes[2:])))
    if len(arms) > MOST_ANSWERS:
        text = f"Only the first {MOST_ANSWERS} configurations of the ranking are shown."
        blocks.append(Paragraph(text, "small"))
    return Section("Sample answers", "answers", tuple(blocks))


@dataclass(frozen=True)
class Speaker:
    """A configuration, or the untrained base with certain generation settings, and its answers."""

    title: str
    answers: tuple[Answer, ...]


def speakers(found: Sequence[Answer], arms: Sequence[ArmFacts]) -> list[Speaker]:
    """The base, once for each set of generation settings of these arms, and the arms."""
    alike: dict[str, list[str]] = {}
    for arm in arms:
        alike.setdefault(generation_of(arm.settings), []).append(arm.name)
    answered = [
        Speaker(_base_title(own if len(alike) > 1 else []), tuple(_base(found, own)))
        for own in alike.values()
    ]
    for arm in arms:
        own = tuple(one for one in found if one.arm == arm.name)
        answered.append(Speaker(code(arm.name), own))
    return [one for one in answered if one.answers]


def _base(found: Sequence[Answer], arms: Sequence[str]) -> list[Answer]:
    """The base's answers with the generation settings of these arms."""
    base = [one for one in found if one.arm == "base"]
    return [one for one in base if not one.asked_as or set(one.asked_as) & set(arms)]


def _base_title(arms: Sequence[str]) -> str:
    asked = f", generation as {names([code(arm) for arm in arms], 4)}" if arms else ""
    return f"Untrained base{asked}"


def measures_table(found: Sequence[Speaker]) -> Block:
    """Means of every measure of the answers, and the variety of the answers of a run."""
    measured = [_measures(speaker.answers) for speaker in found]
    columns = list(dict.fromkeys(name for one in measured for name in one))
    columns.sort(key=lambda name: name.startswith("distinct"))
    rows = [
        (one.title, str(len(one.answers)), *(number(means.get(name), 3) for name in columns))
        for one, means in zip(found, measured, strict=True)
    ]
    head = ("configuration", "answers", *(clean(name).replace("_", " ") for name in columns))
    caption = (
        "Means over answers and seeds. Distinct 1 and 2: number of different words, and of pairs "
        "of words, divided by the number of words in all answers of a run; they fall as answers "
        "get longer. These measures describe the answers and are not used for the ranking."
    )
    return table(head, rows, numeric=range(1, len(head)), caption=caption)


def _measures(own: Sequence[Answer]) -> dict[str, float]:
    """Means over seeds of `arm_measures`: pooled over seeds, variety would seem smaller."""
    seeds = dict.fromkeys(one.seed for one in own)
    of_seeds = [[one for one in own if one.seed == seed] for seed in seeds]
    rows = [arm_measures([o.answer for o in s], [o.measures for o in s]) for s in of_seeds]
    measured = dict.fromkeys(name for row in rows for name in row if name != "answers")
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in measured}


def quotes_of(found: Sequence[Speaker], prompt: str) -> Quotes:
    """The answers to one prompt, each at its first seed, the reference first."""
    own = [
        (speaker.title, next((one for one in speaker.answers if one.prompt == prompt), None))
        for speaker in found
    ]
    said = [(title, one) for title, one in own if one is not None]
    references = [("Reference", one.reference) for _, one in said if one.reference is not None]
    return Quotes(prompt, (*references[:1], *((title, one.answer) for title, one in said)))
