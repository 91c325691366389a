"""Which differences a study could find, said before it runs.

The noise is that of an earlier study of the same task and metric, one on the same data first, among
the folders beside that of the study; else it is as in runs that were recorded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rankwise.analysis.pair_noise import (
    PairNoise,
    Spread,
    detectable_difference,
    pair_noise,
)
from rankwise.analysis.verdict import CLAIMED
from rankwise.errors import StoreError
from rankwise.results.checkpoints import LOSS
from rankwise.results.from_store import read_records
from rankwise.results.judge import words
from rankwise.results.records import Records, distinct
from rankwise.spec.models import race_of
from rankwise.store.lock import held_by
from rankwise.store.reader import Reader
from rankwise.store.schema import FILE, FINISHED
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.text import count, number

MOST_FOLDERS = 40


@dataclass(frozen=True)
class Detectable:
    """The difference that a study could find.

    value   in units of `metric`; None where nothing can be found or the noise is not known
    source  whose noise it is; empty where none is known
    groups  of the validation examples
    """

    metric: str
    value: float | None
    power: float
    seeds: int
    raced: bool
    examples: int
    groups: int
    source: str


class Earlier(NamedTuple):
    """An earlier study of the same task and metric; better ones are larger."""

    same_data: bool
    finished: int
    folder: Path


def look_for_differences(plan: StudyPlan, folder: Path | None) -> Detectable | None:
    """What a study could find; None where it compares nothing.

    `folder` of its results; studies are looked for there and in the folders beside it.
    """
    arms = len({run.arm.training_id for run in shared_trainings(plan.runs)})
    if arms < 2 or not plan.data.validation:
        return None
    groups = [example.group for example in plan.data.validation]
    found = None if folder is None else _earlier(plan, folder)
    metric: str = plan.spec.objective.metric
    if found is None:
        metric, found = LOSS, recorded_noise(plan.spec.task)
    value, seeds = None, len(plan.spec.seeds)
    if found is not None:
        value = detectable_difference(found[0], arms, seeds, groups)
    return Detectable(
        metric=metric,
        value=value,
        power=CLAIMED,
        seeds=seeds,
        raced=race_of(plan.spec) is not None,
        examples=len(groups),
        groups=len(set(groups)),
        source="" if found is None else found[1],
    )


def detectable_words(found: Detectable) -> str:
    """What a study could find, in a sentence; its digits are about all that is known."""
    most = "up to " if found.raced and found.seeds > 1 else ""
    of = f"With {most}{count(found.seeds, 'seed')} and {count(found.examples, 'example')}"
    if found.groups < found.examples:
        of += f" in {count(found.groups, 'group')}"
    if found.value is None:
        if found.source:
            return f"{of} no difference can be found."
        return f"{of}, which differences can be found is not known before a study of such a task."
    size = number(found.value, 2 if found.value >= 0.1 else 3 if found.value >= 0.01 else 4)
    text = f"{of} differences of about {size} in {words(found.metric)} can be found "
    text += f"({found.power:.0%}".replace("%", " %)")
    if found.seeds == 1:
        text += " between its runs, but not whether they hold for other seeds"
    return f"{text}; noise as in {found.source}."


def _earlier(plan: StudyPlan, folder: Path) -> tuple[PairNoise, str] | None:
    """The noise of a study of this task and metric: on the same data, else of most runs."""
    spec = plan.spec.model_dump(mode="json", warnings=False)
    found = [_look(place, spec) for place in _studies(folder)]
    for one in sorted((one for one in found if one is not None), reverse=True):
        with Reader(one.folder, untouched=True) as store:
            records = distinct(read_records(store))
        noise = _noise_of(records)
        if noise is not None:
            return noise, f"the study {records.title}{'' if one.same_data else ', on other data'}"
    return None


def _studies(folder: Path) -> Iterator[Path]:
    beside = sorted(path for path in folder.parent.glob("*") if path != folder)
    for place in [folder, *beside[:MOST_FOLDERS]]:
        if (place / FILE).is_file():
            yield place


def _look(folder: Path, spec: dict[str, Any]) -> Earlier | None:
    """Whether a study may say something of the noise of another, without its scores."""
    try:
        if held_by(folder) is not None:
            return None
        with Reader(folder, untouched=True) as store:
            if not store.begun():
                return None
            other = store.study().spec
            metric = (other.get("objective") or {}).get("metric")
            if other.get("task") != spec["task"] or metric != spec["objective"]["metric"]:
                return None
            finished = sum(run.state in FINISHED for run in store.runs())
    except StoreError:  # a damaged or older one says nothing of this study
        return None
    same = (other.get("data") or {}).get("source") == spec["data"]["source"]
    return Earlier(same, finished, folder)


def _noise_of(records: Records) -> PairNoise | None:
    if records.x_ASE is None:
        return None
    groups = None if records.groups_E is None else records.groups_E.tolist()
    return pair_noise(records.x_ASE, groups, records.weights_E)


def recorded_noise(task: str) -> tuple[PairNoise, str] | None:
    """The noise of validation loss in recorded runs of a task, and which these are."""
    rows = yaml.safe_load((Path(__file__).parent / "recorded_noise.yaml").read_text())
    found = next((row for row in rows if row["task"] == task), None)
    if found is None:
        return None
    spreads = {name: Spread(**found[name]) for name in ("example", "residual")}
    noise = PairNoise(found["seed"], **spreads, arms=found["arms"], seeds=found["seeds"])
    return noise, found["source"]
