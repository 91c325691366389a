"""The spec of a study as pydantic models; each field's one-line description lives here only.

Field names and defaults are those of `peft.LoraConfig` and `transformers.TrainingArguments`.
Unknown fields are errors: nothing in a spec is silently ignored. `spec_file.py` reads the YAML.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rankwise.spec.metrics import MetricName
from rankwise.spec.tasks import TASKS, TaskName, has_classes


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


Number = BeforeValidator(_no_truth_value)  # pydantic would take `true` for 1
Count = Annotated[int, Field(ge=1), Number]
NonNegative = Annotated[float, Field(ge=0), Number]
Share = Annotated[float, Field(ge=0, lt=1), Number]


class Section(BaseModel):
    """A part of the spec: immutable, and with no room for a key it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class ModelSpec(Section):
    """The base model, frozen during the study."""

    name: str | None = Field(
        None, description="Hub id, folder, or pkg://PACKAGE/path of the base model."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    gguf_file: str | None = Field(None, description="File inside `name` to dequantise and load.")
    config: dict[str, Any] | None = Field(
        None,
        description="A transformers configuration (with model_type): random weights, no download.",
    )
    tokenizer: str | None = Field(
        None, description="Where the tokenizer is, when not with the model."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the base; auto: bfloat16 where the hardware computes it."
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none", description="Quantisation of the frozen base by bitsandbytes (QLoRA)."
    )
    double_quant: bool = Field(
        True, description="nf4: quantise the quantisation constants as well."
    )
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="nf4: precision of the products; auto: that of `dtype`."
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="Attention kernel; auto: the faster of eager and sdpa, measured."
    )
    trust_remote_code: bool = Field(False, description="Run code that a hub model brings along.")
    allow_pickle: bool = Field(
        False, description="Load weights from pickle files too, not safetensors alone."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSpec":
        if (self.name is None) == (self.config is None):
            raise ValueError("give either `name` or `config` (random weights), not both or none")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as gpt2")
        if self.gguf_file is not None and self.name is None:
            raise ValueError("`gguf_file` needs `name`, the folder or hub id that holds it")
        return self


class SplitSpec(Section):
    """Which rows are held out. Choices are made on validation; test is read once."""

    validation: int | float | str = Field(
        0.1, description="Held-out rows: a count, a share below 1, or the name of a hub split."
    )
    test: int | float | str = Field(
        0.1, description="Test rows: a count, a share below 1, or the name of a hub split."
    )
    train: str | None = Field(None, description="Name of the hub split to train on.")
    by: str | None = Field(None, description="Column whose equal values stay together on one side.")
    seed: int = Field(0, description="Seed of the split, the same for every run.")

    @field_validator("validation", "test")
    @classmethod
    def _share_or_count(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, float) and value >= 1:
            if not value.is_integer():
                raise ValueError("a share must be below 1, a count must be whole")
            return int(value)
        if not isinstance(value, str) and value < 0:
            raise ValueError("must not be negative")
        return value


class AugmentSpec(Section):
    """Expansion of the training part; validation and test are never touched."""

    factor: Count = Field(
        1, description="Training rows after augmentation, as a multiple of those before."
    )
    operations: tuple[Literal["swap", "drop", "insert", "synonym"], ...] = Field(
        ("swap", "drop"), description="Word-level operations, one drawn for every new row."
    )
    share: Share = Field(0.1, description="Share of a row's words that an operation changes.")
    template: str | None = Field(
        None, description="A new row from a template with {column} places, instead of operations."
    )
    function: str | None = Field(
        None, description="module:function(row, rng) -> row, instead of operations."
    )
    seed: int = Field(0, description="Seed of the augmentation.")

    @model_validator(mode="after")
    def _one_way(self) -> "AugmentSpec":
        if self.template is not None and self.function is not None:
            raise ValueError("give `template` or `function`, not both")
        if self.factor > 1 and not (self.operations or self.template or self.function):
            raise ValueError("`factor` above 1 needs operations, a template or a function")
        return self


class DataSpec(Section):
    """Where the examples come from and what they look like."""

    source: str = Field(
        description="Hub id, local csv/jsonl/parquet/txt (also .gz .bz2 .xz), pkg://PACKAGE/path, "
        "or FILE.py:function returning rows."
    )
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    text: str | None = Field(None, description="Column of the text (blocks, or text + label).")
    label: str | None = Field(None, description="Column of the class label.")
    labels: tuple[str, ...] | None = Field(
        None, description="Labels to keep, in order; rows with others are left out and counted."
    )
    prompt: str | None = Field(None, description="Column of the prompt; no loss on its tokens.")
    completion: str | None = Field(None, description="Column of the answer to `prompt`.")
    messages: str | None = Field(None, description="Column of a list of {role, content} messages.")
    input: str | None = Field(None, description="Column of a seq2seq model's input.")
    target: str | None = Field(None, description="Column of a seq2seq model's target.")
    split: SplitSpec = Field(default_factory=SplitSpec, description="What is held out.")
    max_length: Count = Field(
        128, description="Tokens a row is cut to; for plain text the length of a block."
    )
    max_samples: Count | None = Field(
        None, description="Training rows to use, the first so many after shuffling."
    )
    augment: AugmentSpec = Field(
        default_factory=AugmentSpec, description="Expansion of the training part."
    )
    near_duplicates: Share = Field(
        0.2,
        description="Held-out rows whose word 3-grams differ from a training row's by less than "
        "this share are removed; 0: exact duplicates only.",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        return [str(label) for label in value] if isinstance(value, list | tuple) else value


class LoraSpec(Section):
    """One adapter, in the words of peft.LoraConfig."""

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
        None, description="Names or a regular expression of modules to leave alone."
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
            f"{rule!r} is neither a number nor a rule such as '2r' or 'sqrt'"
        ) from None
    if not alpha > 0:
        raise ValueError(f"{rule!r} is not positive")
    return alpha


class RanksSpec(Section):
    """Per-layer ranks, written out as peft's rank_pattern."""

    strategy: Literal["uniform", "linear_decay", "attention_heavy", "empirical", "custom"] = Field(
        "uniform", description="How ranks are spread over the adapted modules."
    )
    budget: Count | None = Field(
        None, description="Adapter parameters to spend; that of uniform lora.r where not given."
    )
    direction: Literal["down", "up"] = Field(
        "down", description="linear_decay: ranks fall (down) or rise (up) with depth."
    )
    ratio: Annotated[float, Field(gt=0)] = Field(
        4.0, description="linear_decay: first to last layer; attention_heavy: attention to MLP."
    )
    batches: Count = Field(4, description="empirical: training batches that importance is read on.")
    custom: dict[str, Count] = Field(
        default_factory=dict, description="custom: rank per module name or pattern."
    )

    @model_validator(mode="after")
    def _custom_has_ranks(self) -> "RanksSpec":
        if (self.strategy == "custom") != bool(self.custom):
            raise ValueError("strategy `custom` and the mapping `custom` belong together")
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


class TrainingSpec(Section):
    """How a run is trained, in the words of transformers.TrainingArguments."""

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
    weight_decay: NonNegative = Field(0.0, description="AdamW's decoupled weight decay.")
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
    max_new_tokens: Count = Field(50, description="Limit of an answer, in tokens.")
    do_sample: bool = Field(False, description="Sample instead of taking the likeliest token.")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="Temperature of sampling.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus of sampling.")
    num_beams: Count = Field(1, description="Beams of beam search.")
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="Seed of sampling, the same for all arms."
    )

    @model_validator(mode="after")
    def _one_search(self) -> "GenerationSpec":
        if self.do_sample and self.num_beams > 1:
            raise ValueError("sample (`do_sample`) or search with `num_beams`, not both")
        return self


class ObjectiveSpec(Section):
    """What decides, and what it may cost."""

    metric: MetricName = Field("eval_loss", description="Validation metric that decides.")
    cost: Literal["trainable_params", "memory", "time"] = Field(
        "trainable_params", description="What the recommendation keeps low among equals."
    )


class HardwareSpec(Section):
    """Where it runs; never changes a result, so it is no part of an arm's identity."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    max_runs: Count | None = Field(
        None, description="Largest cohort; what memory allows where not given."
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory a cohort may take; 0.7 of what is free where not given."
    )


class StudySpec(Section):
    """A whole study: base model, data, what is common to all arms, and what varies."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the study.")
    model: ModelSpec = Field(description="The base model.")
    task: TaskName = Field(description="Task, in the words of peft.TaskType.")
    data: DataSpec = Field(description="The examples.")
    method: Literal["lora", "full"] = Field(
        "lora", description="lora, or full fine-tuning of every weight."
    )
    training: TrainingSpec = Field(
        default_factory=TrainingSpec, description="Training settings common to all arms."
    )
    lora: LoraSpec = Field(
        default_factory=LoraSpec, description="Adapter settings common to all arms."
    )
    ranks: RanksSpec = Field(
        default_factory=RanksSpec, description="Per-layer ranks common to all arms."
    )
    generation: GenerationSpec = Field(
        default_factory=GenerationSpec, description="What the models are asked after training."
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="Dotted setting to values; their product makes arms."
    )
    arms: list[dict[str, Any]] = Field(
        default_factory=list, description="Single arms: a name and the settings that differ."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="Seeds; every arm is run with each."
    )
    objective: ObjectiveSpec = Field(
        default_factory=ObjectiveSpec, description="What decides and what it may cost."
    )
    hardware: HardwareSpec = Field(default_factory=HardwareSpec, description="Where it runs.")

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
            raise ValueError("seeds: the same seed twice would be the same run twice")
        if self.training.class_weights != "none" and not has_classes(self.task):
            able = " or ".join(name for name in TASKS if has_classes(name))
            raise ValueError(f"training.class_weights: only for task {able}")
        return self


def columns_of(data: DataSpec) -> tuple[str, ...]:
    """The shape of the data: which of the column fields the spec fills, in a fixed order."""
    fields = ("text", "label", "prompt", "completion", "messages", "input", "target")
    return tuple(name for name in fields if getattr(data, name) is not None)
