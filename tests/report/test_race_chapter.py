"""A raced study is told: who was stopped, on what evidence, what it took, how often it erred."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from scipy.stats import binomtest

from conftest import SPEC, grid_settings, name_of, write_study
from rankwise.cli.status import print_status, status_facts
from rankwise.report.chapters.first_screen import first_screen, plain
from rankwise.report.chapters.race import ending
from rankwise.report.document import figures_of, to_html, to_markdown
from rankwise.report.json import as_json, facts_of, facts_schema
from rankwise.report.write import tell, write_report
from rankwise.results.audit import share_interval
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records
from rankwise.spec.load import load_spec
from rankwise.store.reader import Reader
from rankwise.store.writer import Store

ARMS = [(name_of(settings), settings) for settings in grid_settings()]
KEY = {name: f"{number:012x}" for number, (name, _) in enumerate(ARMS)}
BEST, SECOND, AUDITED, ONE_SEED = (
    "r16_lr0.005_qv",
    "r4_lr0.005_qv",
    "r16_lr0.005_q",
    "r4_lr0.005_q",
)
EARLY, LATE = "r16_lr0.001_q", "r4_lr0.001_q"
HOPELESS, UNPAID = "r16_lr0.001_qv", "r4_lr0.001_qv"
STOPS = {EARLY: 40, LATE: 80}
COSTS = {name: 0.9 if name.startswith("r4") else 1.1 for name in KEY}
SPENT = 2 * 0.9 + 2 * 1.1 + 1.1 + 0.9 + 1.1 * 40 / 120 + 0.9 * 80 / 120


def decision(arm: str, share: float, **more: Any) -> dict[str, Any]:
    """A decision as the study notes it."""
    return {
        "arm": KEY[arm],
        "seeds": [0] if share else [],
        "share": share,
        "stop": True,
        "leader": KEY[BEST],
        "difference": 0.0321 if share else None,
        "forecast": 0.0456,
        "low": 0.0123,
        "high": 0.0789,
        "p": 0.0042,
        "audited": False,
        "reason": "no chance",
    } | more


def raced_study(folder: Path, **changed: Any) -> Path:
    """Eight configurations: 4 with a result, 2 stopped, 2 never begun; 2 have a second seed."""
    race = {"rungs": [0.3, 0.6], "protect": [BEST], "audit": 0.3, "at_once": 4}
    spec = {**SPEC, "seeds": [0, 1], "budget": {"runs": 8.0}, "race": race} | changed
    broken = {f"{name}/seed-0": ("pruned", "", {"step": step}) for name, step in STOPS.items()}
    further = (BEST, SECOND)
    absent = {f"{name}/seed-1" for name in KEY if name not in further}
    absent |= {f"{name}/seed-0" for name in (HOPELESS, UNPAID)}
    write_study(folder, ARMS, spec=spec, broken=broken, absent=absent)
    with Store(folder) as store:
        store.add_fact("race_costs", unit="runs", of={KEY[n]: cost for n, cost in COSTS.items()})
        for name in (BEST, ONE_SEED, EARLY, LATE):
            store.add_fact("race_start", training=KEY[name], seed=0, why="first")
        for name in (SECOND, AUDITED):
            store.add_fact("race_start", training=KEY[name], seed=0, why="promising")
        store.add_fact("race_decision", **decision(EARLY, 40 / 120))
        store.add_fact("race_decision", **decision(LATE, 80 / 120, p=0.0004, low=-0.002))
        for share in (40 / 120, 80 / 120):
            audited = decision(AUDITED, share, stop=False, audited=True, reason="audited")
            store.add_fact("race_decision", **audited)
        store.add_fact("race_decision", **decision(HOPELESS, 0.0, p=0.0011))
        for name in further:
            store.add_fact("race_start", training=KEY[name], seed=1, why="contender")
    return folder


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raced_study(tmp_path_factory.mktemp("raced") / "study")


def judged(folder: Path) -> Judgement:
    with Reader(folder) as store:
        return judge_records(read_records(store))


@pytest.fixture(scope="module")
def judgement(raced: Path) -> Judgement:
    return judged(raced)


@pytest.fixture(scope="module")
def text(judgement: Judgement) -> str:
    return to_markdown(tell(judgement))


def chapter(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, name: str) -> list[str]:
    """The cells of the first table row of a configuration."""
    line = next(x for x in text.splitlines() if x.startswith("|") and f"`{name}`" in x)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_first_lines_say_what_the_race_took_and_whom_it_stopped(judgement: Judgement) -> None:
    said = plain(first_screen(judgement)).race
    assert "7 of 8 full runs spent (a full grid: 16)" in said
    assert "2 configurations stopped early, 2 not begun" in said
    tied = AUDITED in judgement.verdict.tie_group
    assert f"the one that ran on as a check {'ended' if tied else 'did not end'} among" in said


def test_a_stopped_configuration_stands_below_without_a_value(text: str) -> None:
    ranking = chapter(text, "Ranking")
    assert row(ranking, EARLY)[:6] == ["–", f"`{EARLY}`", "stopped at 33 %", "–", "–", "–"]
    assert row(ranking, LATE)[2] == "stopped at 67 %"
    assert row(ranking, HOPELESS)[2] == row(ranking, UNPAID)[2] == "not begun"
    order = re.findall(r"^\| \S+ \| `(\S+)`", ranking.split("More columns")[0], re.MULTILINE)
    assert order[4:6] == [LATE, EARLY]
    assert set(order[6:]) == {HOPELESS, UNPAID}


def test_stopped_is_no_failure_anywhere(raced: Path, judgement: Judgement, text: str) -> None:
    assert "Runs without a result" not in text
    assert "without a result" not in plain(first_screen(judgement)).runs
    assert judgement.diagnoses == {}
    assert all(not arm.failed for arm in judgement.records.arms)
    status = status_facts(raced)
    assert status["failures"] == []
    assert {arm["name"]: arm["verdict"] for arm in status["arms"]}[EARLY] == "stopped at 33 %"
    assert "none of its" not in text


def test_a_run_that_crashed_in_a_race_is_a_failure(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study")
    with Store(folder) as store:
        run = store.run_id(KEY[ONE_SEED], 0)
        store.set_state(run, "crashed")
    found = judged(folder)
    assert list(found.diagnoses) == [f"{ONE_SEED}/seed-0"]
    assert found.records.arm(ONE_SEED).failed == (f"{ONE_SEED}/seed-0",)


def test_the_evidence_of_each_stop_is_told(text: str) -> None:
    found = chapter(text, "Race")
    cells = row(found, EARLY)
    assert cells[:3] == [f"`{EARLY}`", "33 %", f"`{BEST}`"]
    assert cells[3].startswith("0.032")
    assert cells[4].startswith("0.045") or cells[4].startswith("0.046")
    assert [float(x) for x in cells[5].split(" to ")] == pytest.approx([0.0123, 0.0789], abs=1e-3)
    assert cells[6] == "0.4 %"
    assert row(found, LATE)[6] == "\\<0.1 %"
    assert row(found, HOPELESS)[-1] == "0.1 %"
    assert f"Not begun, as the budget did not reach for them: `{UNPAID}`." in found


def test_the_audit_is_told_with_its_exact_interval(judgement: Judgement, text: str) -> None:
    hits = int(AUDITED in judgement.verdict.tie_group)
    exact = binomtest(hits, 1).proportion_ci(method="exact")
    found = chapter(text, "Race")
    assert f"{hits} of 1" in found
    assert f"{100 * exact.low:.0f} % to {100 * exact.high:.0f} %" in found
    assert row(found.split("as a check")[2], AUDITED)[1] == "33 %"


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (0, 7), (1, 7), (3, 10), (5, 5)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits: int, of: int) -> None:
    exact = binomtest(hits, of).proportion_ci(method="exact")
    assert share_interval(hits, of) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_what_was_saved_counts_steps_made_at_their_cost(judgement: Judgement) -> None:
    facts = as_json(facts_of(judgement))["race"]
    assert facts["race"]["spent"] == pytest.approx(SPENT)
    assert facts["race"]["grid"] == pytest.approx(2 * sum(COSTS.values()))
    assert facts["saved"] == pytest.approx(1 - SPENT / (2 * sum(COSTS.values())))


def test_without_noted_costs_every_run_counts_alike(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study")
    with Store(folder) as store:
        store.drop_facts("race_costs")
    race = judged(folder).records.race
    assert race is not None
    assert race.spent == pytest.approx(6 + 40 / 120 + 80 / 120)
    assert race.grid == 16


def test_no_fact_of_the_race_is_shown_as_it_is_stored(raced: Path, judgement: Judgement) -> None:
    document = tell(judgement)
    for told in (to_markdown(document), to_html(document), json.dumps(status_facts(raced))):
        assert not re.search(r"race_(start|decision|costs)", told)
        assert not re.search(r"(?<![\d.])0{11}\d(?!\d)", told)  # the ids of trainings
    notes = as_json(facts_of(judgement))["study"]["notes"]
    assert not any("race" in kind for kind, _ in notes)


def test_no_finished_run_of_a_stopped_configuration_is_offered(judgement: Judgement) -> None:
    offers = " ".join(one.sentence for one in first_screen(judgement).changes)
    everything = to_markdown(tell(judgement))
    assert "A finished run of" not in everything
    assert not {EARLY, LATE, HOPELESS} & set(re.findall(r"r\d+_lr[\d.]+_q\w*", offers))


def test_a_larger_budget_is_offered_for_those_it_did_not_reach(text: str) -> None:
    assert f"A larger budget, for `{UNPAID}`, not begun" in text


def test_curves_of_stopped_runs_end_in_a_cross(judgement: Judgement) -> None:
    document = tell(judgement)
    figure = next(one for one in figures_of(document) if one.name == "curves")
    cross = [x for x in figure.spec["layer"] if x.get("mark", {}).get("shape", "").startswith("M")]
    ends = {x["configuration"]: x["step"] for x in cross[0]["data"]["values"]}
    assert ends == STOPS
    assert "Stopped by the race" in figure.alt


def test_the_facts_hold_the_race_and_fit_their_schema(judgement: Judgement) -> None:
    facts = as_json(facts_of(judgement))
    jsonschema.validate(facts, facts_schema())
    race = facts["race"]["race"]
    assert [one["arm"] for one in race["stopped"]] == [LATE, EARLY]
    assert race["stopped"][1]["p"] == 0.0042
    assert {one["arm"] for one in race["unbegun"]} == {HOPELESS, UNPAID}
    assert [one["arm"] for one in race["audited"]] == [AUDITED]
    assert race["rounds"] == [{"number": 1, "arms": [BEST, SECOND], "seeds": [1]}]
    assert facts["first_screen"]["race"] == facts["race"]["sentence"]


def test_the_rounds_of_seeds_and_why_they_ended_are_told(judgement: Judgement, text: str) -> None:
    found = chapter(text, "Race")
    assert f"| 1 | 1 | `{BEST}` and `{SECOND}` |" in found
    race, verdict = judgement.records.race, judgement.verdict
    assert race is not None

    def why(**changed: Any) -> str:
        return ending(replace(judgement, verdict=replace(verdict, **changed)), race)

    assert "is better than all others" in why(winner=BEST)
    assert "is left" in why(winner=None, tie_group=(BEST,))
    assert "all seeds of the spec" in why(winner=None, tie_group=(BEST, SECOND))
    assert "no room" in why(winner=None, tie_group=(BEST, ONE_SEED))
    equal = tuple(replace(one, equal=True) for one in verdict.arms)
    assert "shown equal" in why(winner=None, tie_group=(BEST, ONE_SEED), arms=equal)


def test_a_race_under_way_says_so(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study")
    with Store(folder) as store:
        run = store.add_run(next(t.id for t in store.trainings() if t.key == KEY[ONE_SEED]), 1)
        assert store.run(run).state == "planned"
    found = judged(folder)
    assert "2 not begun yet" in plain(first_screen(found)).race
    race = found.records.race
    assert race is not None
    assert ending(found, race) == "runs are still to be done"
    assert "others came first so far" in to_markdown(tell(found))


def test_configurations_that_share_a_training_race_as_one(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study")
    with Store(folder) as store:
        training = next(t.id for t in store.trainings() if t.key == KEY[EARLY])
        settings = next(c.settings for c in store.configs() if c.name == EARLY)
        store.add_config("f" * 12, training, "twin", {**settings, "generation.num_beams": 4})
    race = judged(folder).records.race
    assert race is not None
    assert [one.arm for one in race.stopped] == [LATE, EARLY]
    assert race.spent == pytest.approx(SPENT)
    assert race.grid == pytest.approx(2 * sum(COSTS.values()))


def test_a_leader_that_the_spec_has_no_more_keeps_its_name(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study")
    with Store(folder) as store:
        store.set_configs({c.key: c.name for c in store.configs() if c.name != BEST})
    race = judged(folder).records.race
    assert race is not None
    assert {one.leader for one in race.stopped} == {BEST}


def test_the_recommended_spec_races_nobody(raced: Path, tmp_path: Path) -> None:
    write_report(raced, tmp_path)
    spec = load_spec(tmp_path / "recommended.yaml", [])
    assert spec.race is None
    assert spec.budget.runs is None


def test_a_study_without_a_race_has_no_chapter_on_one(plain_study: Path) -> None:
    found = judged(plain_study)
    assert found.records.race is None
    assert as_json(facts_of(found))["race"] is None
    assert "\n## Race\n" not in to_markdown(tell(found))
    assert plain(first_screen(found)).race == ""


def test_status_names_the_stopped_ones_in_words(
    raced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_status(status_facts(raced))
    out = capsys.readouterr().out
    assert "2 stopped by the race" in out
    assert "pruned" not in out


def test_tokens_are_the_unit_of_a_budget_in_tokens(tmp_path: Path) -> None:
    folder = raced_study(tmp_path / "study", budget={"tokens": 4e6})
    with Store(folder) as store:
        store.drop_facts("race_costs")
        store.add_fact("race_costs", unit="tokens", of=dict.fromkeys(KEY.values(), 250_000.0))
    said = plain(first_screen(judged(folder))).race
    assert "1,750,000 of 4,000,000 training tokens spent (a full grid: 4,000,000)" in said
