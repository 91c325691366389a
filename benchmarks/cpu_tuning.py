"""Seconds a run for a step and an evaluation of a cohort of 8, by tokens of a part or a pass.

The sizes in cohort/batch.py and cohort/evaluate.py were chosen with it. Thread policies are tried
by the environment, as OpenMP reads it once: OMP_WAIT_POLICY=PASSIVE, ACTIVE, or as here.

Usage: cpu_tuning.py [--spec FILE] [--runs 8] [--trials 5]
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it

import torch

from rankwise.cli.app import quiet_libraries
from rankwise.spec.arms import Run
from rankwise.spec.load import load_spec
from rankwise.study.plan import plan_study
from rankwise.tasks.by_name import row_losses
from rankwise.train import batch, evaluate
from rankwise.train.prepare import Bases, make_bank

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
SIZES = (512, 1024, 2048, 4096, 8192)
EXAMPLES = 100


def main() -> None:
    """Time every size in turn, several times over, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=QUICKSTART)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    quiet_libraries()
    plan = plan_study(load_spec(options.spec), options.spec.parent)
    spec, cpu = plan.spec, torch.device("cpu")
    pad = plan.tokenizer.pad_token_id
    base = Bases(spec.model, spec.task, plan.num_labels, pad, cpu, "eager").frozen("none")
    arms = plan.arms
    wanted = [Run(arms[i % len(arms)], i // len(arms)) for i in range(options.runs)]
    (runs,) = plan.cohorts(wanted, cpu)
    task = batch.Task(spec.task, pad, spec.data.max_length, cpu)
    plans = [plan.adapters[run.arm.id] for run in runs]
    seeds = [run.seed for run in runs]
    bank = make_bank(base, plans, seeds)
    rows = runs[0].arm.training.per_device_train_batch_size

    def step(tokens: int, number: int) -> None:
        batch.PAYING_TOKENS = {"cpu": tokens}
        numbers = [number] * len(runs)
        chosen = batch.chosen_rows([plan.data.train] * len(runs), seeds, rows, numbers)
        for part in batch.parts_of(chosen, seeds, numbers, task):
            with bank.running(range(len(runs)), part.key) as model:
                losses = row_losses(model, task.name, part.batch)
            torch.autograd.backward(losses.total.sum() / rows)

    def evaluation(tokens: int, number: int) -> None:
        evaluate.TOKENS_OF_AN_EVALUATION = {"cpu": tokens}
        evaluate.evaluate(bank, range(len(runs)), plan.data.validation[:EXAMPLES], task, 64)

    print(f"{torch.get_num_threads()} threads, {options.runs} runs, milliseconds a run (medians)")
    for name, work in (("step", step), (f"evaluation of {EXAMPLES}", evaluation)):
        seconds: dict[int, list[float]] = {size: [] for size in SIZES}
        for number in range(options.trials):
            for size in SIZES:
                started = time.perf_counter()
                work(size, number)
                seconds[size].append(time.perf_counter() - started)
        medians = {size: statistics.median(found) for size, found in seconds.items()}
        shown = "  ".join(f"{n}: {1000 * t / options.runs:.0f}" for n, t in medians.items())
        print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
