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
from rankwise.store.schema import BaseRecord, Split, StudyRecord
from rankwise.store.writer import Store
from rankwise.study.answering import (
    SPOKEN_EXAMPLES,
    ask_base,
    base_metrics,
)
from rankwise.study.measured_ranks import store_training
from rankwise.study.plan import Outlook, base_name, pick_device
from rankwise.train.batch import Part, Task, chosen_rows, parts_of, target_count
from rankwise.train.evaluate import Untouched
from rankwise.train.prepare import Bases, choose_attention, versions_of
from rankwise.train.trainee import Trainee

PACKAGES = ("torch", "transformers", "peft", "numpy", "bitsandbytes")


@dataclass
class Progress:
    """What a study is doing, for whoever shows it.

    Attributes:
        cohort: Number of the cohort, from 1.
        cohorts: How many there are.
        runs: Runs to do in this call.
        trainees: The runs in training.
        news: Remarks since the last time; whoever shows them takes them away.
    """

    cohort: int = 0
    cohorts: int = 0
    runs: int = 0
    trainees: Sequence[Trainee] = ()
    news: list[str] = field(default_factory=list)


@dataclass
class Study:
    """A study under way.

    Attributes:
        sharing: By id of a run that is trained, all runs that its training stands for.
    """

    outlook: Outlook
    folder: Path
    store: Store
    bases: Bases
    task: Task
    progress: Progress
    sharing: Mapping[str, Sequence[Run]] = field(default_factory=dict)


def open_study(outlook: Outlook, folder: Path, store: Store) -> Study:
    """A study ready to go on; nothing is loaded yet, and the attention of its beginning is kept."""
    spec = outlook.spec
    device = pick_device(spec.hardware.device)
    pad = outlook.tokenizer.pad_token_id
    attention: str = spec.model.attn_implementation
    if attention == "auto" and store.begun():
        attention = store.study().base.attention
    return Study(
        outlook,
        folder,
        store,
        Bases(spec.model, spec.task, outlook.num_labels, pad, device, attention),
        Task(spec.task, pad, spec.data.max_length, device),
        Progress(),
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
    labels = outlook.data.label_names
    store.begin_study(
        StudyRecord(
            dump_spec(spec),
            spec.model_dump(mode="json", warnings=False),
            {"rankwise": __version__, **versions_of(PACKAGES)},
            device_name(study.task.device),
            torch.get_num_threads(),
            BaseRecord(
                base_name(spec.model),
                base.fingerprint,
                str(base.dtype).removeprefix("torch."),
                study.bases.attention,
                next(iter(outlook.footprints.values())).base,
            ),
            outlook.data.fingerprint,
            None if labels is None else tuple(labels),
        )
    )
    if not store.base_metrics():
        store.save_base_metrics(_base_metrics(study, base))
    for note in outlook.notes:
        store.add_fact("text", about="data", text=note)
    _write_examples(study)
    _write_plan(outlook, store, study.task.device)
    _note_likeness(study)
    base_face = Untouched(base.model)
    ask_base(base_face, outlook.arms, outlook.questions, study.task, outlook.tokenizer, store)


def _write_plan(outlook: Outlook, store: Store, device: torch.device) -> None:
    """Put trainings, configurations and runs into the store; those that are there are kept."""
    trainings = {
        arm.training_id: store_training(outlook, arm, store, device) for arm in outlook.arms
    }
    for arm in outlook.arms:
        store.add_config(arm.id, trainings[arm.training_id], arm.name, arm.settings)
    for run in outlook.runs:
        store.add_run(trainings[run.arm.training_id], run.seed)


def _base_metrics(study: Study, base: Base) -> dict[str, float]:
    """Validation metrics of the untouched base, measured when the study begins."""
    outlook = study.outlook
    rows = outlook.spec.training.per_device_eval_batch_size
    validation, tokenizer = outlook.data.validation, outlook.tokenizer
    return base_metrics(Untouched(base.model), validation, study.task, rows, tokenizer)


def _note_likeness(study: Study) -> None:
    """For the report: what is measured on a part of the validation examples only."""
    if study.task.name == "SEQ_2_SEQ_LM":
        count = len(study.outlook.data.validation)
        study.store.add_fact("likeness", examples=min(count, SPOKEN_EXAMPLES), of=count)


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
    rows = chosen_rows([examples], [run.seed], run.arm.training.per_device_train_batch_size, 0)
    return list(parts_of(rows, [run.seed], 0, study.task))


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
