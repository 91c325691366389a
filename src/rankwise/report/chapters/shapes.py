"""The shape of numeric settings in words: returns, turns, and where the best value lies."""

from rankwise.analysis.curvature import Optimum
from rankwise.analysis.shapes import Shape
from rankwise.report.document import Block, Paragraph, code
from rankwise.results.judge import Judgement
from rankwise.text import interval, names, p_value, signed, significant

SHAPES = {
    "saturating": "diminishing returns: the first step improves the metric, and the gain per "
    "doubling is smaller at the end",
    "accelerating": "increasing returns: the gain per doubling is larger at the end",
    "steady": "every step is significant; no change of the gain per doubling was found",
    "turning": "not monotone: in one part of the range a higher value is better, in another worse",
    "trend": "the lowest and the highest value differ significantly; no single step does, or the "
    "steps show no simple shape",
    "some": "the values differ significantly, but the steps show no simple shape",
    "not shown": "no significant difference between the values",
    "cannot tell": "cannot tell: the noise is unknown",
}


def shapes(judgement: Judgement) -> list[Block]:
    """A paragraph for each numeric setting with three values or more."""
    return [Paragraph(_shape(judgement, shape)) for shape in judgement.shapes]


def _shape(judgement: Judgement, shape: Shape) -> str:
    digits = judgement.digits
    unit = "doubling" if shape.scale == "log" else "unit"
    steps = "; ".join(
        f"{step.low:g} to {step.high:g}: {signed(step.gain, digits)}"
        + (f" ({interval(step.low_bound, step.high_bound, digits)})" if step.p is not None else "")
        for step in shape.steps
    )
    text = f"{code(shape.factor)}: {SHAPES[shape.kind].replace('doubling', unit)}"
    if shape.p_adjusted is not None:
        text += f" (p {p_value(shape.p_adjusted)})"
    text += f". Gains (positive is better): {steps}."
    if shape.kind in ("saturating", "accelerating") and shape.drop_low is not None:
        text += (
            f" Gain per {unit} of the first step minus that of the last: "
            f"{signed(shape.drop, digits)} ({interval(shape.drop_low, shape.drop_high, digits)})."
        )
    if shape.kind in ("not shown", "cannot tell"):
        return text
    return f"{text} {best_value(shape.optimum)}"


def best_value(found: Optimum) -> str:
    """A sentence on where the best value of a numeric setting lies."""
    if found.place == "inside" and found.above is None:
        return f"The best value lies inside the range tried{parabola(found)}."
    if found.place == "inside":
        low, high = significant(found.above or 0.0), significant(found.below or 0.0)
        text = f"The best value lies between {low} and {high}, inside the range tried"
        return f"{text}{parabola(found)}."
    if found.place == "open":
        several = names([significant(value) for value in found.candidates])
        return f"Where the best value lies is not shown; each of {several} may be the best."
    end = found.place.removeprefix("at the ")
    way = "lower" if end == "lowest" else "higher"
    return f"The {end} value is better than all others; a {way} one may be better still."


def parabola(found: Optimum) -> str:
    """The best value by a quadratic, with the assumption that it needs; empty where there is none.

    Two digits: the interval is seldom narrower than a tenth of its value.
    """
    if found.value is None:
        return ""
    span = f"95 % interval {found.low:.2g} to {found.high:.2g}"
    return f"; about {found.value:.2g} ({span}) if the curve is a parabola on this scale"
