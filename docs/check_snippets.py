"""Checks the report's training files with the parsers of LLaMA-Factory and of Axolotl.

See docs/snippets.md. `write` runs where rankwise is installed; `llamafactory` and `axolotl` run
where the trainer is, and need nothing of rankwise.

    python docs/check_snippets.py write FOLDER
    python docs/check_snippets.py llamafactory FOLDER
    python docs/check_snippets.py axolotl FOLDER
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
VARIANTS: list[dict[str, Any]] = [  # what the examples leave out, over a preset
    {"name": "rslora", "lora.use_rslora": True, "lora.lora_alpha": "2r"},
    {"name": "dora", "lora.use_dora": True, "lora.lora_dropout": 0.1},
    {"name": "pissa", "lora.init_lora_weights": "pissa"},
    {"name": "olora", "lora.init_lora_weights": "olora"},
    {"name": "biases", "lora.bias": "all"},
    {"name": "nf4", "model.quantization": "nf4"},
    {"name": "int8", "model.quantization": "int8"},
    {"name": "ratio", "training.max_steps": None, "training.warmup_ratio": 0.1},
    {"name": "ratio-of-steps", "training.warmup_ratio": 0.03},
    {
        "name": "decay",
        "training.lr_scheduler_type": "warmup_stable_decay",
        "training.warmup_ratio": 0.1,
    },
    {
        "name": "restarts",
        "training.lr_scheduler_type": "cosine_with_restarts",
        "training.lr_scheduler_kwargs": {"num_cycles": 2},
    },
    {"name": "loraplus", "training.loraplus_lr_ratio": 16, "training.max_grad_norm": 0},
    {"name": "embeddings", "lora.modules_to_save": ["embed_tokens"]},
    {"name": "layer", "lora.layers_to_transform": [1]},
    {"name": "root", "lora.lora_alpha": "sqrt"},
    {"name": "rising", "ranks.strategy": "linear_decay", "lora.lora_alpha": "2r"},
    {"name": "rising-root", "ranks.strategy": "linear_decay", "lora.lora_alpha": "sqrt"},
    {"name": "augmented", "data.augment.factor": 3, "training.early_stopping_patience": 2},
    {"name": "full", "method": "full"},
]


def specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The examples of language models, and a spec of variants for each way to give the data."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())
        if spec["task"] == "CAUSAL_LM":  # the trainers take no other
            yield path.stem, spec
    columns: list[dict[str, str]] = [
        {"text": "text"},
        {"prompt": "prompt", "completion": "completion"},
        {"messages": "messages"},
    ]
    for data in columns:
        yield (
            f"variants-{next(iter(data))}",
            {
                "study": "variants",
                "task": "CAUSAL_LM",
                "model": {"config": {"model_type": "llama", "num_hidden_layers": 3}},
                "data": {"source": "nowhere", **data},
                "lora": {"target_modules": "attention", "r": 6, "lora_alpha": 12},
                "training": {"max_steps": 40, "lr_scheduler_type": "cosine"},
                "arms": VARIANTS,
            },
        )


def write(folder: Path) -> None:
    """The files of every configuration that the trainers can train."""
    from rankwise.adapters.adapter import resolve_adapter
    from rankwise.adapters.peft_files import peft_settings
    from rankwise.base.skeleton import skeleton
    from rankwise.report.trainers import axolotl_snippet, llama_factory_snippet
    from rankwise.spec.arms import make_arms
    from rankwise.spec.models import StudySpec

    folder.mkdir(parents=True, exist_ok=True)
    for stem, raw in specs():
        spec = StudySpec.model_validate(raw)
        structure = skeleton(spec.model, spec.task)
        for arm in make_arms(spec):
            adapter: dict[str, Any] = {}
            if arm.method == "lora":
                found = resolve_adapter(structure, arm, spec.task)
                if found.provisional:
                    importance = {name: 1.0 + n for n, name in enumerate(found.modules)}
                    found = resolve_adapter(structure, arm, spec.task, importance)
                adapter = peft_settings(found, spec.task)
            facts = SimpleNamespace(settings=arm.settings, adapter=adapter)
            records: Any = SimpleNamespace(
                study={"spec": spec.model_dump(mode="json"), "model": {"dtype": "float32"}},
                arm=lambda _, facts=facts: facts,
            )
            for kind, text in (
                ("llamafactory", llama_factory_snippet(records, arm.name)),
                ("axolotl", axolotl_snippet(records, arm.name)),
            ):
                if text is not None:
                    (folder / f"{stem}.{arm.name}.{kind}.yaml").write_text(text)


def files(folder: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of a trainer that are more than a comment; counts both."""
    paths = sorted(folder.glob(f"*.{kind}.yaml"))
    found = [(path.name, yaml.safe_load(path.read_text())) for path in paths]
    refused = [name for name, tree in found if tree is None]
    print(f"{len(found)} files, of which {len(refused)} say only what cannot be expressed:")
    print("\n".join(f"  {name}" for name in refused))
    yield from ((name, tree) for name, tree in found if tree is not None)


def check_llama_factory(folder: Path) -> None:
    """Each file through get_train_args, and once more as arguments of a command line.

    The first refuses unknown keys and settings at odds, the second values of a wrong type.
    """
    from llamafactory.hparams.parser import _TRAIN_ARGS, get_train_args
    from transformers import HfArgumentParser

    for name, tree in files(folder, "llamafactory"):
        *_, finetuning, _ = get_train_args(dict(tree))
        arguments = [part for key, value in tree.items() for part in (f"--{key}", _shown(value))]
        HfArgumentParser(_TRAIN_ARGS).parse_args_into_dataclasses(args=arguments)
        print("accepted", name, finetuning.lora_rank, finetuning.lora_target)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_axolotl(folder: Path) -> None:
    """Each file through validate_config; every key known, every value kept.

    Axolotl drops unknown keys without a word, so they are compared with its schema.
    """
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig

    for name, tree in files(folder, "axolotl"):
        unknown = set(tree) - set(AxolotlInputConfig.model_fields)
        assert not unknown, f"{name}: unknown keys {unknown}"
        found = validate_config(DictDefault(tree))
        for key in set(tree) - {"datasets"}:
            assert found[key] == tree[key], f"{name}: {key}: {tree[key]} became {found[key]}"
        print("accepted", name)


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    {"write": write, "llamafactory": check_llama_factory, "axolotl": check_axolotl}[command](folder)
