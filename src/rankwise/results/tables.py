"""Tables that others wrote, as rows: CSV and TSV files, and PEFT's folders of result files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.reading import decode, read_csv

PEFT_COLUMNS: dict[str, Any] = {
    "metric": "test accuracy",
    "arm": "experiment",
    "seed": "seed",
    "state": "status",
    "test_size": 1319,  # GSM8K's test part, which the suite reads whole
    "costs": {
        "trainable_params": "num_trainable_params",
        "memory": "accelerator_memory_max",
        "time": "train_time",
        "storage": "file_size",
    },
    "factors": [
        "peft_type",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "lr",
        "use_dora",
        "use_rslora",
        "max_steps",
        "lr_scheduler",
    ],
    "title": "PEFT method comparison, MetaMathQA",
}


def csv_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, cells as numbers, true or false, text or None.

    The delimiter is whichever of comma, semicolon and tab occurs most often in the header.

    Raises:
        DataError: it cannot be read, has no rows, or a row with another number of fields.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    header = decode(path, content).split("\n", 1)[0]
    rows = read_csv(path, content, delimiter=max(",;\t", key=header.count))
    if not rows:
        raise DataError(f"{path}: no rows below the header; give one row for each run")
    return [{name.strip(): _value(text) for name, text in row.items()} for row in rows]


def _value(text: str) -> Any:
    text = text.strip()
    if text == "":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and "." not in text and "e" not in text else number


def peft_rows(folder: Path) -> list[dict[str, Any]]:
    """One row a result file of `method_comparison/MetaMathQA` in huggingface/peft.

    Raises:
        DataError: no JSON file there, or one of another kind.
    """
    rows = []
    for file in sorted(folder.glob("*.json")):
        try:
            rows.append(_peft_row(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{file}: not a result file of PEFT's comparison ({error!r})") from None
    if not rows:
        raise DataError(f"{folder}: no study (study.db) and no JSON result files here")
    return rows


def _peft_row(result: Mapping[str, Any]) -> dict[str, Any]:
    run, train = result["run_info"], result["train_info"]
    config, training = run.get("peft_config") or {}, run["train_config"]
    targets = config.get("target_modules")
    last = train["metrics"][-1] if train["metrics"] else {}
    costs = {name: train.get(name) for name in PEFT_COLUMNS["costs"].values()}
    return {
        "experiment": run["experiment_name"],
        "seed": training["seed"],
        "status": train["status"],
        "test accuracy": last.get("test accuracy"),
        "peft_type": config.get("peft_type") or "full fine-tuning",
        **{name: config.get(name) for name in ("r", "lora_alpha", "lora_dropout")},
        "target_modules": ", ".join(sorted(targets)) if isinstance(targets, list) else targets,
        "lr": (training.get("optimizer_kwargs") or {}).get("lr"),
        **{name: config.get(name) for name in ("use_dora", "use_rslora")},
        **{name: training.get(name) for name in ("max_steps", "lr_scheduler")},
        **costs,
    }
