"""Adapters in peft's format: adapter_config.json and adapter_model.safetensors, out and back in."""

import copy
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rankwise.adapters.adapter import Adapter, ends_of
from rankwise.adapters.memory import trained_shapes
from rankwise.base.load import keep_one_kernel, load_base, set_padding
from rankwise.base.modules import kind_of
from rankwise.errors import SpecError
from rankwise.files import whole_folder
from rankwise.spec.models import ModelSpec
from rankwise.spec.tasks import TASKS
from rankwise.text import first_line

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
LABEL_NAMES = "label_names.json"


@dataclass(frozen=True)
class AdapterWriter:
    """Writes the best weights of runs in folders under `folder`.

    Attributes:
        folder: The study's `adapters`.
        base_name: Where peft will find the base.
        task: In the words of peft.TaskType.
        model: The base, which writes its own files in full fine-tuning.
        label_names: Of the classes, for SEQ_CLS.
    """

    folder: Path
    base_name: str
    task: str
    model: nn.Module
    label_names: Sequence[str] | None = None

    def save(
        self,
        name: str,
        adapter: Adapter | None,
        state: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
    ) -> Path:
        """Write one run's weights; the folder appears whole or not at all.

        Args:
            name: Of the folder, as the store has it.
            adapter: What was trained; None for full fine-tuning.
            state: The weights by name, as `Bank.state_of` gives them.
            start: The first factors to take off the base (PiSSA, OLoRA); else empty.
        """
        target = self.folder / name
        with whole_folder(target) as ready:
            if adapter is None:
                whole = {**_kept_buffers(self.model), **state}
                self.model.save_pretrained(ready, state_dict=whole)  # type: ignore[operator]
            else:
                save_file(peft_state(adapter, state, start), ready / WEIGHTS)
                config = peft_config(adapter, self.task, self.base_name, bool(start))
                config.save_pretrained(ready)
            if self.label_names is not None:
                write_label_names(ready, self.label_names)
        return target


def write_label_names(folder: Path, label_names: Sequence[str]) -> None:
    """Write which class is which: peft's files have no place for it, a model's config has.

    `label_names.json` has what transformers calls `id2label` and `label2id`, in the order of the
    classes; the keys of `id2label` are texts there, as JSON has it.
    """
    id2label = dict(enumerate(label_names))
    label2id = {name: number for number, name in id2label.items()}
    names = {"id2label": id2label, "label2id": label2id}
    text = json.dumps(names, indent=2, ensure_ascii=False)
    (folder / LABEL_NAMES).write_text(text + "\n", encoding="utf-8")
    config = folder / "config.json"
    if config.exists():
        held = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**held, **names}, indent=2) + "\n", encoding="utf-8")


def _kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds beside parameters, such as Marian's bias of the logits."""
    kept = model.state_dict()
    return {name: kept[name] for name, _ in model.named_buffers() if name in kept}


def peft_state(
    adapter: Adapter, state: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights under peft's names.

    An adapter that did not start at zero is written with twice its rank, so that it fits the
    untouched base: B A - B0 A0 = [B, -B0] [A; A0].
    """
    tensors = {}
    for name, value in state.items():
        module = name.removesuffix(".bias")
        if name.endswith(".bias") and module in adapter.modules:
            name = f"{module}.base_layer.bias"
        elif name in start:
            value = (
                torch.cat([value, start[name]])
                if name.endswith("lora_A.weight")
                else torch.cat([value, -start[name]], dim=1)
            )
        tensors[PREFIX + name] = value.contiguous()
    return tensors


def read_adapter(folder: Path, adapter: Adapter | None) -> dict[str, Tensor]:
    """The weights that `AdapterWriter.save` wrote, by the names of `Bank.state_of`.

    Args:
        folder: What `save` returned.
        adapter: What was trained; None for full fine-tuning, which gives every weight of the
            model, fp32, tied ones once.
    """
    if adapter is None:
        return _whole_model(folder)
    state = {}
    for name, value in load_file(folder / WEIGHTS).items():
        name = name.removeprefix(PREFIX)
        module, _, kind = name.rpartition(".lora_")
        if name.endswith(".base_layer.bias"):
            name = name.removesuffix("base_layer.bias") + "bias"
        elif kind == "A.weight":
            value = value[: adapter.modules[module].rank].contiguous()
        elif kind == "B.weight":
            value = value[:, : adapter.modules[module].rank].contiguous()
        state[name] = value
    return state


def unreadable(folder: Path) -> str | None:
    """What of an adapter's weights cannot be read, by the lengths that their files state."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return "it has no weights"
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            return f"{path.name}: {first_line(error)}"
    return None


def _whole_model(folder: Path) -> dict[str, Tensor]:
    """Loaded by the model's own class, as transformers may store weights under other names."""
    import transformers

    (kind,) = transformers.AutoConfig.from_pretrained(folder).architectures
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def peft_settings(adapter: Adapter, task: str) -> dict[str, Any]:
    """The arguments of the peft.LoraConfig that trains this adapter, but for peft's defaults.

    Everything in it is resolved and JSON-ready: numbers instead of rules, names of modules
    instead of presets.
    """
    from peft import LoraConfig

    modules = adapter.modules
    rank, ranks = _with_patterns({name: module.rank for name, module in modules.items()})
    alpha, alphas = _with_patterns({name: _plain(module.alpha) for name, module in modules.items()})
    words = adapter.target_modules
    always = {
        "task_type": task,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": words if isinstance(words, str) else list(words),
    }
    others = {
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "bias": _bias_word(adapter),
        "use_rslora": adapter.rslora,
        "use_dora": adapter.dora,
        "init_lora_weights": adapter.init,
        "fan_in_fan_out": any(module.kind == "conv1d" for module in modules.values()),
        "modules_to_save": list(adapter.saved) or None,
    }
    default = LoraConfig()
    return always | {name: v for name, v in others.items() if v != getattr(default, name)}


def peft_config(adapter: Adapter, task: str, base_name: str, doubled: bool) -> Any:
    """The peft.LoraConfig that loads the weights of `peft_state` on the untouched base.

    Scaling is written as alpha over r in every case, so that no other rule need be known.
    """
    from peft import LoraConfig

    double = 2 if doubled else 1
    modules = {
        name: replace(
            module, rank=module.rank * double, alpha=module.scaling * module.rank * double
        )
        for name, module in adapter.modules.items()
    }
    written = replace(adapter, modules=modules, rslora=False, init=True)
    settings = peft_settings(written, task)
    return LoraConfig(**settings, base_model_name_or_path=base_name, inference_mode=True)


def check_in_peft(model: nn.Module, adapter: Adapter, task: str) -> None:
    """Refuse an adapter whose file peft would not turn into the same trained weights.

    peft builds it on a copy of the structure, and what it trains is compared by name and shape.

    Args:
        model: From `skeleton`.
        adapter: What is to be trained in it.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.

    Raises:
        SpecError: peft refuses the adapter, or trains something else.
    """
    from peft import get_peft_model

    config = peft_config(adapter, task, "", doubled=False)
    config.inference_mode = False
    place = f"lora.target_modules: in a {kind_of(model)} model"
    try:
        with quiet_peft():
            built = get_peft_model(copy.deepcopy(model), config, low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise SpecError(f"{place} peft refuses these modules: {first_line(error)}") from error
    found = {
        _own_name(name): tuple(parameter.shape)
        for name, parameter in built.named_parameters()
        if parameter.requires_grad and ".original_module." not in name  # replaced, never read
    }
    wanted = trained_shapes(model, adapter)
    unlike = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if unlike:
        raise SpecError(
            f"{place} peft would train other weights than these settings say, such as "
            f"{unlike[0]} ({found.get(unlike[0], 'not there')} in peft, "
            f"{wanted.get(unlike[0], 'not there')} here); name other modules"
        )


def _own_name(name: str) -> str:
    """The name of a weight in peft's model, as the bank calls it."""
    name = name.removeprefix(PREFIX).replace(".modules_to_save.default.", ".")
    return (
        name.replace(".base_layer.", ".")
        .replace(".default", "")
        .replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warnings that peft and transformers have for those who call them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _with_patterns(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The commonest value, and a pattern for each module that has another one."""
    counted = list(values.values())
    common = max(sorted(set(counted)), key=counted.count)
    others = [name for name, value in values.items() if value != common]
    return common, {key: values[name] for name, key in _patterns(others, values).items()}


def _patterns(names: Iterable[str], every: Iterable[str]) -> dict[str, str]:
    """For each of `names` a pattern that peft matches with this one of `every` alone.

    That is the name itself. peft takes it for an expression that may match the end of a name, in
    which a dot stands for any letter; where another name would match, it is fixed and escaped.
    """
    ends = defaultdict(list)
    for name in every:
        for end in ends_of(name):
            ends[len(end)].append(end)
    found = {}
    for name in names:
        matched = [end for end in ends[len(name)] if re.fullmatch(name, end)]
        found[name] = name if matched == [name] else f"^{re.escape(name)}"
    return found


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _bias_word(adapter: Adapter) -> str:
    if not adapter.biases:
        return "none"
    return "lora_only" if set(adapter.biases) <= set(adapter.modules) else "all"


def load_exported(
    folder: Path,
    spec: ModelSpec,
    task: str,
    num_labels: int | None,
    device: torch.device,
    pad_token_id: int,
    attention: str,
) -> Any:
    """The model in a folder, as a user loads it: an adapter by peft on a new base, or a whole one.

    Args:
        folder: An adapter in peft's format, or a model that `save_pretrained` wrote.
        spec: The base of an adapter.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        device: Where it goes.
        pad_token_id: Told to the model.
        attention: eager, sdpa or flash_attention_2.
    """
    import transformers
    from peft import PeftModel

    if (folder / "adapter_config.json").exists():
        base = load_base(spec, task, num_labels, device, pad_token_id, attention, seed=1).model
        with quiet_peft():
            adapted = PeftModel.from_pretrained(base, folder).eval()
        keep_one_kernel(adapted)
        return adapted
    kind = getattr(transformers, TASKS[task].auto_class)
    model = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, use_safetensors=True
    )
    set_padding(model, pad_token_id)
    return model.to(device).eval()


def merged_model(
    source: Path, spec: ModelSpec, task: str, num_labels: int | None, pad_token_id: int
) -> Any:
    """The base, unquantised, fp32 and on the CPU, with the adapter in `source` merged into it.

    Args:
        source: An adapter in peft's format.
        spec: The base; its precision and quantisation are those of the training, not of this.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        pad_token_id: Told to the model.
    """
    from peft import PeftModel

    whole = spec.model_copy(update={"dtype": "float32", "quantization": "none"})
    base = load_base(whole, task, num_labels, torch.device("cpu"), pad_token_id, "eager").model
    _untie(base, source / WEIGHTS)
    with quiet_peft():
        return PeftModel.from_pretrained(base, source).merge_and_unload()


def _untie(model: Any, weights: Path) -> None:
    """Give the output layer weights of its own, where an adapter changes it or the embedding.

    Merged into a weight that both share, the change of one would be a change of the other.
    """
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is not embedding.weight:
        return
    ends = [f".{name}." for name, one in model.named_modules() if one in (output, embedding)]
    with safe_open(weights, "pt") as file:
        if not any(end in key for key in list(file.keys()) for end in ends):
            return
    output.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False
