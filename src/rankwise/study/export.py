"""Adapters out of a study: copied, merged into a whole model, and what merging changes."""

import gc
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rankwise.adapters.peft_files import (
    load_exported,
    merged_model,
    unreadable,
    write_label_names,
)
from rankwise.base.load import choose_dtype, load_tokenizer
from rankwise.base.skeleton import read_config
from rankwise.errors import UserError
from rankwise.files import refuse_links, unlike, whole_folder
from rankwise.results.from_store import Records, RunFacts, read_records, records_with
from rankwise.results.judge import judge_records
from rankwise.results.records import ArmFacts, best_run
from rankwise.spec.arms import Arm
from rankwise.spec.models import ModelSpec
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.schema import Reload
from rankwise.store.writer import Store
from rankwise.study.plan import StudyPlan, pick_device
from rankwise.study.reload import compare_with_stored
from rankwise.text import first_line
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate


def export_adapter(
    folder: Path, arm: str, to: Path, seed: int | None, merged: bool
) -> dict[str, Any]:
    """Write the best weights of an arm's run to a folder.

    Args:
        folder: A study.
        arm: Name of an arm, or `best` for the recommended one.
        to: Where to; must not exist.
        seed: Which run; the one with the best validation metric where not given.
        merged: Merge into the base and write a whole model.

    Raises:
        UserError: no such arm or run, `to` exists or cannot be written, or the adapter is missing,
            damaged or dropped.
    """
    if to.exists():
        raise UserError(f"{to}: exists already; name a new folder")
    above = next(path for path in to.absolute().parents if path.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{to}: cannot be written, as {above} is read-only; name another folder")
    with Reader(folder) as store:
        records, study = records_with(store, [arm]), store.study()
        name = _arm_name(records, arm)
        run = _run_of(records, name, seed)
        _refuse_unusable(store, run)
    labels = None if study.label_names is None else list(study.label_names)
    source = folder / ADAPTERS / str(run.folder)
    with whole_folder(to) as ready:
        if merged:
            model = ModelSpec.model_validate(study.spec["model"])
            merge(source, ready, model, study.spec["task"], labels)
        else:
            shutil.copytree(source, ready, dirs_exist_ok=True)
            if labels is not None:
                write_label_names(ready, labels)
    what = "merged model" if merged else "adapter"
    value = run.validation[records.metric]
    said = f"{what} of {run.id} (step {run.best_step}, {records.metric} {value:.4f}): {to}"
    measured, words = _measured(folder, records.arm(name), run, to)
    return {
        "arm": name,
        "seed": run.seed,
        "step": run.best_step,
        records.metric: value,
        "to": str(to),
        "measured": measured,
        "said": f"{said}\n{words}",
    }


def _refuse_unusable(store: Reader, run: RunFacts) -> None:
    """Refuse an adapter that is not as it was written.

    Raises:
        UserError: as said, with the way to have it again.
    """
    record = store.run(run.run or 0)
    place = store.folder / ADAPTERS / record.folder
    if record.dropped is not None:
        raise UserError(
            f"{run.id}: its adapter was dropped by keep_adapters: {record.dropped}; `rankwise run "
            f"SPEC --set keep_adapters=all --train-dropped` trains the dropped ones again"
        )
    refuse_links(place, store.folder / ADAPTERS)  # of a foreign study, they may name my files
    why = "is missing" if not place.is_dir() else unlike(place, store.adapter_files(record.id))
    if why is None and store.adapter_files(record.id) == {}:  # of an older version
        why = unreadable(place)
    if why is not None:
        raise UserError(
            f"{place}: the adapter of {run.id} is damaged: {why}; `rankwise run SPEC` trains this "
            f"run again"
        )


def _measured(
    folder: Path, arm: ArmFacts, run: RunFacts, to: Path
) -> tuple[dict[str, Any] | None, str]:
    """What the exported files give, loaded as a user will; as numbers and in a sentence.

    The files are written by now: where they cannot be loaded here, such as on a machine without
    the device of the study, that is said and is no failure.
    """
    with Reader(folder) as store:
        if not store.study().spec.get("check_export", True):
            return None, "not measured: check_export is false"
        if not store.sample():
            return None, "not measured: this study holds no examples to measure it on"
        try:
            found = _compared(store, arm, run, to)
        except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
            return None, f"not measured: it cannot be loaded here: {first_line(error)}"
    if not math.isfinite(found.loss):
        return asdict(found), "loaded from there, it gives a loss that is not finite"
    change = found.loss - found.stored
    return asdict(found), (
        f"loaded from there, it gives loss {found.loss:.4f} on {found.rows} validation examples; "
        f"training measured {found.stored:.4f} ({change:+.4f})"
    )


def _compared(store: Reader, arm: ArmFacts, run: RunFacts, to: Path) -> Reload:
    study = store.study()
    quantization = str(arm.settings.get("model.quantization") or "none")
    spec = ModelSpec.model_validate({**study.spec["model"], "quantization": quantization})
    device = pick_device(study.spec["hardware"]["device"])
    pad = load_tokenizer(spec, read_config(spec)).pad_token_id
    task = Task(study.spec["task"], pad, study.spec["data"]["max_length"], device)
    labels = None if study.label_names is None else len(study.label_names)
    model = load_exported(to, spec, task.name, labels, device, pad, study.base.attention)
    dtype = getattr(torch, study.base.dtype)
    whole = Untouched(model, dtype if arm.method == "full" else None)
    return compare_with_stored(store, run, whole, task, dtype)


def _arm_name(records: Records, arm: str) -> str:
    if arm == "best":
        choice = judge_records(records).choice
        if choice.withdrawn is not None:
            raise UserError(
                f"best: the recommendation is withdrawn, because the adapter of {choice.withdrawn} "
                f"loaded from disk does not give what was measured; see the report"
            )
        chosen = choice.arm
        if chosen is None:
            raise UserError("best: no configuration has a result yet")
        return chosen
    names = [one.name for one in records.arms]
    if arm not in names:
        raise UserError(f"{arm}: no such configuration; there are {', '.join(names)}")
    return arm


def _run_of(records: Records, arm: str, seed: int | None) -> RunFacts:
    run = best_run(records, arm, seed)
    if run is None:
        states = ", ".join(f"seed {run.seed} {run.state}" for run in records.runs_of(arm))
        which = "" if seed is None else f" of seed {seed}"
        raise UserError(f"{arm}: no finished run{which}: {states}")
    return run


def merge(
    source: Path, to: Path, model: ModelSpec, task: str, label_names: list[str] | None
) -> None:
    """Merge an adapter into its base and write the whole model, in fp32, with its tokenizer.

    Args:
        source: An adapter in peft's format, or the whole model that full fine-tuning leaves.
        to: Folder of the merged model.
        model: The base; where that is quantised, the base as it was before.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        label_names: Names of the classes, for SEQ_CLS.
    """
    tokenizer = load_tokenizer(model, read_config(model))
    if (source / "adapter_config.json").exists():
        labels = None if label_names is None else len(label_names)
        pad = tokenizer.pad_token_id
        merged_model(source, model, task, labels, pad).save_pretrained(to)
    else:
        shutil.copytree(source, to, dirs_exist_ok=True)
    if label_names is not None:
        write_label_names(to, label_names)
    tokenizer.save_pretrained(to)


def unmerged(plan: StudyPlan, store: Store) -> list[tuple[Arm, RunFacts]]:
    """Quantised configurations that are trained and not yet measured, with their best run."""
    quantised = [arm for arm in plan.arms if arm.quantization != "none"]
    if not quantised:
        return []
    merged, records = store.merged(), read_records(store)
    best = [(arm, best_run(records, arm.name)) for arm in quantised]
    return [
        (arm, run)
        for arm, run in best
        if run is not None and run.run not in merged and not store.run(run.run or 0).dropped
    ]


def measure_merged(plan: StudyPlan, store: Store, folder: Path, task: Task) -> Iterator[str]:
    """Measure what `unmerged` names; yields what was found, one sentence a configuration.

    Where memory does not hold the unquantised model, which may be why it was quantised, the
    store keeps that.
    """
    for _, run in unmerged(plan, store):
        assert run.run is not None
        assert run.folder is not None
        try:
            after = _merged_loss(plan, folder / ADAPTERS / run.folder, task)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            store.save_merged(run.run, None)
            yield f"{run.id}: memory does not hold the unquantised base, to merge into"
        else:
            store.save_merged(run.run, after)
            yield f"{run.id}: validation loss {after:.4f} merged into the unquantised base"


def _merged_loss(plan: StudyPlan, adapter: Path, task: Task) -> float:
    """Validation loss of the merged model, in the study's precision on the study's device."""
    spec = plan.spec
    model = merged_model(adapter, spec.model, spec.task, plan.num_labels, task.pad_token_id)
    model.to(device=task.device, dtype=choose_dtype(spec.model.dtype, task.device)).eval()
    rows = spec.training.per_device_eval_batch_size
    (found,) = evaluate(Untouched(model), [0], plan.data.validation, task, rows)
    del model
    gc.collect()
    return found.loss
