"""`rankwise data` shows what is learnt, and counts what is cut and left out, without weights."""

import json

import numpy as np
import pytest

from black_box import answered, make_study, rankwise, split_of, texts
from rankwise.cli.rows import print_preview
from tiny_text import rows_of, tiny_tokenizer


def preview(study, *words):
    code, out, err = rankwise("data", study.spec, "--json", *words)
    assert code == 0, err
    return json.loads(out)


def told(study, *words):
    code, out, err = rankwise("data", study.spec, *words)
    assert code == 0, err
    return out


def uneven():
    """Pairs of which every fifth has a long completion, and every seventh a long prompt."""
    rows = rows_of("pairs")
    for at, row in enumerate(rows):
        if at % 5 == 0:
            row["completion"] *= 3
        if at % 7 == 0:
            row["prompt"] *= 4
    return rows


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("pairs"), "llama", "pairs", rows=uneven())


def test_lengths_and_cuts_are_those_of_the_rows_tokenised_one_by_one(pairs):
    most = 30
    facts = preview(pairs, "--set", f"data.max_length={most}")
    parts = dict(zip(("train", "validation", "test"), split_of(uneven()), strict=True))
    for name, rows in parts.items():
        found, examples = facts["parts"][name], answered(rows, "llama")
        lengths = sorted(len(ids) for ids, _ in examples)
        kept = [ids for ids, labels in examples if any(one >= 0 for one in labels[:most])]
        learnt = sum(one >= 0 for _, labels in examples for one in labels[:most])
        assert found["rows"] == len(rows)
        assert found["examples"] == len(kept)
        assert found["left_out_by_cut"] == len(rows) - len(kept)
        assert found["longer"] == sum(length > most for length in lengths)
        assert found["tokens"] == sum(lengths)
        assert found["tokens_cut"] == sum(max(0, length - most) for length in lengths)
        assert found["targets"] == learnt
        assert found["lengths"] == {
            "least": lengths[0],
            "median": lengths[int(np.ceil(0.5 * len(rows))) - 1],
            "90 %": lengths[int(np.ceil(0.9 * len(rows))) - 1],
            "99 %": lengths[int(np.ceil(0.99 * len(rows))) - 1],
            "most": lengths[-1],
        }
    lost = facts["parts"]["train"]["left_out_by_cut"]
    assert lost > 0
    assert any(f"train: {lost} of 40 rows left out" in note for note in facts["notes"])
    text = " ".join(told(pairs, "--set", f"data.max_length={most}").split())
    longest = facts["parts"]["train"]["lengths"]["most"]
    assert f"{lost} rows left out, as nothing to learn is left; {longest} would cut none" in text


def test_a_max_length_that_would_cut_none_cuts_none(pairs):
    most = max(part["lengths"]["most"] for part in preview(pairs)["parts"].values())
    assert "max_length" not in "".join(preview(pairs, "--set", f"data.max_length={most}")["notes"])
    found = preview(pairs, "--set", f"data.max_length={most}")["parts"]
    assert all(part["longer"] == part["tokens_cut"] == 0 for part in found.values())
    fewer = preview(pairs, "--set", f"data.max_length={most - 1}")["parts"]
    assert sum(part["longer"] for part in fewer.values()) > 0


def test_rows_are_shown_as_their_tokens_with_those_that_are_learnt(pairs):
    rows = preview(pairs, "--rows", 4, "--set", "data.max_length=200")["rows"]
    assert len(rows) == 4
    for shown, row in zip(rows, split_of(uneven())[0], strict=False):
        ids, labels = answered([row], "llama")[0]
        assert len(shown["tokens"]) == len(ids)
        assert shown["learnt"] == [one >= 0 for one in labels]
        assert "".join(shown["tokens"]) == row["prompt"] + row["completion"] + "</s>"
    assert preview(pairs, "--rows", 0)["rows"] == []
    assert len(preview(pairs)["rows"]) == 3


def test_no_weights_are_needed(tmp_path):
    study = make_study(tmp_path, "llama", "chat")
    before = told(study)
    for file in study.model.glob("*.safetensors"):
        file.unlink()
    assert told(study) == before
    assert not study.out.exists()


@pytest.mark.parametrize("train_on", ["completions", "all"])
def test_learnt_tokens_stand_in_marks_where_there_is_no_terminal(train_on, tmp_path):
    study = make_study(tmp_path, "llama", "chat")
    out = told(study, "--rows", 1, "--set", f"data.train_on={train_on}")
    line = next(line for line in out.splitlines() if line.startswith("<|im_start|>"))
    messages = split_of(rows_of("chat"))[0][0]["messages"]
    answer = f"{messages[1]['content']}<|im_end|>"
    inside = line.partition("[[")[2].partition("]]")[0].replace("·", "")
    assert (inside == answer) == (train_on == "completions")
    assert answer in inside
    assert "\x1b" not in out
    assert f"train_on: {train_on}" in out


def test_learnt_tokens_stand_in_colour_on_a_terminal(pairs, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    facts = preview(pairs, "--rows", 1)
    print_preview(facts)
    out = capsys.readouterr().out
    assert "[[" not in out
    row = facts["rows"][0]
    last = max(at for at, learnt in enumerate(row["learnt"]) if learnt)
    assert f"\x1b[1;32m{row['tokens'][last]}\x1b[0m" in out
    assert f"\x1b[1;32m{row['tokens'][0]}\x1b[0m" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    print_preview(facts)
    assert "[[" in capsys.readouterr().out


def test_what_is_left_out_is_said_with_its_reason(tmp_path):
    rows = rows_of("chat")
    rows[3]["messages"] = []
    rows[5] = {"messages": [{"role": "user", "content": "who?"}]}
    rows[7] = {"messages": 7}
    study = make_study(tmp_path, "llama", "chat", rows=rows, data={"malformed_rows": 0.1})
    out = told(study)
    for reason in ("1 of 59 rows with an empty text", "no message of the role assistant (1)"):
        assert reason in out
    assert "1 of 60 rows is malformed and left out" in out
    assert "line 8" in out


def test_texts_are_divided_into_blocks_and_lose_nothing(tmp_path):
    study = make_study(tmp_path, "gpt2", "text")
    facts = preview(study, "--set", "data.max_length=8")
    train = facts["parts"]["train"]
    ids = [len(ids) for ids, _ in texts(split_of(rows_of("text"))[0])]
    assert train["examples"] == sum(-(-length // 8) - (length % 8 == 1) for length in ids)
    assert (train["tokens"], train["tokens_cut"]) == (sum(ids), 0)
    assert "divided into blocks; no token is lost" in told(study, "--set", "data.max_length=8")


def test_classes_and_targets_are_shown(tmp_path):
    labelled = make_study(tmp_path / "bert")
    assert "label: " in told(labelled)
    facts = preview(labelled)
    assert facts["rows"][0]["label"] == split_of(rows_of("labelled"))[0][0]["label"]
    assert facts["parts"]["train"]["targets"] is None
    translated = preview(make_study(tmp_path / "t5", "t5", "translation"), "--rows", 1)
    row, source = translated["rows"][0], split_of(rows_of("translation"))[0][0]
    target = [t for t, learnt in zip(row["tokens"], row["learnt"], strict=True) if learnt]
    assert len(target) == len(tiny_tokenizer(ends=True)(source["target"]).input_ids)
    assert "".join(target) == source["target"] + "</s>"


def test_what_rows_hold_does_not_steer_the_terminal(tmp_path):
    rows = rows_of("pairs")
    for row in rows:
        row["completion"] += "\x1b[2J\x07"
    out = told(make_study(tmp_path, "llama", "pairs", rows=rows))
    assert "\x1b" not in out
    assert "\x07" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "-1"), "--rows"),
        (("--set", "data.source=nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--set", "data.max_length=2"), "data.max_length 2 cuts off every token"),
        (("--set", "data.format=alpaca"), "alpaca lets the spec name none of them"),
    ],
)
def test_a_mistake_is_one_message(pairs, words, said):
    code, _, err = rankwise("data", pairs.spec, *words)
    assert code == 2
    assert said in " ".join(err.split())
    assert "Traceback" not in err
