"""What is checked of a study before any weight is loaded: that data, tokenizer and model fit.

Each check raises SpecError or ModelError with the place, what was found and a remedy.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from rankwise.adapters.adapter import Adapter
from rankwise.base.modules import Gaps, kind_of, linear_modules
from rankwise.base.origin import base_name
from rankwise.base.skeleton import embeds_each_token, positions, vocabulary
from rankwise.data.examples import Example
from rankwise.errors import ModelError, SpecError
from rankwise.spec.arms import Arm
from rankwise.spec.models import GenerationSpec, StudySpec, race_of
from rankwise.spec.tasks import TASKS, has_classes, is_causal
from rankwise.text import count, names, nearest, shorten
from rankwise.train.generate import Question


def check_metric(spec: StudySpec) -> None:
    """Refuse a metric that is not measured for the task."""
    able = TASKS[spec.task].deciding
    if spec.objective.metric not in able:
        raise SpecError(
            f"objective.metric: {spec.objective.metric} is not measured for task {spec.task}; "
            f"use {' or '.join(able)}"
        )


def check_race(spec: StudySpec, arms: Sequence[Arm]) -> None:
    """Refuse a race that protects a configuration which does not exist, or that has one only.

    Those that are proposed cannot be protected.
    """
    race = race_of(spec)
    if race is None:
        return
    known = [arm.name for arm in arms]
    for name in race.protect:
        if name not in known:
            raise SpecError(
                f"race.protect: no configuration is named {shorten(name)}{nearest(name, known)}"
            )
    if spec.search is None and len({arm.training_id for arm in arms}) < 2:
        raise SpecError(
            "budget: there is one configuration to train, and nothing to race; give a grid or "
            "configs, or remove budget.runs"
        )


def asks(asked: GenerationSpec) -> bool:
    """Whether there is anything to answer."""
    return bool(asked.prompts or asked.prompts_from_validation)


def check_asked(spec: StudySpec, arms: Sequence[Arm]) -> None:
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
    if not any(asks(asked) for asked in every):
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


def check_room(
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


def check_length(spec: StudySpec, structure: nn.Module, gaps: Gaps) -> None:
    """Refuse rows longer than the model has positions for."""
    most = positions(structure, gaps.unreached)
    if most is not None and spec.data.max_length > most:
        raise SpecError(
            f"data.max_length: {spec.data.max_length} tokens exceed the {most} positions of "
            f"{base_name(spec.model)}; use {most} or less"
        )


def check_attention(spec: StudySpec, structure: nn.Module) -> None:
    """Refuse an attention kernel that the model does not have."""
    asked = spec.model.attn_implementation
    flag = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}.get(asked)
    if flag is not None and not getattr(structure, flag, False):
        raise SpecError(
            f"model.attn_implementation: {kind_of(structure)} models have no {asked}; use eager or "
            f"auto"
        )


def check_noise(spec: StudySpec, arms: Sequence[Arm], structure: nn.Module) -> None:
    """Refuse NEFTune where there is no place for its noise."""
    name = "training.neftune_noise_alpha"
    asked = any(arm.training.neftune_noise_alpha for arm in arms)
    searched = spec.search is not None and name in spec.search.space
    if (asked or searched) and not embeds_each_token(structure):
        raise SpecError(
            f"{name}: {kind_of(structure)} models do not look up one embedding for each token of "
            f"their input, and there is no place for the noise; remove it"
        )


def check_start(spec: StudySpec, structure: nn.Module) -> None:
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


def check_tokens(
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
    highest = max(tokenizer.pad_token_id, *(int(ids.max(initial=0)) for ids in read))
    if highest >= most:
        raise ModelError(
            f"model.tokenizer: it has {len(tokenizer)} tokens, {base_name(spec.model)} has "
            f"embeddings for {most}; the rows hold "
            f'"{tokenizer.convert_ids_to_tokens(highest)}", number {highest}. Use the tokenizer of '
            f"the model, or a checkpoint whose embeddings were enlarged and trained"
        )


def check_last_tokens(spec: StudySpec, tokenizer: Any, parts: Sequence[Sequence[Example]]) -> None:
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
