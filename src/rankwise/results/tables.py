"""Tables that others wrote, as rows: CSV, JSON and parquet files, PEFT's folders of result files.

Exports of experiment trackers are such tables: W&B's runs as CSV or JSON (plain columns,
`config.*` and `summary.*`, or one object in each), and MLflow's `search_runs` (`params.*`,
`metrics.*`, `tags.*`).
"""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.data.tables import format_of, rows_in, unit_of
from rankwise.errors import DataError
from rankwise.reading import Faults, Malformed, decode, read_csv

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


OTHER_FORMATS = (".jsonl", ".json", ".parquet")
# What W&B writes around each value of a configuration, beside the value.
WRAPPING = {"value", "desc"}


def table_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, each with all columns: numbers, true or false, text or None.

    JSON lines, JSON and parquet by their suffix, packed or not; every other file is read as CSV.
    Objects inside a row become columns with dotted names: `config.lr`.

    Raises:
        DataError: it cannot be read, or has no rows, or one that is malformed.
    """
    rows = _other_rows(path) if format_of(path)[0] in OTHER_FORMATS else _csv_rows(path)
    if not rows:
        raise DataError(f"{path}: no rows; give one row for each run")
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name) for name in names} for row in flat]


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """The delimiter is whichever of comma, semicolon and tab occurs most often in the header."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    header = decode(path, content).split("\n", 1)[0]
    rows = read_csv(path, content, delimiter=max(",;\t", key=header.count))
    return [{name.strip(): value for name, value in row.items()} for row in rows]


def _other_rows(path: Path) -> list[dict[str, Any]]:
    rows, faults = [], Faults()
    for number, row in rows_in(path):
        if isinstance(row, Malformed):
            faults.add(f"{unit_of(path)} {number}", row)
        else:
            rows.append(row)
    if faults.count:
        raise DataError(f"{path}: {faults.told()}")
    return rows


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row without objects inside it."""
    found: dict[str, Any] = {}
    for name, held in row.items():
        value = _object(held) if isinstance(held, str) else held
        if isinstance(value, Mapping) and "value" in value and set(value) <= WRAPPING:
            value = value["value"]
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = _value(value)
    return found


def _object(text: str) -> Any:
    """The object that a cell holds as JSON or as Python writes it; the text itself if none."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return {str(name): part for name, part in value.items()}
    return text


def _value(value: Any) -> Any:
    """A cell: text that spells a number, true, false or nothing becomes that."""
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value).strip()
    if text in ("", "None", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    plain = number.is_integer() and "." not in text and "e" not in text.lower()
    return int(text) if plain else number


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
