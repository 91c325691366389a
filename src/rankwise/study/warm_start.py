"""The beginning of a search: its space, and what earlier studies gave inside it."""

from pathlib import Path

from rankwise.errors import SpecError
from rankwise.results.checkpoints import raced_metric
from rankwise.results.from_store import Records, read_records
from rankwise.results.records import ArmFacts
from rankwise.search.sampler import Trial, require_optuna
from rankwise.search.space import Space, point_in, space_of
from rankwise.spec.models import StudySpec
from rankwise.spec.tasks import lower_is_better
from rankwise.store.lock import held_by
from rankwise.store.reader import Reader
from rankwise.study.inputs import differing_section, settings_words, spec_of
from rankwise.study.proposals import Search, Warm
from rankwise.text import shorten


def begin_search(spec: StudySpec, base_dir: Path) -> Search:
    """The search of a study, without proposals.

    Raises:
        SpecError: a mistake in `search`, or Optuna is not installed.
        StoreError: a folder of `search.warm_start` holds no study, or a damaged one.
    """
    assert spec.search is not None
    require_optuna()
    space = space_of(spec)
    warm = [_read(spec, space, folder, base_dir / folder) for folder in spec.search.warm_start]
    return Search(space, tuple(warm))


def _read(spec: StudySpec, space: Space, name: str, folder: Path) -> Warm:
    place = f"search.warm_start: {shorten(name)}"
    with Reader(folder, untouched=held_by(folder) is None) as store:
        records = read_records(store)
        before = spec_of(store.study().spec)
    if before is None:
        raise SpecError(f"{place}: its spec is that of an older version; remove it from the list")
    differing = differing_section(before, spec, "model")
    if before.task != spec.task:
        differing["task"] = (before.task, spec.task)
    if before.objective.metric != spec.objective.metric:
        differing["objective.metric"] = (before.objective.metric, spec.objective.metric)
    if differing:
        raise SpecError(
            f"{place}: is no study on the same base and task ({settings_words(differing)}); remove "
            f"it from the list"
        )
    trials, outside = [], 0
    for arm in records.arms:
        value, point = _value(records, arm), point_in(space, spec, arm.settings)
        if value is not None and point is not None:
            trials.append(Trial(point, value))
        outside += value is not None and point is None
    same_data = not differing_section(before, spec, "data")
    return Warm(name, tuple(trials), same_data, outside)


def _value(records: Records, arm: ArmFacts) -> float | None:
    """The mean over finished runs of what the race compares, turned so that less is better."""
    name = raced_metric(records.metric)
    value = arm.validation.get(name)
    return value if value is None or lower_is_better(name) else -value


def warm_words(warm: Warm) -> str:
    """What was taken from an earlier study, as a sentence."""
    said = f"{warm.folder}: {len(warm.trials)} finished configurations inside the space"
    if warm.outside:
        said += f", {warm.outside} outside it or with other settings"
    if not warm.same_data:
        said += "; of other data, so that its best is taken for as good as the best here"
    return said
