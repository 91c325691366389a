"""A study under way, and its beginning: what it is, with what, on what, written down once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from rankwise import __version__
from rankwise.base.load import Base
from rankwise.data.examples import Example
from rankwise.spec.arms import Run
from rankwise.spec.load import dump_spec
from rankwise.store.writer import Split, Store
from rankwise.study.answering import (
    ask_base,
    base_metrics,
)
from rankwise.study.measured_ranks import adapter_to_store, ranks_to_store
from rankwise.study.plan import Outlook, base_name, pick_device, shared_trainings
from rankwise.text import first_line
from rankwise.train.batch import Part, Task, chosen_rows, parts_of, target_count
from rankwise.train.evaluate import Untouched
from rankwise.train.likeness import WRITTEN_EXAMPLES
from rankwise.train.prepare import Bases, choose_attention, versions_of

PACKAGES = ("torch", "transformers", "peft", "numpy", "bitsandbytes")


@dataclass
class Study:
    """A study under way.

    Attributes:
        cohort: Number of the cohort in training, from 1.
        cohorts: How many there are, as far as is known.
        sharing: By id of a run that is trained, all runs that its training stands for.
    """

    outlook: Outlook
    folder: Path
    store: Store
    bases: Bases
    task: Task
    cohort: int = 0
    cohorts: int = 0
    sharing: Mapping[str, Sequence[Run]] = field(default_factory=dict)


def open_study(outlook: Outlook, folder: Path, store: Store) -> Study:
    """A study ready to go on; nothing is loaded yet, and the attention of its beginning is kept."""
    spec = outlook.spec
    device = pick_device(spec.hardware.device)
    pad = outlook.tokenizer.pad_token_id
    attention = spec.model.attn_implementation
    if attention == "auto" and store.begun():
        attention = store.study().model["attention"]
    return Study(
        outlook,
        folder,
        store,
        Bases(spec.model, spec.task, outlook.num_labels, pad, device, attention),
        Task(spec.task, pad, spec.data.max_length, device),
    )


def yardstick(study: Study) -> Base:
    """The base that is measured and rates answers: as the first arm of the plan holds it."""
    return study.bases.frozen(study.outlook.runs[0].arm.quantization)


def begin(study: Study) -> None:
    """Write down what the study is, with what, on what, and what the untouched base can do."""
    outlook, store = study.outlook, study.store
    spec = outlook.spec
    base = yardstick(study)
    if study.bases.attention == "auto":
        batch = parts_of_one(study, outlook.runs[0])[-1].batch
        study.bases.attention = choose_attention(base.model, spec.task, batch)
    store.begin_study(
        dump_spec(spec),
        spec.model_dump(mode="json", warnings=False),
        {"rankwise": __version__, **versions_of(PACKAGES)},
        {"device": device_name(study.task.device), "threads": torch.get_num_threads()},
        {
            "name": base_name(spec.model),
            "sha256": base.fingerprint,
            "dtype": str(base.dtype).removeprefix("torch."),
            "attention": study.bases.attention,
            "total_params": next(iter(outlook.footprints.values())).base,
            **_base_facts(study, base),
        },
        {
            "fingerprint": outlook.data.fingerprint,
            "notes": list(outlook.notes),
            "label_names": outlook.data.label_names,
        },
    )
    for note in outlook.notes:
        store.add_note("data", note)
    _write_examples(study)
    for arm in outlook.arms:
        costs = outlook.costs(arm, study.task.device)
        adapter = outlook.adapters[arm.id]
        ranks, words = ranks_to_store(arm, adapter), adapter_to_store(adapter, spec.task)
        store.add_arm(arm.id, arm.training_id, arm.name, arm.settings, costs, ranks, words)
    for run in outlook.runs:
        store.add_run(run.id, run.arm.id, run.seed)
    _note_what_is_shared(study)
    untouched = Untouched(base.model)
    try:
        ask_base(untouched, outlook.arms, outlook.questions, study.task, outlook.tokenizer, store)
    except (RuntimeError, MemoryError) as error:
        store.add_note("generation", f"no answers of the untouched base: {first_line(error)}")


def _base_facts(study: Study, base: Base) -> dict[str, float]:
    """Validation metrics of the untouched base, measured when the study begins."""
    outlook, store = study.outlook, study.store
    known = store.study().model if store.begun() else {}
    if "base_eval_loss" in known:
        return {name: value for name, value in known.items() if name.startswith("base_eval_")}
    rows = outlook.spec.training.per_device_eval_batch_size
    validation, tokenizer = outlook.data.validation, outlook.tokenizer
    return base_metrics(Untouched(base.model), validation, study.task, rows, tokenizer)


def _note_what_is_shared(study: Study) -> None:
    """For the report: which arms are one training, and what is measured on a part only."""
    outlook, store = study.outlook, study.store
    for together in shared_trainings(outlook.runs).values():
        names = ", ".join(run.arm.name for run in together)
        if len(together) > 1:
            store.add_note("sharing", f"trained once, as they differ in generation alone: {names}")
    if study.task.name == "SEQ_2_SEQ_LM":
        count = len(outlook.data.validation)
        store.add_note(
            "generation",
            f"eval_rougeL and eval_chrf are those of what is written for the first "
            f"{min(count, WRITTEN_EXAMPLES)} of {count} validation examples, by greedy search and "
            f"no longer than the longest of their targets (test likewise)",
        )


def _write_examples(study: Study) -> None:
    data = study.outlook.data
    parts: tuple[tuple[Split, Sequence[Example]], ...] = (
        ("validation", data.validation),
        ("test", data.test),
    )
    for split, examples in parts:
        if examples:
            study.store.save_examples(
                split,
                [example.digest for example in examples],
                np.array([example.group for example in examples]),
                np.array([target_count(e, study.task.name) for e in examples], dtype=float),
            )


def parts_of_one(study: Study, run: Run) -> list[Part]:
    """The parts of a run's first batch."""
    examples = study.outlook.train[run.arm.training_id]
    rows = chosen_rows([examples], [run.seed], run.arm.training.per_device_train_batch_size, [0])
    return list(parts_of(rows, [run.seed], [0], study.task))


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
