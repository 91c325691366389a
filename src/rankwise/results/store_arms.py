"""The configurations of a store as facts: settings, costs, and means over their runs."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from rankwise.results.records import (
    ArmFacts,
    Cost,
    RunFacts,
    is_failure,
    is_stopped,
    means,
    spreads,
)
from rankwise.spec.tasks import lower_is_better
from rankwise.store.reader import Reader
from rankwise.store.schema import ConfigRecord, CostRecord, TrainingRecord


def read_arms(
    store: Reader, configs: Sequence[ConfigRecord], runs: Sequence[RunFacts], metric: str
) -> tuple[ArmFacts, ...]:
    trainings = {training.id: training for training in store.trainings()}
    costs = store.costs()
    first: dict[int, str] = {}
    for config in configs:
        first.setdefault(config.training_id, config.name)
    return tuple(
        replace(
            _arm_facts(
                config,
                trainings[config.training_id],
                [run for run in runs if run.arm == config.name],
                costs.get(config.training_id),
                metric,
            ),
            ranks=_ranks(store, config),
            twin_of=None if first[config.training_id] == config.name else first[config.training_id],
        )
        for config in configs
    )


def _arm_facts(
    config: ConfigRecord,
    training: TrainingRecord,
    runs: Sequence[RunFacts],
    cost: CostRecord | None,
    metric: str,
) -> ArmFacts:
    done = [run for run in runs if run.finished]
    values = [run.value for run in done if run.value is not None]
    best = min if lower_is_better(metric) else max
    return ArmFacts(
        id=config.key,
        name=config.name,
        method=str(config.settings.get("method", "lora")),
        settings=config.settings,
        costs=_costs(training, runs, cost),
        seeds_done=tuple(run.seed for run in done),
        failed=tuple(run.id for run in runs if is_failure(run)),
        open=tuple(run.id for run in runs if run.state in ("planned", "running")),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=best(values) if values else None,
        validation=means([run.ranked for run in done]),
        test=means([run.test for run in done]),
        test_spread=spreads([run.test for run in done]),
        adapter=training.adapter,
        stopped=tuple(run.id for run in runs if is_stopped(run)),
    )


def _costs(
    training: TrainingRecord, runs: Sequence[RunFacts], cost: CostRecord | None
) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for name, value, unit in (
        ("trainable_params", training.trainable_params, "parameters"),
        ("total_params", training.total_params, "parameters"),
        ("storage", training.storage_bytes, "bytes"),
    ):
        if value is not None:
            costs[name] = Cost(value, unit, "counted from the configuration")
    if cost is not None and cost.memory_bytes is not None:
        costs["memory"] = Cost(cost.memory_bytes, "bytes", f"each configuration alone, {cost.path}")
    elif training.memory_bytes is not None:
        costs["memory"] = Cost(training.memory_bytes, "bytes", "predicted, not measured")
    if cost is not None and cost.step_seconds is not None:
        done = [run for run in runs if run.finished]
        costs |= _times(cost.step_seconds, cost.eval_seconds or 0.0, done)
    return costs


def _times(step: float, evaluation: float, done: Sequence[RunFacts]) -> dict[str, Cost]:
    """Seconds of a step, and of a whole run where one has finished."""
    costs = {"step_time": Cost(step, "seconds", "each configuration alone, timed in a short trial")}
    if done:
        steps = max(run.last_step or 0 for run in done)
        evaluations = max(len(run.curve) for run in done)
        path = "each configuration alone, seconds of a step and of an evaluation times their "
        costs["time"] = Cost(step * steps + evaluation * evaluations, "seconds", f"{path}number")
    return costs


def _ranks(store: Reader, config: ConfigRecord) -> dict[str, int]:
    """Rank by module, where they are not all `lora.r`; else as written in the settings."""
    ranks = {module: one.rank for module, one in store.ranks(config.training_id).items()}
    if set(ranks.values()) - {config.settings.get("lora.r")}:
        return ranks
    pattern = config.settings.get("lora.rank_pattern") or {}
    return {str(module): int(rank) for module, rank in pattern.items()}
