"""Importance is the gradient's, measured without holding it, and gives the ranks that are used."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from rankwise.base.modules import linear_modules
from rankwise.report.remarks import remarks_of
from rankwise.report.write import write_report
from rankwise.results.from_store import read_records
from rankwise.spec.models import StudySpec
from rankwise.store.writer import Store
from rankwise.study import run as study
from rankwise.study.plan import plan_study
from rankwise.tasks.by_name import row_losses
from rankwise.train.batch import Task, chosen_rows, collate
from rankwise.train.probe import measure_importance
from tiny import LENGTH, TASKS, tiny_examples, tiny_model
from tiny_text import tiny_spec


def batches_of(kind, count=2):
    task = Task(TASKS[kind], 0, LENGTH, torch.device("cpu"))
    examples = tiny_examples(TASKS[kind])
    return [collate(chosen_rows([examples], [0], 4, [step])[0], task) for step in range(count)]


def by_autograd(kind, model, batches):
    """The same from the definition: all gradients at once."""
    model = copy.deepcopy(model).requires_grad_(True)
    sums = {}
    for batch in batches:
        model.zero_grad()
        losses = row_losses(model, TASKS[kind], batch)
        (losses.total.sum() / losses.targets.sum()).backward()
        for target in linear_modules(model):
            weight = model.get_submodule(target.name).weight
            sums.setdefault(target.name, []).append((weight * weight.grad).abs().mean().item())
    return {name: sum(values) / len(values) for name, values in sums.items()}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5", "deberta-v2"])
def test_importance_is_the_mean_of_weight_times_gradient(kind):
    model = tiny_model(kind)
    tied = {id(model.get_input_embeddings().weight)}
    expected = {
        name: value
        for name, value in by_autograd(kind, model, batches_of(kind)).items()
        if id(model.get_submodule(name).weight) not in tied  # these have a further gradient
    }
    found = measure_importance(model, list(expected), batches_of(kind), TASKS[kind])
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert len({round(value, 12) for value in found.values()}) > len(found) // 2


def test_measuring_leaves_nothing_behind():
    model = tiny_model("bert")
    names = [target.name for target in linear_modules(model)]
    first = measure_importance(model, names, batches_of("bert"), "SEQ_CLS")
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert measure_importance(model, names, batches_of("bert"), "SEQ_CLS") == first
    part = measure_importance(model, names[3:5], batches_of("bert"), "SEQ_CLS")
    assert part == {name: first[name] for name in names[3:5]}


def ranks_in_files(folder):
    """Rank of every adapted module of a run, out of its adapter's weights."""
    weights = load_file(folder / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): len(weight)
        for name, weight in weights.items()
        if name.endswith(".lora_A.weight")
    }


def studied(folder, **more):
    arms = [
        {"name": "plain"},
        {"name": "empirical", "ranks.strategy": "empirical"},
        {"name": "faster", "ranks.strategy": "empirical", "training.learning_rate": 2e-2},
        {"name": "decay", "ranks.strategy": "linear_decay"},
    ]
    settings = {"lora": {"r": 6, "target_modules": "all-linear"}, "configs": arms, **more}
    spec = StudySpec.model_validate(tiny_spec(folder, "bert", "labelled", **settings))
    for _ in study.run_study(plan_study(spec, folder), folder / "out"):
        pass
    with Store(folder / "out") as store:
        assert {run.state for run in store.runs()} == {"done"}
        records = read_records(store)
        return {arm.name: arm for arm in records.arms}, remarks_of(records)


def test_ranks_by_importance_are_trained_stored_and_the_same_for_every_seed(tmp_path):
    studied(tmp_path)
    arms, notes = studied(tmp_path, seeds=[0, 1])  # goes on with a further seed
    for name in ("empirical", "faster"):
        ranks = arms[name].ranks
        assert len(set(ranks.values())) > 2
        for seed in (0, 1):
            assert ranks_in_files(tmp_path / "out" / "adapters" / name / f"seed-{seed}") == ranks
    assert arms["plain"].ranks == {}
    assert arms["empirical"].ranks == arms["faster"].ranks != arms["decay"].ranks
    told = [text for kind, text in notes if kind == "ranks"]
    assert len(told) == 2
    assert all("4 training batches of the frozen base under a head" in text for text in told)
    plain, found = (arms[name].costs["trainable_params"].value for name in ("plain", "empirical"))
    assert abs(found - plain) < 0.01 * plain
    weights = load_file(tmp_path / "out/adapters/empirical/seed-0/adapter_model.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == found
    write_report(tmp_path / "out")
    assert "Ranks by layer" in (tmp_path / "out" / "report.md").read_text()
