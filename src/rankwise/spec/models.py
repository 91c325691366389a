"""The spec of a study as pydantic models; each field's one-line description stands only there.

Unknown fields are errors: nothing in a spec is silently ignored. `load.py` reads the YAML. The
sections are defined in `sections.py` and `training.py`; other folders import them from here.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rankwise.files import bad_folder_name
from rankwise.spec.sections import (
    AugmentSpec,
    Count,
    DataSpec,
    ModelSpec,
    NonNegative,
    Section,
    SplitSpec,
)
from rankwise.spec.tasks import TASKS, MetricName, TaskName, has_classes
from rankwise.spec.training import GenerationSpec, LoraSpec, RanksSpec, TrainingSpec, alpha_of

__all__ = [
    "AugmentSpec",
    "DataSpec",
    "GenerationSpec",
    "LoraSpec",
    "ModelSpec",
    "RanksSpec",
    "Section",
    "SplitSpec",
    "StudySpec",
    "TrainingSpec",
    "alpha_of",
    "columns_of",
]


SHARE = re.compile(r"\d+(\.\d+)? ?%")


class ObjectiveSpec(Section):
    """The metric that decides, and the cost that is kept low."""

    metric: MetricName = Field("eval_loss", description="Validation metric that decides.")
    cost: Literal["trainable_params", "memory", "time"] = Field(
        "trainable_params",
        description="What the recommendation keeps low among configurations that are as good.",
    )
    tolerance: float | str | None = Field(
        None,
        description="Differences up to this do not matter: a number in units of the metric, or a "
        "share of the best mean such as 1%. The cheapest configuration that is shown to be no "
        "further behind the best is recommended.",
    )

    @field_validator("tolerance")
    @classmethod
    def _positive(cls, value: float | str | None) -> float | str | None:
        return checked_tolerance(value)


def checked_tolerance(value: float | str | None) -> float | str | None:
    """A tolerance: a number above 0, or a share such as 1%. ValueError for anything else."""
    size = value
    if isinstance(value, str):
        size = float(value.rstrip(" %")) if SHARE.fullmatch(value) else None
    if value is not None and not (isinstance(size, float) and 0 < size < math.inf):
        raise ValueError(
            f"must be a number above 0, or a share of the best mean such as 1%; found {value!r}"
        )
    return value


class BudgetSpec(Section):
    """What a study may take."""

    hours: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Most hours of `rankwise run`, all calls together; then training is saved and "
        "stops. No limit where not given.",
    )


class HardwareSpec(Section):
    """Where it runs. It changes no result, so it does not identify a configuration."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    max_runs: Count | None = Field(
        None, description="Most runs in one cohort; as many as fit into memory where not given."
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory a cohort may use; 0.7 of the free memory where not given."
    )
    checkpoint_seconds: NonNegative = Field(
        60.0,
        description="Seconds between two checkpoints of the runs in training: the most that a "
        "kill costs. Longer where writing one takes more than 2 % of that; 0: after every batch.",
    )


class StudySpec(Section):
    """A whole study: base model, data, what all configurations share, and what varies."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the study.")
    model: ModelSpec = Field(description="The base model.")
    task: TaskName = Field(description="Task, named as in peft.TaskType.")
    data: DataSpec = Field(description="The examples.")
    method: Literal["lora", "full"] = Field(
        "lora", description="lora, or full fine-tuning of every weight."
    )
    training: TrainingSpec = Field(
        default_factory=TrainingSpec, description="Training settings that all configurations share."
    )
    lora: LoraSpec = Field(
        default_factory=LoraSpec, description="Adapter settings that all configurations share."
    )
    ranks: RanksSpec = Field(
        default_factory=RanksSpec, description="Per-layer ranks that all configurations share."
    )
    generation: GenerationSpec = Field(
        default_factory=GenerationSpec, description="What the models are asked after training."
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Dotted setting to values; every combination is a configuration.",
    )
    configs: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Single configurations: a name and the settings that differ.",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="Seeds; every configuration is run with each."
    )
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="What the study may take.")
    objective: ObjectiveSpec = Field(
        default_factory=ObjectiveSpec,
        description="The metric that decides, and the cost that is kept low.",
    )
    check_export: bool = Field(
        True,
        description="Before training and after it, load adapters from disk by peft on a fresh "
        "base, and compare losses.",
    )
    keep_adapters: Literal["all", "tied", "best"] = Field(
        "all",
        description="Adapters that stay once all runs are done and judged: all; tied, those of "
        "the recommended configuration and of all that are tied for best; best, those of the "
        "recommended one, every seed. Results stay in any case; a dropped adapter comes back only "
        "by training again (`rankwise run --train-dropped`).",
    )
    hardware: HardwareSpec = Field(default_factory=HardwareSpec, description="Where it runs.")

    @field_validator("study")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        fault = bad_folder_name(value)
        if fault is not None:
            raise ValueError(f"{fault}; choose another name")
        return value

    @model_validator(mode="after")
    def _shape_fits_task(self) -> "StudySpec":
        found = columns_of(self.data)
        shapes = TASKS[self.task].columns
        if found not in shapes:
            wanted = ", or ".join(" + ".join(shape) for shape in shapes)
            raise ValueError(
                f"data: task {self.task} needs the columns {wanted}; "
                f"the spec names {' + '.join(found) or 'none'}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice and would repeat its runs; remove one")
        if self.training.class_weights != "none" and not has_classes(self.task):
            able = " or ".join(name for name in TASKS if has_classes(name))
            raise ValueError(
                f"training.class_weights: only task {able} has classes to weigh; remove it"
            )
        return self


def columns_of(data: DataSpec) -> tuple[str, ...]:
    """The shape of the data: which of the column fields the spec fills, in a fixed order."""
    fields = ("text", "label", "prompt", "completion", "messages", "input", "target")
    return tuple(name for name in fields if getattr(data, name) is not None)
