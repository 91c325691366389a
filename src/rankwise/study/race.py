"""The race of a study: which runs it trains, which are stopped at a rung, and what comes next.

What was decided is kept in the store as facts: the runs that were begun and why, and the runs that
were stopped or spared by the audit, with the evidence. A study that goes on reads them, and takes
none of these decisions again. Configurations that share a training race as one, by its id.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rankwise.analysis.scores import Floats
from rankwise.analysis.verdict import Verdict, judge
from rankwise.results.checkpoints import ACCURACY, LOSS, Chooser, chooser_of, read_run, scores_of
from rankwise.results.from_store import read_records
from rankwise.results.looks import look_number, share
from rankwise.results.store_race import COSTS, DECISION, FURTHER, START
from rankwise.search import rounds
from rankwise.search.race import Decision, RaceRules, decide
from rankwise.search.seen import Run as SeenRun
from rankwise.search.seen import Schedule, Seen
from rankwise.search.start import next_starts
from rankwise.spec.arms import Arm, Run
from rankwise.spec.models import RaceSpec, race_of
from rankwise.spec.tasks import lower_is_better, weighs_targets
from rankwise.store.reader import Reader
from rankwise.store.schema import FINISHED, RunRecord
from rankwise.store.writer import Store
from rankwise.study.budget import committed, limit_of, run_costs
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.train.cohort import Member
from rankwise.train.loop import Ended, Evaluated

STOPPED = "pruned"
# What is not begun because of the budget: less than this of a unit does not count.
ROUNDING = 1e-9


def wanted_runs(plan: StudyPlan, store: Reader | None) -> list[Run]:
    """The runs that are to be trained as far as is decided, one for each training and seed.

    All of the plan where nothing is raced; else those that were begun, or will be first.
    """
    trained = list(shared_trainings(plan.runs))
    race = race_of(plan.spec)
    if race is None:
        return trained
    begun = begun_runs(store) if store is not None and store.begun() else set()
    if not begun:
        first = next_starts(_unseen(plan), _rules(plan, race), _free(plan, race, None))
        begun = {(key, plan.spec.seeds[0]) for key in first}
    return [run for run in trained if (run.arm.training_id, run.seed) in begun]


def add_runs(plan: StudyPlan, store: Store) -> None:
    """Write down the wanted runs; the first ones of a race as begun, and their costs."""
    if race_of(plan.spec) is not None:
        store.drop_facts(COSTS)
        unit = "runs" if plan.spec.budget.tokens is None else "tokens"
        store.add_fact(COSTS, unit=unit, of=run_costs(plan))
    _note(store, wanted_runs(plan, store), None if race_of(plan.spec) is None else "first")


def stops(
    plan: StudyPlan, store: Store, evaluated: Iterable[Evaluated], members: Mapping[str, Member]
) -> list[Ended]:
    """The ends of the runs that are stopped at this evaluation, noted with their evidence."""
    race = race_of(plan.spec)
    if race is None:
        return []
    here = {
        members[one.run].state.run.arm.training_id: members[one.run]
        for one in evaluated
        if one.split == "validation"
        and members[one.run].running
        and members[one.run].state.run.seed == plan.spec.seeds[0]
    }
    shares: dict[float, list[str]] = {}
    for key, member in here.items():
        if _is_rung(race, member):
            shares.setdefault(member.state.step / member.state.max_steps, []).append(key)
    ends = []
    for at in sorted(shares, reverse=True):
        for one in _decided(plan, race, store, at, shares[at]):
            if one.stop:
                here[one.arm].state.status = STOPPED
                ends.append(Ended(here[one.arm].id, STOPPED))
    return ends


def _decided(
    plan: StudyPlan, race: RaceSpec, store: Store, at: float, keys: Sequence[str]
) -> list[Decision]:
    """The decisions on these configurations at this share: those noted before, or new ones."""
    earlier = decisions(store)
    noted = {one.arm: one for one in earlier if math.isclose(one.share, at)}
    new = [key for key in keys if key not in noted]
    found = decide(seen_of(plan, store), _rules(plan, race), at, new, earlier) if new else ()
    for one in found:
        if one.stop or one.audited:
            store.add_fact(DECISION, **_as_fact(one))
    return [*(noted[key] for key in keys if key in noted), *found]


def _is_rung(race: RaceSpec, member: Member) -> bool:
    """Whether this evaluation is the first from a rung on; the last step is none."""
    state, training = member.state, member.training
    if state.step == state.max_steps:
        return False
    if race.rungs is None:
        return True
    every = training.eval_steps or max(1, state.max_steps // 10)
    before, now = (state.step - every) / state.max_steps, state.step / state.max_steps
    return any(before < rung <= now for rung in race.rungs)


def start_more(plan: StudyPlan, store: Store, running: int) -> list[Run]:
    """Runs of configurations that did not begin yet, for the places that are free; noted.

    Those that the settings of the others leave no chance are noted as decided, and not begun.
    """
    race = race_of(plan.spec)
    if race is None:
        return []
    seen, rules, earlier = seen_of(plan, store), _rules(plan, race), decisions(store)
    out = {one.arm for one in earlier if one.stop}
    absent = [arm for arm in seen.arms if not seen.seeds[arm] and arm not in out]
    if not absent:
        return []
    hopeless = [one for one in decide(seen, rules, 0.0, absent, earlier) if one.stop]
    for one in hopeless:
        store.add_fact(DECISION, **_as_fact(one))
    free = min(race.at_once - running, _affordable(plan, store))
    keys = next_starts(seen, rules, max(free, 0), (*earlier, *hopeless))
    return _note(store, _runs(plan, [(key, plan.spec.seeds[0]) for key in keys]), "promising")


def next_round(plan: StudyPlan, store: Store) -> list[Run]:
    """Further seeds for the configurations that may be best, one each; noted.

    None where one is the winner, those left are shown equal within the tolerance, or the budget or
    the seeds of the spec are used up.
    """
    race = race_of(plan.spec)
    if race is None:
        return []
    seen, rules, costs = seen_of(plan, store), _rules(plan, race), run_costs(plan)
    stopped = [one.arm for one in decisions(store) if one.stop]
    verdict = _verdict(plan, store, seen, stopped)
    if verdict is None:
        return []
    left = limit_of(plan) - committed(plan, store, begun_runs(store), costs)
    chosen = rounds.next_runs(seen, verdict, rules, left, stopped, costs)
    return _note(store, _runs(plan, chosen), FURTHER)


def _verdict(plan: StudyPlan, store: Reader, seen: Seen, stopped: Sequence[str]) -> Verdict | None:
    """The verdict on the finished runs at the next look; None before one has finished."""
    scores = rounds.scores_of(seen)
    if scores is None:
        return None
    used = share(look_number(read_records(store)))
    return judge(scores, _rules(plan, race_of(plan.spec) or RaceSpec()).tolerance or None, used)


def decisions(store: Reader) -> list[Decision]:
    """The decisions that were noted, in their order."""
    return [
        Decision(**{**fact.data, "seeds": tuple(fact.data["seeds"])})
        for fact in store.facts()
        if fact.kind == DECISION
    ]


def _as_fact(one: Decision) -> dict[str, Any]:
    return asdict(one)


def begun_runs(store: Reader) -> set[tuple[str, int]]:
    """(training id, seed) of the runs that the race has begun, or that were trained before it."""
    keys = {training.id: training.key for training in store.trainings()}
    noted = {(f.data["training"], f.data["seed"]) for f in store.facts() if f.kind == START}
    return noted | {(keys[r.training_id], r.seed) for r in store.runs() if r.state != "planned"}


def _note(store: Store, runs: Sequence[Run], why: str | None) -> list[Run]:
    """Add the runs; those of a race with the reason why they begin, if it is not known yet."""
    numbers = {training.key: training.id for training in store.trainings()}
    begun = set() if why is None else begun_runs(store)
    for run in runs:
        store.add_run(numbers[run.arm.training_id], run.seed)
        if why is not None and (run.arm.training_id, run.seed) not in begun:
            store.add_fact(START, training=run.arm.training_id, seed=run.seed, why=why)
    return list(runs)


def _runs(plan: StudyPlan, chosen: Iterable[tuple[str, int]]) -> list[Run]:
    known = {(run.arm.training_id, run.seed): run for run in shared_trainings(plan.runs)}
    return [known[one] for one in chosen if one in known]


def _affordable(plan: StudyPlan, store: Reader | None) -> int:
    """Full runs of the costliest configuration that the budget has left."""
    costs, limit = run_costs(plan), limit_of(plan)
    if limit == math.inf:
        return len(plan.runs)
    spent = 0.0 if store is None else committed(plan, store, begun_runs(store), costs)
    left = limit - spent
    return int((left + ROUNDING) / max(costs.values()))


def _free(plan: StudyPlan, race: RaceSpec, store: Reader | None) -> int:
    return max(min(race.at_once, _affordable(plan, store)), 2)


def _rules(plan: StudyPlan, race: RaceSpec) -> RaceRules:
    keys = {arm.name: arm.training_id for arm in plan.arms}
    tolerance = plan.spec.objective.tolerance
    return RaceRules(
        rungs=race.rungs or (),
        tolerance=tolerance if isinstance(tolerance, float) else 0.0,
        protect=frozenset(keys[name] for name in race.protect),
        audit=race.audit,
        seed=plan.spec.seeds[0],
        seeds=plan.spec.seeds,
        most_seeds=len(plan.spec.seeds),
    )


def _unseen(plan: StudyPlan) -> Seen:
    arms = {arm.training_id: arm for arm in reversed(plan.arms)}
    ordered = {key: arms[key] for key in dict.fromkeys(arm.training_id for arm in plan.arms)}
    return Seen(
        runs={},
        schedules={key: _schedule(plan, arm) for key, arm in ordered.items()},
        settings={key: arm.settings for key, arm in ordered.items()},
    )


def _schedule(plan: StudyPlan, arm: Arm) -> Schedule:
    training, steps = arm.training, plan.steps(arm)
    warmup = training.warmup_steps or math.ceil((training.warmup_ratio or 0.0) * steps)
    return Schedule(str(training.lr_scheduler_type), warmup / steps, steps)


def seen_of(plan: StudyPlan, store: Reader) -> Seen:
    """What the runs of the race have shown, by training id, with the sign that less is better.

    By the loss where the deciding metric is not kept example by example.
    """
    unseen, begun = _unseen(plan), begun_runs(store)
    keys = {training.id: training.key for training in store.trainings()}
    examples = store.examples("validation")
    metric = ACCURACY if plan.spec.objective.metric == ACCURACY else LOSS
    chooser = chooser_of(metric, examples)
    runs = {
        (keys[run.training_id], run.seed): _seen_run(plan, store, run, keys, chooser)
        for run in store.runs()
        if (keys[run.training_id], run.seed) in begun and keys[run.training_id] in unseen.schedules
    }
    weights = examples.weights if examples is not None and weighs_targets(metric) else None
    return Seen(
        runs=runs,
        schedules=unseen.schedules,
        settings=unseen.settings,
        groups_E=None if examples is None or examples.groups is None else list(examples.groups),
        weights_E=None if weights is None else [float(w) for w in weights],
    )


def _seen_run(
    plan: StudyPlan, store: Reader, run: RunRecord, keys: Mapping[int, str], chooser: Chooser
) -> SeenRun:
    steps = _steps(plan, keys[run.training_id])
    sign = 1.0 if lower_is_better(chooser.metric) else -1.0
    evaluations = store.evaluations(run.id)
    curve: dict[float, Floats] = {
        one.step / steps: sign * scores_of(one)[chooser.metric] for one in evaluations
    }
    final = None
    if run.state in FINISHED and run.best_step is not None:
        best = store.evaluation_at(run.id, run.best_step)
        final = sign * read_run(evaluations, best, chooser).scores[chooser.metric]
    return SeenRun(curve, final, run.state in FINISHED, run.state == "diverged")


def _steps(plan: StudyPlan, key: str) -> int:
    return plan.steps(next(arm for arm in plan.arms if arm.training_id == key))
