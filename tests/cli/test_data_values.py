"""Which rows are learnt and which are judged, found in the losses that are written."""

import json

import numpy as np
import pytest

from black_box import (
    START,
    classified,
    evaluated,
    make_study,
    order,
    predictions,
    random_base,
    rankwise,
    split_of,
    train,
)
from tiny_text import rows_of, tiny_tokenizer

NAMES = ["fur", "scales", "wings"]


def varied(count=60):
    """Rows of twelve random words each, so that no two nearly repeat one another."""
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefgh"), 3)) for _ in range(300)]
    return [
        {"text": " ".join(draw.choice(words, 12)), "label": NAMES[number % 3]}
        for number in range(count)
    ]


COPIES = """
HELD = {held!r}

def again(row, rng):
    return {{**row, "text": row["text"] + " and so on"}}

def leak(row, rng):
    return {{**row, "text": HELD[len(row["text"]) % len(HELD)].upper() + "!"}}

def nearly_leak(row, rng):
    return {{**row, "text": HELD[len(row["text"]) % len(HELD)] + " again"}}
"""


@pytest.fixture(scope="module")
def augmented(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("augmented"), varied()
    _, validation, test = split_of(rows)
    held = [row["text"] for row in (*validation, *test)]
    (folder / "copies.py").write_text(COPIES.format(held=held))
    by = {
        name: {"data.augment.factor": 2, "data.augment.function": f"{folder}/copies.py:{name}"}
        for name in ("again", "leak", "nearly_leak")
    }
    return make_study(
        folder,
        configurations={
            "start": {"training.learning_rate": START, "data.augment.factor": 1},
            "plain": {"data.augment.factor": 1},
            "swapped": {},
            **by,
        },
        rows=rows,
        data={"near_duplicates": 0.3, "augment": {"factor": 2}},
        training={"max_steps": 6, "eval_steps": 6},
    ).run()


def test_copies_of_training_rows_are_learnt_after_them(augmented):
    rows = split_of(varied())[0]
    rows += [{**row, "text": row["text"] + " and so on"} for row in rows]
    model = augmented.loaded("start", trainable=True)
    losses = train(model, "SEQ_CLS", classified(rows, NAMES), 0, max_steps=6)
    np.testing.assert_allclose(augmented.logged()["again", 0], losses, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["leak", "nearly_leak"])
def test_a_copy_that_says_what_a_held_out_row_says_is_not_learnt(augmented, name):
    logged = augmented.logged()
    np.testing.assert_allclose(logged[name, 0], logged["plain", 0], rtol=0, atol=1e-6)


def test_held_out_rows_are_judged_as_they_are_whatever_is_augmented(augmented):
    parts = dict(zip(("best", "test"), split_of(varied())[1:], strict=True))
    for (name, seed), row in augmented.runs().items():
        model = augmented.loaded(name, seed)
        for part, rows in parts.items():
            loss = evaluated(model, "SEQ_CLS", classified(rows, NAMES))
            assert float(row[f"{part}_eval_loss"]) == pytest.approx(loss, abs=1e-5)


def test_held_out_rows_that_nearly_repeat_an_earlier_part_are_not_judged(tmp_path):
    """One validation row repeats a training row, one test row each of the two other parts."""
    rows = varied()
    places = split_of(list(range(60)))
    (trained, learnt, *_), (shown, leaked, *_), (known, seen, *_) = places
    for place, source in ((leaked, learnt), (known, trained), (seen, shown)):
        rows[place] = {**rows[place], "text": rows[source]["text"] + " again"}
    study = make_study(
        tmp_path,
        rows=rows,
        configurations={"one": {}},
        data={"near_duplicates": 0.3},
    ).run()
    row, model = study.runs()["one", 0], study.loaded("one")
    for part, kept, gone in (("best", places[1], {leaked}), ("test", places[2], {known, seen})):
        clean = [rows[place] for place in kept if place not in gone]
        loss = evaluated(model, "SEQ_CLS", classified(clean, NAMES))
        every = evaluated(model, "SEQ_CLS", classified([rows[place] for place in kept], NAMES))
        assert float(row[f"{part}_eval_loss"]) == pytest.approx(loss, abs=1e-5)
        assert abs(loss - every) > 1e-3


def test_max_samples_takes_the_rows_that_the_seed_of_the_split_draws(tmp_path):
    study = make_study(
        tmp_path,
        configurations={
            "start": {"training.learning_rate": START},
            "few": {"data.max_samples": 9},
        },
    ).run()
    rows = split_of(rows_of("labelled"))[0]
    few = [rows[at] for at in sorted(order(len(rows), 0, 3)[:9])]
    losses = train(study.loaded("start", trainable=True), "SEQ_CLS", classified(few, NAMES), 0)
    np.testing.assert_allclose(study.logged()["few", 0], losses, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("labels", "written", "expected"),
    [
        (["wings", "fur", "scales"], {}, ["wings", "fur", "scales"]),
        (None, {"fur": "10", "wings": "9", "scales": "-1"}, ["-1", "9", "10"]),
    ],
    ids=["as given", "numbers by value"],
)
def test_classes_keep_the_order_of_their_labels_into_the_exported_model(
    tmp_path, labels, written, expected
):
    rows = [{**row, "label": written.get(row["label"], row["label"])} for row in varied()]
    study = make_study(
        tmp_path,
        rows=rows,
        configurations={"one": {}},
        data={"labels": labels},
        training={"max_steps": 30, "eval_steps": 30},
    ).run()
    code, *_ = rankwise("export", study.out, "one", "--to", tmp_path / "whole", "--merged")
    assert code == 0
    config = json.loads((tmp_path / "whole/config.json").read_text())
    assert [config["id2label"][str(n)] for n in range(3)] == expected
    parts = dict(zip(("best", "test"), split_of(rows)[1:], strict=True))
    model, row = study.loaded("one"), study.runs()["one", 0]
    for part, held in parts.items():
        examples = classified(held, expected)
        right = [int(label) for _, (label,) in examples] == predictions(model, examples)
        assert float(row[f"{part}_eval_accuracy"]) == pytest.approx(right.mean())
        loss = evaluated(model, "SEQ_CLS", examples)
        assert float(row[f"{part}_eval_loss"]) == pytest.approx(loss, abs=1e-5)


def sharegpt(rows):
    names = {"user": "human", "assistant": "gpt"}
    return [
        {"chat": [{"from": names[m["role"]], "value": m["content"]} for m in row["messages"]]}
        for row in rows
    ]


def test_a_format_that_is_recognised_or_named_trains_what_messages_train(tmp_path):
    rows, losses = rows_of("chat"), {}
    ways = {
        "messages": (rows, {}),
        "recognised": (rows, {"messages": None}),
        "named": (sharegpt(rows), {"messages": "chat", "format": "sharegpt"}),
    }
    for name, (given, data) in ways.items():
        folder = tmp_path / name
        study = make_study(folder, "llama", "chat", {"one": {}}, rows=given, data=data)
        plan = study.plan()
        said = [note for note in plan["data"]["notes"] if "recognised: messages" in note]
        assert bool(said) == (name == "recognised")
        losses[name] = study.run().logged()["one", 0]
        report = (study.out / "report.md").read_text()
        assert ("recognised: messages" in report) == bool(said)
    np.testing.assert_array_equal(losses["recognised"], losses["messages"])
    np.testing.assert_array_equal(losses["named"], losses["messages"])


@pytest.mark.parametrize(
    ("shape", "data", "said"),
    [
        ("chat", {"format": "chatml"}, "data.format"),
        ("chat", {"format": "alpaca"}, "alpaca lets the spec name none of them"),
        ("pairs", {"format": "sharegpt"}, "sharegpt lets the spec name only messages"),
        ("labelled", {"format": "messages"}, "it names text + label"),
        ("chat", {"format": "sharegpt"}, "message 1 says not who it is from"),
        ("text", {"text": None}, "is in no format that is recognised; its columns: text"),
    ],
)
def test_a_format_that_does_not_fit_is_one_message(shape, data, said, tmp_path):
    kind = "bert" if shape == "labelled" else "llama"
    code, _, err = rankwise("plan", make_study(tmp_path, kind, shape, data=data).spec)
    assert code == 2
    assert said in err.replace("\n", "")
    assert "Traceback" not in err


def pieces_of(row):
    """Text and whether it is an answer, as the tiny chat template writes a conversation."""
    for message in row["messages"]:
        yield f"<|im_start|>{message['role']}\n", False
        yield f"{message['content']}<|im_end|>", message["role"] == "assistant"
        yield "\n", False


def reference_of(row, train_on):
    """Ids and labels of a row, its pieces tokenised one by one."""
    tokenizer, pieces, ids, labels = tiny_tokenizer(), list(pieces_of(row)), [], []
    last = max(at for at, (_, answer) in enumerate(pieces) if answer)
    for at, (text, answer) in enumerate(pieces):
        new = tokenizer(text).input_ids
        keep = {"completions": answer, "last": at == last, "all": True}[train_on]
        ids, labels = ids + new, labels + (new if keep else [-100] * len(new))
    return ids, labels


@pytest.mark.parametrize("train_on", ["completions", "last", "all"])
def test_train_on_decides_which_tokens_are_learnt_and_judged(train_on, tmp_path):
    rows = rows_of("chat")
    for row in rows:
        row["messages"] += [
            {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": "yes"},
        ]
    study = make_study(
        tmp_path,
        "llama",
        "chat",
        {"start": {"training.learning_rate": START}, "one": {}},
        base=random_base("llama", max_position_embeddings=200),
        rows=rows,
        data={"train_on": train_on, "max_length": 200},
    ).run()
    learnt, held, _ = ([reference_of(row, train_on) for row in part] for part in split_of(rows))
    losses = train(study.loaded("start", trainable=True), study.task, learnt, 0, max_steps=4)
    np.testing.assert_allclose(study.logged()["one", 0], losses, rtol=0, atol=5e-5)
    loss = evaluated(study.loaded("one"), study.task, held)
    assert float(study.runs()["one", 0]["best_eval_loss"]) == pytest.approx(loss, abs=2e-5)


@pytest.mark.parametrize(
    ("shape", "train_on", "said"),
    [
        ("chat", "answers", "data.train_on"),
        ("text", "last", "train_on: only prompts with answers and conversations have it"),
        ("labelled", "all", "train_on: only prompts with answers and conversations have it"),
    ],
)
def test_tokens_that_cannot_be_picked_are_one_message(shape, train_on, said, tmp_path):
    kind = "bert" if shape == "labelled" else "llama"
    study = make_study(tmp_path, kind, shape, data={"train_on": train_on})
    code, _, err = rankwise("plan", study.spec)
    assert code == 2
    assert said in err.replace("\n", "")
