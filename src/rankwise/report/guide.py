"""A guide from studies: what they found on each setting, and what the literature reports."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rankwise.analysis.effects import FactorEffect, LevelDifference
from rankwise.errors import DataError
from rankwise.report.document import (
    Block,
    Bullets,
    Document,
    Paragraph,
    Section,
    code,
    strong,
    table,
    to_markdown,
)
from rankwise.report.literature import FINDINGS, Finding, setting_key
from rankwise.report.words import BASES
from rankwise.results.from_store import read_records
from rankwise.results.from_table import read_outside
from rankwise.results.judge import Judgement, judge_records, words
from rankwise.results.records import Records
from rankwise.store.reader import Reader
from rankwise.store.schema import FILE
from rankwise.text import MISSING, count, interval, names, signed, size


@dataclass(frozen=True)
class Observation:
    """What one study found on one step of one setting.

    sign is +1 better, -1 worse, 0 not significant; known is False where the noise is unknown.
    """

    study: str
    setting: str
    effect: FactorEffect
    difference: LevelDifference
    sign: int
    known: bool
    digits: int


def observations_of(judgement: Judgement) -> list[Observation]:
    """What a study found, for each setting and step."""
    found = judgement.effects
    if found is None:
        return []
    return [
        Observation(
            study=judgement.records.title,
            setting=setting,
            effect=effect,
            difference=difference,
            sign=_sign(judgement, difference),
            known=difference.low_bound is not None,
            digits=judgement.digits,
        )
        for effect in found.factors
        for setting in effect.factor.settings
        for difference in effect.differences
    ]


def _sign(judgement: Judgement, one: LevelDifference) -> int:
    """+1 better, -1 worse where significant (Holm over the study's differences, 5 %), else 0."""
    if one.value is None or not one.decided:
        return 0
    return 1 if (one.value < 0) == judgement.verdict.lower_is_better else -1


def contradictions(key: str, observations: Sequence[Observation]) -> list[str]:
    """Where studies differ significantly from each other or from a source."""
    own = [one for one in observations if setting_key(one.setting) == key and one.sign]
    found = []
    for step in dict.fromkeys((one.difference.low, one.difference.high) for one in own):
        same = [one for one in own if (one.difference.low, one.difference.high) == step]
        better = list(dict.fromkeys(one.study for one in same if one.sign > 0))
        worse = list(dict.fromkeys(one.study for one in same if one.sign < 0))
        if better and worse:
            up, down = (names([code(name) for name in group]) for group in (better, worse))
            found.append(
                f"{code(key)} from {code(step[0])} to {code(step[1])}: better in {up}, "
                f"worse in {down}."
            )
    for finding in FINDINGS.get(key, ()):
        found += [text for one in own if (text := _against(key, finding, one))]
    return found


def _against(key: str, finding: Finding, one: Observation) -> str:
    """A significant result that differs from what a source reports; empty where it agrees."""
    expected = {"better": 1, "same": 0}.get(finding.expects or "")
    if expected is None or one.sign == expected:
        return ""
    word = "better" if one.sign > 0 else "worse"
    return (
        f"{code(key)} from {code(one.difference.low)} to {code(one.difference.high)}: {word} in "
        f"{code(one.study)}, where {finding.source} reports: {finding.text}"
    )


TITLES = {
    "learning_rate": "Learning rate",
    "r": "Rank (r)",
    "lora_alpha": "Alpha",
    "target_modules": "Target modules",
    "lora_dropout": "Dropout",
    "lr_scheduler_type": "Schedule",
    "bias": "Biases",
    "quantization": "Quantisation",
    "method": "LoRA or full fine-tuning",
    "strategy": "Ranks by layer",
    "factor": "Augmentation",
}


def write_guide(folders: Sequence[Path]) -> str:
    """The guide as Markdown.

    Args:
        folders: study folders, or tables of outside results as `outside.read_outside` takes them.

    Raises:
        DataError: no folder, or one that is neither a study nor outside results.
        StoreError: a study that cannot be read.
    """
    if not folders:
        raise DataError("a guide needs one study or more; name their folders")
    judged = [judge_records(records) for records in _named([Path(one) for one in folders])]
    observations = [one for judgement in judged for one in observations_of(judgement)]
    found = list(dict.fromkeys(setting_key(one.setting) for one in observations))
    order = [key for key in TITLES if key in found]
    keys = [*order, *(key for key in found if key not in order)]
    sections = [_studies(judged)]
    sections += [_setting(key, observations, judged) for key in keys]
    sections += [_unseen(keys), _little_memory(judged), _search()]
    lead = _lead(judged, observations, keys)
    return to_markdown(Document("What these studies say about each setting", lead, tuple(sections)))


def _read(path: Path) -> Records:
    if (path / FILE).is_file():
        with Reader(path) as store:
            return read_records(store)
    if not path.exists():
        raise DataError(f"{path}: not found; name the folder of a study or a table of results")
    return read_outside(path)


def _named(folders: Sequence[Path]) -> list[Records]:
    """The records of each, with titles that are unique."""
    found = [_read(folder) for folder in folders]
    titles = [records.title for records in found]
    return [
        replace(records, title=f"{records.title} ({folder})")
        if titles.count(records.title) > 1
        else records
        for records, folder in zip(found, folders, strict=True)
    ]


def _lead(
    judged: Sequence[Judgement], observations: Sequence[Observation], keys: Sequence[str]
) -> tuple[Block, ...]:
    arms = sum(len(one.records.arms) for one in judged)
    runs = sum(len(one.records.runs) for one in judged)
    clashes = [text for key in keys for text in contradictions(key, observations)]
    text = (
        f"From {count(len(judged), 'study', 'studies')}, {count(arms, 'configuration')} and "
        f"{count(runs, 'run')}. Each study holds for its own model, data and length of training; "
        "so does each source."
    )
    if not clashes:
        return (Paragraph(text), Paragraph("No significant contradictions were found."))
    return Paragraph(text), Paragraph(strong("Contradictions:")), Bullets(tuple(clashes))


def _studies(judged: Sequence[Judgement]) -> Section:
    rows = []
    for one in judged:
        records, verdict = one.records, one.verdict
        model = records.study.get("model", {}).get("name", MISSING)
        done = sum(run.finished for run in records.runs)
        rows.append(
            (
                code(records.title),
                code(model),
                words(records.metric),
                str(len(records.arms)),
                f"{done} of {len(records.runs)}",
                str(verdict.seeds),
                str(verdict.examples or MISSING),
                code(one.choice.arm or MISSING),
                BASES[one.choice.basis],
            )
        )
    head = (
        "study",
        "model",
        "metric",
        "configurations",
        "runs",
        "seeds",
        "examples or groups",
        "recommended",
        "reason",
    )
    return Section("The studies", "studies", (table(head, rows, numeric=(3, 4, 5, 6)),))


def _setting(key: str, observations: Sequence[Observation], judged: Sequence[Judgement]) -> Section:
    own = [one for one in observations if setting_key(one.setting) == key]
    blocks: list[Block] = []
    rows = [_row(one) for one in own if one.difference.separable]
    head = ("study", "from", "to", "change", "95 % interval", "pairs", "effect")
    if rows:
        blocks.append(table(head, rows, numeric=(3, 4, 5)))
    mixed = {one.study: one.effect for one in own if not one.effect.separable}
    if mixed:
        blocks.append(
            Bullets(
                tuple(
                    f"{code(study)}: not separable from "
                    f"{names([code(n) for n in effect.mixed_with]) or 'the other settings'}; "
                    "no value is given."
                    for study, effect in mixed.items()
                )
            )
        )
    together = {one.study: one.effect for one in own if len(one.effect.factor.settings) > 1}
    blocks += [
        Paragraph(
            f"In {code(study)} {names([code(n) for n in effect.factor.settings])} change "
            "together; the values are their joint effect."
        )
        for study, effect in together.items()
    ]
    silent = [
        one.records.title for one in judged if one.records.title not in {o.study for o in own}
    ]
    if silent:
        blocks.append(Paragraph(f"Not varied in {names([code(s) for s in silent])}.", "small"))
    blocks += _literature(key)
    blocks += [Paragraph(text, "warning") for text in contradictions(key, observations)]
    return Section(TITLES.get(key, key.replace("_", " ").capitalize()), key, tuple(blocks))


def _row(one: Observation) -> tuple[str, ...]:
    d = one.difference
    said = (
        {1: "better", -1: "worse", 0: "not significant"}[one.sign] if one.known else "cannot tell"
    )
    if one.known and d.narrow:
        said = f"at other values of {names([code(name) for name in d.narrow])}"
    return (
        code(one.study),
        code(d.low),
        code(d.high),
        signed(d.value, one.digits),
        interval(d.low_bound, d.high_bound, one.digits),
        str(len(d.pairs)),
        said,
    )


def _literature(key: str) -> list[Block]:
    findings = FINDINGS.get(key, ())
    if not findings:
        return [Paragraph("Literature: no general finding is cited.", "small")]
    items = tuple(f"{finding.text} ({finding.source})" for finding in findings)
    return [Paragraph("Literature:"), Bullets(items)]


def _unseen(keys: Sequence[str]) -> Section:
    """Settings with findings in the literature that none of these studies varied."""
    items = [
        f"{strong(TITLES.get(key, code(key)))}: {finding.text} ({finding.source})"
        for key, findings in FINDINGS.items()
        if key not in keys
        for finding in findings
    ]
    intro = Paragraph(
        "None of these studies varied these settings; the findings are from the literature."
    )
    return Section("Not varied in these studies", "unseen", (intro, Bullets(tuple(items))))


def _little_memory(judged: Sequence[Judgement]) -> Section:
    items = []
    for one in judged:
        memory = {a.name: a.costs["memory"].value for a in one.records.arms if "memory" in a.costs}
        ranked = [r for r in one.verdict.arms if r.place is not None and r.arm in memory]
        if not ranked or one.verdict.best is None:
            continue
        least = min(ranked, key=lambda r: (memory[r.arm], r.place or 0))
        need = size(memory[least.arm])
        text = f"{code(one.records.title)}: {code(least.arm)} needs the least memory, {need}"
        if least.arm != one.verdict.best:
            gap = one.verdict.difference(least.arm, one.verdict.best)
            text += (
                f"; its difference from the best mean is {signed(gap.value, one.digits)} "
                f"({interval(gap.low, gap.high, one.digits)})"
            )
        items.append(f"{text}.")
    blocks: tuple[Block, ...] = (Bullets(tuple(items)),) if items else ()
    if not blocks:
        blocks = (Paragraph("None of these studies recorded memory."),)
    return Section("With little memory", "memory", blocks)


def _search() -> Section:
    steps = (
        "Run one plausible configuration with three seeds or more: its spread is the noise floor. "
        "Draw no conclusion from smaller differences.",
        "Vary the learning rate first, with three values or more, until the best is inside the "
        "range; alpha at a fixed rank has nearly the same effect.",
        "Then vary the target modules, each with several learning rates.",
        "Then increase the rank until doubling it is no longer a significant improvement.",
        "Change one setting at a time or use a full grid of a few, so that effects can be "
        "separated.",
        "Vary dropout, schedule, biases and quantisation last.",
    )
    intro = Paragraph("This is advice, not a finding of these studies.")
    return Section("How to search", "search", (intro, Bullets(steps)))
