"""What a task's loss and metrics are, held to the libraries that define them."""

import math

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from rankwise.data.examples import Example
from rankwise.report.remarks import remarks_of
from rankwise.results.from_store import read_records
from rankwise.spec.arms import Run
from rankwise.spec.models import StudySpec
from rankwise.store.writer import Store
from rankwise.study.plan import plan_study
from rankwise.study.run import run_study
from rankwise.train.batch import Task
from rankwise.train.cohort import Member, take_out
from rankwise.train.evaluate import Evaluation, Untouched, evaluate
from rankwise.train.generate import likeness_to_targets
from rankwise.train.loop import load_best_weights, read_test
from rankwise.train.prepare import Bases
from rankwise.train.run_state import RunState
from stored import id_of
from tiny import tiny_arms, tiny_cohort, tiny_model
from tiny_text import tiny_spec

CPU = torch.device("cpu")


def prepared(folder, kind, shape, **more):
    """(plan, its base with weights of some size, its task)."""
    spec = StudySpec.model_validate(tiny_spec(folder, kind, shape, **more))
    plan = plan_study(spec, folder)
    pad = plan.tokenizer.pad_token_id
    bases = Bases(spec.model, spec.task, plan.num_labels, pad, CPU, "eager")
    model = shaken(bases.frozen("none").model, 0.2)
    return plan, model, Task(spec.task, pad, spec.data.max_length, CPU)


def shaken(model, spread):
    """The model with weights large enough that its answers differ."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model


def measured(plan, model, task, rows=5):
    (result,) = evaluate(Untouched(model), [0], plan.data.validation, task, rows)
    return result


def tokens(*texts):
    return [torch.tensor(ids).long()[None] for ids in texts]


@pytest.mark.parametrize("shape", ["pairs", "chat"])
def test_the_loss_is_that_of_the_answer_alone(tmp_path, shape):
    plan, model, task = prepared(tmp_path, "llama", shape)
    result = measured(plan, model, task)
    encode = plan.tokenizer.encode
    for example, found in zip(plan.data.validation, result.losses_E, strict=True):
        # written out by hand, from the texts: what is asked, then what is answered
        if shape == "pairs":
            prompt, answer = example.text, f"{example.reference}</s>"
        else:
            prompt = f"<|im_start|>user\n{example.text}<|im_end|>\n<|im_start|>assistant\n"
            answer = f"{example.reference}<|im_end|>"
        asked, whole = tokens(encode(prompt), encode(prompt + answer))
        assert torch.equal(whole[:, : asked.shape[1]], asked), "the seam is between two tokens"
        labels = whole.clone()
        labels[:, : asked.shape[1]] = -100
        expected = model(input_ids=whole, labels=labels).loss.item()
        everything = model(input_ids=whole, labels=whole).loss.item()
        assert found == pytest.approx(expected, rel=1e-5)
        assert abs(expected - everything) > 1e-3


def test_perplexity_of_plain_text_is_exp_of_the_mean_over_all_tokens(tmp_path):
    plan, model, task = prepared(tmp_path, "gpt2", "text")
    total, count = 0.0, 0
    for example in plan.data.validation:
        (row,) = tokens(example.input_ids)
        logits = model(input_ids=row).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum").item()
        count += row.shape[1] - 1
    metrics = measured(plan, model, task).metrics()
    assert metrics["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_loss_of_a_sequence_to_sequence_model_is_its_own(tmp_path):
    plan, model, task = prepared(tmp_path, "t5", "translation")
    result = measured(plan, model, task)
    for example, found in zip(plan.data.validation, result.losses_E, strict=True):
        row, labels = tokens(example.input_ids, example.labels)
        expected = model(input_ids=row, labels=labels).loss.item()
        assert found == pytest.approx(expected, rel=1e-5)
        assert plan.tokenizer.decode(labels[0]) == f"{example.reference}</s>"


def test_measures_of_three_classes_are_those_of_scikit_learn(tmp_path):
    plan, model, task = prepared(tmp_path, "bert", "labelled")
    assert plan.num_labels == 3
    result = measured(plan, model, task)
    truth, told = [], []
    for example in plan.data.validation:
        (row,) = tokens(example.input_ids)
        truth.append(plan.data.label_names.index(example.reference))
        told.append(model(input_ids=row).logits.argmax(-1).item())
    assert len(set(told)) > 1
    metrics = result.metrics()
    assert metrics["eval_accuracy"] == pytest.approx(accuracy_score(truth, told))
    assert metrics["eval_macro_f1"] == pytest.approx(f1_score(truth, told, average="macro"))
    assert metrics["eval_matthews"] == pytest.approx(matthews_corrcoef(truth, told))
    assert (result.correct_E == (np.array(truth) == np.array(told))).all()


def test_likeness_to_targets_is_that_of_the_libraries_on_what_transformers_writes(tmp_path):
    plan, model, task = prepared(tmp_path, "t5", "translation")
    examples = plan.data.validation
    (found,) = likeness_to_targets(Untouched(model), [0], examples, task, plan.tokenizer)
    longest = max(len(example.labels) for example in examples)
    texts = []
    for example in examples:
        (row,) = tokens(example.input_ids)
        told = model.generate(
            input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=longest
        )
        texts.append(plan.tokenizer.decode(told[0], skip_special_tokens=True))
    references = [example.reference for example in examples]
    scorer = RougeScorer(["rougeL"])
    rouge = [
        scorer.score(reference, text)["rougeL"].fmeasure
        for reference, text in zip(references, texts, strict=True)
    ]
    assert found["eval_rougeL"] == pytest.approx(np.mean(rouge))
    assert found["eval_chrf"] == pytest.approx(CHRF().corpus_score(texts, [references]).score)
    assert found["eval_chrf"] > 0


def test_a_model_whose_loss_is_no_number_has_no_accuracy():
    labels, ones = np.zeros(3, dtype=np.int64), np.ones(3)
    broken = Evaluation(np.array([1.0, math.nan, 1.0]), ones, labels, labels)
    assert all(math.isnan(value) for value in broken.metrics().values())


def doubtful_examples(count, seed):
    """Classes that their tokens tell, with labels of which some are wrong."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        kind = draw.integers(3)
        ids = draw.integers(3 + 20 * kind, 23 + 20 * kind, 8)
        label = kind if draw.random() < 0.7 else draw.integers(3)
        made.append(Example(ids, np.array(label), number, ""))
    return tuple(made)


@pytest.mark.parametrize("metric", ["eval_loss", "eval_accuracy"])
def test_the_objective_picks_the_best_step_and_its_adapter(tmp_path, metric):
    (arm,) = tiny_arms("bert", [{}], eval_steps=2, max_steps=12, learning_rate=2e-2)
    run = Run(arm, 0)
    cohort, told = tiny_cohort(
        "bert",
        [run],
        tmp_path,
        shaken(tiny_model("bert"), 0.1),
        train={arm.training_id: doubtful_examples(40, 0)},
        validation=doubtful_examples(20, 1),
        metric=metric,
    )
    told.train(cohort)
    rows = [(one.step, one.evaluation.metrics()) for one in told.evaluations(run)]
    by_loss = min(rows, key=lambda row: row[1]["eval_loss"])[0]
    by_accuracy = max(rows, key=lambda row: row[1]["eval_accuracy"])[0]  # the first of equals
    assert by_loss != by_accuracy, "or this shows nothing"
    first = by_loss if metric == "eval_loss" else by_accuracy
    best = dict(rows)[first][metric]
    (state,) = take_out(cohort)
    assert (state.best_step, state.best) == (first, best)
    # the weights that were kept, and read the test part, are those of that step
    told.take(cohort, read_test(cohort, load_best_weights(cohort), cohort.validation))
    (on_test,) = told.evaluations(run, "test")
    assert on_test.step == first
    (again,) = evaluate(cohort.bank, [0], cohort.validation, cohort.task, 4)
    assert again.metrics()[metric] == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "values", "state"),
    [
        ("eval_loss", [1.0, 0.9, 0.95, 0.91], "stopped"),
        ("eval_loss", [1.0, 0.9, 0.95, 0.8], "running"),
        ("eval_accuracy", [0.5, 0.6, 0.55, 0.6], "stopped"),
        ("eval_accuracy", [0.5, 0.6, 0.55, 0.7], "running"),
        ("eval_chrf", [10.0, 9.0, math.nan], "stopped"),
    ],
)
def test_patience_counts_by_the_same_metric(metric, values, state):
    (arm,) = tiny_arms("bert", [{}], early_stopping_patience=2)
    member = Member(RunState(Run(arm, 0), 20), 0, (), metric, {}, None, None)
    for step, value in enumerate(values, start=1):
        member.state.step = step
        improved = member.note_validation({metric: value})
        assert improved == (member.state.best_step == step)
    assert member.out_of_patience() == (state == "stopped")


def test_a_study_of_sequences_is_decided_by_what_is_written(tmp_path):
    spec = tiny_spec(tmp_path, "t5", "translation", objective={"metric": "eval_chrf"})
    spec["training"] |= {"max_steps": 20, "learning_rate": 0.1, "eval_steps": 10}
    spec["lora"]["target_modules"] = "all-linear"
    plan = plan_study(StudySpec.model_validate(spec), tmp_path)
    for _ in run_study(plan, tmp_path / "out"):
        pass
    (run,) = plan.runs
    with Store(tmp_path / "out") as store:
        rows = store.evaluation_metrics(id_of(store, run))
        told = [row["eval_chrf"] for row in rows]
        (on_test,) = store.evaluations(id_of(store, run), "test")
        base, notes = store.base_metrics(), dict(remarks_of(read_records(store)))
    assert max(told) > base["eval_chrf"], "it should learn to write"
    assert on_test.step == rows[int(np.argmax(told))]["step"]
    assert {"eval_rougeL", "eval_chrf"} <= on_test.metrics.keys()
    assert "first 12 of 12 validation examples" in notes["generation"]
