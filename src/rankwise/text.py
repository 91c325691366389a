"""Numbers, lists and names as the user reads them, with their unit."""

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"


def number(value: float | None, decimals: int = 4) -> str:
    """`value` with so many decimals; a dash where there is none, NaN and inf by name.

    >>> number(0.51234), number(-0.00001, 2), number(None)
    ('0.5123', '0.00', '–')
    """
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
    """Both bounds of an interval; a dash where there is none.

    >>> interval(0.00412, 0.02049, 3)
    '0.004 to 0.020'
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(low, decimals)} to {number(high, decimals)}"


def bounds(low: float | None, high: float | None, decimals: int = 4) -> str:
    """An interval rounded outwards, so that it holds as printed; a dash where there is none.

    >>> bounds(0.00412, 0.02041, 3), at_most(0.02041, 3)
    ('0.004 to 0.021', '0.021')
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(-_up(-low, decimals), decimals)} to {at_most(high, decimals)}"


def at_most(value: float | None, decimals: int = 4) -> str:
    """An upper bound, rounded up; a dash where there is none."""
    return MISSING if value is None else number(_up(value, decimals), decimals)


def _up(value: float, decimals: int) -> float:
    if not math.isfinite(value):
        return value
    factor = 10.0**decimals
    scaled = value * factor
    return math.ceil(scaled - 1e-9 * max(1.0, abs(scaled))) / factor


def decimals_for(scale: float) -> int:
    """Decimals that show two significant digits of `scale` (a spread, an interval's half-width)."""
    if not math.isfinite(scale) or scale <= 0:
        return 4
    return min(8, max(0, 1 - math.floor(math.log10(scale))))


def significant(value: float) -> str:
    """`value` with five significant digits.

    >>> significant(1.27271), significant(0.0), significant(1234567.0)
    ('1.2727', '0', '1,234,567')
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:,.0f}"


def whole(value: float | None) -> str:
    """A whole number with commas between thousands: 294,912; a dash where there is none."""
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def p_value(p: float | None) -> str:
    """A p value to about two digits, "<0.001" for the smallest; a dash where there is none.

    Simulated ones are no more exact. One below 0.05 never looks as if it were not.

    >>> p_value(0.516), p_value(0.0496), p_value(0.0123), p_value(0.0001)
    ('0.52', '<0.05', '0.012', '<0.001')
    """
    if p is None:
        return MISSING
    if p < 0.001:
        return "<0.001"
    if 0.0495 <= p < 0.05:
        return "<0.05"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """A p value within a sentence.

    >>> p_equals(0.516), p_equals(0.0001)
    ('= 0.52', '<0.001')
    """
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as a percentage; a dash where there is none."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.{decimals}f} %"


def size(value: float | None) -> str:
    """Bytes in the unit that fits, powers of 1024; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def duration(value: float | None) -> str:
    """Seconds in the unit that fits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def about(seconds: float | None) -> str:
    """A predicted time, rounded up to two digits, in the unit that fits; a dash where none is.

    >>> about(5.34), about(4900.0), about(4e6)
    ('5.4 s', '82 min', '1,200 h')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    unit, length = ("s", 1) if seconds < 120 else ("min", 60) if seconds < 7200 else ("h", 3600)
    return f"{_two_digits_up(seconds / length):,.12g} {unit}"


def planned(n: int) -> str:
    """A planned number of runs, seeds or examples, rounded up to two digits.

    >>> planned(7), planned(121), planned(17201)
    ('7', '130', '18,000')
    """
    return f"{_two_digits_up(n):,.0f}"


def _two_digits_up(value: float) -> float:
    if value <= 0:
        return 0.0
    decimals = 1 - math.floor(math.log10(value))
    scaled = math.ceil(value * 10.0**decimals - 1e-9)
    return scaled / 10.0**decimals


def amount(value: float) -> str:
    """An amount of training: runs with a digit behind the point, tokens to three digits.

    >>> amount(13.1), amount(24.0), amount(1234567.0)
    ('13.1', '24', '1,230,000')
    """
    text = f"{value:.1f}" if value < 100 else f"{float(f'{value:.3g}'):,.0f}"
    return text.removesuffix(".0")


def count(n: int, noun: str, nouns: str | None = None) -> str:
    """A number of things; `nouns` where the plural is not noun + s.

    >>> count(1, "seed"), count(1319, "seed"), count(2, "study", "studies")
    ('1 seed', '1,319 seeds', '2 studies')
    """
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"


def names(items: Sequence[str], most: int = 8) -> str:
    """`a, b and c`; beyond `most` names, how many more there are.

    >>> names(["a", "b", "c"]), names(list("abcdefgh"), most=3), names([])
    ('a, b and c', 'a, b, c and 5 more', '')
    """
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def state_words(state: str) -> str:
    """The state of a run as the user reads it.

    >>> state_words("out_of_memory"), state_words("pruned")
    ('out of memory', 'stopped by the race')
    """
    return "stopped by the race" if state == "pruned" else state.replace("_", " ")


def columns_words(columns: Iterable[object], most: int = 20) -> str:
    """Names of columns as messages list them: whatever a file's first line holds, it stays short.

    >>> columns_words(["text", "label"]), columns_words("abc", most=1)
    ('text, label', 'a and 2 more')
    """
    every = [shorten(name, 60) for name in columns]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def setting(value: Any) -> str:
    """A setting's value as the user would type it."""
    if value is None or (isinstance(value, list | tuple | Mapping) and not value):
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if _short(value) else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(part)}" for key, part in value.items())
    return str(value)


def _short(value: float) -> bool:
    return 0 < abs(value) < 0.001 and float(f"{value:.0e}") == value


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without secrets: the rest is rarely for the user."""
    return redacted((str(error).strip().splitlines() or [type(error).__name__])[0])


SECRET = re.compile(
    r"(?<=://)[^\s/@\"'\\]+(?=@)"  # of a URL: user and password
    r"|\b(?:hf_|api_org_)[A-Za-z0-9]{16,}"  # tokens of the model hub
    r"|(?<=[Bb]earer )[^\s\"'\\]+"
)
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def redacted(text: str) -> str:
    """`text` with *** in place of tokens of the hub, and of users and passwords in URLs.

    >>> redacted("https://me:secret@host/x has no hf_abcdefghijklmnopqrst")
    'https://***@host/x has no ***'
    """
    for name in TOKENS:
        token = os.environ.get(name, "")
        if len(token) >= 8:
            text = text.replace(token, "***")
    return SECRET.sub("***", text)


def closest(name: str, options: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` options that are spelled like `name`, best first; case does not count."""
    folded = {option.casefold(): option for option in options}
    found = difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.5)
    return [folded[option] for option in found]


def nearest(name: str, options: Iterable[str], most: int = 1) -> str:
    """`; nearest: X` for the options that are spelled like `name`, or nothing where none is."""
    near = closest(name, options, most)
    return f"; nearest: {', '.join(near)}" if near else ""


def reload_words(rows: int, stored: float, loss: float, agrees: bool) -> str:
    """What an adapter gives that was loaded from disk, beside what training measured."""
    if agrees:
        return (
            f"reloaded by peft: loss {number(loss)} on {rows} examples, {number(stored)} in "
            f"training: the same within rounding"
        )
    found = f"loss {number(loss)}" if math.isfinite(loss) else "no model"
    return (
        f"WARNING: reloaded by peft it gives {found}, where training measured {number(stored)} "
        f"on {rows} examples; do not use it"
    )


def shorten(value: object, width: int = 80) -> str:
    """`value` on one line of at most `width` characters; three dots stand for what is cut off."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."
