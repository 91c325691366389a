"""Studies run through the command line, and the same numbers come by with transformers and peft.

Nothing here knows the inside of rankwise: what is compared is what its commands write.
"""

import contextlib
import csv
import io
import json
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional as F

from rankwise.cli.app import main
from tiny import CLASSES, CONFIGS, TASKS
from tiny_text import VOCABULARY, tiny_spec, tiny_tokenizer

CONFIGURATIONS = "configs"  # the spec's key for a list of single configurations
NAME = "arm"  # the configuration's name, in runs.csv and in the runs of `report --json`
IGNORED = -100
START = 1e-30  # a learning rate that leaves the weights as they were drawn
STEPS = """
    SELECT config.name, seed, step, loss, learning_rate, grad_norm
    FROM step JOIN run ON run.id = run_id JOIN config USING (training_id)
    ORDER BY config.name, seed, step
"""


def rankwise(*words: Any) -> tuple[int, str, str]:
    """Exit code, output and error output of a command run in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["rankwise", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Study:
    """A spec file and the folder of its results; `model` is the folder of its base."""

    spec: Path
    out: Path
    model: Path
    task: str

    def run(self, *words: Any, code: int = 0) -> "Study":
        """Run it; the exit code must be `code`."""
        found, _, err = rankwise("run", self.spec, "--out", self.out, *words)
        assert found == code, err
        return self

    def plan(self, *words: Any) -> dict[str, Any]:
        """What `plan --json` says."""
        code, out, err = rankwise("plan", self.spec, "--json", *words)
        assert code == 0, err
        return json.loads(out)

    def facts(self) -> dict[str, Any]:
        """What `report --json` says."""
        code, out, err = rankwise("report", self.out, "--json")
        assert code == 0, err
        return json.loads(out)

    def runs(self) -> dict[tuple[str, int], dict[str, str]]:
        """Rows of runs.csv by configuration and seed."""
        with (self.out / "runs.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        return {(row[NAME], int(row["seed"])): row for row in rows}

    def logged(self) -> dict[tuple[str, int], np.ndarray]:
        """Training losses, a step each, by configuration and seed (of up to 60 steps)."""
        return {
            (run[NAME], run["seed"]): np.array([loss for _, loss in run["train_curve"]])
            for run in self.facts()["runs"]
        }

    def stored_steps(self) -> dict[tuple[str, int], np.ndarray]:
        """A row (step, loss, learning rate, norm of the gradient) for every optimizer step."""
        found: dict[tuple[str, int], list[Any]] = {}
        with contextlib.closing(sqlite3.connect(self.out / "study.db")) as store:
            for name, seed, *row in store.execute(STEPS):
                found.setdefault((name, seed), []).append(row)
        return {key: np.array(rows) for key, rows in found.items()}

    def weights(self, name: str, seed: int = 0) -> dict[str, torch.Tensor]:
        """The weights of a run's adapter file."""
        return load_file(self.out / "adapters" / name / f"seed-{seed}/adapter_model.safetensors")

    def base(self) -> Any:
        """The untouched base, frozen and without dropout."""
        kind = CLASSES[self.task]
        return kind.from_pretrained(self.model, attn_implementation="eager").eval()

    def loaded(self, name: str, seed: int = 0, trainable: bool = False, base: Any = None) -> Any:
        """The base (a new one where none is given) with a run's adapter, loaded by peft."""
        folder = self.out / "adapters" / name / f"seed-{seed}"
        base = base or self.base()
        return PeftModel.from_pretrained(base, folder, is_trainable=trainable).eval()


def make_study(
    folder: Path,
    kind: str = "bert",
    shape: str = "labelled",
    configurations: dict[str, dict[str, Any]] | None = None,
    base: Any = None,
    rows: list[dict[str, Any]] | None = None,
    **sections: Any,
) -> Study:
    """A study on a tiny random model that is saved in a folder.

    Args:
        folder: Where all of it goes.
        kind: Architecture.
        shape: Shape of the rows of `tiny_text.rows_of`.
        configurations: Name to the settings that differ.
        base: The base model, where it is not a random one of this kind.
        rows: Rows instead of those of `rows_of`.
        sections: Sections of the spec; what they do not name stays as in `tiny_spec`.
    """
    spec = tiny_spec(folder, kind, shape)
    tiny_tokenizer(ends=kind == "t5").save_pretrained(folder / "model")
    (base or random_base(kind)).save_pretrained(folder / "model")
    spec["model"] = {
        "name": str(folder / "model"),
        "dtype": "float32",
        "attn_implementation": "eager",
    }
    if rows is not None:
        (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    if configurations is not None:
        spec[CONFIGURATIONS] = [{"name": name, **c} for name, c in configurations.items()]
    for name, section in sections.items():
        old = spec.get(name)
        spec[name] = {**old, **section} if isinstance(old, dict) else section
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return Study(folder / "study.yaml", folder / "out", folder / "model", TASKS[kind])


def random_base(kind: str, seed: int = 0, **more: Any) -> Any:
    """A random model whose weights are large enough that adapters matter."""
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    labels = {"num_labels": 3} if TASKS[kind] == "SEQ_CLS" else {}
    settings = {**CONFIGS[kind], **ids, **labels, "initializer_range": 0.2, **more}
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(seed)
    return CLASSES[TASKS[kind]].from_config(config)


# The data, as numpy alone makes it of the rows


def order(n: int, *key: int) -> np.ndarray:
    """A random order of 0..n-1, a function of `key`."""
    return np.argsort(np.random.SFC64(key).random_raw(n), kind="stable")


def split_of(rows: list[Any], validation: int = 12, test: int = 8, seed: int = 0) -> list[Any]:
    """Training, validation and test rows, where all texts differ."""
    held = []
    for number, size in ((1, validation), (2, test)):
        chosen = set(order(len(rows), seed, number)[:size].tolist())
        held.append([row for at, row in enumerate(rows) if at in chosen])
        rows = [row for at, row in enumerate(rows) if at not in chosen]
    return [rows, *held]


def rows_at(n: int, size: int, seed: int, step: int) -> list[int]:
    """The rows of one batch: an epoch is one order of all rows."""
    places = range(step * size, (step + 1) * size)
    return [int(order(n, seed, place // n)[place % n]) for place in places]


Example = tuple[list[int], list[int]]


def classified(rows: list[dict[str, Any]], names: list[str], length: int = 48) -> list[Example]:
    """Token ids and class of every row."""
    tokenizer = tiny_tokenizer()
    return [(tokenizer(r["text"]).input_ids[:length], [names.index(r["label"])]) for r in rows]


def texts(rows: list[dict[str, Any]], length: int = 48) -> list[Example]:
    """Token ids of every text with its end, all of them learnt."""
    tokenizer = tiny_tokenizer()
    ids = [[*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id] for row in rows]
    assert max(map(len, ids)) <= length
    return [(row, row) for row in ids]


def answered(rows: list[dict[str, Any]], kind: str) -> list[Example]:
    """Prompts with completions for a decoder, inputs with targets for T5."""
    tokenizer = tiny_tokenizer(ends=kind == "t5")
    if kind == "t5":
        return [(tokenizer(r["input"]).input_ids, tokenizer(r["target"]).input_ids) for r in rows]
    made = []
    for row in rows:
        prompt = tokenizer(row["prompt"]).input_ids
        answer = [*tokenizer(row["completion"]).input_ids, tokenizer.eos_token_id]
        made.append(([*prompt, *answer], [IGNORED] * len(prompt) + answer))
    return made


# The numbers, as plain transformers and torch find them


def loss_of(model: Any, task: str, examples: list[Example]) -> tuple[torch.Tensor, int]:
    """Sum of the losses over all targets, row by row without any padding, and their number."""
    total, count = torch.zeros(()), 0
    for ids, labels in examples:
        given = {"labels": torch.tensor([labels])} if task == "SEQ_2_SEQ_LM" else {}
        logits = model(input_ids=torch.tensor([ids]), **given).logits[0]
        targets = torch.tensor(labels)
        if task == "CAUSAL_LM":
            logits, targets = logits[:-1], targets[1:]
        logits = logits.view(len(targets), -1)
        total = total + F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        count += int((targets != IGNORED).sum())
    return total, count


@torch.no_grad()
def evaluated(model: Any, task: str, examples: list[Example]) -> float:
    """Mean loss over all targets."""
    total, count = loss_of(model, task, examples)
    return float(total) / count


@torch.no_grad()
def predictions(model: Any, examples: list[Example]) -> np.ndarray:
    """The likeliest class of each row."""
    return np.array([int(model(torch.tensor([ids])).logits.argmax()) for ids, _ in examples])


def train(model: Any, task: str, examples: list[Example], seed: int, **training: Any) -> np.ndarray:
    """The losses of `trained_steps`."""
    return trained_steps(model, task, examples, seed, **training)[:, 0]


def trained_steps(
    model: Any, task: str, examples: list[Example], seed: int, **training: Any
) -> np.ndarray:
    """A plain loop over the trainable weights of a peft model.

    `training` holds settings under the names of the spec. A row (loss, learning rate, norm of
    the gradient before it is clipped) for every step.
    """
    have = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        **training,
    }
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decay = have["weight_decay"]
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.0 if "bias" in name else decay} for name, p in named],
        lr=have["learning_rate"],
        betas=(have["adam_beta1"], have["adam_beta2"]),
        eps=have["adam_epsilon"],
    )
    steps, size = have["max_steps"], have["per_device_train_batch_size"]
    schedule = transformers.get_scheduler(
        have["lr_scheduler_type"], optimizer, have["warmup_steps"], steps
    )
    found, parts = [], have["gradient_accumulation_steps"]
    for step in range(steps):
        places = [
            at
            for part in range(parts)
            for at in rows_at(len(examples), size, seed, step * parts + part)
        ]
        total, count = loss_of(model, task, [examples[at] for at in places])
        optimizer.zero_grad()
        (total / count).backward()
        limit = have["max_grad_norm"] or float("inf")
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], limit)
        found.append((float(total.detach()) / count, schedule.get_last_lr()[0], float(norm)))
        optimizer.step()
        schedule.step()
    return np.array(found)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """The trainable weights of a peft model under the names of its file."""
    return {
        name.replace(".default", "").replace("modules_to_save.", ""): p.detach()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
