"""The race of a study: which runs it trains, which are stopped at a rung, and what comes next.

What was decided is kept in the store as facts: the runs that were begun and why, and the runs that
were stopped or trained on for the audit, with the evidence. A study that goes on reads them, and
takes none of these decisions again. Configurations that share a training race as one, by its id.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from rankwise.analysis.scores import Floats
from rankwise.analysis.verdict import judge
from rankwise.results.checkpoints import Chooser, chooser_of, raced_metric, read_run, scores_of
from rankwise.results.from_store import read_records
from rankwise.results.judge import tolerance_in_units
from rankwise.results.looks import look_number, share
from rankwise.results.store_race import COSTS, DECISION, FURTHER, START
from rankwise.search import rounds
from rankwise.search.pairs import level_of
from rankwise.search.race import Decision, RaceRules, decide
from rankwise.search.seen import Run as SeenRun
from rankwise.search.seen import Schedule, Seen
from rankwise.search.start import next_starts
from rankwise.spec.arms import Arm, Run
from rankwise.spec.models import EARLIEST_RUNG, RaceSpec, TrainingSpec, race_of
from rankwise.spec.tasks import lower_is_better, weighs_targets
from rankwise.store.reader import Reader
from rankwise.store.schema import FINISHED, RunRecord
from rankwise.store.writer import Store
from rankwise.study.budget import committed, limit_of, run_costs
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.train.cohort import Member
from rankwise.train.loop import Ended, Evaluated
from rankwise.train.optimizer import evaluation_steps

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
        unseen, free = _unseen(plan), min(race.at_once, _affordable(plan, None))
        first = next_starts(unseen, _rules(plan, race, unseen), free)
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
        state = member.state
        if state.step in rung_steps(race, member.training, state.max_steps):
            shares.setdefault(state.step / state.max_steps, []).append(key)
    if not shares:
        return []
    ends, seen = [], seen_of(plan, store)
    for at in sorted(shares, reverse=True):
        for one in _decided(seen, _rules(plan, race, seen), store, at, shares[at]):
            if one.stop:
                here[one.arm].state.status = STOPPED
                ends.append(Ended(here[one.arm].id, STOPPED))
    return ends


def _decided(
    seen: Seen, rules: RaceRules, store: Store, at: float, keys: Sequence[str]
) -> list[Decision]:
    """The decisions on these configurations at this share: those noted before, or new ones."""
    earlier = decisions(store)
    noted = {one.arm: one for one in earlier if math.isclose(one.share, at)}
    new = [key for key in keys if key not in noted]
    found = decide(seen, rules, at, new, earlier) if new else ()
    for one in found:
        if one.stop or one.audited:
            store.add_fact(DECISION, **asdict(one))
    return [*(noted[key] for key in keys if key in noted), *found]


def rung_steps(race: RaceSpec, training: TrainingSpec, steps: int) -> list[int]:
    """The evaluations of a run at which it may be stopped: each the first from a rung on."""
    at = [step for step in evaluation_steps(training, steps) if step / steps >= EARLIEST_RUNG]
    if race.rungs is None:
        return at
    first = (next((step for step in at if step / steps >= rung), None) for rung in race.rungs)
    return list(dict.fromkeys(step for step in first if step is not None))


def start_more(plan: StudyPlan, store: Store, running: int) -> list[Run]:
    """Runs of configurations that did not begin yet, for the places that are free; noted.

    Those that the settings of the others leave no chance are noted as decided, and not begun.
    """
    race = race_of(plan.spec)
    if race is None:
        return []
    seen, earlier = seen_of(plan, store), decisions(store)
    rules = _rules(plan, race, seen)
    out = {one.arm for one in earlier if one.stop}
    absent = [arm for arm in seen.arms if not seen.seeds[arm] and arm not in out]
    if not absent:
        return []
    ruled_out = [one for one in decide(seen, rules, 0.0, absent, earlier) if one.stop]
    for one in ruled_out:
        store.add_fact(DECISION, **asdict(one))
    free = min(race.at_once - running, _affordable(plan, store))
    keys = next_starts(seen, rules, max(free, 0), (*earlier, *ruled_out))
    return _note(store, _runs(plan, [(key, plan.spec.seeds[0]) for key in keys]), "promising")


def next_round(plan: StudyPlan, store: Store) -> list[Run]:
    """Further seeds for the configurations that may be best, one each; noted.

    None where one is the winner, those left are shown equal within the tolerance, or the budget or
    the seeds of the spec are used up.
    """
    race = race_of(plan.spec)
    if race is None:
        return []
    seen, costs = seen_of(plan, store), run_costs(plan)
    scores, rules = rounds.scores_of(seen), _rules(plan, race, seen)
    if scores is None:
        return []
    used = share(look_number(read_records(store)))
    verdict = judge(scores, rules.tolerance or None, used)
    stopped = [one.arm for one in decisions(store) if one.stop]
    left = limit_of(plan) - committed(plan, store, begun_runs(store), costs)
    chosen = rounds.next_runs(seen, verdict, rules, left, stopped, costs)
    return _note(store, _runs(plan, chosen), FURTHER)


def decisions(store: Reader) -> list[Decision]:
    """The decisions that were noted, in their order."""
    return [
        Decision(**{**fact.data, "seeds": tuple(fact.data["seeds"])})
        for fact in store.facts()
        if fact.kind == DECISION
    ]


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


def _rules(plan: StudyPlan, race: RaceSpec, seen: Seen) -> RaceRules:
    keys = {arm.name: arm.training_id for arm in plan.arms}
    return RaceRules(
        tolerance=_tolerance(plan, seen),
        protect=frozenset(keys[name] for name in race.protect),
        audit=race.audit,
        seed=plan.spec.seeds[0],
        seeds=plan.spec.seeds,
        most_seeds=len(plan.spec.seeds),
    )


def _tolerance(plan: StudyPlan, seen: Seen) -> float:
    """In units of the metric; a share is one of the best finished mean, and 0 before there is one.

    0 as well where runs are compared by another metric than the deciding one.
    """
    given, metric = plan.spec.objective.tolerance, plan.spec.objective.metric
    levels = [level_of(seen, arm, 1.0) for arm in seen.arms if seen.seeds[arm]]
    done = [level for level in levels if math.isfinite(level)]
    if given is None or raced_metric(metric) != metric:
        return 0.0
    return tolerance_in_units(given, min(done)) if done or isinstance(given, float) else 0.0


def _unseen(plan: StudyPlan) -> Seen:
    arms: dict[str, Arm] = {}
    for arm in plan.arms:
        arms.setdefault(arm.training_id, arm)
    return Seen(
        runs={},
        schedules={key: _schedule(plan, arm) for key, arm in arms.items()},
        settings={key: arm.settings for key, arm in arms.items()},
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
    metric = raced_metric(plan.spec.objective.metric)
    chooser = chooser_of(metric, examples)
    runs = {
        (keys[run.training_id], run.seed): _seen_run(
            store, run, unseen.schedules[keys[run.training_id]].steps, chooser
        )
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


def _seen_run(store: Reader, run: RunRecord, steps: int, chooser: Chooser) -> SeenRun:
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
