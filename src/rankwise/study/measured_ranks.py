"""Per-layer ranks of strategy `empirical`: settled once the base is there to measure on.

Until then an outlook holds uniform ranks of the same budget in their place. The ranks that were
found are kept in the store, so that later seeds of an arm get the same ones.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rankwise.adapters.adapter import Adapter, resolve_adapter
from rankwise.adapters.footprint import footprint
from rankwise.adapters.peft_files import peft_settings
from rankwise.base.load import Base
from rankwise.spec.arms import Arm
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.train.batch import Task, chosen_rows, collate
from rankwise.train.importance import measure_importance
from rankwise.train.losses import Batch

SEED = 0  # of the batches that importance is read on: the same for every seed of an arm


def ranks_to_store(arm: Arm, adapter: Adapter | None) -> dict[str, int]:
    """The rank of each adapted module, where they are settled and not all `lora.r`."""
    if adapter is None or adapter.provisional:
        return {}
    return adapter.ranks if set(adapter.ranks.values()) != {arm.lora.r} else {}


def adapter_to_store(adapter: Adapter | None, task: str) -> dict[str, Any]:
    """What peft.LoraConfig takes to train this adapter, where its ranks are settled."""
    if adapter is None or adapter.provisional:
        return {}
    return peft_settings(adapter, task)


def with_stored_ranks(outlook: Outlook, store: Store) -> Outlook:
    """The outlook with the ranks that an earlier call has measured."""
    known = {arm.id: arm.ranks for arm in store.arms() if arm.ranks}
    for arm in outlook.arms:
        adapter = outlook.adapters[arm.id]
        if adapter is not None and adapter.provisional and arm.id in known:
            found = resolve_adapter(outlook.structure, arm, outlook.spec.task, ranks=known[arm.id])
            outlook = _with_adapter(outlook, arm, found)
    return outlook


def with_measured_ranks(
    outlook: Outlook, base: Base, quantization: str, task: Task, store: Store
) -> Outlook:
    """The outlook with ranks by importance for all arms over this base that await them.

    Arms of equal data, modules and rows of a batch share one measurement. What an arm costs is
    counted anew, as its budget is met within 1 % only; ranks and costs go to the store.

    Args:
        outlook: The study.
        base: The frozen base, with nothing in it.
        quantization: How the base is held; arms over others wait for theirs.
        task: How examples become tensors.
        store: Where the arms are.

    Raises:
        SpecError: importance tells nothing, or the budget cannot be met.
    """
    measured: dict[tuple[object, ...], dict[str, float]] = {}
    for arm in outlook.arms:
        adapter = outlook.adapters[arm.id]
        if adapter is None or not adapter.provisional or arm.quantization != quantization:
            continue
        names = tuple(adapter.modules)
        rows, count = arm.training.per_device_train_batch_size, arm.ranks.batches
        key = (id(outlook.train[arm.training_id]), names, rows, count)
        if key not in measured:
            batches = _batches(outlook, arm, task)
            measured[key] = measure_importance(base.model, names, batches, task.name)
        found = resolve_adapter(outlook.structure, arm, task.name, measured[key])
        outlook = _with_adapter(outlook, arm, found)
        costs = outlook.costs(arm, task.device)
        ranks, words = ranks_to_store(arm, found), adapter_to_store(found, task.name)
        store.add_arm(arm.id, arm.training_id, arm.name, arm.settings, costs, ranks, words)
        store.add_note("ranks", _what_was_measured(arm, found, bool(base.new_modules)))
    return outlook


def _batches(outlook: Outlook, arm: Arm, task: Task) -> Iterator[Batch]:
    """The first training batches of the arm, as a run of seed `SEED` would see them."""
    examples = outlook.train[arm.training_id]
    rows = arm.training.per_device_train_batch_size
    for batch in range(arm.ranks.batches):
        (chosen,) = chosen_rows([examples], [SEED], rows, [batch])
        yield collate(chosen, task)


def _what_was_measured(arm: Arm, adapter: Adapter, headless: bool) -> str:
    ranks = adapter.ranks.values()
    head = f" under a head as drawn by seed {SEED}" if headless else ""
    return (
        f"{arm.name}: ranks {min(ranks)} to {max(ranks)} in proportion to the mean of "
        f"|weight x gradient|, read on {arm.ranks.batches} training batches of the frozen base"
        f"{head}; the same for every seed of the arm"
    )


def _with_adapter(outlook: Outlook, arm: Arm, adapter: Adapter) -> Outlook:
    counts = footprint(outlook.structure, adapter)
    return replace(
        outlook,
        adapters={**outlook.adapters, arm.id: adapter},
        footprints={**outlook.footprints, arm.id: counts},
    )
