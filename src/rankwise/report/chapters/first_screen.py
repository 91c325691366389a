"""The first lines of a report: what to use and how sure, what it costs, what would change it."""

from dataclasses import dataclass, replace

from rankwise.analysis.front import SAME_COST
from rankwise.report.changes import Change, changes
from rankwise.report.chapters.race import sentence
from rankwise.report.document import Block, Bullets, Paragraph, clean, code, strong
from rankwise.report.words import behind, cost_text, of_these_runs, price_of
from rankwise.results.judge import Judgement, words
from rankwise.results.records import ArmFacts
from rankwise.text import at_most, count, names, number, percent, planned, size

MOST_CHANGES = 3
MOST_NAMES = 3


@dataclass(frozen=True)
class FirstScreen:
    """What a reader wants to know first, in sentences and as facts.

    arm       the configuration to use; None where none can be recommended
    use       that and how sure it is; worse: how much worse than the best it can be
    worse_by  the bound in `worse`; 0.0 where no other is better, None where it is not known
    cost      what it costs, beside the cheapest alternative; empty where nothing is recommended
    changes   what would change the answer, the first few
    holds     what the statements hold for
    runs      runs that ended without a result or did not end; empty where there are none
    race      what a race took, whom it stopped and how often it erred; empty where there was none
    """

    arm: str | None
    use: str
    worse: str
    worse_by: float | None
    cost: str
    changes: tuple[Change, ...]
    holds: str
    runs: str
    race: str = ""


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The first screen as blocks."""
    screen = first_screen(judgement)
    return (Paragraph(screen.use, "verdict"), Bullets(tuple(_labelled(screen))))


def plain(screen: FirstScreen) -> FirstScreen:
    """The first screen without the marks of a document."""
    return FirstScreen(
        arm=screen.arm,
        use=clean(screen.use),
        worse=clean(screen.worse),
        worse_by=screen.worse_by,
        cost=clean(screen.cost),
        changes=tuple(replace(one, sentence=clean(one.sentence)) for one in screen.changes),
        holds=clean(screen.holds),
        runs=clean(screen.runs),
        race=clean(screen.race),
    )


def screen_lines(screen: FirstScreen) -> list[str]:
    """The first screen as lines of plain text."""
    return [clean(screen.use), *(clean(text) for text in _labelled(screen))]


def _labelled(screen: FirstScreen) -> list[str]:
    change = " ".join(one.sentence for one in screen.changes)
    labels = (
        ("How much worse it can be", screen.worse),
        ("What it costs", screen.cost),
        ("What would change this", change),
        ("What it holds for", screen.holds),
        ("Race", screen.race),
        ("Runs", screen.runs),
    )
    return [f"{strong(f'{label}:')} {text}" for label, text in labels if text]


def first_screen(judgement: Judgement) -> FirstScreen:
    """The answers to the first questions of a reader."""
    choice = judgement.choice
    worse, bound = _worse(judgement)
    return FirstScreen(
        arm=None if choice.basis == "look" else choice.arm,
        use=_use(judgement),
        worse=worse,
        worse_by=bound,
        cost=_cost(judgement),
        changes=changes(judgement)[:MOST_CHANGES],
        holds=_holds(judgement),
        runs=_runs(judgement),
        race="" if judgement.records.race is None else sentence(judgement, judgement.records.race),
    )


def _use(judgement: Judgement) -> str:
    """What to use and how sure that is, in one sentence."""
    choice, verdict = judgement.choice, judgement.verdict
    metric, none = words(verdict.metric), strong("No recommendation:")
    if choice.withdrawn is not None:
        return (
            f"{none} the adapter of {code(choice.withdrawn)}, loaded from disk by peft, does not "
            "give the loss that training measured."
        )
    if choice.arm is None:
        return f"{none} no run has finished with a finite {metric}."
    if choice.basis == "look":
        return (
            f"{none} {code(choice.arm)} has the best {metric}, but how much of the differences is "
            "chance is not known."
        )
    use = strong(f"{'Use' if verdict.declared else 'So far'} {code(choice.arm)}")
    if choice.basis == "only":
        shared = any(arm.twin_of == choice.arm for arm in judgement.records.arms)
        what = "training" if shared else "configuration"
        return f"{use}, the only {what} with a result: it is compared with nothing."
    return f"{use}: {_sure(judgement, metric)}."


def _sure(judgement: Judgement, metric: str) -> str:
    """How sure it is that the recommended configuration is the right one."""
    choice = judgement.choice
    rest = _others(judgement)
    if choice.basis == "winner":
        return (
            f"its {metric} is better than that of {rest}, by more than chance explains (in "
            "simulated studies such a claim was wrong in at most 6 %)"
        )
    if choice.basis == "runs":
        return (
            f"of these runs it has a better {metric} than {rest}, on other {_examples(judgement)} "
            "too; with one seed each, another seed may change the order"
        )
    if choice.basis == "within":
        return _within(judgement)
    return _tied(judgement, str(choice.arm), metric)


def _others(judgement: Judgement) -> str:
    others = [one.arm for one in judgement.verdict.distances[1:]]
    if len(others) == 1:
        return code(others[0])
    return f"each of the {len(others)} others{_that_ran(judgement)}"


def _that_ran(judgement: Judgement) -> str:
    """What must be added to "others" where a race has left some without a result."""
    race = judgement.records.race
    return " that ran to the end" if race is not None and (race.stopped or race.unbegun) else ""


def _within(judgement: Judgement) -> str:
    verdict, found = judgement.verdict, judgement.choice.recommendation
    given, best = judgement.records.tolerance, f"the best{of_these_runs(verdict)}"
    within = number(verdict.tolerance, judgement.digits) + f" ({given})" * isinstance(given, str)
    if len(found.candidates) == 1:
        return f"it is the only one shown to be within {within} of {best} (95 %)"
    most = "costs least" if found.price is not None else "has the best mean"
    return (
        f"it {most} of the {len(found.candidates)} configurations shown to be within {within} of "
        f"{best} (95 %)"
    )


def _tied(judgement: Judgement, arm: str, metric: str) -> str:
    verdict = judgement.verdict
    tied = [code(name) for name in verdict.tie_group if name != arm]
    others, best = len(verdict.pairs.arms) - 1, f"the best {metric}{of_these_runs(verdict)}"
    if not tied:
        why = "nothing is declared while runs are missing"
        if verdict.declared:
            why = "not with the 97.5 % that a winner needs"
        return f"it has {best}, and {_others(judgement)} is ruled out with 95 %, but {why}"
    which = f"{len(tied)} of the {others} others" if len(tied) < others else f"all {others} others"
    which += _that_ran(judgement)
    which = names(tied) if others == 1 else f"{which} ({names(tied, MOST_NAMES)})"
    text = f"it has {best}, but {which} may be as good or better"
    ruled = others - len(tied)
    if not ruled:
        return text
    return f"{text}; the other {f'{ruled} are' if ruled > 1 else 'one is'} ruled out (95 %)"


def _worse(judgement: Judgement) -> tuple[str, float | None]:
    """How much worse than the best the recommended configuration can be, and the bound."""
    choice, verdict, digits = judgement.choice, judgement.verdict, judgement.digits
    if choice.withdrawn is not None or choice.arm is None:
        return "Not known: there is nothing to use.", None
    if choice.basis == "only":
        return "Not known: nothing else has a result.", None
    distance = choice.recommendation.distance
    if distance is None or distance.high is None:
        return "Not known: how much runs vary by chance is not known.", None
    if choice.basis in ("winner", "runs") or distance.high == 0:
        nearest = next(one for one in verdict.distances if one.arm != choice.arm)
        text = f"No other is better{of_these_runs(verdict)}; the next, {code(nearest.arm)}, is "
        return f"{text}{behind(nearest, digits)}.", 0.0
    best = f"the best{of_these_runs(verdict)}"
    return (
        f"At most {at_most(distance.high, digits)} in {words(verdict.metric)}, against {best} "
        "(95 %, all configurations at once).",
        distance.high,
    )


def _cost(judgement: Judgement) -> str:
    """What it costs, and what the cheapest alternative would save and lose."""
    choice, records = judgement.choice, judgement.records
    if choice.arm is None or choice.basis == "look":
        return ""
    arm = records.arm(choice.arm)
    if records.cost not in arm.costs:
        return f"Not known for {code(arm.name)} ({words(records.cost)})."
    other = _cheaper(judgement, arm)
    text = f"{_capital(price_of(arm, records.cost))}"
    if other is None:
        return f"{text}; no other costs less. {_memory(judgement, '')}".strip()
    price = other.costs[records.cost]
    saved = _less(price.value / arm.costs[records.cost].value)
    text += f"; with {code(other.name)} it is {cost_text(price)} ({saved}), which "
    return f"{text}{_lost(judgement, other.name)}. {_memory(judgement, other.name)}".strip()


def _cheaper(judgement: Judgement, arm: ArmFacts) -> ArmFacts | None:
    """The cheapest that may be the best; the cheapest of all where none of these costs less."""
    cost, found = judgement.records.cost, judgement.choice.recommendation
    if found.cheaper is not None:
        return judgement.records.arm(found.cheaper.arm)
    ranked = [judgement.records.arm(one.arm) for one in judgement.verdict.distances]
    priced = [one for one in ranked if cost in one.costs]
    least = min(priced, key=lambda one: one.costs[cost].value)
    saves = least.costs[cost].value * (1 + SAME_COST) < arm.costs[cost].value
    return least if saves else None


def _lost(judgement: Judgement, arm: str) -> str:
    verdict, digits = judgement.verdict, judgement.digits
    distance = verdict.distance(arm)
    if arm not in verdict.tie_group:
        return f"is {behind(distance, digits)}"
    text = "may be the best as well"
    if distance.high is None:
        return text
    return f"{text}, and is at most {at_most(distance.high, digits)} worse than the best"


def _memory(judgement: Judgement, named: str) -> str:
    """The configuration that needs least memory, where it is another one."""
    other = judgement.choice.recommendation.alternative
    if other is None or other.arm == named:
        return ""
    share = other.saved / (other.memory + other.saved)
    if share < SAME_COST:
        return ""
    return f"Least memory: {code(other.arm)}, {size(other.memory)}, {percent(share, 0)} less."


def _less(ratio: float) -> str:
    """How much less a cost is that is `ratio` of another."""
    return f"{percent(1 - ratio, 0)} less" if ratio > 0.01 else f"1/{planned(round(1 / ratio))}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _examples(judgement: Judgement) -> str:
    """What the examples are, with the column by which they form groups."""
    unit = judgement.verdict.unit
    split = judgement.records.study.get("spec", {}).get("data", {}).get("split") or {}
    by = split.get("by") if isinstance(split, dict) else None
    return f"{unit} (by {code(by)})" if by and unit == "groups of examples" else unit


def _holds(judgement: Judgement) -> str:
    """What the statements hold for, beyond these runs and these examples."""
    verdict, examples = judgement.verdict, _examples(judgement)
    if verdict.best is None or len(verdict.pairs.arms) < 2:
        return ""
    few = ""
    if verdict.unit == "groups of examples" and "examples" not in verdict.claim:
        few = f" (they form too few groups: {verdict.examples})"
    return {
        "seeds and examples": f"Other seeds, and other {examples} of the same kind.",
        "seeds": f"Other seeds on the same examples; of other examples nothing is known{few}.",
        "examples": f"These runs, on other {examples} of the same kind; not for other seeds, as "
        "each configuration has one.",
        "nothing": f"These runs on these examples alone{few}.",
    }[verdict.claim]


def _runs(judgement: Judgement) -> str:
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
