"""The output of `rankwise plan`: configurations, runs, cohorts, parameters, memory and time."""

import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rankwise.adapters.linear import linear_modules
from rankwise.base.load import choose_dtype
from rankwise.spec.arms import Arm
from rankwise.study.plan import StudyPlan, base_name, pick_device, shared_trainings
from rankwise.text import count

# Time of a training step over the time of its matrix products alone, as measured on two CPU cores
# with cohorts of 8 on MiniLM (bf16); a rough guide elsewhere.
OVERHEAD = 4.0


def plan_facts(outlook: StudyPlan) -> dict[str, Any]:
    """The plan, JSON-ready. Memory and time are estimates."""
    spec = outlook.spec
    device = pick_device(spec.hardware.device)
    cohorts = outlook.cohorts(outlook.runs, device)
    rate = matmul_rate(device, choose_dtype(spec.model.dtype, device))
    trained = shared_trainings(outlook.runs)
    seconds = {arm.id: run_flops(outlook, arm) * OVERHEAD / rate for arm in outlook.arms}
    return {
        "study": spec.study,
        "model": base_name(spec.model),
        "task": spec.task,
        "device": str(device),
        "dtype": str(choose_dtype(spec.model.dtype, device)).removeprefix("torch."),
        "seeds": list(spec.seeds),
        "data": {
            "train": len(outlook.data.train),
            "validation": len(outlook.data.validation),
            "test": len(outlook.data.test),
            "notes": list(outlook.notes),
        },
        "base_params": next(iter(outlook.footprints.values())).base,
        "arms": [_arm_facts(outlook, arm, device, seconds[arm.id]) for arm in outlook.arms],
        "runs": len(outlook.runs),
        "cohorts": [[run.id for run in cohort] for cohort in cohorts],
        "trainings": len(trained),
        "seconds": sum(seconds[run.arm.id] for run in trained),
    }


def _arm_facts(
    outlook: StudyPlan, arm: Arm, device: torch.device, seconds: float
) -> dict[str, Any]:
    counts, adapter = outlook.footprints[arm.id], outlook.adapters[arm.id]
    modules = [] if adapter is None else list(adapter.modules)
    return {
        "name": arm.name,
        "id": arm.id,
        "method": arm.method,
        "steps": outlook.steps(arm),
        "trainable_params": counts.trainable,
        "total_params": counts.total,
        "trainable_percent": 100 * counts.share,
        "memory_bytes": outlook.memory(arm, device).alone,
        "seconds": seconds,
        "modules": modules,
        "ranks": {} if adapter is None else adapter.ranks,
        "trained_in_full": [] if adapter is None else list(adapter.saved),
    }


def run_flops(outlook: StudyPlan, arm: Arm) -> float:
    """Floating point operations of a run's matrix products.

    Per weight and token: 2 forward, 2 backward for the gradient of the input, and 2 for the
    gradient of the weight where it is trained. Evaluations are forward only.
    """
    weights = sum(t.in_features * t.out_features for t in linear_modules(outlook.structure))
    lengths = [len(example.input_ids) for example in outlook.train[arm.training_id]]
    training = arm.training
    steps = outlook.steps(arm)
    rows = steps * training.per_device_train_batch_size * training.gradient_accumulation_steps
    evaluated = sum(len(example.input_ids) for example in outlook.data.validation)
    evaluations = -(-steps // (training.eval_steps or max(1, steps // 10)))
    passes = 6 if arm.method == "full" else 4
    return weights * (passes * rows * sum(lengths) / len(lengths) + 2 * evaluations * evaluated)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of this device's matrix product, measured now."""
    size = 1024
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, a)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return float(2 * size**3 / best)


def print_plan(facts: dict[str, Any]) -> None:
    """Prints the plan."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    data = facts["data"]
    console.print(
        f"[bold]{facts['study']}[/bold]: {facts['model']}, {facts['task']}, "
        f"{facts['base_params']:,} parameters, {facts['dtype']} on {facts['device']}"
    )
    console.print(
        f"{data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test "
        "examples"
    )
    for note in data["notes"]:
        console.print(f"  - {note}", style="dim", highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("configuration", "steps", "trainable", "of", "share", "memory alone", "modules"):
        first = title == "configuration"
        left = first or title == "modules"
        table.add_column(title, justify="left" if left else "right", no_wrap=first)
    for arm in facts["arms"]:
        table.add_row(
            arm["name"],
            f"{arm['steps']:,}",
            f"{arm['trainable_params']:,}",
            f"{arm['total_params']:,}",
            f"{arm['trainable_percent']:.4f} %",
            f"about {arm['memory_bytes'] / 1e6:,.0f} MB",
            _modules(arm),
        )
    console.print(table)
    sizes = ", ".join(str(len(cohort)) for cohort in facts["cohorts"])
    shared = ""
    if facts["trainings"] < facts["runs"]:
        shared = f" of {count(facts['trainings'], 'training')} (some differ only in generation)"
    console.print(
        f"{count(len(facts['arms']), 'configuration')} x {count(len(facts['seeds']), 'seed')} = "
        f"{count(facts['runs'], 'run')}{shared} in "
        f"{count(len(facts['cohorts']), 'cohort')} of "
        f"{sizes}; about {minutes(facts['seconds'])} "
        "(an estimate from the speed of one matrix product)"
    )


def _modules(arm: dict[str, Any]) -> str:
    if arm["method"] == "full":
        return "all weights"
    leaves = dict.fromkeys(name.rpartition(".")[2] for name in arm["modules"])
    ranks = sorted(set(arm["ranks"].values()))
    span = f"r {ranks[0]}" if len(ranks) == 1 else f"r {ranks[0]} to {ranks[-1]}"
    return f"{', '.join(leaves)} ({len(arm['modules'])} modules, {span})"


def minutes(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
