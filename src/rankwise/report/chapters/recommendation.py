"""The configuration to use: why, an alternative, what would change it, and how to spell it."""

from rankwise.report import snippets, trainers
from rankwise.report.chapters.learning_rate import flag_sentence
from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Details,
    Paragraph,
    Section,
    code,
    table,
)
from rankwise.report.words import alternative, deciding, reason
from rankwise.results.judge import Judgement
from rankwise.text import names, setting


def recommendation(judgement: Judgement) -> Section | None:
    """The recommended configuration, the reasons, and its files for several tools."""
    choice, records = judgement.choice, judgement.records
    if choice.arm is None:
        return None
    arm = records.arm(choice.arm)
    rows = [
        (code(name), code(setting(arm.settings[name])))
        for name in records.varying
        if name in arm.settings
    ]
    blocks: list[Block] = [Paragraph(_choice(judgement))]
    if rows:
        caption = "Its settings among those that differ in this study."
        blocks.append(table(("setting", "value"), rows, caption=caption))
    if choice.recommendation.alternative is not None:
        blocks.append(Paragraph(f"For little memory: {alternative(judgement)}"))
    changes = would_change(judgement)
    if changes:
        blocks.append(Paragraph("What would change this answer:"))
        blocks.append(Bullets(changes))
    return Section("The configuration to use", "configuration", (*blocks, *_spellings(judgement)))


def _choice(judgement: Judgement) -> str:
    choice, behind = judgement.choice, judgement.verdict.behind
    if choice.basis == "look":
        return f"No recommendation: {reason(judgement)}. {code(choice.arm)} has the best mean."
    text = f"{code(choice.arm)} is recommended: {reason(judgement)}."
    if choice.basis == "tie" and behind:
        text += (
            " Left out are configurations whose difference from the best has a 95 % interval, not "
            "adjusted for the number of configurations, that excludes zero."
        )
    return text


def would_change(judgement: Judgement) -> tuple[str, ...]:
    """What would change the recommendation, or make one possible."""
    verdict, arm = judgement.verdict, judgement.choice.recommendation.arm
    if verdict.best is None:
        return ()
    found = list(deciding(verdict, most=2))
    if verdict.claim == "nothing" and len(verdict.tie_group) > 1:
        found.append(
            "A second seed for each configuration, scores by example, or the size of the test set."
        )
    elif "seeds" not in verdict.claim:
        found.append("More seeds: with one seed per configuration, another may change the order.")
    elif verdict.claim == "seeds":
        found.append("Scores by example: whether the order holds on other examples is not known.")
    failed = [code(a.arm) for a in verdict.arms if a.finished == 0]
    if failed:
        found.append(f"A finished run of {names(failed, 6)}, not ranked now.")
    found += [
        flag_sentence(flag)
        for flag in judgement.rate_flags
        if flag.kind != "inside" and (arm is None or arm in flag.arms)
    ]
    return tuple(found)


def _spellings(judgement: Judgement) -> list[Block]:
    records, arm = judgement.records, judgement.choice.arm
    if arm is None or "spec" not in records.study:
        return []
    spec = snippets.recommended_yaml(records, judgement.choice)
    found = [
        ("recommended.yaml, to run again with rankwise", spec, "yaml"),
        ("For peft", snippets.peft_snippet(records, arm), "python"),
        ("For LLaMA-Factory", trainers.llama_factory_snippet(records, arm), "yaml"),
        ("For Axolotl", trainers.axolotl_snippet(records, arm), "yaml"),
    ]
    return [Details(title, (CodeBlock(text, lang),)) for title, text, lang in found if text]
