"""What a study will do, worked out and checked before any weight is loaded.

`rankwise plan` prints it and `rankwise run` starts from it. It needs the data, the tokenizer and
the model's configuration, and finds every mistake that can be found from these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from rankwise.adapters.adapter import Adapter, resolve_adapter
from rankwise.adapters.memory import Footprint, Memory, footprint, max_runs, predict_memory
from rankwise.adapters.peft_files import check_in_peft
from rankwise.base.load import absent_weights, choose_dtype, load_tokenizer, pad_as_model
from rankwise.base.modules import Gaps, kind_of, linear_modules
from rankwise.base.skeleton import own_classes, positions, skeleton, vocabulary, walk
from rankwise.data.augment import check_augment
from rankwise.data.examples import Example, StudyData, make_examples, train_examples
from rankwise.data.sources import read_rows
from rankwise.data.split import Split, split_rows, with_names_of_base
from rankwise.errors import ModelError, SpecError
from rankwise.spec.arms import Arm, Run, make_arms
from rankwise.spec.models import GenerationSpec, ModelSpec, StudySpec
from rankwise.spec.tasks import TASKS, has_classes, is_causal
from rankwise.study.cohorts import cohorts_of
from rankwise.text import count, names
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

        def breadth(run: Run) -> tuple[str, ...]:
            adapter = self.adapters[run.arm.id]
            return tuple(adapter.modules) if adapter else ()

        trained = tuple(shared_trainings(runs))
        together = cohorts_of(trained, lambda some: self.largest_cohort(some, device))
        return [
            tuple(sorted(cohort, key=lambda run: (len(breadth(run)), breadth(run), run.seed)))
            for cohort in together
        ]

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
    _check_metric(spec)
    _check_asked(spec, arms)
    for augment in dict.fromkeys(arm.augment for arm in arms):
        check_augment(augment, spec.data, base_dir)
    split = split_rows(read_rows(spec.data, base_dir), spec.data)
    labels = None if split.label_names is None else len(split.label_names)
    structure = skeleton(spec.model, spec.task, labels)
    split = with_names_of_base(split, own_classes(structure), spec.data)
    _check_start(spec, structure)
    _check_attention(spec, structure)
    gaps = Gaps(absent_weights(spec.model, spec.task, labels, download), *walk(structure))
    adapters = {
        arm.id: None
        if arm.method == "full"
        else resolve_adapter(structure, arm, spec.task, gaps=gaps)
        for arm in arms
    }
    for adapter in {_built(adapter): adapter for adapter in adapters.values() if adapter}.values():
        check_in_peft(structure, adapter, spec.task)
    footprints = {arm.id: footprint(structure, adapters[arm.id]) for arm in arms}
    _check_length(spec, structure, gaps)
    tokenizer = load_tokenizer(spec.model)
    pad_as_model(tokenizer, structure.config)
    data = make_examples(split, spec.data, tokenizer, base_dir)
    train, notes = _training_parts(spec, arms, split, data, tokenizer, base_dir)
    questions = {
        asked: questions_of(asked, spec.data, spec.task, data.validation, tokenizer)
        for asked in dict.fromkeys(arm.generation for arm in arms)
        if _asks(asked)
    }
    parts = [data.validation, data.test, *{id(part): part for part in train.values()}.values()]
    _check_tokens(spec, structure, tokenizer, parts, questions)
    _check_last_tokens(spec, tokenizer, parts)
    for asked, prompts in questions.items():
        _check_room(spec, structure, gaps, asked, prompts)
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
    )


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


def _check_metric(spec: StudySpec) -> None:
    able = TASKS[spec.task].deciding
    if spec.objective.metric not in able:
        raise SpecError(
            f"objective.metric: {spec.objective.metric} is not measured for task {spec.task}; "
            f"use {' or '.join(able)}"
        )


def _asks(asked: GenerationSpec) -> bool:
    return bool(asked.prompts or asked.prompts_from_validation)


def _check_asked(spec: StudySpec, arms: Sequence[Arm]) -> None:
    """Refuse settings of generation where the task generates nothing or there are no prompts."""
    every = [spec.generation, *(arm.generation for arm in arms)]
    if all(asked == GenerationSpec.model_validate({}) for asked in every):
        return
    if not TASKS[spec.task].generates:
        able = " or ".join(name for name, kind in TASKS.items() if kind.generates)
        raise SpecError(
            f"generation: a classifier (task {spec.task}) generates no text; remove the section, "
            f"or use task {able}"
        )
    if not any(_asks(asked) for asked in every):
        raise SpecError(
            "generation: there are no prompts; give generation.prompts or "
            "generation.prompts_from_validation, or remove the section"
        )
    for name in ("temperature", "top_p", "seed"):
        standard = GenerationSpec.model_fields[name].default
        given = getattr(spec.generation, name) != standard
        if given and not any(asked.do_sample for asked in every):
            raise SpecError(
                f"generation.{name}: has no effect, because answers are not sampled; set "
                f"generation.do_sample: true, or remove it"
            )


def _check_room(
    spec: StudySpec,
    structure: nn.Module,
    gaps: Gaps,
    asked: GenerationSpec,
    prompts: Sequence[Question],
) -> None:
    """Refuse answers that would be longer than the model's positions allow."""
    most = positions(structure, gaps.unreached)
    longest = max(len(prompt.ids) for prompt in prompts) if is_causal(spec.task) else 1
    if most is not None and longest + asked.max_new_tokens > most:
        room = most - longest
        remedy = f"use {room} or less, or shorter prompts" if room > 0 else "use shorter prompts"
        raise SpecError(
            f"generation.max_new_tokens: {asked.max_new_tokens} after a prompt of {longest} tokens "
            f"exceeds the {most} positions of {base_name(spec.model)}; {remedy}"
        )


def _check_length(spec: StudySpec, structure: nn.Module, gaps: Gaps) -> None:
    """Refuse rows longer than the model has positions for."""
    most = positions(structure, gaps.unreached)
    if most is not None and spec.data.max_length > most:
        raise SpecError(
            f"data.max_length: {spec.data.max_length} tokens exceed the {most} positions of "
            f"{base_name(spec.model)}; use {most} or less"
        )


def _check_attention(spec: StudySpec, structure: nn.Module) -> None:
    """Refuse an attention kernel that the model does not have."""
    asked = spec.model.attn_implementation
    flag = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}.get(asked)
    if flag is not None and not getattr(structure, flag, False):
        raise SpecError(
            f"model.attn_implementation: {kind_of(structure)} models have no {asked}; use eager or "
            f"auto"
        )


def _check_start(spec: StudySpec, structure: nn.Module) -> None:
    """Refuse a sequence-to-sequence model that cannot be given its targets."""
    if TASKS[spec.task].architecture != "encoder-decoder":
        return
    if not hasattr(structure, "prepare_decoder_input_ids_from_labels"):
        raise ModelError(
            f"task: {spec.task}: {kind_of(structure)} models are not supported: their targets need "
            f"tokens of a language or of a speaker; use a model of the T5, BART, Pegasus or Marian "
            f"kind"
        )
    if getattr(structure.config, "decoder_start_token_id", None) is None:
        place = "model.config" if spec.model.config is not None else "the model's config.json"
        raise SpecError(
            f"{place}: decoder_start_token_id is missing, the token that every target starts with; "
            f"set it (in the T5 family it is that of pad_token_id)"
        )


def _check_tokens(
    spec: StudySpec,
    structure: Any,
    tokenizer: Any,
    parts: Sequence[Sequence[Example]],
    questions: Mapping[GenerationSpec, Sequence[Question]],
) -> None:
    """Refuse rows with tokens that the model has no embedding for."""
    most = vocabulary(structure)
    if most is None or len(tokenizer) <= most:
        return
    examples = [one for part in parts for one in part]
    read = [one.input_ids for one in examples]
    read += [question.ids for asked in questions.values() for question in asked]
    if not has_classes(spec.task):
        read += [one.labels for one in examples]
    highest = max(int(max(ids, default=0)) for ids in read)
    if max(highest, tokenizer.pad_token_id) >= most:
        raise ModelError(
            f"model.tokenizer: it has {len(tokenizer)} tokens, {base_name(spec.model)} has "
            f"embeddings for {most}; the rows hold "
            f'"{tokenizer.convert_ids_to_tokens(highest)}", number {highest}. Use the tokenizer of '
            f"the model, or a checkpoint whose embeddings were enlarged and trained"
        )


def _check_last_tokens(spec: StudySpec, tokenizer: Any, parts: Sequence[Sequence[Example]]) -> None:
    """Refuse rows of a classifier that end with what it takes for padding."""
    pad = tokenizer.pad_token_id
    if has_classes(spec.task) and any(one.input_ids[-1] == pad for part in parts for one in part):
        raise ModelError(
            f'model.tokenizer: rows end with "{tokenizer.pad_token}", the token that they are '
            f"padded with; a classifier of the GPT kind reads the last token that is no padding, "
            f"and would pass over it. Set pad_token in tokenizer_config.json to another token"
        )


def gap_notes(
    structure: nn.Module,
    gaps: Gaps,
    arms: Sequence[Arm],
    adapters: Mapping[str, Adapter | None],
) -> Iterator[str]:
    """What is to be said of weights that the base does not bring and of modules not reached."""
    if gaps.absent:
        yield (
            f"The checkpoint has no weights for {names(gaps.absent_modules)}: they are drawn from "
            f"each run's seed, trained, and saved with its adapter."
        )
    for arm in arms:
        adapter = adapters[arm.id]
        if adapter is not None and arm.lora.bias != "none" and not adapter.biases:
            yield f"{arm.name}: lora.bias {arm.lora.bias} has no effect: there is no bias to train."
    idle = {target.name for target in linear_modules(structure)} & set(gaps.unreached)
    if idle and any(adapters.values()):
        first = sorted(idle)[0]
        yield (
            f"The rows do not pass through {count(len(idle), 'linear module')} of the model, such "
            f"as {first}: these get no adapter, and are not counted."
        )


def _training_parts(
    spec: StudySpec,
    arms: Sequence[Arm],
    split: Split,
    data: StudyData,
    tokenizer: Any,
    base_dir: Path,
) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Each arm's training examples by training id; arms of one augmentation share theirs."""
    made = {(spec.data.augment, spec.data.max_samples): data.train}
    train: dict[str, tuple[Example, ...]] = {}
    notes: list[str] = []
    for arm in arms:
        kind = (arm.augment, arm.max_samples)
        if kind not in made:
            made[kind], more = train_examples(split, *kind, spec.data, tokenizer, base_dir)
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
            f"hardware.device: must be auto, cpu, cuda or cuda:N, found {name!r}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"hardware.device: {name}: torch finds no CUDA device; use cpu or auto")
    return device


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def base_name(model: ModelSpec) -> str:
    """The base model in a few words."""
    if model.name is not None:
        return model.name
    return f"a random {(model.config or {})['model_type']}"
