"""The output of `rankwise plan`."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rankwise.base.load import choose_dtype
from rankwise.base.origin import base_name
from rankwise.spec.arms import Arm
from rankwise.study.budget import run_flops
from rankwise.study.expected import ExpectedRace, expect_race, rungs_words, would_race
from rankwise.study.noise import Detectable, detectable_words, look_for_differences
from rankwise.study.plan import StudyPlan, pick_device, shared_trainings
from rankwise.study.proposals import Search
from rankwise.study.space import needed_bytes
from rankwise.study.warm_start import warm_words
from rankwise.text import amount, count, size

# Time of a training step over the time of its matrix products alone, as measured on two CPU cores
# with cohorts of 8 on MiniLM (bf16); a rough guide elsewhere.
OVERHEAD = 4.0
LONG = 60.0  # seconds of evaluation below which nothing needs to be said of its share
FEW_ROWS = 200  # validation rows below which differences are hardly found


def plan_facts(plan: StudyPlan, folder: Path | None = None) -> dict[str, Any]:
    """The plan, JSON-ready. Memory and time are estimates.

    Args:
        plan: The study.
        folder: Of its results; studies there and beside it say how much noise to expect.
    """
    spec = plan.spec
    device = pick_device(spec.hardware.device)
    cohorts = plan.cohorts(plan.runs, device)
    rate = matmul_rate(device, choose_dtype(spec.model.dtype, device))
    trained = shared_trainings(plan.runs)
    work = {arm.id: run_flops(plan, arm) for arm in plan.arms}
    seconds = {arm: sum(flops) * OVERHEAD / rate for arm, flops in work.items()}
    total = sum(seconds[run.arm.id] for run in trained)
    differences = look_for_differences(plan, folder)
    return {
        "study": spec.study,
        "model": base_name(spec.model),
        "task": spec.task,
        "device": str(device),
        "dtype": str(choose_dtype(spec.model.dtype, device)).removeprefix("torch."),
        "seeds": list(spec.seeds),
        "data": {
            "train": len(plan.data.train),
            "validation": len(plan.data.validation),
            "test": len(plan.data.test),
            "notes": list(plan.notes),
        },
        "base_params": next(iter(plan.footprints.values())).base,
        "arms": [_arm_facts(plan, arm, device, seconds[arm.id]) for arm in plan.arms],
        "runs": len(plan.runs),
        "cohorts": [[run.id for run in cohort] for cohort in cohorts],
        "trainings": len(trained),
        "seconds": total,
        "evaluation": _evaluation(plan, [work[run.arm.id] for run in trained], OVERHEAD / rate),
        "disk_bytes": needed_bytes(plan),
        "race": _race_facts(expect_race(plan), total / len(trained)),
        "would_race": _race_facts(would_race(plan), total / len(trained)),
        "differences": None if differences is None else asdict(differences),
        "search": None if plan.search is None else search_facts(plan.search),
    }


def _race_facts(race: ExpectedRace | None, seconds: float) -> dict[str, Any] | None:
    """A race to come, with its time; `seconds` of a full run."""
    if race is None:
        return None
    times = [runs * seconds for runs in race.total]
    return {**asdict(race), "seconds": times, "most_seconds": race.most * seconds}


def _arm_facts(plan: StudyPlan, arm: Arm, device: torch.device, seconds: float) -> dict[str, Any]:
    counts, adapter = plan.footprints[arm.id], plan.adapters[arm.id]
    modules = [] if adapter is None else list(adapter.modules)
    return {
        "name": arm.name,
        "id": arm.id,
        "method": arm.method,
        "steps": plan.steps(arm),
        "trainable_params": counts.trainable,
        "total_params": counts.total,
        "trainable_percent": 100 * counts.share,
        "memory_bytes": plan.memory(arm, device).alone,
        "seconds": seconds,
        "modules": modules,
        "ranks": {} if adapter is None else adapter.ranks,
        "trained_in_full": [] if adapter is None else list(adapter.saved),
    }


def _evaluation(
    plan: StudyPlan, work: Sequence[tuple[float, float]], seconds: float
) -> dict[str, Any]:
    """What of the time is evaluation, and the validation rows with which half of it would be.

    Args:
        plan: The study.
        work: Operations in training and in evaluation, of each run.
        seconds: Time of one operation.
    """
    trained, evaluated = (sum(part) for part in zip(*work, strict=True))
    share = evaluated / (trained + evaluated)
    even = float(f"{len(plan.data.validation) * trained / evaluated:.1g}")
    return {
        "seconds": evaluated * seconds,
        "share": share,
        "even_rows": int(even) if share > 0.5 and even >= FEW_ROWS else None,
    }


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


def search_facts(search: Search) -> dict[str, Any]:
    """The search of a study, JSON-ready: what it proposed, and where that comes from."""
    proposals = [
        {"name": one.name, "settings": dict(one.point), "source": one.source, "why": one.why}
        for one in search.proposals
    ]
    return {
        "points": search.space.size,
        "proposals": proposals,
        "warm_start": [warm_words(one) for one in search.warm],
    }


def search_lines(facts: dict[str, Any]) -> Iterator[str]:
    """The same in sentences."""
    size = "" if facts["points"] is None else f" out of {facts['points']:,} points"
    yield f"proposed so far: {count(len(facts['proposals']), 'configuration')}{size}"
    for source in dict.fromkeys(one["source"] for one in facts["proposals"]):
        some = [one for one in facts["proposals"] if one["source"] == source]
        known = [one for one in some if one["why"]]
        yield from (f"  - {source}: {one['name']}: {one['why']}" for one in known)
        others = [one["name"] for one in some if not one["why"]]
        if others:
            yield f"  - {source}: {', '.join(others)}"
    yield from (f"  - known from {said}" for said in facts["warm_start"])


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
    for line in search_lines(facts["search"]) if facts["search"] else ():
        console.print(line, highlight=False, markup=False)
    sizes = ", ".join(str(len(cohort)) for cohort in facts["cohorts"])
    shared = ""
    if facts["trainings"] < facts["runs"]:
        shared = f" of {count(facts['trainings'], 'training')} (some differ only in generation)"
    grid = "" if facts["race"] is None else " as a full grid"
    console.print(
        f"{count(len(facts['arms']), 'configuration')} x {count(len(facts['seeds']), 'seed')} = "
        f"{count(facts['runs'], 'run')}{shared}{grid} in "
        f"{count(len(facts['cohorts']), 'cohort')} of "
        f"{sizes}; about {minutes(facts['seconds'])} "
        f"(an estimate from the speed of one matrix product), {size(facts['disk_bytes'])} on disk"
    )
    for line in race_words(facts):
        console.print(line, highlight=False)
    if facts["differences"] is not None:
        console.print(detectable_words(Detectable(**facts["differences"])), highlight=False)
    if facts["evaluation"]["share"] > 0.5 and facts["evaluation"]["seconds"] > LONG:
        console.print(evaluation_words(facts), style="yellow", highlight=False)


def race_words(facts: dict[str, Any]) -> list[str]:
    """What the race will take, or what one would save."""
    race, would = facts["race"], facts["would_race"]
    if would is not None:
        low, middle, high = map(amount, would["total"])
        return [
            f"A race would take about {middle} of these {would['grid']} runs ({low} to {high} in 8 "
            f"of 10 that were simulated from a few recorded curves): budget: {{runs: "
            f"{would['grid']}}}."
        ]
    if race is None:
        return []
    low, middle, high = map(amount, race["total"])
    least, usual, longest = map(minutes, race["seconds"])
    budget = "no budget but time" if race["budget"] is None else "a budget of "
    budget += "" if race["budget"] is None else f"{amount(race['budget'])} full runs"
    return [
        f"Race: configurations are {rungs_words(tuple(race['rungs']))}, {race['at_once']} at once; "
        f"{budget}.",
        f"Expected: {middle} full runs ({low} to {high} in 8 of 10 races that were simulated "
        f"from a few recorded curves), about {usual} ({least} to {longest}); at most "
        f"{amount(race['most'])}, about {minutes(race['most_seconds'])}. "
        f"A full grid takes {race['grid']}.",
    ]


def evaluation_words(facts: dict[str, Any]) -> str:
    """What is said of evaluation that takes more of the time than training."""
    found = facts["evaluation"]
    rows = found["even_rows"]
    half = f"; with data.split.validation: {rows} it would take about half" if rows else ""
    return (
        f"Most of this time, about {minutes(found['seconds'])} ({found['share']:.0%}), is "
        f"evaluation, on {facts['data']['validation']:,} validation examples each time and once on "
        f"{facts['data']['test']:,} test examples. Hold fewer rows out (data.split{half}), or "
        f"evaluate less often (training.eval_steps)."
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
