"""Sections of the spec: the base model and the data; and what all sections share.

`models.py` holds the whole spec, `training.py` the sections of training.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Number = BeforeValidator(_no_truth_value)  # pydantic would take `true` for 1
Count = Annotated[int, Field(ge=1), Number]
NonNegative = Annotated[float, Field(ge=0), Number]
Share = Annotated[float, Field(ge=0, lt=1), Number]

LARGEST = 2**63 - 1


class Section(BaseModel):
    """A part of the spec: it cannot be changed, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        """No number is too large for what keeps it (SQLite, torch), whatever it was written as."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, int) and abs(part) > LARGEST:
                    raise ValueError(f"{name}: whole numbers must lie within 64 bits")
        return self


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
        "auto", description="Precision of the base; auto: bfloat16 where the hardware supports it."
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
    allow_pickle: bool = Field(
        False,
        description="Load weights from pickle files too, not safetensors alone. They are read as "
        "tensors only; code in them is refused.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_remote_code(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "trust_remote_code" not in value:
            return value
        if value["trust_remote_code"] is not False:
            raise ValueError(
                "trust_remote_code: code that comes with a model is never run here; remove it, and "
                "use a model whose code transformers has"
            )
        return {name: part for name, part in value.items() if name != "trust_remote_code"}

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSpec":
        if (self.name is None) == (self.config is None):
            raise ValueError("give `name`, or `config` for random weights, and not both")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as gpt2")
        if self.gguf_file is not None and self.name is None:
            raise ValueError("`gguf_file` needs `name`, the folder or hub id that holds it")
        return self


class SplitSpec(Section):
    """Which rows are held out. Configurations are compared on validation; test is read once."""

    validation: int | float | str = Field(
        0.1, description="Held-out rows: a count, a share below 1, or the name of a hub split."
    )
    test: int | float | str = Field(
        0.1, description="Test rows: a count, a share below 1, or the name of a hub split."
    )
    train: str | None = Field(None, description="Name of the hub split to train on.")
    by: str | None = Field(
        None, description="Column; rows with an equal value go to the same part."
    )
    seed: int = Field(0, description="Seed of the split, the same for every run.")

    @field_validator("validation", "test")
    @classmethod
    def _share_or_count(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, float) and value >= 1:
            if not value.is_integer():
                raise ValueError(
                    f"must be a share below 1 or a whole number of rows, found {value}"
                )
            return int(value)
        if not isinstance(value, str) and value < 0:
            raise ValueError("must not be negative")
        return value


class AugmentSpec(Section):
    """More training rows made from the training part; validation and test stay as they are."""

    factor: Annotated[int, Field(ge=1, le=1000), Number] = Field(
        1, description="Training rows after augmentation, as a multiple of those before."
    )
    operations: tuple[Literal["swap", "drop", "insert"], ...] = Field(
        ("swap", "drop"), description="Word-level operations, one drawn for every new row."
    )
    share: Share = Field(0.1, description="Share of a row's words that an operation changes.")
    template: str | None = Field(
        None, description="A new row from a template with {column} places, instead of operations."
    )
    function: str | None = Field(
        None,
        description="module:function(row, rng) -> row, or FILE.py:function, instead of operations. "
        "It is run by `plan` already, with all of your rights.",
    )
    seed: int = Field(0, description="Seed of the augmentation.")

    @model_validator(mode="after")
    def _one_way(self) -> "AugmentSpec":
        if self.template is not None and self.function is not None:
            raise ValueError("give `template` or `function`, not both")
        if self.factor > 1 and not (self.operations or self.template or self.function):
            raise ValueError("`factor` above 1 needs operations, a template or a function")
        return self


COLUMNS_OF_FORMATS: dict[str, tuple[str, ...] | None] = {  # that may be named beside a format
    "auto": None,
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "alpaca": (),
    "prompt_completion": ("prompt", "completion"),
}


class DataSpec(Section):
    """Where the examples come from and what they look like."""

    source: str = Field(
        description="Hub id, local csv/jsonl/parquet/txt (also .gz .bz2 .xz), pkg://PACKAGE/path, "
        "or FILE.py:function returning rows. A function is run by `plan` already, with all of your "
        "rights."
    )
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    text: str | None = Field(None, description="Column of the text (blocks, or text + label).")
    label: str | None = Field(
        None,
        description="Column of the class label. Spaces around it, letter case and the notation of "
        "numbers and truth values (1, 1.0, True, true) make no other class.",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        description="Labels to keep, in order; rows with other labels are left out and counted. "
        "Where not given: all, in the base's own order if it has the same, else by value or text.",
    )
    prompt: str | None = Field(None, description="Column of the prompt; no loss on its tokens.")
    completion: str | None = Field(None, description="Column of the answer to `prompt`.")
    messages: str | None = Field(
        None,
        description="Column of a list of {role, content} messages, or its JSON; a column `tools` "
        "beside it and the other fields of a message are given to the chat template too. "
        "Every answer is learnt but those of weight: 0 (or train, training, loss: false).",
    )
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion"] = Field(
        "auto",
        description="Format of conversations and of prompts with answers; auto: recognised from "
        "the rows and said. messages: lists of {role, content}; sharegpt: lists of {from, value} "
        "in `conversations`, or in the column that `messages` names; alpaca: instruction, input "
        "and output; prompt_completion: texts or lists of messages. Columns need not be named.",
    )
    train_on: Literal["completions", "all", "last"] = Field(
        "completions",
        description="Which tokens have a loss, in training and evaluation: completions, those of "
        "all answers with their ends of turn; last, those of a conversation's last answer; all, "
        "every token, prompts too. Answers of weight: 0 have none in any case.",
    )
    input: str | None = Field(None, description="Column of a seq2seq model's input.")
    target: str | None = Field(None, description="Column of a seq2seq model's target.")
    split: SplitSpec = Field(default_factory=SplitSpec, description="What is held out.")
    max_length: Count = Field(
        128,
        description="Most tokens of a row (longer ones are cut), or of a block of plain text.",
    )
    max_samples: Count | None = Field(
        None, description="Training rows to use, the first so many after shuffling."
    )
    augment: AugmentSpec = Field(
        default_factory=AugmentSpec, description="More training rows made from those there are."
    )
    near_duplicates: Share = Field(
        0.2,
        description="Held-out rows whose word 3-grams differ from a training row's by less than "
        "this share are removed; 0: exact duplicates only.",
    )

    malformed_rows: Share = Field(
        0.0,
        description="Largest share of rows that may be left out because they cannot be read: no "
        "valid JSON, a wrong number of fields, bytes that are not UTF-8, a column that is absent "
        "or holds no text. Above it the study is refused; what is left out is counted and said.",
    )

    @model_validator(mode="after")
    def _format_fits_columns(self) -> "DataSpec":
        fields = ("text", "label", "prompt", "completion", "messages", "input", "target")
        named = tuple(name for name in fields if getattr(self, name) is not None)
        if self.train_on != "completions" and {"text", "input"} & set(named):
            raise ValueError(
                "train_on: only prompts with answers and conversations have it, and the spec names "
                f"{' + '.join(named)}; remove it"
            )
        able = COLUMNS_OF_FORMATS[self.format]
        if able is not None and named not in ((), able):
            wanted = f"only {' + '.join(able)}" if able else "none of them"
            raise ValueError(
                f"format: of the columns, {self.format} lets the spec name {wanted}; it names "
                f"{' + '.join(named)}; remove that, or `format`"
            )
        return self

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        return [str(label) for label in value] if isinstance(value, list | tuple) else value
