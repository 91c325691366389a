"""What comes from outside runs no code, leaves no folder, and tells no secret."""

import json
import os
import pickle
import shutil
import socket
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
import yaml
from markdown_it import MarkdownIt

from rankwise.errors import ModelError, StoreError, UserError
from rankwise.files import find_pkg_path
from rankwise.report.charts import page_script
from rankwise.report.write import write_outside_report, write_report
from rankwise.spec.arms import make_arms
from rankwise.spec.models import StudySpec
from rankwise.store.links import link_names
from rankwise.store.lock import hold
from rankwise.store.reader import Reader
from rankwise.store.schema import Answer, Failure
from rankwise.store.seal import seal
from rankwise.store.writer import Store
from rankwise.study.export import export_adapter
from rankwise.study.plan import plan_study
from rankwise.text import redacted
from test_wrong_inputs import run_rankwise
from tiny import CLASSES
from tiny_text import tiny_spec

TOKEN = "hf_" + "aB3" * 11
ADDRESS = "https://me:wordword@host.example/x"
SCRIPT = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&<!--'


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A study's spec whose model is a folder, with the pieces in it that a user downloads."""
    folder = tmp_path_factory.mktemp("checkpoint")
    spec = tiny_spec(folder, "gpt2", "text")
    config = spec["model"].pop("config")
    torch.manual_seed(0)
    model = CLASSES["CAUSAL_LM"].from_config(transformers.AutoConfig.for_model(**config))
    model.save_pretrained(folder / "model")
    shutil.copytree(folder / "tokenizer", folder / "model", dirs_exist_ok=True)
    spec["model"] = {"name": str(folder / "model"), "dtype": "float32"}
    return folder, spec


def plan_of(checkpoint, tmp_path, change, **model):
    """Plan a study on a copy of the checkpoint to which `change` was made."""
    folder, spec = checkpoint
    shutil.copytree(folder / "model", tmp_path / "model")
    change(tmp_path / "model")
    spec = {**spec, "model": {**spec["model"], "name": str(tmp_path / "model"), **model}}
    return plan_study(StudySpec.model_validate(spec), folder)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickled(content):
    def change(folder):
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin")

    return change


def test_a_pickled_model_is_refused_by_plan_with_the_ways_out(checkpoint, tmp_path):
    with pytest.raises(ModelError, match=r"as pickle only \(pytorch_model\.bin\)") as caught:
        plan_of(checkpoint, tmp_path, pickled({}))
    assert "convert them to safetensors" in str(caught.value)
    assert "model.allow_pickle: true" in str(caught.value)


def test_an_index_of_safetensors_does_not_hide_a_pickle(checkpoint, tmp_path):
    def change(folder):
        pickled({})(folder)
        index = {"metadata": {}, "weight_map": {"transformer.wte.weight": "pytorch_model.bin"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match="as pickle only"):
        plan_of(checkpoint, tmp_path, change)


def test_a_model_that_the_hub_has_as_pickle_only_is_refused_before_a_download(monkeypatch):
    files = [SimpleNamespace(rfilename=name) for name in ("config.json", "pytorch_model.bin")]
    info = SimpleNamespace(siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    spec = {"study": "x", "model": {"name": "some/model"}, "task": "CAUSAL_LM",
            "data": {"source": "x.csv", "text": "text"}}  # fmt: skip
    from rankwise.base.skeleton import read_config

    with pytest.raises(ModelError, match="as pickle only"):
        read_config(StudySpec.model_validate(spec).model)


def test_allowed_pickles_are_read_as_tensors_only(checkpoint, tmp_path):
    folder, _ = checkpoint
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    assert plan_of(checkpoint, tmp_path, pickled(model.state_dict()), allow_pickle=True).runs


@pytest.mark.parametrize("bare", [False, True], ids=["torch.save", "pickle.dump"])
def test_code_in_an_allowed_pickle_is_one_message_and_does_not_run(
    checkpoint, tmp_path, monkeypatch, capsys, bare
):
    folder, spec = checkpoint
    ran = tmp_path / "ran"
    shutil.copytree(folder / "model", tmp_path / "model")
    pickled({"transformer.wte.weight": Hostile(ran)})(tmp_path / "model")
    if bare:
        content = pickle.dumps(Hostile(ran), protocol=2)
        (tmp_path / "model" / "pytorch_model.bin").write_bytes(content)
    model = {"name": str(tmp_path / "model"), "allow_pickle": True}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**spec, "model": model}))
    for command in ("plan", "run"):
        assert run_rankwise(tmp_path, monkeypatch, command, "study.yaml") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "nothing of it was run" in said
        assert "posix.system" in said
    assert not ran.exists()
    assert pickle.loads(pickle.dumps(Hostile(ran))) == 0  # as plain pickle would have run it
    assert ran.exists()


def config_of(folder, name, **more):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def test_code_that_comes_with_a_model_is_never_run(checkpoint, tmp_path):
    ran = tmp_path / "ran"

    def change(folder):
        (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
        own = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
        config_of(folder, "config.json", model_type="own", auto_map=own)

    with pytest.raises(ModelError, match="needs code that comes with it, which is never run here"):
        plan_of(checkpoint, tmp_path, change)
    with pytest.raises(ValueError, match="code that comes with a model is never run here"):
        plan_of(checkpoint, tmp_path / "b", lambda _: None, trust_remote_code=True)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", b""), ("model.safetensors", b"\xff" * 999), ("config.json", b"{"),
     ("config.json", b"[" * 99_999), ("tokenizer.json", b"{}"), ("tokenizer_config.json", b"[]")],
)  # fmt: skip
def test_a_broken_file_of_a_model_is_a_message(checkpoint, tmp_path, file, content):
    with pytest.raises(ModelError, match="model"):
        plan_of(checkpoint, tmp_path, lambda folder: (folder / file).write_bytes(content))


def test_a_package_path_stays_in_its_package(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "outside.csv").write_text("text\n")
    (package / "link.csv").symlink_to(tmp_path / "outside.csv")
    (package / "round").symlink_to(package / "round")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_pkg_path("pkg://some_package/__init__.py").is_file()
    for inside in ("..", "../outside.csv", "../../..", "/etc/passwd", "link.csv", "a/../../x"):
        with pytest.raises(UserError, match="leaves the package some_package") as caught:
            find_pkg_path(f"pkg://some_package/{inside}")
        assert str(tmp_path) not in str(caught.value)
    for odd in ("round", "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="pkg://some_package"):
            find_pkg_path(f"pkg://some_package/{odd}")


def with_names(study="x", **config):
    model = {"config": {"model_type": "gpt2"}}
    data = {"source": "x.csv", "text": "text"}
    spec = {"study": study, "model": model, "task": "CAUSAL_LM", "data": data}
    return StudySpec.model_validate({**spec, "configs": [config]})


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "a\\b", "..", "CON", "nul", "com1.txt", "a.", "x" * 300, "a\n", "/x"]
)
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(ValueError, match="study"):
        with_names(study=name)
    with pytest.raises(UserError, match=r"configs\[0\]: name: "):
        make_arms(with_names(name=name))


def test_made_up_names_are_folders_of_their_own():
    targets = {"lora.target_modules": [["con"], ["best"], ["q"], ["Q"]]}
    spec = with_names().model_copy(update={"grid": targets, "configs": []})
    names = [arm.name.casefold() for arm in make_arms(spec)]
    assert len(set(names)) == 4
    assert not {"con", "best"} & set(names)


def forge(folder, query, *values):
    """Change a study as somebody does who also writes its checksum."""
    db = sqlite3.connect(folder / "study.db")
    with db:
        db.execute(query, values)
    seal(db, folder)
    db.close()


@pytest.mark.parametrize("place", ["../../../etc", "/etc", "..\\..\\x", "C:\\x", "a/../../b", ""])
def test_folders_out_of_a_foreign_study_do_not_leave_it(make_study, tmp_path, place):
    folder = make_study(examples=20)
    forge(folder, "UPDATE run SET folder = ? WHERE id = 1", place)
    with pytest.raises(StoreError, match="leads out of the study's folder"):
        export_adapter(folder, "best", tmp_path / "to", None, False)
    forge(folder, "UPDATE run SET folder = 'run-1' WHERE id = 1")
    forge(folder, "UPDATE config SET name = ? WHERE id = 1", place)
    with Reader(folder) as store, pytest.raises(StoreError, match="leads out of"):
        link_names(store)
    assert not (tmp_path / "to").exists()


def test_links_in_a_foreign_study_are_not_followed(make_study, tmp_path):
    folder = make_study(examples=20)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "keys").write_text("private")
    with Reader(folder) as store:
        config, run = store.configs()[0], store.runs()[0]
    (folder / "adapters" / run.folder).mkdir(parents=True)
    (folder / "adapters" / run.folder / "README.md").symlink_to(mine / "keys")
    (folder / "adapters" / config.name).symlink_to(mine)
    with pytest.raises(UserError, match=r"README\.md: is a link that leads out of"):
        export_adapter(folder, config.name, tmp_path / "to", run.seed, False)
    with Reader(folder) as store:
        link_names(store)
    for name in ("report.md", "report.html", "runs.csv", "recommended.yaml"):
        (folder / name).symlink_to(mine / "keys")
    (folder / "figures").symlink_to(mine)
    for name in (".report.html.new", "study.lock"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine / "keys")
    with closing(hold(folder)):
        write_report(folder)
    assert [path.name for path in mine.iterdir()] == ["keys"]
    assert (mine / "keys").read_text() == "private"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_a_mapping_is_read_as_a_spec_is(tmp_path):
    (tmp_path / "runs.csv").write_text("name,eval_loss\na,1\nb,2\n")
    for text in ("metric: !!python/object/apply:os.system [ls]", "a: &a [*a]", "[" * 9999):
        (tmp_path / "map.yaml").write_text(text)
        with pytest.raises(UserError, match=r"map\.yaml: line 1, column"):
            write_outside_report(tmp_path / "runs.csv", tmp_path / "map.yaml", tmp_path / "out")


def test_names_texts_and_errors_stay_text_in_page_figures_and_markdown(make_study):
    folder = make_study(examples=20, answers=True)
    with Store(folder) as store:
        configs, runs = store.configs(), store.runs()
        store.save_answers(configs[0].id, runs[0].id, [Answer(SCRIPT, SCRIPT, SCRIPT, (), {})])
        store.add_fact("text", about=SCRIPT, text=SCRIPT)
        store.set_state(runs[-1].id, "crashed", Failure(error=SCRIPT, traceback=SCRIPT))
    names = json.dumps([SCRIPT, SCRIPT + "2"])
    forge(folder, "UPDATE config SET name = ? WHERE id = 2", SCRIPT.replace("/", ""))
    forge(folder, "UPDATE config SET settings = json_set(settings, '$.method', ?)", SCRIPT)
    study = "UPDATE study SET label_names = ?, device = ?, base_name = ?"
    forge(folder, study, names, SCRIPT, SCRIPT)
    forge(folder, "UPDATE study SET spec = json_set(spec, '$.study', ?)", SCRIPT)
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("<script>") == 2  # the charts' library, and what starts them
    assert page.count("<img") == page_script().count("<img")
    assert page.count("</script>") == page.count("<script>") + page.count("<script type=")
    for picture in (folder / "figures").iterdir():
        assert "<img" not in picture.read_text(encoding="utf-8")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    shown = MarkdownIt("commonmark").enable("table").render(markdown)
    assert "<script" not in shown
    assert "<img src=x" not in shown


def test_secrets_are_replaced_and_nothing_else_is(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an odd token")
    text = f"{ADDRESS} {TOKEN} an odd token Bearer abc.def https://ghp_x@git.example/y"
    assert (
        redacted(text) == "https://***@host.example/x *** *** Bearer *** https://***@git.example/y"
    )
    plain = "https://host/a@b hf_model me@host.example 3:4@5 https://a.b/c"
    assert redacted(plain) == plain


def test_secrets_come_into_no_store_report_or_message(make_study, tmp_path, monkeypatch, capsys):
    folder = make_study(examples=20, answers=True)
    with Store(folder) as store:
        study, run = store.study(), store.runs()[0]
        prompts = {"generation": {"prompts": [f"read {ADDRESS}"]}, "note": TOKEN}
        spec = {**study.spec, **prompts}
        store.begin_study(
            type(study)(**{**vars(study), "spec_yaml": yaml.safe_dump(spec), "spec": spec})
        )
        store.add_fact("text", about="data", text=f"{TOKEN} {ADDRESS}")
        store.set_state(run.id, "crashed", Failure(error=f"no {ADDRESS}", traceback=TOKEN))
        store.save_answers(store.configs()[0].id, run.id, [Answer(TOKEN, "", "x", (), {})])
    write_report(folder)
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for secret in (TOKEN.encode(), b"wordword"):
        assert not any(secret in content for content in files)
    for source in (ADDRESS, f"{ADDRESS}.csv", TOKEN):
        spec = {"study": "x", "model": {"name": "x"}, "task": "CAUSAL_LM",
                "data": {"source": source, "text": "text"}, "lora": {"r": source}}  # fmt: skip
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        assert run_rankwise(tmp_path, monkeypatch, "plan", "spec.yaml") == 2
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "lora": {}}))
        assert run_rankwise(tmp_path, monkeypatch, "plan", "spec.yaml") == 2
    said = capsys.readouterr().err
    assert "***" in said
    assert TOKEN not in said
    assert "wordword" not in said


def test_a_message_does_not_steer_the_terminal(tmp_path, monkeypatch, capsys):
    (tmp_path / "spec.yaml").write_text('"\\e[2Jx": 1')
    assert run_rankwise(tmp_path, monkeypatch, "plan", "spec.yaml") == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.fixture
def tried(monkeypatch):
    """The addresses that anything in this process tries to connect to or to look up: none works."""
    found = []

    def refuse(self, address, *_):
        if self.family != socket.AF_UNIX:
            found.append(address)
            raise OSError("no network in this test")

    def lookup(host, *_, **__):
        found.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return found


def test_with_a_model_and_data_from_here_no_connection_is_tried(
    checkpoint, tmp_path, monkeypatch, tried
):
    _, spec = checkpoint
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**spec, "check_export": True}))
    for words in (["plan", "s.yaml"], ["run", "s.yaml", "--out", "out"], ["report", "out"],
                  ["export", "out", "best", "--to", "adapter"]):  # fmt: skip
        assert run_rankwise(tmp_path, monkeypatch, *words) == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "report.html").exists()
    assert not tried
    there = {**spec, "model": {**spec["model"], "name": "nobody/has-this"}}
    (tmp_path / "there.yaml").write_text(yaml.safe_dump(there))
    assert run_rankwise(tmp_path, monkeypatch, "run", "there.yaml", "--out", "x") == 2
    assert tried, "else nothing here would notice a connection"
