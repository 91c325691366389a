"""What an adapter trained over a quantised base is worth once it is merged into the real one.

The adapter has learnt beside rounded weights; `rankwise export --merged` puts it into the weights
as they were before. The validation loss of that model is measured, an evaluation an arm.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankwise.adapters.peft_files import merged_model
from rankwise.base.load import choose_dtype
from rankwise.spec.arms import Arm
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate

FINISHED = ("done", "stopped_early")


def unmerged(outlook: Outlook, store: Store) -> list[tuple[Arm, str]]:
    """Quantised arms that are trained and not yet measured, with their best run's id.

    The best by the study's objective, as `rankwise export` chooses it.
    """
    probes = store.probes()
    found = []
    for arm in outlook.arms:
        if arm.quantization != "none" and "merged_eval_loss" not in probes.get(arm.id, {}):
            run = _best_run(outlook, store, arm)
            found += [] if run is None else [(arm, run)]
    return found


def _best_run(outlook: Outlook, store: Store, arm: Arm) -> str | None:
    metric = outlook.spec.objective.metric
    sign = 1 if metric == "eval_loss" else -1
    scored = []
    for run in store.runs():
        step = store.best_step(run.id) if run.arm_id == arm.id and run.state in FINISHED else None
        if step is not None:
            value = store.evaluation_at(run.id, step).metrics[metric]
            scored.append((sign * value, run.seed, run.id))
    return min(scored)[2] if scored else None


def measure_merged(outlook: Outlook, store: Store, folder: Path, task: Task) -> Iterator[str]:
    """Measure all arms that `unmerged` names; yields what was found, arm by arm.

    Probe and notes of the store take it up. Where memory does not hold the unquantised model,
    which may be why it was quantised, the note says that.
    """
    for arm, run_id in unmerged(outlook, store):
        step = store.best_step(run_id)
        assert step is not None
        before = store.evaluation_at(run_id, step).metrics["eval_loss"]
        probe: dict[str, Any] = dict(store.probes().get(arm.id, {}))
        try:
            after = _merged_loss(outlook, folder / "adapters" / run_id, task)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            text = f"{run_id}: memory does not hold the unquantised base, to merge it into"
            store.save_probe(arm.id, {**probe, "merged_eval_loss": None})
        else:
            text = (
                f"{run_id}: validation loss {before:.4f} over the {arm.quantization} base, "
                f"{after:.4f} ({after - before:+.4f}) merged into the unquantised base, as "
                f"export --merged writes it"
            )
            store.save_probe(arm.id, {**probe, "merged_eval_loss": after})
        store.add_note("quantization", text)
        yield text


def _merged_loss(outlook: Outlook, adapter: Path, task: Task) -> float:
    """Validation loss of the merged model, in the study's precision on the study's device."""
    spec = outlook.spec
    model = merged_model(adapter, spec.model, spec.task, outlook.num_labels, task.pad_token_id)
    model.to(device=task.device, dtype=choose_dtype(spec.model.dtype, task.device)).eval()
    rows = spec.training.per_device_eval_batch_size
    (found,) = evaluate(Untouched(model), [0], outlook.data.validation, task, rows)
    del model
    gc.collect()
    return found.loss
