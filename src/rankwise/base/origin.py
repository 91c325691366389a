"""Where the base is read from, and whether its files are those of before. No torch here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import ModelError, UserError
from rankwise.files import PKG, at_home, exists, find_pkg_path, sum_of
from rankwise.spec.models import ModelSpec
from rankwise.store.schema import BaseFile
from rankwise.text import shorten

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
WEIGHTS = (  # in the order in which transformers looks for them
    "model.safetensors",
    "model*.safetensors*",
    "pytorch_model.bin",
    "pytorch_model*.bin*",
)
TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
)


@dataclass(frozen=True)
class ModelPlace:
    """Where a model is: a folder here, or a hub id; and the GGUF file in it, where it is one."""

    folder: str
    gguf_file: str | None = None
    local: bool = True


def locate_model(name: str) -> ModelPlace:
    """Where the model called `name` is; nothing is downloaded and the hub is not asked.

    Args:
        name: a folder, a .gguf file, pkg://PACKAGE/path to either, or a hub id.

    Raises:
        ModelError: no such file, and not the form of a hub id.
    """
    try:
        path = find_pkg_path(name) if name.startswith(PKG) else at_home(name)
    except UserError as error:
        raise ModelError(f"model.name: {error}") from None
    if not exists(path):
        if name.startswith((".", "/", "~")) or not HUB_ID.fullmatch(name):
            raise ModelError(f"model.name: {shorten(name)}: no such folder or file")
        return ModelPlace(name, local=False)
    if path.is_file() and path.suffix == ".gguf":
        return ModelPlace(str(path.parent), path.name)
    if path.is_file():
        raise ModelError(f"model.name: {name} is a file; give a folder or a .gguf file")
    return ModelPlace(str(path))


def base_name(model: ModelSpec) -> str:
    """The base model in a few words."""
    if model.name is not None:
        return model.name
    return f"a random {(model.config or {})['model_type']}"


def base_files(spec: ModelSpec) -> tuple[dict[str, Path], bool]:
    """The files that base and tokenizer are read from, by name; whether that is all of them.

    Of a model of the hub these are files of the cache, and some may not be here yet. Files that
    change nothing here, such as README.md, are left out.
    """
    found: dict[str, Path] = {}
    places = []
    if spec.name is not None:
        place = locate_model(spec.name)
        places.append(place)
        folder, gguf = _folder(place, spec.revision), spec.gguf_file or place.gguf_file
        if folder is not None:
            found |= _named(folder, (gguf,) if gguf else ("config.json", *_weights(folder)))
            if spec.tokenizer is None and not gguf:
                found |= _named(folder, TOKENIZER)
    if spec.tokenizer is not None:
        place = locate_model(spec.tokenizer)
        places.append(place)
        folder = _folder(place, None)
        if folder is not None:
            inside = _named(folder, (place.gguf_file,) if place.gguf_file else TOKENIZER)
            found |= {f"tokenizer/{name}": path for name, path in inside.items()}
    return found, all(place.local for place in places)


def _folder(place: ModelPlace, revision: str | None) -> Path | None:
    """The folder of a model; of one of the hub that in the cache, None where it is not there."""
    if place.local:
        return Path(place.folder)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(place.folder, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _weights(folder: Path) -> tuple[str, ...]:
    return next(((pattern,) for pattern in WEIGHTS if any(folder.glob(pattern))), ())


def _named(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.name: path for path in sorted(paths)}


def summed(paths: Mapping[str, Path], before: Mapping[str, BaseFile]) -> dict[str, BaseFile]:
    """Size, sha256 and stamp of files; one with the stamp of before is not read again."""
    found = {}
    for name, path in paths.items():
        stat = path.stat()
        # The time of the last change of the inode cannot be set, as that of the content can.
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        known = before.get(name)
        if known is None or known.stamp != stamp:
            known = BaseFile(sum_of(path).sha256, stamp)
        found[name] = known
    return found


def differences(
    before: Mapping[str, BaseFile], now: Mapping[str, BaseFile], all_here: bool
) -> Iterator[str]:
    """What differs in the files of a base; nothing for other times of the same bytes."""
    for name, one in before.items():
        if name in now and now[name].sha256 != one.sha256:
            yield f"{name} has another content"
        elif name not in now and all_here:
            yield f"{name} is not there, or not read any more"
    if all_here:
        yield from (f"{name} is new" for name in now if name not in before)
