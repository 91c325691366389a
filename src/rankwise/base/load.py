"""The frozen base: where it is, how precise it is, and loading it once for all runs.

Quantisation is by bitsandbytes: its settings, its kernels, its memory.
"""

import hashlib
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankwise.base.modules import kept_precise, saved_names
from rankwise.base.origin import locate_model
from rankwise.base.skeleton import reason, skeleton
from rankwise.errors import ModelError
from rankwise.spec.models import LoraSpec, ModelSpec
from rankwise.spec.tasks import TASKS
from rankwise.text import first_line


@dataclass(frozen=True)
class Base:
    """A loaded, frozen model.

    Attributes:
        model: In evaluation mode, so that the frozen base is a fixed function; no gradients.
        dtype: Precision of its weights (of its products, where quantised).
        new_modules: Weights that the checkpoint did not hold, such as a fresh classifier.
        fingerprint: A hash over names, shapes and values of the weights.
        nbytes: Memory of the weights as loaded.
    """

    model: nn.Module
    dtype: torch.dtype
    new_modules: tuple[str, ...]
    fingerprint: str
    nbytes: int


def load_tokenizer(spec: ModelSpec, config: Any) -> Any:
    """The tokenizer of the base, with a padding token.

    That is the token which the model's own configuration names, where it names one: some models
    look for it in their input, and a user who loads an adapter has the model as it is configured.
    Else it is the tokenizer's own, or its end-of-text token.

    Args:
        spec: Where the tokenizer is.
        config: The transformers configuration of the model.

    Raises:
        ModelError: there is none where the spec says, or it has no token to pad with.
    """
    from transformers import AutoTokenizer

    place = locate_model(spec.tokenizer) if spec.tokenizer else locate_model(spec.name or "")
    if spec.config is not None and spec.tokenizer is None:
        raise ModelError(
            "model.tokenizer: a model from `config` needs one; name a hub id or folder"
        )
    options: dict[str, Any] = {"trust_remote_code": False}
    if spec.revision and not spec.tokenizer:
        options["revision"] = spec.revision
    gguf = place.gguf_file if spec.tokenizer else (spec.gguf_file or place.gguf_file)
    if gguf:
        options["gguf_file"] = gguf
    try:
        tokenizer = AutoTokenizer.from_pretrained(place.folder, **options)
    except Exception as error:
        raise ModelError(f"model: no tokenizer at {place.folder}: {reason(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"{'model.tokenizer' if spec.tokenizer else 'model.name'}: the tokenizer of "
            f"{spec.tokenizer or spec.name} has neither a padding token nor an end-of-text token "
            "to pad with; set pad_token in its tokenizer_config.json"
        )
    own = config.get_text_config().pad_token_id
    token = None if own is None or own < 0 else tokenizer.convert_ids_to_tokens(own)
    if token is not None:
        tokenizer.pad_token = token
    return tokenizer


def set_padding(model: Any, pad_token_id: int) -> None:
    """Tell a model its padding token; the text part of a multimodal one has its own setting."""
    model.config.pad_token_id = pad_token_id
    model.config.get_text_config().pad_token_id = pad_token_id


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision that `name` asks for; auto: bfloat16 where the hardware computes it."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if able else torch.float32


def load_base(
    spec: ModelSpec,
    task: str,
    num_labels: int | None,
    device: torch.device,
    pad_token_id: int,
    attention: str,
    seed: int = 0,
) -> Base:
    """Load the base, freeze it and put it on the device.

    Args:
        spec: What to load.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        device: Where it goes.
        pad_token_id: Told to models that look for the last real token.
        attention: eager, sdpa or flash_attention_2.
        seed: Of the weights that the checkpoint lacks, which a run draws anew.

    Raises:
        ModelError: the weights cannot be loaded.
    """
    import transformers

    dtype = choose_dtype(spec.dtype, device)
    kind = getattr(transformers, TASKS[task].auto_class)
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": dtype}
    if spec.quantization != "none":
        structure = skeleton(spec, task, num_labels)
        options["quantization_config"] = quantization_config(spec, dtype, structure)
        options["device_map"] = {"": device}
    labels = {"num_labels": num_labels} if num_labels is not None else {}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed if spec.config is None else 0)
        if spec.config is not None:
            model, missing = _random_model(kind, spec, task, labels, options)
        else:
            model, missing = _load_pretrained(kind, spec, {**options, **labels})
    set_padding(model, pad_token_id)
    model.eval().requires_grad_(False)
    if spec.quantization == "none":
        model.to(device)
    else:
        keep_one_kernel(model)
    return Base(model, dtype, missing, fingerprint(model, missing), held_bytes(model))


def _random_model(
    kind: Any, spec: ModelSpec, task: str, labels: Mapping[str, int], options: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    """A model from its configuration. Quantisation is done in loading, so it goes by a folder."""
    from transformers import AutoConfig

    assert spec.config is not None
    settings = {k: v for k, v in spec.config.items() if k != "model_type"}
    config = AutoConfig.for_model(spec.config["model_type"], **settings, **labels)
    plain = {name: options[name] for name in ("attn_implementation", "dtype")}
    model = kind.from_config(config, **plain)
    heads = saved_names(model, LoraSpec.model_validate({}), task)
    if spec.quantization != "none":
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            model = kind.from_pretrained(folder, **options)
    return model, heads


def _load_pretrained(
    kind: Any, spec: ModelSpec, options: dict[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    place = locate_model(spec.name or "")
    options = {
        **options,
        "trust_remote_code": False,
        "use_safetensors": None if spec.allow_pickle else True,
        "weights_only": True,  # of a pickle: tensors, and nothing that runs
    }
    if spec.revision:
        options["revision"] = spec.revision
    gguf = spec.gguf_file or place.gguf_file
    folder = dequantised(place.folder, gguf) if gguf else place.folder
    try:
        model, info = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"model.name: {spec.name}: its pickle file is broken or holds more than tensors, which "
            "may be code; nothing of it was run. Get the weights as safetensors, from an origin "
            f"that you trust ({_unpickled(error)})"
        ) from error
    except (RuntimeError, MemoryError):
        raise  # too little memory is not the fault of the files
    except Exception as error:
        raise ModelError(f"model.name: {spec.name} cannot be loaded: {reason(error)}") from error
    _refuse_mismatches(spec, info["mismatched_keys"], options.get("num_labels"))
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    own = {name for name, _ in model.named_parameters()}
    return model, tuple(sorted(own & {*info["missing_keys"], *mismatched}))


def _unpickled(error: pickle.UnpicklingError) -> str:
    """What a pickle asked for, out of torch's advice on how to allow it."""
    named = re.search(r"(GLOBAL|Unsupported class|Unsupported operand) \S+", str(error))
    return named[0] if named else first_line(error)


def _refuse_mismatches(
    spec: ModelSpec, found: Iterable[tuple[str, Any, Any]], num_labels: int | None
) -> None:
    """Refuse weights of another shape, but for those of a head for another number of classes."""
    for name, given, asked in sorted(found):
        if asked[0] != num_labels or given[1:] != asked[1:]:
            raise ModelError(
                f"model.name: {spec.name}: the checkpoint's {name} is of shape {tuple(given)}; its "
                f"configuration asks for {tuple(asked)}"
            )


def absent_weights(
    spec: ModelSpec, task: str, num_labels: int | None, download: bool
) -> tuple[str, ...]:
    """Full names of the weights that the checkpoint will not bring; no weight is kept in memory.

    Args:
        spec: What will be loaded.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        download: Whether a hub model that is not here may be fetched; if not, and it is not here,
            no weight is named.

    Raises:
        ModelError: the checkpoint cannot be read, does not fit its configuration, or is mostly not
            there.
    """
    import transformers

    gguf = spec.gguf_file or (spec.name and locate_model(spec.name).gguf_file)
    if spec.config is not None or gguf:
        return ()
    options: dict[str, Any] = {"device_map": "meta"}
    if num_labels is not None:
        options["num_labels"] = num_labels
    here = locate_model(spec.name or "").local
    if not (here or download):
        options["local_files_only"] = True
    try:
        model, absent = _load_pretrained(
            getattr(transformers, TASKS[task].auto_class), spec, options
        )
    except ModelError as error:
        if not (here or download) and isinstance(error.__cause__, OSError):
            return ()
        raise
    except RuntimeError as error:
        raise ModelError(
            f"model.name: {spec.name}: its weights do not fit: {first_line(error)}"
        ) from error
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lacking = sum(sizes[name] for name in absent)
    if lacking > sum(sizes.values()) / 2:
        raise ModelError(
            f"model.name: {spec.name}: the checkpoint lacks {lacking:,} of the "
            f"{sum(sizes.values()):,} weights of a {type(model).__name__}, such as {absent[0]}"
        )
    return absent


def dequantised(folder: str, gguf_file: str) -> str:
    """A folder with the GGUF file's weights as safetensors, made once and kept in the cache.

    Dequantising takes many times as long as reading safetensors. The cache is
    `$RANKWISE_CACHE`, or `~/.cache/rankwise`.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    source = Path(folder) / gguf_file
    stat = source.stat()
    key = hashlib.sha256(f"{source}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("RANKWISE_CACHE", Path.home() / ".cache" / "rankwise"))
    target = cache / "gguf" / key
    if not (target / "config.json").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=gguf_file,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            ready = Path(scratch) / "model"
            model.config.__dict__.pop("quantization_config", None)
            model.save_pretrained(ready)
            if target.exists():
                shutil.rmtree(target)
            ready.rename(target)
    return str(target)


def fingerprint(model: nn.Module, new_modules: Sequence[str]) -> str:
    """A hash over every weight's name, shape and 64 evenly spaced values, 16 hex digits.

    Weights that the base did not bring are drawn for each run, and are no part of it.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith(tuple(new_modules)):
            continue
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


QUANTISED = ("Linear4bit", "Linear8bitLt")  # of bitsandbytes


def quantization_config(spec: ModelSpec, dtype: torch.dtype, structure: nn.Module) -> Any:
    """bitsandbytes' settings for `quantization: nf4` or `int8`."""
    from transformers import BitsAndBytesConfig

    kept = list(kept_precise(structure))
    if spec.quantization == "int8":
        # Threshold 0: no outlier columns. Those are found over the whole batch, so that a run's
        # numbers would depend on its neighbours.
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=kept
        )
    compute = dtype if spec.compute_dtype == "auto" else getattr(torch, spec.compute_dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=spec.double_quant,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )


def keep_one_kernel(model: nn.Module) -> None:
    """Keep bitsandbytes to one way of computing, the one of training.

    In evaluation mode on a CPU its 4-bit modules repack their weights for another kernel at the
    first pass without gradient, and its 8-bit modules quantise activations as well: the frozen
    base would no longer be one function.
    """
    for module in model.modules():
        if type(module).__name__ in QUANTISED:
            module.training = True


def held_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights as loaded, with the constants of quantised ones."""
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        states = [getattr(weight, "quant_state", None)]
        states += [getattr(state, "state2", None) for state in states]
        total += sum(state.absmax.nbytes for state in states if state is not None)
        scales = getattr(weight, "SCB", None)
        total += 0 if scales is None else scales.nbytes
    return total
