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
from rankwise.store.schema import ModuleRank
from rankwise.store.writer import Store
from rankwise.study.plan import Outlook
from rankwise.tasks.batch import Batch
from rankwise.train.batch import Task, chosen_rows, collate
from rankwise.train.importance import measure_importance

SEED = 0  # of the batches that importance is read on: the same for every seed of an arm


def write_training(outlook: Outlook, arm: Arm, store: Store, task: Task) -> int:
    """Write down what a configuration trains and costs; its number in the store.

    Ranks that are still to be measured are left out.
    """
    adapter, costs = outlook.adapters[arm.id], outlook.costs(arm, task.device)
    ranks: dict[str, ModuleRank] = {}
    words: dict[str, Any] = {}
    if adapter is not None and not adapter.provisional:
        ranks = {n: ModuleRank(m.rank, m.scaling) for n, m in adapter.modules.items()}
        words = peft_settings(adapter, task.name)
    return store.add_training(arm.training_id, **costs, ranks=ranks, adapter=words)


def with_stored_ranks(outlook: Outlook, store: Store) -> Outlook:
    """The outlook with the ranks that an earlier call has measured."""
    numbers = {training.key: training.id for training in store.trainings()}
    for arm in outlook.arms:
        adapter, number = outlook.adapters[arm.id], numbers.get(arm.training_id)
        if adapter is None or not adapter.provisional or number is None:
            continue
        known = {name: module.rank for name, module in store.ranks(number).items()}
        if known:
            found = resolve_adapter(outlook.structure, arm, outlook.spec.task, ranks=known)
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
        write_training(outlook, arm, store, task)
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
    rows = arm.training.per_device_train_batch_size
    for batch in range(arm.ranks.batches):
        (chosen,) = chosen_rows([examples], [SEED], rows, [batch])
        yield collate(chosen, task)


def _with_adapter(outlook: Outlook, arm: Arm, adapter: Adapter) -> Outlook:
    counts = footprint(outlook.structure, adapter)
    return replace(
        outlook,
        adapters={**outlook.adapters, arm.id: adapter},
        footprints={**outlook.footprints, arm.id: counts},
    )
