"""Numbers and lists as a reader wants them: as many digits as the error bears."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float, error: float | None = None) -> str:
    """`value` with two significant digits of its error; with five of its own if that is unknown.

    >>> number(1.27271, 0.0123), number(1.27271), number(0.0)
    ('1.273', '1.2727', '0')
    """
    if value == 0 and not error:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    places = 1 - math.floor(math.log10(error))
    return f"{value:,.{places}f}" if 0 < places <= 12 else f"{value:,.0f}"


def interval(low: float, high: float) -> str:
    """Both bounds with the digits that their width bears.

    >>> interval(0.00412, 0.02049)
    '0.0041 to 0.0205'
    """
    half = (high - low) / 2
    return f"{number(low, half)} to {number(high, half)}"


def names(items: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; beyond `most` names, how many more there are.

    >>> names(["a", "b", "c"]), names(list("abcdefgh"), most=3)
    ('a, b and c', 'a, b, c and 5 more')
    """
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def count(n: int, what: str, many: str | None = None) -> str:
    """`1 seed`, `3 seeds`.

    >>> count(1, "seed"), count(1319, "seed")
    ('1 seed', '1,319 seeds')
    """
    return f"{n:,} {what if n == 1 else many or what + 's'}"


def decimals_for(scale: float) -> int:
    """Decimals that show two significant digits of `scale` (a spread, an interval's half-width)."""
    if not math.isfinite(scale) or scale <= 0:
        return 4
    return min(8, max(0, 1 - math.floor(math.log10(scale))))


def setting(value: Any) -> str:
    """A setting's value as a person would type it."""
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
    """The first line of a library's message: the rest is rarely for the user."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def closest(name: str, options: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` options that are spelled like `name`, best first; case does not count."""
    folded = {option.casefold(): option for option in options}
    found = difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.5)
    return [folded[option] for option in found]


def nearest(name: str, options: Iterable[str], most: int = 1) -> str:
    """`; nearest: X` for the options that are spelled like `name`, or nothing where none is."""
    near = closest(name, options, most)
    return f"; nearest: {', '.join(near)}" if near else ""


def shorten(value: object, width: int = 80) -> str:
    """`value` on one line of at most `width` characters; three dots stand for what is cut off."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."
