"""The recommended configuration to take away: as a spec for rankwise, as a peft.LoraConfig, and as
training files of LLaMA-Factory and of Axolotl.

What a trainer cannot express is said in a comment instead of writing something else. How the
files were checked with the trainers' own parsers is written in docs/snippets.md.
"""

import copy
import math
import pprint
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rankwise.results.judge import Choice
from rankwise.results.records import Records
from rankwise.spec.tasks import is_causal

LOOK = (
    "# Not a recommendation: this study does not show how much results vary between seeds. This\n"
    "# configuration has the best value; run it and the next ones with more seeds first.\n"
)


def recommended_yaml(records: Records, choice: Choice) -> str:
    """The recommended configuration as a spec; a comment on top says if it is no recommendation.

    Raises:
        ValueError: there is no such arm.
    """
    if choice.arm is None:
        raise ValueError("no arm to recommend")
    text = as_yaml(recommended_spec(records, choice.arm))
    return LOOK + text if choice.basis == "look" else text


def recommended_spec(records: Records, arm: str) -> dict[str, Any]:
    """The study's spec with this configuration alone: no grid, no list, settings in sections."""
    spec: dict[str, Any] = copy.deepcopy(records.study["spec"])
    spec["grid"], spec["configs"] = {}, []
    for name, value in records.arm(arm).settings.items():
        *sections, leaf = name.split(".")
        here = spec
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    # a race needs two configurations, and the protected ones may be others
    spec.pop("race", None)
    spec["budget"] = {"hours": (spec.get("budget") or {}).get("hours")}
    spec["study"] = f"{spec.get('study', 'study')}-recommended"
    spec.pop("search", None)
    return _without_empty(spec)


def _without_empty(section: dict[str, Any]) -> dict[str, Any]:
    """A section without fields that are not given; what a user wrote as `config` stays whole."""
    found = {
        name: _without_empty(value) if isinstance(value, dict) and name != "config" else value
        for name, value in section.items()
    }
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def as_yaml(tree: Mapping[str, Any]) -> str:
    """YAML in the given order; numbers such as 1e-4 in a spelling that YAML reads as a number."""
    text: str = yaml.safe_dump(_plain(tree), sort_keys=False, allow_unicode=True, width=100)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def peft_snippet(records: Records, arm: str) -> str | None:
    """Python that makes the configuration's peft.LoraConfig, everything in it resolved.

    None for full fine-tuning, and for studies of earlier versions, which did not store it.
    """
    adapter = records.arm(arm).adapter
    if not adapter:
        return None
    lines = [f"    {name}={_python(value)}," for name, value in adapter.items()]
    return "\n".join(["from peft import LoraConfig", "", "config = LoraConfig(", *lines, ")"])


def _python(value: Any) -> str:
    """The value as Python writes it, over several lines where it is long."""
    text = pprint.pformat(_plain(value), width=90, sort_dicts=False, compact=True)
    return text.replace("\n", "\n        ")


PRECISIONS = {"bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class _Recipe:
    """What both files are written from.

    Attributes:
        adapter: Resolved arguments of peft.LoraConfig; None for full fine-tuning.
        settings: The configuration's settings by dotted name.
        model, data: Sections of the spec.
        dtype: Precision in which the study held the base.
    """

    name: str
    adapter: dict[str, Any] | None
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    dtype: str

    def get(self, name: str) -> Any:
        """A training setting."""
        return self.settings.get(f"training.{name}")


def llama_factory_snippet(records: Records, arm: str) -> str | None:
    """A LLaMA-Factory training file; None for a task that it does not train."""
    recipe = _recipe(records, arm)
    if recipe is None:
        return None
    refused = [*_refused_by_both(recipe), *_refused_by_llama_factory(recipe)]
    if refused:
        return _refusal("LLaMA-Factory", refused)
    data = recipe.data
    tree = {
        **_base(recipe, "model_name_or_path", "model_revision"),
        "stage": "pt" if data.get("text") else "sft",
        "do_train": True,
        "finetuning_type": "full" if recipe.adapter is None else "lora",
        **_llama_factory_adapter(recipe),
        **_training(recipe),
        **({PRECISIONS[recipe.dtype]: True} if recipe.dtype in PRECISIONS else {}),
        "lr_scheduler_type": recipe.get("lr_scheduler_type"),
        "optim": None if recipe.get("optim") == "adamw_torch" else recipe.get("optim"),
        "label_smoothing_factor": recipe.get("label_smoothing_factor") or None,
        "template": _template(data),
        "train_on_prompt": data.get("train_on") == "all" or None,
        "mask_history": data.get("train_on") == "last" or None,
        "cutoff_len": data.get("max_length"),
        "max_samples": recipe.settings.get("data.max_samples"),
        "dataset": "YOUR_DATASET",
        "output_dir": f"out/{recipe.name}",
    }
    notes = list(_notes(recipe))
    if data.get("prompt"):
        notes.append("the template `empty` adds no end-of-text token: end each completion with it")
    return _file(notes, tree)


def axolotl_snippet(records: Records, arm: str) -> str | None:
    """An Axolotl configuration; None for a task that it does not train."""
    recipe = _recipe(records, arm)
    if recipe is None:
        return None
    refused = [*_refused_by_both(recipe), *_refused_by_axolotl(recipe)]
    if refused:
        return _refusal("Axolotl", refused)
    training = _training(recipe)
    training["micro_batch_size"] = training.pop("per_device_train_batch_size", None)
    training["num_epochs"] = training.pop("num_train_epochs", None)
    tree = {
        **_base(recipe, "base_model", "revision_of_model"),
        **_axolotl_adapter(recipe),
        **training,
        "bf16": recipe.dtype == "bfloat16",
        "fp16": recipe.dtype == "float16" or None,
        "optimizer": recipe.get("optim") or "adamw_torch",
        "lr_scheduler": recipe.get("lr_scheduler_type"),
        "sequence_len": recipe.data.get("max_length"),
        "excess_length_strategy": "truncate",
        "train_on_inputs": recipe.data.get("train_on") == "all" or None,
        "datasets": [{"path": "YOUR_DATASET", **_axolotl_rows(recipe.data)}],
        "output_dir": f"out/{recipe.name}",
    }
    notes = list(_notes(recipe))
    if training.get("warmup_steps") == 1:
        notes.append("Axolotl makes two steps of a warm-up of one")
    if recipe.settings.get("data.max_samples"):
        notes.append(f"trained on {recipe.settings['data.max_samples']} rows of the data set")
    return _file(notes, tree)


def _recipe(records: Records, arm: str) -> _Recipe | None:
    """None for a task that neither trains, and where the resolved adapter was not stored."""
    spec, facts = records.study.get("spec", {}), records.arm(arm)
    full = facts.settings.get("method") == "full"
    if not is_causal(spec.get("task")) or not (full or facts.adapter):
        return None
    return _Recipe(
        arm,
        None if full else facts.adapter,
        facts.settings,
        spec.get("model", {}),
        spec.get("data", {}),
        str(records.study.get("model", {}).get("dtype", "")),
    )


def _refused_by_both(recipe: _Recipe) -> Iterator[str]:
    adapter = recipe.adapter or {}
    if adapter.get("bias", "none") != "none":
        yield f"trained biases (bias: {adapter['bias']})"
    if not float(adapter.get("lora_alpha", 1)).is_integer():
        yield f"an alpha that is not a whole number ({adapter['lora_alpha']:g})"
    decay = recipe.get("lr_scheduler_type") == "warmup_stable_decay"
    if decay and not recipe.get("max_steps"):
        yield "warmup_stable_decay without max_steps, as its decay is given in steps"


def _refused_by_llama_factory(recipe: _Recipe) -> Iterator[str]:
    adapter = recipe.adapter or {}
    patterns = [name for name in ("rank_pattern", "alpha_pattern") if name in adapter]
    if patterns:
        yield f"ranks or alphas that differ between modules ({', '.join(patterns)})"
    if isinstance(adapter.get("target_modules"), str):
        yield "target_modules as a regular expression"
    init = adapter.get("init_lora_weights", True)
    if init not in (True, "pissa"):
        yield f"init_lora_weights: {init}"
    if init == "pissa" and _quantization(recipe) != "none":
        yield "PiSSA over a quantised base"


def _refused_by_axolotl(recipe: _Recipe) -> Iterator[str]:
    adapter = recipe.adapter or {}
    alphas = adapter.get("alpha_pattern", {}).values()
    if not all(float(alpha).is_integer() for alpha in alphas):
        yield "alphas that are not whole numbers (alpha_pattern)"
    if adapter.get("init_lora_weights") is False:
        yield "init_lora_weights: False"
    if recipe.data.get("train_on") == "last" and not recipe.data.get("prompt"):
        yield "learning nothing but a conversation's last answer (data.train_on: last)"
    if recipe.get("label_smoothing_factor"):
        yield f"label smoothing ({recipe.get('label_smoothing_factor'):g})"


def _refusal(trainer: str, refused: list[str]) -> str:
    said = "".join(f"#   {one}\n" for one in refused)
    return f"# {trainer} cannot express this configuration:\n{said}# Use the snippet for peft.\n"


def _notes(recipe: _Recipe) -> Iterator[str]:
    """What has to be known beside a file that says all that it can."""
    factor = recipe.settings.get("data.augment.factor", 1)
    if factor != 1:
        yield f"trained on rows that rankwise had augmented (data.augment.factor: {factor:g})"
    if recipe.get("early_stopping_patience"):
        yield "rankwise stopped early (early_stopping_patience); this file trains to the end"
    if _is_recognised(recipe.data):
        yield "the notes on data in the report say which format the rows have: name it below"
    if recipe.data.get("format") == "alpaca":
        yield "rankwise made messages of instruction, input and output: so must the data set"
    if recipe.get("neftune_noise_alpha"):
        yield "NEFTune's noise here is scaled by the padded length; rankwise takes each row's own"
    if _quantization(recipe) == "int8":
        yield "int8 here keeps outlier columns in fp16 (threshold 6); rankwise keeps none"


def _file(notes: list[str], tree: Mapping[str, Any]) -> str:
    given = {name: value for name, value in tree.items() if value is not None}
    return "".join(f"# {note}\n" for note in notes) + as_yaml(given)


def _base(recipe: _Recipe, name: str, revision: str) -> dict[str, Any]:
    """The base model; where only rankwise can read it, a name to be filled in."""
    model = recipe.model
    place = str(model.get("name") or "")
    known = place and "://" not in place and not model.get("gguf_file")
    return {
        name: place if known else "YOUR_MODEL",
        revision: model.get("revision"),
    }


def _llama_factory_adapter(recipe: _Recipe) -> dict[str, Any]:
    adapter, quantization = recipe.adapter, _quantization(recipe)
    if adapter is None:
        return {}
    pissa = adapter.get("init_lora_weights") == "pissa"
    tree = {
        "lora_rank": adapter["r"],
        "lora_alpha": adapter["lora_alpha"],
        "lora_dropout": adapter["lora_dropout"],
        "lora_target": ",".join(adapter["target_modules"]),
        "additional_target": ",".join(adapter.get("modules_to_save", [])) or None,
        "use_rslora": adapter.get("use_rslora"),
        "use_dora": adapter.get("use_dora"),
        "pissa_init": pissa or None,
        "pissa_iter": -1 if pissa else None,
        "loraplus_lr_ratio": recipe.get("loraplus_lr_ratio"),
    }
    if quantization != "none":
        tree |= {
            "quantization_bit": {"nf4": 4, "int8": 8}[quantization],
            "quantization_method": "bnb",
        }
    if quantization == "nf4":
        tree["double_quantization"] = recipe.model.get("double_quant", True)
    return tree


def _axolotl_adapter(recipe: _Recipe) -> dict[str, Any]:
    adapter, quantization = recipe.adapter, _quantization(recipe)
    if adapter is None:
        return {}
    nf4 = quantization == "nf4"
    plain = nf4 and not recipe.model.get("double_quant", True)
    return {
        "adapter": "qlora" if nf4 else "lora",
        "load_in_4bit": nf4 or None,
        "load_in_8bit": quantization == "int8" or None,
        "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False} if plain else None,
        "lora_r": adapter["r"],
        "lora_alpha": adapter["lora_alpha"],
        "lora_dropout": adapter["lora_dropout"],
        "lora_target_modules": adapter["target_modules"],
        "lora_rank_pattern": adapter.get("rank_pattern"),
        "lora_alpha_pattern": adapter.get("alpha_pattern"),
        "lora_modules_to_save": adapter.get("modules_to_save"),
        "lora_fan_in_fan_out": adapter.get("fan_in_fan_out"),
        "peft_use_rslora": adapter.get("use_rslora"),
        "peft_use_dora": adapter.get("use_dora"),
        "peft_init_lora_weights": adapter.get("init_lora_weights"),
        "loraplus_lr_ratio": recipe.get("loraplus_lr_ratio"),
    }


def _quantization(recipe: _Recipe) -> str:
    return str(recipe.settings.get("model.quantization", "none"))


def _axolotl_rows(data: Mapping[str, Any]) -> dict[str, Any]:
    """How Axolotl reads the columns: whole texts, conversations, or prompts as they stand."""
    if data.get("text"):
        return {"type": "completion", "field": data["text"]}
    if _is_recognised(data):
        return {"type": "YOUR_TYPE"}
    if data.get("format") == "alpaca":
        return {"type": "chat_template", "field_messages": "messages"}
    if data.get("format") == "sharegpt":
        fields = {"role": "from", "content": "value"}
        column = data.get("messages") or "conversations"
        return {
            "type": "chat_template",
            "field_messages": column,
            "message_property_mappings": fields,
        }
    if data.get("messages"):
        return {"type": "chat_template", "field_messages": data["messages"]}
    columns = {"field_instruction": data.get("prompt"), "field_output": data.get("completion")}
    return {"type": {**columns, "format": "{instruction}", "no_input_format": "{instruction}"}}


def _template(data: Mapping[str, Any]) -> str | None:
    """LLaMA-Factory's name of a chat template; `empty` leaves prompts as they stand."""
    if data.get("prompt"):
        return "empty"
    return "YOUR_TEMPLATE" if _is_recognised(data) else None


def _is_recognised(data: Mapping[str, Any]) -> bool:
    """Whether the rows, not the spec, decided what was read of them."""
    named = any(data.get(name) for name in ("text", "messages", "prompt"))
    return not named and data.get("format", "auto") in ("auto", "prompt_completion")


def _training(recipe: _Recipe) -> dict[str, Any]:
    """The training settings that transformers and both trainers name alike."""
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "max_steps",
        "num_train_epochs",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "neftune_noise_alpha",
    )
    steps, kwargs = recipe.get("max_steps"), dict(recipe.get("lr_scheduler_kwargs") or {})
    warmup: dict[str, Any] = {"warmup_steps": recipe.get("warmup_steps") or 0}
    ratio = recipe.get("warmup_ratio")
    if ratio:
        warmup = {"warmup_steps": math.ceil(ratio * steps)} if steps else {"warmup_ratio": ratio}
    if recipe.get("lr_scheduler_type") == "warmup_stable_decay":
        kwargs.setdefault("num_decay_steps", max(1, steps // 10))
        kwargs["num_stable_steps"] = steps - warmup["warmup_steps"] - kwargs["num_decay_steps"]
    given = {name: recipe.get(name) for name in names}
    return given | warmup | {"lr_scheduler_kwargs": kwargs or None}
