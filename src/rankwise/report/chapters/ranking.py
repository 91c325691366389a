"""The ranking that the first lines of a report rest on."""

from rankwise.analysis.verdict import ArmResult, Distance, Verdict
from rankwise.report import figures
from rankwise.report.changes import deciding
from rankwise.report.chapters.race import label
from rankwise.report.chapters.recommendation import rate_mark
from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Figure,
    Paragraph,
    Section,
    code,
    table,
)
from rankwise.report.steps import READ_AT, caution
from rankwise.report.words import (
    behind,
    cautions,
    claim,
    cost_text,
    detectable,
    headline,
    noise,
    of_these_runs,
)
from rankwise.results.judge import Judgement, against_best, ranked, words
from rankwise.results.records import ArmFacts, Records
from rankwise.spec.tasks import decimals_of
from rankwise.text import MISSING, at_most, bounds, count, interval, names, number, p_value


def ranking(judgement: Judgement) -> Section:
    """The verdict, and every configuration: what decides first, all other columns after it."""
    verdict, records = judgement.verdict, judgement.records
    shared = any(arm.twin_of == verdict.best for arm in records.arms)
    blocks: list[Block] = [Paragraph(headline(verdict, judgement.digits, shared))]
    blocks += _tables(judgement)
    if verdict.best is not None:
        results = sorted(verdict.arms, key=lambda arm: (arm.place is None, arm.place or 0))
        blocks.append(_figure(judgement, results))
    said = (*_untrained(records), *_twins(records), *deciding(verdict))
    blocks += [Paragraph(text) for text in said]
    if judgement.on_test is not None:
        blocks.append(Paragraph(_on_test(judgement, judgement.on_test)))
    if verdict.best is not None:
        blocks.append(Bullets(_certainty(judgement)))
    return Section("Ranking", "ranking", tuple(blocks))


def _certainty(judgement: Judgement) -> tuple[str, ...]:
    """The noise, what it lets this study find, what the intervals hold for, and cautions."""
    verdict, digits, records = judgement.verdict, judgement.digits, judgement.records
    said = (noise(verdict, digits), detectable(verdict, digits), claim(verdict))
    return (*(text for text in said if text), *caution(records), *cautions(verdict, records.race))


HEAD = ("", "configuration", "verdict")
BEHIND = ("behind best", "at most")
MORE = ("95 % bounds", "p", "test", "runs", "spread", "own 95 % interval", "learning rate")


def _tables(judgement: Judgement) -> list[Block]:
    """The columns that decide, and the others folded away."""
    verdict, records = judgement.verdict, judgement.records
    against = {distance.arm: distance for distance in verdict.distances}
    found, arms = {result.arm: result for result in verdict.arms}, ranked(judgement)
    rows = [
        _rank_row(judgement, found[arm.name], arm, against.get(arm.name))
        if arm.twin_of is None
        else _twin_row(judgement, arm)
        for arm in arms
    ]
    marked = [i for i, arm in enumerate(arms) if found[arm.twin_of or arm.name].tied]
    first = (*HEAD, words(verdict.metric), *BEHIND, words(records.cost))
    cut = len(first)
    main = table(
        first, [row[:cut] for row in rows], (0, *range(3, cut)), marked, caption=_caption(judgement)
    )
    more = table(
        (*HEAD[:2], *MORE),
        [(*row[:2], *row[cut:]) for row in rows],
        (0, 2, 3, 4, 5, 6, 7),
        marked,
        caption=_more_caption(judgement),
    )
    return [main, Details("More columns of the ranking", (more,), folds=False)]


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
        out = "" if chosen in test.tie_group else ", and is ruled out as the best there"
        distance = test.distance(judgement.records.arm(chosen).twin_of or chosen)
        text += f" The recommended {code(chosen)} is {behind(distance, judgement.digits)}{out}."
    return text


def _rank_row(
    judgement: Judgement, result: ArmResult, arm: ArmFacts, distance: Distance | None
) -> tuple[str, ...]:
    verdict, digits = judgement.verdict, judgement.digits
    price = _price(judgement, arm)
    mark = rate_mark(judgement, arm.name)
    if result.place is None or distance is None:
        why = label(judgement.records.race, arm.name)
        why = why or ("not yet run" if not arm.failed else "no result, not ranked")
        start = (MISSING, code(arm.name), why, *[MISSING] * 3, price)
        return (*start, *[MISSING] * 3, _runs(arm), MISSING, MISSING, mark)
    first = result.place == 1
    alone = verdict.winner == result.arm or verdict.stands_out == result.arm
    return (
        str(result.place),
        code(arm.name),
        standing(verdict, result),
        number(result.mean, digits),
        MISSING if first else number(distance.value, digits),
        MISSING if alone else at_most(distance.high, digits),
        price,
        MISSING if alone else bounds(distance.low, distance.high, digits),
        MISSING if first else p_value(distance.p),
        number(arm.test.get(verdict.metric), digits),
        _runs(arm),
        number(result.spread, digits),
        interval(result.low, result.high, digits),
        mark,
    )


def standing(verdict: Verdict, result: ArmResult) -> str:
    """What is said of an arm in the ranking, in a word or two."""
    if verdict.winner == result.arm:
        return "best"
    if verdict.stands_out == result.arm:
        return "best of these runs"
    if verdict.claim == "nothing":
        return "best mean" if result.place == 1 else "cannot tell"
    out = "ruled out (these runs)" if of_these_runs(verdict) else "ruled out"
    said = "best mean" if result.place == 1 else "tied" if result.tied else out
    return f"{said}, within tolerance" if result.equal else said


def _twin_row(judgement: Judgement, arm: ArmFacts) -> tuple[str, ...]:
    """A configuration that shares another's training: shown, and not counted again."""
    digits, metric = judgement.digits, judgement.verdict.metric
    said = f"shares the training of {code(arm.twin_of)}"
    test, price = number(arm.test.get(metric), digits), _price(judgement, arm)
    start = (MISSING, code(arm.name), said, number(arm.mean, digits), MISSING, MISSING, price)
    return (*start, MISSING, MISSING, test, _runs(arm), *[MISSING] * 3)


def _price(judgement: Judgement, arm: ArmFacts) -> str:
    cost = arm.costs.get(judgement.records.cost)
    return MISSING if cost is None else cost_text(cost)


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
    planned = len(arm.seeds_done) + len(arm.failed) + len(arm.open) + len(arm.stopped)
    done = len(arm.seeds_done)
    return f"{done}" if done == planned else f"{done} of {planned}"


def _caption(judgement: Judgement) -> str:
    better = "lower" if judgement.verdict.lower_is_better else "higher"
    read = READ_AT[judgement.records.steps]
    verdict = judgement.verdict
    text = (
        f"{words(verdict.metric).capitalize()}, {better} is better"
        f"{f', {read}' if read else ''}; mean over seeds. Behind best: how much worse than the "
        "best mean, at equal seeds and examples. At most: with 95 %, no more than so much worse "
        "than the truly best configuration, right for all rows at once. Ruled out: not the best, "
        "with 95 %, counting all comparisons. The tie group is highlighted in the HTML page."
    )
    if judgement.records.race is not None:
        text += (
            " Stopped at: the race ended it after that share of its steps, so it has no result "
            "(see Race)."
        )
    if of_these_runs(verdict):
        text += " With one seed each, all of this is said of these runs, not of other seeds."
    return text


def _more_caption(judgement: Judgement) -> str:
    text = (
        "95 % bounds: at least and at most so much worse than the truly best configuration, right "
        "for all rows at once; where they begin at 0, one that is ruled out is worse, and by how "
        "much at least is not known. p: of being the best, adjusted for all comparisons; below "
        "0.05 a configuration is ruled out. Spread: standard deviation over seeds. Own interval: "
        "of its mean alone; it decides nothing, as configurations are compared on the same seeds "
        "and examples."
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
