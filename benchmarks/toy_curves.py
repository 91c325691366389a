"""Learning curves of a perceptron with LoRA: small enough to draw many problems, yet truly trained.

A perceptron learns one random teacher in full; adapters then learn another near it. The grid is
that of the recorded problems: 6 learning rates x 2 ranks x 2 sets of modules, half of them with a
linear schedule, 60 steps, 3 seeds. Array suffixes: A arms, S seeds, T evaluations, E examples.
"""

import math

import numpy as np
import torch
from curves.curves import Curves
from numpy.typing import NDArray
from simulated_curves import configurations
from torch.nn import functional

Floats = NDArray[np.float64]
STEPS, WARMUP, EVERY = 60, 6, 6
INPUTS, HIDDEN, CLASSES, LAYERS = 24, 48, 6, 3
EXAMPLES, GROUP = 240, 4


def toy_curves(number: int, seeds: int = 3) -> Curves:
    """The problem of this number, fully trained; some seconds."""
    draws = torch.Generator().manual_seed(number)
    rng = np.random.default_rng([number, 5])
    first = _teacher(draws)
    second = [w + rng.uniform(0.2, 0.8) * n for w, n in zip(first, _teacher(draws), strict=True)]
    temperature, shift = rng.uniform(1.0, 4.0), 10 ** rng.uniform(0.1, 1.1)
    base = _pretrained(first, temperature, draws)
    x_EI, y_E = _data(second, temperature, EXAMPLES, draws)
    settings = configurations()
    for one in settings.values():
        one["learning_rate"] = float(str(one["learning_rate"])) * shift
    batch = int(rng.choice([4, 8, 16]))
    data = _data(second, temperature, STEPS * batch, draws)
    x_ASTE = np.array(
        [
            [_curve(base, one, data, batch, (x_EI, y_E), seed) for seed in range(seeds)]
            for one in settings.values()
        ]
    )
    return Curves(
        problem=f"toy-{number}",
        configs=tuple(settings),
        settings=settings,
        seeds=tuple(range(seeds)),
        steps=tuple(range(EVERY, STEPS + 1, EVERY)),
        x_ASTE=x_ASTE,
        correct_ASTE=None,
        groups_E=np.arange(EXAMPLES) // GROUP,
        weights_E=np.ones(EXAMPLES),
        params_A=np.full(len(settings), 1000),
        status_AS=np.full((len(settings), seeds), "done"),
        base={},
    )


def _sizes() -> list[tuple[int, int]]:
    widths = [INPUTS, *[HIDDEN] * (LAYERS - 1), CLASSES]
    return list(zip(widths[1:], widths, strict=False))


def _teacher(draws: torch.Generator) -> list[torch.Tensor]:
    return [
        torch.randn(out, inner, generator=draws) * math.sqrt(2 / inner) for out, inner in _sizes()
    ]


def _forward(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for weight in weights[:-1]:
        x = functional.gelu(x @ weight.T)
    return x @ weights[-1].T


def _data(
    teacher: list[torch.Tensor], temperature: float, count: int, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels drawn from a teacher; examples of a group are near each other."""
    middle = torch.randn(count // GROUP + 1, INPUTS, generator=draws).repeat_interleave(GROUP, 0)
    x = 0.7 * middle[:count] + 0.7 * torch.randn(count, INPUTS, generator=draws)
    p = functional.softmax(temperature * _forward(teacher, x), dim=1)
    return x, torch.multinomial(p, 1, generator=draws)[:, 0]


def _pretrained(
    teacher: list[torch.Tensor], temperature: float, draws: torch.Generator
) -> list[torch.Tensor]:
    weights = [w.clone().requires_grad_() for w in _teacher(draws)]
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    for _ in range(400):
        x, y = _data(teacher, temperature, 64, draws)
        functional.cross_entropy(_forward(weights, x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [w.detach() for w in weights]


def _curve(
    base: list[torch.Tensor],
    one: dict[str, object],
    data: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    held_out: tuple[torch.Tensor, torch.Tensor],
    seed: int,
) -> Floats:
    """Losses of one run (T, E)."""
    draws = torch.Generator().manual_seed(1000 + seed)
    rank = int(str(one["r"]))
    adapted = range(LAYERS) if one["target_modules"] == "all" else range(1)
    pairs = {}
    for n in adapted:
        out, inner = base[n].shape
        a = (torch.rand(rank, inner, generator=draws) * 2 - 1) / math.sqrt(inner)
        pairs[n] = (a.requires_grad_(), torch.zeros(out, rank, requires_grad=True))
    order = torch.randperm(len(data[1]), generator=draws)
    optimizer = torch.optim.AdamW([p for pair in pairs.values() for p in pair], lr=1.0)

    def merged() -> list[torch.Tensor]:
        return [
            w + 2.0 * pairs[n][1] @ pairs[n][0] if n in pairs else w for n, w in enumerate(base)
        ]

    found = []
    for step in range(STEPS):
        factor = min((step + 1) / WARMUP, 1.0)
        if one["lr_scheduler_type"] == "linear" and step >= WARMUP:
            factor = (STEPS - step) / (STEPS - WARMUP)
        optimizer.param_groups[0]["lr"] = float(str(one["learning_rate"])) * factor
        rows = order[step * batch : (step + 1) * batch]
        functional.cross_entropy(_forward(merged(), data[0][rows]), data[1][rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % EVERY == 0:
            with torch.no_grad():
                logits = _forward(merged(), held_out[0])
                found.append(functional.cross_entropy(logits, held_out[1], reduction="none"))
    return torch.stack(found).numpy().astype(np.float64)
