"""What single studies found on single settings, and where these findings contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.analysis.effects import FactorEffect, LevelDifference
from rankwise.report.document import code
from rankwise.report.literature import FINDINGS, Finding, setting_key
from rankwise.results.judge import Judgement
from rankwise.text import names


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
    if one.value is None or one.p_adjusted is None or one.p_adjusted >= 0.05:
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
