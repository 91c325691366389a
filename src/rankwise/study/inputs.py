"""What a study is made of, beside what it was begun with; told without data, model and torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rankwise.base.origin import base_files, base_name, differences, summed
from rankwise.errors import WrongFolderError
from rankwise.spec.identity import canonical
from rankwise.spec.models import StudySpec
from rankwise.store.reader import Reader
from rankwise.store.schema import BaseFile
from rankwise.text import setting, shorten

FREE = {  # settings of a section that change no result, or that configurations have of their own
    "model": ("quantization", "attn_implementation", "trust_remote_code", "allow_pickle"),
    "data": ("augment", "max_samples", "malformed_rows"),
}


def compare_inputs(spec: StudySpec, store: Reader) -> dict[str, BaseFile]:
    """Compare what shows without reading data and model: the settings, and the base's files.

    The files of the base as they are now; none where an older version began the study.

    Raises:
        WrongFolderError: as `compare`.
    """
    study = store.study()
    before = spec_of(study.spec)
    if before is not None:
        _refuse(store, "base model", differing_section(before, spec, "model"))
        _refuse(store, "data", differing_section(before, spec, "data"))
        task = differing_values({"task": before.task}, {"task": spec.task})
        metric = (before.objective.metric, spec.objective.metric)
        name = "objective.metric"
        _refuse(store, "task", task)
        _refuse(store, "metric", differing_values({name: metric[0]}, {name: metric[1]}))
    recorded = store.base_files()
    if not recorded:
        return {}
    paths, all_here = base_files(spec.model)
    now = summed(paths, recorded)
    differing = list(differences(recorded, now, all_here))
    if differing:
        raise WrongFolderError(
            f"{store.folder}: this study was begun with other files of the base model at "
            f"{base_name(spec.model)} ({'; '.join(differing)}), and such runs cannot be compared; "
            f"restore the files, or use another --out"
        )
    return now


def spec_of(stored: Mapping[str, Any]) -> StudySpec | None:
    """The stored spec with today's defaults; None where an older version's is no spec any more."""
    try:
        return StudySpec.model_validate(stored)
    except ValidationError:
        return None


def differing_section(
    before: StudySpec, now: StudySpec, section: str
) -> dict[str, tuple[Any, Any]]:
    """What differs between two specs in the settings of `model` or `data` that change results."""
    old, new = (
        {
            name: value
            for name, value in _flat(getattr(spec, section).model_dump(mode="json"), section)
            if name.split(".")[1] not in FREE[section]
        }
        for spec in (before, now)
    )
    return differing_values(old, new)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


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


def differing_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By name, the values that differ: before and now."""
    return {
        name: (old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if canonical(old.get(name)) != canonical(new.get(name))
    }


def settings_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """`training.learning_rate was 1e-3, now 2e-3`."""
    return ", ".join(
        f"{name} was {shorten(setting(old), 60)}, now {shorten(setting(new), 60)}"
        for name, (old, new) in differing.items()
    )
