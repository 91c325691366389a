"""The section of the spec that has configurations proposed by a sampler."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rankwise.spec.sections import Count, Number, Section

# What a proposal may set without the rows being read anew.
SEARCHED = ("lora.", "ranks.", "training.", "model.quantization")

Finite = Annotated[int | float, Number]


class RangeSpec(Section):
    """A range of a numeric setting; of whole numbers where the setting takes no others."""

    low: Finite = Field(description="Smallest value.")
    high: Finite = Field(description="Largest value.")
    log: bool = Field(
        False, description="Equal ratios count as equally far, as for learning rates."
    )


class SearchSpec(Section):
    """Configurations that a sampler proposes, beside those of `grid` and `configs`."""

    space: dict[str, Any] = Field(
        description="Dotted setting to a list of values, or to a range {low, high, log}. Settings "
        "of the adapter, its ranks, the training and model.quantization can be searched."
    )
    sampler: Literal["tpe", "random", "grid", "gp"] = Field(
        "tpe",
        description="Sampler of Optuna that makes the proposals: tpe and gp learn from results; "
        "grid tries every combination in random order.",
    )
    startup: Count | None = Field(
        None,
        description="With tpe and gp: the first proposals, made from what is known and then spread "
        "out; 8 where not given. Results of warm_start count.",
    )
    most: Count | None = Field(
        None, description="Most configurations that are proposed; as many as the budget allows."
    )
    warm_start: tuple[str, ...] = Field(
        (),
        description="Folders of earlier studies on the same base and task: what their finished "
        "configurations inside the space gave is known to tpe and gp.",
    )
