"""A spec beside the study that its folder holds: what is unchanged, new, changed, or another study.

Runs are compared with one another across calls, so the base, the rows, the task and the metric
that chose their best steps must stay. Configurations and seeds may come, go and change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rankwise.data.examples import Example
from rankwise.errors import WrongFolderError
from rankwise.spec.arms import Arm
from rankwise.store.reader import Reader
from rankwise.store.schema import BaseFile, ConfigRecord, Split
from rankwise.study.inputs import compare_inputs, differing_values, settings_words
from rankwise.study.plan import StudyPlan
from rankwise.text import count, names


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
        base_files: The files of the base as they are now; none where the study has none.
    """

    unchanged: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    seeds_new: tuple[int, ...] = ()
    seeds_removed: tuple[int, ...] = ()
    base_files: Mapping[str, BaseFile] = field(default_factory=dict)


def compare(plan: StudyPlan, store: Reader) -> Changes:
    """What the plan changes in the study of a folder.

    Raises:
        WrongFolderError: it is another study: of another base, other rows, task or metric.
    """
    files = compare_inputs(plan.spec, store)
    study = store.study()
    if study.data_fingerprint != plan.data.fingerprint:
        raise WrongFolderError(
            f"{store.folder}: this study was begun with other data: {_other_rows(plan, store)} "
            f"differ from what data.source gives now, and such runs cannot be compared; restore "
            f"the rows, or use another --out"
        )
    seeds = tuple(study.spec.get("seeds", ()))
    changes = _of_configurations(plan.arms, store.configs(), seeds, plan.spec.seeds)
    return replace(changes, base_files=files)


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
        arm.name: differing_values(by_name[arm.name].settings, arm.settings)
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


def changes_words(changes: Changes, moved: Mapping[str, str]) -> Iterator[str]:
    """The changes as sentences, and what is as it was.

    Args:
        changes: What differs.
        moved: Old to new names of configurations whose name another one has now.
    """
    if changes.unchanged:
        yield f"unchanged: {count(len(changes.unchanged), 'configuration')}"
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
