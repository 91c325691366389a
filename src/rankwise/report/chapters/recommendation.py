"""The configuration to use: why, an alternative, how to spell it; full fine-tuning beside it."""

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
from rankwise.report.words import alternative, cost_text, deciding, reason
from rankwise.results.judge import Judgement, words
from rankwise.results.records import ArmFacts
from rankwise.spec.metrics import decimals_of
from rankwise.text import MISSING, interval, names, number, percent, setting, signed


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


COSTS = ("trainable_params", "memory", "step_time", "time", "storage")


def against_full(judgement: Judgement) -> Section | None:
    """The best adapter configuration and the recommended one against the best full fine-tuning."""
    verdict = judgement.verdict
    places = {r.arm: r.place for r in verdict.arms if r.place is not None}
    arms = [arm for arm in judgement.records.arms if arm.name in places]
    full = sorted((a for a in arms if a.method.startswith("full")), key=lambda a: places[a.name])
    lora = sorted((a for a in arms if a not in full), key=lambda a: places[a.name])
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
    said = (
        "cannot tell, the noise is unknown"
        if found.low is None
        else "no significant difference"
        if found.better is None
        else f"{code(found.better)} is better"
    )
    text = (
        f"{code(arm.name)} minus {code(full.name)}: {metric} {signed(found.value, digits)} "
        f"({interval(found.low, found.high, digits)}): {said}."
    )
    parts = []
    for name, verb in (("trainable_params", "trains"), ("memory", "needs"), ("time", "takes")):
        if name in arm.costs and name in full.costs and full.costs[name].value > 0:
            ratio = arm.costs[name].value / full.costs[name].value
            what = {"trainable_params": "parameters", "memory": "memory", "time": "time"}[name]
            parts.append(f"{verb} {percent(ratio, 2)} of its {what}")
    return f"{text} The adapter {names(parts)}." if parts else text
