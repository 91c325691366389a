"""What was run, on what, with which versions, and how to run it again."""

from collections.abc import Sequence

from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Details,
    Paragraph,
    Section,
    clean,
    code,
    table,
)
from rankwise.report.remarks import remarks_of
from rankwise.report.steps import read_where
from rankwise.report.words import run_state
from rankwise.results.judge import Judgement, words
from rankwise.results.records import ArmFacts, Records, RunFacts, is_stopped, own_runs
from rankwise.spec.tasks import decimals_of
from rankwise.text import MISSING, count, names, number, setting, whole

MOST_RUNS = 300
MOST_SEEDS = 20


def repeat(judgement: Judgement) -> Section:
    """What was run, on what, with which versions, and how to run it again."""
    records = judgement.records
    study = records.study
    blocks: list[Block] = [
        table(("what", "value"), _study_rows(records)),
        table(
            ("configuration", *(code(name) for name in records.varying)),
            [
                (code(arm.name), *(_value(arm, name) for name in records.varying))
                for arm in records.arms
            ],
            caption="The settings in which the configurations differ."
            + ("" if records.varying else " They differ in none."),
        ),
        Details(f"All {count(len(own_runs(records)), 'run')}", (_all_runs(judgement),)),
    ]
    if records.notes:
        notes = tuple(f"{clean(kind)}: {clean(text)}" for kind, text in remarks_of(records))
        blocks.insert(1, Bullets(notes))
    if study.get("spec_yaml"):
        blocks.append(Details("The spec of this study", (CodeBlock(study["spec_yaml"], "yaml"),)))
        blocks.append(
            Paragraph(
                "To repeat it, save the spec as study.yaml and run "
                f"{code('rankwise run study.yaml --out repeat')}. The same versions on the same "
                "kind of machine give the same runs. All numbers above come from "
                f"{code('study.db')}; {code('rankwise report')} writes this report again."
            )
        )
    return Section("What was run, and how to repeat it", "study", tuple(blocks))


def _value(arm: ArmFacts, name: str) -> str:
    return code(setting(arm.settings[name])) if name in arm.settings else MISSING


def _study_rows(records: Records) -> list[tuple[str, str]]:
    study = records.study
    model, data, device = (study.get(part, {}) for part in ("model", "data", "device"))
    spec = study.get("spec", {})
    runs = own_runs(records)
    counts = f"{len(records.arms)}, {len(runs)}, {sum(run.finished for run in runs)}"
    seeds = () if records.blocks else records.seeds
    rows = [
        ("read from", code(study.get("source", ""))),
        ("sha256 of the table", code(str(study.get("sha256", ""))[:16])),
        ("base model", code(model.get("name", ""))),
        ("weights (sha256)", code(str(model.get("sha256", ""))[:16])),
        ("parameters of the base", whole(model.get("total_params"))),
        ("precision", code(model.get("dtype", ""))),
        ("attention", code(model.get("attention", ""))),
        ("task", code(spec.get("task", ""))),
        ("data", code(spec.get("data", {}).get("source", ""))),
        ("data fingerprint", code(str(data.get("fingerprint", ""))[:16])),
        ("held out", _held_out(records)),
        (
            "labels",
            names([code(x) for x in data["label_names"]]) if data.get("label_names") else "",
        ),
        ("seeds", _seeds(seeds)),
        ("configurations, runs, finished", counts),
        ("objective", f"{words(records.metric)}, cost: {words(records.cost)}{_tolerance(records)}"),
        ("device", _pairs(device)),
        ("versions", _pairs(study.get("versions", {}))),
    ]
    return [(name, value) for name, value in rows if value not in ("", MISSING)]


def _seeds(seeds: Sequence[int]) -> str:
    """At most MOST_SEEDS of them; rows without a seed are numbered, and there may be many."""
    shown = ", ".join(map(str, seeds[:MOST_SEEDS]))
    return shown + (f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else "")


def _tolerance(records: Records) -> str:
    if records.tolerance is None:
        return ""
    given = records.tolerance
    return f", tolerance: {given if isinstance(given, str) else format(given, 'g')}"


def _held_out(records: Records) -> str:
    """How many held-out examples, in how many groups."""
    parts = []
    for name, groups in (("validation", records.groups_E), ("test", records.test_groups_E)):
        if groups is not None:
            several = len(set(groups.tolist()))
            grouped = "" if several == len(groups) else f" in {count(several, 'group')}"
            parts.append(f"{name} {len(groups):,}{grouped}")
    return ", ".join(parts)


def _pairs(values: object) -> str:
    if not isinstance(values, dict):
        return clean(values)
    return ", ".join(
        f"{clean(name)} {f'{value:,}' if isinstance(value, int) else clean(value)}"
        for name, value in values.items()
        if not isinstance(value, dict | list)
    )


def _all_runs(judgement: Judgement) -> Block:
    records, digits = judgement.records, judgement.digits
    runs = own_runs(records)
    others = [n for n in _metric_names(runs) if n != records.metric][:4]
    head = (
        "run",
        "state",
        "best step",
        "last step",
        words(records.metric),
        "test",
        *(words(name) for name in others),
    )
    rows = [
        (
            code(run.id),
            run_state(run),
            whole(run.best_step),
            whole(run.last_step),
            number(None if is_stopped(run) else run.value, digits),
            number(run.test.get(records.metric), digits),
            *(
                number(None if is_stopped(run) else run.ranked.get(name), decimals_of(name))
                for name in others
            ),
        )
        for run in runs[:MOST_RUNS]
    ]
    ours = "spec" in records.study
    caption = "Best step: on all validation examples; the adapter of this step is kept."
    if records.steps != "unknown":
        caption += f" Validation metrics: {read_where(records)}."
    if not ours:
        caption = ""
    if len(runs) > MOST_RUNS:
        rest = "in runs.csv" if ours else f"in {code(records.origin)}"
        caption += f" The first {MOST_RUNS}; all of them are {rest}."
    return table(head, rows, numeric=range(2, len(head)), caption=caption)


def _metric_names(runs: Sequence[RunFacts]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.validation))
