"""Tiny models and cohorts for tests: random weights, a few layers, made in milliseconds."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.peft_files import AdapterWriter
from rankwise.data.examples import Example
from rankwise.spec.arms import Arm, Run, make_arms
from rankwise.spec.models import StudySpec
from rankwise.train.bank import Bank, WholeModel
from rankwise.train.batch import Task
from rankwise.train.cohort import Cohort, form_cohort, new_states
from rankwise.train.loop import Batched, Ended, Evaluated, Improved, Stepped, train
from rankwise.train.run_state import RunState

VOCABULARY = 64
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64},
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "bert": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "distilbert": {
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 2,
        "max_position_embeddings": 64,
    },
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "deberta-v2": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
    },
}
TASKS = {
    "gpt2": "CAUSAL_LM",
    "llama": "CAUSAL_LM",
    "gpt_neox": "CAUSAL_LM",
    "bert": "SEQ_CLS",
    "distilbert": "SEQ_CLS",
    "t5": "SEQ_2_SEQ_LM",
    "deberta-v2": "SEQ_CLS",
}
CLASSES = {
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
}
TARGETS = {
    "gpt2": ("c_attn", "c_fc"),
    "llama": ("q_proj", "v_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense"),
    "bert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin", "lin1"),
    "t5": ("q", "v", "wo"),
    "deberta-v2": ("query_proj", "value_proj"),
}
HEADS = {"bert": ("classifier",), "distilbert": ("pre_classifier", "classifier")}
LENGTH = 16


def tiny_config(kind: str) -> Any:
    """A small configuration of this architecture, without any dropout of its own."""
    extra = {"num_labels": 3} if TASKS[kind] == "SEQ_CLS" else {}
    return transformers.AutoConfig.for_model(kind, **COMMON, **CONFIGS[kind], **extra)


def tiny_model(kind: str, seed: int = 0) -> nn.Module:
    """A frozen model with weights large enough that adapters matter."""
    torch.manual_seed(seed)
    model = CLASSES[TASKS[kind]].from_config(tiny_config(kind), attn_implementation="eager")
    return model.eval().requires_grad_(False)


def tiny_examples(task: str, count: int = 40, seed: int = 0) -> tuple[Example, ...]:
    """Examples of many lengths whose answer depends on the tokens."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        ids = draw.integers(3, VOCABULARY, draw.integers(4, LENGTH + 1))
        if task == "SEQ_CLS":
            labels = np.array(ids.sum() % 3)
        elif task == "CAUSAL_LM":
            labels = ids.copy()
            labels[: draw.integers(0, 3)] = -100
        else:
            labels = ids[::-1][: draw.integers(2, 8)].copy()
        made.append(Example(ids, labels, number, f"text {number}"))
    return tuple(made)


def tiny_arms(kind: str, arms: list[dict[str, Any]], **training: Any) -> tuple[Arm, ...]:
    """Arms of a study on a tiny model, from their differing settings."""
    columns = {
        "SEQ_CLS": {"text": "text", "label": "label"},
        "CAUSAL_LM": {"text": "text"},
        "SEQ_2_SEQ_LM": {"input": "input", "target": "target"},
    }
    spec = StudySpec.model_validate(
        {
            "study": "tiny",
            "model": {"config": {"model_type": kind}},
            "task": TASKS[kind],
            "data": {"source": "nowhere.csv", **columns[TASKS[kind]]},
            "lora": {"target_modules": TARGETS[kind]},
            "training": {
                "max_steps": 20,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-2,
                "eval_steps": 10,
                **training,
            },
            "configs": arms,
        }
    )
    return make_arms(spec)


class Told:
    """What a cohort's events said, run by run; writes the best adapters as a study does."""

    def __init__(self, writer: AdapterWriter | None = None) -> None:
        self.writer = writer
        self.events: list[Any] = []

    def train(self, cohort: Cohort, batches: int | None = None) -> "Told":
        """Train to the end, or for some batches; then the test part, if it is the end."""
        for told in train(cohort):
            self.take(cohort, told)
            if batches is not None and any(isinstance(event, Batched) for event in told):
                batches -= 1
                if not batches:
                    return self
        return self

    def take(self, cohort: Cohort, told: Sequence[Any]) -> None:
        members = {member.id: member for member in cohort.members}
        for event in (e for one in told for e in (one if isinstance(one, tuple) else (one,))):
            self.events.append(event)
            if isinstance(event, Improved) and self.writer is not None:
                member, bank = members[event.run], cohort.bank
                plan = None if isinstance(bank, WholeModel) else bank.plans[member.place]
                self.writer.save(
                    event.run, plan, member.state.best_weights, bank.start_of(member.place)
                )

    def steps(self, run: Run, name: str = "loss") -> NDArray[np.float64]:
        """A value of every optimizer step."""
        found = [e for e in self.events if isinstance(e, Stepped) and e.run == run.id]
        return np.array([getattr(event, name) for event in found])

    def evaluations(self, run: Run, split: str = "validation") -> list[Evaluated]:
        """Its evaluations, in order."""
        found = [e for e in self.events if isinstance(e, Evaluated) and e.run == run.id]
        return [event for event in found if event.split == split]

    def ended(self, run: Run) -> Ended:
        """How it ended."""
        (found,) = [e for e in self.events if isinstance(e, Ended) and e.run == run.id]
        return found


def tiny_cohort(
    kind: str,
    runs: Sequence[Run],
    folder: Path,
    base: nn.Module | None = None,
    new_modules: Sequence[str] = (),
    states: Sequence[RunState] | None = None,
    **more: Any,
) -> tuple[Cohort, Told]:
    """A cohort ready to train, of new runs or of these states, and what will be told of it."""
    model = copy.deepcopy(base) if base is not None else tiny_model(kind)
    task = TASKS[kind]
    bank: Bank | WholeModel
    if runs[0].arm.method == "full":
        bank = WholeModel(model, torch.float32, runs[0].seed, new_modules)
    else:
        adapters = [resolve_adapter(model, run.arm, task) for run in runs]
        bank = Bank(model, adapters, [run.seed for run in runs], new_modules)
    train_part = {run.arm.training_id: tiny_examples(task) for run in runs}
    settings = {"validation": tiny_examples(task, 12, seed=1), "train": train_part, **more}
    cohort = form_cohort(
        bank,
        states if states is not None else new_states(runs, settings["train"]),
        Task(task, 0, LENGTH, torch.device("cpu")),
        **settings,
    )
    return cohort, Told(AdapterWriter(folder / "adapters", "tiny", task, model))
