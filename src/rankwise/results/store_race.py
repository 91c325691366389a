"""The facts that `study/race.py` notes as records, with names in place of training ids."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.results.checkpoints import raced_metric
from rankwise.results.race import Race, RaceDecision, RaceStart, Round, Unbegun, Unit
from rankwise.results.records import ArmFacts, RunFacts, is_stopped
from rankwise.store.schema import ConfigRecord, Fact, TrainingRecord

START, DECISION, COSTS = "race_start", "race_decision", "race_costs"
KINDS = (START, DECISION, COSTS)
"""Kinds of facts that the race alone tells."""
FURTHER = "contender"
"""Why a run after the first one of its configuration began: it may be the best."""


def is_raced(spec: Mapping[str, Any]) -> bool:
    """Whether a stored spec races its configurations, as `spec.models.race_of` tells."""
    budget = spec.get("budget") or {}
    has_work = budget.get("runs") is not None or budget.get("tokens") is not None
    return spec.get("race") is not None or has_work


def read_race(
    spec: Mapping[str, Any],
    facts: Sequence[Fact],
    configs: Sequence[ConfigRecord],
    trainings: Sequence[TrainingRecord],
    arms: Sequence[ArmFacts],
    runs: Sequence[RunFacts],
) -> Race | None:
    """The race of a study; None where every run is trained to its end.

    Args:
        spec: As it is stored.
        facts: All of the study, in order.
        configs: All of the study, whose names are known.
        trainings: All of the study.
        arms: Those that are read.
        runs: Those that are read.
    """
    if not is_raced(spec):
        return None
    names = _names(configs, trainings, arms)
    own = [arm for arm in arms if arm.twin_of is None]
    ours = {arm.name for arm in own}
    named = [_decision(fact.data, names) for fact in facts if fact.kind == DECISION]
    decisions = tuple(one for one in named if one.arm in ours)
    starts = tuple(one for one in _starts(facts, names) if one.arm in ours)
    mine = [run for run in runs if run.arm in ours]
    costs, unit = _costs(facts, names, own)
    budget, seeds = spec.get("budget") or {}, tuple(spec.get("seeds", (0,)))
    return Race(
        metric=raced_metric(str((spec.get("objective") or {}).get("metric"))),
        unit=unit,
        budget=budget.get("tokens" if unit == "tokens" else "runs"),
        spent=sum(costs[run.arm] * share_made(run, own, mine) for run in mine),
        grid=sum(costs.values()) * len(seeds),
        ended=all(run.state not in ("planned", "running", "interrupted") for run in mine),
        starts=starts,
        decisions=decisions,
        stopped=_stopped(own, mine, decisions),
        unbegun=_unbegun(own, mine, decisions),
        audited=_audited(decisions),
        rounds=_rounds(starts),
        most_seeds=len(seeds),
    )


def _names(
    configs: Sequence[ConfigRecord], trainings: Sequence[TrainingRecord], arms: Sequence[ArmFacts]
) -> dict[str, str]:
    """Name by training id: of the first configuration that is read, else of the first of all."""
    read = {arm.name for arm in arms}
    ordered = sorted(configs, key=lambda config: config.name not in read)
    keys = {training.id: training.key for training in trainings}
    found: dict[str, str] = {}
    for config in ordered:
        found.setdefault(keys[config.training_id], config.name)
    return found


def _starts(facts: Sequence[Fact], names: Mapping[str, str]) -> list[RaceStart]:
    return [
        RaceStart(names.get(fact.data["training"], ""), fact.data["seed"], fact.data["why"])
        for fact in facts
        if fact.kind == START
    ]


def _decision(data: Mapping[str, Any], names: Mapping[str, str]) -> RaceDecision:
    def known(name: str) -> float | None:
        value = data.get(name)
        return float(value) if value is not None and math.isfinite(value) else None

    return RaceDecision(
        arm=names.get(data["arm"], ""),
        share=float(data["share"]),
        stop=bool(data["stop"]),
        leader=names.get(data["leader"], ""),
        difference=known("difference"),
        forecast=known("forecast"),
        low=known("low"),
        high=known("high"),
        p=float(data["p"]),
        audited=bool(data["audited"]),
        reason=str(data["reason"]),
    )


def _costs(
    facts: Sequence[Fact], names: Mapping[str, str], arms: Sequence[ArmFacts]
) -> tuple[dict[str, float], Unit]:
    """What a full run of each configuration costs, and in which unit; 1 each if it is not noted."""
    noted = [fact.data for fact in facts if fact.kind == COSTS]
    own = {arm.name: 1.0 for arm in arms}
    if not noted:
        return own, "runs"
    known = {names.get(key): float(cost) for key, cost in noted[-1]["of"].items()}
    if not set(own) <= set(known):
        return own, "runs"
    return {name: known[name] for name in own}, noted[-1]["unit"]


def share_made(run: RunFacts, arms: Sequence[ArmFacts], runs: Sequence[RunFacts]) -> float:
    """The part of its steps that a run has made, 0 to 1.

    Where a configuration does not give `max_steps`, the length is that of the longest finished run
    of it, or of any.
    """
    if run.state == "done":
        return 1.0
    settings = next(arm.settings for arm in arms if arm.name == run.arm)
    length = settings.get("training.max_steps")
    if not length:
        done = [(one.arm == run.arm, one.last_step or 0) for one in runs if one.state == "done"]
        length = max(done, default=(False, 0))[1]
    return min((run.last_step or 0) / length, 1.0) if length else 0.0


def _stopped(
    arms: Sequence[ArmFacts], runs: Sequence[RunFacts], decisions: Sequence[RaceDecision]
) -> tuple[RaceDecision, ...]:
    """By configuration the decision that ended its run, where one did."""
    ended = {run.arm: run for run in runs if is_stopped(run)}
    last = {one.arm: one for one in decisions if one.stop and one.share > 0}
    found = []
    for arm in arms:
        run = ended.get(arm.name)
        if run is not None:
            share = share_made(run, arms, runs)
            found.append(last.get(arm.name) or _without_evidence(arm.name, share))
    return tuple(found)


def _without_evidence(arm: str, share: float) -> RaceDecision:
    """A stopped run whose decision is lost."""
    return RaceDecision(arm, share, True, "", None, None, None, None, math.nan, False, "")


def _unbegun(
    arms: Sequence[ArmFacts], runs: Sequence[RunFacts], decisions: Sequence[RaceDecision]
) -> tuple[Unbegun, ...]:
    begun = {run.arm for run in runs}
    ruled_out = {one.arm: one for one in decisions if one.stop and one.share == 0}
    return tuple(
        Unbegun(arm.name, ruled_out.get(arm.name)) for arm in arms if arm.name not in begun
    )


def _audited(decisions: Sequence[RaceDecision]) -> tuple[RaceDecision, ...]:
    first: dict[str, RaceDecision] = {}
    for one in decisions:
        if one.audited:
            first.setdefault(one.arm, one)
    return tuple(first.values())


def _rounds(starts: Sequence[RaceStart]) -> tuple[Round, ...]:
    """The n-th further seed of a configuration belongs to round n."""
    seen: dict[str, int] = {}
    rounds: dict[int, list[RaceStart]] = {}
    for start in starts:
        if start.why == FURTHER:
            seen[start.arm] = seen.get(start.arm, 0) + 1
            rounds.setdefault(seen[start.arm], []).append(start)
    return tuple(
        Round(n, tuple(one.arm for one in own), tuple(dict.fromkeys(one.seed for one in own)))
        for n, own in sorted(rounds.items())
    )
