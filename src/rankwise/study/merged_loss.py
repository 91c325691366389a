"""What an adapter trained over a quantised base is worth once it is merged into the real one.

The adapter has learnt beside rounded weights; `rankwise export --merged` puts it into the weights
as they were before. The validation loss of that model is measured, an evaluation an arm.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

from rankwise.adapters.peft_files import merged_model
from rankwise.base.load import choose_dtype
from rankwise.results.from_store import read_records
from rankwise.results.records import RunFacts, best_run
from rankwise.store.folders import ADAPTERS
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate


def unmerged(outlook: Outlook, store: Store) -> list[RunFacts]:
    """The best run of every quantised training that is trained and not yet measured merged.

    The best by the study's objective, as `rankwise export` chooses it.
    """
    records, tried = read_records(store), store.merged()
    found = []
    for arm in {arm.training_id: arm for arm in outlook.arms}.values():
        if arm.quantization == "none":
            continue
        run = best_run(records, arm.name)
        if run is not None and all(one.run not in tried for one in records.runs_of(arm.name)):
            found.append(run)
    return found


def measure_merged(outlook: Outlook, store: Store, folder: Path, task: Task) -> Iterator[str]:
    """Measure all that `unmerged` names; yields the labels of these runs, one by one.

    Where memory does not hold the unquantised model, which may be why it was quantised, the store
    is told that.
    """
    for run in unmerged(outlook, store):
        assert run.run is not None
        loss = None
        try:
            loss = _merged_loss(outlook, folder / ADAPTERS / str(run.folder), task)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
        store.save_merged(run.run, loss)
        yield f"{run.id}: measured merged into the unquantised base"


def _merged_loss(outlook: Outlook, adapter: Path, task: Task) -> float:
    """Validation loss of the merged model, in the study's precision on the study's device."""
    spec = outlook.spec
    model = merged_model(adapter, spec.model, spec.task, outlook.num_labels, task.pad_token_id)
    model.to(device=task.device, dtype=choose_dtype(spec.model.dtype, task.device)).eval()
    rows = spec.training.per_device_eval_batch_size
    (found,) = evaluate(Untouched(model), outlook.data.validation, task, rows)
    del model
    gc.collect()
    return found.loss
