"""Arms: what they are called, what identifies them, and what cannot be one."""

import pytest

from rankwise.errors import SpecError
from rankwise.spec.arms import make_arms, varying_settings
from rankwise.spec.identity import LATER, identity
from rankwise.spec.models import StudySpec


def study(**parts):
    base = {
        "study": "reviews",
        "model": {"name": "somewhere/model"},
        "task": "SEQ_CLS",
        "data": {"source": "rows.csv", "text": "text", "label": "category"},
        "training": {"max_steps": 20},
        "lora": {"target_modules": ["query", "value"]},
    }
    return StudySpec.model_validate(base | parts)


def one(**changes):
    (arm,) = make_arms(study(configs=[changes] if changes else []))
    return arm


def refused(**parts):
    with pytest.raises(SpecError) as caught:
        make_arms(study(**parts))
    return str(caught.value)


def test_a_grid_and_a_list_make_arms_in_order():
    arms = make_arms(
        study(
            grid={"lora.r": [4, 16], "training.learning_rate": [1e-3, 5e-3]},
            configs=[{"name": "wide", "lora": {"r": 64, "target_modules": "all-linear"}}],
        )
    )
    assert [(a.lora.r, a.training.learning_rate) for a in arms] == [
        (4, 1e-3), (4, 5e-3), (16, 1e-3), (16, 5e-3), (64, 5e-5),
    ]  # fmt: skip
    assert arms[-1].name == "wide"
    assert arms[-1].lora.target_modules == "all-linear"


def test_without_grid_and_list_the_spec_itself_is_the_arm():
    assert one().name == "r8_a8"


def test_names_say_what_varies():
    arms = make_arms(
        study(
            grid={
                "lora.r": [24, 32],
                "lora.lora_alpha": [64],
                "lora.lora_dropout": [0.1, 0.05],
                "training.lr_scheduler_type": ["linear", "cosine"],
            }
        )
    )
    assert arms[0].name == "r24_d10_linear"
    assert arms[-1].name == "r32_d05_cosine"


def test_the_names_of_the_first_report_come_out():
    arms = make_arms(
        study(
            data={"source": "x", "text": "t", "label": "l", "augment": {"factor": 3}},
            configs=[
                {"lora.r": 24, "lora.lora_alpha": 64, "lora.lora_dropout": 0.1},
                {"lora.r": 16, "lora.lora_alpha": 48, "lora.lora_dropout": 0.05,
                 "training.lr_scheduler_type": "cosine", "data.augment.factor": 1},
            ],
        )
    )  # fmt: skip
    assert [a.name for a in arms] == ["r24_a64_d10_linear_aug3x", "r16_a48_d05_cosine_original"]


@pytest.mark.parametrize(
    ("key", "values", "names"),
    [
        ("lora.target_modules", [["query"], ["query", "value"], "all-linear"],
         ["query", "query+value", "all"]),
        ("training.learning_rate", [1e-3, 2.5e-4, 0.01], ["lr1e-3", "lr2.5e-4", "lr0.01"]),
        ("lora.use_dora", [False, True], ["plain", "dora"]),
        ("lora.target_modules", [".*layer[.][01].*(query|value)", "attention"],
         ["layer-.-01-.-query-value", "attention"]),
        ("model.quantization", ["none", "nf4"], ["plain", "nf4"]),
        ("lora.lora_dropout", [0.0, 0.125], ["d00", "d12.5"]),
        ("data.max_samples", [None, 500], ["plain", "n500"]),
        ("ranks.strategy", ["uniform", "linear_decay"], ["uniform", "decay"]),
    ],
)  # fmt: skip
def test_names_are_short_and_fit_a_file_system(key, values, names):
    assert [a.name for a in make_arms(study(grid={key: values}))] == names


def test_alpha_that_follows_the_rank_is_not_told_twice():
    arms = make_arms(study(lora={"lora_alpha": "2r"}, grid={"lora.r": [4, 16]}))
    assert [a.name for a in arms] == ["r4", "r16"]
    arms = make_arms(study(lora={"lora_alpha": "sqrt"}, grid={"lora.r": [4, 16]}))
    assert [a.name for a in arms] == ["r4_a2", "r16_a4"]


def test_different_arms_never_share_a_name():
    long = [[f"layer.{n}.attention.query" for n in range(8 + k)] for k in range(3)]
    arms = make_arms(study(grid={"lora.target_modules": long}))
    assert len({a.name for a in arms}) == 3
    assert max(len(a.name) for a in arms) < 80


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"lora.r": 16, "training.learning_rate": 1e-4},
         {"training": {"learning_rate": 0.0001}, "lora": {"r": 16.0}}),
        ({"lora.target_modules": ["value", "query"]}, {"lora.target_modules": ["query", "value"]}),
        ({"lora.lora_alpha": "2r"}, {"lora.lora_alpha": 16}),
        ({"lora.layers_to_transform": 1}, {"lora.layers_to_transform": [1]}),
        ({"method": "full"}, {"method": "full", "name": "everything"}),
        ({"lora.r": 8}, {"training.per_device_eval_batch_size": 1}),
    ],
)  # fmt: skip
def test_equal_meaning_is_equal_identity(left, right):
    assert one(**left).id == one(**right).id


@pytest.mark.parametrize(
    "changes",
    [{"lora.r": 4}, {"lora.lora_alpha": 9}, {"training.learning_rate": 1e-4}, {"method": "full"},
     {"lora.bias": "all"}, {"data.max_samples": 10}, {"data.augment.factor": 2},
     {"model.quantization": "nf4"}, {"lora.target_modules": "query"},
     {"training.label_smoothing_factor": 0.1}, {"training.optim": "sgd"},
     {"training.neftune_noise_alpha": 5}, {"ranks.budget": 100},
     {"lora.init_lora_weights": "pissa"}],
)  # fmt: skip
def test_another_meaning_is_another_identity(changes):
    assert one(**changes).id != one().id
    assert one(**changes).training_id != one().training_id


@pytest.mark.parametrize(
    "parts",
    [{"model": {"name": "another"}}, {"task": "CAUSAL_LM", "data": {"source": "x", "text": "t"}},
     {"data": {"source": "rows.csv", "text": "text", "label": "category", "max_length": 9}}],
)  # fmt: skip
def test_another_model_task_or_data_is_another_identity(parts):
    (arm,) = make_arms(study(**parts))
    assert arm.id != one().id


def test_what_changes_no_result_is_no_part_of_the_identity():
    (arm,) = make_arms(study(study="other", hardware={"max_runs": 2}, seeds=[7, 8]))
    assert arm.id == one().id


def test_settings_that_came_later_leave_the_identity_of_older_studies():
    """A study of a version that did not have them is not trained again."""
    spec = study()
    (arm,) = make_arms(spec)
    older = {name: value for name, value in arm.settings.items() if name not in LATER}
    assert arm.settings.keys() > older.keys()
    assert identity(spec, older) == arm.id


def test_arms_that_differ_in_generation_alone_share_one_training():
    arms = make_arms(
        study(generation={"prompts": ["Who?"]}, grid={"generation.max_new_tokens": [50, 100]})
    )
    assert arms[0].id != arms[1].id
    assert arms[0].training_id == arms[1].training_id
    assert [a.name for a in arms] == ["new50", "new100"]


def test_the_varying_settings_are_named_in_the_order_of_the_spec():
    arms = make_arms(
        study(grid={"lora.r": [4, 8], "training.learning_rate": [1e-3, 1e-2], "lora.bias": ["all"]})
    )
    assert varying_settings(arms) == ("training.learning_rate", "lora.r")
    assert varying_settings(arms[:1]) == ()


def test_a_full_arm_has_no_adapter_settings():
    arm = one(method="full")
    assert not any(key.startswith(("lora.", "ranks.")) for key in arm.settings)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"grid": {"lora.r": []}}, "grid.lora.r: the list of values is empty"),
        ({"grid": {"lora.rr": [4]}}, "grid.lora.rr: no such setting; nearest: r"),
        ({"grid": {"r": [4]}}, "grid.r: no such setting; nearest: lora.r"),
        ({"grid": {"lora": [4]}}, "grid.lora: is a section; name a setting in it"),
        ({"grid": {"data.max_length": [4]}},
         "grid.data.max_length: must be the same in all configurations"),
        ({"grid": {"lora.r": [4, "x"]}}, "grid: lora.r: must be a whole number, found 'x'"),
        ({"grid": {"lora.r": [4, 4.0]}}, "are the same configuration; remove one"),
        ({"grid": {"lora.r": list(range(1, 200)), "training.max_steps": list(range(1, 200))}},
         "39,601 configurations, but at most 10,000 are allowed"),
        ({"configs": [{"lora": {"learning_rate": 3}}]},
         "configs[0]: lora.learning_rate: no such setting; nearest: training.learning_rate"),
        ({"configs": [{"name": "a"}, {"name": "A", "lora.r": 4}]}, "the name 'A' is given twice"),
        ({"configs": [{"name": "a b"}]}, "configs[0]: name: must be made of letters, digits"),
        ({"configs": [{"name": "best"}]}, "configs[0]: name: 'best' is reserved"),
        ({"configs": [{"name": 3}]}, "found 3"),
        ({"configs": [{"method": "full", "lora.r": 4}]},
         "configs[0]: lora.r: has no effect in this configuration, because its method is full"),
        ({"configs": [{"training.num_train_epochs": 2}]}, "set training.max_steps: null"),
        ({"configs": [{"training.optim": "sgd", "training.adam_beta1": 0.5}]},
         "training.adam_beta1: has no effect in this configuration, because training.optim is sgd"),
        ({"configs": [{"training.optim": "lion"}]}, "configs[0]: training.optim: must be"),
        ({"configs": [{"ranks.ratio": 2}]}, "ranks.strategy is uniform"),
        ({"configs": [{"data.augment.share": 0.2}]}, "data.augment.factor is 1"),
        ({"configs": [{"generation.temperature": 0.2}]}, "nothing is generated"),
        ({"configs": [{"training.early_stopping_threshold": 0.2}]}, "patience is not given"),
        ({"configs": [{"method": "full", "model.quantization": "int8"}]},
         "int8 weights cannot be trained in full; use method: lora"),
        ({"configs": [{"method": "full", "training.loraplus_lr_ratio": 4}]}, "no matrix B"),
        ({"configs": [{"ranks.strategy": "linear_decay", "lora.rank_pattern": {"query": 3}}]},
         "remove lora.rank_pattern"),
        ({"configs": [{"training": {"warmup_steps": 3, "warmup_ratio": 0.1}}]},
         "configs[0]: training: give `warmup_steps` or `warmup_ratio`, not both"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_arm_is_refused_with_its_place(parts, words):
    assert words in refused(**parts)


def test_settings_of_data_make_other_trainings_but_their_defaults_those_of_before():
    """A study that was begun before there were these settings has them at their defaults."""

    def named(**data):
        columns = {"source": "x.jsonl", "messages": "messages", **data}
        (arm,) = make_arms(study(task="CAUSAL_LM", data=columns))
        return arm.training_id

    assert named() == named(format="auto", train_on="completions")
    assert len({named(), named(format="messages"), named(train_on="all")}) == 3
