"""The configurations (arms) of a study, from its grid and its list: settings, names, identities.

The identity is a hash of the effective settings. Two spellings of one configuration have the same
one, and a study that is run again finds what it has already done.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rankwise.errors import SpecError
from rankwise.files import bad_folder_name
from rankwise.spec.errors import (
    arm_settings,
    flat,
    no_such_setting,
    once,
    readable,
    setting_names,
    shown,
)
from rankwise.spec.identity import (
    NO_MEANING,
    RESERVED,
    arm_names,
    canonical,
    effective_settings,
    identity,
    why_idle,
)
from rankwise.spec.models import (
    AugmentSpec,
    GenerationSpec,
    LoraSpec,
    RanksSpec,
    StudySpec,
    TrainingSpec,
)

MAX_ARMS = 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Arm:
    """One configuration under comparison.

    Attributes:
        id: 12 hex digits, equal for equal meaning (settings, base model, data, task).
        training_id: the same without `generation.*`: arms of equal training_id are trained once.
        name: short and readable, unique in its study; also a folder's name.
        settings: dotted name -> JSON-ready value of everything that identifies the arm.
    """

    id: str
    training_id: str
    name: str
    method: str
    quantization: str
    lora: LoraSpec
    training: TrainingSpec
    ranks: RanksSpec
    augment: AugmentSpec
    max_samples: int | None
    generation: GenerationSpec
    settings: dict[str, Any]

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: Arm
    seed: int

    @property
    def id(self) -> str:
        """The run's name in the store, and the folder of its adapter."""
        return f"{self.arm.name}/seed-{self.seed}"


def make_arms(
    spec: StudySpec, proposed: Sequence[tuple[str, Mapping[str, Any]]] = ()
) -> tuple[Arm, ...]:
    """The arms of a study: all combinations of its grid, then its list, then those proposed.

    One of the shared settings alone where grid and list are empty and nothing is searched. Names
    of the first do not depend on what is proposed.

    Args:
        spec: The study.
        proposed: Name and changed settings of what its search has proposed.

    Raises:
        SpecError: a setting that does not exist or cannot vary, an empty list of values, an
            invalid value, settings without effect or in conflict, or the same arm or name twice.
    """
    known = dict(arm_settings())
    drafts = [
        draft_arm(spec, changes, place, name)
        for place, name, changes in _changes(spec, tuple(known))
    ]
    names = arm_names([d.settings for d in drafts], [d.name for d in drafts])
    arms = [_named(draft, name) for draft, name in zip(drafts, names, strict=True)]
    arms += [draft_arm(spec, changes, "search", name) for name, changes in proposed]
    _refuse_twins(arms)
    return tuple(arms)


def varying_settings(arms: Sequence[Arm]) -> tuple[str, ...]:
    """Dotted names of the settings in which the arms differ, in the order of the spec."""
    return tuple(
        name
        for name, _ in arm_settings()
        if len({canonical(arm.settings.get(name, "absent")) for arm in arms}) > 1
    )


def _changes(
    spec: StudySpec, known: Sequence[str]
) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(place for messages, explicit name, dotted setting -> value) of every arm."""
    for key, values in spec.grid.items():
        check_key(key, f"grid.{key}", known)
        if not values:
            raise SpecError(
                f"grid.{key}: the list of values is empty; give values or remove the line"
            )
    combinations = math.prod(len(values) for values in spec.grid.values())
    alone = not spec.configs and spec.search is None
    size = len(spec.configs) + (combinations if spec.grid or alone else 0)
    if size > MAX_ARMS:
        raise SpecError(
            f"grid and configs: {size:,} configurations, but at most {MAX_ARMS:,} are allowed; "
            "give fewer values"
        )
    if spec.grid or alone:
        for combination in itertools.product(*spec.grid.values()):
            yield "grid", None, dict(zip(spec.grid, combination, strict=True))
    for number, entry in enumerate(spec.configs):
        place = f"configs[{number}]"
        changes = once(flat(entry, known), place)
        name = changes.pop("name", None)
        for key in changes:
            check_key(key, f"{place}: {key}", known)
        yield place, _checked_name(name, place), changes


def check_key(key: str, place: str, known: Sequence[str]) -> None:
    """Refuse the name of a setting that does not exist, or that cannot vary within a study."""
    if key in known:
        return
    inside = next((name for name in known if name.startswith(f"{key}.")), None)
    if inside is not None:
        raise SpecError(f"{place}: is a section; name a setting in it, such as {inside}")
    if key in setting_names(StudySpec):
        raise SpecError(
            f"{place}: must be the same in all configurations of a study; set it outside `grid` "
            f"and `configs`, or make a second study"
        )
    raise SpecError(f"{place}: {no_such_setting(key, known)}")


def _checked_name(name: Any, place: str) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SpecError(
            f"{place}: name: must be made of letters, digits, dots, dashes, plus signs and "
            f"underscores (it names a folder), found {shown(name)}"
        )
    fault = "is reserved" if name in RESERVED else bad_folder_name(name)
    if fault is not None:
        raise SpecError(f"{place}: name: {shown(name)} {fault}; choose another name")
    return name


def draft_arm(
    spec: StudySpec, changes: Mapping[str, Any], place: str, name: str | None = None
) -> Arm:
    """One arm, checked, with its explicit name or an empty one."""
    raw = spec.model_dump(mode="json", warnings=False)
    raw["grid"], raw["configs"], raw["search"] = {}, [], None
    for key, value in changes.items():
        here = raw
        *sections, leaf = key.split(".")
        for section in sections:
            here = here[section]
        here[leaf] = value
    try:
        one = StudySpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(readable(error, raw, StudySpec, f"{place}: ")) from None
    _check_together(one, place)
    settings = effective_settings(one)
    _refuse_idle(one, changes, settings, place)
    return Arm(
        id=identity(one, settings),
        training_id=identity(
            one, {k: v for k, v in settings.items() if not k.startswith("generation.")}
        ),
        name=name or "",
        method=one.method,
        quantization=one.model.quantization,
        lora=one.lora,
        training=one.training,
        ranks=one.ranks,
        augment=one.data.augment,
        max_samples=one.data.max_samples,
        generation=one.generation,
        settings=settings,
    )


def _named(arm: Arm, name: str) -> Arm:
    fields = {field: getattr(arm, field) for field in Arm.__dataclass_fields__}
    return Arm(**fields | {"name": name})


def _check_together(spec: StudySpec, place: str) -> None:
    """Refuse settings of one arm that cannot work with one another."""
    if spec.method == "full" and spec.model.quantization != "none":
        raise SpecError(
            f"{place}: model.quantization: {spec.model.quantization} weights cannot be trained in "
            f"full; use method: lora, or quantization: none for this configuration"
        )
    if spec.method == "full" and spec.training.loraplus_lr_ratio is not None:
        raise SpecError(
            f"{place}: training.loraplus_lr_ratio: full fine-tuning has no matrix B; set it to null"
        )
    if spec.ranks.strategy != "uniform" and spec.lora.rank_pattern and spec.method == "lora":
        raise SpecError(
            f"{place}: ranks.strategy: {spec.ranks.strategy} writes lora.rank_pattern itself; "
            f"remove lora.rank_pattern, or use strategy: custom with `custom` ranks"
        )


def _refuse_idle(
    spec: StudySpec, changes: Mapping[str, Any], settings: Mapping[str, Any], place: str
) -> None:
    """Refuse a setting that was given to this arm and has no effect in it."""
    for key in changes:
        if key in settings or key in NO_MEANING:
            continue
        raise SpecError(
            f"{place}: {key}: has no effect in this configuration, because {why_idle(spec, key)}"
        )


def _refuse_twins(arms: Sequence[Arm]) -> None:
    seen: dict[str, Arm] = {}
    for arm in arms:
        if arm.id in seen:
            raise SpecError(
                f"{seen[arm.id].name} and {arm.name} are the same configuration; remove one"
            )
        seen[arm.id] = arm
    names: dict[str, Arm] = {}
    for arm in arms:
        if arm.name.casefold() in names:
            raise SpecError(f"configs: the name {shown(arm.name)} is given twice; rename one")
        names[arm.name.casefold()] = arm
