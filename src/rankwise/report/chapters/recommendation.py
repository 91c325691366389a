"""Quality against cost, the recommendation, its alternative, and LoRA against full fine-tuning."""

import math

from rankwise.report import figures, snippets, trainers
from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Details,
    Figure,
    Paragraph,
    Section,
    clean,
    code,
    table,
)
from rankwise.report.numbers import (
    MISSING,
    count,
    duration,
    interval,
    listing,
    number,
    percent,
    plural,
    signed,
    size,
)
from rankwise.results.judge import Judgement, against_best, words
from rankwise.results.records import ArmFacts
from rankwise.spec.metrics import decimals_of
from rankwise.text import setting

LEAST_SAVING = 0.02
REASONS = {
    "winner": "It is the only arm that can be the best.",
    "runs": "It is the best of these runs; with one seed an arm, another seed may turn the order.",
    "only": "No other arm has a result to compare it with.",
}
FORMS = {"bytes": size, "seconds": duration, "parameters": count}


def recommendation(judgement: Judgement) -> Section | None:
    """The configuration to take away in four spellings, an alternative, what would change it."""
    choice, records = judgement.choice, judgement.records
    if choice.arm is None:
        return None
    arm = records.arm(choice.arm)
    rows = [
        (code(name), code(setting(arm.settings[name])))
        for name in records.varying
        if name in arm.settings
    ]
    verb = "is recommended" if choice.basis != "look" else "looks best, and no more can be said"
    blocks: list[Block] = [Paragraph(f"{code(arm.name)} {verb}. {_reason(judgement)}")]
    if rows:
        caption = "What sets it apart in this study."
        blocks.append(table(("setting", "value"), rows, caption=caption))
    if choice.recommendation.alternative is not None:
        blocks.append(Paragraph(f"For little memory: {_alternative(judgement)}"))
    changes = choice.recommendation.would_change
    if changes:
        blocks.append(Paragraph("What would change this answer:"))
        blocks.append(Bullets(tuple(clean(text) for text in changes)))
    return Section("The configuration to use", "configuration", (*blocks, *_spellings(judgement)))


def _reason(judgement: Judgement) -> str:
    choice, verdict, records = judgement.choice, judgement.verdict, judgement.records
    if choice.basis == "look":
        return clean(choice.recommendation.sentence)
    if choice.basis in REASONS:
        return REASONS[choice.basis]
    passed = [
        d.arm
        for d in verdict.with_best
        if d.arm in verdict.tie_group and d.better is not None and d.better != d.arm
    ]
    text = (
        f"It is the cheapest by {words(records.cost)} of the arms that are tied for best."
        if choice.recommendation.price is not None
        else "Its mean is the best of the arms that are tied; what they cost is not known."
    )
    if passed:
        text += (
            f" Passed over, though tied: {listing([code(name) for name in passed], 6)}, whose own "
            "interval (not adjusted for the number of arms) leaves out a difference of zero."
        )
    return text


def _alternative(judgement: Judgement) -> str:
    other = judgement.choice.recommendation.alternative
    if other is None:
        return ""
    share = other.saved / (other.memory + other.saved)
    if share < LEAST_SAVING:
        return f"no arm needs less by {percent(LEAST_SAVING, 0)} or more."
    text = f"{code(other.arm)} needs {size(other.memory)}, {percent(share)} less"
    if other.difference is None:
        return f"{text}, and is tied for best as well."
    found, digits = other.difference, judgement.digits
    return (
        f"{text}; its {words(judgement.verdict.metric)} differs by {signed(found.value, digits)} "
        f"({interval(found.low, found.high, digits)})."
    )


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


def front(judgement: Judgement) -> Section | None:
    """Which arms no other beats at their price."""
    found, records = judgement.front, judgement.records
    if len(found.front) + len(found.dominated) < 2:
        return None
    cost = words(found.cost)
    on = listing([code(name) for name in found.front], 12)
    blocks: list[Block] = [
        Paragraph(
            f"On the front of {words(judgement.verdict.metric)} against {cost}, cheapest first: "
            f"{on}. An arm is off the front only if another costs no more and is better beyond "
            "chance (Holm over all pairs, 5 %)."
        ),
        _front_figure(judgement),
    ]
    if found.dominated:
        rows = [(code(d.arm), code(d.by)) for d in found.dominated]
        blocks.append(Details("Off the front, and what beats them", (table(("arm", "by"), rows),)))
    if found.unpriced:
        names = listing([code(name) for name in found.unpriced])
        blocks.append(Paragraph(f"Without a known {cost}, and so not placed: {names}.", "small"))
    if records.cost != "trainable_params" and "trainable_params" not in records.arms[0].costs:
        blocks.append(Paragraph("Trainable parameters are not known.", "small"))
    return Section("Quality against cost", "front", tuple(blocks))


def _front_figure(judgement: Judgement) -> Figure:
    records, found = judgement.records, judgement.front
    off = {d.arm for d in found.dominated}
    points = []
    for name in (*found.front, *(d.arm for d in found.dominated)):
        value, low, high = against_best(judgement.verdict, name)
        points.append(
            figures.FrontPoint(
                arm=name,
                cost=records.arm(name).costs[found.cost].value,
                value=value,
                low=value if math.isnan(low) else low,
                high=value if math.isnan(high) else high,
                front="off the front" if name in off else "on the front",
            )
        )
    metric, cost = words(judgement.verdict.metric), words(found.cost)
    unit = records.arm(points[0].arm).costs[found.cost].unit
    axis = cost if unit == "parameters" else f"{cost} ({unit})"
    alt = (
        f"{metric.capitalize()} against {cost} for {plural(len(points), 'arm')}. On the "
        f"front, cheapest first: {listing(list(found.front), 6)}."
    )
    caption = (
        f"{metric.capitalize()} against {cost}; bars are 95 % intervals of the difference from "
        "the best-looking arm, as in the ranking."
    )
    return Figure("front", caption, alt, figures.quality_cost(points, (axis, metric), alt))


def against_full(judgement: Judgement) -> Section | None:
    """The best adapter arm and the recommended one against each full fine-tuning."""
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
                "Full fine-tuning ran with one set of settings only. Whether it would do better "
                "with another learning rate is not shown here.",
                "warning",
            )
        )
    return Section("LoRA against full fine-tuning", "full", tuple(blocks))


def _full_table(judgement: Judgement, arms: list[ArmFacts]) -> Block:
    metrics = list(dict.fromkeys(name for arm in arms for name in arm.validation))
    names = [n for n in (*COSTS, *metrics) if any(n in a.costs or n in a.validation for a in arms)]
    rows = [(_row_name(name), *(_cell(judgement, arm, name) for arm in arms)) for name in names]
    shares = [_share(arm) for arm in arms]
    if any(share is not None for share in shares):
        rows.insert(0, ("share of all parameters", *(percent(s, 4) for s in shares)))
    head = ("", *(code(arm.name) for arm in arms))
    return table(head, rows, numeric=range(1, len(head)))


COSTS = ("trainable_params", "memory", "step_time", "time", "storage")


def _row_name(name: str) -> str:
    return words(name)


def _cell(judgement: Judgement, arm: ArmFacts, name: str) -> str:
    if name in arm.costs:
        cost = arm.costs[name]
        return FORMS[cost.unit](cost.value)
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
        "cannot tell whether by chance"
        if found.low is None
        else "not told apart"
        if found.better is None
        else f"{code(found.better)} is better"
    )
    text = (
        f"{code(arm.name)} less {code(full.name)}: {metric} {signed(found.value, digits)} "
        f"({interval(found.low, found.high, digits)}): {said}."
    )
    parts = []
    for name, verb in (("trainable_params", "trains"), ("memory", "needs"), ("time", "takes")):
        if name in arm.costs and name in full.costs and full.costs[name].value > 0:
            ratio = arm.costs[name].value / full.costs[name].value
            what = {"trainable_params": "parameters", "memory": "memory", "time": "time"}[name]
            parts.append(f"{verb} {percent(ratio, 2)} of its {what}")
    return f"{text} The adapter {listing(parts)}." if parts else text
