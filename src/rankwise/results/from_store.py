"""What a study's records say before any judgement: all of a store as `Records`.

The store has one run for each training and seed; here every configuration has its own view of the
runs of its training. `from_table.py` builds the same `Records` from a table.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rankwise.results.checkpoints import chooser_of
from rankwise.results.records import (
    Answer,
    ArmFacts,
    Records,
    RunFacts,
    by_example,
    by_run,
    generation_of,
    varying_settings,
    weights_of,
)
from rankwise.results.store_arms import read_arms
from rankwise.results.store_race import KINDS, read_race
from rankwise.results.store_runs import read_runs
from rankwise.spec.tasks import lower_is_better
from rankwise.store.reader import Reader
from rankwise.store.schema import AnswersRecord, ConfigRecord, Fact, Reload, StudyRecord

__all__ = ["Records", "RunFacts", "read_records"]


def read_records(store: Reader, every: bool = False) -> Records:
    """Everything of a study, read once: of the spec with which it was last run.

    Args:
        store: Its records.
        every: Of all configurations and seeds that the folder has results of.

    Raises:
        StoreError: no study was begun in the folder.
    """
    study = store.study()
    objective = study.spec.get("objective", {})
    metric = str(objective.get("metric", "eval_loss"))
    configs = [config for config in store.configs() if every or config.current]
    asked = set(study.spec.get("seeds", ())) or {run.seed for run in store.runs()}
    examples, test_examples = store.examples("validation"), store.examples("test")
    found = read_runs(store, configs, None if every else asked, chooser_of(metric, examples))
    runs = found.facts
    arms = read_arms(store, configs, runs, metric)
    seeds = tuple(sorted({run.seed for run in runs})) or tuple(study.spec.get("seeds", (0,)))
    scores = {} if examples is None else by_example(arms, seeds, runs, found.validation)
    deciding = scores.get(metric)
    known, facts = store.reloads(), store.facts()
    reloads = {run.id: known[run.run] for run in runs if run.run in known}
    return Records(
        title=str(study.spec.get("study", store.folder.name)),
        origin="study",
        metric=metric,
        lower_is_better=lower_is_better(metric),
        cost=str(objective.get("cost", "trainable_params")),
        tolerance=objective.get("tolerance"),
        study=_study(study, store.base_metrics()),
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=runs,
        answers=_answers(store, runs, configs),
        notes=(
            *(fact for fact in facts if fact.kind not in KINDS),
            *_not_in_spec(store, configs, asked),
            *_merged(store, runs, arms),
            *_reloads(reloads),
        ),
        x_AS=by_run(arms, seeds, runs),
        x_ASE=deciding,
        groups_E=None if examples is None or deciding is None else examples.groups,
        weights_E=weights_of(examples.weights if examples else None, metric, deciding),
        test_size=None,
        extra_ASE={name: x for name, x in scores.items() if name != metric},
        test_ASE={} if test_examples is None else by_example(arms, seeds, runs, found.test),
        test_groups_E=None if test_examples is None else test_examples.groups,
        test_weights_E=None if test_examples is None else test_examples.weights,
        reloads=reloads,
        steps=found.steps,
        race=read_race(study.spec, facts, store.configs(), store.trainings(), arms, runs),
    )


def records_with(store: Reader, arms: Iterable[str]) -> Records:
    """As `read_records`; of the whole folder where the spec of today lacks one of these arms."""
    records = read_records(store)
    known = {arm.name for arm in records.arms}
    stored = {config.name for config in store.configs()}
    return read_records(store, every=True) if (set(arms) - known) & stored else records


def _study(study: StudyRecord, base_metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "spec_yaml": study.spec_yaml,
        "spec": study.spec,
        "versions": study.versions,
        "device": {"device": study.device, "threads": study.threads},
        "model": asdict(study.base),
        "base_metrics": dict(base_metrics),
        "data": {"fingerprint": study.data_fingerprint, "label_names": study.label_names},
    }


def _merged(store: Reader, runs: Sequence[RunFacts], arms: Sequence[ArmFacts]) -> list[Fact]:
    """What merging into the unquantised base does to a loss, as facts for the report."""
    merged = store.merged()
    held = {arm.name: arm.settings.get("model.quantization") for arm in arms if not arm.twin_of}
    return [
        Fact(
            "merged",
            {
                "run": run.id,
                "quantization": held[run.arm],
                "before": run.validation.get("eval_loss"),
                "after": merged[run.run],
            },
        )
        for run in runs
        if run.run in merged and run.arm in held
    ]


def _not_in_spec(
    store: Reader, configs: Sequence[ConfigRecord], seeds: Container[int]
) -> list[Fact]:
    """What the folder has results of and the spec of today does not have, for the report."""
    ids = {config.id for config in configs}
    gone = [config.name for config in store.configs() if config.id not in ids]
    ours = {config.training_id for config in configs}
    others = {r.seed for r in store.runs() if r.training_id in ours and r.seed not in seeds}
    if not gone and not others:
        return []
    return [Fact("not_in_spec", {"configs": gone, "seeds": sorted(others)})]


def _reloads(reloads: Mapping[str, Reload]) -> list[Fact]:
    """What adapters gave that were loaded from disk, as facts for the report."""
    return [Fact("reload", {"run": run, **asdict(found)}) for run, found in reloads.items()]


def _answers(
    store: Reader, runs: Sequence[RunFacts], configs: Sequence[ConfigRecord]
) -> tuple[Answer, ...]:
    kind = {config.id: generation_of(config.settings) for config in store.configs()}
    names = {config.id: config.name for config in configs}
    seeds = {run.run: run.seed for run in runs}

    def is_ours(record: AnswersRecord) -> bool:
        if record.run_id is None:  # the base's are kept with the first that asked so
            return any(kind[c.id] == kind[record.config_id] for c in configs)
        return record.config_id in names and record.run_id in seeds

    return tuple(
        Answer(
            arm="base" if record.run_id is None else names[record.config_id],
            seed=None if record.run_id is None else seeds[record.run_id],
            prompt=one.prompt,
            reference=one.reference,
            answer=one.text,
            measures={name: float(value) for name, value in (one.measures or {}).items()},
            asked_as=()
            if record.run_id is not None
            else tuple(c.name for c in configs if kind[c.id] == kind[record.config_id]),
        )
        for record in store.answers()
        if is_ours(record)
        for one in record.answers
    )
