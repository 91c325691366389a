"""What a study will do, worked out and checked before any weight is loaded.

`rankwise plan` prints it and `rankwise run` starts from it. It needs the data, the tokenizer and
the model's configuration, and finds every mistake that can be found from these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rankwise.adapters.adapter import Adapter, resolve_adapter
from rankwise.adapters.memory import Footprint, Memory, footprint, max_runs, predict_memory
from rankwise.adapters.peft_files import check_in_peft
from rankwise.base.load import absent_weights, choose_dtype, load_tokenizer
from rankwise.base.modules import Gaps, linear_modules
from rankwise.base.skeleton import hidden_size, own_classes, skeleton, walk
from rankwise.data.augment import check_augment
from rankwise.data.examples import Example, StudyData, make_examples, train_examples
from rankwise.data.formats import in_format
from rankwise.data.rows import hash_of, needed_columns
from rankwise.data.sources import read_rows
from rankwise.data.split import Split, split_rows, with_names_of_base
from rankwise.errors import ModelError, SpecError
from rankwise.search.space import first_values
from rankwise.spec.arms import Arm, Run, make_arms
from rankwise.spec.models import AugmentSpec, DataSpec, GenerationSpec, StudySpec, columns_of
from rankwise.study.checks import (
    asks,
    check_asked,
    check_attention,
    check_last_tokens,
    check_length,
    check_metric,
    check_noise,
    check_race,
    check_room,
    check_start,
    check_tokens,
    gap_notes,
)
from rankwise.study.cohorts import cohorts_of
from rankwise.study.free_memory import free_bytes
from rankwise.study.proposals import Proposal, Search, entries, with_first
from rankwise.study.warm_start import begin_search
from rankwise.text import shorten
from rankwise.train.generate import Question, questions_of
from rankwise.train.optimizer import steps_of

COMFORTABLE = 0.7  # share of the free memory that a cohort may use, where memory_gb is not given


@dataclass(frozen=True)
class StudyPlan:
    """A checked study.

    Attributes:
        adapters: The adapter of each arm, by arm id; None for full fine-tuning.
        footprints: Parameters of each arm, by arm id.
        train: An arm's training examples, by training id; equal ones are shared.
        questions: The prompts that arms with these settings answer after training.
        structure: The base model on the meta device.
        gaps: Weights that the checkpoint does not bring, modules that rows do not reach.
        notes: Facts about the data for the plan and the report.
        rows_sha256: Of the rows of the source.
        search: What its proposals are made from, and those made so far; None where nothing is
            searched.
    """

    spec: StudySpec
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...]
    structure: nn.Module
    gaps: Gaps
    adapters: Mapping[str, Adapter | None]
    footprints: Mapping[str, Footprint]
    tokenizer: Any
    data: StudyData
    train: Mapping[str, tuple[Example, ...]]
    questions: Mapping[GenerationSpec, tuple[Question, ...]]
    notes: tuple[str, ...]
    rows_sha256: str
    search: Search | None = None

    @property
    def num_labels(self) -> int | None:
        """Classes, for SEQ_CLS."""
        return None if self.data.label_names is None else len(self.data.label_names)

    def steps(self, arm: Arm) -> int:
        """Optimizer steps of one run of an arm."""
        return steps_of(arm.training, len(self.train[arm.training_id]))

    def tokens(self, arm: Arm) -> int:
        """Tokens of a typical long training row of an arm: the 95th percentile."""
        lengths = [len(example.input_ids) for example in self.train[arm.training_id]]
        return int(np.percentile(lengths, 95))

    def memory(self, arm: Arm, device: torch.device) -> Memory:
        """Predicted memory of one run of an arm."""
        dtype = str(choose_dtype(self.spec.model.dtype, device)).removeprefix("torch.")
        return predict_memory(
            self.structure,
            arm,
            self.adapters[arm.id],
            self.spec.task,
            self.tokens(arm),
            dtype,
            self.spec.model.double_quant,
        )

    def work_per_token(self, arm: Arm) -> float:
        """Floating-point operations of one training token in products, about.

        A weight costs two forward and two backward, a trained one two more; the output layer
        counts as if it answered for every token, attention itself is left out.
        """
        dense = sum(t.in_features * t.out_features for t in linear_modules(self.structure))
        counts = self.footprints[arm.id]
        return 6.0 * dense if arm.method == "full" else 4.0 * dense + 6.0 * counts.adapter

    def largest_cohort(self, runs: Sequence[Run], device: torch.device) -> int:
        """How many of these runs, counted from the first, may train together."""
        hardware = self.spec.hardware
        limit = (
            hardware.memory_gb * 1e9
            if hardware.memory_gb is not None
            else COMFORTABLE * free_bytes(device)
        )
        count = max_runs(limit, [self.memory(run.arm, device) for run in runs])
        return count if hardware.max_runs is None else min(count, hardware.max_runs)

    def cohorts(self, runs: Sequence[Run], device: torch.device) -> list[tuple[Run, ...]]:
        """The cohorts that will be trained; in each, the runs with fewest adapted modules first.

        In that order the runs that adapt a module are neighbours in the batch. Of runs that
        share a training, the first one is trained.
        """
        trained = tuple(shared_trainings(runs))
        together = cohorts_of(trained, lambda some: self.largest_cohort(some, device))
        return [self.in_order(cohort) for cohort in together]

    @property
    def trained(self) -> tuple[Run, ...]:
        """The runs that are trained: of those that share a training, the first one."""
        return tuple(shared_trainings(self.runs))

    def in_order(self, runs: Sequence[Run]) -> tuple[Run, ...]:
        """The runs of a cohort in the order of their places."""

        def breadth(run: Run) -> tuple[str, ...]:
            adapter = self.adapters[run.arm.id]
            return tuple(adapter.modules) if adapter else ()

        return tuple(sorted(runs, key=lambda run: (len(breadth(run)), breadth(run), run.seed)))

    def can_train(self, arm: Arm) -> bool:
        """Whether this base can have the adapter of an arm that is not in the plan."""
        return _can_train(self.spec, self.structure, self.gaps, arm)

    def costs(self, arm: Arm, device: torch.device) -> dict[str, int]:
        """The costs of an arm that are known before it runs."""
        counts = self.footprints[arm.id]
        return {
            "trainable_params": counts.trainable,
            "total_params": counts.total,
            "storage_bytes": 4 * counts.trainable,
            "memory_bytes": self.memory(arm, device).alone,
        }


def plan_study(spec: StudySpec, base_dir: Path, download: bool = False) -> StudyPlan:
    """Read the data, build the model's structure, and check that everything fits.

    Args:
        spec: The study.
        base_dir: The folder of the spec, for relative paths.
        download: Whether a base that is on the hub only may be fetched, to know its weights.

    Raises:
        SpecError, DataError, ModelError: a mistake, with place, finding and remedy.
    """
    arms = make_arms(spec)
    check_metric(spec)
    check_asked(spec, arms)
    check_race(spec, arms)
    search = None if spec.search is None else begin_search(spec, base_dir)
    augments = dict.fromkeys([spec.data.augment] * bool(search) + [arm.augment for arm in arms])
    rows_sha256, split, shape = read_split(spec, base_dir, augments)
    labels = None if split.label_names is None else len(split.label_names)
    structure = skeleton(spec.model, spec.task, labels)
    split = with_names_of_base(split, own_classes(structure), shape)
    check_start(spec, structure)
    check_attention(spec, structure)
    gaps = Gaps(absent_weights(spec.model, spec.task, labels, download), *walk(structure))
    if search is not None:
        _adapters(spec, structure, gaps, list(first_values(spec, search.space)))
        able = partial(_can_train, spec, structure, gaps)
        search = with_first(spec, search, hidden_size(structure), able)
        arms = make_arms(spec, entries(search.proposals))
    check_noise(spec, arms, structure)
    adapters = _adapters(spec, structure, gaps, arms)
    footprints = {arm.id: footprint(structure, adapters[arm.id]) for arm in arms}
    check_length(spec, structure, gaps)
    tokenizer = load_tokenizer(spec.model, structure.config)
    data = make_examples(split, shape, tokenizer, base_dir)
    train, notes = _training_parts(shape, arms, split, data, tokenizer, base_dir)
    questions = {
        asked: questions_of(asked, shape, spec.task, data.validation, tokenizer)
        for asked in dict.fromkeys(arm.generation for arm in arms)
        if asks(asked)
    }
    parts = [data.validation, data.test, *{id(part): part for part in train.values()}.values()]
    check_tokens(spec, structure, tokenizer, parts, questions)
    check_last_tokens(spec, tokenizer, parts)
    for asked, prompts in questions.items():
        check_room(spec, structure, gaps, asked, prompts)
    return StudyPlan(
        spec,
        arms,
        tuple(Run(arm, seed) for arm in arms for seed in spec.seeds),
        structure,
        gaps,
        adapters,
        footprints,
        tokenizer,
        data,
        train,
        questions,
        tuple(dict.fromkeys([*data.notes, *notes, *gap_notes(structure, gaps, arms, adapters)])),
        rows_sha256,
        search,
    )


def read_split(
    spec: StudySpec, base_dir: Path, augments: Iterable[AugmentSpec]
) -> tuple[str, Split, DataSpec]:
    """The rows split into parts: their hash, the parts, and `data` with the columns of the rows.

    Raises:
        DataError: a mistake in the source, its rows, or an augmentation.
    """
    augments = list(augments)
    if columns_of(spec.data):
        _check_augments(augments, spec.data, base_dir)
    rows = read_rows(spec.data, base_dir, needed_columns(spec.data, augments))
    rows_sha256 = hash_of(rows)
    rows, shape = in_format(rows, spec.data)
    if shape != spec.data:
        _check_augments(augments, shape, base_dir)
    return rows_sha256, split_rows(rows, shape), shape


def with_proposals(plan: StudyPlan, proposals: Sequence[Proposal]) -> StudyPlan:
    """The plan with these as all that its search has proposed; data and structure are those it has.

    Raises:
        SpecError, ModelError: one cannot be trained on this base.
    """
    assert plan.search is not None
    spec, structure = plan.spec, plan.structure
    arms = make_arms(spec, entries(proposals))
    new = [arm for arm in arms if arm.id not in plan.adapters]
    found = {**plan.adapters, **_adapters(spec, structure, plan.gaps, new)}
    counts = {arm.id: footprint(structure, found[arm.id]) for arm in new}
    return replace(
        plan,
        arms=arms,
        runs=tuple(Run(arm, seed) for arm in arms for seed in spec.seeds),
        adapters=found,
        footprints={**plan.footprints, **counts},
        train={**{arm.training_id: plan.data.train for arm in new}, **plan.train},
        search=replace(plan.search, proposals=tuple(proposals)),
    )


def _adapters(
    spec: StudySpec, structure: nn.Module, gaps: Gaps, arms: Sequence[Arm]
) -> dict[str, Adapter | None]:
    """The adapter of each arm by its id; every kind of them is tried in peft."""
    found = {
        arm.id: None
        if arm.method == "full"
        else resolve_adapter(structure, arm, spec.task, gaps=gaps)
        for arm in arms
    }
    for adapter in {_built(one): one for one in found.values() if one}.values():
        check_in_peft(structure, adapter, spec.task)
    return found


def _can_train(spec: StudySpec, structure: nn.Module, gaps: Gaps, arm: Arm) -> bool:
    """Whether an arm's values go together on this base."""
    try:
        _adapters(spec, structure, gaps, [arm])
    except (SpecError, ModelError):
        return False
    return True


def _built(adapter: Adapter) -> tuple[object, ...]:
    """What decides whether peft can build an adapter; ranks do not."""
    return (tuple(adapter.modules), adapter.biases, adapter.saved, adapter.dora)


def shared_trainings(runs: Sequence[Run]) -> dict[Run, tuple[Run, ...]]:
    """The runs that are trained, each with all runs that share its training.

    Arms that differ only in generation share one training at each seed.
    """
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        found.setdefault((run.arm.training_id, run.seed), []).append(run)
    return {together[0]: tuple(together) for together in found.values()}


def _check_augments(augments: Iterable[AugmentSpec], data: DataSpec, base_dir: Path) -> None:
    for augment in augments:
        check_augment(augment, data, base_dir)


def _training_parts(
    shape: DataSpec,
    arms: Sequence[Arm],
    split: Split,
    data: StudyData,
    tokenizer: Any,
    base_dir: Path,
) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Each arm's training examples by training id; arms of one augmentation share theirs."""
    made = {(shape.augment, shape.max_samples): data.train}
    train: dict[str, tuple[Example, ...]] = {}
    notes: list[str] = []
    for arm in arms:
        kind = (arm.augment, arm.max_samples)
        if kind not in made:
            made[kind], more = train_examples(split, *kind, shape, tokenizer, base_dir)
            notes.extend(f"{arm.name}: {note}" for note in more)
        train[arm.training_id] = made[kind]
    return train, notes


def pick_device(name: str) -> torch.device:
    """The device that `hardware.device` asks for; auto: CUDA where there is one.

    Raises:
        SpecError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(
            f"hardware.device: must be auto, cpu, cuda or cuda:N, found {shorten(repr(name))}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            f"hardware.device: {shorten(name)}: torch finds no CUDA device; use cpu or auto"
        )
    return device
