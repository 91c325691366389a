"""Adapters as a user will load them: from disk, by transformers and peft, on a base loaded anew.

What they give must be what training computed. It is tried before the first step, with a short
trial of every kind of adapter in a study, and at the end with the recommended adapter and one of
every kind. Weights that the checkpoint lacks are drawn from another seed than in training, so
that one which is not saved with the adapter shows.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankwise.adapters.peft_files import load_exported
from rankwise.base.load import choose_dtype
from rankwise.data.examples import Example
from rankwise.errors import ModelError, StoreError, UserError, is_shortage
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.results.records import RunFacts, best_run
from rankwise.spec.arms import Arm, Run
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.schema import Reload
from rankwise.study.begin import Study, parts_of_one
from rankwise.study.plan import StudyPlan
from rankwise.study.record import Remark, StudyEvent
from rankwise.study.train_cohort import PROBE_ROWS, adapter_writer
from rankwise.tasks.by_name import row_losses
from rankwise.tasks.losses import Batch
from rankwise.text import first_line, reload_words
from rankwise.train.bank import Bank
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate
from rankwise.train.prepare import first_rows, make_bank
from rankwise.train.probe import TOLERANCE, add_noise, largest_difference


def kind_of_adapter(plan: StudyPlan, arm: Arm) -> tuple[object, ...]:
    """What decides how an adapter is written: arms of one kind differ in numbers only."""
    adapter = plan.adapters[arm.id]
    if adapter is None:
        return ("full",)
    names = frozenset(name.rpartition(".")[2] for name in adapter.modules)
    varied = len(set(adapter.ranks.values())) > 1
    biases = frozenset(name.rpartition(".")[2] for name in adapter.biases)
    written = (adapter.init, adapter.dora, biases, adapter.saved, names, varied)
    return (arm.quantization, *written)


def one_of_each_kind(plan: StudyPlan, arms: Iterable[Arm]) -> list[Arm]:
    """The first arm of every kind."""
    found: dict[tuple[object, ...], Arm] = {}
    for arm in arms:
        found.setdefault(kind_of_adapter(plan, arm), arm)
    return list(found.values())


def differs(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether losses differ by more than the precision of the base explains.

    A loss that is finite in neither is left out: the run diverges, and its files are not at fault.
    """
    compared = torch.isfinite(found) | torch.isfinite(expected)
    if not compared.any():
        return False
    return largest_difference(found[compared], expected[compared]) > TOLERANCE[dtype]


@dataclass(frozen=True)
class Trial:
    """Perturbed weights on disk, and the losses (N,) that the bank computes with them."""

    arm: Arm
    folder: Path
    batch: Batch
    losses_N: Tensor


def refuse_unloadable(study: Study, runs: Sequence[Run]) -> None:
    """Refuse a study whose adapters, loaded by peft, are not what training computes.

    For every kind of adapter the first weights of a run are perturbed, written, and loaded on a
    base of its own; then the losses of a few training rows are compared. Where memory does not
    hold the base once more, nothing is tried.

    Raises:
        ModelError: the losses differ, or the adapter cannot be loaded.
    """
    kinds = one_of_each_kind(study.plan, [run.arm for run in runs])
    by_arm = {run.arm.id: run for run in reversed(runs)}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            trials = [
                _trial(study, by_arm[arm.id], Path(scratch) / str(number))
                for number, arm in enumerate(kinds)
            ]
            study.bases.let_go()
            for trial in trials:
                _compare(study, trial)
        except (UserError, StoreError):
            raise
        except Exception as error:
            if not is_shortage(error):
                raise ModelError(
                    f"model.name: its first batch cannot be trained: {first_line(error)}"
                ) from error
            study.store.add_fact("not_checked", error=first_line(error))


@torch.no_grad()
def _trial(study: Study, run: Run, folder: Path) -> Trial:
    adapter = study.plan.adapters[run.arm.id]
    base = study.bases.whole() if adapter is None else study.bases.frozen(run.arm.quantization)
    bank = make_bank(base, [adapter], [run.seed])
    parts = parts_of_one(study, run)
    batch = first_rows(parts, PROBE_ROWS)
    try:
        with bank.running([0], parts[0].key) as model:  # with dropout, as in training
            row_losses(model, study.task.name, parts[0].batch)
        add_noise(bank.parameters_of(0), 0)
        with bank.running([0]) as model:
            losses_N = row_losses(model, study.task.name, batch).total.float().cpu()
        writer = adapter_writer(study, base)
        folder = writer.save(str(folder), adapter, bank.state_of(0), bank.start_of(0))
    finally:
        if isinstance(bank, Bank):
            bank.take_apart()
    return Trial(run.arm, folder, batch, losses_N)


@torch.no_grad()
def _compare(study: Study, trial: Trial) -> None:
    place = f"{trial.arm.name}: its adapter, written to disk and loaded by peft,"
    if trial.arm.method == "full":
        place = f"{trial.arm.name}: its model, written to disk and loaded by transformers,"
    try:
        found = _loaded(study, trial.arm, trial.folder)
        with found.running([0]) as model:
            found_N = row_losses(model, study.task.name, trial.batch).total.float().cpu()
    except Exception as error:
        if is_shortage(error):
            raise
        raise ModelError(f"{place} cannot be read: {first_line(error)}") from error
    if differs(found_N, trial.losses_N, _dtype(study)):
        raise ModelError(
            f"{place} gives a loss of {float(found_N.mean()):.4f} on the first rows, where "
            f"training computes {float(trial.losses_N.mean()):.4f}: what is trained could not be "
            f"used. Nothing was trained. Choose other lora.target_modules or another checkpoint; "
            f"check_export: false trains all the same"
        )


def unchecked(plan: StudyPlan, store: Reader) -> list[tuple[Arm, RunFacts]]:
    """The recommended adapter and one of every kind, with their best runs, but those checked."""
    if not (plan.spec.check_export and store.sample()):  # none: an older version began the study
        return []
    records = read_records(store)
    chosen = judge_records(records).choice.arm
    best = {arm: best_run(records, arm.name) for arm in plan.arms}
    trained = [arm for arm, run in best.items() if run is not None]
    first = [arm for arm in trained if arm.name == chosen]
    return [
        (arm, run)
        for arm in dict.fromkeys([*first, *one_of_each_kind(plan, trained)])
        if (run := best[arm]) is not None
        and run.id not in records.reloads
        and not store.run(run.run or 0).dropped
    ]


def check_adapters(study: Study) -> Iterator[tuple[StudyEvent, ...]]:
    """Load what `unchecked` names, and keep in the store what that gives."""
    store = study.store
    study.bases.let_go()
    for arm, run in unchecked(study.plan, store):
        try:
            found = reload(study, arm, run)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  the study is done, whatever this shows
            yield (Remark(_not_loaded(study, run, error)),)
        else:
            store.save_reload(run.run or 0, found)
            yield (Remark(f"{run.id}: {reload_words(**asdict(found))}"),)


def _not_loaded(study: Study, run: RunFacts, error: Exception) -> str:
    """Note that an adapter could not be loaded; where memory sufficed, that is a mismatch."""
    why = first_line(error)
    if is_shortage(error):
        study.store.add_fact("not_checked", error=why)
        return f"{run.id}: not loaded again by peft: {why}"
    study.store.save_reload(run.run or 0, Reload(0, math.nan, math.nan, False))
    study.store.add_fact("not_done", what="loading by peft", runs=[run.id], error=why)
    return f"{run.id}: its adapter cannot be loaded: {why}"


def reload(study: Study, arm: Arm, run: RunFacts) -> Reload:
    """A run's adapter from disk on the first validation examples, against what is recorded."""
    assert run.folder is not None
    model = _loaded(study, arm, study.folder / ADAPTERS / run.folder)
    return compare_with_stored(study.store, run, model, study.task, _dtype(study))


def compare_with_stored(
    store: Reader, run: RunFacts, model: Untouched, task: Task, dtype: torch.dtype
) -> Reload:
    """A loaded model on the first validation examples, against what a run recorded of them.

    Args:
        store: Of the study, which holds the examples.
        run: Finished.
        model: On the device of `task`.
        task: How examples become tensors.
        dtype: Precision of the base in training.
    """
    examples = [Example(np.array(ids), np.array(labels), 0, "") for ids, labels in store.sample()]
    assert run.run is not None
    assert run.best_step is not None
    stored_E = store.evaluation_at(run.run, run.best_step).losses[: len(examples)]
    (found,) = evaluate(model, [0], examples, task, rows=len(examples))
    return Reload(
        len(examples),
        float(np.mean(stored_E)),
        float(np.mean(found.losses_E)),
        not differs(torch.tensor(found.losses_E), torch.tensor(stored_E), dtype),
    )


def _loaded(study: Study, arm: Arm, folder: Path) -> Untouched:
    """The model that a folder holds, on a base of its own."""
    plan, task = study.plan, study.task
    spec = plan.spec.model.model_copy(update={"quantization": arm.quantization})
    attention = study.bases.attention
    model = load_exported(
        folder, spec, task.name, plan.num_labels, task.device, task.pad_token_id, attention
    )
    return Untouched(model, _dtype(study) if arm.method == "full" else None)


def _dtype(study: Study) -> torch.dtype:
    return choose_dtype(study.plan.spec.model.dtype, study.task.device)
