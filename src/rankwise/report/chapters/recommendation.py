"""The recommendation, and whether the learning rate was tuned for the configurations compared."""

from rankwise.analysis.rates import LearningRateFlag
from rankwise.report import trainers
from rankwise.report.changes import changes
from rankwise.report.chapters.shapes import parabola
from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Details,
    Paragraph,
    Section,
    clean,
    code,
    table,
)
from rankwise.report.words import alternative, compared, cost_text, of_these_runs, reason
from rankwise.results.judge import Judgement, words
from rankwise.results.records import ArmFacts
from rankwise.spec.tasks import decimals_of
from rankwise.text import (
    MISSING,
    count,
    names,
    number,
    percent,
    setting,
    significant,
)


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
    blocks.append(Paragraph("What would change this answer:"))
    blocks.append(Bullets(tuple(one.sentence for one in changes(judgement))))
    return Section("The configuration to use", "configuration", (*blocks, *_spellings(judgement)))


def _choice(judgement: Judgement) -> str:
    choice = judgement.choice
    if choice.basis == "look":
        return f"No recommendation: {reason(judgement)}. {code(choice.arm)} has the best mean."
    return f"{code(choice.arm)} is recommended: {reason(judgement)}."


def _spellings(judgement: Judgement) -> list[Block]:
    records, arm = judgement.records, judgement.choice.arm
    if arm is None or "spec" not in records.study:
        return []
    spec = trainers.recommended_yaml(records, judgement.choice)
    found = [
        ("recommended.yaml, to run again with rankwise", spec, "yaml"),
        ("For peft", trainers.peft_snippet(records, arm), "python"),
        ("For LLaMA-Factory", trainers.llama_factory_snippet(records, arm), "yaml"),
        ("For Axolotl", trainers.axolotl_snippet(records, arm), "yaml"),
    ]
    return [Details(title, (CodeBlock(text, lang),)) for title, text, lang in found if text]


COSTS = ("trainable_params", "memory", "step_time", "time", "storage")


def against_full(judgement: Judgement) -> Section | None:
    """The best adapter configuration and the recommended one against the best full fine-tuning."""
    verdict = judgement.verdict
    places = {r.arm: r.place for r in verdict.arms if r.place is not None}
    arms = [arm for arm in judgement.records.arms if arm.name in places]
    full = sorted((a for a in arms if a.method.startswith("full")), key=lambda a: places[a.name])
    lora = [arm for arm in arms if not arm.method.startswith("full")]
    lora.sort(key=lambda a: places[a.name])
    if not full or not lora:
        return None
    chosen = [lora[0]]
    if judgement.choice.arm in {arm.name for arm in lora[1:]}:
        chosen.append(judgement.records.arm(str(judgement.choice.arm)))
    blocks: list[Block] = [_full_table(judgement, [*chosen, full[0]])]
    for arm in chosen:
        blocks.append(Paragraph(_against(judgement, arm, full[0])))
    if len(full) == 1:
        blocks.append(
            Paragraph(
                "Full fine-tuning ran with one set of settings only. Another learning rate might "
                "be better; these results do not show it.",
                "warning",
            )
        )
    return Section("LoRA against full fine-tuning", "full", tuple(blocks))


def _full_table(judgement: Judgement, arms: list[ArmFacts]) -> Block:
    metrics = list(dict.fromkeys(name for arm in arms for name in arm.validation))
    names = [n for n in (*COSTS, *metrics) if any(n in a.costs or n in a.validation for a in arms)]
    rows = [(words(name), *(_cell(judgement, arm, name) for arm in arms)) for name in names]
    shares = [_share(arm) for arm in arms]
    if any(share is not None for share in shares):
        rows.insert(0, ("share of all parameters", *(percent(s, 4) for s in shares)))
    head = ("", *(code(arm.name) for arm in arms))
    return table(head, rows, numeric=range(1, len(head)))


def _cell(judgement: Judgement, arm: ArmFacts, name: str) -> str:
    if name in arm.costs:
        return cost_text(arm.costs[name])
    if name in arm.validation:
        digits = judgement.digits if name == judgement.verdict.metric else decimals_of(name)
        return number(arm.validation[name], digits)
    return MISSING


def _share(arm: ArmFacts) -> float | None:
    if "trainable_params" not in arm.costs or "total_params" not in arm.costs:
        return None
    return arm.costs["trainable_params"].value / arm.costs["total_params"].value


def _against(judgement: Judgement, arm: ArmFacts, full: ArmFacts) -> str:
    found, digits = judgement.verdict.difference(arm.name, full.name), judgement.digits
    metric = words(judgement.verdict.metric)
    difference = compared(found, judgement.verdict.lower_is_better, digits)
    said = ""
    if found.low is not None:
        said = ": no significant difference"
        if found.better is not None:
            said = f": {code(found.better)} is better{of_these_runs(judgement.verdict)}"
    text = f"{code(arm.name)} against {code(full.name)}: {metric} {difference}{said}."
    parts = []
    for name, verb in (("trainable_params", "trains"), ("memory", "needs"), ("time", "takes")):
        if name in arm.costs and name in full.costs and full.costs[name].value > 0:
            ratio = arm.costs[name].value / full.costs[name].value
            what = {"trainable_params": "parameters", "memory": "memory", "time": "time"}[name]
            parts.append(f"{verb} {percent(ratio, 2)} of its {what}")
    return f"{text} The adapter {names(parts)}." if parts else text


MOST_FLAGS = 6
MARKS = {
    "not varied": "only one tried",
    "at the lowest": "best at lower edge",
    "at the highest": "best at upper edge",
    "open": "",
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
    if flag.kind == "open":
        return f"{where}: the best of {span} is not known; {_open(flag)}."
    if flag.kind == "inside":
        return f"{where}: the best of {span} is {best}, inside the range tried{_inside(flag)}."
    way = "lower" if flag.kind == "at the lowest" else "higher"
    end = flag.kind.removeprefix("at the ")
    return f"{where}: the best of {span} is {best}, the {end}; a {way} one may be better."


def _inside(flag: LearningRateFlag) -> str:
    """Where the best learning rate lies, with its interval."""
    found = flag.optimum
    if found is None or found.above is None or found.below is None:
        return ""
    low, high = significant(found.above), significant(found.below)
    return f" (the best value lies between {low} and {high}{parabola(found)})"


def _open(flag: LearningRateFlag) -> str:
    """Which learning rates may be the best one."""
    candidates = flag.optimum.candidates if flag.optimum is not None else ()
    several = names([significant(rate) for rate in candidates], 8)
    text = f"{several} may each be the best, and {significant(flag.best or 0.0)} has the best mean"
    return text if len(candidates) < len(flag.tried) else f"{text}, so no edge is shown"


def rate_mark(judgement: Judgement, arm: str) -> str:
    """The remark on the learning rate beside a configuration in the ranking.

    That the best one is at an edge is said beside the configuration that is there.
    """
    flag = next((flag for flag in judgement.rate_flags if arm in flag.arms), None)
    if flag is None:
        return ""
    return "" if flag.at_the_edge and arm not in flag.best_arms else MARKS[flag.kind]
