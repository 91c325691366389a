"""Snippets say what was trained: peft takes them as they are, trainers get names and numbers."""

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from peft import LoraConfig, get_peft_model

from black_box import make_study
from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.memory import footprint
from rankwise.adapters.peft_files import peft_settings
from rankwise.base.skeleton import skeleton
from rankwise.report.trainers import axolotl_snippet, llama_factory_snippet, peft_snippet
from rankwise.results.from_store import read_records
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from rankwise.store.writer import Store
from skeletons import counts
from test_examples import KINDS, shortened

SETTINGS = {
    "method": "lora", "training.learning_rate": 0.0002, "training.max_steps": 100,
    "training.warmup_steps": 10, "training.lr_scheduler_type": "cosine",
    "training.per_device_train_batch_size": 4, "training.max_grad_norm": 0.0,
}  # fmt: skip
ADAPTER = {
    "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"], "use_rslora": True,
}  # fmt: skip


def records_with(settings=(), adapter=(), model=(), **data):
    """As much of a study's records as snippets read: one configuration, called arm."""
    settings, columns = SETTINGS | dict(settings), data or {"prompt": "p", "completion": "c"}
    spec = {
        "study": "s", "task": "CAUSAL_LM", "model": {"name": "org/model", **dict(model)},
        "data": {"source": "x", "max_length": 256, **columns},
    }  # fmt: skip
    known = {} if settings["method"] == "full" else ADAPTER | dict(adapter)
    return records_of(spec, settings, known)


def records_of(spec, settings, adapter):
    facts = SimpleNamespace(settings=settings, adapter=adapter)
    study = {"spec": spec, "model": {"dtype": "bfloat16"}}
    return SimpleNamespace(study=study, arm=lambda name: facts)


def config_of(records: Any, arm: str) -> LoraConfig:
    made: dict[str, Any] = {}
    exec(peft_snippet(records, arm) or "", made)
    return made["config"]


def llama_factory(records: Any) -> dict[str, Any]:
    return yaml.safe_load(llama_factory_snippet(records, "arm") or "")


def axolotl(records: Any) -> dict[str, Any]:
    return yaml.safe_load(axolotl_snippet(records, "arm") or "")


@pytest.mark.parametrize("name", KINDS)
def test_peft_trains_what_was_counted_by_the_snippet_of_every_example(name, tmp_path):
    spec = load_spec(shortened(name, tmp_path))
    model = skeleton(spec.model, spec.task)
    for arm in make_arms(spec):
        if arm.method == "full":
            continue
        adapter = resolve_adapter(model, arm, spec.task)
        if adapter.provisional:
            importance = {name: 1.0 + n for n, name in enumerate(adapter.modules)}
            adapter = resolve_adapter(model, arm, spec.task, importance)
        told = peft_settings(adapter, spec.task)
        config = config_of(records_of({}, {}, told), "arm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of tied embeddings
            adapted = get_peft_model(copy.deepcopy(model), config)
        counted = footprint(model, adapter)
        assert counts(adapted) == (counted.trainable, counted.total)
        for name, module in adapter.modules.items():
            layer = adapted.base_model.model.get_submodule(name)
            assert layer.r["default"] == module.rank
            assert layer.scaling["default"] == pytest.approx(module.scaling, rel=1e-15)


def test_a_study_stores_what_its_snippet_needs(tmp_path):
    study = make_study(
        tmp_path,
        "llama",
        "text",
        {
            "plain": {"lora.target_modules": "attention"},
            "pattern": {"lora.rank_pattern": {"q_proj": 2}},
            "decay": {"ranks.strategy": "linear_decay"},
        },
    ).run()
    with Store(study.out) as store:
        records = read_records(store)
    for arm in records.arms:
        config = config_of(records, arm.name)
        assert set(config.target_modules) >= {"q_proj", "v_proj"}
        assert bool(config.rank_pattern) is (len(set(arm.ranks.values())) > 1)
        assert bool(config.rank_pattern) is (arm.name != "plain")
    assert "LoraConfig(" in (study.out / "report.html").read_text()


def test_the_peft_snippet_makes_the_configuration():
    expected = LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, use_rslora=True,
        target_modules=["q_proj", "v_proj"], bias="none",
    )  # fmt: skip
    assert config_of(records_with(), "arm").to_dict() == expected.to_dict()


def test_full_fine_tuning_and_older_studies_have_no_peft_snippet():
    records = records_with({"method": "full"})
    assert peft_snippet(records, "arm") is None
    older = records_of({"task": "CAUSAL_LM"}, SETTINGS, {})
    assert peft_snippet(older, "arm") is None
    assert llama_factory_snippet(older, "arm") is None
    assert axolotl_snippet(older, "arm") is None


def test_trainers_get_the_settings_in_their_own_names():
    records = records_with({"model.quantization": "nf4"})
    factory = llama_factory(records)
    assert (factory["lora_rank"], factory["lora_alpha"], factory["lora_target"]) == (
        16, 32, "q_proj,v_proj",
    )  # fmt: skip
    assert (factory["quantization_bit"], factory["use_rslora"]) == (4, True)
    assert (factory["learning_rate"], factory["max_grad_norm"]) == (0.0002, 0)
    assert (factory["template"], factory["bf16"]) == ("empty", True)
    found = axolotl(records)
    assert (found["adapter"], found["load_in_4bit"]) == ("qlora", True)
    assert (found["micro_batch_size"], found["max_steps"]) == (4, 100)
    assert found["lora_target_modules"] == ["q_proj", "v_proj"]
    assert (found["lr_scheduler"], found["excess_length_strategy"]) == ("cosine", "truncate")


def test_full_fine_tuning_names_no_adapter():
    records = records_with({"method": "full"}, text="text")
    assert llama_factory(records)["finetuning_type"] == "full"
    assert not {key for key in axolotl(records) if "lora" in key or key == "adapter"}


def test_the_width_of_int8_is_said():
    records = records_with({"model.quantization": "int8"})
    assert llama_factory(records)["quantization_bit"] == 8
    assert axolotl(records)["load_in_8bit"] is True


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"warmup_steps": 10}),
        ({"training.warmup_steps": 0}, {"warmup_steps": 0}),
        ({"training.warmup_steps": 0, "training.warmup_ratio": 0.025}, {"warmup_steps": 3}),
        (
            {
                "training.warmup_steps": 0,
                "training.warmup_ratio": 0.025,
                "training.max_steps": None,
                "training.num_train_epochs": 2.0,
            },
            {"warmup_ratio": 0.025},
        ),
    ],
)
def test_the_warm_up_is_said_in_steps_where_their_number_is_known(settings, wanted):
    records = records_with(settings)
    for found in (llama_factory(records), axolotl(records)):
        assert {key: found[key] for key in found if key.startswith("warmup")} == wanted


def test_the_steps_of_a_decay_are_those_of_rankwise():
    records = records_with({"training.lr_scheduler_type": "warmup_stable_decay"})
    for found in (llama_factory(records), axolotl(records)):
        steps = {"num_decay_steps": 10, "num_stable_steps": 80}
        assert found["lr_scheduler_kwargs"] == steps


REFUSED = [
    ({"rank_pattern": {"a.q_proj": 4}}, "differ between modules (rank_pattern)", None),
    ({"alpha_pattern": {"q": 2.5}}, "(alpha_pattern)", "not whole numbers (alpha_pattern)"),
    ({"target_modules": r"a\.q"}, "as a regular expression", None),
    ({"init_lora_weights": "olora"}, "init_lora_weights: olora", None),
    ({"init_lora_weights": False}, "init_lora_weights: False", "init_lora_weights: False"),
    ({"bias": "all"}, "trained biases (bias: all)", "trained biases (bias: all)"),
    ({"lora_alpha": 2.5}, "not a whole number (2.5)", "not a whole number (2.5)"),
    ({}, None, None),
]


@pytest.mark.parametrize(("adapter", "factory", "other"), REFUSED)
def test_what_a_trainer_cannot_express_is_said_and_nothing_else_is_written(adapter, factory, other):
    records = records_with(adapter=adapter)
    for snippet, words in ((llama_factory_snippet, factory), (axolotl_snippet, other)):
        text = snippet(records, "arm") or ""
        if words is None:
            assert "cannot express" not in text
            assert yaml.safe_load(text)
        else:
            assert words in text
            assert yaml.safe_load(text) is None


def test_axolotl_takes_ranks_of_single_modules():
    patterns = {"rank_pattern": {"a.q_proj": 4}, "alpha_pattern": {"a.q_proj": 8}}
    found = axolotl(records_with(adapter=patterns))
    assert found["lora_rank_pattern"] == {"a.q_proj": 4}
    assert found["lora_alpha_pattern"] == {"a.q_proj": 8}


def test_label_smoothing_is_written_or_said_to_be_missing():
    records = records_with({"training.label_smoothing_factor": 0.1})
    assert llama_factory(records)["label_smoothing_factor"] == 0.1
    assert axolotl(records) is None
    assert "label smoothing (0.1)" in (axolotl_snippet(records, "arm") or "")


def test_the_noise_of_neftune_is_written_and_what_differs_is_said():
    records = records_with({"training.neftune_noise_alpha": 5.0})
    for snippet in (llama_factory_snippet, axolotl_snippet):
        text = snippet(records, "arm") or ""
        assert yaml.safe_load(text)["neftune_noise_alpha"] == 5
        assert "scaled by the padded length" in text


def test_the_optimizer_is_written():
    records = records_with({"training.optim": "adafactor"})
    assert (llama_factory(records)["optim"], axolotl(records)["optimizer"]) == ("adafactor",) * 2
    assert axolotl(records_with())["optimizer"] == "adamw_torch"


def test_what_else_differs_is_said_above_the_file():
    records = records_with(
        {
            "data.augment.factor": 3,
            "training.early_stopping_patience": 2,
            "model.quantization": "int8",
            "training.warmup_steps": 1,
        }
    )
    for text in (llama_factory_snippet(records, "arm"), axolotl_snippet(records, "arm")):
        assert "data.augment.factor: 3" in text
        assert "early_stopping_patience" in text
        assert "threshold 6" in text
    assert "two steps of a warm-up of one" in (axolotl_snippet(records, "arm") or "")


@pytest.mark.parametrize(
    "model",
    [
        {"name": "pkg://some/model"},
        {"name": "here", "gguf_file": "m.gguf"},
        {"name": None, "config": {"model_type": "gpt2"}},
    ],
)
def test_a_base_that_only_rankwise_reads_is_left_to_be_named(model):
    records = records_with(model=model)
    assert llama_factory(records)["model_name_or_path"] == "YOUR_MODEL"
    assert axolotl(records)["base_model"] == "YOUR_MODEL"


def test_the_format_of_rows_is_named_where_the_spec_names_it_and_left_open_elsewhere():
    def axolotl(**data):
        text = axolotl_snippet(records_with(**data), "arm")
        return text, yaml.safe_load(text)["datasets"][0]

    text, rows = axolotl(format="sharegpt")
    assert rows["field_messages"] == "conversations"
    assert rows["message_property_mappings"] == {"role": "from", "content": "value"}
    assert axolotl(format="sharegpt", messages="talk")[1]["field_messages"] == "talk"
    text, rows = axolotl(format="alpaca")
    assert rows["type"] == "chat_template"
    assert "# rankwise made messages of instruction" in text
    text, rows = axolotl(format="auto")
    assert rows == {"path": "YOUR_DATASET", "type": "YOUR_TYPE"}
    assert "which format the rows have: name it below" in text
    assert llama_factory(records_with(format="auto"))["template"] == "YOUR_TEMPLATE"


def test_which_tokens_are_learnt_is_said_as_the_trainers_say_it():
    for name, setting in (("all", "train_on_prompt"), ("last", "mask_history")):
        assert llama_factory(records_with(messages="m", train_on=name))[setting] is True
        assert setting not in llama_factory(records_with(messages="m"))
    text = axolotl_snippet(records_with(messages="m", train_on="all"), "arm")
    assert yaml.safe_load(text)["train_on_inputs"] is True
    refused = axolotl_snippet(records_with(messages="m", train_on="last"), "arm")
    assert "cannot express" in refused
    assert "data.train_on: last" in refused
