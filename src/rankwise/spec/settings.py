"""The settings of the spec by their dotted names, and which of them a configuration may change."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rankwise.spec.models import Section, StudySpec


def setting_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The dotted names of all settings of a model, sections included."""
    return tuple(name for name, _ in fields_of(model))


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of `model` as (dotted name, field), a section before its own settings."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        section = section_of(field)
        if section is not None:
            yield from fields_of(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[Section] | None:
    """The model of a field that is a section of the spec, else None."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def arm_settings() -> Iterator[tuple[str, FieldInfo]]:
    """The settings in which the configurations of one study may differ, as (dotted name, field)."""
    varying = ("training.", "lora.", "ranks.", "generation.", "data.augment.")
    single = ("method", "data.max_samples", "model.quantization")
    for name, field in fields_of(StudySpec):
        if name in single or name.startswith(varying):
            yield name, field
