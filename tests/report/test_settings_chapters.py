"""What the report says of settings: averages, where they hold, and a second estimate beside it."""

from pathlib import Path
from typing import Any

import pytest

from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records
from rankwise.store.reader import Reader

Settings = dict[str, Any]
RATE = "training.learning_rate"


def judged(folder: Path) -> tuple[Judgement, str]:
    with Reader(folder) as store:
        judgement = judge_records(read_records(store))
    return judgement, to_markdown(tell(judgement))


def section(text: str, title: str) -> str:
    return text.split(f"## {title}")[1].split("\n## ")[0]


def crossed(settings: Settings) -> float:
    """The higher rate is better at the small rank and worse at the large one."""
    high = settings["training.learning_rate"] > 0.002
    return 0.5 + 0.1 * (high == (settings["lora.r"] > 4))


def synergy(settings: Settings) -> float:
    """One configuration is better than its settings say."""
    one = settings["lora.r"] > 4 and settings["training.learning_rate"] > 0.002
    return 0.5 - 0.3 * (one and len(settings["lora.target_modules"]) > 1)


def test_an_average_over_opposite_effects_is_said_to_be_one(make_study: Any) -> None:
    judgement, text = judged(make_study(truth=crossed, seeds=(0, 1, 2)))
    own = section(text, "What each setting does")
    assert "not significant on average; depends on `lora.r`" in own
    assert "| `0.001` | `0.005` | `lora.r` = `4` | -0.1" in own
    assert judgement.interactions is not None
    simple = {
        one.at: one.value
        for one in judgement.interactions.simple
        if (one.factor, one.other) == (RATE, "lora.r")
    }
    assert simple == pytest.approx({"4": -0.1, "16": 0.1}, abs=0.02)


def test_each_rank_is_compared_at_its_own_best_learning_rate(make_study: Any) -> None:
    judgement, text = judged(make_study(truth=crossed, seeds=(0, 1, 2)))
    own = section(text, "Each at its own best learning rate")
    chosen = {dict(row.structure)["lora.r"]: row.chosen for row in judgement.tuned}
    assert chosen == {"4": 0.005, "16": 0.001}
    assert "No combination is significantly worse than the best of the others." in own
    assert own.count("| tied |") == 4


def test_the_second_estimate_names_its_assumption_and_what_to_try(make_study: Any) -> None:
    judgement, text = judged(make_study())
    own = section(text, "If settings act smoothly")
    assert "does not replace the verdict" in own
    assert "no significant deviation was found" in own
    assert "Worth trying next under this assumption" in own
    assert judgement.smooth is not None
    assert set(judgement.smooth.best) <= set(judgement.verdict.tie_group)


def test_a_refuted_assumption_gives_no_predictions(make_study: Any) -> None:
    judgement, text = judged(make_study(truth=synergy, seeds=(0, 1, 2)))
    own = section(text, "If settings act smoothly")
    assert judgement.smooth is not None
    assert judgement.smooth.misfit_arm == "r16_lr0.005_qv"
    assert "The assumption is refuted" in own
    assert "Worth trying" not in own
    assert "predicted validation loss" not in own


def test_ranges_that_share_one_rate_are_said_to(
    make_study: Any, some_settings: list[Settings]
) -> None:
    base = some_settings[0]
    tried = [(("query",), rate) for rate in (1e-4, 3e-4, 1e-3)]
    tried += [(("query", "value"), rate) for rate in (1e-3, 3e-3, 1e-2)]
    arms = [
        (
            f"{'v' if len(t) > 1 else 'q'}_{r:g}",
            {**base, "lora.target_modules": list(t), "training.learning_rate": r},
        )
        for t, r in tried
    ]
    _, text = judged(make_study(arms=arms, truth=lambda s: 0.5 - 0.1 * (s[RATE] == 3e-3)))
    own = section(text, "What each setting does")
    assert "at other values of `training.learning_rate`" in own
    assert "decides nothing between them" in own
