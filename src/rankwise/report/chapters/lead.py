"""The first ten lines, and the ranking that they rest on."""

from rankwise.analysis.verdict import ArmResult, Difference, Verdict
from rankwise.analysis.verdict_words import cautions, settling
from rankwise.report import figures
from rankwise.report.chapters.effects import rate_mark
from rankwise.report.document import (
    Block,
    Bullets,
    Figure,
    Paragraph,
    Section,
    clean,
    code,
    strong,
    table,
)
from rankwise.report.numbers import (
    MISSING,
    count,
    duration,
    interval,
    listing,
    number,
    p_value,
    plural,
    signed,
    size,
)
from rankwise.results.judge import Judgement, against_best, ranked, words
from rankwise.results.records import ArmFacts, Records
from rankwise.spec.metrics import decimals_of

CLAIMS = {
    "seeds and examples": "other seeds and other examples of the same kind",
    "seeds": "other seeds on these very examples; no record by example was kept",
    "examples": "other examples of the same kind, but for these very runs: with one seed an arm "
    "nothing is known of what another seed would give",
    "nothing": "nothing beyond these runs: with one seed an arm and no record by example there is "
    "nothing to measure noise by",
}

WHY = {
    "winner": "the best arm",
    "runs": "the best of these runs, one seed an arm",
    "only": "the only arm with a result",
}


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The verdict, noise floor, detectable effect, recommendation and failures, in that order."""
    items = [_failures(judgement)]
    if judgement.verdict.best is not None:
        speaks = f"The intervals speak for {CLAIMS[judgement.verdict.claim]}."
        first = [_noise(judgement), _detectable(judgement), _use(judgement)]
        items = [*first, *items, speaks]
    return (
        Paragraph(_headline(judgement), "verdict"),
        Bullets(tuple(item for item in items if item)),
    )


def _headline(judgement: Judgement) -> str:
    verdict, digits = judgement.verdict, judgement.digits
    metric = words(verdict.metric)
    if verdict.best is None:
        return strong("No run has finished, so there is nothing to compare.")
    best = next(arm for arm in verdict.arms if arm.arm == verdict.best)
    value = number(best.mean, digits)
    compared = sum(arm.place is not None for arm in verdict.arms)
    if compared == 1:
        shared = any(arm.twin_of == best.arm for arm in judgement.records.arms)
        what = f"One {'training' if shared else 'arm'}, nothing to compare it with:"
        return f"{strong(what)} {code(best.arm)}, {metric} {value}."
    if verdict.claim == "nothing":
        return (
            f"{strong('Cannot tell.')} {code(best.arm)} looks best ({metric} {value}), but one "
            "seed an arm and no record by example leave no way to say whether that is chance."
        )
    if verdict.winner is not None:
        return f"{strong('Best:')} {code(best.arm)}, {metric} {value}, set apart from all others."
    if verdict.stands_out is not None:
        return (
            f"{strong('Best of these runs:')} {code(best.arm)}, {metric} {value}, set apart from "
            "all others by the examples. One seed an arm: another seed may turn the order."
        )
    tied = listing([code(name) for name in verdict.tie_group], 4)
    return (
        f"{strong(f'{len(verdict.tie_group)} of {compared} arms are tied for best:')} {tied}. "
        f"{code(best.arm)} looks best ({metric} {value}), within what chance does."
    )


def _noise(judgement: Judgement) -> str:
    noise, digits = judgement.verdict.noise, judgement.digits
    if noise is None:
        return (
            "Noise floor: unknown. No arm has two finished seeds, so it cannot be said how far "
            "the same arm lands from itself."
        )
    return (
        f"Noise floor: one arm run again with another seed moves by {number(noise.within, digits)} "
        f"(standard deviation; 95 % interval {interval(noise.low, noise.high, digits)}), "
        f"of which {number(noise.paired, digits)} remains when arms are compared at the same seed."
    )


def _detectable(judgement: Judgement) -> str:
    found, verdict = judgement.verdict.detectable, judgement.verdict
    if found is None:
        return ""
    each = sorted({arm.finished for arm in verdict.arms if arm.finished})
    seeds = f"{' to '.join(str(n) for n in dict.fromkeys((each[0], each[-1])))} seed"
    seeds += "s an arm" if each[-1] > 1 else " an arm"
    examples = f" and {found.examples:,} {verdict.unit}" if found.examples else ""
    return (
        f"Could have been seen: with {seeds}{examples}, a true difference of "
        f"{number(found.value, judgement.digits)} from the best is found with a chance of "
        f"{100 * found.power:.0f} % or more. Smaller ones may be there, unseen."
    )


def _use(judgement: Judgement) -> str:
    choice, records = judgement.choice, judgement.records
    if choice.arm is None:
        return ""
    name = strong(code(choice.arm))
    price = price_of(records.arm(choice.arm), records.cost)
    if choice.basis == "look":
        return f"Nothing can be recommended on this; if you must choose, {name}{price} looks best."
    why = (
        WHY[choice.basis]
        if choice.basis in WHY
        else f"of the tied arms the cheapest by {words(records.cost)}{_loss(judgement)}"
        if price
        else "the best-looking of the tied arms (their costs are not known)"
    )
    return f"Use {name}{price}: {why}."


def _loss(judgement: Judgement) -> str:
    """What the cheap choice may cost in quality."""
    found = [d for d in judgement.verdict.with_best if d.arm == judgement.choice.arm]
    if not found or found[0].low is None:
        return ""
    digits = judgement.digits
    return (
        f"; from the best-looking it differs by {signed(found[0].value, digits)} "
        f"({interval(found[0].low, found[0].high, digits)})"
    )


def price_of(arm: ArmFacts, name: str) -> str:
    """ " (294,912 trainable parameters)", or nothing where the cost is not known."""
    cost = arm.costs.get(name)
    if cost is None:
        return ""
    text = {"bytes": size, "seconds": duration}.get(cost.unit, count)(cost.value)
    what = "trainable parameters" if cost.unit == "parameters" else words(name)
    return f" ({text} {what})" if cost.unit == "parameters" else f" ({what} {text})"


def _failures(judgement: Judgement) -> str:
    records = judgement.records
    failed = [run for run in records.runs if run.id in {f for a in records.arms for f in a.failed}]
    still = [run for run in records.runs if run.state in ("planned", "running")]
    parts = []
    if failed:
        states = dict.fromkeys(run.state for run in failed)
        counts = [f"{sum(r.state == s for r in failed)} {s.replace('_', ' ')}" for s in states]
        parts.append(
            f"{plural(len(failed), 'run')} ended without a result ({listing(counts)}) and "
            f"{'is' if len(failed) == 1 else 'are'} not ranked."
        )
    if still:
        parts.append(f"{plural(len(still), 'run')} of {len(records.runs)} not yet run.")
    return " ".join(parts)


def ranking(judgement: Judgement) -> Section:
    """Every arm with its mean, interval, distance from the best, and whether it is tied."""
    verdict, records = judgement.verdict, judgement.records
    against = {difference.arm: difference for difference in verdict.with_best}
    results = sorted(verdict.arms, key=lambda arm: (arm.place is None, arm.place or 0))
    found, arms = {result.arm: result for result in results}, ranked(judgement)
    rows = [
        _rank_row(judgement, found[arm.name], arm, against.get(arm.name))
        if arm.twin_of is None
        else _twin_row(judgement, arm)
        for arm in arms
    ]
    metric = words(verdict.metric)
    head = ("", "arm", "verdict", metric, "from best", "95 % interval", "p", "test")
    head_more = ("runs", "spread", "own 95 % interval", "learning rate")
    blocks: list[Block] = [
        table(
            (*head, *head_more),
            rows,
            numeric=(0, 3, 4, 5, 6, 7, 8, 9, 10),
            marked=[i for i, a in enumerate(arms) if found[a.twin_of or a.name].tied],
            caption=_caption(judgement),
        )
    ]
    if verdict.best is not None:
        blocks.append(_figure(judgement, results))
    blocks += [Paragraph(text) for text in (*_untouched(records), *_twins(records))]
    blocks += [Paragraph(clean(sentence)) for sentence in settling(verdict)]
    if judgement.on_test is not None:
        blocks.append(Paragraph(_on_test(judgement, judgement.on_test)))
    warnings = cautions(verdict)
    if warnings and verdict.best is not None:
        blocks.append(Bullets(tuple(clean(text) for text in warnings)))
    return Section("Ranking", "ranking", tuple(blocks))


def _on_test(judgement: Judgement, test: Verdict) -> str:
    """What the test part says of the choice that validation made."""
    chosen = judgement.choice.arm
    if test.best is None or chosen is None:
        return ""
    text = f"On the test part, which decided nothing, {code(test.best)} looks best"
    if len(test.tie_group) > 1:
        text += f", tied with {plural(len(test.tie_group) - 1, 'other arm')}."
    elif test.winner or test.stands_out:
        text += " and is set apart from all others there too."
    else:
        text += "."
    if chosen != test.best:
        found = test.difference(chosen, test.best)
        text += (
            f" The recommended {code(chosen)} differs from it by "
            f"{signed(found.value, judgement.digits)} "
            f"({interval(found.low, found.high, judgement.digits)})."
        )
    return text


def _rank_row(
    judgement: Judgement, result: ArmResult, arm: ArmFacts, difference: Difference | None
) -> tuple[str, ...]:
    verdict, digits = judgement.verdict, judgement.digits
    if result.place is None:
        why = "not yet run" if not arm.failed else "no result, not ranked"
        end = (_runs(arm), MISSING, MISSING, rate_mark(judgement, arm.name))
        return (MISSING, code(arm.name), why, *[MISSING] * 5, *end)
    low = high = p = None
    if difference is not None:
        low, high, p = difference.low, difference.high, difference.p_adjusted
    said = "best-looking" if difference is None else "tied" if result.tied else "worse"
    if difference is None and verdict.winner == result.arm:
        said = "best"
    if verdict.claim == "nothing" and difference is not None:
        said = "cannot tell"
    test = arm.test.get(verdict.metric)
    return (
        str(result.place),
        code(arm.name),
        said,
        number(result.mean, digits),
        signed(difference.value, digits) if difference else MISSING,
        interval(low, high, digits),
        p_value(p),
        number(test, digits),
        _runs(arm),
        number(result.spread, digits),
        interval(result.low, result.high, digits),
        rate_mark(judgement, arm.name),
    )


def _twin_row(judgement: Judgement, arm: ArmFacts) -> tuple[str, ...]:
    """An arm whose scores are another's: shown, and counted as nothing."""
    digits, metric = judgement.digits, judgement.verdict.metric
    said = f"shares the training of {code(arm.twin_of)}"
    test = number(arm.test.get(metric), digits)
    none = [MISSING] * 3
    return (MISSING, code(arm.name), said, number(arm.mean, digits), *none, test, _runs(arm), *none)


def _untouched(records: Records) -> list[str]:
    """What the base does on the validation examples before any training."""
    known = records.study.get("base_metrics", {})
    found = [f"{words(name)} {number(value, decimals_of(name))}" for name, value in known.items()]
    return [f"The untouched base, without any training: {listing(found)}."] if found else []


def _twins(records: Records) -> list[str]:
    """A sentence for each training that stands behind several arms."""
    found = []
    for arm in records.arms:
        twins = [code(other.name) for other in records.arms if other.twin_of == arm.name]
        if twins:
            share, differ = ("shares", "differs") if len(twins) == 1 else ("share", "differ")
            found.append(
                f"{listing(twins)} {share} the training of {code(arm.name)} and {differ} from it "
                "in generation alone: the losses are those of the same runs and count once; what "
                "sets these arms apart is what they answer."
            )
    return found


def _runs(arm: ArmFacts) -> str:
    planned = len(arm.seeds_done) + len(arm.failed) + len(arm.open)
    done = len(arm.seeds_done)
    return f"{done}" if done == planned else f"{done} of {planned}"


def _caption(judgement: Judgement) -> str:
    better = "lower" if judgement.verdict.lower_is_better else "higher"
    text = (
        f"{words(judgement.verdict.metric).capitalize()}, {better} is better, each run at its best "
        "validation step; mean over seeds. Spread: standard deviation over seeds. From best: "
        "difference from the best-looking arm at equal seeds and examples, which is told apart "
        "more finely than the means themselves; p is adjusted for all comparisons with the best. "
        "The tie group is set off."
    )
    if any(judgement.verdict.metric in arm.test for arm in judgement.records.arms):
        text += " Test: read once, with the weights of that step; it decides nothing."
    return text


def _figure(judgement: Judgement, results: list[ArmResult]) -> Figure:
    verdict = judgement.verdict
    rows = [_figure_row(judgement, result) for result in results if result.fitted is not None]
    metric = words(verdict.metric)
    first, last = rows[0], rows[-1]
    alt = (
        f"Ranking of {plural(len(rows), 'arm')} by {metric}, from {first.arm} at "
        f"{number(first.value, judgement.digits)} to {last.arm} at "
        f"{number(last.value, judgement.digits)}. Tie group: {listing(verdict.tie_group, 4)}."
    )
    cut = f" The first {figures.MOST_ARMS} arms." if len(rows) > figures.MOST_ARMS else ""
    caption = (
        f"{metric.capitalize()} of each arm; grey ticks are single runs. The bar is the 95 % "
        "interval of its difference from the best-looking arm (dashed line), not adjusted for "
        f"the number of arms: p in the table is.{cut}"
    )
    return Figure("ranking", caption, alt, figures.ranking(rows, metric, alt))


def _figure_row(judgement: Judgement, result: ArmResult) -> figures.RankRow:
    value, low, high = against_best(judgement.verdict, result.arm)
    runs = [run for run in judgement.records.runs_of(result.arm) if run.finished]
    return figures.RankRow(
        arm=result.arm,
        value=value,
        low=low,
        high=high,
        group="tie group" if result.tied else "worse",
        runs=tuple(float(run.value or 0.0) for run in runs),
        seeds=tuple(run.seed for run in runs),
    )
