"""The first proposals of a search: from what is known, then spread out over the space.

The learning rate of LoRA is known roughly, from the hidden size of the base: 5e-5 x 10 x
(2000 / hidden size)^0.781 (tinker-cookbook 2026, hyperparam_utils.py, get_lr, fitted on Llama
models), where 10 is the ratio to the rate of full fine-tuning. Others found a ratio of 3
(tinker-feedback 2026, issue 67). Adapters on all linear modules do better than on attention alone
at equal parameters (Schulman et al. 2025, LoRA Without Regret); rank 16 and alpha 32 are what the
guide starts with.

Array suffixes: D settings.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import qmc

from rankwise.search.space import Point, Space
from rankwise.text import setting as as_written

FULL_RATE, REFERENCE_HIDDEN, EXPONENT = 5e-5, 2000, 0.781
RATIOS = (
    (10, "tinker-cookbook 2026, get_lr: 10 times the rate of full fine-tuning"),
    (3, "tinker-feedback 2026, issue 67: 3 times the rate of full fine-tuning"),
)
RATE, RANK, TARGETS, ALPHA = (
    "training.learning_rate",
    "lora.r",
    "lora.target_modules",
    "lora.lora_alpha",
)


@dataclass(frozen=True)
class Suggestion:
    """A point with its `source` in one word, and for one from what is known `why`, in words."""

    point: Point
    source: str
    why: str = ""


def full_rate(hidden: int) -> float:
    """A learning rate for full fine-tuning of a base of this hidden size, about."""
    return float(FULL_RATE * (REFERENCE_HIDDEN / hidden) ** EXPONENT)


def known_points(
    space: Space, shared: Mapping[str, Any], hidden: int | None, method: str = "lora"
) -> Iterator[Suggestion]:
    """Points from what is known, as near as the space has them.

    Args:
        space: What is searched.
        shared: What the study's sections say of these settings; it stands where nothing is known.
        hidden: Hidden size of the base, None where its configuration has none.
        method: `full` takes the learning rate of full fine-tuning.
    """
    wanted = {**shared, RANK: 16, TARGETS: "all-linear", ALPHA: 32}
    words = _structure(_nearest(space, wanted))
    if RATE not in space.settings or hidden is None:
        yield Suggestion(_nearest(space, wanted), "literature" if words else "settings", words)
        return
    ratios = RATIOS if method == "lora" else ((1, "tinker-cookbook 2026, get_lr without ratio"),)
    for ratio, source in ratios:
        rate = ratio * full_rate(hidden)
        point = _nearest(space, {**wanted, RATE: rate})
        said = (
            f"learning rate {as_written(float(f'{rate:.2g}'))} for hidden size {hidden} ({source})"
        )
        yield Suggestion(point, "literature", "; ".join(filter(None, (said, words))))


def _structure(point: Point) -> str:
    """What is known of the structure, with what the space has nearest to it."""
    parts = []
    if RANK in point:
        parts.append(_with_nearest("rank 16", 16, point[RANK]))
    if TARGETS in point:
        said = "all linear modules (Schulman et al. 2025)"
        parts.append(_with_nearest(said, "all-linear", point[TARGETS]))
    if ALPHA in point:
        parts.append(_with_nearest("alpha 32", 32, point[ALPHA]))
    return ", ".join(parts)


def _with_nearest(said: str, wanted: Any, here: Any) -> str:
    return said if here == wanted else f"{said}, here {as_written(here)}"


def _nearest(space: Space, wanted: Mapping[str, Any]) -> Point:
    return {one.setting: one.nearest(wanted.get(one.setting)) for one in space.dimensions}


def spread_point(space: Space, number: int, seed: int) -> Suggestion:
    """Point `number` of a sequence whose first few are spread over the space, whatever their count.

    Halton's sequence (1960), a prime base for each setting, shifted by what the seed draws.
    """
    shift, halton = random.Random(seed), qmc.Halton(len(space.dimensions), scramble=False)
    u_D = halton.fast_forward(number + 1).random()[0]
    return Suggestion(space.at([(shift.random() + float(u)) % 1.0 for u in u_D]), "spread out")
