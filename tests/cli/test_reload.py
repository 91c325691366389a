"""What is exported is what was measured: adapters and merged models loaded by others' code."""

import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from black_box import (
    answered,
    classified,
    evaluated,
    make_study,
    random_base,
    rankwise,
    split_of,
    texts,
)
from rankwise.base.load import keep_one_kernel
from rankwise.files import sums_of
from rankwise.study import reload, run
from tiny import CLASSES
from tiny_text import rows_of

WRITTEN = {
    "plain": {},
    "bias_all": {"lora.bias": "all"},
    "bias_lora_only": {"lora.bias": "lora_only"},
    "dora": {"lora.use_dora": True},
    "rslora": {"lora.use_rslora": True, "lora.lora_alpha": 16},
    "patterns": {"lora.rank_pattern": {"FIRST": 2}, "lora.alpha_pattern": {"FIRST": 3}},
    "pissa": {"lora.init_lora_weights": "pissa"},
    "olora": {"lora.init_lora_weights": "olora"},
    "random": {"lora.init_lora_weights": False},
}
FIRST = {
    "gpt2": "c_attn", "llama": "q_proj", "gpt_neox": "query_key_value", "bert": "query",
    "distilbert": "q_lin", "t5": "q",
}  # fmt: skip
NAMES = ["fur", "scales", "wings"]
SHAPES = {"bert": "labelled", "distilbert": "labelled", "t5": "translation"}
MORE = {
    "bert": {"saved": {"lora.modules_to_save": ["pooler", "LayerNorm"]}},
    "llama": {
        "emb": {"lora.modules_to_save": ["embed_tokens"]},
        "head": {"lora.modules_to_save": ["lm_head"]},
        "both": {"lora.modules_to_save": ["embed_tokens", "lm_head"]},
        "on_head": {"lora.target_modules": ["q_proj", "lm_head"]},
    },
}


def validation_of(kind):
    shape = SHAPES.get(kind, "text")
    rows = split_of(rows_of(shape))[1]
    if shape == "labelled":
        return classified(rows, NAMES)
    return answered(rows, kind) if shape == "translation" else texts(rows)


@pytest.fixture(scope="module", params=FIRST)
def study(request, tmp_path_factory):
    """Every setting that changes what is written, trained on one architecture."""
    kind = request.param
    named = json.loads(json.dumps(WRITTEN).replace("FIRST", FIRST[kind]))
    if kind in ("llama", "t5"):  # without biases
        named = {name: settings for name, settings in named.items() if "bias" not in name}
    found = make_study(
        tmp_path_factory.mktemp(kind),
        kind,
        SHAPES.get(kind, "text"),
        {**named, **MORE.get(kind, {})},
        base=random_base(kind, tie_word_embeddings=True) if kind in ("llama", "gpt2") else None,
        check_export=True,
        training={"max_steps": 2, "eval_steps": 2, "learning_rate": 0.02},
    )
    return found.run(), kind


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_and_its_merged_model_give_the_loss_that_training_measured(study, tmp_path):
    """Adapter by peft, merged model by transformers alone, computed row by row; to 1e-5."""
    made, kind = study
    examples, runs = validation_of(kind), made.runs()
    base = evaluated(made.base(), made.task, examples)
    for name in {name for name, _ in runs}:
        stored = float(runs[name, 0]["best_eval_loss"])
        assert abs(stored - base) > 1e-3  # or a base in place of an adapter would not show
        assert evaluated(made.loaded(name), made.task, examples) == pytest.approx(stored, abs=1e-5)
        to = tmp_path / name
        code, out, err = rankwise("export", made.out, name, "--to", to, "--merged", "--json")
        assert code == 0, err
        merged = CLASSES[made.task].from_pretrained(to, attn_implementation="eager").eval()
        assert evaluated(merged, made.task, examples) == pytest.approx(stored, abs=1e-5)
        found = json.loads(out)["measured"]
        assert found["loss"] == pytest.approx(found["stored"], abs=1e-5)
        assert found["agrees"]


def test_every_kind_of_adapter_was_loaded_again_and_the_report_says_so(study):
    made = study[0]
    text = (made.out / "report.md").read_text()
    assert "reloaded by peft: " in text
    assert "WARNING" not in text
    kinds = {name for name, _ in made.runs()} - {"rslora"}  # written as plain ones are
    assert all(f"{name}/seed-0: reloaded by peft" in text for name in kinds)


@pytest.fixture
def small(tmp_path):
    return make_study(tmp_path, configurations={"one": {}}, check_export=True)


def test_of_a_long_validation_part_the_first_examples_are_computed_again(tmp_path):
    split = {"validation": 20, "test": 8}
    study = make_study(
        tmp_path, configurations={"one": {}}, data={"split": split}, check_export=True
    ).run()
    assert study.facts()["recommendation"]["arm"] == "one"
    code, out, _ = rankwise("export", study.out, "one", "--to", tmp_path / "to", "--json")
    assert code == 0
    found, rows = json.loads(out)["measured"], split_of(rows_of("labelled"), 20, 8)[1]
    assert (found["agrees"], found["rows"]) == (True, 16)
    first = evaluated(study.loaded("one"), "SEQ_CLS", classified(rows[:16], NAMES))
    assert [found["loss"], found["stored"]] == pytest.approx([first, first], abs=1e-5)


def test_a_study_whose_adapters_load_as_something_else_is_refused_before_it_trains(
    small, monkeypatch
):
    right = reload.load_exported

    def wrong(folder, *more):
        weights = load_file(folder / "adapter_model.safetensors")
        halved = {name: w * 0.5 if "lora_" in name else w for name, w in weights.items()}
        save_file(halved, folder / "adapter_model.safetensors")
        return right(folder, *more)

    monkeypatch.setattr(reload, "load_exported", wrong)
    code, _, err = rankwise("run", small.spec, "--out", small.out)
    assert code == 2
    assert "gives a loss of" in err
    assert "Nothing was trained" in err
    assert {row["state"] for row in rows_in(small)} == {"planned"}


def rows_in(study):
    code, out, _ = rankwise("report", study.out, "--json")
    assert code == 0
    return json.loads(out)["runs"]


def test_a_recommendation_is_withdrawn_when_its_adapter_loads_as_something_else(
    small, monkeypatch, tmp_path
):
    """Written otherwise than it was trained, as a fault in the writer would."""
    check = run.check_adapters

    def spoiled(study):
        for file in study.folder.glob("adapters/run-*/adapter_model.safetensors"):
            save_file({k: v * 3 for k, v in load_file(file).items()}, file)
        for one in study.store.runs():
            files = sums_of(study.folder / "adapters" / one.folder)
            study.store.set_best(one.id, one.best_step, files)
        return check(study)

    monkeypatch.setattr(run, "check_adapters", spoiled)
    code, out, err = rankwise("run", small.spec, "--out", small.out)
    assert code == 0, err
    assert "No recommendation: the adapter of" in out
    assert small.facts()["recommendation"]["basis"] == "withdrawn"
    assert small.facts()["recommendation"]["arm"] is None
    text = (small.out / "report.md").read_text()
    assert "No recommendation" in text
    assert "WARNING: reloaded by peft it gives loss" in text
    code, _, err = rankwise("export", small.out, "best", "--to", tmp_path / "x")
    assert code == 2
    assert "withdrawn" in err
    code, out, _ = rankwise("export", small.out, "one", "--to", tmp_path / "y", "--json")
    found = json.loads(out)["measured"]
    assert code == 0
    assert not found["agrees"]
    assert not math.isclose(found["loss"], found["stored"], abs_tol=1e-3)


def test_an_adapter_that_cannot_be_loaded_is_no_recommendation_either(small, monkeypatch):
    def broken(*_):
        raise KeyError("lora_A")

    monkeypatch.setattr(run, "refuse_unloadable", lambda *_: None)
    monkeypatch.setattr(reload, "load_exported", broken)
    small.run()
    assert small.facts()["recommendation"]["basis"] == "withdrawn"


def test_too_little_memory_to_load_an_adapter_again_costs_the_check_alone(small, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("cannot allocate memory")

    monkeypatch.setattr(reload, "load_exported", short)
    small.run()
    assert small.facts()["recommendation"]["arm"] == "one"
    assert "not loaded again by peft" in (small.out / "report.md").read_text()


def test_the_check_can_be_switched_off(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("an adapter was loaded")

    study = make_study(tmp_path, configurations={"one": {}}, check_export=False)
    monkeypatch.setattr(reload, "load_exported", never)
    study.run()
    assert "reloaded by peft" not in (study.out / "report.md").read_text()
    code, out, _ = rankwise("export", study.out, "one", "--to", tmp_path / "x")
    assert code == 0
    assert "not measured: check_export is false" in out


def test_an_adapter_is_exported_where_it_cannot_be_loaded(small, tmp_path):
    """Such as on a machine without the base, or without the device of the study."""
    small.run()
    (small.model / "model.safetensors").unlink()
    code, out, err = rankwise("export", small.out, "one", "--to", tmp_path / "x", "--json")
    assert code == 0, err
    assert json.loads(out)["measured"] is None
    assert "not measured: it cannot be loaded here" in json.loads(out)["said"]
    assert (tmp_path / "x" / "adapter_model.safetensors").exists()


def test_a_model_whose_losses_depend_on_padding_is_refused(tmp_path):
    config = transformers.FNetConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_labels=3,
        max_position_embeddings=64, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.FNetForSequenceClassification(config)
    study = make_study(
        tmp_path, base=base, configurations={"one": {"lora.target_modules": "all-linear"}}
    )
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 2
    assert "depends on the padding" in err


def test_an_adapter_over_a_quantised_base_is_what_was_measured_over_a_quantised_base(tmp_path):
    """And merged into the base as it was before, it is what peft gives over that one."""
    study = make_study(
        tmp_path, "llama", "text", {"one": {}}, check_export=True,
        training={"max_steps": 2, "eval_steps": 2, "learning_rate": 0.02},
    )  # fmt: skip
    text = study.spec.read_text().replace("dtype: float32", "dtype: float32\n  quantization: nf4")
    study.spec.write_text(text)
    stored = float(study.run().runs()["one", 0]["best_eval_loss"])
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=["lm_head"],
    )  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_pretrained(
        study.model, quantization_config=how, attn_implementation="eager"
    )
    examples = validation_of("llama")
    adapted = study.loaded("one", base=base)
    keep_one_kernel(adapted)  # that of processors with AVX-512 BF16 fails on modules this narrow
    found = evaluated(adapted, study.task, examples)
    assert found == pytest.approx(stored, abs=1e-5)
    code, _, err = rankwise("export", study.out, "one", "--to", tmp_path / "x", "--merged")
    assert code == 0, err
    merged = CLASSES[study.task].from_pretrained(tmp_path / "x", attn_implementation="eager").eval()
    over_the_whole = evaluated(study.loaded("one"), study.task, examples)
    assert evaluated(merged, study.task, examples) == pytest.approx(over_the_whole, abs=1e-5)
    assert over_the_whole != pytest.approx(stored, abs=1e-5)
    assert "reloaded by peft: " in (study.out / "report.md").read_text()
