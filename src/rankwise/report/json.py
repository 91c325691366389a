"""All facts of a report as one JSON object with a schema, from the same judgement."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rankwise.analysis.blocks import AcrossColumn, OrderOfPair, Reversal
from rankwise.analysis.curves import Curve
from rankwise.analysis.effects import Effects
from rankwise.analysis.front import Alternative, Front
from rankwise.analysis.groups import Group
from rankwise.analysis.interactions import Interactions
from rankwise.analysis.means import NoiseFloor
from rankwise.analysis.planning import Settlement
from rankwise.analysis.proposals import Proposal
from rankwise.analysis.rates import LearningRateFlag
from rankwise.analysis.shapes import Shape
from rankwise.analysis.smooth import Smooth
from rankwise.analysis.tuned import TunedStructure
from rankwise.analysis.verdict import ArmResult, DetectableEffect, Distance, Verdict
from rankwise.report.changes import changes, settlement
from rankwise.report.chapters.first_screen import FirstScreen, first_screen, plain
from rankwise.report.chapters.groups import group_runs
from rankwise.report.chapters.race import RaceReport, race_report
from rankwise.report.chapters.recommendation import flag_sentence
from rankwise.report.chapters.runs import described
from rankwise.report.document import clean, code
from rankwise.report.remarks import Explanation, explained, remarks_of
from rankwise.report.trainers import recommended_spec
from rankwise.report.words import alternative, reason, verdict_sentences
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records
from rankwise.results.race import Race
from rankwise.results.records import Answer, ArmFacts, Records, RunFacts, own_runs
from rankwise.store.reader import Reader
from rankwise.store.schema import FILE

FORMAT = 1
OUTSIDE_FILE = "facts.json"


@dataclass(frozen=True)
class StudyFacts:
    """What was run: the fields of `Records` that are not results."""

    title: str
    origin: str
    metric: str
    lower_is_better: bool
    cost: str
    seeds: tuple[int, ...]
    varying: tuple[str, ...]
    record: dict[str, Any]
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SettlementFacts(Settlement):
    """A `Settlement` and its sentence."""

    sentence: str


@dataclass(frozen=True)
class RateFacts(LearningRateFlag):
    """A `LearningRateFlag` and its sentence."""

    sentence: str


@dataclass(frozen=True)
class AlternativeFacts(Alternative):
    """An `Alternative` and its sentence."""

    sentence: str


@dataclass(frozen=True)
class VerdictFacts:
    """A `Verdict` without its table of all pairs, and its sentences."""

    metric: str
    claim: str
    paired: bool
    seeds: int
    examples: int
    unit: str
    tolerance: float | None
    share: float
    declared: bool
    arms: tuple[ArmResult, ...]
    best: str | None
    tie_group: tuple[str, ...]
    winner: str | None
    stands_out: str | None
    noise: NoiseFloor | None
    detectable: DetectableEffect | None
    distances: tuple[Distance, ...]
    settlements: tuple[SettlementFacts, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class RecommendationDetail:
    """A `Recommendation` in words; arm is None where nothing can be recommended."""

    arm: str | None
    cost: str
    price: float | None
    within: bool
    distance: Distance | None
    cheaper: Distance | None
    sentence: str
    alternative: AlternativeFacts | None
    would_change: tuple[str, ...]


@dataclass(frozen=True)
class RecommendationFacts:
    """The recommended arm; basis (winner, within, tie, look, ...) as in `Choice`."""

    arm: str | None
    basis: str
    detail: RecommendationDetail
    spec: dict[str, Any] | None


@dataclass(frozen=True)
class BlockFacts:
    """The verdict of one block of a table."""

    name: str
    context: dict[str, Any]
    claim: str
    arms: tuple[ArmResult, ...]
    best: str | None
    tie_group: tuple[str, ...]
    winner: str | None


@dataclass(frozen=True)
class ByBlockFacts:
    """A `ByBlock` with a short form of its verdicts."""

    blocks: tuple[BlockFacts, ...]
    mean_ranks: dict[str, float]
    blocks_led: dict[str, int]
    order: tuple[OrderOfPair, ...]
    reversals: tuple[Reversal, ...]
    across: tuple[AcrossColumn, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that the report says, in numbers and names."""

    format: int
    study: StudyFacts
    first_screen: FirstScreen | None
    verdict: VerdictFacts
    on_test: VerdictFacts | None
    recommendation: RecommendationFacts
    front: Front
    effects: Effects | None
    interactions: Interactions | None
    shapes: tuple[Shape, ...]
    learning_rate: tuple[RateFacts, ...]
    tuned: tuple[TunedStructure, ...]
    collapsed: dict[str, str]
    smooth: Smooth | None
    proposals: tuple[Proposal, ...]
    groups: tuple[Group, ...]
    arms: tuple[ArmFacts, ...]
    curves: dict[str, Curve]
    runs: tuple[RunFacts, ...]
    diagnoses: dict[str, Explanation]
    answers: tuple[Answer, ...]
    by_block: ByBlockFacts | None
    race: RaceReport | None


def facts_of(judgement: Judgement) -> Facts:
    """The facts of a judged study."""
    records, test = judgement.records, judgement.on_test
    chosen = judgement.choice.arm
    spec = None if chosen is None or "spec" not in records.study else chosen
    curves = {arm.name: described(judgement, arm) for arm in records.arms}
    return Facts(
        format=FORMAT,
        study=_study(records),
        # of results in blocks `by_block` says it: seeds are no unit there
        first_screen=None if judgement.by_block else plain(first_screen(judgement)),
        verdict=_verdict(judgement.verdict, judgement.digits, records.race),
        on_test=_verdict(test, judgement.digits, records.race) if test is not None else None,
        recommendation=RecommendationFacts(
            arm=chosen,
            basis=judgement.choice.basis,
            detail=_recommendation(judgement),
            spec=None if spec is None else recommended_spec(records, spec),
        ),
        front=judgement.front,
        effects=judgement.effects,
        interactions=judgement.interactions,
        shapes=judgement.shapes,
        learning_rate=tuple(
            RateFacts(**vars(flag), sentence=clean(flag_sentence(flag)))
            for flag in judgement.rate_flags
        ),
        tuned=judgement.tuned,
        collapsed=dict(judgement.collapsed),
        smooth=judgement.smooth,
        proposals=judgement.proposals,
        groups=group_runs(judgement),
        arms=records.arms,
        curves={name: curve for name, curve in curves.items() if curve is not None},
        runs=own_runs(records),
        diagnoses={run: explained(found) for run, found in judgement.diagnoses.items()},
        answers=records.answers,
        by_block=_by_block(judgement),
        race=race_report(judgement),
    )


def _by_block(judgement: Judgement) -> ByBlockFacts | None:
    found = judgement.by_block
    if found is None:
        return None
    blocks = tuple(
        BlockFacts(name, context, v.claim, v.arms, v.best, v.tie_group, v.winner)
        for name, context, v in zip(found.names, found.contexts, found.verdicts, strict=True)
    )
    return ByBlockFacts(
        blocks, found.rank_A, found.won_A, found.order, found.reversals, found.across
    )


def _study(records: Records) -> StudyFacts:
    return StudyFacts(
        title=records.title,
        origin=records.origin,
        metric=records.metric,
        lower_is_better=records.lower_is_better,
        cost=records.cost,
        seeds=records.seeds,
        varying=records.varying,
        record=records.study,
        notes=remarks_of(records),
    )


def _verdict(verdict: Verdict, digits: int, race: Race | None = None) -> VerdictFacts:
    own = ("settlements", "sentences")
    names = [name for name in VerdictFacts.__dataclass_fields__ if name not in own]
    return VerdictFacts(
        **{name: getattr(verdict, name) for name in names},
        settlements=tuple(
            SettlementFacts(**vars(one), sentence=clean(settlement(verdict, one)))
            for one in verdict.settlements
        ),
        sentences=tuple(clean(text) for text in verdict_sentences(verdict, digits, race)),
    )


def _recommendation(judgement: Judgement) -> RecommendationDetail:
    found = judgement.choice.recommendation
    other = found.alternative
    return RecommendationDetail(
        arm=found.arm,
        cost=found.cost,
        price=found.price,
        within=found.within,
        distance=found.distance,
        cheaper=found.cheaper,
        sentence=clean(f"{code(found.arm or 'No recommendation')}: {reason(judgement)}."),
        alternative=None
        if other is None
        else AlternativeFacts(**vars(other), sentence=clean(alternative(judgement))),
        would_change=tuple(clean(one.sentence) for one in changes(judgement)),
    )


def as_json(facts: Facts) -> dict[str, Any]:
    """JSON-ready: values that are not finite become null, tuples become lists."""
    found: dict[str, Any] = _plain(asdict(facts))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a study folder, or those kept beside a report on outside results.

    Raises:
        StoreError: neither is in the folder.
    """
    import json

    kept = Path(folder) / OUTSIDE_FILE
    if kept.is_file() and not (Path(folder) / FILE).is_file():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    with Reader(folder) as store:
        records = read_records(store)
    return as_json(facts_of(judge_records(records)))


@cache
def facts_schema() -> dict[str, Any]:
    """The JSON schema of the facts."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Facts).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_nullable(schema)}


def _nullable(schema: Any) -> Any:
    """Every number may be null, because JSON has no NaN or infinity."""
    if isinstance(schema, list):
        return [_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _nullable(part) for key, part in schema.items()}
    if found.get("type") == "number":
        found["type"] = ["number", "null"]
    return found
