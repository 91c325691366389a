"""The report says what the records bear, names what failed, and is the same for the same store."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from rankwise.report import figures
from rankwise.report.charts import svg_file
from rankwise.report.json import read_facts
from rankwise.report.trainers import recommended_yaml
from rankwise.report.write import write_report
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from rankwise.store.schema import Failure
from rankwise.store.writer import Store
from stored import labels

FILES = ("report.md", "report.html", "recommended.yaml", "runs.csv", "figures/ranking.svg")


@pytest.fixture(scope="module")
def report(plain_study: Path) -> Path:
    assert write_report(plain_study) == plain_study / "report.html"
    return plain_study


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_the_same_store_gives_the_same_bytes_in_another_process(report: Path) -> None:
    before = {name: (report / name).read_bytes() for name in FILES}
    code = "import sys; from pathlib import Path; from rankwise.report.write import write_report\n"
    command = [sys.executable, "-c", code + "write_report(Path(sys.argv[1]))", str(report)]
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    assert {name: (report / name).read_bytes() for name in FILES} == before


def test_a_picture_does_not_depend_on_what_was_drawn_before() -> None:
    rows = [figures.EffectRow("a", "f", 1.0, 0.5, 1.5, True)]
    first = svg_file(figures.effects(rows, "change", "alt"))
    curve = [figures.CurvePoint("a", step, 1.0, 0.9, 1.1) for step in (1, 2)]
    svg_file(figures.curves(curve, ["a"], "loss", "alt"))
    assert svg_file(figures.effects(rows, "change", "alt")) == first


def test_the_best_mean_is_recommended_and_the_cheapest_that_may_be_as_good_is_named(
    report: Path,
) -> None:
    lines = read(report, "report.md").splitlines()
    assert lines[2].startswith("**Use `r16_lr0.005_qv`**")
    facts = read_facts(report)["verdict"]
    bound = {one["arm"]: one["high"] for one in facts["distances"]}
    (cost,) = (line for line in lines[:10] if line.startswith("- **What it costs:**"))
    cheaper = re.search(r"with `([^`]+)` it is [0-9,]+ \(75 % less\)", cost)
    assert cheaper is not None
    assert cheaper[1] in facts["tie_group"]
    (worse,) = (line for line in lines[:10] if line.startswith("- **How much worse it can be:**"))
    said = [re.findall(r"[Aa]t most ([0-9.]+[0-9])", line)[0] for line in (worse, cost)]
    for value, exact in zip(said, (bound["r16_lr0.005_qv"], bound[cheaper[1]]), strict=True):
        assert exact <= float(value) < exact + 10 ** -len(value.split(".")[1])
    spec = load_yaml(report / "recommended.yaml")
    assert (spec["lora"]["r"], spec["lora"]["target_modules"]) == (16, ["query", "value"])


def load_yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_diverged_run_is_neither_ranked_nor_dropped(report: Path) -> None:
    text = read(report, "report.md")
    row = next(line for line in text.splitlines() if "`r16_lr0.005_q`" in line and "1 of 2" in line)
    assert "nan" not in row.lower()
    assert re.search(r"`r16_lr0\.005_q/seed-1` \| diverged", text)
    assert "It is counted here and not part of any mean" in text


def test_the_detectable_difference_is_said_with_its_size_and_chance(report: Path) -> None:
    opening = read(report, "report.md").split("## Ranking")[1].split("\n## ")[0]
    said = r"better than all others by ([0-9.]+) or more is found with a probability of (\d+) %"
    ((value, chance),) = re.findall(said, opening)
    found = read_facts(report)["verdict"]["detectable"]
    assert float(value) == pytest.approx(found["value"], abs=0.51 * 10 ** -len(value.split(".")[1]))
    assert float(chance) == 100 * found["power"]
    assert found["seeds"] == 15 / 8


def test_arms_that_are_tied_on_test_are_counted_without_the_best_of_them(report: Path) -> None:
    text = read(report, "report.md")
    (said,) = (line for line in text.splitlines() if line.startswith("On the test part"))
    assert re.search(
        r"has the best mean, tied with (1 other configuration|\d+ other configurations)\.", said
    ), said


def test_costs_name_the_way_they_were_come_by(report: Path) -> None:
    text = read(report, "report.md")
    assert "Memory: each configuration alone, peak" in text
    assert "Trainable parameters: counted from the configuration." in text


def test_the_page_asks_the_network_for_nothing(report: Path) -> None:
    page = read(report, "report.html")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#|data:)", own)
    assert "default-src 'none'" in own
    assert own.count("<svg") == len(list((report / "figures").iterdir()))


def test_every_picture_has_an_alternative_text_and_ids_of_its_own(report: Path) -> None:
    page = read(report, "report.html")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    alts = re.findall(r'role="img" aria-label="([^"]+)"', own)
    assert len(alts) == own.count("<figure")
    assert all(len(alt) > 40 for alt in alts)
    ids = re.findall(r'\bid="([^"]+)"', own)
    assert len(ids) == len(set(ids))


HOSTILE = '<script>alert("x")</script>|`*_[a](http://b)'


def test_user_data_stay_text_in_every_form(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    arms = [(f"{HOSTILE}{n}", one) for n, one in enumerate(some_settings[:2])]
    folder = make_study(arms=arms, examples=60, answers=True)
    with Store(folder) as store:
        store.add_fact("text", about="data", text=f"note {HOSTILE}")
        failure = Failure(error=HOSTILE, traceback=HOSTILE)
        store.set_state(labels(store)[f"{HOSTILE}1/seed-1"], "crashed", failure)
    write_report(folder)
    page = read(folder, "report.html")
    own = page.split("<script>")[0] + page.split("</script>")[-1]
    assert "<script>alert" not in re.sub(r"<script>\s*\"use strict\".*", "", own, flags=re.DOTALL)
    assert page.count("<script>") == 2
    assert page.count("<script>alert") == 0
    for picture in (folder / "figures").iterdir():
        assert "<script>" not in picture.read_text(encoding="utf-8")
    rendered = MarkdownIt("commonmark").enable("table").render(read(folder, "report.md"))
    assert "<script" not in rendered
    assert "<a " not in rendered
    assert rendered.count("<details>") == rendered.count("</details>")


def test_recommended_yaml_makes_the_recommended_arm_again(make_study: Any, tmp_path: Path) -> None:
    text = (
        "study: s\nmodel: {name: some/model}\ntask: SEQ_CLS\n"
        "data: {source: a.csv, text: text, label: label}\n"
        "training: {max_steps: 120, learning_rate: 1e-3}\n"
        "lora: {target_modules: [query], lora_alpha: 16}\n"
        "grid: {lora.r: [4, 16], training.learning_rate: [1e-3, 5e-3]}\n"
    )
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    spec = load_spec(tmp_path / "spec.yaml")
    arms = make_arms(spec)
    folder = make_study(
        arms=[(arm.name, arm.settings) for arm in arms],
        examples=60,
        spec=spec.model_dump(mode="json"),
    )
    write_report(folder)
    (again,) = make_arms(load_spec(folder / "recommended.yaml"))
    assert again.id in {arm.id for arm in arms}
    opening = "\n".join(read(folder, "report.md").splitlines()[:10])
    chosen = next(arm.name for arm in arms if arm.id == again.id)
    assert f"**Use `{chosen}`**" in opening


def test_a_spec_that_nothing_recommends_says_so_and_can_still_be_read(make_study: Any) -> None:
    folder = make_study(seeds=(0,), examples=20)
    with Store(folder) as store:
        records = read_records(store)
    # the mere scores of one seed an arm: nothing says how large a difference chance makes
    bare = replace(records, x_ASE=None, groups_E=None, weights_E=None, test_ASE={})
    judgement = judge_records(bare)
    assert judgement.choice.basis == "look"
    path = folder / "recommended.yaml"
    path.write_text(recommended_yaml(bare, judgement.choice), encoding="utf-8")
    assert path.read_text(encoding="utf-8").startswith(
        "# Not a recommendation: this study does not"
    )
    spec = load_spec(path)
    assert spec.lora.r == records.arm(str(judgement.choice.arm)).settings["lora.r"]


def test_a_study_that_has_not_run_yet_gets_a_report_that_says_so(make_study: Any) -> None:
    folder = make_study(examples=20)
    with Store(folder) as store:
        for run in store.runs():
            store.restart_run(run.id)
    write_report(folder)
    text = read(folder, "report.md")
    assert "No run has finished" in text
    assert "16 runs of 16 not yet run" in text
    assert not (folder / "recommended.yaml").exists()


def test_ranks_that_differ_by_layer_get_a_figure_and_uniform_ones_do_not(
    make_study: Any, some_settings: list[dict[str, Any]]
) -> None:
    falling = {f"encoder.layer.{n}.attention.self.query": 8 - 2 * n for n in range(4)}
    flat = dict.fromkeys(falling, 4)
    arms = [("falling", some_settings[0]), ("flat", some_settings[1])]
    folder = make_study(arms=arms, examples=40, ranks={"falling": falling, "flat": flat})
    write_report(folder)
    section = read(folder, "report.md").split("## Ranks by layer")[1].split("\n## ")[0]
    assert "between 2 and 8, over layers 0 to 3" in section
    assert "`falling`" in section
    assert "`flat`" not in section
    assert "falling: query" in read(folder, "figures/ranks.svg")


def test_importing_the_report_loads_neither_pandas_nor_torch_nor_scipy() -> None:
    code = (
        "import sys, rankwise.report\n"
        "heavy = {'pandas', 'vl_convert', 'scipy', 'torch', 'jinja2', 'statsmodels'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
