"""Sections of the spec: the adapter, its ranks, the training and the generation of answers.

Field names and defaults are those of `peft.LoraConfig` and `transformers.TrainingArguments`.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rankwise.spec.sections import Count, NonNegative, Section, Share
from rankwise.text import shorten


class LoraSpec(Section):
    """One adapter, with the names of peft.LoraConfig."""

    r: Count = Field(8, description="Rank.")
    lora_alpha: float | str = Field(
        8.0, description="Scaling numerator; a number, or a rule of r: '2r', '0.5r', 'sqrt'."
    )
    lora_dropout: Share = Field(0.0, description="Dropout on the adapter's input.")
    target_modules: str | tuple[str, ...] | None = Field(
        None,
        description="Names, a regular expression, all-linear, or a preset: query, attention-qkv, "
        "attention, mlp.",
    )
    exclude_modules: str | tuple[str, ...] | None = Field(
        None, description="Names or a regular expression of modules without an adapter."
    )
    layers_to_transform: int | tuple[int, ...] | None = Field(
        None, description="Layer numbers to adapt; all where not given."
    )
    bias: Literal["none", "all", "lora_only"] = Field(
        "none", description="Which biases are trained."
    )
    use_rslora: bool = Field(False, description="Scale by alpha/sqrt(r) instead of alpha/r.")
    use_dora: bool = Field(False, description="Weight-decomposed adapters (DoRA).")
    init_lora_weights: bool | Literal["gaussian", "pissa", "olora"] = Field(
        True, description="Initialisation of A and B as in peft."
    )
    rank_pattern: dict[str, Count] = Field(
        default_factory=dict, description="Ranks for modules whose name matches a pattern."
    )
    alpha_pattern: dict[str, float] = Field(
        default_factory=dict, description="Alphas for modules whose name matches a pattern."
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="Modules trained in full beside the adapter; a classifier always is."
    )

    @field_validator("lora_alpha")
    @classmethod
    def _alpha_rule(cls, value: float | str) -> float | str:
        alpha_of(value, 1)
        return value


def alpha_of(rule: float | str, r: int) -> float:
    """The scaling numerator that `rule` (a number, '2r', 'sqrt') gives for rank `r`.

    Raises:
        ValueError: the rule is none of these, or not positive.
    """
    if rule == "sqrt":
        return math.sqrt(r)
    try:
        if isinstance(rule, str) and rule.endswith("r"):
            alpha = float(rule[:-1] or 1) * r
        else:
            alpha = float(rule)
    except ValueError:
        raise ValueError(
            f"must be a number or a rule such as '2r' or 'sqrt', found {shorten(repr(rule))}"
        ) from None
    if not 0 < alpha < math.inf:
        raise ValueError(f"must be positive and finite, found {shorten(repr(rule))}")
    return alpha


class RanksSpec(Section):
    """Per-layer ranks, written out as peft's rank_pattern."""

    strategy: Literal["uniform", "linear_decay", "attention_heavy", "empirical", "custom"] = Field(
        "uniform", description="How ranks are spread over the adapted modules."
    )
    budget: Count | None = Field(
        None,
        description="Adapter parameters in all; as many as with uniform lora.r where not given.",
    )
    direction: Literal["down", "up"] = Field(
        "down", description="linear_decay: ranks fall (down) or rise (up) with depth."
    )
    ratio: Annotated[float, Field(gt=0)] = Field(
        4.0, description="linear_decay: first to last layer; attention_heavy: attention to MLP."
    )
    batches: Count = Field(
        4, description="empirical: training batches on which importance is measured."
    )
    custom: dict[str, Count] = Field(
        default_factory=dict, description="custom: rank per module name or pattern."
    )

    @model_validator(mode="after")
    def _custom_has_ranks(self) -> "RanksSpec":
        if (self.strategy == "custom") != bool(self.custom):
            raise ValueError(
                "strategy `custom` needs the mapping `custom`, and only that strategy takes it"
            )
        return self


Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "constant",
    "constant_with_warmup",
    "warmup_stable_decay",
]

SCHEDULE_SETTINGS: dict[str, tuple[str, ...]] = {
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "warmup_stable_decay": ("num_decay_steps", "min_lr_ratio", "num_cycles"),
}


Optim = Literal["adamw_torch", "sgd", "adafactor"]


class TrainingSpec(Section):
    """How a run is trained, with the names of transformers.TrainingArguments."""

    max_steps: Count | None = Field(None, description="Optimizer steps; instead of epochs.")
    num_train_epochs: Annotated[float, Field(gt=0)] = Field(
        3.0, description="Passes over the training part, where max_steps is not given."
    )
    per_device_train_batch_size: Count = Field(8, description="Rows of a run in one batch.")
    gradient_accumulation_steps: Count = Field(1, description="Batches in one optimizer step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(5e-5, description="Peak learning rate.")
    lr_scheduler_type: Scheduler = Field("linear", description="Shape of the learning rate.")
    lr_scheduler_kwargs: dict[str, float] = Field(
        default_factory=dict,
        description="num_cycles, num_decay_steps, min_lr_ratio of the schedule.",
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="Steps of linear warm-up.")
    warmup_ratio: Share = Field(0.0, description="Warm-up as a share of all steps.")
    optim: Optim = Field(
        "adamw_torch",
        description="Optimizer as transformers sets it up: adamw_torch; sgd, without momentum; "
        "adafactor, with the given learning rate and without first moment.",
    )
    weight_decay: NonNegative = Field(
        0.0, description="Weight decay: decoupled; with sgd added to the gradient."
    )
    adam_beta1: Share = Field(0.9, description="AdamW's beta 1.")
    adam_beta2: Share = Field(0.999, description="AdamW's beta 2.")
    adam_epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="AdamW's epsilon.")
    max_grad_norm: NonNegative = Field(1.0, description="Clipping of a run's gradient; 0: none.")
    loraplus_lr_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="LoRA+: learning rate of B as a multiple of that of A."
    )
    eval_steps: Count | None = Field(
        None, description="Steps between evaluations; a tenth of the run where not given."
    )
    per_device_eval_batch_size: Count = Field(32, description="Rows in one evaluation batch.")
    early_stopping_patience: Count | None = Field(
        None, description="Evaluations without improvement before a run stops."
    )
    early_stopping_threshold: NonNegative = Field(
        0.0, description="Improvement of the deciding metric that counts as one."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: rare classes weigh more in the training loss."
    )
    label_smoothing_factor: Share = Field(
        0.0,
        description="Share of a target's weight that is spread over all tokens or classes, in the "
        "training loss; validation and test losses have none (transformers smooths both).",
    )
    neftune_noise_alpha: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="NEFTune: noise up to alpha/sqrt(tokens x width) on the input embeddings of "
        "training rows, by each row's own tokens.",
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "TrainingSpec":
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        if self.lr_scheduler_type == "constant" and (self.warmup_steps or self.warmup_ratio):
            raise ValueError("`constant` has no warm-up; use `constant_with_warmup`")
        return self

    @model_validator(mode="after")
    def _schedule_takes_its_settings(self) -> "TrainingSpec":
        taken = SCHEDULE_SETTINGS.get(self.lr_scheduler_type, ())
        for name in self.lr_scheduler_kwargs:
            if name not in taken:
                known = f"it takes {', '.join(taken)}" if taken else "it takes none"
                raise ValueError(
                    f"`lr_scheduler_kwargs`: {self.lr_scheduler_type} takes no {name}; {known}"
                )
        return self


class GenerationSpec(Section):
    """What the trained models are asked, and how they answer."""

    prompts: tuple[str, ...] = Field((), description="Prompts; none: nothing is generated.")
    prompts_from_validation: Annotated[int, Field(ge=0)] = Field(
        0, description="Prompts to take from the validation part, with their references."
    )
    max_new_tokens: Count = Field(50, description="Most tokens of an answer.")
    do_sample: bool = Field(False, description="Sample instead of taking the likeliest token.")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="Temperature of sampling.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus of sampling.")
    num_beams: Count = Field(1, description="Beams of beam search.")
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="Seed of sampling, the same for all configurations."
    )

    @model_validator(mode="after")
    def _one_search(self) -> "GenerationSpec":
        if self.do_sample and self.num_beams > 1:
            raise ValueError("give `do_sample: true` or `num_beams` above 1, not both")
        return self
