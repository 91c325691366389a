"""What studies found on each setting: steps with their effect and price, and contradictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rankwise.analysis.effects import FactorEffect, LevelDifference
from rankwise.analysis.factors import ABSENT, find_factors
from rankwise.report.document import code
from rankwise.report.literature import Statement, literature, setting_key
from rankwise.results.judge import Judgement
from rankwise.results.settings import plain_settings
from rankwise.text import names

PRICES = ("trainable_params", "memory", "time")


@dataclass(frozen=True)
class Price:
    """What a step costs more (below zero: less), the least and the most over pairs that show it."""

    low: float
    high: float
    unit: str


@dataclass(frozen=True, eq=False)
class Observation:
    """What one study found on one step of one setting.

    sign is +1 better, -1 worse, 0 not significant; known is False where the noise is unknown.
    prices, by the name of the cost, are those of the pairs of configurations that differ in this
    setting alone; a cost that is not known for one of them is absent, and so are all of a setting
    that changes no work.
    """

    judgement: Judgement
    setting: str
    effect: FactorEffect
    difference: LevelDifference
    sign: int
    prices: dict[str, Price]

    @property
    def study(self) -> str:
        """Title of the study."""
        return self.judgement.records.title

    @property
    def first(self) -> bool:
        """Whether the setting stands for its factor: of settings that change together the first."""
        return self.setting == self.effect.factor.settings[0]

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.difference.low_bound is not None

    @property
    def digits(self) -> int:
        """Decimals of the metric."""
        return self.judgement.digits


@dataclass(frozen=True, eq=False)
class Move:
    """A step seen from the level one is at: to `level`, at the other end of the step.

    gain, least, most   improvement of the metric (above zero is better) and its 95 % interval
    prices              as in `Observation`, for this direction
    """

    level: str
    gain: float
    least: float
    most: float
    sign: int
    prices: dict[str, Price]

    def saves(self, cost: str) -> bool:
        """Whether every pair has less of this cost after the move."""
        return cost in self.prices and self.prices[cost].high < 0


@dataclass(frozen=True, eq=False)
class SettingFindings:
    """All that one study found on one setting that it varied.

    steps is empty where the setting changes together with one that stands before it (`leader`).
    """

    judgement: Judgement
    effect: FactorEffect
    steps: tuple[Observation, ...]

    @property
    def study(self) -> str:
        """Title of the study."""
        return self.judgement.records.title

    @property
    def leader(self) -> str:
        """The first of the settings that change together."""
        return self.effect.factor.settings[0]

    @cached_property
    def start(self) -> str | None:
        """Level of the recommended configuration; None where none is recommended."""
        choice, factor = self.judgement.choice, self.effect.factor
        if choice.recommendation.arm is None or choice.arm is None:
            return None
        arm = self.judgement.records.arm(choice.arm)
        texts = dict(find_factors((arm.name,), {arm.name: plain_settings(arm)}).constant)
        level = " / ".join(texts.get(name, ABSENT) for name in factor.settings)
        return level if level in factor.levels else None

    @property
    def ordered(self) -> bool:
        """Whether levels are numbers in ascending order."""
        return self.effect.factor.values is not None

    def moves(self) -> tuple[Move, ...]:
        """The steps with an interval that begin or end at `start`, seen from there."""
        lower = self.judgement.verdict.lower_is_better
        found = [_move(one, self.start, lower) for one in self.steps]
        return tuple(move for move in found if move is not None)

    def is_above(self, level: str) -> bool:
        """Whether a level comes after `start`."""
        levels = self.effect.factor.levels
        return self.start is not None and levels.index(level) > levels.index(self.start)


def _move(one: Observation, start: str | None, lower_is_better: bool) -> Move | None:
    step = one.difference
    if step.value is None or step.low_bound is None or step.high_bound is None:
        return None
    if start not in (step.low, step.high):
        return None
    ahead = 1 if start == step.low else -1
    better = -ahead if lower_is_better else ahead
    least, most = sorted((better * step.low_bound, better * step.high_bound))
    prices = {
        name: price if ahead > 0 else Price(-price.high, -price.low, price.unit)
        for name, price in one.prices.items()
    }
    level = step.high if ahead > 0 else step.low
    return Move(level, better * step.value, least, most, ahead * one.sign, prices)


def observations_of(judgement: Judgement) -> list[Observation]:
    """What a study found, for each setting and step."""
    found = judgement.effects
    if found is None:
        return []
    return [
        Observation(
            judgement=judgement,
            setting=setting,
            effect=effect,
            difference=difference,
            sign=_sign(judgement, difference),
            prices=_prices(judgement, effect, difference),
        )
        for effect in found.factors
        for setting in effect.factor.settings
        for difference in effect.differences
    ]


def _sign(judgement: Judgement, one: LevelDifference) -> int:
    """+1 better, -1 worse where significant (over all of the study's differences, 5 %), else 0."""
    if one.value is None or not one.decided:
        return 0
    return 1 if (one.value < 0) == judgement.verdict.lower_is_better else -1


def _prices(judgement: Judgement, effect: FactorEffect, one: LevelDifference) -> dict[str, Price]:
    if all(literature().is_free(setting) for setting in effect.factor.settings):
        return {}  # what was measured would be the noise of the clock
    pairs = [tuple(judgement.records.arm(name) for name in pair) for pair in one.pairs]
    found = {}
    for name in PRICES:
        if pairs and all(name in arm.costs for pair in pairs for arm in pair):
            steps = [high.costs[name].value - low.costs[name].value for low, high in pairs]
            found[name] = Price(min(steps), max(steps), pairs[0][0].costs[name].unit)
    return found


def findings_on(key: str, observations: Sequence[Observation]) -> list[SettingFindings]:
    """What each study found on one setting, in the order of the studies."""
    own = [one for one in observations if setting_key(one.setting) == key]
    return [
        SettingFindings(steps[0].judgement, steps[0].effect, tuple(s for s in steps if s.first))
        for study in dict.fromkeys(one.study for one in own)
        if (steps := [one for one in own if one.study == study])
    ]


def contradictions(key: str, observations: Sequence[Observation]) -> list[str]:
    """Where studies differ significantly from each other or from a source."""
    own = [o for o in observations if setting_key(o.setting) == key and o.first and o.sign]
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
    notes = literature().settings.get(key)
    if notes is not None:
        found += [text for one in own if (text := _against(key, notes.statements, one))]
    return found


def _against(key: str, statements: Sequence[Statement], one: Observation) -> str:
    """A significant result that differs from what sources report; empty where it differs from none.

    Sources that report what the study found are named too.
    """
    against = [
        s for s in statements if s.expects and {"better": 1, "same": 0}[s.expects] != one.sign
    ]
    agreeing = [s for s in statements if s.expects and s not in against]
    if not against:
        return ""
    word = "better" if one.sign > 0 else "worse"
    said = " ".join(f"{literature().cite(s)} reports: {s.text}" for s in against)
    text = (
        f"{code(key)} from {code(one.difference.low)} to {code(one.difference.high)}: {word} in "
        f"{code(one.study)}, where {said}"
    )
    return text + "".join(f" As in {literature().cite(s)}: {s.text}" for s in agreeing)
