"""One long text cut into three regions in reading order: training, validation, test."""

from rankwise.errors import DataError
from rankwise.spec.models import SplitSpec


def text_regions(text: str, split: SplitSpec) -> tuple[str, str, str]:
    """The regions of `text` by the shares of `split`, cut at line ends; training comes first.

    Raises:
        DataError: a held-out part is no share, validation is 0, or no text is left for training.
    """
    validation, test = _share("validation", split), _share("test", split)
    if not validation:
        raise DataError(
            "data.split.validation: 0; configurations are compared on validation text, so use a "
            "share such as 0.1"
        )
    if validation + test >= 1:
        raise DataError(
            f"data.split: validation {validation} and test {test} leave no text for training; "
            "their sum must be below 1"
        )
    start = _line_end(text, round(len(text) * (1 - (validation + test))))
    middle = _line_end(text, round(len(text) * (1 - test)))
    return text[:start], text[start:middle], text[middle:]


def _share(side: str, split: SplitSpec) -> float:
    share = getattr(split, side)
    if isinstance(share, float) or share == 0:
        return float(share)
    raise DataError(
        f"data.split.{side}: {share} for one text; a text is split by shares such as 0.1"
    )


def _line_end(text: str, near: int) -> int:
    """The position after the last line end at or before `near`, or `near` in a text of one line."""
    return text.rfind("\n", 0, near) + 1 or near
