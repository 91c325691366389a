"""The table of tasks: what data each takes, which model it needs, and what is measured of it.

How examples of a task become tensors and losses is in `rankwise.tasks`, which needs torch.
"""

from dataclasses import dataclass
from typing import Literal

from rankwise.spec.metrics import METRICS

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
