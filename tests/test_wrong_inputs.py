"""A user's mistake is one clear message and exit code 2, with no weights loaded."""

import subprocess
import sys

import pytest
import yaml

import rankwise.train.prepare
from rankwise.cli.app import main

WORDS = [
    "a",
    "fine",
    "play",
    "about",
    "a",
    "king",
    "and",
    "his",
    "son",
    "who",
    "see",
    "a",
    "ghost",
    "in",
    "the",
    "night",
]
GOOD = {
    "study": "wrong",
    "model": {"config": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64},
              "tokenizer": "nowhere"},
    "task": "SEQ_CLS",
    "data": {"source": "reviews.csv", "text": "text", "label": "label", "max_length": 16,
             "split": {"validation": 4, "test": 4}},
    "training": {"max_steps": 2},
    "lora": {"r": 2, "target_modules": ["query"]},
}  # fmt: skip


def wrong(name):
    spec = yaml.safe_load(yaml.safe_dump(GOOD))
    rows = [
        f"{' '.join(WORDS[i % 7 : i % 7 + 4])} {i},{'good' if i % 2 else 'bad'}" for i in range(40)
    ]
    if name == "typo key":
        spec["training"]["lerning_rate"] = 1e-3
    elif name == "wrong type":
        spec["lora"]["r"] = "many"
    elif name == "unknown module":
        spec["lora"]["target_modules"] = ["q_prj", "quary"]
    elif name == "empty grid":
        spec["grid"] = {"lora.r": []}
    elif name == "missing file":
        spec["data"]["source"] = "review.csv"
    elif name == "label not in data":
        spec["data"]["labels"] = ["good", "awful"]
    elif name == "text column missing":
        spec["data"]["text"] = "txt"
    elif name == "unreadable csv row":
        rows[7] = 'half a quote "then, more, cells, than, there, should, be'
    elif name == "split larger than the data":
        spec["data"]["split"] = {"validation": 400, "test": 4}
    elif name == "unknown model":
        spec["model"] = {"name": "./no-such-model"}
    return spec, "text,label\n" + "\n".join(rows) + "\n"


EXPECTED = {
    "typo key": ("training.lerning_rate", "learning_rate"),
    "wrong type": ("lora.r", "many"),
    "unknown module": ("lora.target_modules", '"q_prj" matches no module', "query"),
    "empty grid": ("grid", "lora.r"),
    "missing file": ("review.csv", "reviews.csv"),
    "label not in data": ("awful", "good", "bad"),
    "text column missing": ("txt", "text", "label"),
    "unreadable csv row": ("reviews.csv", "9"),
    "split larger than the data": ("400",),
    "unknown model": ("no-such-model",),
}


def run_rankwise(folder, monkeypatch, *arguments):
    """Exit code of the command, run in this process with `folder` as the working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["rankwise", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mistake_is_one_message_and_exit_code_2(name, tmp_path, monkeypatch, capsys):
    spec, rows = wrong(name)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "reviews.csv").write_text(rows)

    def no_weights(*_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(rankwise.train.prepare, "load_base", no_weights)
    assert run_rankwise(tmp_path, monkeypatch, "run", "study.yaml", "--out", "out") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("rankwise: ")
    assert not (tmp_path / "out").exists()
    for word in EXPECTED[name]:
        assert word in said


def test_an_unknown_option_is_a_users_mistake(tmp_path, monkeypatch, capsys):
    assert run_rankwise(tmp_path, monkeypatch, "run", "study.yaml", "--otu", "x") == 2
    assert "--otu" in capsys.readouterr().err


def test_a_mistake_reaches_the_shell_as_exit_code_2(tmp_path):
    (tmp_path / "study.yaml").write_text("study: x\n")
    done = subprocess.run(
        [sys.executable, "-m", "rankwise.cli.app", "run", "study.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "model" in done.stderr
    assert "Traceback" not in done.stderr
