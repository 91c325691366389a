"""Odd data and tokenizers from the command line: right, or one message before anything loads."""

import io
import json
from contextlib import redirect_stdout

import pytest
import transformers
from peft import PeftModel

from black_box import (
    classified,
    evaluated,
    make_study,
    predictions,
    random_base,
    rankwise,
    split_of,
)
from rankwise.cli import tables
from tiny_text import rows_of, tiny_tokenizer

OWN = ["wings", "scales", "fur"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A study of a classifier that is there already, with classes in an order of its own."""
    names = {"id2label": dict(enumerate(OWN)), "label2id": {n: at for at, n in enumerate(OWN)}}
    return make_study(
        tmp_path_factory.mktemp("named"),
        base=random_base("bert", **names),
        configurations={"one": {}},
        training={"max_steps": 20, "eval_steps": 20},
    ).run()


def test_classes_keep_the_numbers_that_the_base_gave_them(named):
    """The adapter on its base names classes as the base's own configuration does."""
    _, validation, test = split_of(rows_of("labelled"))
    model, row = named.loaded("one"), named.runs()["one", 0]
    assert model.config.id2label == dict(enumerate(OWN))
    for part, held in (("best", validation), ("test", test)):
        examples = classified(held, OWN)
        assert float(row[f"{part}_eval_loss"]) == pytest.approx(
            evaluated(model, "SEQ_CLS", examples), abs=1e-5
        )
        said = [model.config.id2label[int(at)] for at in predictions(model, examples)]
        right = sum(one == row["label"] for one, row in zip(said, held, strict=True))
        assert float(row[f"{part}_eval_accuracy"]) == pytest.approx(right / len(held))


@pytest.mark.parametrize("words", [(), ("--merged",)], ids=["adapter", "merged"])
def test_the_names_of_the_classes_lie_beside_what_is_exported(named, words, tmp_path):
    code, _, err = rankwise("export", named.out, "one", "--to", tmp_path / "out", *words)
    assert code == 0, err
    names = json.loads((tmp_path / "out/label_names.json").read_text())
    assert names["id2label"] == {"0": "wings", "1": "scales", "2": "fur"}
    assert list(names["label2id"]) == OWN
    id2label = dict(enumerate(names["label2id"]))
    kind = transformers.AutoModelForSequenceClassification
    if words:
        model = kind.from_pretrained(tmp_path / "out")
    else:
        base = kind.from_pretrained(named.model, id2label=id2label, label2id=names["label2id"])
        model = PeftModel.from_pretrained(base, tmp_path / "out")
    assert model.config.id2label == id2label
    held = split_of(rows_of("labelled"))[1]
    loss = evaluated(model.eval(), "SEQ_CLS", classified(held, OWN))
    assert loss == pytest.approx(float(named.runs()["one", 0]["best_eval_loss"]), abs=1e-4)


def test_a_tokenizer_that_cannot_pad_is_refused_by_the_plan(tmp_path):
    study = make_study(tmp_path, kind="llama", shape="pairs")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(study.model)
    assert study.plan()["runs"]  # it pads with its end-of-text token
    tokenizer.eos_token = None
    tokenizer.save_pretrained(study.model)
    code, _, err = rankwise("plan", study.spec)
    assert code == 2
    assert "neither a padding token nor an end-of-text token" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("shape", "change", "said"),
    [
        (
            "pairs",
            {"completion": " cut \ud83d"},
            "rows.jsonl, line 3: column completion holds half",
        ),
        ("labelled", {"label": 0.5}, "(regression)"),
        ("labelled", {"label": ["fur", "wings"]}, "multi-label"),
        (
            "chat",
            {"messages": [{"role": "assistant", "content": None}]},
            "rows.jsonl, line 3: data.messages",
        ),
        ("chat", {"tools": ["find"]}, "column tools"),
        ("chat", {}, "has no chat template"),
    ],
    ids=["surrogate", "regression", "multi-label", "no content", "tools", "no template"],
)
def test_data_that_cannot_be_used_are_one_message_from_the_plan(shape, change, said, tmp_path):
    rows = rows_of(shape)
    rows[2] |= change
    study = make_study(tmp_path, "bert" if shape == "labelled" else "llama", shape, rows=rows)
    if not change:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = None
        tokenizer.save_pretrained(study.model)
        (study.model / "chat_template.jinja").unlink(missing_ok=True)
    code, _, err = rankwise("plan", study.spec)
    assert code == 2, err
    assert said in err.replace("\n", "")
    assert "Traceback" not in err


def test_rows_that_cannot_be_read_are_shown_and_left_out_by_the_share_that_is_allowed(tmp_path):
    """They are said by the plan and by the report; a new share is no other study."""
    study, rows = make_study(tmp_path, configurations={"one": {}}), tmp_path / "rows.jsonl"
    clean = study.plan()
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[:6], "{oops", *lines[6:]]))
    code, _, err = rankwise("plan", study.spec)
    assert code == 2, err
    for part in ("rows.jsonl, line 7: not JSON", "1 of 61 rows is malformed", "rows: 0.0164 to"):
        assert part in " ".join(err.split())
    allowed = ("--set", "data.malformed_rows=0.02")
    found = study.plan(*allowed)
    assert [arm["id"] for arm in found["arms"]] == [arm["id"] for arm in clean["arms"]]
    note = "1 of 61 rows is malformed and left out (data.malformed_rows: 0.02): line 7: not JSON"
    assert any(one.startswith(note) for one in found["data"]["notes"])
    study.run(*allowed)
    assert note in (study.out / "report.md").read_text().replace("\\", "")
    rows.write_text("\n".join(lines))
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 0, err
    assert "loading" not in err


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        ("gpt2", "text", "after a prompt of 80 tokens exceeds the 64 positions"),
        ("llama", "chat", "use shorter prompts"),
        ("t5", "translation", "has more than 48 tokens (data.max_length); shorten it"),
    ],
)
def test_a_prompt_longer_than_the_context_is_refused_by_the_plan(kind, shape, said, tmp_path):
    asked = {"prompts": ["where is the cat?", "x" * 80], "max_new_tokens": 4}
    study = make_study(tmp_path, kind, shape, generation=asked)
    code, _, err = rankwise("plan", study.spec)
    assert code == 2
    assert "generation." in err
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_the_plan_says_when_evaluation_takes_more_of_the_time_than_training(tmp_path):
    """Products of a run: 4 steps of 8 rows, forward and backward, against 4 readings of 40 rows."""
    study = make_study(
        tmp_path,
        rows=rows_of("labelled", 100),
        data={"split": {"validation": 40, "test": 20}, "max_length": 16},
        training={"per_device_train_batch_size": 8, "eval_steps": 1},
    )
    facts = study.plan()
    found = facts["evaluation"]
    assert found["share"] == pytest.approx(2 * 180 / (2 * 180 + 4 * 32), rel=0.1)
    assert found["even_rows"] is None  # 14 rows would tell nothing
    assert found["seconds"] < facts["seconds"]
    found |= {"seconds": 1900.0, "even_rows": 700}
    facts["seconds"] = 2000.0
    with redirect_stdout(io.StringIO()) as out:
        tables.print_plan(facts)
    said = " ".join(out.getvalue().split())
    assert "Most of this time, about 32 minutes (74%), is evaluation, on" in said
    assert "with data.split.validation: 700 it would take about half" in said
    assert "training.eval_steps" in said
    found["seconds"] = 5.0
    with redirect_stdout(io.StringIO()) as out:
        tables.print_plan(facts)
    assert "is evaluation" not in out.getvalue()
