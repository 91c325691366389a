"""What each column of a table of outside results means, as a user gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankwise.errors import DataError, SpecError
from rankwise.spec.models import checked_tolerance
from rankwise.spec.read_yaml import read_yaml_file
from rankwise.text import columns_words, nearest, shorten

CostName = Literal["trainable_params", "memory", "time", "storage"]
UNITS = {"trainable_params": "parameters", "memory": "bytes", "time": "seconds", "storage": "bytes"}


class Columns(BaseModel):
    """Which column of a table means what. What is not given is guessed; null or [] says none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(description="Column of the objective metric.")
    lower_is_better: bool | None = Field(
        None, description="Direction; read from the metric's name where not given."
    )
    arm: str | None = Field(
        None, description="Column of the configuration's name; else its settings are the name."
    )
    context: tuple[str, ...] = Field(
        (),
        description="Columns such as model, task and size of the training data. Each combination "
        "of their values is a block; configurations are compared only inside blocks.",
    )
    seed: str | None = Field(
        None,
        description="Column of the seed. Runs of one seed are paired across configurations.",
    )
    replicate: str | None = Field(
        None,
        description="Column that numbers reruns. They are not paired across configurations; those "
        "of one configuration and seed are averaged.",
    )
    factors: tuple[str, ...] | None = Field(
        None, description="Columns of settings; found by name and content where not given."
    )
    state: str | None = Field(
        None, description="Column with the state of a run (finished, failed, running, ...)."
    )
    costs: dict[CostName, str] = Field(
        default_factory=dict,
        description="Columns of costs. A unit at the end of a name counts (peak_gb, minutes).",
    )
    cost: CostName = Field(
        "trainable_params",
        description="Cost to keep low among equals; the first of the known ones where not given.",
    )
    tolerance: float | str | None = Field(
        None,
        description="Differences up to this do not matter: a number in units of the metric, or a "
        "share of the best mean such as 1%. Then the cheapest configuration within it is "
        "recommended.",
    )
    test_size: int | str | None = Field(
        None,
        description="Test items behind each metric, or their column; the metric must be a share "
        "of items, such as an accuracy.",
    )
    title: str | None = Field(None, description="Title of the report.")

    @field_validator("tolerance")
    @classmethod
    def _checked(cls, value: float | str | None) -> float | str | None:
        return checked_tolerance(value)


@dataclass(frozen=True)
class Role:
    """A column and what it was taken for; `why` is "given" or the reason of the guess."""

    column: str
    role: str
    why: str


def mapping_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        DataError: it cannot be read, or holds no mapping.
    """
    try:
        found = read_yaml_file(path)
    except SpecError as error:
        raise DataError(f"mapping: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no mapping; write lines such as `metric: eval_loss`")
    return found


def columns_of(mapping: Mapping[str, Any], path: Path) -> Columns:
    """A mapping, checked.

    Raises:
        DataError: an unknown field, or a value of another type.
    """
    try:
        return Columns.model_validate(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "mapping"
        fields = ", ".join(Columns.model_fields)
        raise DataError(
            f"mapping of {path.name}: {place}: {first['msg']}; the fields are {fields}"
        ) from None


def check_columns(mapping: Mapping[str, Any], names: tuple[str, ...], path: Path) -> None:
    """Refuse a mapping that names a column which the table does not have, or one twice.

    Raises:
        DataError: with the columns that there are.
    """
    named = named_in(mapping)
    for name in named:
        if name not in names:
            raise DataError(
                f"{path}: no column {shorten(repr(name))}{nearest(name, names)}; the columns are "
                f"{columns_words(names)}"
            )
        if named.count(name) > 1:
            raise DataError(
                f"mapping of {path.name}: column {shorten(repr(name))} is given two meanings"
            )


def named_in(mapping: Mapping[str, Any]) -> list[str]:
    """The columns that a mapping names, whatever for."""
    single = [mapping.get(field) for field in ("metric", "arm", "seed", "replicate", "state")]
    size = mapping.get("test_size")
    lists = [*(mapping.get("context") or ()), *(mapping.get("factors") or ())]
    found = [*single, size if isinstance(size, str) else None, *lists]
    found += (mapping.get("costs") or {}).values()
    return [str(name) for name in found if name is not None]
