"""The commands of the guide work, and its starting specs are planned as they are."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.memory import footprint, predict_memory
from rankwise.base.skeleton import skeleton
from rankwise.cli import app
from rankwise.report import guide, guide_search
from rankwise.report.guide import write_guide
from rankwise.report.guide_search import STAGES, STARTS
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from test_examples import missing
from tiny_text import tiny_tokenizer

ROOT = Path(__file__).parent.parent.parent
LLAMA = {"model_type": "llama", "vocab_size": 128_256, "tie_word_embeddings": True}
TWO_LAYERS = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}
BASES = {  # billions of parameters, as in the guide's page -> what differs from LLAMA
    "1": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
          "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64},
    "3": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
          "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128},
    "7": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
          "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32_000,
          "tie_word_embeddings": False},
}  # fmt: skip


class Stop(Exception):
    """Ends a command once what it would do is known."""


def commands(text: str) -> list[tuple[list[str], int | None]]:
    """The commands of shell blocks, split as a shell does, with the runs of their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [
        (shlex.split(line, comments=True), int(found[1]) if found else None)
        for line in "".join(blocks).splitlines()
        for found in [re.search(r"  # (\d+) runs", line)]
    ]


def test_every_command_of_the_guide_does_what_is_said_of_it(
    plain_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_guide([plain_study])
    seen: list[Any] = []

    def stop(*found: Any, **_: Any) -> None:
        seen.append(found)
        raise Stop

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(app, "check", stop)
    monkeypatch.setattr(guide, "write_guide", stop)
    monkeypatch.setattr("rankwise.study.export.export_adapter", stop)
    found = commands(text)
    assert len(found) == sum(len(stage.commands) for stage in STAGES)
    folders = set()
    for words, runs in found:
        assert words[0] == "rankwise"
        extra = ["--dry-run"] if words[1] == "run" else []  # stops before anything is written
        monkeypatch.setattr(sys, "argv", [*words, *extra])
        with pytest.raises(Stop):
            app.main()
        if words[1] in ("plan", "run"):
            study = seen[-1][0]
            folders.add(Path("studies", study.study))
            assert runs in (None, len(make_arms(study)) * len(study.seeds))
            assert runs is not None or words[1] == "plan"
        elif words[1] == "guide":
            assert set(seen[-1][0]) == folders
        else:
            assert words[1] == "export"
            assert seen[-1][0] in folders


def test_the_guides_page_has_the_commands_of_the_guide(plain_study: Path) -> None:
    page = (ROOT / "docs" / "guide.md").read_text().split("## A staged way of searching")[1]
    assert commands(page) == commands(write_guide([plain_study]))


def test_ranks_and_modules_are_each_crossed_with_every_learning_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    (stage,) = [one for one in STAGES if "own best learning rate" in one.question]
    for command in stage.commands:
        words = shlex.split(command, comments=True)
        sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        study = load_spec(Path(words[2]), sets)
        other, rates = sorted(study.grid, key=lambda name: name == "training.learning_rate")
        pairs = {(str(a.settings[other]), a.settings[rates]) for a in make_arms(study)}
        assert len(pairs) == 3 * 3


def test_every_starting_spec_is_in_the_guide_and_exists() -> None:
    named = {start.file for start in STARTS}
    assert {path.name for path in (ROOT / "examples").glob("start_*.yaml")} <= named
    assert all((ROOT / "examples" / file).is_file() for file in named)
    assert guide_search.SPEC.removeprefix("examples/") in named


@pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")
@pytest.mark.parametrize("name", ["classes", "generation", "answers", "little_memory"])
def test_a_starting_spec_is_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its own settings and data, on two random layers and a tiny tokenizer."""
    path = ROOT / "examples" / f"start_{name}.yaml"
    own = load_spec(path)
    tiny_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    model = {"config": TWO_LAYERS, "tokenizer": str(tmp_path / "tokenizer"),
             "quantization": own.model.quantization}  # fmt: skip
    sets = [f"model={json.dumps(model)}", "data.max_samples=40"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["rankwise", "plan", str(path), "--json", "--out", str(tmp_path / "out")]
        + [word for one in sets for word in ("--set", one)],
    )
    with pytest.raises(SystemExit) as ended:
        app.main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    facts = json.loads(told.out)
    assert len(facts["arms"]) == 3
    assert facts["runs"] == 6
    for arm in facts["arms"]:
        assert len(arm["modules"]) == 7 * 2
        assert set(arm["ranks"].values()) == {8 if name == "little_memory" else 16}
    if name == "little_memory":
        assert own.hardware.memory_gb is not None
        assert max(arm["memory_bytes"] for arm in facts["arms"]) < own.hardware.memory_gb * 1e9


def test_the_memory_of_larger_bases_on_the_guides_page_is_what_is_predicted() -> None:
    page = (ROOT / "docs" / "guide.md").read_text()
    table = dict(re.findall(r"^\| (\d) billion \| (.+) \|$", page, re.MULTILINE))
    assert set(table) == set(BASES)
    for name, sizes in BASES.items():
        predicted = []
        for quantization in ("nf4", "none"):
            model = {"config": LLAMA | sizes, "quantization": quantization}
            spec = load_spec(
                ROOT / "examples" / "start_little_memory.yaml", [f"model={json.dumps(model)}"]
            )
            structure, arm = skeleton(spec.model, spec.task), make_arms(spec)[0]
            adapter = resolve_adapter(structure, arm, spec.task)
            for tokens in (64, 512):
                memory = predict_memory(structure, arm, adapter, spec.task, tokens, "bfloat16",
                                        attention="sdpa")  # fmt: skip
                predicted.append(f"{memory.alone / 1e9:.1f}")
            trained = footprint(structure, adapter).trainable
        cells = [cell.strip() for cell in table[name].split("|")]
        assert cells == [f"{trained:,}", *predicted]
