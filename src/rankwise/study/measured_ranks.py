"""Per-layer ranks of strategy `empirical`: settled once the base is there to measure on.

Until then an outlook holds uniform ranks of the same budget in their place. The ranks that were
found are kept in the store, so that later seeds of an arm get the same ones.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from rankwise.adapters.memory import Adapter, footprint, resolve_adapter
from rankwise.adapters.ranks import write_ranks
from rankwise.base.load import Base
from rankwise.spec.arms import Arm
from rankwise.store.schema import ModuleRank
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.train.batch import Task, chosen_rows, collate
from rankwise.train.importance import measure_importance
from rankwise.train.losses import Batch

SEED = 0  # of the batches that importance is read on: the same for every seed of an arm


def store_training(outlook: Outlook, arm: Arm, store: Store, device: torch.device) -> int:
    """Put what an arm trains, and what that costs, into the store; the id of the training."""
    costs, ranks = outlook.costs(arm, device), ranks_to_store(outlook.adapters[arm.id])
    return store.add_training(
        arm.training_id,
        costs["trainable_params"],
        costs["total_params"],
        costs["storage_bytes"],
        costs["memory_bytes"],
        ranks,
    )


def ranks_to_store(adapter: Adapter | None) -> dict[str, ModuleRank]:
    """Rank and scaling of each adapted module, where they are settled."""
    if adapter is None or adapter.provisional:
        return {}
    return {module: ModuleRank(rank) for module, rank in adapter.ranks.items()}


def with_stored_ranks(outlook: Outlook, store: Store) -> Outlook:
    """The outlook with the ranks that an earlier call has measured."""
    stored = {training.key: store.ranks(training.id) for training in store.trainings()}
    for arm in outlook.arms:
        adapter = outlook.adapters[arm.id]
        known = stored.get(arm.training_id)
        if adapter is not None and adapter.provisional and known:
            ranks = {target.name: known[target.name].rank for target in adapter.targets}
            lora = write_ranks(arm.lora, adapter.targets, ranks)
            found = replace(adapter, lora=lora, ranks=ranks, provisional=False)
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
        names = tuple(target.name for target in adapter.targets)
        rows, count = arm.training.per_device_train_batch_size, arm.ranks.batches
        key = (id(outlook.train[arm.training_id]), names, rows, count)
        if key not in measured:
            batches = _batches(outlook, arm, task)
            measured[key] = measure_importance(base.model, names, batches, task.name)
        found = resolve_adapter(outlook.structure, arm, task.name, measured[key])
        outlook = _with_adapter(outlook, arm, found)
        store_training(outlook, arm, store, task.device)
        store.add_fact(
            "ranks",
            config=arm.name,
            low=min(found.ranks.values()),
            high=max(found.ranks.values()),
            batches=arm.ranks.batches,
            head_seed=SEED if base.new_modules else None,
        )
    return outlook


def _batches(outlook: Outlook, arm: Arm, task: Task) -> Iterator[Batch]:
    """The first training batches of the arm, as a run of seed `SEED` would see them."""
    examples = outlook.train[arm.training_id]
    for step in range(arm.ranks.batches):
        (chosen,) = chosen_rows([examples], [SEED], arm.training.per_device_train_batch_size, step)
        yield collate(chosen, task)


def _with_adapter(outlook: Outlook, arm: Arm, adapter: Adapter) -> Outlook:
    counts = footprint(outlook.structure, arm, outlook.spec.task, adapter)
    return replace(
        outlook,
        adapters={**outlook.adapters, arm.id: adapter},
        footprints={**outlook.footprints, arm.id: counts},
    )
