"""The tables of metrics and of tasks, without torch.

A metric has the name that the spec and the store use, such as eval_loss. A prefix says of what it
was measured: base_ the untouched base, merged_ a merged model, test_ the test part. How examples
of a task become tensors and losses is in `rankwise.tasks`, which needs torch.
"""

import math
from dataclasses import dataclass
from typing import Literal

PREFIXES = ("base_", "merged_", "test_", "val_", "eval_")
LOW_WORDS = ("loss", "perplexity", "error", "bpb", "nll")

MetricName = Literal[
    "eval_loss", "eval_accuracy", "eval_macro_f1", "eval_matthews", "eval_rougeL", "eval_chrf"
]


@dataclass(frozen=True)
class Metric:
    """One metric of an evaluation.

    Attributes:
        title: What the report calls it.
        lower_is_better: Whether a smaller value is the better one.
        low, high: The least and the largest value it can have.
        mean_over: "targets" or "examples" where it is a mean whose terms are kept example by
            example; None where only the value of the whole part is kept.
        decimals: Decimals to print where the noise is unknown.
        decides: Whether it may be a study's objective.
    """

    name: str
    title: str
    lower_is_better: bool
    low: float
    high: float
    mean_over: Literal["targets", "examples"] | None = None
    decimals: int = 4
    decides: bool = True

    @property
    def by_example(self) -> bool:
        """Whether it is kept example by example."""
        return self.mean_over is not None


_METRICS = (
    Metric("eval_loss", "validation loss", True, 0, math.inf, "targets"),
    # a function of the loss, so that it would decide the same
    Metric("eval_perplexity", "validation perplexity", True, 1, math.inf, decides=False),
    Metric("eval_accuracy", "validation accuracy", False, 0, 1, "examples"),
    Metric("eval_macro_f1", "validation macro F1", False, 0, 1),
    Metric("eval_matthews", "validation Matthews correlation", False, -1, 1),
    Metric("eval_rougeL", "validation ROUGE-L", False, 0, 1),
    Metric("eval_chrf", "validation chrF", False, 0, 100, decimals=2),
)
METRICS = {metric.name: metric for metric in _METRICS}


def metric_of(name: str) -> Metric | None:
    """The metric of this name, whatever its prefixes; None where the table has none."""
    if name in METRICS:
        return METRICS[name]
    bare = name
    while bare.startswith(PREFIXES):
        bare = bare.partition("_")[2]
    return METRICS.get(f"eval_{bare}")


def lower_is_better(name: str) -> bool:
    """The direction of a metric; of one that is not in the table it is guessed from its name."""
    known = metric_of(name)
    if known is not None:
        return known.lower_is_better
    return any(word in name.lower() for word in LOW_WORDS)


def gain(name: str, value: float, over: float) -> float:
    """How much better one value of a metric is than another; negative where it is worse."""
    return over - value if lower_is_better(name) else value - over


def weighs_targets(name: str) -> bool:
    """Whether a metric's mean weighs each example by its number of targets."""
    known = metric_of(name)
    return known is not None and known.mean_over == "targets"


def title_of(name: str) -> str:
    """A metric in words; one that is not in the table by its own name."""
    return METRICS[name].title if name in METRICS else name.removeprefix("eval_").replace("_", " ")


def decimals_of(name: str) -> int:
    """Decimals to print of a metric where the noise is unknown."""
    known = metric_of(name)
    return 4 if known is None else known.decimals


TaskName = Literal["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"]


@dataclass(frozen=True)
class TaskKind:
    """One task.

    Attributes:
        name: As in peft.TaskType.
        columns: The sets of data columns that it can be trained on.
        auto_class: The class of transformers that loads a model for it.
        architecture: What a model must be: a decoder continues its input, an encoder-decoder
            writes a target of its own.
        metrics: What an evaluation yields, by name.
        class_labels: Whether each example has a class; otherwise the targets are tokens.
        generates: Whether its models write text when asked.
        compares_texts: Whether each evaluation lets the model write targets and compares them.
    """

    name: str
    columns: tuple[tuple[str, ...], ...]
    auto_class: str
    architecture: Literal["any", "decoder", "encoder-decoder"]
    metrics: tuple[str, ...]
    class_labels: bool = False
    generates: bool = True
    compares_texts: bool = False

    @property
    def deciding(self) -> tuple[str, ...]:
        """The metrics that may be a study's objective."""
        return tuple(name for name in self.metrics if METRICS[name].decides)


_TABLE = (
    TaskKind(
        name="CAUSAL_LM",
        columns=(("text",), ("prompt", "completion"), ("messages",)),
        auto_class="AutoModelForCausalLM",
        architecture="decoder",
        metrics=("eval_loss", "eval_perplexity"),
    ),
    TaskKind(
        name="SEQ_CLS",
        columns=(("text", "label"),),
        auto_class="AutoModelForSequenceClassification",
        architecture="any",
        metrics=("eval_loss", "eval_accuracy", "eval_macro_f1", "eval_matthews"),
        class_labels=True,
        generates=False,
    ),
    TaskKind(
        name="SEQ_2_SEQ_LM",
        columns=(("input", "target"),),
        auto_class="AutoModelForSeq2SeqLM",
        architecture="encoder-decoder",
        metrics=("eval_loss", "eval_perplexity", "eval_rougeL", "eval_chrf"),
        compares_texts=True,
    ),
)
TASKS = {kind.name: kind for kind in _TABLE}


def is_causal(name: str | None) -> bool:
    """Whether a task trains a decoder to continue its input; False for a name of no task."""
    return name in TASKS and TASKS[name].architecture == "decoder"


def has_classes(name: str | None) -> bool:
    """Whether a task's examples have classes; False for a name of no task."""
    return name in TASKS and TASKS[name].class_labels
