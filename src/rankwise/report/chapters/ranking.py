"""The first lines of a report, and the ranking that they rest on."""

from rankwise.analysis.verdict import ArmResult, Distance, Verdict
from rankwise.report import figures
from rankwise.report.chapters.recommendation import rate_mark
from rankwise.report.document import Block, Bullets, Figure, Paragraph, Section, code, strong, table
from rankwise.report.steps import READ_AT, caution
from rankwise.report.words import (
    cautions,
    claim,
    deciding,
    detectable,
    headline,
    may_be_worse,
    noise,
    price_of,
    reason,
)
from rankwise.results.judge import Judgement, against_best, ranked, words
from rankwise.results.records import ArmFacts, Records
from rankwise.spec.tasks import decimals_of
from rankwise.text import MISSING, count, interval, names, number, p_value, signed


def ranking(judgement: Judgement) -> Section:
    """Every configuration: mean, interval, difference from the best, and whether it is tied."""
    verdict, records = judgement.verdict, judgement.records
    against = {distance.arm: distance for distance in verdict.distances}
    results = sorted(verdict.arms, key=lambda arm: (arm.place is None, arm.place or 0))
    found, arms = {result.arm: result for result in results}, ranked(judgement)
    rows = [
        _rank_row(judgement, found[arm.name], arm, against.get(arm.name))
        if arm.twin_of is None
        else _twin_row(judgement, arm)
        for arm in arms
    ]
    metric = words(verdict.metric)
    head = ("", "configuration", "verdict", metric, "behind best", "95 % bounds", "p", "test")
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
    said = (*_untrained(records), *_twins(records), *deciding(verdict))
    blocks += [Paragraph(text) for text in said]
    if judgement.on_test is not None:
        blocks.append(Paragraph(_on_test(judgement, judgement.on_test)))
    warnings = (*caution(records), *cautions(verdict))
    if warnings and verdict.best is not None:
        blocks.append(Bullets(warnings))
    return Section("Ranking", "ranking", tuple(blocks))


def _on_test(judgement: Judgement, test: Verdict) -> str:
    """What the test part says about the choice made on validation."""
    chosen = judgement.choice.arm
    if test.best is None or chosen is None:
        return ""
    text = f"On the test part, which was not used to choose, {code(test.best)} has the best mean"
    if len(test.tie_group) > 1:
        text += f", tied with {count(len(test.tie_group) - 1, 'other configuration')}."
    elif test.winner or test.stands_out:
        text += " and is significantly better than all others there too."
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
    judgement: Judgement, result: ArmResult, arm: ArmFacts, distance: Distance | None
) -> tuple[str, ...]:
    verdict, digits = judgement.verdict, judgement.digits
    if result.place is None or distance is None:
        why = "not yet run" if not arm.failed else "no result, not ranked"
        end = (_runs(arm), MISSING, MISSING, rate_mark(judgement, arm.name))
        return (MISSING, code(arm.name), why, *[MISSING] * 5, *end)
    test = arm.test.get(verdict.metric)
    return (
        str(result.place),
        code(arm.name),
        standing(verdict, result),
        number(result.mean, digits),
        number(distance.value, digits) if result.place > 1 else MISSING,
        interval(distance.low, distance.high, digits),
        p_value(distance.p if result.place > 1 else None),
        number(test, digits),
        _runs(arm),
        number(result.spread, digits),
        interval(result.low, result.high, digits),
        rate_mark(judgement, arm.name),
    )


def standing(verdict: Verdict, result: ArmResult) -> str:
    """What is said of an arm in the ranking, in a word or two."""
    if verdict.winner == result.arm:
        return "best"
    if verdict.claim == "nothing":
        return "best mean" if result.place == 1 else "cannot tell"
    said = "best mean" if result.place == 1 else "tied" if result.tied else "ruled out"
    return f"{said}, within tolerance" if result.equal else said


def _twin_row(judgement: Judgement, arm: ArmFacts) -> tuple[str, ...]:
    """A configuration that shares another's training: shown, and not counted again."""
    digits, metric = judgement.digits, judgement.verdict.metric
    said = f"shares the training of {code(arm.twin_of)}"
    test = number(arm.test.get(metric), digits)
    none = [MISSING] * 3
    return (MISSING, code(arm.name), said, number(arm.mean, digits), *none, test, _runs(arm), *none)


def _untrained(records: Records) -> list[str]:
    """The base's metrics on the validation examples before any training."""
    known = records.study.get("base_metrics", {})
    found = [f"{words(name)} {number(value, decimals_of(name))}" for name, value in known.items()]
    return [f"The base model without any training: {names(found)}."] if found else []


def _twins(records: Records) -> list[str]:
    """A sentence for each training that several configurations share."""
    found = []
    for arm in records.arms:
        twins = [code(other.name) for other in records.arms if other.twin_of == arm.name]
        if twins:
            share, differ = ("shares", "differs") if len(twins) == 1 else ("share", "differ")
            found.append(
                f"{names(twins)} {share} the training of {code(arm.name)} and {differ} from it "
                "only in generation settings. Their losses come from the same runs and count once; "
                "only their answers can differ."
            )
    return found


def _runs(arm: ArmFacts) -> str:
    planned = len(arm.seeds_done) + len(arm.failed) + len(arm.open)
    done = len(arm.seeds_done)
    return f"{done}" if done == planned else f"{done} of {planned}"


def _caption(judgement: Judgement) -> str:
    better = "lower" if judgement.verdict.lower_is_better else "higher"
    read = READ_AT[judgement.records.steps]
    text = (
        f"{words(judgement.verdict.metric).capitalize()}, {better} is better"
        f"{f', {read}' if read else ''}; mean over seeds. Behind best: how much worse than the "
        "best mean, at equal seeds and examples. 95 % bounds: at least and at most so much worse "
        "than the truly best configuration, right for all rows at once. p: of being the best, "
        "adjusted for all comparisons; below 0.05 a configuration is ruled out. Spread: standard "
        "deviation over seeds. The tie group is highlighted in the HTML page."
    )
    if any(judgement.verdict.metric in arm.test for arm in judgement.records.arms):
        text += (
            " Test: computed once, with the weights of each run's best step on all validation "
            "examples; not used for the ranking."
        )
    return text


def _figure(judgement: Judgement, results: list[ArmResult]) -> Figure:
    verdict = judgement.verdict
    rows = [_figure_row(judgement, result) for result in results if result.fitted is not None]
    metric = words(verdict.metric)
    first, last = rows[0], rows[-1]
    alt = (
        f"Ranking of {count(len(rows), 'configuration')} by {metric}, from {first.arm} at "
        f"{number(first.value, judgement.digits)} to {last.arm} at "
        f"{number(last.value, judgement.digits)}. Tie group: {names(verdict.tie_group, 4)}."
    )
    cut = f" The first {figures.MOST_ARMS} configurations." if len(rows) > figures.MOST_ARMS else ""
    caption = (
        f"{metric.capitalize()} of each configuration; grey ticks are single runs. The bar "
        "shows, from the best mean (dashed line), how much worse than the truly best configuration "
        f"it is at least and at most; 95 %, right for all of them at once.{cut}"
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
        group="tie group" if result.tied else "ruled out",
        runs=tuple(float(run.value or 0.0) for run in runs),
        seeds=tuple(run.seed for run in runs),
    )


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The verdict, noise floor, detectable difference, recommendation and failures, in order."""
    verdict, digits = judgement.verdict, judgement.digits
    shared = any(arm.twin_of == verdict.best for arm in judgement.records.arms)
    items = [_failures(judgement)]
    if verdict.best is not None:
        first = [noise(verdict, digits), detectable(verdict, digits), _use(judgement)]
        items = [*first, *items, claim(verdict)]
    return (
        Paragraph(headline(verdict, digits, shared), "verdict"),
        Bullets(tuple(item for item in items if item)),
    )


def _use(judgement: Judgement) -> str:
    choice, records = judgement.choice, judgement.records
    if choice.withdrawn is not None:
        return strong(f"No recommendation: {reason(judgement)}.")
    if choice.arm is None:
        return ""
    price = price_of(records.arm(choice.arm), records.cost)
    name = strong(code(choice.arm)) + (f" ({price})" if price else "")
    if choice.basis == "look":
        return f"No recommendation: {reason(judgement)}. {name} has the best mean."
    return f"Use {name}: {reason(judgement)}. {may_be_worse(judgement).strip()}".strip()


def _failures(judgement: Judgement) -> str:
    records = judgement.records
    failed = [run for run in records.runs if run.id in {f for a in records.arms for f in a.failed}]
    still = [run for run in records.runs if run.state in ("planned", "running")]
    parts = []
    if failed:
        states = dict.fromkeys(run.state for run in failed)
        counts = [f"{sum(r.state == s for r in failed)} {s.replace('_', ' ')}" for s in states]
        parts.append(
            f"{count(len(failed), 'run')} ended without a result ({names(counts)}) and "
            f"{'is' if len(failed) == 1 else 'are'} not ranked."
        )
    if still:
        parts.append(f"{count(len(still), 'run')} of {len(records.runs)} not yet run.")
    return " ".join(parts)
