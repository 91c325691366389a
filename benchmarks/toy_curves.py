"""Learning curves of a perceptron with LoRA: small enough to draw many problems, yet truly trained.

A perceptron learns one random teacher in full; adapters then learn another near it. The grid is
that of the recorded problems: 6 learning rates x 2 ranks x 2 sets of modules, half of them with a
linear schedule, 60 steps, 3 seeds. Array suffixes: A arms, S seeds, T evaluations, E examples.
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Problem:
    """What all runs of a problem share; `data` are its training rows, `held_out` its examples."""

    base: list[torch.Tensor]
    batch: int
    data: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]
    settings: dict[str, dict[str, object]]


def toy_problem(number: int) -> Problem:
    """The problem of this number."""
    draws = torch.Generator().manual_seed(number)
    rng = np.random.default_rng([number, 5])
    first = _teacher(draws)
    second = [w + rng.uniform(0.2, 0.8) * n for w, n in zip(first, _teacher(draws), strict=True)]
    temperature, shift = rng.uniform(1.0, 4.0), 10 ** rng.uniform(0.1, 1.1)
    base = _pretrained(first, temperature, draws)
    held_out = _data(second, temperature, EXAMPLES, draws)
    settings = configurations()
    for one in settings.values():
        one["learning_rate"] = float(str(one["learning_rate"])) * shift
    batch = int(rng.choice([4, 8, 16]))
    data = _data(second, temperature, STEPS * batch, draws)
    return Problem(base, batch, data, held_out, settings)


def toy_curves(number: int, seeds: int = 3) -> Curves:
    """The problem of this number, fully trained; some seconds."""
    problem = toy_problem(number)
    settings = problem.settings
    x_ASTE = np.array(
        [[_curve(problem, one, seed) for seed in range(seeds)] for one in settings.values()]
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


Pair = tuple[torch.Tensor, torch.Tensor]


class ToyRun:
    """One run: its adapters (A, B) by layer, its optimizer, and the order of its rows."""

    def __init__(self, problem: Problem, one: dict[str, object], seed: int) -> None:
        draws = torch.Generator().manual_seed(1000 + seed)
        self.problem, self.one = problem, one
        self.pairs: dict[int, Pair] = {}
        for n in range(LAYERS) if one["target_modules"] == "all" else range(1):
            out, inner = problem.base[n].shape
            rank = int(str(one["r"]))
            a = (torch.rand(rank, inner, generator=draws) * 2 - 1) / math.sqrt(inner)
            self.pairs[n] = (a.requires_grad_(), torch.zeros(out, rank, requires_grad=True))
        self.order = torch.randperm(len(problem.data[1]), generator=draws)
        self.optimizer = torch.optim.AdamW([p for pair in self.pairs.values() for p in pair])

    def factor(self, step: int) -> float:
        """The learning rate of a step over the highest, after the schedule."""
        if self.one["lr_scheduler_type"] == "linear" and step >= WARMUP:
            return (STEPS - step) / (STEPS - WARMUP)
        return min((step + 1) / WARMUP, 1.0)

    def train(self, step: int, factor: float) -> None:
        """One step on the rows of that step."""
        x, y = self.problem.data
        rows = self.order[step * self.problem.batch : (step + 1) * self.problem.batch]
        self.optimizer.param_groups[0]["lr"] = float(str(self.one["learning_rate"])) * factor
        functional.cross_entropy(self._logits(self.pairs, x[rows]), y[rows]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def losses(self, pairs: dict[int, Pair] | None = None) -> Floats:
        """Losses of the held-out examples (E,), of these adapters or of the present ones."""
        x, y = self.problem.held_out
        logits = self._logits(pairs or self.pairs, x)
        return functional.cross_entropy(logits, y, reduction="none").numpy().astype(np.float64)

    def _logits(self, pairs: dict[int, Pair], x: torch.Tensor) -> torch.Tensor:
        merged = [
            w + 2.0 * pairs[n][1] @ pairs[n][0] if n in pairs else w
            for n, w in enumerate(self.problem.base)
        ]
        return _forward(merged, x)


def _curve(problem: Problem, one: dict[str, object], seed: int) -> Floats:
    """Losses of one run (T, E)."""
    run = ToyRun(problem, one, seed)
    found = []
    for step in range(STEPS):
        run.train(step, run.factor(step))
        if (step + 1) % EVERY == 0:
            found.append(run.losses())
    return np.stack(found)
