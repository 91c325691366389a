"""Arms that differ in generation alone are one training, and count as one."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankwise.report.compare import compare_arms
from rankwise.report.document import to_markdown
from rankwise.report.json import read_facts
from rankwise.report.write import tell
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.store.schema import Answer
from rankwise.store.writer import Store
from stored import labels

Settings = dict[str, Any]


def warm(settings: Settings, temperature: float) -> Settings:
    return {**settings, "generation.temperature": temperature}


def with_twin(make_study: Any, settings: list[Settings], name: str) -> Path:
    """Arms cool and other, and warm, which is trained as cool is."""
    arms = [("cool", warm(settings[0], 0.0)), ("other", warm(settings[3], 0.0))]
    folder: Path = make_study(name, arms=[*arms, ("warm", warm(settings[0], 1.0))], answers=True)
    with Store(folder) as store:
        cool, warmer = (one for one in store.configs() if one.name in ("cool", "warm"))
        store.add_config(warmer.key, cool.training_id, warmer.name, warmer.settings)
        for record in store.answers():
            if record.config_id == warmer.id and record.run_id is not None:
                seed = store.run(record.run_id).seed
                said = record.answers
                store.save_answers(warmer.id, record.run_id, [])
                store.save_answers(warmer.id, labels(store)[f"cool/seed-{seed}"], said)
    return folder


@pytest.fixture
def twins(make_study: Any, some_settings: list[Settings]) -> Path:
    return with_twin(make_study, some_settings, "twins")


def test_a_shared_training_enters_the_judgement_once(
    make_study: Any, some_settings: list[Settings], twins: Path
) -> None:
    arms = [("cool", warm(some_settings[0], 0.0)), ("other", warm(some_settings[3], 0.0))]
    alone, shared = read_facts(make_study("alone", arms=arms, answers=True)), read_facts(twins)
    for part in ("verdict", "on_test", "front", "effects", "shapes", "learning_rate"):
        assert shared[part] == alone[part], part
    assert [arm["twin_of"] for arm in shared["arms"]] == [None, None, "cool"]
    json.dumps(shared, allow_nan=False)


def test_an_arm_with_a_shared_training_is_shown_and_said_to_be_so(twins: Path) -> None:
    with Store(twins) as store:
        text = to_markdown(tell(judge_records(read_records(store))))
    ranking = text.split("## Ranking")[1].split("\n## ")[0]
    rows = [line for line in ranking.splitlines() if line.startswith("|")]
    place = next(n for n, row in enumerate(rows) if "| `cool` |" in row)
    assert rows[place + 1].startswith("| – | `warm` | shares the training of `cool` |")
    assert (
        "`warm` shares the training of `cool` and differs from it only in generation settings"
        in ranking
    )
    curves = text.split("## Learning curves")[1].split("\n## ")[0]
    assert "`cool`" in curves
    assert "`warm`" not in curves
    assert "hello from warm" in text


def test_comparing_one_training_with_itself_compares_the_answers_alone(twins: Path) -> None:
    text, facts = compare_arms(twins, "cool", "warm")
    assert "their losses come from the same runs" in text
    assert facts["metrics"] == []
    assert "hello from warm" in text
    assert "hello from cool" in text


def asked_base(folder: Path, of: str, answer: str) -> None:
    """The base's answer with the generation settings of an arm."""
    measures = {"tokens": 3.0, "words": 2.0}
    said = Answer("Say <b>hello</b>", "hello", answer, (), measures)
    with Store(folder) as store:
        config = next(config for config in store.configs() if config.name == of)
        store.save_answers(config.id, None, [said])


def answers_chapter(folder: Path) -> str:
    with Store(folder) as store:
        text = to_markdown(tell(judge_records(read_records(store))))
    return text.split("## Sample answers")[1].split("\n## ")[0]


def test_the_base_answers_beside_an_arm_with_that_arm_s_generation_settings(
    make_study: Any, some_settings: list[Settings]
) -> None:
    arms = [(f"arm{n}", warm(some_settings[n], n / 2)) for n in range(2)]
    folder = make_study(arms=[*arms, ("arm2", warm(some_settings[2], 0.0))], base=False,
                        answers=True, examples=30)  # fmt: skip
    asked_base(folder, "arm0", "um um um")
    asked_base(folder, "arm1", "one two three")
    text = answers_chapter(folder)
    assert "Untrained base, generation as `arm1` | 1 | 3.000 | 2.000" in text
    assert {"um um um", "one two three"} <= {line.strip("> ") for line in text.splitlines()}
    compared, _ = compare_arms(folder, "arm0", "arm2")
    assert "| Untrained base | 1 |" in compared
    assert "one two three" not in compared


def test_variety_is_that_of_the_answers_of_a_run(make_study: Any) -> None:
    folder = make_study(base=False, answers=True, examples=30)
    asked_base(folder, "r4_lr0.001_q", "um um um oh")
    row = next(r for r in answers_chapter(folder).splitlines() if r.startswith("| Untrained"))
    assert [cell.strip() for cell in row.strip("|").split("|")][-2:] == ["0.500", "0.500"]


def test_the_untouched_base_stands_by_the_ranking(make_study: Any) -> None:
    folder = make_study(examples=30)
    with Store(folder) as store:
        store.save_base_metrics({"eval_loss": 4.25, "eval_perplexity": 70.125})
        text = to_markdown(tell(judge_records(read_records(store))))
    ranking = text.split("## Ranking")[1].split("\n## ")[0]
    assert "without any training: validation loss 4.2500 and validation perplexity 70.12" in ranking


def test_an_arm_is_compared_by_the_training_that_it_shares(twins: Path) -> None:
    _, own = compare_arms(twins, "cool", "other")
    _, shared = compare_arms(twins, "warm", "other")
    for one, two in zip(own["metrics"], shared["metrics"], strict=True):
        assert two == {**one, "better": "warm" if one["better"] == "cool" else one["better"]}
    assert own["metrics"][0]["better"] == "other"
