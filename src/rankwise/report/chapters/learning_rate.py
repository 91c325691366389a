"""The learning rate: whether it was tuned for every combination of the other settings."""

from rankwise.analysis.factors import LearningRateFlag
from rankwise.report.document import Bullets, Paragraph, Section, clean, code
from rankwise.results.judge import Judgement
from rankwise.text import count, names, significant

MOST_FLAGS = 6
MARKS = {
    "not varied": "only one tried",
    "at the lowest": "best at lower edge",
    "at the highest": "best at upper edge",
    "inside": "",
}


def learning_rate(judgement: Judgement) -> Section | None:
    """Where the learning rate may explain the place of a configuration."""
    flags = judgement.rate_flags
    if judgement.verdict.best is None or (not flags and len(judgement.verdict.arms) < 2):
        return None
    if not flags:
        text = (
            "No learning rate is recorded in the settings. If the configurations need different "
            "learning rates, their order may be wrong; these results cannot show it."
        )
        return Section("Learning rate", "learning-rate", (Paragraph(text, "warning"),))
    items = [text for kind in MARKS for text in _of_kind(flags, kind)]
    intro = (
        "A configuration with an unsuitable learning rate looks worse than it could be. The other "
        "settings are compared fairly only if each has its own best learning rate. The ranking "
        "marks the configurations concerned."
    )
    return Section("Learning rate", "learning-rate", (Paragraph(intro), Bullets(tuple(items))))


def _of_kind(flags: tuple[LearningRateFlag, ...], kind: str) -> list[str]:
    """The sentences of one kind; a single one for all of them if there are many."""
    own = [flag for flag in flags if flag.kind == kind]
    if len(own) <= MOST_FLAGS:
        return [flag_sentence(flag) for flag in own]
    arms = [code(arm) for flag in own for arm in flag.arms]
    said = MARKS[kind] or "the best is inside the range tried"
    what = count(len(own), "combination")
    return [f"{what} of the other settings: {said}. Configurations: {names(arms, 12)}."]


def flag_sentence(flag: LearningRateFlag) -> str:
    """What was tried for one combination of the other settings, and what may be missing."""
    where = names([clean(f"{key} = {value}") for key, value in flag.structure], 6)
    where = where or "all configurations"
    low, high = significant(flag.tried[0]), significant(flag.tried[-1])
    if flag.kind == "not varied":
        arms = names([code(arm) for arm in flag.arms], 6)
        return (
            f"{where}: trained at one learning rate ({low}); another one could change the place "
            f"of {arms}."
        )
    span = f"{len(flag.tried)} learning rates from {low} to {high}"
    if flag.best is None:
        return f"{where}: none of {span} finished."
    best = significant(flag.best)
    if flag.kind == "inside":
        return f"{where}: the best of {span} is {best}, inside the range tried."
    way = "lower" if flag.kind == "at the lowest" else "higher"
    end = flag.kind.removeprefix("at the ")
    return f"{where}: the best of {span} is {best}, the {end}; a {way} one may be better."


def rate_mark(judgement: Judgement, arm: str) -> str:
    """The remark on the learning rate beside a configuration in the ranking."""
    return next((MARKS[flag.kind] for flag in judgement.rate_flags if arm in flag.arms), "")
