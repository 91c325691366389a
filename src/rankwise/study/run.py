"""The story of a study: spec -> plan -> cohorts -> store.

What the store already has is not done again, and what has been measured is never lost: an error
in one cohort is written down with its cause, and the others go on.
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rankwise.adapters.adapter import plan_adapter
from rankwise.adapters.peft_files import AdapterWriter
from rankwise.base.load import Base
from rankwise.base.skeleton import locate_model
from rankwise.spec.arms import Run
from rankwise.store.folders import link_names
from rankwise.store.schema import CostRecord, Failure
from rankwise.store.writer import Store
from rankwise.study.answer_again import answer_again, unanswered
from rankwise.study.answering import (
    rate_answers,
    unrated,
)
from rankwise.study.begin import Progress, Study, begin, open_study, parts_of_one, yardstick
from rankwise.study.measured_ranks import with_measured_ranks, with_stored_ranks
from rankwise.study.merged_loss import measure_merged
from rankwise.study.plan import Outlook, base_name, shared_trainings
from rankwise.text import first_line
from rankwise.train.bank import Bank, Trainable
from rankwise.train.evaluate import Untouched
from rankwise.train.loop import Cohort, train
from rankwise.train.prepare import first_rows, make_bank
from rankwise.train.probe import probe_company, probe_cost

AGAIN = ("planned", "running", "interrupted", "crashed", "out_of_memory")
"""States of a run that a further call does again; `diverged` would only diverge again."""
PROBE_ROWS = 2
PRICE_TRIALS = 3


def run_study(outlook: Outlook, folder: Path) -> Iterator[Progress]:
    """Train what is missing; yields its progress after every batch.

    Args:
        outlook: The study, checked.
        folder: Where its results are, or shall be.

    Raises:
        UserError: something that only loading the model can tell.
        StoreError: the folder holds another study, or is in use.
    """
    with Store(folder, create=True) as store:
        outlook = with_stored_ranks(with_stored_names(outlook, store), store)
        study = open_study(outlook, folder, store)
        missing = missing_runs(outlook, store)
        if missing:
            yield from _train_missing(study, missing)
        elif {arm.id for arm in outlook.arms} - {config.key for config in store.configs()}:
            begin(study)
        if unanswered(study):
            study.progress.news.append("answering by adapters that are there already")
            yield study.progress
            answer_again(study)
        if unrated(store, outlook.arms):
            study.progress.news.append("rating the answers by the untouched base")
            yield study.progress
            base = Untouched(yardstick(study).model)
            rate_answers(base, outlook.arms, outlook.questions, study.task, store)
        study.bases.let_go()
        for found in measure_merged(outlook, store, folder, study.task):
            study.progress.news.append(found)
            yield study.progress


def with_stored_names(outlook: Outlook, store: Store) -> Outlook:
    """The outlook with the names under which the store knows its arms.

    An arm is named by what varies in its study, so a spec with one more value in its grid would
    name old arms anew, and their runs would seem to be missing.
    """
    known = {config.key: config.name for config in store.configs()}
    arms = {arm.id: replace(arm, name=known.get(arm.id, arm.name)) for arm in outlook.arms}
    runs = tuple(Run(arms[run.arm.id], run.seed) for run in outlook.runs)
    return replace(outlook, arms=tuple(arms.values()), runs=runs)


def missing_runs(outlook: Outlook, store: Store) -> list[Run]:
    """The runs of the plan that the store has not finished."""
    keys = {training.id: training.key for training in store.trainings()}
    states = {(keys[run.training_id], run.seed): run.state for run in store.runs()}
    return [
        run
        for run in outlook.runs
        if states.get((run.arm.training_id, run.seed), "planned") in AGAIN
    ]


def _train_missing(study: Study, missing: list[Run]) -> Iterator[Progress]:
    progress = study.progress
    trainings = shared_trainings(missing)
    study.sharing = {run.id: together for run, together in trainings.items()}
    progress.runs = len(trainings)
    progress.news.append(f"loading {base_name(study.outlook.spec.model)}")
    yield progress
    waiting = study.outlook.cohorts(missing, study.task.device)
    progress.cohorts = len(waiting)
    begin(study)
    for run in trainings:
        study.store.restart_run(_id(study, run))
    while waiting:
        runs = waiting.pop(0)
        progress.cohort += 1
        try:
            yield from _train_cohort(study, runs)
        except (RuntimeError, MemoryError) as error:
            if not _is_shortage(error):
                _note_crash(study, runs, error)
            elif len(runs) == 1:
                failure = Failure(error=first_line(error))
                study.store.set_state(_id(study, runs[0]), "out_of_memory", failure)
            else:
                halves = [runs[: len(runs) // 2], runs[len(runs) // 2 :]]
                waiting[:0] = halves
                progress.cohorts += 2
                study.store.add_fact("memory", runs=len(runs))
        except Exception as error:  # noqa: BLE001  one cohort's crash must not cost the others
            _note_crash(study, runs, error)
        finally:
            _mark_interrupted(study, runs)
            link_names(study.store)
        yield progress


def _train_cohort(study: Study, runs: Sequence[Run]) -> Iterator[Progress]:
    """Try the cohort for exactness, train it together or else alone, and price its arms."""
    base, bank = _load(study, runs)
    try:
        strangers = _disagreement(study, bank, runs, base)
        if strangers is None:
            cohort = _cohort_of(study, runs, base, bank)
            for trainees in train(cohort, study.store):
                study.progress.trainees = trainees
                yield study.progress
            study.progress.trainees = ()
            _price_arms(study, cohort, base)
    finally:
        if isinstance(bank, Bank):
            bank.take_apart()
    if strangers is not None:
        study.store.add_fact("fallback", runs=[run.id for run in runs], **strangers)
        study.progress.news.append("training these runs alone: together they would differ")
        study.progress.cohorts += len(runs) - 1
        for number, run in enumerate(runs):
            study.progress.cohort += bool(number)
            yield from _train_cohort(study, (run,))


def _load(study: Study, runs: Sequence[Run]) -> tuple[Base, Trainable]:
    """The base of these runs with their bank in it; ranks by importance are settled here."""
    arm, seeds = runs[0].arm, [run.seed for run in runs]
    if arm.method == "full":
        base = study.bases.whole()
        return base, make_bank(base, [None], seeds)
    base = study.bases.frozen(arm.quantization)
    study.outlook = with_measured_ranks(
        study.outlook, base, arm.quantization, study.task, study.store
    )
    adapters = [study.outlook.adapters[run.arm.id] for run in runs]
    structure = study.outlook.structure
    plans = [plan_adapter(adapter, structure) for adapter in adapters if adapter is not None]
    return base, make_bank(base, plans, seeds)


def _disagreement(
    study: Study, bank: Trainable, runs: Sequence[Run], base: Base
) -> dict[str, str | float] | None:
    """Why these runs may not train together (a failure or a difference), None where they may."""
    if len(runs) == 1 or not isinstance(bank, Bank):
        return None
    batch = first_rows(parts_of_one(study, runs[0]), PROBE_ROWS)
    agreement = probe_company(bank, study.task.name, batch, base.dtype)
    if agreement.exact:
        return None
    if agreement.failure is not None:
        return {"failure": agreement.failure}
    return {"difference": agreement.difference}


def _cohort_of(study: Study, runs: Sequence[Run], base: Base, bank: Trainable) -> Cohort:
    outlook = study.outlook
    place = outlook.spec.model.name
    name = locate_model(place).folder if place is not None else base_name(outlook.spec.model)
    return Cohort(
        runs,
        bank,
        study.task,
        outlook.train,
        outlook.data.validation,
        outlook.data.test,
        AdapterWriter(study.folder / "adapters", name, study.task.name, base.model),
        outlook.spec.objective.metric,
        outlook.tokenizer,
        study.sharing,
        outlook.questions,
    )


def _price_arms(study: Study, cohort: Cohort, base: Base) -> None:
    """What each arm of the cohort costs alone, by a short trial of its first run."""
    known = {key for key, id_ in _trainings(study).items() if id_ in study.store.costs()}
    for place, run in enumerate(cohort.runs):
        if run.arm.training_id in known:
            continue
        known.add(run.arm.training_id)
        cohort.bank.select([place])
        cost = probe_cost(
            cohort.bank,
            study.task,
            parts_of_one(study, run),
            run.arm.training.gradient_accumulation_steps,
            base.nbytes,
            cohort.validation,
            PRICE_TRIALS,
        )
        study.store.save_cost(_trainings(study)[run.arm.training_id], CostRecord(**cost.as_dict()))


def _trainings(study: Study) -> dict[str, int]:
    return {training.key: training.id for training in study.store.trainings()}


def _id(study: Study, run: Run) -> int:
    return study.store.run_id(run.arm.training_id, run.seed)


def _is_shortage(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


def _note_crash(study: Study, runs: Sequence[Run], error: Exception) -> None:
    """Write down a crash of runs that had not come to their end."""
    lines = traceback.format_exception(error)
    cause = f"{type(error).__name__}: {first_line(error)}"
    failure = Failure(error=cause, traceback="".join(lines)[-4000:])
    for run in runs:
        if study.store.run(_id(study, run)).state in ("planned", "running"):
            study.store.set_state(_id(study, run), "crashed", failure)
    study.progress.news.append(f"crashed: {cause}")


def _mark_interrupted(study: Study, runs: Sequence[Run]) -> None:
    """Runs that are still marked as running when their cohort is left were interrupted."""
    for run in runs:
        if study.store.run(_id(study, run)).state == "running":
            study.store.set_state(_id(study, run), "interrupted")
