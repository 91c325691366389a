"""The spec of a study as pydantic models; each field's one-line description stands only there.

Unknown fields are errors: nothing in a spec is silently ignored. `load.py` reads the YAML. The
sections are defined in `sections.py` and `training.py`; other folders import them from here.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rankwise.files import bad_folder_name
from rankwise.spec.search import SearchSpec
from rankwise.spec.sections import (
    AugmentSpec,
    Count,
    DataSpec,
    ModelSpec,
    NonNegative,
    Section,
    SplitSpec,
)
from rankwise.spec.tasks import TASKS, MetricName, TaskName, has_classes, is_causal
from rankwise.spec.training import GenerationSpec, LoraSpec, RanksSpec, TrainingSpec, alpha_of

__all__ = [
    "AugmentSpec",
    "DataSpec",
    "GenerationSpec",
    "LoraSpec",
    "ModelSpec",
    "RaceSpec",
    "RanksSpec",
    "SearchSpec",
    "Section",
    "SplitSpec",
    "StudySpec",
    "TrainingSpec",
    "alpha_of",
    "columns_of",
    "race_of",
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


Positive = Annotated[float, Field(gt=0)]


class BudgetSpec(Section):
    """What a study may take. With `runs` or `tokens` configurations race: see `race`."""

    runs: Positive | None = Field(
        None,
        description="Most training, in full runs of the configuration whose run is of median cost; "
        "evaluation counts. Configurations then race: those that have almost no chance of being "
        "among the best are stopped early, and seeds after the first one are trained only for "
        "those that may be best.",
    )
    tokens: Positive | None = Field(
        None, description="The same in tokens that are trained on; give one of the two."
    )
    hours: Positive | None = Field(
        None,
        description="Most hours of `rankwise run`, all calls together; then training is saved and "
        "stops. No limit where not given.",
    )

    @model_validator(mode="after")
    def _one_unit(self) -> "BudgetSpec":
        if self.runs is not None and self.tokens is not None:
            raise ValueError("give runs or tokens, not both: each is the whole budget of training")
        return self


# Before this share of a schedule the order of configurations says too little of the final one.
EARLIEST_RUNG = 0.3
Rung = Annotated[float, Field(ge=EARLIEST_RUNG, lt=1)]


class RaceSpec(Section):
    """How a race spends its budget."""

    rungs: tuple[Rung, ...] | None = Field(
        None,
        description="Shares of a run's own steps at which it may be stopped, from 0.3 on, each at "
        "the first evaluation from there; at every evaluation from 0.3 on where not given. An "
        "empty list: no run is stopped early.",
    )
    protect: tuple[str, ...] = Field(
        (), description="Names of configurations that are never stopped, such as a baseline."
    )
    audit: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="Share of the runs to be stopped that go on all the same, to measure how often "
        "the race is wrong.",
    )
    at_once: Annotated[int, Field(ge=2)] = Field(
        8,
        description="Most runs that train at the same time. A few at once leave more to be learnt "
        "before the others begin; some of those are then not begun at all.",
    )

    @field_validator("rungs")
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and list(value) != sorted(set(value)):
            raise ValueError(f"must ascend, each share once; found {list(value)}")
        return value


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
    search: SearchSpec | None = Field(
        None, description="Configurations that a sampler proposes, as far as the budget goes."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="Seeds; every configuration is run with each."
    )
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="What the study may take.")
    race: RaceSpec | None = Field(
        None,
        description="How a race spends its budget. Needs one; with `budget.hours` alone, nothing "
        "is raced unless this is given (`race: {}`).",
    )
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
        if found not in shapes and (found or not is_causal(self.task)):
            wanted = ", or ".join(" + ".join(shape) for shape in shapes)
            raise ValueError(
                f"data: task {self.task} needs the columns {wanted}; "
                f"the spec names {' + '.join(found) or 'none'}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice and would repeat its runs; remove one")
        if self.race is not None and self.budget == BudgetSpec():
            raise ValueError("race: needs a budget; give budget.runs, or remove race")
        if self.search is not None and self.budget == BudgetSpec():
            raise ValueError(
                "search: needs a budget, or it would never end; give budget.runs (or tokens, hours)"
            )
        if self.budget.runs is not None and self.budget.runs < 2:
            raise ValueError(
                f"budget.runs: {self.budget.runs:g} cannot compare two configurations; give at "
                "least 2, better one for each configuration"
            )
        if self.training.class_weights != "none" and not has_classes(self.task):
            able = " or ".join(name for name in TASKS if has_classes(name))
            raise ValueError(
                f"training.class_weights: only task {able} has classes to weigh; remove it"
            )
        return self


def race_of(spec: StudySpec) -> RaceSpec | None:
    """How the study races; None where every run is trained to its end."""
    if spec.race is not None:
        return spec.race
    amount = spec.budget.runs or spec.budget.tokens
    return None if amount is None and spec.search is None else RaceSpec()


def columns_of(data: DataSpec) -> tuple[str, ...]:
    """The shape of the data: which of the column fields the spec fills, in a fixed order."""
    fields = ("text", "label", "prompt", "completion", "messages", "input", "target")
    return tuple(name for name in fields if getattr(data, name) is not None)
