"""The names by which columns of tables are known, and what is read off a name.

The order of names is the order of preference.
"""

import re

from rankwise.results.columns import CostName

SETTING_SIDE = ("config", "params", "hparams", "hyperparameters")
RESULT_SIDE = ("summary", "metrics", "values")
NEITHER_SIDE = ("tags", "user_attrs", "system_attrs")
PREFIX = re.compile(
    rf"^({'|'.join(SETTING_SIDE + RESULT_SIDE + NEITHER_SIDE)})[./]|^(params)_", re.IGNORECASE
)
KNOWN_METRICS = ("eval_loss", "val_loss", "eval_accuracy", "accuracy", "test_accuracy", "loss")
HELD_OUT = ("eval", "val", "valid", "validation", "dev", "test", "heldout", "best")
METRIC_WORDS = (
    "loss", "accuracy", "acc", "f1", "matthews", "mcc", "perplexity", "ppl", "bleu", "chrf", "auc",
    "rouge", "rougel", "rouge1", "rouge2", "score", "match", "em", "error", "nll", "bpb", "wer",
    "map", "mrr", "ndcg", "pearson", "spearman", "reward",
)  # fmt: skip
SHARES = ("accuracy", "acc", "em", "match", "error", "success", "pass")
MEASURED = (*METRIC_WORDS, "runtime", "seconds", "second", "memory", "precision", "recall")
MAY_BE_MEASURED = (
    "time", "duration", "mem", "flops", "flos", "gpu", "step", "timestamp", "grad", "gb", "mb",
    "gib", "mib", "minutes", "hours",
)  # fmt: skip
SETTINGS = (
    "lr", "learning", "rate", "dropout", "decay", "alpha", "rank", "r", "batch", "beta", "beta1",
    "beta2", "warmup", "weight", "epochs", "steps", "length", "temperature", "scale", "momentum",
    "eps", "epsilon", "layers", "heads", "dim", "clip", "norm", "patience", "tau", "gamma", "len",
)  # fmt: skip
CONTEXTS = (
    "task", "task_name", "dataset", "dataset_name", "benchmark", "subset", "domain", "language",
    "lang", "corpus", "model", "base_model", "model_name", "model_id", "model_name_or_path", "base",
    "backbone", "pretrained_model", "n", "n_train", "num_train", "train_size", "n_samples",
    "num_train_examples", "train_examples", "shots", "n_shots", "num_shots", "k_shot",
)  # fmt: skip
MODELS = tuple(name for name in CONTEXTS if "model" in name or name in ("base", "backbone"))
SEEDS = ("seed", "random_seed", "rng_seed", "train_seed", "fold", "cv_fold")
REPLICATES = (
    "replicate", "replica", "rep", "repeat", "repetition", "rerun", "run_number", "run_no", "trial",
    "run",
)  # fmt: skip
STATES = ("state", "status", "run_state", "run_status", "outcome")
TEST_SIZES = (
    "test_size", "n_test", "num_test", "test_items", "n_items", "eval_size", "n_eval",
    "test_samples", "eval_samples", "num_test_examples",
)  # fmt: skip
ARMS = (
    "arm", "configuration", "config", "config_name", "experiment", "experiment_name", "variant",
    "setup", "system", "group",
)  # fmt: skip
RUN_NAMES = ("name", "run_name", "mlflow_runname", "run")
IDENTIFIERS = (
    "id", "run_id", "run_uuid", "experiment_id", "uuid", "url", "link", "user", "host", "hostname",
    "notes", "created", "created_at", "updated", "start_time", "end_time", "date", "artifact_uri",
    "output_dir", "logging_dir", "path", "commit", "git_commit", "sweep", "sweep_id", "job_id",
    "job_type", "index", "unnamed_0", "number", "datetime_start", "datetime_complete", "run_name",
    "tags", "",
)  # fmt: skip
COSTS: dict[CostName, tuple[str, ...]] = {
    "trainable_params": (
        "trainable_params", "trainable_parameters", "num_trainable_params", "n_trainable_params",
        "num_trainable_parameters", "adapter_params",
    ),
    "memory": ("memory", "peak_memory", "max_memory", "gpu_memory", "peak_gpu_memory",
               "accelerator_memory_max", "memory_peak", "peak"),
    "time": ("time", "runtime", "train_runtime", "train_time", "training_time", "duration",
             "seconds", "minutes", "hours"),
    "storage": ("storage", "file_size", "adapter_size", "checkpoint_size"),
}  # fmt: skip
UNIT_ENDS = {
    "gib": 2**30, "mib": 2**20, "kib": 2**10, "gb": 1e9, "mb": 1e6, "kb": 1e3, "bytes": 1.0,
    "seconds": 1.0, "secs": 1.0, "sec": 1.0, "s": 1.0, "minutes": 60.0, "mins": 60.0, "min": 60.0,
    "hours": 3600.0, "hrs": 3600.0, "h": 3600.0, "ms": 1e-3, "millions": 1e6, "million": 1e6,
}  # fmt: skip


def unit_of_cost(column: str) -> float:
    """What a number in a column of costs is multiplied with, by the unit that ends its name.

    >>> unit_of_cost("peak_gb"), unit_of_cost("train_runtime"), unit_of_cost("minutes")
    (1000000000.0, 1.0, 60.0)
    """
    return float(UNIT_ENDS.get("".join(words_of(column)[-1:]), 1.0))


def bare(name: str) -> str:
    """A column's name without the prefix of a tracker.

    >>> bare("config.lora.r"), bare("params.lr"), bare("lr")
    ('lora.r', 'lr', 'lr')
    """
    return PREFIX.sub("", name, count=1)


def words_of(name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word)
