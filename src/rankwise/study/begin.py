"""A study under way, and its beginning: what it is, with what, on what, written down once.

Per-layer ranks of strategy `empirical` are settled here, once the base is there to measure on;
until then a plan holds uniform ranks of the same budget. They are stored for later seeds.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankwise import __version__
from rankwise.adapters.adapter import Adapter, resolve_adapter
from rankwise.adapters.memory import footprint
from rankwise.adapters.peft_files import peft_settings
from rankwise.base.load import Base
from rankwise.base.origin import base_files, base_name, summed
from rankwise.data.examples import Example
from rankwise.errors import ModelError, is_shortage
from rankwise.spec.arms import Arm, Run
from rankwise.spec.load import dump_spec
from rankwise.spec.tasks import TASKS
from rankwise.store.reader import Reader
from rankwise.store.schema import BaseRecord, ModuleRank, Split, StudyRecord
from rankwise.store.writer import Store
from rankwise.study.answering import (
    ask_base,
    base_metrics,
)
from rankwise.study.checkpoints import Checkpoints
from rankwise.study.plan import StudyPlan, pick_device
from rankwise.study.proposals import note_proposals
from rankwise.study.race import add_runs
from rankwise.study.settled import PACKAGES, versions_of
from rankwise.tasks.by_name import row_losses, target_count
from rankwise.tasks.losses import Batch
from rankwise.text import first_line
from rankwise.train.batch import Part, Task, chosen_rows, collate, parts_of
from rankwise.train.evaluate import Untouched
from rankwise.train.generate import WRITTEN_EXAMPLES
from rankwise.train.prepare import Bases, choose_attention
from rankwise.train.probe import TOLERANCE, largest_difference, measure_importance

CHECKED = 4  # validation rows that are tried alone, and padded beside others
PADDING = 16  # tokens that are put behind a row, to see whether it stays the same
SAMPLE = 16  # validation examples that are computed again with adapters loaded from disk
SEED = 0  # of the batches that importance is read on: the same for every seed of an arm


def write_training(plan: StudyPlan, arm: Arm, store: Store, task: Task) -> int:
    """Write down what a configuration trains and costs; its number in the store.

    Ranks that are still to be measured are left out.
    """
    adapter, costs = plan.adapters[arm.id], plan.costs(arm, task.device)
    ranks: dict[str, ModuleRank] = {}
    words: dict[str, Any] = {}
    if adapter is not None and not adapter.provisional:
        ranks = {n: ModuleRank(m.rank, m.scaling) for n, m in adapter.modules.items()}
        words = peft_settings(adapter, task.name)
    return store.add_training(arm.training_id, **costs, ranks=ranks, adapter=words)


def with_stored_ranks(plan: StudyPlan, store: Reader) -> StudyPlan:
    """The plan with the ranks that an earlier call has measured."""
    numbers = {training.key: training.id for training in store.trainings()}
    for arm in plan.arms:
        adapter, number = plan.adapters[arm.id], numbers.get(arm.training_id)
        if adapter is None or not adapter.provisional or number is None:
            continue
        known = {name: module.rank for name, module in store.ranks(number).items()}
        if known:
            found = resolve_adapter(
                plan.structure, arm, plan.spec.task, ranks=known, gaps=plan.gaps
            )
            plan = _with_adapter(plan, arm, found)
    return plan


def with_measured_ranks(
    plan: StudyPlan, base: Base, quantization: str, task: Task, store: Store
) -> StudyPlan:
    """The plan with ranks by importance for all arms over this base that await them.

    Arms of equal data, modules and rows of a batch share one measurement. What an arm costs is
    counted anew, as its budget is met within 1 % only; ranks and costs go to the store.

    Args:
        plan: The study.
        base: The frozen base, with nothing in it.
        quantization: How the base is held; arms over others wait for theirs.
        task: How examples become tensors.
        store: Where the arms are.

    Raises:
        SpecError: importance tells nothing, or the budget cannot be met.
    """
    measured: dict[tuple[object, ...], dict[str, float]] = {}
    for arm in plan.arms:
        adapter = plan.adapters[arm.id]
        if adapter is None or not adapter.provisional or arm.quantization != quantization:
            continue
        names = tuple(adapter.modules)
        rows, count = arm.training.per_device_train_batch_size, arm.ranks.batches
        key = (id(plan.train[arm.training_id]), names, rows, count)
        if key not in measured:
            batches = _batches(plan, arm, task)
            measured[key] = measure_importance(base.model, names, batches, task.name)
        found = resolve_adapter(plan.structure, arm, task.name, measured[key], gaps=plan.gaps)
        plan = _with_adapter(plan, arm, found)
        write_training(plan, arm, store, task)
        store.add_fact(
            "ranks",
            config=arm.name,
            low=min(found.ranks.values()),
            high=max(found.ranks.values()),
            batches=arm.ranks.batches,
            head_seed=SEED if base.new_modules else None,
        )
    return plan


def _batches(plan: StudyPlan, arm: Arm, task: Task) -> Iterator[Batch]:
    """The first training batches of the arm, as a run of seed `SEED` would see them."""
    examples = plan.train[arm.training_id]
    rows = arm.training.per_device_train_batch_size
    for batch in range(arm.ranks.batches):
        (chosen,) = chosen_rows([examples], [SEED], rows, [batch])
        yield collate(chosen, task)


def _with_adapter(plan: StudyPlan, arm: Arm, adapter: Adapter) -> StudyPlan:
    counts = footprint(plan.structure, adapter)
    return replace(
        plan,
        adapters={**plan.adapters, arm.id: adapter},
        footprints={**plan.footprints, arm.id: counts},
    )


@dataclass
class Study:
    """A study under way.

    Attributes:
        cohort: Number of the cohort in training, from 1.
        sharing: By id of a run that is trained, all runs that its training stands for.
        began: When this call began, by a clock that only goes forward.
        before: Seconds that earlier calls have taken.
    """

    plan: StudyPlan
    folder: Path
    store: Store
    bases: Bases
    task: Task
    checkpoints: Checkpoints
    cohort: int = 0
    sharing: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0

    def seconds(self) -> float:
        """What all calls have taken so far."""
        return self.before + time.monotonic() - self.began

    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        hours = self.plan.spec.budget.hours
        return hours is not None and self.seconds() >= 3600 * hours


def open_study(plan: StudyPlan, folder: Path, store: Store) -> Study:
    """A study ready to go on; nothing is loaded yet, and the attention of its beginning is kept."""
    spec = plan.spec
    device = pick_device(spec.hardware.device)
    pad = plan.tokenizer.pad_token_id
    attention: str = spec.model.attn_implementation
    if attention == "auto" and store.begun():
        attention = store.study().base.attention
    return Study(
        plan,
        folder,
        store,
        Bases(spec.model, spec.task, plan.num_labels, pad, device, attention),
        Task(spec.task, pad, spec.data.max_length, device),
        Checkpoints(folder, spec.hardware.checkpoint_seconds),
        before=store.seconds(),
    )


def reference_base(study: Study) -> Base:
    """The base that is measured and rates answers: as the first arm of the plan holds it."""
    return study.bases.frozen(study.plan.runs[0].arm.quantization)


def begin(study: Study) -> None:
    """Write down what the study is, with what, on what, and what the untouched base can do."""
    plan, store = study.plan, study.store
    spec = plan.spec
    base = reference_base(study)
    _check_rows(study, base)
    if study.bases.attention == "auto":
        batch = parts_of_one(study, plan.runs[0])[-1].batch
        study.bases.attention = choose_attention(base.model, spec.task, batch)
    store.begin_study(
        StudyRecord(
            spec_yaml=dump_spec(spec),
            spec=spec.model_dump(mode="json", warnings=False),
            versions={"rankwise": __version__, **versions_of(PACKAGES)},
            device=device_name(study.task.device),
            threads=torch.get_num_threads(),
            base=BaseRecord(
                name=base_name(spec.model),
                sha256=base.fingerprint,
                dtype=str(base.dtype).removeprefix("torch."),
                attention=study.bases.attention,
                total_params=next(iter(plan.footprints.values())).base,
            ),
            data_fingerprint=plan.data.fingerprint,
            label_names=plan.data.label_names,
        )
    )
    paths, _ = base_files(spec.model)
    store.save_base_files(summed(paths, store.base_files()))
    for note in plan.notes:
        store.add_fact("text", about="data", text=note)
    _write_examples(study)
    write_configurations(study)
    _measure_base(study, base)


@torch.no_grad()
def _check_rows(study: Study, base: Base) -> None:
    """Refuse a model that fails on rows of this study, or whose losses depend on their padding.

    Rows share batches, and are padded to the longest of them. A loss that depends on that would
    depend on which rows, and which runs, happen to be neighbours.

    Raises:
        ModelError: as said.
    """
    task, name = study.task, base_name(study.plan.spec.model)
    validation = study.plan.data.validation
    rows = sorted(validation, key=lambda one: len(one.input_ids))[:CHECKED]
    longest = max(validation, key=lambda one: (one.labels.size, len(one.input_ids)))
    padded = max(len(longest.input_ids), min(len(rows[-1].input_ids) + PADDING, task.max_length))

    def losses(some: Sequence[Example], length: int) -> torch.Tensor:
        return row_losses(base.model, task.name, collate(some, task, length)).total[: len(rows)]

    try:
        alone = torch.cat([losses([row], len(row.input_ids))[:1] for row in rows])
        beside = losses([*rows, longest], padded)
    except Exception as error:
        if is_shortage(error):
            raise
        raise ModelError(
            f"model.name: {name} fails on rows of this study: {first_line(error)}"
        ) from error
    if not torch.isfinite(alone).all():
        return  # each run will be marked as diverged
    difference = largest_difference(beside, alone)
    if difference > TOLERANCE[base.dtype] / 5:
        raise ModelError(
            f"model.name: the loss of a row depends on the padding behind it or on the rows beside "
            f"it in {name} (by {difference:.2g} of its value), so that "
            f"runs would not be comparable; this model is not supported"
        )


def write_configurations(study: Study) -> dict[str, str]:
    """Trainings, configurations and runs of the plan; those that are there already stay.

    Old to new names of configurations whose name the plan gives to others.
    """
    plan, store = study.plan, study.store
    if plan.search is not None:
        note_proposals(store, plan.search.proposals)
    moved = store.set_configs({arm.id: arm.name for arm in plan.arms})
    numbers = {arm.id: write_training(plan, arm, store, study.task) for arm in plan.arms}
    for arm in plan.arms:
        store.add_config(arm.id, numbers[arm.id], arm.name, arm.settings)
    add_runs(plan, store)
    return moved


def _measure_base(study: Study, base: Base) -> None:
    """What the untouched base can do: its validation metrics and its answers, measured once."""
    plan, store, task = study.plan, study.store, study.task
    untouched, validation = Untouched(base.model), plan.data.validation
    if not store.base_metrics():
        rows = plan.spec.training.per_device_eval_batch_size
        store.save_base_metrics(base_metrics(untouched, validation, task, rows, plan.tokenizer))
    if TASKS[task.name].compares_texts:
        examples = min(len(validation), WRITTEN_EXAMPLES)
        store.add_fact("likeness", examples=examples, of=len(validation))
    try:
        ask_base(untouched, plan.arms, plan.questions, task, plan.tokenizer, store)
    except (RuntimeError, MemoryError) as error:
        store.add_fact("no_answers", who="the untouched base", error=first_line(error))


def _write_examples(study: Study) -> None:
    data = study.plan.data
    parts: tuple[tuple[Split, Sequence[Example]], ...] = (
        ("validation", data.validation),
        ("test", data.test),
    )
    for split, examples in parts:
        if examples:
            study.store.save_examples(
                split,
                [example.digest for example in examples],
                np.array([example.group for example in examples]),
                np.array([target_count(e, study.task.name) for e in examples], dtype=float),
            )
    if not study.store.sample():
        some = data.validation[:SAMPLE]
        study.store.save_sample([(one.input_ids.tolist(), one.labels.tolist()) for one in some])


def parts_of_one(study: Study, run: Run) -> list[Part]:
    """The parts of a run's first batch."""
    examples = study.plan.train[run.arm.training_id]
    rows = chosen_rows([examples], [run.seed], run.arm.training.per_device_train_batch_size, [0])
    return list(parts_of(rows, [run.seed], [0], study.task))


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
