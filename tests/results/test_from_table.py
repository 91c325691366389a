"""Results that others made get the same verdicts, and no more than they can carry.

The rows are the figures of three hand-written reports on LoRA sweeps.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError
from rankwise.report.document import to_markdown
from rankwise.report.json import as_json, facts_of, read_facts
from rankwise.report.remarks import remarks_of
from rankwise.report.write import tell, write_outside_report
from rankwise.results.from_table import read_outside
from rankwise.results.judge import judge_records

SWEEP = """arm,r,alpha,dropout,scheduler,data,val_loss
exp3,24,64,0.10,linear,augmented,1.2727
exp5,32,64,0.05,linear,augmented,1.2738
exp8,32,48,0.05,linear,augmented,1.2876
exp1,16,64,0.05,cosine,augmented,1.3381
exp4,24,48,0.05,cosine,augmented,1.3385
"""
STRATEGIES = """experiment,strategy,final_eval_loss,trainable_parameters,seconds
adaptive_empirical,empirical,nan,3538944,88.8
adaptive_linear_decay,linear_decay,5.10653,6291456,83.5
adaptive_attention_heavy,attention_heavy,nan,5111808,90.2
baseline_rank8,baseline,5.31471,3145728,87.5
baseline_rank16,baseline,4.89788,6291456,81.8
"""
STRATEGY_COLUMNS = {
    "metric": "final_eval_loss",
    "arm": "experiment",
    "factors": ["strategy"],
    "costs": {"trainable_params": "trainable_parameters", "time": "seconds"},
}
FULL = """arm,method,trainable,perplexity
full,full,124734720,1.1211
lora,lora,294912,1.2537
"""


def report_on(tmp_path: Path, text: str, mapping: Any = None) -> tuple[str, dict[str, Any]]:
    (tmp_path / "results.csv").write_text(text, encoding="utf-8")
    judgement = judge_records(read_outside(tmp_path / "results.csv", mapping))
    return to_markdown(tell(judgement)), as_json(facts_of(judgement))


def test_report_and_facts_are_written_beside_the_table(tmp_path: Path) -> None:
    text, facts = report_on(tmp_path, SWEEP)
    (tmp_path / "columns.yaml").write_text("{metric: val_loss, arm: arm}", encoding="utf-8")
    path = write_outside_report(tmp_path / "results.csv", tmp_path / "columns.yaml")
    assert path == tmp_path / "results-report" / "report.html"
    assert read_facts(path.parent)["verdict"] == facts["verdict"]
    assert (path.parent / "report.md").read_text(encoding="utf-8").split()[:9] == text.split()[:9]


def test_a_sweep_of_single_runs_has_no_winner_and_an_inseparable_schedule(tmp_path: Path) -> None:
    text, facts = report_on(tmp_path, SWEEP)
    assert "**Cannot tell which configuration is best.** `exp3` has the best val loss" in text
    assert facts["verdict"]["winner"] is None
    assert facts["verdict"]["claim"] == "nothing"
    assert facts["recommendation"]["basis"] == "look"
    effects = {e["factor"]["settings"][0]: e for e in facts["effects"]["factors"]}
    assert effects["scheduler"]["separable"] is False
    assert "`scheduler`: not separable from `r` and `dropout`" in text
    assert "no record" not in effects["alpha"]["mixed_with"]
    (line,) = (one for one in text.splitlines() if one.startswith("- `scheduler`:"))
    assert not any(character.isdigit() for character in line)
    (row,) = (one for one in text.splitlines() if one.startswith("| `alpha` | `48` | `64`"))
    assert row.endswith("| 1 | cannot tell |")
    (alpha,) = effects["alpha"]["differences"]
    assert alpha["pairs"] == [["exp8", "exp5"]]
    assert alpha["value"] == pytest.approx(1.2738 - 1.2876)
    assert alpha["low_bound"] is None
    assert "same in every configuration, so their effect is unknown: `data` = `augmented`" in text


def test_without_a_recommendation_it_is_said_what_would_make_one_possible(tmp_path: Path) -> None:
    rows = "arm,learning_rate,eval_loss\na,1e-4,1.2727\nb,1e-4,1.2738\n"
    _, facts = report_on(
        tmp_path, rows.replace("arm,", "arm,r,").replace("a,1", "a,4,1").replace("b,1", "b,8,1")
    )
    detail = facts["recommendation"]["detail"]
    assert detail["arm"] is None
    assert any("second seed" in text for text in detail["would_change"])
    assert any("the only one tried" in text for text in detail["would_change"])


def test_nan_arms_are_counted_and_not_ranked(tmp_path: Path) -> None:
    text, facts = report_on(tmp_path, STRATEGIES, STRATEGY_COLUMNS)
    places = {arm["arm"]: arm["place"] for arm in facts["verdict"]["arms"]}
    assert places["adaptive_empirical"] is None
    assert places["adaptive_attention_heavy"] is None
    assert places["baseline_rank16"] == 1
    groups = {group["group"]: group for group in facts["groups"]}
    assert groups["baseline"]["mean"] == pytest.approx(5.106295)
    assert groups["baseline"]["best"] == 4.89788
    assert groups["empirical"]["failures"] == [["diverged", 1]]
    assert groups["empirical"]["mean"] is None
    assert "2 runs ended without a result (2 diverged)" in "\n".join(text.splitlines()[:10])
    assert not re.search(r"\| nan \|", text)


def test_equal_budgets_are_compared_apart(tmp_path: Path) -> None:
    text, _ = report_on(tmp_path, STRATEGIES, STRATEGY_COLUMNS)
    assert "At exactly equal budgets:" in text
    assert (
        "With 6,291,456 parameters each, `linear_decay` minus `baseline`: +0.2087 (cannot" in text
    )


def test_one_run_of_each_method_decides_nothing_and_its_price_is_still_told(
    tmp_path: Path,
) -> None:
    mapping = {
        "metric": "perplexity", "arm": "arm", "factors": ["method"],
        "costs": {"trainable_params": "trainable"},
    }  # fmt: skip
    text, facts = report_on(tmp_path, FULL, mapping)
    assert facts["verdict"]["claim"] == "nothing"
    assert "## LoRA against full fine-tuning" in text
    assert "trains 0.24 % of its parameters" in text
    assert "one set of settings only" in text


def test_accuracies_with_a_test_size_get_binomial_intervals(tmp_path: Path) -> None:
    text = "arm,lr,accuracy,test_size\na,1e-4,0.52,1319\nb,1e-3,0.50,1319\nc,1e-2,0.20,1319\n"
    report, facts = report_on(tmp_path, text)
    assert facts["verdict"]["tie_group"] == ["a", "b"]
    assert facts["verdict"]["winner"] is None
    assert facts["verdict"]["claim"] == "examples"
    (a, *_) = facts["verdict"]["arms"]
    half = 1.96 * (0.52 * 0.48 / 1319) ** 0.5
    assert a["high"] - a["low"] == pytest.approx(2 * half, rel=0.01)
    assert "best at lower edge" not in report
    sure, _ = report_on(tmp_path, text.replace("0.50", "0.30"))
    assert "best at lower edge" in sure


def test_seeds_in_a_column_are_paired_and_give_a_noise_floor(tmp_path: Path) -> None:
    rows = [f"{arm},{seed},{base + 0.01 * seed + wobble}" for arm, base, wobble in
            (("a", 1.0, 0.0), ("b", 2.0, 0.001)) for seed in range(4)]  # fmt: skip
    _, facts = report_on(tmp_path, "arm,seed,eval_loss\n" + "\n".join(rows) + "\n")
    assert facts["verdict"]["winner"] == "a"
    assert facts["verdict"]["paired"] is True
    assert facts["verdict"]["noise"]["within"] > 0


def test_rows_without_a_seed_column_are_not_paired(tmp_path: Path) -> None:
    text = "r,eval_loss\n4,1.0\n4,1.1\n8,2.0\n8,2.2\n"
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    records = read_outside(tmp_path / "x.csv")
    assert [arm.name for arm in records.arms] == ["r=4", "r=8"]
    assert len(records.seeds) == 4
    assert any("cannot be paired" in note for _, note in remarks_of(records))


@pytest.mark.parametrize(
    ("text", "mapping", "word"),
    [
        ("a,b\n1,2\n", None, "name the column of the objective metric"),
        ("a,b\n1,2\n", {"metric": "c"}, "no column 'c'; the columns are a, b"),
        ("a,b\n1,2\n", {"metric": "b", "sed": "a"}, "sed: Extra inputs"),
        ("a,b\n1,x\n", {"metric": "b"}, "column 'b' holds 'x'"),
        ("a,eval_loss\n1,2\n1,2,3\n", None, "line 3: 3 fields where the header has 2"),
        ("eval_loss\n", None, "no rows"),
        ("arm,seed,eval_loss\na,0,1\na,0,2\n", None, "two rows are a/seed-0"),
        ("arm,seed,eval_loss\na,x,1\n", None, "column 'seed' holds 'x'"),
        ("arm,accuracy,test_size\na,0.5,10\nb,0.5,20\n", None, "one test size for all"),
        ("arm,accuracy,test_size\na,52,100\n", None, "divide percentages by 100"),
    ],
)
def test_a_table_that_does_not_fit_is_one_clear_message(
    tmp_path: Path, text: str, mapping: Any, word: str
) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=word):
        write_outside_report(tmp_path / "t.csv", mapping, tmp_path / "out")


PEFT = Path(__file__).parents[3] / "shared" / "data" / "peft_metamathqa"


@pytest.mark.skipif(not PEFT.is_dir(), reason="PEFT's public results are not here")
def test_of_63_public_results_most_of_the_order_does_not_survive() -> None:
    judgement = judge_records(read_outside(PEFT))
    facts = as_json(facts_of(judgement))
    assert len(facts["arms"]) == 63
    assert facts["verdict"]["winner"] is None
    assert facts["verdict"]["claim"] == "examples"
    tied = facts["verdict"]["tie_group"]
    assert tied[0] == "lily/llama-3.2-3B-rank140-mlp-a2-b2-s8.0"
    assert 10 < len(tied) < 40
    assert "ln_tuning/llama-3.2-3B-default" not in tied
    json.dumps(facts, allow_nan=False)
