"""The output of `rankwise status`. No torch here."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rankwise.report.changes import Change
from rankwise.report.chapters.first_screen import (
    FirstScreen,
    first_screen,
    plain,
    screen_lines,
)
from rankwise.report.chapters.race import label
from rankwise.report.chapters.ranking import standing
from rankwise.report.remarks import cause_of
from rankwise.report.words import price_of
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records, ranked
from rankwise.results.records import ArmFacts, Records, best_run
from rankwise.store.lock import Holder, held_by
from rankwise.store.reader import Reader
from rankwise.text import at_most, number, reload_words, state_words


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
    chosen = judgement.choice.arm
    adapters = folder / "adapters" / chosen if chosen else None
    return {
        "study": records.title,
        "states": dict(states),
        "running": None if holder is None else asdict(holder),
        "metric": records.metric,
        "digits": judgement.digits,
        "first_screen": asdict(plain(first_screen(judgement))),
        "arms": [_arm_facts(judgement, arm) for arm in ranked(judgement)],
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


def _arm_facts(judgement: Judgement, arm: ArmFacts) -> dict[str, Any]:
    """One configuration in the ranking; at_most: how far behind the best it may be."""
    verdict, own = judgement.verdict, arm.twin_of or arm.name
    result = next(one for one in verdict.arms if one.arm == own)
    high = None if result.place is None else verdict.distance(own).high
    return {
        "name": arm.name,
        "verdict": label(judgement.records.race, own)
        if result.place is None
        else standing(verdict, result),
        judgement.records.metric: arm.mean,
        "at_most": high if verdict.winner != own and verdict.stands_out != own else None,
        "spread": arm.spread,
        "seeds": len(arm.seeds_done),
        "test": arm.test,
        "cost": price_of(arm, judgement.records.cost),
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
    states = ", ".join(f"{n} {state_words(state)}" for state, n in sorted(facts["states"].items()))
    console.print(f"[bold]{facts['study']}[/bold]: {states}", highlight=False)
    if facts["running"]:
        console.print(f"run by {Holder(**facts['running']).words()}", highlight=False)
    screen = facts["first_screen"]
    changes = tuple(Change(**one) for one in screen["changes"])
    for line in screen_lines(FirstScreen(**screen | {"changes": changes})):
        console.print(line, highlight=False, markup=False)
    console.print(_table(facts))
    for failure in facts["failures"]:
        console.print(f"{failure['run']}: {failure['state']}: {failure['cause']}", highlight=False)
    if facts["reloaded"]:
        console.print(facts["reloaded"], highlight=False)
    for what in ("report", "adapters"):
        if facts[what]:
            console.print(f"{what}: {facts[what]}", highlight=False, soft_wrap=True)


def _table(facts: dict[str, Any]) -> Table:
    """The ranking, the columns that decide."""
    metric, digits = facts["metric"], facts["digits"]
    table = Table(box=None, pad_edge=False)
    for title in ("", "configuration", "verdict", metric, "behind, at most", "seeds", "cost"):
        left = title in ("configuration", "verdict")
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for place, arm in enumerate(facts["arms"], start=1):
        value = "" if arm[metric] is None else number(arm[metric], digits)
        bound = "" if arm["at_most"] is None else at_most(arm["at_most"], digits)
        table.add_row(
            str(place), arm["name"], arm["verdict"], value, bound, str(arm["seeds"]), arm["cost"]
        )
    return table
