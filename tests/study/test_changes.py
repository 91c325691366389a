"""A changed spec in the folder of a study is never mixed with it in silence."""

import csv
import json

import pytest
import yaml

from black_box import make_study, rankwise

TWO = {"small": {"lora.r": 2}, "large": {"lora.r": 4}}


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path, configurations=TWO, seeds=[0, 1]).run()


def changed(study, **sections):
    """The spec with other sections."""
    spec = yaml.safe_load(study.spec.read_text())
    for name, value in sections.items():
        spec[name] = {**spec[name], **value} if isinstance(value, dict) else value
    study.spec.write_text(yaml.safe_dump(spec))


def configurations(**settings):
    return [{"name": name, **values} for name, values in settings.items()]


def ranked(study):
    with (study.out / "runs.csv").open() as lines:
        return sorted((row["arm"], int(row["seed"])) for row in csv.DictReader(lines))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"max_length": 24}}, "data.max_length was 48, now 24"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype was float32, now bfloat16"),
        (
            {"objective": {"metric": "eval_accuracy"}},
            "objective.metric was eval_loss, now eval_acc",
        ),
    ],
)
def test_what_would_make_it_another_study_is_refused_with_the_setting(study, sections, said):
    spec = yaml.safe_load(study.spec.read_text())
    spec.setdefault("objective", {})
    study.spec.write_text(yaml.safe_dump(spec))
    before = (study.out / "runs.csv").read_bytes()
    changed(study, **sections)
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 2
    assert said in err
    assert "another --out" in err
    assert "loading" not in err
    assert (study.out / "runs.csv").read_bytes() == before


def test_other_rows_under_the_same_name_are_refused_though_nothing_is_missing(study):
    path = study.spec.parent / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    text = "".join(json.dumps({**row, "text": row["text"][::-1]}) + "\n" for row in rows)
    path.write_text(text)
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 2
    assert "validation rows differ" in err


def test_a_changed_configuration_is_trained_and_its_old_results_stay_outside_the_ranking(study):
    changed(study, configs=configurations(small={"lora.r": 3}, large={"lora.r": 4}))
    code, out, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 0, err
    assert "small differs from before: lora.r was 2, now 3" in err
    assert "stay in the folder as small.old1, outside the ranking" in err
    assert ranked(study) == [("large", 0), ("large", 1), ("small", 0), ("small", 1)]
    assert "small.old1" not in out
    assert {row["lora.r"] for row in study.runs().values() if row["arm"] == "small"} == {"3"}
    assert "configurations small.old1; their results stay" in (study.out / "report.md").read_text()
    code, _, err = rankwise("export", study.out, "small.old1", "--to", study.out.parent / "old")
    assert code == 0, err
    assert rankwise("compare", study.out, "small", "small.old1")[0] == 0


def test_names_may_be_exchanged_and_nothing_is_trained_again(study):
    value = {name: row["best_eval_loss"] for (name, seed), row in study.runs().items() if not seed}
    changed(study, configs=configurations(large={"lora.r": 2}, small={"lora.r": 4}))
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 0, err
    assert "small is called large now" in err
    assert "loading" not in err
    runs = study.runs()
    assert runs["large", 0]["best_eval_loss"] == value["small"]
    assert runs["small", 0]["best_eval_loss"] == value["large"]
    link = study.out / "adapters" / "large" / "seed-0"
    assert json.loads((link / "adapter_config.json").read_text())["r"] == 2


def test_what_is_removed_keeps_its_results_and_comes_back_without_training(study):
    whole = ranked(study)
    changed(study, configs=configurations(large={"lora.r": 4}), seeds=[1])
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 0, err
    assert "no longer in the spec: small" in err
    assert "seeds no longer in the spec: 0" in err
    assert ranked(study) == [("large", 1)]
    report = (study.out / "report.md").read_text()
    assert "configurations small and seeds 0; their results stay in study.db" in report
    changed(study, configs=configurations(small={"lora.r": 2}, large={"lora.r": 4}), seeds=[0, 1])
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 0, err
    assert "loading" not in err
    assert ranked(study) == whole
