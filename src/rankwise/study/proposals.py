"""The proposals of a search as facts of a study, and how the next one is made.

A proposal is written down before its configuration; a study that goes on has those it made. It is
valid as long as its point lies in the space of the spec of today and is the same configuration.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rankwise.errors import SpecError
from rankwise.search.known import Suggestion, known_points, spread_point
from rankwise.search.sampler import DEFAULT_STARTUP, Trial, ask
from rankwise.search.space import Point, Space, name_of, point_in, value_of
from rankwise.spec.arms import Arm, draft_arm, make_arms
from rankwise.spec.identity import canonical
from rankwise.spec.models import SearchSpec, StudySpec, race_of
from rankwise.store.reader import Reader
from rankwise.store.writer import Store

KIND = "search_proposal"
# Share of the budget that is kept for further seeds, where the spec has more than one.
FOR_SEEDS = 0.3
# Points in a row that may be no configuration, until the search is given up.
INVALID = 50


@dataclass(frozen=True)
class Proposal:
    """A configuration that a search proposed.

    key     identity of the configuration
    point   the searched settings
    source  "literature", "settings", "spread out", or the sampler; `why` in words, where known
    """

    name: str
    key: str
    point: Point
    source: str
    why: str = ""


@dataclass(frozen=True)
class Warm:
    """What an earlier study gave inside the space.

    same_data  whether its data are those of this study, so that results can be compared
    outside    finished configurations with other values, or with other settings beside them
    """

    folder: str
    trials: tuple[Trial, ...]
    same_data: bool
    outside: int

    def shifted(self, best: float | None) -> tuple[Trial, ...]:
        """Its results; those on other data so that the best of them is the best of this study."""
        values = [one.value for one in self.trials if one.value is not None]
        if self.same_data or not values:
            return self.trials
        by = (best or 0.0) - min(values)
        return tuple(
            replace(one, value=None if one.value is None else one.value + by) for one in self.trials
        )


@dataclass(frozen=True)
class Search:
    """What the proposals of a study are made from, and those made so far.

    warm    what earlier studies gave
    hidden  hidden size of the base, None where its configuration has none
    """

    space: Space
    warm: tuple[Warm, ...] = ()
    hidden: int | None = None
    proposals: tuple[Proposal, ...] = ()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What earlier studies gave, the best result of each on other data taken for zero."""
        return tuple(trial for one in self.warm for trial in one.shifted(None))


def entries(proposals: Sequence[Proposal]) -> list[tuple[str, Mapping[str, Any]]]:
    """The proposals as `make_arms` takes them."""
    return [(one.name, one.point) for one in proposals]


def stored_proposals(spec: StudySpec, space: Space, store: Reader) -> tuple[Proposal, ...]:
    """The proposals of the store that are configurations of this spec."""
    found = []
    for fact in store.facts():
        if fact.kind != KIND:
            continue
        one = Proposal(**fact.data)
        point = space.point_of(one.point)
        if point is None or set(one.point) != set(space.settings):
            continue
        try:
            arm = draft_arm(spec, point, "search", one.name)
        except SpecError:
            continue
        if arm.id == one.key:
            found.append(replace(one, point=point))
    own = {arm.id for arm in make_arms(spec)}
    return tuple(one for one in found if one.key not in own)


def note_proposals(store: Store, proposals: Sequence[Proposal]) -> None:
    """Write down the proposals that the store does not have."""
    for one in proposals:
        store.add_fact(KIND, **{**asdict(one), "point": dict(one.point)})


def with_first(
    spec: StudySpec, search: Search, hidden: int | None, can_train: Callable[[Arm], bool]
) -> Search:
    """The search with the proposals that fill the first cohort beside the spec's configurations."""
    race, own = race_of(spec), make_arms(spec)
    assert race is not None
    count = min(race.at_once, int((spec.budget.runs or race.at_once) * kept_for_search(spec)))
    search = replace(search, hidden=hidden)
    known = (*search.trials, *own_trials(spec, search.space, own))
    made = more_proposals(spec, search, own, known, max(count, 2) - len(own), can_train)
    return replace(search, proposals=made)


def kept_for_search(spec: StudySpec) -> float:
    """The share of the budget that goes to new configurations."""
    return 1.0 - FOR_SEEDS if len(spec.seeds) > 1 else 1.0


def own_trials(spec: StudySpec, space: Space, own: Sequence[Arm]) -> list[Trial]:
    """The configurations of grid and configs that lie in the space, without results."""
    points = [point_in(space, spec, arm.settings) for arm in own]
    return [Trial(point) for point in points if point is not None]


def more_proposals(
    spec: StudySpec,
    search: Search,
    arms: Sequence[Arm],
    trials: Sequence[Trial],
    count: int,
    can_train: Callable[[Arm], bool],
) -> tuple[Proposal, ...]:
    """At most so many further proposals; fewer where the space or `search.most` ends.

    Args:
        spec: The study.
        search: Its search, with the proposals so far.
        arms: All its configurations.
        trials: What is known: of earlier studies, of the spec's own configurations in the space, of
            the proposals, in this order.
        count: How many.
        can_train: Whether the base can have a configuration.
    """
    asked = spec.search
    assert asked is not None
    if asked.most is not None:
        count = min(count, asked.most - len(search.proposals))
    taken, told = {arm.id for arm in arms}, list(trials)
    names = {arm.name.casefold() for arm in arms}
    made: list[Proposal] = []
    for _ in range(max(count, 0) + INVALID):
        if len(made) >= count:
            break
        so_far = len(search.proposals) + len(made)
        found = _suggestion(spec, asked, search, told, so_far)
        if found is None:
            break
        arm = _arm_at(spec, found.point)
        if arm is None or arm.id in taken or not can_train(arm):
            told.append(Trial(found.point, failed=True))
            continue
        told.append(Trial(found.point))
        name = _free_name(name_of(search.space, arm), names)
        taken.add(arm.id)
        names.add(name.casefold())
        made.append(Proposal(name, arm.id, found.point, found.source, found.why))
    return tuple(made)


def _suggestion(
    spec: StudySpec, asked: SearchSpec, search: Search, told: Sequence[Trial], proposed: int
) -> Suggestion | None:
    """From what is known, then spread out, then by the sampler; None where all points are used."""
    startup, seed = asked.startup or DEFAULT_STARTUP, spec.seeds[0]
    if asked.sampler in ("tpe", "gp") and proposed < startup:
        used = {canonical(one.point) for one in told}
        spread = proposed + len(search.trials) < startup
        for one in _first_ones(spec, search, len(told), spread):
            if canonical(one.point) not in used:
                return one
    point = ask(search.space, asked.sampler, told, startup, seed, proposed)
    return None if point is None else Suggestion(point, asked.sampler)


def _first_ones(spec: StudySpec, search: Search, told: int, spread: bool) -> Iterator[Suggestion]:
    """What is known, and then, if asked for, points that are spread out."""
    shared = {setting: value_of(spec, setting) for setting in search.space.settings}
    yield from known_points(search.space, shared, search.hidden, spec.method)
    for number in range(told, told + INVALID) if spread else ():
        yield spread_point(search.space, number, spec.seeds[0])


def _arm_at(spec: StudySpec, point: Point) -> Arm | None:
    """The configuration at a point; None where these values do not go together."""
    try:
        return draft_arm(spec, point, "search")
    except SpecError:
        return None


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}_{number}"
    return free
