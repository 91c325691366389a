"""Every setting of the spec makes another configuration, with other numbers."""

import json

import numpy as np
import pytest

from black_box import make_study, rankwise

# A value that differs from the common ones below; whether training shows it.
OTHER = {
    "data.max_samples": 20,
    "data.augment.factor": 3,
    "data.augment.operations": ["insert"],
    "data.augment.share": 0.5,
    "data.augment.template": "{text} so they say",
    "data.augment.seed": 1,
    "training.max_steps": 3,
    "training.per_device_train_batch_size": 3,
    "training.gradient_accumulation_steps": 2,
    "training.learning_rate": 2e-2,
    "training.lr_scheduler_type": "cosine_with_restarts",
    "training.lr_scheduler_kwargs": {"num_decay_steps": 4},
    "training.warmup_steps": 2,
    "training.warmup_ratio": 0.5,
    "training.optim": "adafactor",
    "training.weight_decay": 0.5,
    "training.adam_beta1": 0.5,
    "training.adam_beta2": 0.7,
    "training.adam_epsilon": 1e-3,
    "training.max_grad_norm": 0.0,
    "training.loraplus_lr_ratio": 8,
    "training.eval_steps": 3,
    "training.early_stopping_patience": 1,
    "training.early_stopping_threshold": 9.0,
    "training.class_weights": "balanced",
    "training.label_smoothing_factor": 0.2,
    "training.neftune_noise_alpha": 5.0,
    "lora.r": 5,
    "lora.lora_alpha": 32,
    "lora.lora_dropout": 0.4,
    "lora.target_modules": ["query"],
    "lora.exclude_modules": r".*\.1\..*",
    "lora.layers_to_transform": [1],
    "lora.bias": "all",
    "lora.use_rslora": True,
    "lora.use_dora": True,
    "lora.init_lora_weights": "gaussian",
    "lora.rank_pattern": {r".*\.1\..*": 6},
    "lora.alpha_pattern": {r".*\.1\..*": 40},
    "lora.modules_to_save": ["pooler"],
    "ranks.strategy": "linear_decay",
    "ranks.budget": 576,
    "ranks.direction": "up",
    "ranks.ratio": 2.0,
    "ranks.batches": 1,
    "ranks.custom": {"query": 6, "value": 2},
}
# What must hold beside it, so that the setting has an effect.
BESIDE = {
    "training.lr_scheduler_kwargs": {"training.lr_scheduler_type": "warmup_stable_decay"},
    "training.early_stopping_patience": {
        "training.learning_rate": 0.3,
        "training.lr_scheduler_type": "constant",
        "training.max_steps": 12,
    },
    "training.early_stopping_threshold": {"training.early_stopping_patience": 1},
    "ranks.direction": {"ranks.strategy": "linear_decay"},
    "ranks.ratio": {"ranks.strategy": "linear_decay"},
    "ranks.batches": {"ranks.strategy": "empirical", "lora.r": 16},
    "ranks.custom": {"ranks.strategy": "custom", "ranks.custom": {"query": 2, "value": 6}},
}
ELSEWHERE = {
    "method": "a classifier trained in full has no adapter to share anything with",
    "model.quantization": "needs modules of 64 values",
    "data.augment.function": "tests/cli/test_data_values.py",
    "training.num_train_epochs": "instead of max_steps: tests below",
}
WITHOUT_EFFECT = ("training.per_device_eval_batch_size",)
GENERATION = {
    "generation.prompts": ["where is the cat?", "where is the ram?"],
    "generation.prompts_from_validation": 1,
    "generation.max_new_tokens": 4,
    "generation.do_sample": True,
    "generation.temperature": 0.5,
    "generation.top_p": 0.5,
    "generation.num_beams": 2,
    "generation.seed": 1,
}
SECTIONS = ("training", "lora", "ranks", "generation")


def name_of(setting):
    return setting.replace(".", "-").replace("_", "-")


def one_setting_apart():
    """Configurations by name, and for every setting the two that differ in it alone."""
    configurations, pairs = {"common": {}}, {}
    for setting, value in OTHER.items():
        beside = BESIDE.get(setting, {})
        known = [name for name, changes in configurations.items() if changes == beside]
        reference = known[0] if known else f"{name_of(setting)}-not"
        configurations[reference] = beside
        configurations[name_of(setting)] = {**beside, setting: value}
        pairs[setting] = (reference, name_of(setting))
    return configurations, pairs


def test_every_setting_of_the_spec_is_among_those_tried_here():
    code, out, _ = rankwise("schema")
    assert code == 0
    schema = json.loads(out)

    def fields(node):
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        return node["properties"]

    top = fields(schema)
    known = {f"{section}.{name}" for section in SECTIONS for name in fields(top[section])}
    known |= {f"data.augment.{name}" for name in fields(fields(top["data"])["augment"])}
    assert known <= {*OTHER, *ELSEWHERE, *WITHOUT_EFFECT, *GENERATION}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(
        tmp_path_factory.mktemp("settings"),
        configurations=one_setting_apart()[0],
        data={"augment": {"factor": 2}},
        lora={"lora_alpha": 8},
        training={"max_steps": 6, "eval_steps": 2},
    )


def test_configurations_that_differ_in_one_setting_are_told_apart(study):
    plan = study.plan()
    assert plan["trainings"] == plan["runs"] == len(one_setting_apart()[0])


def test_every_setting_changes_what_is_trained(study):
    """Also none is read and then ignored."""
    study.run()
    runs = {run["arm"]: run for run in study.facts()["runs"]}
    assert {run["state"] for run in runs.values()} == {"done", "stopped_early"}
    for setting, pair in one_setting_apart()[1].items():
        curves = [np.array(runs[name]["train_curve"] + runs[name]["curve"]) for name in pair]
        same = curves[0].shape == curves[1].shape and np.allclose(*curves, rtol=0, atol=1e-7)
        assert not same, setting


def test_epochs_are_told_apart_and_become_steps(tmp_path):
    study = make_study(
        tmp_path,
        configurations={
            "half": {},
            "more": {"training.num_train_epochs": 1.2},
            "third": {"training.num_train_epochs": 0.33},
            "thrice": {"training.gradient_accumulation_steps": 3},
        },
        training={"max_steps": None, "num_train_epochs": 0.5},
    )
    steps = {arm["name"]: arm["steps"] for arm in study.plan()["arms"]}
    # 40 rows, 4 a batch; the last step may take up rows of a further epoch
    assert steps == {"half": 5, "more": 12, "third": 4, "thrice": 2}


def test_settings_of_generation_make_configurations_that_share_a_training(tmp_path):
    common = {"generation.prompts": ["where is the cat?"]}
    sampled = {**common, "generation.do_sample": True}
    configurations = {"common": common, "sampled": sampled}
    for setting, value in GENERATION.items():
        beside = sampled if setting.endswith(("temperature", "top_p", "seed")) else common
        if setting != "generation.do_sample":
            configurations[name_of(setting)] = {**beside, setting: value}
    plan = make_study(tmp_path, "gpt2", "text", configurations=configurations).plan()
    assert plan["runs"] == len(configurations)
    assert plan["trainings"] == 1


def test_a_setting_without_effect_makes_no_configuration_of_its_own(tmp_path):
    for setting in WITHOUT_EFFECT:
        study = make_study(tmp_path, configurations={"one": {}, "two": {setting: 5}})
        code, _, err = rankwise("plan", study.spec)
        assert code == 2
        assert "same configuration" in err
