"""Per-layer ranks: how a budget of adapter parameters is spread over the adapted modules.

A strategy gives each module a weight; ranks are proportional to the weights, at least 1 and at
most what the module's matrix can hold, and their cost is held to the budget.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from rankwise.base.modules import ATTENTION, LAYER, Target, pattern_for
from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec, RanksSpec
from rankwise.text import nearest

TOLERANCE = 0.01  # of the budget, over or under
NEGLIGIBLE = 1e-9  # of the largest weight: less counts as this much
ENOUGH = 0.001  # of the budget: nearer than this is not worth bending the proportions


def cost_of(target: Target, rank: int) -> int:
    """Parameters of A (rank, in) and B (out, rank) (Hu et al. 2021, section 4.1)."""
    return rank * (target.in_features + target.out_features)


def budget_of(targets: Sequence[Target], ranks: RanksSpec, lora: LoraSpec) -> int:
    """Adapter parameters to spend: the given budget, or the cost of rank lora.r everywhere."""
    if ranks.budget is not None:
        return ranks.budget
    return sum(cost_of(target, lora.r) for target in targets)


def allocate(
    targets: Sequence[Target],
    ranks: RanksSpec,
    lora: LoraSpec,
    importance: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """The rank of every adapted module under a strategy.

    `uniform` and `custom` without a budget are the ranks that the spec names, as peft takes them.
    Everything else is held to its budget within 1 %, with ranks in [1, min(in, out)], and equal
    input gives equal ranks.

    Args:
        targets: the adapted modules.
        ranks: strategy and budget.
        lora: r, which sets the budget where none is given.
        importance: of each module by name, for `empirical`: not negative, any unit. Ranks are
            proportional to it, in the spirit of AdaLoRA's (Zhang et al. 2023, section 3.3) and
            EVA's (Paischer et al. 2024, section 3.2) redistribution under a fixed budget.

    Raises:
        SpecError: the budget is too small, too large or cannot be met; the strategy needs other
            modules; importance is missing or no number; a custom name or rank
            fits no module.
    """
    if not targets:
        return {}
    if ranks.strategy == "custom":
        _check_custom(targets, ranks)
    if ranks.budget is None and ranks.strategy in ("uniform", "custom"):
        return ranks_named(targets, ranks.custom or lora.rank_pattern, lora.r)
    weights = _weights(targets, ranks, lora, importance)
    found = _spend(targets, weights, budget_of(targets, ranks, lora))
    return {target.name: rank for target, rank in zip(targets, found, strict=True)}


def ranks_named(
    targets: Sequence[Target], patterns: Mapping[str, int], default: int
) -> dict[str, int]:
    """The rank of the first pattern that matches a module, as peft matches it; else the default."""
    found = {target.name: pattern_for(target.name, patterns) for target in targets}
    return {name: default if key is None else patterns[key] for name, key in found.items()}


def _weights(
    targets: Sequence[Target],
    ranks: RanksSpec,
    lora: LoraSpec,
    importance: Mapping[str, float] | None,
) -> list[float]:
    """What each module's rank is proportional to."""
    if ranks.strategy == "linear_decay":
        return _by_depth(targets, ranks)
    if ranks.strategy == "attention_heavy":
        roles = {target.role in ATTENTION for target in targets}
        if len(roles) == 1:
            kind = "attention" if True in roles else "MLP or other"
            raise SpecError(
                f"ranks.strategy: attention_heavy needs attention modules and others, but all "
                f"adapted modules are {kind} modules; name more in lora.target_modules, or use "
                f"another strategy"
            )
        return [ranks.ratio if target.role in ATTENTION else 1.0 for target in targets]
    if ranks.strategy == "empirical":
        return _by_importance(targets, importance)
    if ranks.strategy == "custom":
        return [float(rank) for rank in ranks_named(targets, ranks.custom, lora.r).values()]
    return [1.0 for _ in targets]


def _by_depth(targets: Sequence[Target], ranks: RanksSpec) -> list[float]:
    """Linear from `ratio` at one end of a stack of layers to 1 at the other.

    An encoder and a decoder are two stacks. Modules in no layer get the mean.
    """
    depths: dict[str, set[int]] = {}
    for target in targets:
        if target.layer is not None:
            depths.setdefault(_stack(target), set()).add(target.layer)
    if not any(len(layers) > 1 for layers in depths.values()):
        raise SpecError(
            "ranks.strategy: linear_decay needs adapted modules in more than one layer; give more "
            "in lora.layers_to_transform, or use another strategy"
        )
    weights = []
    for target in targets:
        share = 0.5
        if target.layer is not None and len(depths[_stack(target)]) > 1:
            first, last = min(depths[_stack(target)]), max(depths[_stack(target)])
            share = (target.layer - first) / (last - first)
        if ranks.direction == "up":
            share = 1 - share
        weights.append(ranks.ratio + (1 - ranks.ratio) * share)
    return weights


def _stack(target: Target) -> str:
    found = LAYER.match(target.name)
    return target.name[: found.start("layer")] if found else ""


def _by_importance(
    targets: Sequence[Target], importance: Mapping[str, float] | None
) -> list[float]:
    if importance is None:
        raise SpecError(
            "ranks.strategy: empirical needs an importance measured on training batches"
        )
    values = []
    for target in targets:
        value = float(importance.get(target.name, math.nan))
        if not (math.isfinite(value) and value >= 0):
            raise SpecError(
                f"ranks.strategy: empirical: the importance of {target.name} is {value}; it "
                f"must be a finite number of at least 0"
            )
        values.append(value)
    if max(values) == 0:
        raise SpecError("ranks.strategy: empirical: every module's importance is zero")
    return values


def _check_custom(targets: Sequence[Target], ranks: RanksSpec) -> None:
    for pattern, rank in ranks.custom.items():
        try:
            matches = [t for t in targets if pattern_for(t.name, {pattern: rank})]
        except re.error as error:
            raise SpecError(
                f'ranks.custom: "{pattern}" is not a valid regular expression: {error}'
            ) from None
        if not matches:
            names = dict.fromkeys(target.name.rpartition(".")[2] for target in targets)
            raise SpecError(
                f'ranks.custom: "{pattern}" matches no adapted module'
                f"{nearest(pattern, [*names, *(target.name for target in targets)])}"
            )
        for target in matches:
            if rank > _most(target):
                raise SpecError(
                    f'ranks.custom: "{pattern}": rank {rank} is more than {target.name} of '
                    f"{target.in_features} by {target.out_features} can hold"
                )


def _most(target: Target) -> int:
    return min(target.in_features, target.out_features)


def _spend(targets: Sequence[Target], weights: Sequence[float], budget: int) -> list[int]:
    """Whole ranks as near to proportional to the weights as the budget allows."""
    costs = [cost_of(target, 1) for target in targets]
    limits = [_most(target) for target in targets]
    least, most = sum(costs), sum(c * m for c, m in zip(costs, limits, strict=True))
    if not least <= budget * (1 + TOLERANCE) or not budget * (1 - TOLERANCE) <= most:
        raise SpecError(
            f"ranks.budget: {budget:,} parameters do not fit these {len(targets)} modules; "
            f"give {least:,} (rank 1 everywhere) to {most:,} (the largest ranks)"
        )
    floor = NEGLIGIBLE * max(weights)
    wanted = _proportional(costs, limits, [max(w, floor) for w in weights], budget)
    ranks = [math.floor(rank + 1e-9) for rank in wanted]
    left = budget - sum(c * r for c, r in zip(costs, ranks, strict=True))
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i] - wanted[i], i))
    for i in order:  # the largest remainder first
        if costs[i] <= left and ranks[i] < limits[i]:
            ranks[i] += 1
            left -= costs[i]
    left = _settle(costs, limits, ranks, wanted, left, ENOUGH * budget)
    if abs(left) > TOLERANCE * budget:
        raise SpecError(
            f"ranks.budget: {budget:,} parameters cannot be met within 1 % by whole ranks on these "
            f"{len(targets)} modules; nearest found: {budget - left:,}"
        )
    return ranks


def _proportional(
    costs: Sequence[int], limits: Sequence[int], weights: Sequence[float], budget: int
) -> list[float]:
    """Ranks min(max(s w, 1), limit) for the one s at which they cost the budget."""

    def ranks_at(scale: float) -> list[float]:
        return [min(max(scale * w, 1.0), float(m)) for w, m in zip(weights, limits, strict=True)]

    low, high = 0.0, max(limits) / min(weights)
    for _ in range(200):
        middle = (low + high) / 2
        spent = sum(c * r for c, r in zip(costs, ranks_at(middle), strict=True))
        low, high = (middle, high) if spent <= budget else (low, middle)
    return ranks_at(low)


def _settle(
    costs: Sequence[int],
    limits: Sequence[int],
    ranks: list[int],
    wanted: Sequence[float],
    left: int,
    enough: float,
) -> int:
    """Change single ranks, or exchange one for another, while that brings the cost nearer.

    Of the changes that come nearest the one is taken that bends the proportions least. Changes
    `ranks`; returns what is left of the budget (negative: overspent).
    """
    indices = range(len(ranks))

    def bend(i: int, step: int) -> float:
        return abs(ranks[i] + step - wanted[i]) - abs(ranks[i] - wanted[i])

    while abs(left) > enough:
        ups = _cheapest(costs, [i for i in indices if ranks[i] < limits[i]], lambda i: bend(i, 1))
        downs = _cheapest(costs, [i for i in indices if ranks[i] > 1], lambda i: bend(i, -1))
        moves: list[tuple[int, float, tuple[tuple[int, int], ...]]]
        moves = [(abs(left - c), b, ((i, 1),)) for c, (b, i) in ups.items()]
        moves += [(abs(left + c), b, ((i, -1),)) for c, (b, i) in downs.items()]
        moves += [
            (abs(left - up + down), b + d, ((i, 1), (j, -1)))
            for up, (b, i) in ups.items()
            for down, (d, j) in downs.items()
            if i != j
        ]
        best = min(moves, default=None)
        if best is None or best[0] >= abs(left):
            return left
        for i, step in best[2]:
            ranks[i] += step
            left -= step * costs[i]
    return left


def _cheapest(
    costs: Sequence[int], indices: Sequence[int], bend: Callable[[int], float]
) -> dict[int, tuple[float, int]]:
    """For every cost the module among `indices` whose change bends the proportions least."""
    best: dict[int, tuple[float, int]] = {}
    for i in indices:
        best[costs[i]] = min(best.get(costs[i], (math.inf, i)), (bend(i), i))
    return best
