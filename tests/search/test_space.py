"""The space of a search: what may be searched, and one message for every mistake in it."""

import pytest

from rankwise.errors import SpecError
from rankwise.search.space import Choices, Range, point_in, space_of
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from searches import study


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"space": {"lora.r": [4]}}, "search.space: has one point"),
        ({"space": {}}, "search.space: has one point"),
        ({"space": {"lora.rank": [4, 8]}}, "lora.rank: no such setting"),
        ({"space": {"lora.r": []}}, "lora.r: must be a list of values or a range"),
        ({"space": {"lora.r": 4}}, "lora.r: must be a list of values or a range"),
        ({"space": {"lora.r": {"low": 8, "high": 4}}}, "low must be below high, found low 8"),
        ({"space": {"lora.r": {"low": 8, "high": 8}}}, "low must be below high"),
        ({"space": {"lora.r": {"low": 4}}}, "lora.r: high: is required"),
        ({"space": {"lora.r": {"low": 4, "high": 8, "step": 2}}}, "step: no such setting"),
        ({"space": {"lora.lora_dropout": {"low": 0, "high": 0.2, "log": True}}}, "low above 0"),
        ({"space": {"lora.r": [4, 0]}}, "search.space.lora.r: lora.r: must be"),
        ({"space": {"lora.r": {"low": -2, "high": 8}}}, "search.space.lora.r: lora.r: must be"),
        ({"space": {"lora.r": [4, 4.0]}}, "make the same configuration"),
        (
            {"space": {"lora.target_modules": [["q", "v"], ["v", "q"]]}},
            "make the same configuration",
        ),
        ({"space": {"method": ["lora", "full"]}}, "method: cannot be searched"),
        ({"space": {"data.max_samples": [10, 20]}}, "data.max_samples: cannot be searched"),
        ({"space": {"model.name": ["a", "b"]}}, "must be the same in all configurations"),
        ({"grid": {"lora.r": [4, 8]}}, "lora.r: is in grid as well"),
        ({"search": {"sampler": "grid"}}, "sampler grid needs a list of values"),
        ({"search": {"sampler": "random", "startup": 4}}, "startup: has no effect with sampler"),
        (
            {"space": {"lora.r": [4, 8]}, "search": {"sampler": "grid", "warm_start": ["a"]}},
            "warm_start: has no effect with sampler grid",
        ),
    ],
)
def test_a_mistake_in_the_space_is_one_message_with_its_place(parts, said):
    with pytest.raises(SpecError) as raised:
        space_of(study(**parts))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget: {}", "search: needs a budget"),
        ("search: {space: {lora.r: [4, 8]}, sampler: tpr}", "search.sampler: must be one of tpe"),
        ("search: {space: {lora.r: [4, 8]}, startup: 0}", "search.startup: must be"),
        ("search: {sampler: tpe}", "search.space: is required"),
        ("search: {space: {lora.r: [4, 8]}, most: -1}", "search.most: must be"),
        ("search: {space: {lora.r: [4, 8]}, samplr: tpe}", "no such setting; nearest: sampler"),
    ],
)
def test_a_mistake_in_the_section_is_one_message_with_its_place(tmp_path, text, said):
    key = text.partition(":")[0]
    parts = {
        "budget": "budget: {runs: 8}",
        "search": "search: {space: {lora.r: [4, 8]}}",
        key: text,
    }
    spec = tmp_path / "study.yaml"
    spec.write_text(
        "study: s\nmodel: {name: nowhere}\ntask: SEQ_CLS\n"
        "data: {source: rows.csv, text: text, label: label}\n" + "\n".join(parts.values())
    )
    with pytest.raises(SpecError) as raised:
        load_spec(spec)
    assert said in str(raised.value)


def test_a_space_may_be_written_nested_and_overridden(tmp_path):
    spec = tmp_path / "study.yaml"
    spec.write_text(
        "study: s\nmodel: {name: nowhere}\ntask: SEQ_CLS\nbudget: {runs: 8}\n"
        "data: {source: rows.csv, text: text, label: label}\n"
        "search: {space: {lora: {r: [4, 8]}, training: {learning_rate: {low: 1e-4, high: 1e-2}}}}"
    )
    found = load_spec(
        spec, ["search.space.lora.r=[2, 4]", "search.space.training.learning_rate.log=true"]
    )
    assert found.search.space == {
        "lora.r": [2, 4],
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    }


def test_numbers_of_a_list_are_in_order_and_ranges_of_whole_settings_are_whole():
    space = space_of(
        study({"lora.r": [16, 4, 8], "training.warmup_steps": {"low": 0, "high": 10},
               "training.weight_decay": {"low": 0, "high": 1}})
    )  # fmt: skip
    assert space.dimensions == (
        Choices("lora.r", (4, 8, 16)),
        Range("training.warmup_steps", 0, 10, False, True),
        Range("training.weight_decay", 0, 1, False, False),
    )
    assert space.size is None
    assert space_of(study({"lora.r": {"low": 2, "high": 5}})).size == 4


def test_every_point_of_a_range_lies_in_it_with_few_digits():
    one = Range("training.learning_rate", 1.234e-5, 9.876e-3, True, False)
    values = [one.at(n / 997) for n in range(998)]
    assert values == sorted(values)
    assert values[0] == 1.234e-5
    assert values[-1] == 9.876e-3
    assert all(float(f"{value:.3g}") == value for value in values[1:-1])


def test_a_configuration_lies_in_the_space_where_the_rest_is_as_proposals_have_it():
    spec = study(
        configs=[
            {"name": "inside", "lora.r": 8, "training.learning_rate": 1e-3},
            {"name": "rank", "lora.r": 5, "training.learning_rate": 1e-3},
            {"name": "rate", "lora.r": 8, "training.learning_rate": 0.1},
            {"name": "other", "lora.r": 8, "training.weight_decay": 0.1},
        ]
    )
    points = [point_in(space_of(spec), spec, arm.settings) for arm in make_arms(spec)]
    assert points == [{"training.learning_rate": 1e-3, "lora.r": 8}, None, None, None]


def test_names_in_the_grid_do_not_depend_on_what_is_proposed():
    spec = study({"lora.r": [2, 4, 8]}, grid={"training.learning_rate": [1e-3, 1e-4]})
    alone = [arm.name for arm in make_arms(spec)]
    more = make_arms(spec, [("new", {"lora.r": 2})])
    assert [arm.name for arm in more] == [*alone, "new"]


def test_without_grid_and_configs_all_configurations_are_proposed():
    assert make_arms(study()) == ()
