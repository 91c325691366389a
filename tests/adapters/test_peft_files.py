"""What is written is what peft and transformers read: the same model on the untouched base."""

import json

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from rankwise.adapters.peft_files import AdapterWriter
from rankwise.spec.arms import Run
from rankwise.spec.models import StudySpec
from rankwise.study.export import merge
from rankwise.train.bank import WholeModel
from tiny import CLASSES, TARGETS, TASKS, tiny_arms, tiny_cohort, tiny_model
from tiny_text import tiny_tokenizer

SETTINGS = {
    "plain": {"lora.r": 3, "lora.use_rslora": True},
    "neighbour of pissa": {},
    "pissa": {"lora.init_lora_weights": "pissa"},
    "olora": {"lora.init_lora_weights": "olora", "lora.r": 3},
    "bias of adapted": {"lora.bias": "lora_only"},
    "every bias": {"lora.bias": "all", "lora.r": 2},
    "layers": {"lora.layers_to_transform": [1], "lora.bias": "lora_only"},
    "decay": {"ranks.strategy": "linear_decay", "lora.lora_alpha": "2r", "lora.r": 4},
    "patterns": {"lora.rank_pattern": {r".*\.1\..*": 5}, "lora.alpha_pattern": {r".*\.0\..*": 3}},
    "all-linear": {"lora.target_modules": "all-linear", "lora.r": 2},
}
DORA = {
    "dora": {"lora.r": 3},
    "dora and pissa": {"lora.init_lora_weights": "pissa"},
    "dora and biases": {"lora.bias": "all"},
    "dora and patterns": {"lora.rank_pattern": {r".*\.1\..*": 5}},
}
SAVED = {"gpt2": "lm_head", "bert": "pooler", "llama": "lm_head", "t5": "lm_head"}
TIED = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


def logits_of(model, kind):
    ids = torch.arange(3, 15).view(2, 6)
    inputs = {"decoder_input_ids": ids.flip(0)} if TASKS[kind] == "SEQ_2_SEQ_LM" else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def written(kind, base, settings, folder):
    """A cohort of these arms, its weights shaken, all adapters on disk, and each run's logits."""
    arms = tiny_arms(kind, [{"name": name.replace(" ", "-"), **s} for name, s in settings.items()])
    runs = [Run(arm, 0) for arm in arms]
    cohort, told = tiny_cohort(kind, runs, folder, base)
    torch.manual_seed(1)
    found = {}
    for place, run in enumerate(runs):
        for parameter in cohort.bank.parameters_of(place).values():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        state = cohort.bank.state_of(place)
        cohort.bank.load_state(place, state)  # no padding was shaken
        plan, start = cohort.bank.plans[place], cohort.bank.start_of(place)
        path = told.writer.save(run.id, plan, state, start)
        with cohort.bank.running([place]) as model:
            found[run.arm.name] = path, logits_of(model, kind)
    return found


@TIED
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
@pytest.mark.parametrize("dora", [False, True])
def test_every_adapter_loads_in_peft_on_the_untouched_base(kind, dora, tmp_path):
    base = tiny_model(kind)
    whole = {"whole module": {"lora.modules_to_save": [SAVED[kind]]}}
    settings = {**(DORA if dora else SETTINGS), **whole}
    settings = {name: {"lora.use_dora": dora, **s} for name, s in settings.items()}
    if kind in ("llama", "t5"):  # without biases
        settings = {name: s for name, s in settings.items() if "lora.bias" not in s}
    untouched = logits_of(base, kind)
    for path, expected in written(kind, base, settings, tmp_path).values():
        loaded = PeftModel.from_pretrained(tiny_model(kind), path).eval()
        found = logits_of(loaded, kind)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
        assert (found - untouched).abs().max() > 1e-2


def test_only_adapters_made_from_the_weight_take_twice_their_rank(tmp_path):
    settings = {name: SETTINGS[name] for name in ("pissa", "neighbour of pissa")}
    found = written("bert", tiny_model("bert"), settings, tmp_path)
    for name, rank in (("pissa", 16), ("neighbour-of-pissa", 8)):
        path, _ = found[name]
        assert json.loads((path / "adapter_config.json").read_text())["r"] == rank
        weights = load_file(path / "adapter_model.safetensors")
        shapes = {tuple(w.shape) for n, w in weights.items() if n.endswith("lora_A.weight")}
        assert shapes == {(rank, 32)}


def test_the_files_do_not_depend_on_the_neighbours(tmp_path):
    base = tiny_model("bert")
    changes = [
        {"lora.target_modules": ["query"]},
        {"lora.modules_to_save": ["pooler"], "lora.r": 2},
        {"lora.target_modules": "all-linear", "lora.bias": "all"},
    ]
    arms = tiny_arms("bert", changes)
    runs = [Run(arm, 0) for arm in arms]
    folders = {}
    for name, company in {"together": runs, **{run.arm.name: [run] for run in runs}}.items():
        cohort, told = tiny_cohort("bert", company, tmp_path / name, base)
        for place, run in enumerate(company):
            state = cohort.bank.state_of(place)
            path = told.writer.save(run.id, cohort.bank.plans[place], state, {})
            folders.setdefault(run.id, []).append(path)
    for together, alone in folders.values():
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            assert (together / file).read_bytes() == (alone / file).read_bytes()


@TIED
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_merged_into_the_base_it_is_a_model_of_its_own(kind, tmp_path):
    base = tiny_model(kind)
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    settings = {
        "pissa": {"lora.init_lora_weights": "pissa"},
        "whole": {"lora.modules_to_save": [SAVED[kind]], "lora.bias": "all"},
        "decay": {"ranks.strategy": "linear_decay", "lora.use_rslora": True},
    }
    dora = {"dora": {"lora.use_dora": True, "lora.r": 3}}
    found = written(kind, base, settings, tmp_path / "lora")
    found |= written(kind, base, dora, tmp_path / "dora")
    labels = ["rotten", "fair", "fresh"] if kind == "bert" else None
    for name, (path, expected) in found.items():
        merge(path, tmp_path / name, spec_of(kind, tmp_path / "base"), labels)
        model = CLASSES[TASKS[kind]].from_pretrained(tmp_path / name).eval()
        torch.testing.assert_close(logits_of(model, kind), expected, rtol=0, atol=2e-5)
        transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        if labels:
            assert list(model.config.id2label.values()) == labels


def test_a_model_trained_in_full_is_exported_with_its_labels(tmp_path):
    base = tiny_model("bert")
    base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    whole = WholeModel(tiny_model("bert", seed=5), torch.float32, 0)
    writer = AdapterWriter(tmp_path / "adapters", "tiny", "SEQ_CLS", whole.model)
    path = writer.save("full/seed-0", None, whole.state_of(0), {})
    labels = ["rotten", "fair", "fresh"]
    merge(path, tmp_path / "to", spec_of("bert", tmp_path / "base"), labels)
    model = CLASSES["SEQ_CLS"].from_pretrained(tmp_path / "to").eval()
    torch.testing.assert_close(logits_of(model, "bert"), logits_of(whole.model, "bert"))
    assert list(model.config.id2label.values()) == labels


def spec_of(kind, folder):
    columns = {
        "SEQ_CLS": {"text": "text", "label": "label"},
        "CAUSAL_LM": {"text": "text"},
        "SEQ_2_SEQ_LM": {"input": "input", "target": "target"},
    }
    return StudySpec.model_validate(
        {
            "study": "s",
            "model": {"name": str(folder), "quantization": "nf4"},
            "task": TASKS[kind],
            "data": {"source": "x.csv", **columns[TASKS[kind]]},
            "lora": {"target_modules": list(TARGETS[kind])},
        }
    )
