"""The guide says what studies found and what it costs, names its sources, and says what to do."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError
from rankwise.report.document import Document, to_markdown
from rankwise.report.guide import write_guide
from rankwise.report.guide_findings import findings_on, observations_of
from rankwise.report.guide_settings import setting_section
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.store.reader import Reader


def section(text: str, title: str) -> str:
    """One section of a guide, without its heading."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def advice(text: str, title: str) -> dict[str, str]:
    """What to do about one setting: the bullets by their strong words."""
    return dict(re.findall(r"- \*\*(.+?):\*\* (.+)", section(text, title)))


def judged(folder: Path) -> Any:
    with Reader(folder) as store:
        return judge_records(read_records(store))


def recommending(judgement: Any, arm: str) -> Any:
    """The judgement, as if this configuration had been recommended."""
    found = replace(judgement.choice.recommendation, arm=arm)
    choice = replace(judgement.choice, arm=arm, recommendation=found)
    return replace(judgement, choice=choice)


def told_of(key: str, judgement: Any) -> str:
    """The section of a guide on one setting."""
    told = setting_section(key, observations_of(judgement), [judgement])
    return to_markdown(Document("a guide", (), (told,)))


def rank_counts(settings: dict[str, Any]) -> float:
    """A truth in which the rank alone matters."""
    return 0.6 - 0.005 * settings["lora.r"]


def test_each_varied_setting_gets_its_numbers_and_the_literature(plain_study: Path) -> None:
    text = write_guide([plain_study])
    rate = section(text, "Learning rate")
    assert "| `reviews` | `0.001` | `0.005` | -0.0" in rate
    assert "| better |" in rate
    assert "(Biderman et al. 2024, section 4.7)" in rate
    assert "No significant contradictions were found." in text
    assert "not significant |" in section(text, "Rank (r)")
    assert "arXiv:2405.09673" in section(text, "Sources")


def test_a_step_has_the_price_of_the_pairs_that_differ_in_it_alone(plain_study: Path) -> None:
    # 6,144 parameters for each rank and target, 12 bytes and 12 microseconds for each (conftest)
    row = next(line for line in section(write_guide([plain_study]), "Rank (r)").splitlines()
               if line.startswith("| `reviews` | `4` | `16` |"))  # fmt: skip
    assert "| +73,728 to +147,456 | +864.0 KiB to +1.7 MiB | +885 ms to +1.8 s | 4 |" in row


def test_a_setting_that_changes_no_work_has_no_price(plain_study: Path) -> None:
    text = write_guide([plain_study])
    assert "| training time |" in section(text, "Rank (r)")
    rate = section(text, "Learning rate")
    assert "| study | from | to | change | 95 % interval | effect | pairs |" in rate


def test_studies_that_contradict_each_other_are_named(plain_study: Path, make_study: Any) -> None:
    def other_way(settings: dict[str, Any]) -> float:
        return 0.5 + (0.05 if settings["training.learning_rate"] > 0.002 else 0.0)

    opposite = make_study("opposite", truth=other_way, examples=200)
    lead = write_guide([plain_study, opposite]).split("## The studies")[0]
    assert "**Contradictions:**" in lead
    assert "`learning_rate` from `0.001` to `0.005`: better in `reviews (" in lead
    assert str(opposite) in lead


def test_a_finding_against_a_source_is_said_with_the_source(make_study: Any) -> None:
    text = write_guide([make_study(truth=rank_counts, examples=200)])
    lead = text.split("## The studies")[0]
    assert (
        "`r` from `4` to `16`: better in `reviews`, where Hu et al. 2021, section 7.2 rep" in lead
    )
    assert "As in Biderman et al. 2024" in lead


@pytest.mark.parametrize("arm", ["r4_lr0.005_qv", "r16_lr0.001_q"])
def test_a_setting_ends_with_what_the_recommended_configuration_has(
    arm: str, plain_study: Path
) -> None:
    judgement = recommending(judged(plain_study), arm)
    rank, rate, targets = re.findall(r"r(\d+)_lr([\d.]+)_(\w+)", arm)[0]
    start = advice(told_of("r", judgement), "Rank (r)")["Start with"]
    assert start.startswith(f"In `reviews`: `{rank}`, as the recommended configuration has it (")
    start = advice(told_of("learning_rate", judgement), "Learning rate")["Start with"]
    assert start.startswith(f"In `reviews`: `{rate}`, ")
    start = advice(told_of("target_modules", judgement), "Target modules")["Start with"]
    names = {"q": "query", "qv": "query, value"}[targets]
    assert start.startswith(f"In `reviews`: `{names}`, ")
    assert "Literature: all-linear (Dettmers et al. 2023; " in start


def test_studies_that_say_the_same_are_named_together(make_study: Any) -> None:
    text = write_guide([make_study("one"), make_study("two")])
    start = advice(text, "Learning rate")["Start with"]
    assert re.match(r"In `reviews \(.+one\)` and `reviews \(.+two\)`: `0\.005`, as the ", start)


def test_raising_without_a_gain_says_how_much_better_it_may_be_at_most(plain_study: Path) -> None:
    judgement = recommending(judged(plain_study), "r4_lr0.005_qv")
    (step,) = findings_on("r", observations_of(judgement))[0].steps
    low = step.difference.low_bound
    assert low is not None
    assert low < 0 < (step.difference.high_bound or 0)
    said = advice(told_of("r", judgement), "Rank (r)")["Raise when"]
    most = f"{-low:.{judgement.digits}f}"
    assert said.startswith(f"In `reviews`: to `16` no significant change ({most} better at most).")
    assert "Literature: training data have more tokens" in said


def test_a_raise_that_pays_is_said_with_its_gain_and_its_price(make_study: Any) -> None:
    judgement = recommending(judged(make_study(truth=rank_counts, examples=200)), "r4_lr0.001_q")
    said = told_of("r", judgement)
    gain = r"to `16`, which is better by 0\.0[56]\d* \(0\.0\d+ to 0\.0\d+\)"
    price = r"\(trainable parameters \+73,728 to \+147,456, "
    assert re.search(rf"Raise when:\*\* In `reviews`: {gain} {price}", said)


def test_what_is_above_the_highest_value_is_called_unknown(plain_study: Path) -> None:
    said = advice(write_guide([plain_study]), "Learning rate")["Raise when"]
    assert "`0.005` is the highest value tried; what is above is not known" in said


def test_spending_less_says_what_is_saved_and_what_is_lost(make_study: Any) -> None:
    folder = make_study(truth=rank_counts, examples=200)
    judgement = judged(folder)
    (step,) = findings_on("r", observations_of(judgement))[0].steps
    found = step.difference
    assert found.value is not None
    assert found.value < 0
    loss = f"{-found.value:.{judgement.digits}f}"
    said = advice(write_guide([folder]), "Rank (r)")["Spend less with"]
    assert said.startswith("In `reviews`: `4` (trainable parameters -147,456 to -73,728, memory -")
    assert f", which is worse by {loss} (" in said


def test_a_setting_that_saves_memory_alone_is_a_way_to_spend_less(tmp_path: Path) -> None:
    rows = [
        f"{quantization},{seed},{quantization},1000,{memory},{0.5 + 0.001 * seed + shift:.4f}"
        for quantization, memory, shift in (("none", 3_000_000, 0.0), ("nf4", 1_000_000, 0.0002))
        for seed in (0, 1, 2)
    ]
    head = "arm,seed,quantization,trainable_params,memory,eval_loss"
    (tmp_path / "t.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    said = advice(write_guide([tmp_path / "t.csv"]), "Quantisation")
    assert "`none`, as the recommended configuration has it" in said["Start with"]
    saved = "`nf4` (trainable parameters the same, memory -1.9 MiB)"
    assert saved in said["Spend less with"]


def test_without_a_recommendation_no_start_is_given(tmp_path: Path) -> None:
    table = "arm,dropout,eval_loss\na,0.1,1.2\nb,0.05,1.3\n"
    (tmp_path / "sweep.csv").write_text(table, encoding="utf-8")
    said = advice(write_guide([tmp_path / "sweep.csv"]), "Dropout")
    assert "no start is given (best mean; no recommendation" in said["Start with"]
    assert said["Raise when"].startswith("In `sweep`: cannot tell. Literature: ")


def test_inseparable_settings_get_no_number_and_one_section_of_values(tmp_path: Path) -> None:
    table = "arm,dropout,scheduler,eval_loss\na,0.1,linear,1.2\nb,0.05,cosine,1.3\n"
    (tmp_path / "sweep.csv").write_text(table, encoding="utf-8")
    text = write_guide([tmp_path / "sweep.csv"])
    dropout = section(text, "Dropout")
    assert "change together; the values are their joint effect" in dropout
    assert "cannot tell" in dropout
    schedule = section(text, "Schedule")
    assert "their joint effect stands under Dropout" in schedule
    assert "| study |" not in schedule


def test_settings_that_no_study_varied_have_the_advice_of_the_literature(plain_study: Path) -> None:
    unseen = section(write_guide([plain_study]), "Not varied in these studies")
    assert "from the literature" in unseen
    row = next(line for line in unseen.splitlines() if line.startswith("| **Quantisation** |"))
    assert "| none, if the base fits into memory in 16 bits (Li et al. 2023) |" in row
    assert "**Rank (r)**" not in unseen
    assert "<details><summary>Quantisation: the literature</summary>" in unseen


def test_little_memory_names_the_leanest_configuration_and_what_it_loses(plain_study: Path) -> None:
    text = section(write_guide([plain_study]), "With little memory")
    assert "`r4_lr0.001_q` needs the least memory, " in text or "`r4_lr0.005_q` needs" in text
    assert "; against the best mean it is worse by 0.0" in text
    assert "examples/start_little_memory.yaml" in text


def test_nothing_to_read_is_an_error_that_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one study or more"):
        write_guide([])
    with pytest.raises(DataError, match="not found"):
        write_guide([tmp_path / "nowhere"])
