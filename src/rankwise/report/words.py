"""The sentences that more than one part of the report says: verdict, recommendation, costs.

Names are marked as code (`document.code`); `document.clean` takes the marks away. `digits` are the
decimals of the metric.
"""

from rankwise.analysis.front import SAME_COST
from rankwise.analysis.verdict import ArmResult, DetectableEffect, Difference, Distance, Verdict
from rankwise.report.changes import deciding
from rankwise.report.document import code, strong
from rankwise.results.judge import Judgement, words
from rankwise.results.race import Race
from rankwise.results.records import ArmFacts, Cost, RunFacts
from rankwise.text import (
    at_most,
    bounds,
    count,
    decimals_for,
    duration,
    interval,
    names,
    number,
    percent,
    size,
    state_words,
    whole,
)

FEW_GROUPS = 10
FEW_SEEDS = 3
UNLIKE = 6.0
CLAIMS = {
    "seeds and examples": "The intervals hold for other seeds and other {examples} of the same "
    "kind.",
    "seeds": "The intervals hold for other seeds on the same examples. Without scores by example, "
    "nothing is known about other examples.",
    "examples": "The intervals hold for other {examples} of the same kind, but only for these "
    "trained runs: with one seed per configuration, nothing is known about other seeds.",
    "nothing": "There are no intervals: with one seed per configuration and no scores by example, "
    "the noise cannot be estimated.",
}

BASES = {
    "winner": "significantly better than all others",
    "runs": "best of these runs, one seed each",
    "only": "the only one with a result",
    "within": "cheapest of those within the tolerance of the best",
    "tie": "best mean of those that can be the best",
    "look": "best mean; no recommendation, the noise is unknown",
    "withdrawn": "withdrawn: its adapter, loaded from disk by peft, gives another loss",
    "none": "no finished run",
}


def claim(verdict: Verdict) -> str:
    """What the intervals hold for, or why there are none."""
    if verdict.unit == "groups of examples" and "examples" not in verdict.claim:
        what = "The examples form too few groups to say anything about other groups"
        what += f" ({count(verdict.examples, 'group')}, or most examples in few of them)"
        if verdict.claim == "seeds":
            return f"{what}; the intervals hold for other seeds on the same examples."
        return f"{what}, and with one seed per configuration there are no intervals."
    return CLAIMS[verdict.claim].format(examples=verdict.unit)


def of_these_runs(verdict: Verdict) -> str:
    """What must be added to a claim that rests on one seed each."""
    return " of these runs" if verdict.claim == "examples" else ""


def verdict_sentences(verdict: Verdict, digits: int, race: Race | None = None) -> tuple[str, ...]:
    """Headline, noise floor, detectable difference, claim, what would decide ties, cautions."""
    said = [headline(verdict, digits)]
    if verdict.best is not None:
        said += [noise(verdict, digits), detectable(verdict, digits), claim(verdict)]
    return (*(text for text in said if text), *deciding(verdict), *cautions(verdict, race))


def headline(verdict: Verdict, digits: int, trained_once: bool = False) -> str:
    """The winner, the tie, or that no answer is possible and why.

    trained_once: the only result is a training that several configurations share.
    """
    metric = words(verdict.metric)
    ranked = sorted((arm for arm in verdict.arms if arm.place), key=lambda arm: arm.place or 0)
    if not ranked:
        return strong(f"No run has finished with a finite {metric}, so nothing can be compared.")
    best = ranked[0]
    looks = f"{code(best.arm)} has the best {metric} ({number(best.mean, digits)})"
    if len(ranked) == 1:
        what = "training" if trained_once else "configuration"
        return f"{strong(f'Only one {what} has a result:')} {looks}."
    if verdict.claim == "nothing":
        gap = abs((ranked[1].fitted or 0.0) - (best.fitted or 0.0))
        return (
            f"{strong('Cannot tell which configuration is best.')} {looks}, "
            f"{number(gap, digits)} better than {code(ranked[1].arm)}. With one seed per "
            "configuration, no scores by example and no test size, this may be chance."
        )
    if verdict.winner is not None:
        return f"{strong('Best:')} {_better_than_all(verdict, best, digits)}."
    if verdict.stands_out is not None:
        return (
            f"{strong('Best of these runs:')} {_better_than_all(verdict, best, digits)}. With one "
            "seed per configuration, another seed may change the order, so no winner is declared."
        )
    if len(verdict.tie_group) == 1 and not verdict.declared:
        return f"{strong('Not finished:')} {looks}; no winner is declared while runs are missing."
    if len(verdict.tie_group) == 1:
        return (
            f"{strong('Nearly decided:')} {looks}. It is the only one in the 95 % confidence set "
            "of the best, but not in the 97.5 % set that a winner needs."
        )
    tied = names([code(name) for name in verdict.tie_group], 4)
    title = f"{len(verdict.tie_group)} of {len(ranked)} configurations are tied for best"
    title += f"{of_these_runs(verdict)}:"
    return f"{strong(title)} {tied}. {looks}, but this may be chance."


def _better_than_all(verdict: Verdict, best: ArmResult, digits: int) -> str:
    nearest, others = verdict.distances[1], len(verdict.distances) - 1
    rest = code(nearest.arm) if others == 1 else f"each of the {others} others"
    return (
        f"{code(best.arm)}, {words(verdict.metric)} {number(best.mean, digits)}, is significantly "
        f"better than {rest}; {code(nearest.arm)} is {behind(nearest, digits)}"
    )


def behind(found: Distance, digits: int) -> str:
    """`worse by 0.031 (0.012 to 0.050)`, or what is known of it.

    Where a worse one may be worse by next to nothing, only the upper bound is said.
    """
    text = f"worse by {number(found.value, digits)}"
    if found.low is None or found.high is None:
        return text
    if found.low > 0:
        return f"{text} ({bounds(found.low, found.high, digits)})"
    return f"{text} (at most {at_most(found.high, digits)})"


def compared(found: Difference, lower_is_better: bool, digits: int) -> str:
    """`worse by 0.007 (from 0.027 better to 0.041 worse)`: the first against the other."""
    sign = 1 if lower_is_better else -1

    def side(value: float) -> str:
        return f"{number(abs(value), digits)} {'worse' if value > 0 else 'better'}"

    word = "worse" if sign * found.value > 0 else "better"
    text = f"{word} by {number(abs(found.value), digits)}"
    if found.low is None or found.high is None:
        return f"{text} (the noise is unknown)"
    low, high = sorted((sign * found.low, sign * found.high))
    if low <= 0 <= high:
        return f"{text} (from {side(low)} to {side(high)})"
    small, large = sorted((abs(low), abs(high)))
    return f"{text} ({bounds(small, large, digits)})"


def noise(verdict: Verdict, digits: int) -> str:
    """The noise floor: how much runs of one configuration differ."""
    found = verdict.noise
    if found is None:
        return "Noise floor: unknown, because no configuration has two finished seeds."
    paired = f"; {number(found.paired, digits)} in comparisons at the same seeds"
    return (
        "Noise floor: the standard deviation between seeds of one configuration is "
        f"{number(found.within, digits)} "
        f"(95 % interval {interval(found.low, found.high, digits)}){paired * verdict.paired}."
    )


def detectable(verdict: Verdict, digits: int) -> str:
    """How small a difference from the best this study can detect; empty where unknown."""
    found = verdict.detectable
    if found is None:
        return ""
    each = sorted({arm.finished for arm in verdict.arms if arm.finished})
    seeds = f"{' to '.join(str(n) for n in dict.fromkeys((each[0], each[-1])))} seed"
    seeds += "s" if each[-1] > 1 else ""
    examples = f" and {found.examples:,} {verdict.unit}" if found.examples else ""
    return (
        f"Detectable difference: with {seeds} per configuration{examples}, a configuration that is "
        f"better than all others by {number(found.value, digits)} or more is found with a "
        f"probability of {percent(found.power, 0)} or more{_unlike(found, digits)}. Smaller "
        "differences may exist."
    )


def _unlike(found: DetectableEffect, digits: int) -> str:
    """A remark where some configurations have much less noise between them than others."""
    if found.value < UNLIKE * found.smallest:
        return ""
    return (
        " (configurations with little noise between them are distinguished from "
        f"{number(found.smallest, digits)} on)"
    )


def cautions(verdict: Verdict, race: Race | None = None) -> tuple[str, ...]:
    """What a reader must know before using the verdict."""
    found = [*_look_cautions(verdict), *_run_cautions(verdict, race), *_claim_cautions(verdict)]
    if verdict.unit == "groups of examples" and 0 < verdict.examples < FEW_GROUPS:
        found.append(
            f"The examples form only {count(verdict.examples, 'group')}. With so few groups, the "
            "intervals rest on the assumption that group means are normally distributed."
        )
    return tuple(found)


def _look_cautions(verdict: Verdict) -> list[str]:
    if verdict.share == 1:
        return []
    return [
        "This study was judged before, with fewer runs. Looking until something is significant "
        "finds chance, so this look uses a smaller level: what stands here as 95 % or as 0.05 is "
        f"computed at {percent(1 - 0.05 * verdict.share, 2)} or {0.05 * verdict.share:.2g}; p "
        "values are adjusted."
    ]


def _run_cautions(verdict: Verdict, race: Race | None) -> list[str]:
    found = [] if race is None else _seed_cautions(verdict)
    for arm in verdict.arms:
        runs = count(arm.finished + arm.missing, "run")
        if arm.finished == 0 and not (race and (race.stop_of(arm.arm) or race.unbegun_of(arm.arm))):
            found.append(f"{code(arm.arm)} is not ranked: none of its {runs} has a score.")
        elif arm.finished and arm.missing and verdict.seeds > 1 and race is None:
            found.append(
                f"{code(arm.arm)}: {arm.missing} of {runs} without a score; its mean is that of "
                "the finished runs."
            )
        if arm.unstable and arm.spread is not None:
            spread = number(arm.spread, decimals_for(arm.spread))
            found.append(
                f"{code(arm.arm)} has a standard deviation of {spread} over seeds, significantly "
                "more than most configurations (F test, 5 % over all of them); its intervals use "
                "the standard deviation of the noisier ones."
            )
    unclear = [code(arm.arm) for arm in verdict.arms if arm.unclear]
    if unclear:
        found.append(
            f"The runs of {names(unclear, 6)} differ more than those of most configurations. With "
            "so few seeds this may be chance, so their own standard deviation is used and their "
            "intervals are wide; a third or fourth seed would tell."
        )
    return found


def _seed_cautions(verdict: Verdict) -> list[str]:
    """That a race gives its configurations unequal numbers of seeds."""
    each = sorted({arm.finished for arm in verdict.arms if arm.finished})
    if len(each) < 2:
        return []
    return [
        f"Configurations have {each[0]} to {each[-1]} finished runs, as the race gave further "
        "seeds only to those that may be best. They are compared by a fit of configurations and "
        "seeds, not by plain means."
    ]


def run_state(run: RunFacts) -> str:
    """How a run ended, or that it has not."""
    return state_words(run.state) if run.run is not None else run.state.replace("_", " ")


def _test_items(verdict: Verdict) -> str:
    """What is not known where there is a test size and no scores by example."""
    if verdict.claim == "examples":
        return (
            "It is not recorded which test items each run got right, so the intervals treat "
            "configurations as if tested on different items. They are wider than needed where the "
            "items are the same; scores by example would make them narrower."
        )
    best = next((arm.mean for arm in verdict.arms if arm.place == 1), None) or 0.0
    half = 1.96 * (best * (1 - best) / verdict.examples) ** 0.5
    return (
        f"With {verdict.examples:,} test items, a share such as {number(best, 3)} varies by about "
        f"{number(half, decimals_for(half))} (95 %) from one such set of items to another. Much of "
        "that is common to all configurations. How much is not recorded, so the differences hold "
        "for these test items only; scores by example would show what holds for others."
    )


def _claim_cautions(verdict: Verdict) -> list[str]:
    found = []
    if verdict.unit == "test items" and verdict.examples:
        found.append(_test_items(verdict))
    if "seeds" in verdict.claim and verdict.seeds <= FEW_SEEDS and len(verdict.pairs.arms) > 2:
        found.append(
            f"With {count(verdict.seeds, 'seed')}, a configuration that is less stable than the "
            "others is not always recognised. Where one had ten times the standard deviation of "
            "the others over seeds, 95 % intervals of its differences included the truth in 91 to "
            "94 % of simulated studies (docs/calibration.md)."
        )
    if "seeds" in verdict.claim and not verdict.paired:
        found.append(
            "The configurations have no common seeds, so they are compared without pairing and "
            "the intervals are wider."
        )
    return found


def reason(judgement: Judgement) -> str:
    """Why this configuration is recommended, or why none is, as the end of a sentence."""
    choice, verdict = judgement.choice, judgement.verdict
    found = choice.recommendation
    if choice.withdrawn is not None:
        return (
            f"the adapter of {code(choice.withdrawn)}, loaded from disk by peft, does not give the "
            f"loss that training measured"
        )
    if found.arm is None and choice.arm is None:
        return f"no configuration has a finite {words(verdict.metric)}"
    if found.arm is None:
        return "the noise is unknown, so the differences may be chance"
    if choice.basis == "winner":
        return "it is significantly better than all others"
    if choice.basis == "runs":
        return "it is the best of these runs; with one seed each, another seed may change the order"
    if choice.basis == "only":
        return "it is the only configuration with a result"
    cost, lowest = words(found.cost), "fewest" if found.cost.endswith("params") else "lowest"
    if choice.basis == "within":
        within = number(verdict.tolerance, judgement.digits + 1)
        among = f"the configurations shown to be within {within} of the best"
        if found.price is None:
            return f"it has the best mean of {among} ({cost}: not known)"
        text = f"it has the {lowest} {cost} of {among}"
    else:
        text = f"it has the best mean of those that can be the best ({len(found.candidates)})"
    if found.unpriced:
        text += f"; {cost} not known for {len(found.unpriced)} of them"
    return text


def may_be_worse(judgement: Judgement) -> str:
    """What the recommended configuration and the cheaper one may cost; empty where unknown."""
    found, digits = judgement.choice.recommendation, judgement.digits
    if found.distance is None or found.distance.high is None or judgement.choice.arm is None:
        return ""
    text, best = "", f"the best{of_these_runs(judgement.verdict)}"
    if found.distance.high > 0:
        text = f"It may be worse than {best} by up to {at_most(found.distance.high, digits)}."
    if found.cheaper is not None:
        price = price_of(judgement.records.arm(found.cheaper.arm), found.cost)
        text += (
            f" The cheapest that can be the best is {code(found.cheaper.arm)} ({price}): it may be "
            f"worse than {best} by up to {at_most(found.cheaper.high, digits)}."
        )
    return f"{text} These bounds hold for all configurations at once, with 95 %." if text else ""


def alternative(judgement: Judgement) -> str:
    """The configuration for little memory, against the recommended one; empty where none is."""
    other = judgement.choice.recommendation.alternative
    if other is None:
        return ""
    share = other.saved / (other.memory + other.saved)
    if share < SAME_COST:
        return f"no other configuration needs less by {percent(SAME_COST, 0)} or more."
    text = f"{code(other.arm)} needs {size(other.memory)}, {percent(share, 0)} less"
    if other.difference is None:
        return f"{text}, and is tied for best{of_these_runs(judgement.verdict)} as well."
    verdict = judgement.verdict
    said = compared(other.difference, verdict.lower_is_better, judgement.digits)
    return f"{text}; its {words(verdict.metric)} is {said}."


def cost_text(cost: Cost) -> str:
    """A cost in the unit that fits."""
    return {"bytes": size, "seconds": duration}.get(cost.unit, whole)(cost.value)


def price_of(arm: ArmFacts, name: str) -> str:
    """`294,912 trainable parameters`, or nothing where the cost is not known."""
    cost = arm.costs.get(name)
    if cost is None:
        return ""
    if cost.unit == "parameters":
        return f"{cost_text(cost)} trainable parameters"
    return f"{words(name)} {cost_text(cost)}"
