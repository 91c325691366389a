"""A spec beside the study that its folder holds: what is unchanged, new, changed, or another study.

Runs are compared with one another across calls, so the base, the rows, the task and the metric
that chose their best steps must stay. Configurations and seeds may come, go and change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from rankwise.data.examples import Example
from rankwise.errors import WrongFolderError
from rankwise.spec.arms import Arm
from rankwise.spec.identity import canonical
from rankwise.spec.models import StudySpec
from rankwise.store.reader import Reader
from rankwise.store.schema import ConfigRecord, Split
from rankwise.study.plan import StudyPlan
from rankwise.text import count, names, setting, shorten

FREE = {  # settings of a section that change no result, or that configurations have of their own
    "model": ("quantization", "attn_implementation", "trust_remote_code", "allow_pickle"),
    "data": ("augment", "max_samples", "malformed_rows"),
}


@dataclass(frozen=True)
class Changes:
    """What a spec changes in a study.

    Attributes:
        unchanged: Names of the configurations that are as they were.
        new: Those that the study does not have.
        renamed: Old name to new one.
        changed: By name, the settings that differ: before and now.
        removed: Configurations of the study that the spec has no more.
        seeds_new, seeds_removed: Likewise.
    """

    unchanged: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    seeds_new: tuple[int, ...] = ()
    seeds_removed: tuple[int, ...] = ()


def compare(plan: StudyPlan, store: Reader) -> Changes:
    """What the plan changes in the study of a folder.

    Raises:
        WrongFolderError: it is another study: of another base, other rows, task or metric.
    """
    study = store.study()
    before = _spec(study.spec)
    if before is not None:
        _refuse(store, "base model", _differing(before, plan.spec, "model"))
        _refuse(store, "data", _differing(before, plan.spec, "data"))
        task = _differences({"task": before.task}, {"task": plan.spec.task})
        metric = (before.objective.metric, plan.spec.objective.metric)
        name = "objective.metric"
        _refuse(store, "task", task)
        _refuse(store, "metric", _differences({name: metric[0]}, {name: metric[1]}))
    if study.data_fingerprint != plan.data.fingerprint:
        raise WrongFolderError(
            f"{store.folder}: this study was begun with other data: {_other_rows(plan, store)} "
            f"differ from what data.source gives now, and such runs cannot be compared; restore "
            f"the rows, or use another --out"
        )
    seeds = tuple(study.spec.get("seeds", ()))
    return _of_configurations(plan.arms, store.configs(), seeds, plan.spec.seeds)


def _spec(stored: Mapping[str, Any]) -> StudySpec | None:
    """The stored spec with today's defaults; None where an older version's is no spec any more."""
    try:
        return StudySpec.model_validate(stored)
    except ValidationError:
        return None


def _differing(before: StudySpec, now: StudySpec, section: str) -> dict[str, tuple[Any, Any]]:
    old, new = (
        {
            name: value
            for name, value in _flat(getattr(spec, section).model_dump(mode="json"), section)
            if name.split(".")[1] not in FREE[section]
        }
        for spec in (before, now)
    )
    return _differences(old, new)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if canonical(old.get(name)) != canonical(new.get(name))
    }


def _refuse(store: Reader, what: str, differing: Mapping[str, tuple[Any, Any]]) -> None:
    if not differing:
        return
    why = "such runs cannot be compared"
    if what == "metric":
        why = "by which the best step of every run was chosen"
    raise WrongFolderError(
        f"{store.folder}: this study was begun with another {what} ({settings_words(differing)}), "
        f"{why}; set it back, or use another --out"
    )


def _other_rows(plan: StudyPlan, store: Reader) -> str:
    parts: tuple[tuple[Split, Sequence[Example]], ...] = (
        ("validation", plan.data.validation),
        ("test", plan.data.test),
    )
    for split, now in parts:
        held = store.examples(split)
        before = set() if held is None else set(held.hashes)
        lost = len(before - {example.digest for example in now})
        if lost:
            return f"{lost} of its {len(before)} {split} rows"
    return "its training rows"


def _of_configurations(
    arms: Sequence[Arm],
    configs: Sequence[ConfigRecord],
    seeds_before: tuple[int, ...],
    seeds: tuple[int, ...],
) -> Changes:
    stored = {config.key: config for config in configs}
    by_name = {config.name: config for config in configs if config.current}
    new = [arm for arm in arms if arm.id not in stored]
    keys = {arm.id for arm in arms}
    changed = {
        arm.name: _differences(by_name[arm.name].settings, arm.settings)
        for arm in new
        if arm.name in by_name and by_name[arm.name].key not in keys
    }
    gone = [c.name for c in configs if c.current and c.key not in keys and c.name not in changed]
    known = [(stored[arm.id].name, arm.name) for arm in arms if arm.id in stored]
    return Changes(
        unchanged=tuple(name for old, name in known if old == name),
        new=tuple(arm.name for arm in new if arm.name not in changed),
        renamed={old: name for old, name in known if old != name},
        changed=changed,
        removed=tuple(gone),
        seeds_new=tuple(seed for seed in seeds if seed not in seeds_before),
        seeds_removed=tuple(seed for seed in seeds_before if seed not in seeds),
    )


def settings_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """`training.learning_rate was 1e-3, now 2e-3`."""
    return ", ".join(
        f"{name} was {shorten(setting(old), 60)}, now {shorten(setting(new), 60)}"
        for name, (old, new) in differing.items()
    )


def changes_words(changes: Changes, moved: Mapping[str, str]) -> Iterator[str]:
    """The changes as sentences; none where everything is as it was.

    Args:
        changes: What differs.
        moved: Old to new names of configurations whose name another one has now.
    """
    if changes.new:
        yield f"{count(len(changes.new), 'new configuration')}: {names(changes.new)}"
    for name, differing in changes.changed.items():
        yield (
            f"{name} differs from before: {settings_words(differing)}; it is trained as a new "
            f"configuration, and the results of before stay in the folder as {moved[name]}, "
            f"outside the ranking"
        )
    for old, name in changes.renamed.items():
        yield f"{old} is called {name} now"
    if changes.removed:
        yield (
            f"no longer in the spec: {names(changes.removed)}; the results stay in the folder, "
            f"outside the ranking"
        )
    if changes.seeds_new:
        yield f"new seeds: {names([str(seed) for seed in changes.seeds_new])}"
    if changes.seeds_removed:
        yield (
            f"seeds no longer in the spec: {names([str(s) for s in changes.seeds_removed])}; their "
            f"results stay in the folder, outside the ranking"
        )
