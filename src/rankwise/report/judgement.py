"""From records to judgement: the analyses of a study, run once, for every form of the report."""

import itertools
from dataclasses import dataclass

from rankwise.analysis.components import components
from rankwise.analysis.effects import Effects, factor_effects
from rankwise.analysis.interactions import Interactions, interactions
from rankwise.analysis.learning_rate import LearningRateFlag, learning_rate_flags
from rankwise.analysis.scores import Scores
from rankwise.analysis.shapes import Shape, shapes
from rankwise.analysis.verdict import Verdict, judge_parts
from rankwise.report.facts import ArmFacts, Cost, Records
from rankwise.report.numbers import decimals_for, setting

WORDS = {
    "eval_loss": "validation loss",
    "eval_accuracy": "validation accuracy",
    "eval_macro_f1": "validation macro F1",
    "eval_matthews": "validation Matthews correlation",
    "eval_rougeL": "validation ROUGE-L",
    "eval_chrf": "validation chrF",
    "eval_perplexity": "validation perplexity",
    "trainable_params": "trainable parameters",
    "memory": "memory",
    "time": "training time",
    "storage": "storage",
    "step_time": "time of a step",
    "total_params": "all parameters",
}
RATE_NAMES = ("learning_rate", "lr")


@dataclass(frozen=True, eq=False)
class Choice:
    """The recommended arm and how it came about; `alternative` needs less memory, if any does.

    basis is "winner" (set apart from all others), "tie" (cheapest of the tie group), "look"
    (nothing is known of the noise: merely the best-looking) or "none" (no run finished).
    """

    arm: str | None
    basis: str
    cost: str
    alternative: str | None
    alternative_tied: bool


@dataclass(frozen=True, eq=False)
class Judgement:
    """Records with what follows from them. `digits`: decimals that the noise bears.

    effects and interactions are None where fewer than two arms have a result.
    """

    records: Records
    verdict: Verdict
    choice: Choice
    digits: int
    effects: Effects | None
    interactions: Interactions | None
    shapes: tuple[Shape, ...]
    rate_flags: tuple[LearningRateFlag, ...]


def judge_records(records: Records) -> Judgement:
    """All analyses of a study."""
    scores = scores_of(records)
    parts = components(scores)
    verdict = judge_parts(scores, parts)
    settings = {arm.name: plain_settings(arm) for arm in records.arms}
    left_out = tuple(name for name in settings if name not in parts.arms)
    effects = crossed = None
    found: tuple[Shape, ...] = ()
    if len(parts.arms) > 1:
        effects = factor_effects(records.metric, parts, settings, records.lower_is_better, left_out)
        crossed = interactions(parts, settings)
        found = shapes(parts, settings, effects)
    return Judgement(
        records=records,
        verdict=verdict,
        choice=choose(records, verdict),
        digits=_digits(verdict),
        effects=effects,
        interactions=crossed,
        shapes=found,
        rate_flags=_rate_flags(records, settings),
    )


def plain_settings(arm: ArmFacts) -> dict[str, object]:
    """The settings of an arm with lists and mappings as text; numbers stay numbers."""
    return {
        name: value if isinstance(value, int | float) or value is None else setting(value)
        for name, value in arm.settings.items()
        if not name.startswith("generation.")
    }


def _rate_flags(
    records: Records, settings: dict[str, dict[str, object]]
) -> tuple[LearningRateFlag, ...]:
    names = {name.rpartition(".")[2] for one in settings.values() for name in one}
    key = next((name for name in RATE_NAMES if name in names), None)
    if key is None:
        return ()
    score = {arm.name: arm.mean for arm in records.arms}
    return learning_rate_flags(settings, score, records.lower_is_better, key)


def scores_of(records: Records) -> Scores:
    """The deciding metric as the analyses take it: by example where the record goes that deep."""
    deep = records.x_ASE is not None
    groups = records.groups_E
    if groups is not None and len(set(groups.tolist())) == len(groups):
        groups = None
    return Scores(
        metric=records.metric,
        arms=tuple(arm.name for arm in records.arms),
        seeds=records.seeds,
        x_ASE=records.x_ASE,
        x_AS=None if deep else records.x_AS,
        groups_E=groups.tolist() if deep and groups is not None else None,
        weights_E=records.weights_E.tolist() if records.weights_E is not None else None,
        test_size=None if deep else records.test_size,
        lower_is_better=records.lower_is_better,
    )


def choose(records: Records, verdict: Verdict) -> Choice:
    """The cheapest arm of the tie group by the study's cost; by the best mean where none is known.

    Left out are arms of the group whose own interval, not adjusted for the number of arms, leaves
    zero out: the adjustment keeps them from being called worse, but nobody should bet on them.

    Where nothing is known of the noise every arm is tied, and the cheapest would be a blind
    choice: then it is the best-looking arm, and says so.
    """
    if verdict.best is None:
        return Choice(None, "none", records.cost, None, False)
    beaten = {
        one.arm for one in verdict.with_best if one.better is not None and one.better != one.arm
    }
    tied = [records.arm(name) for name in verdict.tie_group if name not in beaten]
    if verdict.claim == "nothing":
        return Choice(verdict.best, "look", records.cost, None, False)
    chosen = min(tied, key=lambda arm: (cost_of(arm, records.cost), tied.index(arm)))
    basis = "winner" if len(tied) == 1 else "tie"
    lighter = _lighter(records, verdict, chosen)
    return Choice(chosen.name, basis, records.cost, lighter, lighter in verdict.tie_group)


def cost_of(arm: ArmFacts, name: str) -> float:
    """A cost of an arm, infinite where unknown, so that the known ones come first."""
    cost = arm.costs.get(name)
    return float("inf") if cost is None else cost.value


def _lighter(records: Records, verdict: Verdict, chosen: ArmFacts) -> str | None:
    """The arm with the best mean among those that need less memory: of the tied, else of all."""
    limit = cost_of(chosen, "memory")
    less = [
        result.arm
        for result in sorted(verdict.arms, key=lambda found: found.place or 0)
        if result.place is not None and cost_of(records.arm(result.arm), "memory") < limit
    ]
    tied = [name for name in less if name in verdict.tie_group]
    return next(iter(tied or less), None)


def _digits(verdict: Verdict) -> int:
    """Decimals with two digits of the smallest spread that decides anything."""
    widths = [
        (one.high - one.low) / 2
        for one in verdict.with_best
        if one.low is not None and one.high is not None and one.high > one.low
    ]
    if widths:
        return min(6, decimals_for(min(widths)))
    means = sorted(arm.mean for arm in verdict.arms if arm.mean is not None)
    gaps = [b - a for a, b in itertools.pairwise(means) if b > a]
    return min(6, max(4, decimals_for(min(gaps)))) if gaps else 4


def words(name: str) -> str:
    """A metric or cost in words."""
    return WORDS.get(name, name.removeprefix("eval_").replace("_", " "))


def cost_path(costs: dict[str, Cost], name: str) -> str:
    """How a cost was come by, or an empty text."""
    return costs[name].path if name in costs else ""
