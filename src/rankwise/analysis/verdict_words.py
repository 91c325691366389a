"""The verdict in sentences: what is claimed, how sure it is, and what it does not cover."""

from rankwise.analysis.comparisons import MOST_SEEDS
from rankwise.analysis.verdict import ArmResult, Difference, Verdict
from rankwise.text import count, interval, names, number

FEW_GROUPS = 10
FEW_SEEDS = 3


def verdict_sentences(verdict: Verdict) -> tuple[str, ...]:
    """Headline first, then noise floor, detectable difference, what would settle it, cautions."""
    return (headline(verdict), *_noise(verdict), *settling(verdict), *cautions(verdict))


def headline(verdict: Verdict) -> str:
    """One sentence: the winner, the tie, or that one cannot tell and why."""
    ranked = [arm for arm in verdict.arms if arm.place is not None]
    if not ranked:
        return f"Cannot tell: no run has a finite {verdict.metric}."
    if len(ranked) == 1:
        mean = _mean(ranked[0])
        return f"Nothing to compare: only {ranked[0].arm} has a {verdict.metric} ({mean})."
    if verdict.claim == "nothing":
        return _cannot_tell(verdict)
    if verdict.winner:
        return f"{_apart(verdict, verdict.winner)}."
    if verdict.stands_out:
        return (
            f"{_apart(verdict, verdict.stands_out)}. This holds for these trained runs: with one "
            "seed an arm, what another seed would give cannot be told, so no winner is declared."
        )
    return _tie(verdict, len(ranked))


def settling(verdict: Verdict, most: int = 3) -> tuple[str, ...]:
    """What would part the nearest tied arms from the best; arms that nothing would, together."""
    if verdict.claim == "nothing":
        return ()
    stuck = [s for s in verdict.settlements if s.difference and not (s.seeds or s.examples)]
    if len(stuck) < 2:
        return tuple(s.sentence for s in verdict.settlements[:most])
    return (
        *[s.sentence for s in verdict.settlements if s not in stuck][:most],
        f"{names([s.arm for s in stuck])} against {stuck[0].best}: neither {MOST_SEEDS:,} seeds an "
        "arm nor more examples alone would settle any of these.",
    )


def cautions(verdict: Verdict) -> tuple[str, ...]:
    """What a reader must know before acting on the verdict."""
    found = [*_run_cautions(verdict), *_claim_cautions(verdict)]
    if verdict.unit == "groups of examples" and 0 < verdict.examples < FEW_GROUPS:
        found.append(
            f"Examples come from {count(verdict.examples, 'group')} only; intervals over so few "
            "groups rest on the assumption that group means are normally distributed."
        )
    return tuple(found)


def difference_sentence(difference: Difference, metric: str) -> str:
    """One difference with its interval: 'A has an eval_loss 0.0123 lower than B (95 % ...)'."""
    value = difference.value
    pair = f"{difference.arm} and {difference.other}"
    if difference.low is None or difference.high is None:
        return f"{pair} differ by {number(abs(value))} in {metric}; cannot tell whether by chance."
    way = "lower" if value < 0 else "higher"
    size = number(abs(value), (difference.high - difference.low) / 2)
    bounds = interval(difference.low, difference.high)
    said = f"{metric} of {difference.arm} is {size} {way} than of {difference.other}"
    verdict = f"{difference.better} is better" if difference.better else "not told apart"
    return f"{said} (95 % interval of the difference {bounds}): {verdict}."


def _cannot_tell(verdict: Verdict) -> str:
    first, second = _by_place(verdict)[:2]
    gap = number(abs(_fitted(second) - _fitted(first)))
    return (
        f"Cannot tell which arm is best: {first.arm} ({_mean(first)}) and {second.arm} "
        f"({_mean(second)}) differ by {gap} in {verdict.metric}, and with one seed an arm, no "
        "scores by example and no test size nothing says how large a difference chance makes."
    )


def _apart(verdict: Verdict, arm: str) -> str:
    others = len(verdict.with_best)
    nearest = verdict.with_best[0]
    low, high = nearest.low or 0.0, nearest.high or 0.0
    way = "lower" if verdict.lower_is_better else "higher"
    rest, which = nearest.arm, ""
    if others > 1:
        rest, which = f"each of the {others} other arms", f"; against {nearest.arm}, the next,"
    size = number(abs(nearest.value), (high - low) / 2)
    bounds = interval(*sorted((abs(low), abs(high))))
    said = f"{arm} has a {way} {verdict.metric} than {rest}{which}"
    return f"{said} by {size} (95 % interval {bounds})"


def _tie(verdict: Verdict, ranked: int) -> str:
    tied = verdict.tie_group
    out = ranked - len(tied)
    rest = f" {count(out, 'arm is', 'arms are')} set apart as worse." if out else ""
    return (
        f"No winner: {names(tied)} are tied; any of these {len(tied)} of {count(ranked, 'arm')} "
        f"could have the best {verdict.metric}.{rest}"
    )


def _noise(verdict: Verdict) -> list[str]:
    found = []
    if verdict.noise is not None:
        n = verdict.noise
        found.append(
            f"Noise floor: {verdict.metric} of one arm varies over seeds with a standard deviation "
            f"of {number(n.within, n.within)} (95 % interval {interval(n.low, n.high)})"
            + (f"; at the same seed, {number(n.paired, n.within)}." if verdict.paired else ".")
        )
    if verdict.detectable is not None:
        d = verdict.detectable
        size = f"{d.seeds:.2g} seed{'' if d.seeds == 1 else 's'} an arm"
        size += f" and {count(d.examples, verdict.unit[:-1], verdict.unit)}" if d.examples else ""
        found.append(
            f"With {size} a true difference of {number(d.value, d.value)} from the best could "
            f"have been seen (with a chance of {d.power:.0%} or more)."
        )
    return found


def _run_cautions(verdict: Verdict) -> list[str]:
    found = []
    for arm in verdict.arms:
        asked = arm.finished + arm.missing
        if arm.finished == 0:
            found.append(f"{arm.arm} is not ranked: none of its {count(asked, 'run')} has a score.")
        elif arm.missing and verdict.seeds > 1:
            found.append(
                f"{arm.arm}: {arm.missing} of {count(asked, 'run')} without a score; its mean "
                "speaks for the runs that finished."
            )
        if arm.unstable and arm.spread is not None:
            found.append(
                f"{arm.arm} varies over seeds with a standard deviation of "
                f"{number(arm.spread, arm.spread)}, more than the other arms (F test, 5 % over all "
                "arms); its differences are judged by its own spread."
            )
    return found


def _claim_cautions(verdict: Verdict) -> list[str]:
    found = []
    if verdict.claim == "examples":
        found.append(
            "One seed an arm: intervals come from the examples alone, and nothing is claimed "
            "about other seeds."
        )
    if verdict.claim == "seeds":
        found.append(
            "No scores by example: intervals come from the seeds alone, and nothing is claimed "
            "about other evaluation examples."
        )
    if verdict.unit == "test items" and verdict.examples:
        found.append(
            "Which test items each run got right is not recorded, so the intervals treat arms as "
            "if tested on different items; scores by example would make them narrower."
        )
    if "seeds" in verdict.claim and verdict.seeds <= FEW_SEEDS:
        found.append(
            f"{verdict.seeds} seeds hardly show whether an arm is less stable than the others; "
            "where one had four times their seed spread, 95 % intervals of its differences held "
            "the truth in 83 to 85 % of simulated studies (docs/calibration.md)."
        )
    if "seeds" in verdict.claim and not verdict.paired:
        found.append(
            "The arms were not run with common seeds, so they are compared without pairing and "
            "the intervals are wider."
        )
    return found


def _by_place(verdict: Verdict) -> list[ArmResult]:
    return sorted((a for a in verdict.arms if a.place), key=lambda arm: arm.place or 0)


def _fitted(arm: ArmResult) -> float:
    return float("nan") if arm.fitted is None else arm.fitted


def _mean(arm: ArmResult) -> str:
    return number(float("nan") if arm.mean is None else arm.mean)
