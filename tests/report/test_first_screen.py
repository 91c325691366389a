"""The first screen answers what to use, how much worse it can be, and what would change that.

And it agrees with the rest of the report: contradictions that reports once had stay away.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.cli.status import print_status, status_facts
from rankwise.report.chapters.first_screen import FirstScreen, first_screen, plain, screen_lines
from rankwise.report.document import to_html, to_markdown
from rankwise.report.write import tell
from rankwise.results.from_store import read_records
from rankwise.results.from_table import read_outside
from rankwise.results.judge import Judgement, judge_records
from rankwise.store.schema import Reload
from rankwise.store.writer import Store
from rankwise.text import at_most, bounds

Settings = dict[str, Any]


def judged(folder: Path) -> Judgement:
    with Store(folder) as store:
        return judge_records(read_records(store))


def screen_of(judgement: Judgement) -> FirstScreen:
    return plain(first_screen(judgement))


def markdown(judgement: Judgement) -> str:
    return to_markdown(tell(judgement))


def opening(text: str) -> str:
    return text.split("## Ranking")[0]


def chapter(text: str, title: str) -> str:
    return text.split(f"## {title}")[1].split("\n## ")[0]


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the first table whose head begins like this."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(first))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def gap(size: float) -> Callable[[Settings], float]:
    """The truth of a study in which one setting alone matters, by so much."""
    return lambda settings: 0.5 + (0.0 if settings["lora.r"] > 4 else size)


def two(settings: list[Settings]) -> list[tuple[str, Settings]]:
    return [("small", settings[0]), ("large", settings[-1])]


def outside(tmp_path: Path, rows: str) -> Judgement:
    (tmp_path / "t.csv").write_text(rows, encoding="utf-8")
    return judge_records(read_outside(tmp_path / "t.csv"))


@pytest.fixture
def by_basis(
    make_study: Any, some_settings: list[Settings], tmp_path: Path
) -> Callable[[str], Judgement]:
    """A judged study for each basis of a recommendation, and for each way to have none."""

    def make(basis: str) -> Judgement:
        arms = two(some_settings)
        if basis == "winner":
            return judged(make_study(arms=arms, truth=gap(0.2), seeds=(0, 1, 2)))
        if basis == "runs":
            return judged(make_study(arms=arms, truth=gap(0.2), seeds=(0,)))
        if basis == "tie":
            return judged(make_study())
        if basis == "within":
            objective = {"metric": "eval_loss", "cost": "trainable_params", "tolerance": 0.1}
            return judged(make_study(arms=arms, truth=gap(0.0), spec={"objective": objective}))
        if basis == "only":
            return judged(make_study(arms=arms[:1], examples=50))
        if basis == "look":
            return outside(tmp_path, "arm,eval_loss\na,1.2727\nb,1.2738\n")
        folder = make_study(arms=arms, examples=50)
        with Store(folder) as store:
            if basis == "none":
                for run in store.runs():
                    store.restart_run(run.id)
            records = read_records(store)
        if basis == "withdrawn":
            wrong = Reload(16, 0.5, 0.9, False)
            records = replace(records, reloads={run.id: wrong for run in records.runs})
        return judge_records(records)

    return make


BASES = ("winner", "runs", "tie", "within", "only", "look", "none", "withdrawn")


@pytest.mark.parametrize("basis", BASES)
def test_three_questions_are_answered_whatever_came_out(
    by_basis: Callable[[str], Judgement], basis: str
) -> None:
    judgement = by_basis(basis)
    assert judgement.choice.basis == basis
    screen, text = screen_of(judgement), opening(markdown(judgement))
    if basis in ("look", "none", "withdrawn"):
        assert screen.arm is None
        assert screen.use.startswith("No recommendation: ")
        assert "Use `" not in text
    else:
        assert text.splitlines()[2].startswith(f"**Use `{screen.arm}`**")
    assert ("Not known" in screen.worse) == (screen.worse_by is None)
    if screen.worse_by is not None and screen.arm is not None:
        bound = judgement.verdict.distance(screen.arm).high
        assert screen.worse_by == (0.0 if basis in ("winner", "runs") else bound)
    assert screen.changes
    assert len(list(screen.changes)) <= 3
    lines = [line for part in screen_lines(screen) for line in textwrap.wrap(part, 120)]
    assert len(lines) <= 12


def test_a_rival_is_named_with_what_telling_it_apart_takes(make_study: Any) -> None:
    """In runs and in hours, by the time that a run took."""
    screen = screen_of(judged(make_study(truth=lambda s: 0.5 + 0.0005 * s["lora.r"])))
    change = next(one for one in screen.changes if one.runs)
    assert change.hours is not None
    assert 0 < change.hours < change.runs  # a run of these takes seconds
    assert re.search(r"\d+ runs, about [0-9.,]+ (s|min|h), to tell `?\w+", change.sentence)
    assert "likely if they truly differ as observed" in change.sentence


def test_a_second_seed_is_priced_where_there_is_one(by_basis: Callable[[str], Judgement]) -> None:
    (change,) = (c for c in screen_of(by_basis("runs")).changes if "second seed" in c.sentence)
    assert change.runs == 2
    assert change.hours is not None


def test_missing_runs_are_what_would_change_an_unfinished_study(make_study: Any) -> None:
    folder = make_study(truth=gap(0.2))
    with Store(folder) as store:
        store.restart_run(store.runs()[0].id)
    screen = screen_of(judged(folder))
    assert screen.use.startswith("So far ")
    assert screen.changes[0].sentence.startswith("The run not done yet: 1 run")


@pytest.mark.parametrize("basis", ["winner", "runs", "tie", "within"])
def test_no_number_has_more_digits_than_its_error_bears(
    by_basis: Callable[[str], Judgement], basis: str
) -> None:
    """Two digits of the narrowest bound, two of a plan, whole percents."""
    judgement = by_basis(basis)
    screen = screen_of(judgement)
    for number in re.findall(r"\d+\.(\d+)(?! %)", f"{screen.use} {screen.worse} {screen.cost}"):
        assert len(number) <= judgement.digits
    narrowest = min(d.high for d in judgement.verdict.distances if d.high)
    assert narrowest * 10**judgement.digits < 100
    for one in screen.changes:
        for number in re.findall(r"([\d,.]+\d) (?:runs|s|min|h)\b", one.sentence):
            digits = number.replace(",", "").replace(".", "").strip("0")
            assert len(digits) <= 2, one.sentence


def test_a_printed_bound_holds_as_it_is_printed() -> None:
    values = np.random.default_rng(1).lognormal(-3, 2, 300)
    for low, high in zip(np.minimum(values, 2 * values[::-1]), values * 3, strict=True):
        below, above = map(float, bounds(low, high, 3).split(" to "))
        assert below <= low < below + 0.001
        assert above - 0.001 < high <= above
    assert bounds(0.25, 0.5, 2) == "0.25 to 0.50"
    assert at_most(0.07 * 3, 2) == "0.21"


def test_a_winner_is_not_said_to_be_worse_than_another(
    by_basis: Callable[[str], Judgement],
) -> None:
    """Its two-sided bound may be above zero where its one-sided test is clear."""
    judgement = by_basis("winner")
    found = judgement.choice.recommendation
    assert found.distance is not None
    wide = replace(found, distance=replace(found.distance, high=0.01))
    screen = screen_of(replace(judgement, choice=replace(judgement.choice, recommendation=wide)))
    assert screen.worse.startswith("No other is better; the next, small, is worse by ")
    assert screen.worse_by == 0.0


def test_status_says_the_first_screen_and_the_ranking(
    plain_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = status_facts(plain_study)
    print_status(facts)
    said = capsys.readouterr().out
    together = " ".join(said.split())
    judgement = judged(plain_study)
    for line in screen_lines(first_screen(judgement)):
        assert line in together
    ranking = said[said.index("behind, at most") :]
    rows = [line.split() for line in ranking.splitlines()[1:9]]
    places = {arm.arm: str(arm.place) for arm in judgement.verdict.arms}
    assert [(row[0], row[1]) for row in rows] == [
        (places[arm["name"]], arm["name"]) for arm in facts["arms"]
    ]


def test_the_columns_that_decide_stand_first_and_the_rest_folds_away(plain_study: Path) -> None:
    judgement = judged(plain_study)
    text = chapter(markdown(judgement), "Ranking")
    head = cells(text, "|  | configuration | verdict |")[0]
    assert head[2:] == ["verdict", "validation loss", "behind best", "at most",
                        "trainable parameters"]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells(text, "|  | conf"), strict=True)]
    assert sum(widths) < 90
    more = cells(text, "|  | configuration | 95 % bounds |")
    assert len(more) == 9
    page = to_html(tell(judgement))
    folded = page.split("<summary>More columns of the ranking</summary>")[1].split("</details>")[0]
    assert "own 95 % interval" in folded
    assert "<details><summary>More columns" in page
    assert "<details" not in text


# What contradicted itself once.


def test_no_tied_configuration_has_bounds_that_leave_out_zero_and_no_bound_is_unadjusted() -> None:
    rng = np.random.default_rng(5)
    tied = out = 0
    for study in range(12):
        arms, seeds, examples = 3 + study % 5, 2 + study % 3, 40
        x_ASE = rng.standard_normal((1, 1, examples)) + rng.standard_normal((arms, 1, examples))
        x_ASE = x_ASE + 0.5 * rng.standard_normal((arms, seeds, 1))
        x_ASE = x_ASE + 0.3 * np.arange(arms)[:, None, None]
        names = tuple("abcdefg"[:arms])
        verdict = judge(Scores("eval_loss", names, tuple(range(seeds)), x_ASE))
        for one in verdict.arms:
            distance = verdict.distance(one.arm)
            assert distance.low is not None
            assert distance.high is not None
            assert distance.low <= distance.value <= distance.high
            assert not one.tied or distance.low == 0
            assert one.tied == (one.arm in verdict.tie_group)
            tied, out = tied + one.tied, out + (not one.tied)
    assert tied > 12
    assert out > 5


def test_ranking_and_curves_name_the_same_value(plain_study: Path) -> None:
    text = markdown(judged(plain_study))
    ranked = {row[1]: row[3] for row in cells(chapter(text, "Ranking"), "|  | conf")[1:]}
    head, *rows = cells(chapter(text, "Learning curves"), "| configuration")
    assert {row[0]: row[head.index("ranked")] for row in rows} == ranked


def test_best_at_an_edge_is_said_of_the_configuration_that_is_there(plain_study: Path) -> None:
    judgement = judged(plain_study)
    rows = cells(chapter(markdown(judgement), "Ranking"), "|  | configuration | 95 %")
    marks = {row[1].strip("`"): row[-1] for row in rows[1:]}
    edges = {name: mark for name, mark in marks.items() if "edge" in mark}
    assert edges
    for name, mark in edges.items():
        rate = judgement.records.arm(name).settings["training.learning_rate"]
        assert rate == (0.005 if "upper" in mark else 0.001)


def test_worse_is_said_as_worse_and_never_as_a_signed_difference(
    make_study: Any, some_settings: list[Settings]
) -> None:
    full = {**some_settings[0], "method": "full", "lora.r": 0}
    arms = [("lora", some_settings[-1]), ("full", full)]
    text = markdown(judged(make_study(arms=arms, truth=lambda s: 0.5 + 0.002 * s["lora.r"])))
    said = opening(text) + chapter(text, "Ranking") + chapter(text, "The configuration to use")
    said += chapter(text, "LoRA against full fine-tuning")
    assert re.search(r"worse by \d", said)
    assert "differs by" not in said
    assert "differs from it by" not in said
    assert not re.search(r"[+]\d", said)


def test_standard_deviations_are_not_split_into_parts(plain_study: Path) -> None:
    text = markdown(judged(plain_study))
    (noise,) = (line for line in text.splitlines() if line.startswith("- Noise floor"))
    assert "of which" not in text
    assert "remain" not in noise


def test_groups_are_called_groups(plain_study: Path) -> None:
    judgement = judged(plain_study)
    assert judgement.verdict.unit == "groups of examples"
    text = markdown(judgement)
    assert "other groups of examples" in opening(text)
    assert "other examples" not in opening(text) + chapter(text, "Ranking")
    spec = {**judgement.records.study["spec"], "data": {"split": {"by": "movie_name"}}}
    named = replace(judgement.records, study={**judgement.records.study, "spec": spec})
    holds = screen_of(judge_records(named)).holds
    assert holds == "Other seeds, and other groups of examples (by movie_name) of the same kind."


def test_with_one_seed_each_claim_is_one_of_these_runs(make_study: Any) -> None:
    text = markdown(judged(make_study(seeds=(0,))))
    assert "tied for best of these runs:**" in text
    assert "against the best of these runs" in opening(text)
    assert "the best validation loss of these runs" in opening(text)
    verdicts = [row[2] for row in cells(chapter(text, "Ranking"), "|  | conf")[1:]]
    assert "ruled out (these runs)" in verdicts
    assert "ruled out" not in verdicts
    assert "of these runs;" in chapter(text, "Quality against cost")


def test_a_setting_that_interacts_is_not_simply_called_without_effect(make_study: Any) -> None:
    def crossed(settings: Settings) -> float:
        high = settings["training.learning_rate"] > 0.002
        return 0.5 + 0.1 * (high == (settings["lora.r"] > 4))

    judgement = judged(make_study(truth=crossed, seeds=(0, 1, 2)))
    own = chapter(markdown(judgement), "What each setting does")
    said = {row[0].strip("`"): row[-1] for row in cells(own, "| setting | from | to | change")[1:]}
    assert said["lora.target_modules"] == "not significant"
    for one, other in (("lora.r", "training.learning_rate"), ("training.learning_rate", "lora.r")):
        assert said[one].endswith(f"depends on `{other}`")


def test_nobody_is_passed_over(make_study: Any) -> None:
    """The best mean is used, or the cheapest within a tolerance; no interval strikes one out."""
    judgement = judged(make_study())
    assert judgement.choice.arm == judgement.verdict.best
    assert not re.search(r"passed over|left out(?! of this)", opening(markdown(judgement)))
