"""One cohort against peft + transformers.Trainer, run after run: time per run and losses.

The arms are the quickstart's. Two baselines at the cohort's precision:
  (a) trainer: `peft` + Trainer as people run it, defaults untouched (base dropout on, the default
      attention, batches drawn by Trainer);
  (b) same-work: base dropout off, the faster attention, the very same batches; of bf16 weights
      and bf16 autocast the faster one is taken.
Each method runs in a process of its own, one after the other. A run's time is that of its
training steps and evaluations; loading and tokenising are left out on all sides.

Usage: cohort_vs_peft.py [--spec FILE] [--arms N] [--sizes 1 8 32] [--threads N] [--out FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it, for all methods
QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
METHODS = ("trainer", "same-work-bf16", "same-work-autocast")


def main() -> None:
    """Measure, print a table, and write the figures where `--out` says."""
    options = parse()
    if options.method:
        found = measure(options)
        print("RESULT " + json.dumps(found))
        return
    baselines = {method: in_process(options, method, options.arms) for method in METHODS}
    cohorts = {size: in_process(options, "cohort", size) for size in options.sizes}
    same_work = min(METHODS[1:], key=lambda method: baselines[method]["seconds"])
    lines = [
        f"{baselines['trainer']['device']}, {baselines['trainer']['dtype']}; "
        f"{options.arms} arms one after another",
        f"{'method':<32}{'seconds a run':>15}{'eval loss':>12}",
    ]
    for method in METHODS:
        lines.append(row(method, baselines[method]))
    for size, found in cohorts.items():
        lines.append(row(f"cohort of {size}", found))
        for name, label in (("trainer", "(a)"), (same_work, "(b)")):
            ratio = baselines[name]["seconds"] / found["seconds"]
            lines.append(f"  {label} {name}: {ratio:.2f} times the cohort's time a run")
    print("\n".join(lines))
    if options.out:
        facts = {"baselines": baselines, "cohorts": cohorts}
        options.out.write_text(json.dumps(facts, indent=2) + "\n")


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    return f"{name:<32}{found['seconds']:>15.1f}{found['loss']:>12.4f}"


def parse() -> argparse.Namespace:
    """Command-line options; `--method` is for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=QUICKSTART)
    parser.add_argument("--arms", type=int, default=8, help="arms for the baselines")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 16], help="cohort sizes")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--method", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_process(options: argparse.Namespace, method: str, count: int) -> dict[str, Any]:
    """Run one method in a process of its own and read its result."""
    command = [sys.executable, __file__, "--spec", str(options.spec)]
    command += ["--method", method, "--count", str(count), "--arms", str(options.arms)]
    if options.threads:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    last = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found: dict[str, Any] = json.loads(last.removeprefix("RESULT "))
    print(f"measured {method} ({count}): {found['seconds']:.1f} s a run", file=sys.stderr)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time one method: seconds a run, mean final validation loss."""
    import torch

    from rankwise.base.load import choose_dtype
    from rankwise.cli.app import quiet_libraries
    from rankwise.spec.load import load_spec
    from rankwise.study.begin import device_name
    from rankwise.study.plan import pick_device, plan_study

    quiet_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    plan = plan_study(load_spec(options.spec), options.spec.parent)
    device = pick_device("auto")
    if options.method == "cohort":
        found = time_cohort(plan, device, options.count, options.arms)
    else:
        found = time_trainer(plan, device, options.method, options.count)
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    return {**found, "device": device_name(device), "dtype": dtype}


def time_cohort(plan: Any, device: Any, size: int, arms: int) -> dict[str, Any]:
    """One cohort of `size` runs: all arms at the first seed, then at the next.

    The loss is that of the first `arms` arms at the first seed, which the baselines train too.
    """
    import torch

    from rankwise.spec.arms import Run
    from rankwise.train.batch import Task, chosen_rows, parts_of
    from rankwise.train.cohort import form_cohort, new_states
    from rankwise.train.loop import Evaluated, train
    from rankwise.train.prepare import Bases, choose_attention, make_bank

    spec, tokenizer = plan.spec, plan.tokenizer
    pad = tokenizer.pad_token_id
    bases = Bases(spec.model, spec.task, plan.num_labels, pad, device, "eager")
    base = bases.frozen("none")
    count = len(plan.arms)
    runs = [Run(plan.arms[i % count], i // count) for i in range(size)]
    (runs,) = plan.cohorts(runs, device)
    plans = [plan.adapters[run.arm.id] for run in runs]
    task = Task(spec.task, pad, spec.data.max_length, device)
    seeds, first = [run.seed for run in runs], [0] * size
    rows = chosen_rows([plan.data.train] * size, seeds, 16, first)
    parts = list(parts_of(rows, seeds, first, task))
    choose_attention(base.model, spec.task, parts[-1].batch)
    bank = make_bank(base, plans, seeds)
    states = new_states(runs, plan.train)
    cohort = form_cohort(bank, states, task, plan.train, plan.data.validation)
    import sklearn.metrics  # noqa: F401  imported once a process, by the first evaluation

    evaluated: dict[str, float] = {}
    started = time.perf_counter()
    for events in train(cohort):
        for event in events:
            if isinstance(event, Evaluated):
                evaluated[event.run] = event.evaluation.loss
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / size
    compared = [run for run in runs if run.arm in plan.arms[:arms] and run.seed == 0]
    last = [evaluated[run.id] for run in compared]
    return {"seconds": seconds, "loss": statistics.mean(last)}


def time_trainer(plan: Any, device: Any, method: str, count: int) -> dict[str, Any]:
    """peft + Trainer on the first `count` arms at the first seed, one after another."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import SequentialSampler

    from rankwise.adapters.peft_files import peft_settings
    from rankwise.base.load import choose_dtype
    from rankwise.data.order import rows_at
    from rankwise.train.prepare import ATTENTIONS, Bases

    spec = plan.spec
    training_rows, validation = plan.data.train, plan.data.validation
    bf16 = choose_dtype("auto", device) is torch.bfloat16
    same_work = method != "trainer"
    losses, seconds = [], []

    class InOrder(transformers.Trainer):
        """Batches in the order in which they lie: those of the cohort."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    def load(arm: Any, attention: str) -> Any:
        model = spec.model.model_copy(
            update={"dtype": "auto" if method == "same-work-bf16" else "float32"}
        )
        pad = plan.tokenizer.pad_token_id
        bases = Bases(model, spec.task, plan.num_labels, pad, device, attention)
        base = bases.frozen("none").model
        if same_work:
            for module in base.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        config = LoraConfig(**peft_settings(plan.adapters[arm.id], spec.task))
        return get_peft_model(base, config)

    def as_rows(examples: Any) -> list[dict[str, Any]]:
        return [{"input_ids": e.input_ids.tolist(), "labels": int(e.labels)} for e in examples]

    def run_one(arm: Any, attention: str, steps: int, folder: str) -> tuple[float, float]:
        settings = arm.training
        batch = settings.per_device_train_batch_size
        rows = training_rows
        if same_work:
            order = [i for step in range(steps) for i in rows_at(len(rows), batch, 0, step)]
            rows = [rows[i] for i in order]
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=settings.per_device_eval_batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_steps,
            max_grad_norm=settings.max_grad_norm,
            eval_strategy="steps",
            eval_steps=settings.eval_steps,
            save_strategy="no",
            report_to=[],
            use_cpu=device.type == "cpu",
            disable_tqdm=True,
            seed=0,
            bf16=bf16 and method != "same-work-bf16",
            logging_steps=steps,
        )
        kind = InOrder if same_work else transformers.Trainer
        trainer = kind(
            model=load(arm, attention),
            args=arguments,
            train_dataset=as_rows(rows),
            eval_dataset=as_rows(validation),
            data_collator=transformers.DataCollatorWithPadding(plan.tokenizer),
        )
        started = time.perf_counter()
        trainer.train()
        took = time.perf_counter() - started
        found = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        return took, found[-1] if found else float("nan")

    with tempfile.TemporaryDirectory() as folder:
        attention = "sdpa"
        if same_work:  # the faster attention, by a few steps of each
            trial = {a: run_one(plan.arms[0], a, 6, folder)[0] for a in ATTENTIONS}
            attention = min(trial, key=lambda name: trial[name])
        for arm in plan.arms[:count]:
            took, loss = run_one(arm, attention, plan.steps(arm), folder)
            seconds.append(took)
            losses.append(loss)
    return {
        "seconds": statistics.mean(seconds),
        "loss": statistics.mean(losses),
        "attention": attention,
        "all_seconds": seconds,
    }


if __name__ == "__main__":
    main()
