"""What a study shows of its settings: the analyses of factors, run once for the whole report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.analysis.effects import Effects, factor_effects
from rankwise.analysis.factors import RATE_NAMES, Settings
from rankwise.analysis.interactions import Interactions, interactions
from rankwise.analysis.proposals import Proposal, propose
from rankwise.analysis.rates import LearningRateFlag, learning_rate_flags
from rankwise.analysis.scores import Scores
from rankwise.analysis.shapes import Shape, shapes
from rankwise.analysis.smooth import Smooth, smooth
from rankwise.analysis.smooth_model import smooth_model
from rankwise.analysis.tuned import TunedStructure, tune
from rankwise.analysis.variance import Components, components
from rankwise.results.collapsed import Collapse, collapsed_arms, without
from rankwise.results.records import ArmFacts, Records, varying_settings
from rankwise.text import setting


@dataclass(frozen=True, eq=False)
class SettingFindings:
    """What the settings do.

    effects, interactions  None where arms with a result differ in no setting; they and `shapes` are
                           those of the arms that did not collapse
    rate_flags  the learning rates of each structure
    tuned       structures at their own best learning rates; empty where none was chosen
    collapsed   arms set aside from effects, and what their runs did
    smooth, proposals  what follows if settings act smoothly, and what to try next then; None where
                the arms are too few (or very many) or the noise is unknown
    """

    effects: Effects | None
    interactions: Interactions | None
    shapes: tuple[Shape, ...]
    rate_flags: tuple[LearningRateFlag, ...]
    tuned: tuple[TunedStructure, ...]
    collapsed: Mapping[str, Collapse]
    smooth: Smooth | None
    proposals: tuple[Proposal, ...]


def find_settings(data: Records, scores: Scores, parts: Components) -> SettingFindings:
    """All analyses of factors, of records that hold every training once."""
    lower = data.lower_is_better
    settings = {arm.name: plain_settings(arm) for arm in data.arms}
    left_out = tuple(name for name in settings if name not in parts.arms)
    learned, collapsed = _set_aside(data, scores, parts)
    effects = crossed = None
    found: tuple[Shape, ...] = ()
    if varying_settings([settings[name] for name in learned.arms]):
        effects = factor_effects(data.metric, learned, settings, lower, left_out, tuple(collapsed))
        crossed = interactions(learned, settings)
        found = shapes(learned, settings, effects)
    key = _rate_key(list(settings.values()))
    smoothly, proposals = _smoothly(learned, settings, lower)
    return SettingFindings(
        effects=effects,
        interactions=crossed,
        shapes=found,
        rate_flags=learning_rate_flags(settings, parts, lower, key) if key else (),
        tuned=tune(scores, parts, settings, key) if key else (),
        collapsed=collapsed,
        smooth=smoothly,
        proposals=proposals,
    )


def _smoothly(
    parts: Components, settings: Mapping[str, Settings], lower_is_better: bool
) -> tuple[Smooth | None, tuple[Proposal, ...]]:
    model = smooth_model(parts, settings, lower_is_better)
    if model is None:
        return None, ()
    found = smooth(model, parts, lower_is_better)
    if found.refuted:
        return found, ()
    return found, propose(model, found, settings, lower_is_better)


def _set_aside(
    records: Records, scores: Scores, parts: Components
) -> tuple[Components, dict[str, Collapse]]:
    """The components without the arms that collapsed, and those; all where too few are left."""
    collapsed = collapsed_arms(records)
    kept = without(scores, collapsed) if collapsed else scores
    return (parts, {}) if kept is scores else (components(kept), collapsed)


def _rate_key(settings: Sequence[Mapping[str, object]]) -> str | None:
    """What the learning rate is called in these settings."""
    names = {name.rpartition(".")[2] for one in settings for name in one}
    return next((name for name in RATE_NAMES if name in names), None)


def plain_settings(arm: ArmFacts) -> dict[str, object]:
    """The settings of an arm with lists and mappings as text; numbers stay numbers."""
    return {
        name: value if isinstance(value, int | float) or value is None else setting(value)
        for name, value in arm.settings.items()
        if not name.startswith("generation.")
    }
