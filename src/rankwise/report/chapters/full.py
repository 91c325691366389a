"""LoRA against full fine-tuning."""

from rankwise.report.document import Block, Paragraph, Section, code, table
from rankwise.report.words import cost_text
from rankwise.results.judge import Judgement, words
from rankwise.results.records import ArmFacts
from rankwise.spec.metrics import decimals_of
from rankwise.text import MISSING, interval, names, number, percent, signed

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
