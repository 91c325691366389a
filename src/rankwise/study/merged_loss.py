"""What an adapter trained over a quantised base is worth once it is merged into the real one.

The adapter has learnt beside rounded weights; `rankwise export --merged` puts it into the weights
as they were before. The validation loss of that model is measured, an evaluation an arm.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

from rankwise.adapters.peft_files import merged_model
from rankwise.base.load import choose_dtype
from rankwise.spec.arms import Arm
from rankwise.spec.metrics import lower_is_better
from rankwise.store.schema import FINISHED, RunRecord
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate


def unmerged(outlook: Outlook, store: Store) -> list[tuple[Arm, RunRecord]]:
    """Quantised configurations that are trained and not yet measured, with their best run.

    The best by the study's objective, as `rankwise export` chooses it.
    """
    merged = store.merged()
    found = []
    for arm in outlook.arms:
        run = _best_run(outlook, store, arm) if arm.quantization != "none" else None
        if run is not None and run.id not in merged:
            found.append((arm, run))
    return found


def _best_run(outlook: Outlook, store: Store, arm: Arm) -> RunRecord | None:
    metric = outlook.spec.objective.metric
    sign = 1 if lower_is_better(metric) else -1
    keys = {training.id: training.key for training in store.trainings()}
    scored = []
    for run in store.runs():
        trained = run.state in FINISHED and keys[run.training_id] == arm.training_id
        if trained and run.best_step is not None:
            value = store.evaluation_at(run.id, run.best_step).metrics[metric]
            scored.append((sign * value, run.seed, run))
    return min(scored)[2] if scored else None


def measure_merged(outlook: Outlook, store: Store, folder: Path, task: Task) -> Iterator[str]:
    """Measure what `unmerged` names; yields what was found, one sentence a configuration.

    Where memory does not hold the unquantised model, which may be why it was quantised, the
    store keeps that.
    """
    for arm, run in unmerged(outlook, store):
        label = f"{arm.name}/seed-{run.seed}"
        try:
            after = _merged_loss(outlook, folder / "adapters" / run.folder, task)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            store.save_merged(run.id, None)
            yield f"{label}: memory does not hold the unquantised base, to merge into"
        else:
            store.save_merged(run.id, after)
            yield f"{label}: validation loss {after:.4f} merged into the unquantised base"


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
