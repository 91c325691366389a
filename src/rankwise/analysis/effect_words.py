"""Factor effects, shapes and interactions in sentences."""

from rankwise.analysis.effects import LEVEL, Effects, FactorEffect, LevelDifference
from rankwise.analysis.interactions import Interaction, Interactions
from rankwise.analysis.shapes import Shape, Step
from rankwise.text import interval, names, number


def effect_sentences(effects: Effects) -> tuple[str, ...]:
    """What each factor does, then what the intervals rest on, then what never varies."""
    found = [s for effect in effects.factors for s in factor_sentences(effect, effects.metric)]
    if effects.factors:
        found.append(_basis(effects))
    found += [
        f"{name} is {value} in every arm: nothing can be said of its effect."
        for name, value in effects.constant
    ]
    if effects.left_out:
        found.append(f"Left out, for want of a finished run: {names(effects.left_out)}.")
    return tuple(found)


def factor_sentences(effect: FactorEffect, metric: str) -> tuple[str, ...]:
    """One factor: its differences, or the factors that it cannot be parted from."""
    factor = effect.factor
    found = []
    if len(factor.settings) > 1:
        found.append(f"{names(factor.settings)} always move together: an effect is theirs jointly.")
    if not effect.separable:
        mixed = names(effect.mixed_with) or "the other settings"
        found.append(
            f"{factor.label} is not separable from {mixed}: it never varies on its own, "
            "and the arms do not determine its effect."
        )
        return tuple(found)
    for one in effect.differences:
        found.append(_difference(one, metric, factor.on_a_line))
    return tuple(found)


def shape_sentence(shape: Shape, metric: str) -> str:
    """The shape of one ordered factor; gains are improvements of the metric."""
    first, last = shape.steps[0], shape.steps[-1]
    if shape.kind == "cannot tell":
        seen = ", ".join(f"{_span(s)} {_gain(s)}" for s in shape.steps)
        return f"{shape.factor}: the shape cannot be told; as seen, {seen} in {metric}."
    if shape.kind == "turning":
        sure = [s for s in shape.steps if s.p is not None and s.p < LEVEL]
        seen = ", ".join(f"{_span(s)} {_gain(s)} ({_bounds(s)})" for s in sure)
        return f"{shape.factor}: {metric} turns: {seen}."
    if shape.kind in ("saturating", "accelerating"):
        name = "diminishing" if shape.kind == "saturating" else "growing"
        change = interval(*sorted((abs(shape.drop_low or 0), abs(shape.drop_high or 0))))
        return (
            f"{shape.factor}: {name} returns in {metric}: the gain per doubling goes from "
            f"{number(first.per_doubling, _half(first))} ({_span(first)}) to "
            f"{number(last.per_doubling, _half(last))} ({_span(last)}), a change of {change} "
            "(95 % interval)."
        )
    if shape.kind == "steady":
        way = "gain" if first.gain > 0 else "loss"
        return (
            f"{shape.factor}: every step from {first.low:g} to {last.high:g} is a {way} in "
            f"{metric}; no change of the gain per doubling was found."
        )
    ends = interval(shape.ends_low or 0.0, shape.ends_high or 0.0)
    span = f"from {first.low:g} to {last.high:g} the gain is {ends} (95 % interval)"
    if shape.kind == "trend":
        return f"{shape.factor}: {span}, of which no single step and no bend is beyond chance."
    return f"{shape.factor}: no effect on {metric} was found; {span}."


def interaction_sentences(found: Interactions, metric: str) -> tuple[str, ...]:
    """One sentence for each pair that was tested, one for all that could not be."""
    words = [_interaction(one, metric) for one in found.tested]
    if found.not_separable:
        pairs = [f"{a} with {b}" for a, b in found.not_separable]
        words.append(f"The arms do not determine whether these add up: {names(pairs)}.")
    return tuple(words)


def _difference(one: LevelDifference, metric: str, on_a_line: bool) -> str:
    step = f"{one.factor} {one.low} to {one.high}"
    if one.value is None:
        return f"{step}: not separable from {names(one.mixed_with)}."
    way = "lower" if one.value < 0 else "higher"
    rests = _rests_on(one, on_a_line)
    if one.low_bound is None or one.high_bound is None:
        size = number(abs(one.value))
        return f"{step}: {metric} {way} by {size} as seen; cannot tell whether by chance{rests}."
    size = number(abs(one.value), (one.high_bound - one.low_bound) / 2)
    bounds = interval(one.low_bound, one.high_bound)
    clear = one.p_adjusted is not None and one.p_adjusted < LEVEL
    end = "" if clear else ", not beyond chance among the differences looked at"
    return f"{step}: {metric} {way} by {size} (95 % interval {bounds}){end}{rests}."


def _rests_on(one: LevelDifference, on_a_line: bool) -> str:
    if on_a_line:
        return "; along a straight line through its values (of their logarithms if positive)"
    if len(one.pairs) == 1:
        return f"; it rests on one pair of arms that differ in nothing else, {names(one.pairs[0])}"
    if not one.pairs:
        return "; no two arms differ in it alone, so the number assumes that settings add up"
    return ""


def _basis(effects: Effects) -> str:
    if effects.basis == "noise":
        return "Intervals rest on the noise of seeds and examples; the settings add up within it."
    if effects.basis == "examples":
        return "Intervals rest on the examples alone and speak for these trained runs only."
    if effects.basis == "nothing":
        return (
            "With one seed an arm and no arm to spare, nothing says how large chance effects are: "
            "no interval is given."
        )
    if effects.misfit_p is None:
        return "One seed an arm: intervals rest on how far the arms miss adding up."
    return (
        f"The settings do not simply add up (p = {effects.misfit_p:.2g}): effects are averages "
        "over these arms, and their intervals rest on the misfit."
    )


def _interaction(one: Interaction, metric: str) -> str:
    what = f"{one.first} and {one.second}"
    if one.p is None or one.low_bound is None or one.high_bound is None:
        return f"{what}: cannot tell whether they add up."
    bounds = interval(one.low_bound, one.high_bound)
    largest = (
        f"the step of {one.first} to {one.high} changes {metric} by {bounds} more (95 % interval) "
        f"at {one.second} = {one.other}"
    )
    if (one.p_adjusted or 0.0) < LEVEL:
        return f"{what} do not add up (p = {one.p_adjusted:.2g}): {largest}."
    return f"{what}: no departure from adding up was found; {largest}."


def _span(step: Step) -> str:
    return f"{step.low:g} to {step.high:g}"


def _gain(step: Step) -> str:
    half = None
    if step.low_bound is not None and step.high_bound is not None:
        half = (step.high_bound - step.low_bound) / 2
    return f"{'gains' if step.gain >= 0 else 'loses'} {number(abs(step.gain), half)}"


def _bounds(step: Step) -> str:
    return f"95 % interval {interval(step.low_bound or 0.0, step.high_bound or 0.0)}"


def _half(step: Step) -> float:
    """Half width of the interval of the gain per doubling."""
    width = (step.high_bound or 0.0) - (step.low_bound or 0.0)
    return abs(width / 2 * (step.per_doubling / step.gain)) if step.gain else width / 2
