"""From records to judgement: the analyses of a study, run once, for all parts of the report."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.blocks import ByBlock, compare_blocks
from rankwise.analysis.curves import Diagnosis, Ending, diagnose
from rankwise.analysis.front import Front, Recommendation, front, recommend
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import Components, components
from rankwise.analysis.verdict import Verdict, judge, judge_parts, with_settlements
from rankwise.results.looks import is_declared, look_number, share
from rankwise.results.records import (
    ArmFacts,
    Records,
    RunFacts,
    best_run,
    distinct,
    is_failure,
)
from rankwise.results.settings import SettingFindings, find_settings
from rankwise.spec.tasks import decimals_of, lower_is_better, title_of, weighs_targets
from rankwise.text import decimals_for

COST_WORDS = {
    "trainable_params": "trainable parameters",
    "memory": "memory",
    "time": "training time",
    "storage": "storage",
    "step_time": "time of a step",
    "total_params": "all parameters",
}
GROUP_NAMES = (
    "ranks.strategy",
    "strategy",
    "group",
    "method",
    "peft_type",
    "model.quantization",
)


@dataclass(frozen=True, eq=False)
class Choice:
    """The recommended arm and the reason.

    basis is "winner" (significantly better than all others, seeds included), "runs" (significantly
    better than all others on the examples, with one seed), "only" (no other arm has a result),
    "within" (cheapest of those shown to be within the tolerance of the best), "tie" (best mean of
    those that can be the best), "look" (the noise is unknown: `arm` has the best mean, and
    there is no recommendation), "withdrawn" (the adapter of `withdrawn`, loaded from disk, does not
    give what was measured) or "none" (no run finished).
    """

    arm: str | None
    basis: str
    recommendation: Recommendation
    withdrawn: str | None = None


@dataclass(frozen=True, eq=False)
class Judgement(SettingFindings):
    """Records and the results of all analyses. `digits`: decimals of the metric, from the noise.

    Arms that share a training are judged once; records hold them all (`ArmFacts.twin_of`).
    by_block: of a table whose columns make blocks; all else is then over the blocks.
    on_test is the verdict on the test part, not used to choose, None without scores by example.
    """

    records: Records
    parts: Components
    verdict: Verdict
    choice: Choice
    digits: int
    front: Front
    on_test: Verdict | None
    diagnoses: dict[str, Diagnosis]
    grouping: str | None
    by_block: ByBlock | None = None


def judge_records(records: Records) -> Judgement:
    """All analyses of a study."""
    data = distinct(records)
    scores = scores_of(data)
    parts = components(scores)
    used, declared = share(look_number(records)), is_declared(records)
    verdict = judge_parts(scores, parts, tolerance_of(records, parts), used, declared)
    hours = {name: t / 3600 for name, t in prices_of(data, "time").items() if t is not None}
    verdict = with_settlements(verdict, parts, hours)
    return Judgement(
        records=records,
        parts=parts,
        verdict=verdict,
        choice=choose(records, verdict),
        digits=_digits(verdict),
        front=front(verdict, parts, records.cost, prices_of(records, records.cost)),
        **vars(find_settings(data, scores, parts)),
        on_test=(
            judge(scores_on_test(data, records.metric))
            if records.metric in records.test_ASE
            else None
        ),
        diagnoses={run.id: diagnose(_ending(records, run)) for run in failed_runs(records)},
        grouping=grouping(records),
        by_block=_by_block(records, scores, verdict),
    )


def _by_block(records: Records, scores: Scores, verdict: Verdict) -> ByBlock | None:
    if not records.blocks:
        return None
    return compare_blocks(
        names=[block.name for block in records.blocks],
        contexts=[block.context for block in records.blocks],
        blocks=[scores_of(block.records) for block in records.blocks],
        overall=verdict,
        means=scores,
    )


def tolerance_of(records: Records, parts: Components) -> float | None:
    """The tolerance in units of the metric; a share is one of the best mean's absolute value."""
    given = records.tolerance
    if given is None or not len(parts.fitted_A):
        return None
    best = parts.fitted_A.min() if records.lower_is_better else parts.fitted_A.max()
    return tolerance_in_units(given, float(best))


def tolerance_in_units(given: float | str, best: float) -> float:
    """A tolerance as the spec has it, in units of the metric; `best` is the best mean."""
    if not isinstance(given, str):
        return float(given)
    return float(given.rstrip(" %")) / 100 * abs(best)


def failed_runs(records: Records) -> list[RunFacts]:
    """The runs that ended without a result that may be ranked."""
    return [run for run in records.runs if is_failure(run)]


def _ending(records: Records, run: RunFacts) -> Ending:
    settings = records.arm(run.arm).settings
    planned = settings.get("training.max_steps")
    warmup = int(settings.get("training.warmup_steps") or 0)
    if planned and settings.get("training.warmup_ratio"):
        warmup = math.ceil(planned * settings["training.warmup_ratio"])
    return Ending(
        state=run.state,
        message=run.cause or "",
        steps=run.tail,
        planned=planned,
        warmup=warmup,
        max_grad_norm=settings.get("training.max_grad_norm") or None,
        dtype=records.study.get("model", {}).get("dtype"),
        bad_step=run.bad_step,
    )


def grouping(records: Records) -> str | None:
    """The setting by which arms form groups to compare, if it has two values or more."""
    return next((name for name in GROUP_NAMES if name in records.varying), None)


def scores_of(records: Records) -> Scores:
    """The objective metric as input of the analyses: by example where that is recorded."""
    deep = records.x_ASE is not None
    return Scores(
        metric=records.metric,
        arms=tuple(arm.name for arm in records.arms),
        seeds=records.seeds,
        x_ASE=records.x_ASE,
        x_AS=None if deep else records.x_AS,
        groups_E=_labels(records.groups_E) if deep else None,
        weights_E=records.weights_E.tolist() if records.weights_E is not None else None,
        test_size=None if deep else records.test_size,
        lower_is_better=records.lower_is_better,
    )


def scores_on_test(records: Records, metric: str) -> Scores:
    """A metric by example on the test part, which was not used to choose."""
    weights = records.test_weights_E if weighs_targets(metric) else None
    return Scores(
        metric=metric,
        arms=tuple(arm.name for arm in records.arms),
        seeds=records.seeds,
        x_ASE=records.test_ASE[metric],
        groups_E=_labels(records.test_groups_E),
        weights_E=None if weights is None else weights.tolist(),
        lower_is_better=lower_is_better(metric),
    )


def _labels(groups: NDArray[Any] | None) -> list[Any] | None:
    """Labels of groups, or none where every example is its own group."""
    if groups is None or len(np.unique(groups)) == len(groups):
        return None
    labels: list[Any] = groups.tolist()
    return labels


def choose(records: Records, verdict: Verdict) -> Choice:
    """The recommendation by the study's cost, with the basis it rests on."""
    prices = prices_of(records, records.cost)
    found = recommend(verdict, records.cost, prices, prices_of(records, "memory"))
    if verdict.best is None:
        return Choice(None, "none", found)
    if found.arm is None:
        return Choice(verdict.best, "look", found)
    best = best_run(records, found.arm)
    reloaded = None if best is None else records.reloads.get(best.id)
    if reloaded is not None and not reloaded.agrees:
        return Choice(None, "withdrawn", replace(found, arm=None, alternative=None), found.arm)
    return Choice(found.arm, _basis(verdict, found), found)


def _basis(verdict: Verdict, found: Recommendation) -> str:
    if verdict.winner == found.arm:
        return "winner"
    if verdict.stands_out == found.arm:
        return "runs"
    if len(verdict.pairs.arms) == 1:
        return "only"
    return "within" if found.within else "tie"


def prices_of(records: Records, cost: str) -> dict[str, float | None]:
    """A cost of every arm, None where it is not known."""
    return {arm.name: arm.costs[cost].value if cost in arm.costs else None for arm in records.arms}


def _digits(verdict: Verdict) -> int:
    """Decimals that show two digits of the narrowest bound on the distance from the best."""
    widths = [one.high for one in verdict.distances if one.high is not None and one.high > 0]
    if widths:
        return min(6, decimals_for(min(widths)))
    return decimals_of(verdict.metric)


def words(name: str) -> str:
    """A metric or cost in words."""
    return COST_WORDS[name] if name in COST_WORDS else title_of(name)


def ranked(judgement: Judgement) -> list[ArmFacts]:
    """Arms in the order of the ranking, each followed by those that share its training.

    Those that a race has stopped come after all others, the later the earlier they were.
    """
    place = {arm.arm: arm.place or math.inf for arm in judgement.verdict.arms}
    order = {arm.arm: n for n, arm in enumerate(judgement.verdict.arms)}

    def key(arm: ArmFacts) -> tuple[float, float, int, bool]:
        own = arm.twin_of or arm.name
        return place[own], _share_left(judgement.records, own), order[own], arm.twin_of is not None

    return sorted(judgement.records.arms, key=key)


def _share_left(records: Records, arm: str) -> float:
    """Of a configuration's steps, what a race has not let it make; 0 where it ended otherwise."""
    race = records.race
    if race is None or race.unbegun_of(arm) is not None:
        return 0.0 if race is None else 1.0
    stop = race.stop_of(arm)
    return 0.0 if stop is None else 1 - stop.share


def trained(judgement: Judgement) -> list[ArmFacts]:
    """`ranked`, every training once."""
    return [arm for arm in ranked(judgement) if arm.twin_of is None]


def against_best(verdict: Verdict, arm: str) -> tuple[float, float, float]:
    """Fitted value of a ranked arm, and its bounds behind the best, both added to the best mean.

    The bounds are NaN where the noise is unknown.
    """
    fitted = {result.arm: result.fitted for result in verdict.arms}
    value, best = (float(fitted[name] or 0.0) for name in (arm, str(verdict.best)))
    found = verdict.distance(arm)
    if found.low is None or found.high is None:
        return value, math.nan, math.nan
    if verdict.lower_is_better:
        return value, best + found.low, best + found.high
    return value, best - found.high, best - found.low
