"""A search under way: results are told to the sampler, and what it proposes is planned and begun.

Places that are free are filled one batch at a time, by the configurations that have not begun and
then by new proposals, as far as the budget, the space and `search.most` go. What was proposed is
kept in the store before it begins, so that a study that goes on has the same configurations.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rankwise.search.race import Decision
from rankwise.search.sampler import Trial
from rankwise.search.seen import Seen
from rankwise.search.space import point_in
from rankwise.spec.arms import Arm, Run, make_arms
from rankwise.spec.models import race_of
from rankwise.store.lock import held_by
from rankwise.store.reader import Reader
from rankwise.store.schema import FILE
from rankwise.store.seal import BACKUP
from rankwise.study.begin import Study, write_configurations
from rankwise.study.budget import committed, limit_of, run_costs
from rankwise.study.plan import StudyPlan, shared_trainings, with_proposals
from rankwise.study.proposals import FOR_SEEDS, more_proposals, stored_proposals
from rankwise.study.race import ROUNDING, begun_runs, decisions, seen_of, start_more

# Batches in a row of which no configuration may be worth a run.
FRUITLESS = 3


def with_stored_proposals(plan: StudyPlan, store: Reader) -> StudyPlan:
    """The plan with the proposals that earlier calls have made, in place of its first ones."""
    if plan.search is None or not store.begun():
        return plan
    found = stored_proposals(plan.spec, plan.search.space, store)
    return with_proposals(plan, found) if found else plan


def as_in_folder(plan: StudyPlan, folder: Path) -> StudyPlan:
    """As `with_stored_proposals`, of the study in a folder, if there is one; changes no byte."""
    if plan.search is None or not any((folder / name).exists() for name in (FILE, BACKUP)):
        return plan
    with ExitStack() as opened:
        store = opened.enter_context(Reader(folder, untouched=held_by(folder) is None))
        return with_stored_proposals(plan, store)


def sharing_of(plan: StudyPlan) -> Mapping[str, Sequence[Run]]:
    """By id of a run that is trained, all runs that its training stands for."""
    return {run.id: runs for run, runs in shared_trainings(plan.runs).items()}


def begin_more(study: Study, busy: int, for_seeds: float = FOR_SEEDS) -> list[Run]:
    """Runs of configurations that did not begin yet, for the places that are free; noted.

    Args:
        study: Under way; its plan is renewed where configurations are proposed.
        busy: Runs that train or wait.
        for_seeds: Share of the budget that new proposals leave for further seeds.
    """
    runs = start_more(study.plan, study.store, busy)
    for _ in range(FRUITLESS):
        free = _room(study, busy + len(runs), for_seeds)
        if free < 1 or not _propose(study, free):
            break
        runs += start_more(study.plan, study.store, busy + len(runs))
    return runs


def _room(study: Study, busy: int, for_seeds: float) -> int:
    """Places that are free for new proposals and that the budget can pay; 0 without a search."""
    plan, store = study.plan, study.store
    race, hours = race_of(plan.spec), plan.spec.budget.hours
    if plan.search is None or race is None:
        return 0
    part = 1.0 - (for_seeds if len(plan.spec.seeds) > 1 else 0.0)
    if hours is not None and study.seconds() >= 3600 * hours * part:
        return 0
    costs, limit = run_costs(plan), limit_of(plan) * part
    if limit == math.inf:
        return race.at_once - busy
    left = limit - committed(plan, store, begun_runs(store), costs)
    return min(race.at_once - busy, int((left + ROUNDING) / max(costs.values())))


def _propose(study: Study, count: int) -> bool:
    """Propose at most so many configurations and write them down; whether there were any."""
    plan = study.plan
    assert plan.search is not None
    known, before = trials_of(plan, study.store), plan.search.proposals
    new = more_proposals(plan.spec, plan.search, plan.arms, known, count, plan.can_train)
    if new:
        study.plan = with_proposals(plan, (*before, *new))
        study.sharing = sharing_of(study.plan)
        write_configurations(study)
    return bool(new)


def trials_of(plan: StudyPlan, store: Reader) -> tuple[Trial, ...]:
    """What is known of the space: earlier studies, the study's own configurations, proposals."""
    search, spec = plan.search, plan.spec
    assert search is not None
    seen, decided, states = seen_of(plan, store), decisions(store), _states(store)
    arms = {arm.id: arm for arm in plan.arms}
    points = [(arm, point_in(search.space, spec, arm.settings)) for arm in make_arms(spec)]
    points += [(arms[one.key], one.point) for one in search.proposals]
    levels = {arm.training_id: level_of(seen, decided, arm.training_id) for arm in plan.arms}
    known = [level for level in levels.values() if level is not None]
    warm = [t for w in search.warm for t in w.shifted(min(known, default=None))]
    worst = max([*known, *(t.value for t in warm if t.value is not None)], default=None)
    found = []
    for arm, point in points:
        if point is None:
            continue
        level = levels[arm.training_id]
        if level is None and _lost(seen, decided, arm):
            level = worst
        ended = states.get(arm.training_id, set())
        found.append(Trial(point, level, failed=level is None and ended == {"failed"}))
    return (*warm, *found)


def level_of(
    seen: Seen, decided: Sequence[Decision], arm: str, asking: frozenset[str] = frozenset()
) -> float | None:
    """What an arm has come to, less is better: None while that is open, or where it diverged.

    The mean over its finished seeds; of a stopped one, the leader's level at its stop plus the
    distance that was forecast.
    """
    results = [seen.means[arm, seed].result for seed in seen.seeds[arm]]
    done = [value for value in results if value is not None]
    if done:
        return sum(done) / len(done)
    stop = next((one for one in reversed(decided) if one.arm == arm and one.stop), None)
    if stop is None or stop.leader in asking or not math.isfinite(stop.forecast):
        return None
    if stop.leader not in seen.seeds or stop.reason == "diverged":
        return None
    leader = level_of(seen, decided, stop.leader, asking | {arm})
    if leader is None:
        leader = _last_mean(seen, stop.leader)
    return None if leader is None else leader + stop.forecast


def _last_mean(seen: Seen, arm: str) -> float | None:
    """The mean of an unfinished arm at its last evaluation."""
    curves = [seen.means[arm, seed].curve for seed in seen.seeds[arm]]
    last = [curve[max(curve)] for curve in curves if curve]
    return sum(last) / len(last) if last else None


def _lost(seen: Seen, decided: Sequence[Decision], arm: Arm) -> bool:
    """Whether an arm without a level has diverged or was stopped."""
    runs = [seen.runs[arm.training_id, seed] for seed in seen.seeds[arm.training_id]]
    stopped = any(one.stop and one.arm == arm.training_id for one in decided)
    return stopped or (bool(runs) and all(run.diverged for run in runs))


def _states(store: Reader) -> dict[str, set[str]]:
    """By training, `failed` for runs that crashed or had too little memory, `other` for others."""
    keys = {training.id: training.key for training in store.trainings()}
    found: dict[str, set[str]] = {}
    for run in store.runs():
        lost = run.state in ("crashed", "out_of_memory")
        found.setdefault(keys[run.training_id], set()).add("failed" if lost else "other")
    return found
