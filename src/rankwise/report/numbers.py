"""Numbers as a reader meets them: rounded to what they mean, with their unit."""

import math

MISSING = "–"


def number(value: float | None, decimals: int = 4) -> str:
    """`value` with so many decimals; a dash where there is none, NaN and inf by name."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def signed(value: float | None, decimals: int = 4) -> str:
    """`number` with its sign, plus included."""
    text = number(value, decimals)
    return text if value is None or text.startswith("-") or not value > 0 else f"+{text}"


def interval(low: float | None, high: float | None, decimals: int = 4) -> str:
    """An interval as "low to high"; a dash where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(low, decimals)} to {number(high, decimals)}"


def p_value(p: float | None) -> str:
    """A p value to three decimals, "<0.001" below that; a dash where there is none."""
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def count(value: float | None) -> str:
    """A whole number with thousands set off: 294,912."""
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as a percentage."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.{decimals}f} %"


def size(value: float | None) -> str:
    """Bytes in the unit that fits, powers of 1024."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def duration(value: float | None) -> str:
    """Seconds in the unit that fits."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def plural(number_of: int, noun: str, nouns: str = "") -> str:
    """ "1 seed", "3 seeds"; `nouns` where the plural is not noun + s."""
    return f"{number_of:,} {noun if number_of == 1 else nouns or noun + 's'}"


def listing(items: list[str] | tuple[str, ...], most: int = 8) -> str:
    """ "a, b and c"; past `most` items "a, b, ... and 4 more"."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
