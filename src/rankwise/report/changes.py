"""In words: what would change the recommendation, and what that takes in runs and hours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rankwise.analysis.planning import MOST_SEEDS, MOST_TIMES_EXAMPLES, Settlement
from rankwise.analysis.verdict import Verdict
from rankwise.report.document import code
from rankwise.results.judge import Judgement
from rankwise.text import about, at_most, names, percent, planned, significant

MOST_RIVALS = 3
NOT_DONE = ("planned", "running", "interrupted")


@dataclass(frozen=True)
class Change:
    """Something that may change which configuration is recommended.

    runs, hours  what it takes; 0 where it takes none, None where that is not known
    """

    sentence: str
    runs: int | None = None
    hours: float | None = None


def changes(judgement: Judgement) -> tuple[Change, ...]:
    """What would change the recommendation, or make one possible; never empty."""
    found = [*_missing(judgement), *_noise(judgement), *_deciding(judgement.verdict)]
    found += [*_failed(judgement), *_unbegun(judgement), *_rates(judgement), *_tolerance(judgement)]
    if not found:
        nothing = "Nothing among these configurations; others, or other data, were not tried."
        found.append(Change(nothing))
    return tuple(found)


def taken(runs: int | None, hours: float | None) -> str:
    """`20 runs, about 1.2 h`; empty where it is not known."""
    if runs is None:
        return ""
    text = "no run" if runs == 0 else "1 run" if runs == 1 else f"{planned(runs)} runs"
    return f"{text}, about {about(3600 * hours)}" if runs and hours is not None else text


def _told(sentence: str, runs: int | None, hours: float | None = None) -> Change:
    takes = taken(runs, hours)
    return Change(f"{sentence}: {takes}." if takes else f"{sentence}.", runs, hours)


def _hours(judgement: Judgement, arms: Collection[str]) -> float | None:
    """Of one run of each of these configurations."""
    costs = [judgement.records.arm(arm).costs for arm in arms]
    if not all("time" in one for one in costs):
        return None
    return sum(one["time"].value for one in costs) / 3600


def _missing(judgement: Judgement) -> list[Change]:
    """Runs that are planned and have not ended."""
    records = judgement.records
    own = {arm.name for arm in records.arms if arm.twin_of is None}
    open_ = [run.arm for run in records.runs if run.state in NOT_DONE and run.arm in own]
    if open_:
        what = f"The {len(open_):,} runs" if len(open_) > 1 else "The run"
        return [_told(f"{what} not done yet", len(open_), _hours(judgement, open_))]
    if judgement.verdict.best is None and judgement.records.arms:
        return [Change("A run that ends with a finite result.")]
    return []


def _deciding(verdict: Verdict) -> list[Change]:
    """What would tell the best from the tied configurations, the easiest first."""
    found = []
    by_runs = sorted((s for s in verdict.settlements if s.runs), key=lambda s: s.runs or 0)
    if by_runs:
        first = by_runs[0]
        found.append(Change(_more_runs(verdict, by_runs), first.runs, first.hours))
    others = [s for s in verdict.settlements if not s.runs]
    by_examples = sorted(s.only_examples for s in others if s.only_examples)
    if by_examples:
        examples = f"{planned(by_examples[0])} {verdict.unit} instead of {verdict.examples:,}"
        one = next(s for s in others if s.only_examples == by_examples[0])
        text = f"{examples}, to tell {code(one.arm)} from {code(one.best)} on these runs"
        found.append(Change(f"{text} ({_if_true(one)})."))
    never = [code(s.arm) for s in others if not s.only_examples]
    if never:
        text = f"More {'runs' if 'seeds' in verdict.claim else 'examples'} would not tell "
        text += f"{names(never, 3)} from {code(str(verdict.best))}: {not_even(verdict)}"
        found.append(Change(f"{text} would not be enough."))
    return found


def _more_runs(verdict: Verdict, found: Sequence[Settlement]) -> str:
    """What it takes to tell configurations from the best by more seeds and examples."""
    examples = any(s.examples and s.examples != verdict.examples for s in found)
    what = f"More seeds and {verdict.unit}" if examples else "More seeds"
    takes = [taken(s.runs, s.hours) + "," * (s.hours is not None) for s in found[:MOST_RIVALS]]
    rest = len(found) - MOST_RIVALS
    more = f", and more for {rest} others" if rest > 1 else ", and more for another" * (rest == 1)
    first = f"{takes[0]} to tell {code(found[0].arm)} from {code(found[0].best)}"
    others = [f"{take} for {code(s.arm)}" for take, s in zip(takes[1:], found[1:], strict=False)]
    return f"{what}: {'; '.join([first, *others])}{more} ({_if_true(found[0])})."


def _if_true(found: Settlement) -> str:
    return f"{percent(found.power, 0)} likely if they truly differ as observed"


def not_even(verdict: Verdict) -> str:
    """The most seeds and examples that are considered."""
    more = [f"{MOST_SEEDS:,} seeds per configuration"] if "seeds" in verdict.claim else []
    if "examples" in verdict.claim:
        more.append(f"{MOST_TIMES_EXAMPLES:,} times as many {verdict.unit}")
    return " and ".join(more)


def _noise(judgement: Judgement) -> list[Change]:
    """What would show how much chance there is in the results."""
    verdict = judgement.verdict
    arms = verdict.pairs.arms
    if verdict.best is None or len(arms) < 2:
        return []
    if verdict.claim == "seeds":
        return [Change("Scores by example: whether the order holds on others is not known.")]
    if "seeds" in verdict.claim:
        return []
    candidates = verdict.tie_group if len(verdict.tie_group) > 1 else arms
    which = f"the {len(candidates)} that may be the best"
    which = which if len(candidates) < len(arms) else f"all {len(arms)}"
    why = "to see how much is chance"
    if verdict.claim == "examples":
        why = "which may change the order"
    hours = _hours(judgement, candidates)
    return [_told(f"A second seed for {which}, {why}", len(candidates), hours)]


def _failed(judgement: Judgement) -> list[Change]:
    failed = [arm.arm for arm in judgement.verdict.arms if arm.finished == 0]
    race = judgement.records.race
    if race is not None:  # what it has stopped or ruled out did not fail
        failed = [arm for arm in failed if not (race.stop_of(arm) or race.unbegun_of(arm))]
    if not failed or judgement.verdict.best is None or not judgement.verdict.declared:
        return []
    sentence = f"A finished run of {names([code(arm) for arm in failed], 3)}, not ranked now"
    return [_told(sentence, len(failed), _hours(judgement, failed))]


def _unbegun(judgement: Judgement) -> list[Change]:
    """Configurations that a race has not begun because the budget was spent."""
    race = judgement.records.race
    if race is None or not race.ended:
        return []
    left = [one.arm for one in race.unbegun if one.decision is None]
    if not left:
        return []
    names_ = names([code(arm) for arm in left], 3)
    return [_told(f"A larger budget, for {names_}, not begun", len(left), _hours(judgement, left))]


def _rates(judgement: Judgement) -> list[Change]:
    """Learning rates that were not tried with the configuration to use."""
    arm = judgement.choice.arm
    found: list[Change] = []
    for flag in judgement.rate_flags:
        if arm is None or arm not in flag.arms:
            continue
        hours, seeds = _hours(judgement, [arm]), max(1, len(judgement.records.seeds))
        if flag.kind == "not varied":
            sentence = (
                f"Another learning rate than {significant(flag.tried[0])}, the only one tried"
            )
        elif flag.at_the_edge and arm in flag.best_arms:
            way = "lower" if flag.kind == "at the lowest" else "higher"
            end = flag.kind.removeprefix("at the ")
            sentence = (
                f"A {way} learning rate than {significant(flag.best or 0.0)}, the {end} tried and "
                f"the best for {code(arm)}"
            )
        else:
            continue
        found.append(_told(sentence, seeds, None if hours is None else seeds * hours))
    return found


def _tolerance(judgement: Judgement) -> list[Change]:
    """With a tolerance that decided: a smaller one."""
    choice, verdict = judgement.choice, judgement.verdict
    distance = choice.recommendation.distance
    if choice.basis != "within" or distance is None or choice.arm == verdict.best:
        return []
    bound = at_most(distance.high, judgement.digits)
    return [_told(f"A tolerance below {bound}, the bound on {code(choice.arm)}", 0)]


def deciding(verdict: Verdict, most: int = 3) -> tuple[str, ...]:
    """What would decide between the best and the tied configurations next to it."""
    if verdict.claim == "nothing":
        return ()
    open_ = [s for s in verdict.settlements if s.difference and not (s.seeds or s.only_examples)]
    if len(open_) < 2:
        return tuple(settlement(verdict, s) for s in verdict.settlements[:most])
    return (
        *[settlement(verdict, s) for s in verdict.settlements if s not in open_][:most],
        f"{names([code(s.arm) for s in open_], 6)} against {code(open_[0].best)}: "
        f"{not_even(verdict)} would not be enough to decide any of these comparisons.",
    )


def settlement(verdict: Verdict, found: Settlement) -> str:
    """How many seeds and examples would decide one comparison, and what they take."""
    pair = f"{code(found.arm)} against {code(found.best)}"
    if found.difference == 0:
        return (
            f"{pair}: the observed difference is zero, so the seeds or examples needed cannot be "
            "computed."
        )
    end = "" if "seeds" in verdict.claim else "; a second seed is needed to say more about seeds"
    if found.seeds is not None:
        ways = f"{planned(found.seeds)} seeds per configuration instead of {found.seeds_now:.2g}"
        if found.examples and found.examples != verdict.examples:
            ways += f" on {planned(found.examples)} {verdict.unit} instead of {verdict.examples:,}"
        end = f": {taken(found.runs, found.hours)}"
    elif found.only_examples is not None:
        ways = f"{planned(found.only_examples)} {verdict.unit} instead of {verdict.examples:,}"
    else:
        return f"{pair}: {not_even(verdict)} would not be enough to decide."
    return (
        f"{pair}: if the true difference is the observed one ({abs(found.difference):.2g}), {ways} "
        f"would detect it with a probability of about {percent(found.power, 0)}{end}."
    )
