"""The output of `rankwise status`. No torch here."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rankwise.report.remarks import cause_of
from rankwise.report.words import BASES, price_of
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records, ranked
from rankwise.results.records import Records, best_run
from rankwise.store.lock import Holder, held_by
from rankwise.store.reader import Reader
from rankwise.text import reload_words


def status_facts(folder: Path) -> dict[str, Any]:
    """The state of a study, JSON-ready.

    Runs in training are called interrupted where no process writes the study.

    Raises:
        StoreError: there is no study in the folder.
    """
    holder = held_by(folder)
    with Reader(folder) as store:
        records = read_records(store)
    if holder is None:
        dead = {"running": "interrupted"}
        runs = tuple(replace(run, state=dead.get(run.state, run.state)) for run in records.runs)
        records = replace(records, runs=runs)
    states = Counter(run.state for run in records.runs)
    judgement = judge_records(records)
    arms = [
        {
            "name": arm.name,
            records.metric: arm.mean,
            "spread": arm.spread,
            "seeds": len(arm.seeds_done),
            "test": arm.test,
            "cost": price_of(arm, records.cost),
        }
        for arm in ranked(judgement)
    ]
    chosen = judgement.choice.arm
    adapters = folder / "adapters" / chosen if chosen else None
    return {
        "study": records.title,
        "states": dict(states),
        "running": None if holder is None else asdict(holder),
        "metric": records.metric,
        "arms": arms,
        "failures": [
            {"run": run.id, "state": run.state, "cause": cause_of(run)}
            for run in records.runs
            if run.state in ("diverged", "out_of_memory", "crashed", "interrupted")
        ],
        "recommended": chosen,
        "why": judgement.choice.basis,
        "declared": judgement.verdict.declared,
        "withdrawn": judgement.choice.withdrawn,
        "reloaded": _reloaded(records, chosen),
        "report": str(folder / "report.html") if (folder / "report.html").exists() else None,
        "adapters": str(adapters) if adapters and adapters.exists() else None,
    }


def _reloaded(records: Records, chosen: str | None) -> str | None:
    """What the recommended adapter gave when it was loaded from disk."""
    run = None if chosen is None else best_run(records, chosen)
    found = None if run is None else records.reloads.get(run.id)
    return None if found is None else reload_words(**asdict(found))


def print_status(facts: dict[str, Any]) -> None:
    """Prints the state of a study."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    states = ", ".join(f"{count} {state}" for state, count in sorted(facts["states"].items()))
    console.print(f"[bold]{facts['study']}[/bold]: {states}", highlight=False)
    if facts["running"]:
        console.print(f"run by {Holder(**facts['running']).words()}", highlight=False)
    metric = facts["metric"]
    table = Table(box=None, pad_edge=False)
    for title in ("", "configuration", metric, "spread over seeds", "seeds", "cost"):
        table.add_column(
            title, justify="left" if title == "configuration" else "right", no_wrap=True
        )
    for place, arm in enumerate(facts["arms"], start=1):
        table.add_row(
            str(place),
            arm["name"],
            "" if arm[metric] is None else f"{arm[metric]:.4f}",
            "" if arm["spread"] is None else f"{arm['spread']:.4f}",
            str(arm["seeds"]),
            arm["cost"],
        )
    console.print(table)
    for failure in facts["failures"]:
        console.print(f"{failure['run']}: {failure['state']}: {failure['cause']}", highlight=False)
    if facts["recommended"]:
        what = "not recommended" if facts["why"] == "look" else "recommended"
        what = what if facts["declared"] else "so far"
        console.print(f"{what}: [bold]{facts['recommended']}[/bold] ({BASES[facts['why']]})")
    if facts["withdrawn"]:
        said = f"[bold]NO RECOMMENDATION[/bold]: {facts['withdrawn']} {BASES[facts['why']]}"
        console.print(said)
    if facts["reloaded"]:
        console.print(facts["reloaded"], highlight=False)
    for what in ("report", "adapters"):
        if facts[what]:
            console.print(f"{what}: {facts[what]}", highlight=False, soft_wrap=True)
