"""Modules that are trained in full beside an adapter: classifiers' heads and modules_to_save."""

from collections.abc import Iterable, Sequence

from torch import nn

from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec
from rankwise.spec.tasks import TASKS, has_classes
from rankwise.text import nearest

HEADS = ("classifier", "score")  # what peft trains in full for task SEQ_CLS


def kind_of(model: nn.Module) -> str:
    """What to call a model in a message: its transformers type."""
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def task_of(model: nn.Module) -> str | None:
    """The task that a model is made for, by the name of its class; None where that tells none."""
    for name, kind in TASKS.items():
        if type(model).__name__.endswith(kind.auto_class.removeprefix("AutoModel")):
            return name
    return None


def saved_modules(model: nn.Module, lora: LoraSpec, task: str) -> tuple[str, ...]:
    """Full names of the modules that are trained in full beside the adapter, in the model's order.

    peft takes every module whose full name *ends* with one of the patterns, so that DistilBERT's
    pre_classifier is trained with its classifier. A module inside another one counts with it.

    Raises:
        SpecError: a name in lora.modules_to_save matches no module; or a classifier's head bears
            neither of the names that peft knows, so that it would stay as it was drawn.
    """
    names = [name for name, _ in model.named_modules() if name]
    for one in lora.modules_to_save:
        if not any(name.endswith(one) for name in names):
            raise SpecError(
                f'lora.modules_to_save: "{one}" matches no module of {kind_of(model)}'
                f"{nearest(one, last_names(names))}"
            )
    found = saved_names(model, lora, task)
    if has_classes(task) and not found:
        children = ", ".join(name for name, _ in model.named_children())
        raise SpecError(
            f"lora.modules_to_save: {kind_of(model)} has no head called {' or '.join(HEADS)}; give "
            f"the name of its head, which is one of: {children}"
        )
    return found


def saved_patterns(lora: LoraSpec, task: str | None) -> tuple[str, ...]:
    """peft's modules_to_save: the user's, and for a classifier its head by either name."""
    return (*lora.modules_to_save, *(HEADS if has_classes(task) else ()))


def saved_names(model: nn.Module, lora: LoraSpec, task: str | None) -> tuple[str, ...]:
    """As `saved_modules`, without its checks."""
    patterns = saved_patterns(lora, task)
    found: list[str] = []
    for name, _ in model.named_modules():
        if name and name.endswith(patterns) and not within(name, found):
            found.append(name)
    return tuple(found)


def kept_precise(model: nn.Module) -> tuple[str, ...]:
    """Names of modules that are not quantised: the output layer, a head, what must stay fp32.

    transformers leaves out the first and the last of its own accord (T5's `wo`); a classifier's
    head must be added, as it is trained in full.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()
    kept = [name for name, module in model.named_modules() if module is output]
    kept += saved_names(model, LoraSpec.model_validate({}), task_of(model))
    precise = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    if precise:
        kept += [name for name, _ in model.named_modules() if name.endswith(precise)]
    return tuple(dict.fromkeys(kept))


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether `name` is one of the modules or inside one of them."""
    return any(name == one or name.startswith(f"{one}.") for one in modules)


def last_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted names, each once."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
