"""The base model's structure from its configuration alone: on the meta device, with no weights.

Names, shapes and counts of a model of any size are known in a second and without memory, so that
mistakes are found, and a plan is made, before any weight is loaded.
"""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rankwise.base.modules import input_embeddings
from rankwise.base.origin import locate_model
from rankwise.errors import ModelError
from rankwise.spec.models import ModelSpec
from rankwise.spec.tasks import TASKS, has_classes, is_causal
from rankwise.text import first_line, nearest, shorten

COMMON_SETTINGS = {"num_labels", "bos_token_id", "eos_token_id", "pad_token_id"}
COMMON_SETTINGS |= {"decoder_start_token_id"}  # sequence to sequence cannot do without it
BOTH_WAYS = ("xlnet", "xlm", "flaubert")  # unless `causal`, called language models all the same
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HUB_TIMEOUT = 5  # seconds for the one question whether the hub has the model


def skeleton(spec: ModelSpec, task: str, num_labels: int | None = None) -> nn.Module:
    """The model that `spec` and `task` make, with every parameter on the meta device.

    Args:
        spec: where the model is, or its configuration.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: classes of SEQ_CLS; the configuration's own number where not given.

    Raises:
        ModelError: there is no such model, it cannot be reached, or it cannot do the task.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    config = read_config(spec)
    if has_classes(task) and num_labels is not None:
        config.num_labels = num_labels
    _check_task(config, task)
    kind = getattr(transformers, TASKS[task].auto_class)
    try:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, RuntimeError) as e:
        if "Unrecognized configuration class" in str(e):
            raise ModelError(_cannot_do(config, task)) from None
        raise ModelError(f"{_origin(spec)}: no model can be built: {reason(e)}") from e
    except (StrictDataclassError, ImportError) as e:
        raise ModelError(f"{_origin(spec)}: no model can be built: {first_line(e)}") from e
    assert isinstance(model, nn.Module)
    return model


def own_classes(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's classes, in the order of their numbers."""
    names: dict[int, str] = getattr(model.config, "id2label", None) or {}
    return tuple(str(names[number]) for number in sorted(names))


def read_config(spec: ModelSpec) -> Any:
    """The transformers configuration of a model, read or made; weights are left alone.

    Raises:
        ModelError: there is none, it cannot be reached, or it has settings that do not exist.
    """
    from transformers import AutoConfig

    if spec.config is not None:
        return _config_from_settings(spec.config)
    place = locate_model(spec.name or "")
    # False: where nothing is said, transformers asks on the terminal whether to run code.
    options: dict[str, Any] = {"trust_remote_code": False}
    if spec.gguf_file or place.gguf_file:
        options["gguf_file"] = spec.gguf_file or place.gguf_file
    if spec.revision:
        options["revision"] = spec.revision
    if place.local:
        refuse_pickle(spec, [path.name for path in Path(place.folder).iterdir()])
    else:
        options["local_files_only"] = not _hub_answers(place.folder, spec)
    try:
        return AutoConfig.from_pretrained(place.folder, **options)
    except Exception as error:
        raise ModelError(
            f"model.name: {spec.name}: no configuration can be read: {reason(error)}"
        ) from error


def reason(error: BaseException) -> str:
    """A library's reason for not loading a model; not its advice to run the model's own code."""
    if "trust_remote_code" in str(error):
        return "it needs code that comes with it, which is never run here; use another model"
    plain = isinstance(error, OSError | ValueError | ImportError)
    return first_line(error) if plain else f"{type(error).__name__}: {first_line(error)}"


def refuse_pickle(spec: ModelSpec, files: Sequence[str]) -> None:
    """Refuse a model whose weights are there as pickle only, unless the spec allows that.

    Raises:
        ModelError: so it is, by the names of its files.
    """
    safe = any(name.endswith((".safetensors", ".gguf")) for name in files)
    pickled = sorted(name for name in files if name.endswith(PICKLES))
    if pickled and not safe and not spec.allow_pickle:
        raise ModelError(
            f"model.name: {spec.name}: its weights are there as pickle only ({pickled[0]}), a "
            "format that can hold code; convert them to safetensors (load the model with "
            "transformers and save_pretrained it), or set model.allow_pickle: true, with which "
            "tensors are read from it and nothing else"
        )


def _hub_answers(name: str, spec: ModelSpec) -> bool:
    """Whether the hub can be asked for a model; False: it is cached here and must do as it is.

    One short question instead of the many that the library would try again and again.

    Raises:
        ModelError: the hub does not have it, has it as pickle only, or cannot be reached and it
            is not cached.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"model.name: {shorten(name)}: no folder of this name here, and no hub id: "
            f"{shorten(error, 200)}"
        ) from error
    revision = spec.revision
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
        refuse_pickle(spec, [file.rfilename for file in info.siblings or ()])
        return True
    except ModelError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403, 404):
            raise ModelError(
                f"model.name: {name}: no folder of this name here, and the model hub has no such "
                f"model or revision, or does not show it to you: {first_line(error)}"
            ) from error
        why = first_line(error)
    except Exception as error:  # noqa: BLE001  which HTTP library fails depends on the version
        why = first_line(error)
    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return False
    raise ModelError(
        f"model.name: {name}: no folder of this name here, not in the model hub's cache, and the "
        f"hub cannot be reached ({why}); give a folder, pkg://PACKAGE/path, or go online"
    )


def _config_from_settings(settings: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = settings["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        near = nearest(str(kind), list(CONFIG_MAPPING.keys()))
        raise ModelError(f"model.config.model_type: no such kind of model: {kind}{near}")
    standard = AutoConfig.for_model(kind)
    known = set(standard.to_dict()) | set(standard.attribute_map) | COMMON_SETTINGS
    for name in settings:
        if name not in known and not hasattr(standard, name) and not _reads(standard, name):
            raise ModelError(
                f"model.config.{name}: no such setting of {kind}{nearest(name, list(known))}"
            )
    try:
        return AutoConfig.for_model(**settings)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"model.config: {' '.join(str(error).split())}") from error


def _reads(config: Any, name: str) -> bool:
    """Whether a model's code reads a setting that its configuration does not declare.

    DeBERTa's share_att_key is one.
    """
    from transformers import MODEL_MAPPING

    model = MODEL_MAPPING.get(type(config), None)
    code = "" if model is None else inspect.getsource(sys.modules[model.__module__])
    return re.search(rf"\b{re.escape(name)}\b", code) is not None


def _check_task(config: Any, task: str) -> None:
    """Refuse models that transformers would build but that cannot learn the task."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    if not is_causal(task):
        return
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(_cannot_do(config, task))
    ahead = config.model_type in BOTH_WAYS and not getattr(config, "causal", False)
    if ahead or (config.model_type in MASKED and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"task: {task}: {config.model_type} is an encoder: every token sees the one that it "
            f"should predict; use task: SEQ_CLS, or a decoder model"
        )


def _cannot_do(config: Any, task: str) -> str:
    """Why a model does not do a task, with the tasks that it does."""
    import transformers

    able = [
        name
        for name, kind in TASKS.items()
        if type(config) in getattr(transformers, kind.auto_class)._model_mapping
        and not (is_causal(name) and getattr(config, "is_encoder_decoder", False))
    ]
    remedy = f"it does {' and '.join(able)}" if able else "choose another model"
    return f"task: {task}: a {config.model_type} model cannot do this; {remedy}"


def _origin(spec: ModelSpec) -> str:
    return "model.config" if spec.config is not None else f"model.name: {spec.name}"


def text_config(model: nn.Module) -> Any:
    """The configuration of the part that reads text: of a multimodal model a nested one."""
    config: Any = model.config
    return config.get_text_config()


def positions(model: nn.Module, others: Sequence[str] = ()) -> int | None:
    """The longest row in tokens that a model has positions for; None where it sets no bound.

    Tables of learned positions may hold more than can be used: in the RoBERTa family positions
    are counted from the padding token's id plus one, in OPT and BART from an offset.

    Args:
        model: From `skeleton`.
        others: Names of modules that rows do not reach; their positions do not count.
    """
    tables = {name: module for name, module in model.named_modules() if _is_table(name, module)}
    found = [_usable(table) for name, table in tables.items() if name not in others]
    stated = getattr(text_config(model), "max_position_embeddings", None)
    if isinstance(stated, int) and stated > 0:
        found.append(stated)
    return min(found, default=None)


def vocabulary(model: Any) -> int | None:
    """How many tokens a model has embeddings for; None where it computes them without a table."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None


def embeds_each_token(model: nn.Module) -> bool:
    """Whether a model looks up one embedding for each token of its input, in one call.

    Found by a forward pass on the meta device; where a model cannot do that, it is assumed.

    Args:
        model: From `skeleton`.
    """
    shapes: list[tuple[int, ...]] = []
    try:
        table = input_embeddings(model)
    except (NotImplementedError, AttributeError):
        return False
    hook = table.register_forward_hook(lambda _, given, out: shapes.append(tuple(out.shape[:-1])))
    try:
        model(**_meta_inputs(model))
    except Exception:  # noqa: BLE001  what a model's own code raises on shapes alone is open
        return True
    finally:
        hook.remove()
    return shapes == [META_SHAPE]


META_SHAPE = (1, 8)


def _meta_inputs(model: Any) -> dict[str, torch.Tensor]:
    """A row of tokens on the meta device, and one to write."""
    ids = torch.ones(META_SHAPE, dtype=torch.long, device="meta")
    inputs = {"input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    return inputs


def hidden_size(model: nn.Module) -> int | None:
    """The width of the model's hidden states, None where its configuration does not say."""
    found = getattr(text_config(model), "hidden_size", None)
    return found if isinstance(found, int) and found > 0 else None


def _is_table(name: str, module: nn.Module) -> bool:
    if any(part in name for part in ("vision", "visual", "audio")):
        return False
    leaf = name.rpartition(".")[2].lower()
    return isinstance(module, nn.Embedding) and ("position" in leaf or leaf == "wpe")


def _usable(table: nn.Module) -> int:
    assert isinstance(table, nn.Embedding)
    offset = getattr(table, "offset", 0)
    if not offset and table.padding_idx is not None and "Sinusoidal" not in type(table).__name__:
        offset = table.padding_idx + 1
    return int(table.num_embeddings - offset)


def walk(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a row of tokens passes through on its way to a loss: (unreached, compound), of `Gaps`.

    Found by a forward and a backward pass on the meta device, which computes shapes only: weights
    that are not reached get no gradient. Where a model cannot do that (one that routes tokens by
    their values), nothing is named.

    Args:
        model: From `skeleton`.
    """
    single: dict[str, bool] = {}

    def see(name: str, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        one = len(given) == 1 and not named and isinstance(out, torch.Tensor)
        single[name] = single.get(name, True) and one

    hooks = [
        module.register_forward_hook(
            lambda _, given, named, out, name=name: see(name, given, named, out), with_kwargs=True
        )
        for name, module in model.named_modules()
    ]
    try:
        torch.autograd.backward(model(**_meta_inputs(model)).logits.sum())
        reached = {id(weight) for weight in model.parameters() if weight.grad is not None}
    except Exception:  # noqa: BLE001  what a model's own code raises on shapes alone is open
        return (), ()
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    unreached = tuple(
        name
        for name, module in model.named_modules()
        if (own := {id(weight) for weight in module.parameters(recurse=False)})
        and not own & reached
        and not any(True for _ in module.children())
    )
    return unreached, tuple(name for name, one in single.items() if name and not one)
