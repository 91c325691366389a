"""Adapters out of a study: copied, merged into a whole model, and what merging changes."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankwise.adapters.peft_files import merged_model, write_label_names
from rankwise.base.load import choose_dtype
from rankwise.errors import UserError
from rankwise.results.from_store import Records, RunFacts, read_records
from rankwise.results.judge import judge_records
from rankwise.results.records import best_run
from rankwise.spec.arms import Arm
from rankwise.spec.models import ModelSpec
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.writer import Store
from rankwise.study.plan import StudyPlan
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
        UserError: no such arm or run, or `to` exists.
    """
    if to.exists():
        raise UserError(f"{to}: exists already; name a new folder")
    with Reader(folder) as store:
        records = read_records(store)
        study = store.study()
    labels = None if study.label_names is None else list(study.label_names)
    name = _arm_name(records, arm)
    run = _run_of(records, name, seed)
    source = folder / ADAPTERS / str(run.folder)
    if not source.is_dir():
        raise UserError(f"{source}: the adapter of {run.id} is not there any more; run it again")
    if merged:
        merge(source, to, ModelSpec.model_validate(study.spec["model"]), study.spec["task"], labels)
    else:
        shutil.copytree(source, to)
        if labels is not None:
            write_label_names(to, labels)
    what = "merged model" if merged else "adapter"
    said = f"{what} of {run.id} (step {run.best_step}, {records.metric} {run.value:.4f}): {to}"
    return {
        "arm": name,
        "seed": run.seed,
        "step": run.best_step,
        records.metric: run.value,
        "to": str(to),
        "said": said,
    }


def _arm_name(records: Records, arm: str) -> str:
    if arm == "best":
        chosen = judge_records(records).choice.arm
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
    from rankwise.base.load import load_tokenizer

    tokenizer = load_tokenizer(model)
    if (source / "adapter_config.json").exists():
        labels = None if label_names is None else len(label_names)
        pad = tokenizer.pad_token_id
        merged_model(source, model, task, labels, pad).save_pretrained(to)
    else:
        shutil.copytree(source, to)
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
    return [(arm, run) for arm, run in best if run is not None and run.run not in merged]


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
