"""What the models say does not depend on who speaks beside them."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import GenerationConfig

from rankwise.adapters.adapter import resolve_adapter
from rankwise.errors import SpecError
from rankwise.report.remarks import remark
from rankwise.results.from_store import read_records
from rankwise.spec.models import GenerationSpec, StudySpec
from rankwise.store.writer import Store
from rankwise.study import train_cohort
from rankwise.study.answering import perplexities
from rankwise.study.plan import plan_study
from rankwise.study.run import run_study
from rankwise.train.bank import Bank, WholeModel
from rankwise.train.batch import Task
from rankwise.train.cohort import new_states
from rankwise.train.evaluate import Untouched
from rankwise.train.generate import Question, end_tokens, generate, gumbel
from rankwise.train.prepare import Bases
from stored import id_of
from tiny import TASKS, VOCABULARY, tiny_arms, tiny_model
from tiny_text import tiny_spec, tiny_tokenizer

ARMS = [{"name": "a", "lora.r": 2}, {"name": "b", "lora.r": 6}, {"name": "c", "lora.r": 4}]
GREEDY = {"max_new_tokens": 9}
BEAMS = {"max_new_tokens": 9, "num_beams": 3}
SAMPLED = {"max_new_tokens": 9, "do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 5}
ENDS = (2, *range(40, 52))  # many, so that answers of random weights end at many lengths


def asked(settings):
    return GenerationSpec.model_validate(settings)


def shaken_bank(kind, arms=ARMS, base=None):
    """A bank of runs that all say something else."""
    model = copy.deepcopy(base) if base is not None else tiny_model(kind)
    made = tiny_arms(kind, arms)
    plans = [resolve_adapter(model, arm, TASKS[kind]) for arm in made]
    bank = Bank(model, plans, range(len(plans)))
    for run in range(len(plans)):
        generator = torch.Generator().manual_seed(run)
        for parameter in bank.parameters_of(run).values():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        bank.load_state(run, bank.state_of(run))  # nothing in the padding of smaller ranks
    return bank


def questions(count=5):
    draw = np.random.default_rng(3)
    return [
        Question(number, "", draw.integers(3, VOCABULARY, draw.integers(3, 12)), None)
        for number in range(count)
    ]


def task_of(kind):
    return Task(TASKS[kind], 0, 16, torch.device("cpu"))


def merged(bank, run, base):
    """The base with a run's product added to its weights, a plain model of transformers."""
    model = copy.deepcopy(base)
    state = bank.state_of(run)
    for name, adapted in bank.plans[run].modules.items():
        delta = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"] * adapted.scaling
        module = model.get_submodule(name)
        module.weight.data += delta.T if type(module).__name__ == "Conv1D" else delta
    return model


def said_by_transformers(model, question, settings, kind):
    """One prompt alone, without padding, by transformers' own search; up to its end."""
    config = GenerationConfig(
        **settings, eos_token_id=list(ENDS), pad_token_id=0, decoder_start_token_id=0
    )
    row = torch.from_numpy(question.ids)[None]
    mask = torch.ones_like(row)
    told = model.generate(input_ids=row, attention_mask=mask, generation_config=config)[0].tolist()
    new = told[1 if kind == "t5" else row.shape[1] :]
    return new[: next((place for place, token in enumerate(new) if token in ENDS), len(new))]


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_every_run_says_what_its_merged_model_says_alone(kind, settings):
    base = tiny_model(kind)
    bank = shaken_bank(kind, base=base)
    told = generate(bank, [0, 1, 2], questions(), asked(settings), task_of(kind), ENDS)
    for run in range(3):
        model = merged(bank, run, base)
        for question, answer in zip(questions(), told[run], strict=True):
            expected = said_by_transformers(model, question, settings, kind)
            assert list(answer.ids) == expected
            assert answer.cut_off == (len(expected) == settings["max_new_tokens"])
    everything = [answer.ids for answers in told for answer in answers]
    assert len(set(everything)) > len(everything) // 2, "the runs should differ"
    assert {answer.cut_off for answers in told for answer in answers} == {True, False}


@pytest.mark.parametrize("settings", [GREEDY, BEAMS, SAMPLED], ids=["greedy", "beams", "sampled"])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_run_says_the_same_alone_and_in_any_company(kind, settings):
    bank = shaken_bank(kind)
    task = task_of(kind)
    together = generate(bank, [0, 1, 2], questions(), asked(settings), task, ENDS)
    for selection in ([0], [1], [2], [2, 0]):
        told = generate(bank, selection, questions(), asked(settings), task, ENDS)
        assert told == [together[run] for run in selection]


def test_an_answer_does_not_depend_on_the_other_prompts():
    bank = shaken_bank("llama")
    together = generate(bank, [0, 1, 2], questions(), asked(SAMPLED), task_of("llama"), ENDS)
    for place in range(5):
        alone = generate(
            bank, [0, 1, 2], questions()[place : place + 1], asked(SAMPLED), task_of("llama"), ENDS
        )
        assert [answers[0] for answers in alone] == [answers[place] for answers in together]


def test_passes_that_cannot_hold_all_prompts_change_no_answer(monkeypatch):
    bank = shaken_bank("gpt2")
    whole = generate(bank, [0, 1, 2], questions(), asked(SAMPLED), task_of("gpt2"), ENDS)
    monkeypatch.setattr("rankwise.train.generate.TOKENS_OF_A_PASS", 70)
    assert generate(bank, [0, 1, 2], questions(), asked(SAMPLED), task_of("gpt2"), ENDS) == whole


def test_sampling_follows_the_seed_and_differs_from_the_likeliest():
    bank = shaken_bank("llama")

    def ids(**more):
        told = generate(bank, [0, 1, 2], questions(), asked(SAMPLED | more), task_of("llama"), ENDS)
        return [answer.ids for answers in told for answer in answers]

    assert ids() == ids()
    assert ids() != ids(seed=6)
    assert ids() != ids(do_sample=False)
    assert ids(temperature=1e-4) == ids(do_sample=False)


def test_keyed_noise_samples_the_distribution():
    probabilities = np.array([0.45, 0.25, 0.15, 0.1, 0.05])
    draws = [
        int(np.argmax(np.log(probabilities) + gumbel(5, 0, prompt, step)))
        for prompt in range(40)
        for step in range(100)
    ]
    counts = np.bincount(draws, minlength=5)
    assert stats.chisquare(counts, 4000 * probabilities).pvalue > 0.001
    assert stats.kstest(gumbel(4000, 1), stats.gumbel_r.cdf).pvalue > 0.001


def test_outside_of_its_context_a_bank_is_the_untouched_base():
    base = tiny_model("gpt2")
    bank = shaken_bank("gpt2", base=base)
    settings, task = asked(GREEDY), task_of("gpt2")
    plain = generate(Untouched(base), [0], questions(), settings, task, ENDS)
    trained = generate(bank, [0, 1, 2], questions(), settings, task, ENDS)
    assert generate(Untouched(bank.model), [0], questions(), settings, task, ENDS) == plain
    assert plain[0] not in trained


def test_what_a_checkpoint_recommends_is_put_aside_and_put_back():
    base = tiny_model("llama")
    plain = generate(Untouched(base), [0], questions(), asked(GREEDY), task_of("llama"), ENDS)
    own = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, eos_token_id=[7, 8])
    base.generation_config = own
    assert (
        generate(Untouched(base), [0], questions(), asked(GREEDY), task_of("llama"), ENDS) == plain
    )
    assert base.generation_config is own
    assert end_tokens(base, tiny_tokenizer()) == (2, 4, 7, 8)  # 4 ends a turn of its template


def test_full_fine_tuning_speaks_through_the_same_door():
    base = tiny_model("llama")
    plain = generate(Untouched(base), [0], questions(), asked(GREEDY), task_of("llama"), ENDS)
    whole = WholeModel(copy.deepcopy(base), torch.float32, 0)
    assert generate(whole, [0], questions(), asked(GREEDY), task_of("llama"), ENDS) == plain


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_perplexity_under_the_base_is_that_of_transformers(kind):
    base = tiny_model(kind)
    answers = [(5, 9, 11), (), (30, 31, 32, 33, 34, 35)]
    spoken = [(q.ids, ids) for q, ids in zip(questions(3), answers, strict=True)]
    found = perplexities(Untouched(base), spoken, task_of(kind))
    assert found[1] is None
    for place in (0, 2):
        prompt, answer = torch.from_numpy(spoken[place][0]), torch.tensor(answers[place])
        if kind == "t5":
            loss = base(input_ids=prompt[None], labels=answer[None]).loss
        else:
            labels = torch.cat([torch.full_like(prompt, -100), answer])
            loss = base(input_ids=torch.cat([prompt, answer])[None], labels=labels[None]).loss
        assert found[place] == pytest.approx(loss.exp().item(), rel=1e-5)


def study_of(folder, kind, shape, **more):
    spec = StudySpec.model_validate(tiny_spec(folder, kind, shape, **more))
    return plan_study(spec, folder)


def run_whole(plan, folder):
    for _ in run_study(plan, folder):
        pass


ASKED = {"prompts": ["where is the cat?"], "prompts_from_validation": 3}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A study of two adapters, each with two limits, two seeds; and how many runs were trained."""
    folder = tmp_path_factory.mktemp("shared")
    grid = {"lora.r": [2, 4], "generation.max_new_tokens": [4, 8]}
    plan = study_of(folder, "llama", "pairs", generation=ASKED, grid=grid, seeds=[0, 1])
    trained = []

    def counting(runs, part):
        trained.extend(run.id for run in runs)
        return new_states(runs, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_cohort, "new_states", counting)
        run_whole(plan, folder / "out")
        run_whole(plan, folder / "out")  # nothing is left to do
    return plan, folder / "out", trained


def answers_by_label(store):
    """What each configuration's run answers, by CONFIG/seed-N."""
    names = {config.id: config.name for config in store.configs()}
    return {
        f"{names[record.config_id]}/seed-{store.run(record.run_id).seed}": record.answers
        for record in store.answers()
        if record.run_id is not None
    }


def pairs_of(plan):
    """(run with the small limit, run with the large one) of each adapter and seed."""
    found = {}
    for run in plan.runs:
        found.setdefault((run.arm.training_id, run.seed), []).append(run)
    assert [len(pair) for pair in found.values()] == [2] * 4
    return list(found.values())


def test_arms_that_differ_in_generation_alone_are_trained_once(shared):
    plan, folder, trained = shared
    assert len(trained) == len(set(trained)) == 4
    with Store(folder) as store:
        assert {run.state for run in store.runs()} == {"done"}
        assert len(store.runs()) == 4
        assert set(store.costs()) == {training.id for training in store.trainings()}
        facts = {run.id: run for run in read_records(store).runs}
        for one, other in pairs_of(plan):
            assert id_of(store, one) == id_of(store, other)
            mine, yours = facts[one.id], facts[other.id]
            assert replace(mine, id="", arm="") == replace(yours, id="", arm="")
            assert mine.train_curve
            assert mine.test
            for file in (folder / "adapters" / one.id).iterdir():
                twin = folder / "adapters" / other.id / file.name
                assert file.read_bytes() == twin.read_bytes()


def test_each_arm_answers_within_its_own_limit(shared):
    plan, folder, _ = shared
    with Store(folder) as store:
        said = answers_by_label(store)
    for small, large in pairs_of(plan):
        assert len(said[small.id]) == len(said[large.id]) == 4
        for short, long in zip(said[small.id], said[large.id], strict=True):
            assert short.ids == long.ids[:4]
            assert len(long.ids) <= 8
            assert short.measures["tokens"] == len(short.ids)
    assert any(one.measures["tokens"] == 8 for one in said[large.id])


def test_the_untouched_base_answers_the_same_prompts_and_rates_all_answers(shared):
    plan, folder, _ = shared
    with Store(folder) as store:
        records, base = store.answers(), store.base_metrics()
    of_base = [record for record in records if record.run_id is None]
    assert len(of_base) == 2  # one for each limit
    assert len(records) == 2 + len(plan.runs)
    for record in records:
        assert [one.prompt for one in record.answers] == [one.prompt for one in of_base[0].answers]
        assert record.answers[0].reference is None
        assert record.answers[1].reference
        for one in record.answers:
            assert one.measures["base_perplexity"] > 1 or not one.ids
    assert base["eval_perplexity"] == pytest.approx(np.exp(base["eval_loss"]))


def test_answers_that_were_not_rated_are_rated_later_without_training(shared):
    plan, folder, trained = shared
    run = plan.runs[0]
    with Store(folder, create=True) as store:
        before = answers_by_label(store)
        bare = copy.deepcopy(before[run.id])
        for one in bare:
            one.measures.pop("base_perplexity", None)
        config = next(config.id for config in store.configs() if config.key == run.arm.id)
        store.save_answers(config, id_of(store, run), bare)
    run_whole(plan, folder)
    with Store(folder) as store:
        assert answers_by_label(store) == before
    assert len(trained) == 4


def test_an_arm_that_is_added_later_is_answered_and_not_trained(tmp_path, monkeypatch):
    trained = []

    def counting(runs, part):
        trained.extend(run.id for run in runs)
        return new_states(runs, part)

    monkeypatch.setattr(train_cohort, "new_states", counting)
    short, long = ({"name": f"up-to-{n}", "generation.max_new_tokens": n} for n in (4, 8))
    for arms in ([short], [short, long]):
        plan = study_of(tmp_path, "gpt2", "text", generation=ASKED, configs=arms)
        run_whole(plan, tmp_path / "out")
    first, added = plan.runs
    with Store(tmp_path / "out") as store:
        assert {run.state for run in store.runs()} == {"done"}
        assert len(store.runs()) == 1
        keys = {config.id: config.key for config in store.configs()}
        of_base = [keys[record.config_id] for record in store.answers() if record.run_id is None]
        assert of_base == [first.arm.id, added.arm.id]
        said = answers_by_label(store)
    assert [one.ids for one in said[first.id]] == [one.ids[:4] for one in said[added.id]]
    assert trained == ["up-to-4/seed-0"]


@pytest.mark.parametrize(
    ("kind", "shape", "more", "message"),
    [
        ("bert", "labelled", {"generation": {"max_new_tokens": 9}}, "a classifier .* generates no"),
        ("llama", "text", {"generation": {"max_new_tokens": 9}}, "there are no prompts"),
        (
            "llama",
            "text",
            {"generation": ASKED | {"temperature": 2}},
            "temperature: has no effect",
        ),
        ("llama", "text", {"generation": {"prompts_from_validation": 999}}, "999 prompts of"),
        ("llama", "text", {"generation": {"prompts": [""]}}, "no token of prompt 1"),
        ("llama", "text", {"generation": ASKED | {"max_new_tokens": 64}}, "64 positions"),
        ("llama", "text", {"objective": {"metric": "eval_accuracy"}}, "not measured .* CAUSAL_LM"),
        ("bert", "labelled", {"objective": {"metric": "eval_chrf"}}, "eval_macro_f1 or"),
        ("t5", "translation", {"objective": {"metric": "eval_matthews"}}, "eval_rougeL or"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_loads(
    tmp_path, kind, shape, more, message
):
    with pytest.raises(SpecError, match=message):
        study_of(tmp_path, kind, shape, **more)


@pytest.mark.parametrize(
    ("kind", "shape", "own", "held_out"),
    [
        ("llama", "pairs", "a cat", "{}: where is the {}?"),
        (
            "llama",
            "chat",
            "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>user\n{}: where is the {}?<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("t5", "translation", "a cat</s>", "{}: where is the {}?</s>"),
    ],
)
def test_models_are_asked_as_they_were_trained(tmp_path, kind, shape, own, held_out):
    generation = {"prompts": ["a cat"], "prompts_from_validation": 2, "max_new_tokens": 8}
    plan = study_of(tmp_path, kind, shape, generation=generation)
    (prompts,) = plan.questions.values()
    assert [question.number for question in prompts] == [0, 1, 2]
    assert plan.tokenizer.decode(prompts[0].ids) == own
    for question in prompts[1:]:
        number, animal = question.text.removesuffix("?").split(": where is the ")
        assert plan.tokenizer.decode(question.ids) == held_out.format(number, animal)
        assert question.reference.startswith(f" the {animal} sits on")


def test_of_plain_text_the_first_half_asks_for_the_second(tmp_path):
    plan = study_of(tmp_path, "gpt2", "text", generation=ASKED | {"prompts": []})
    (prompts,) = plan.questions.values()
    chosen = [plan.data.validation[place] for place in (0, 4, 8)]  # of twelve
    assert [question.text + question.reference + "</s>" for question in prompts] == [
        plan.tokenizer.decode(example.input_ids) for example in chosen
    ]


def test_full_fine_tuning_is_asked_beside_adapters_and_rated_by_the_same_base(tmp_path):
    arms = [
        {"name": "lora"},
        {"name": "full", "method": "full", "training.learning_rate": 1e-3},
        {"name": "full-long", "method": "full", "training.learning_rate": 1e-3}
        | {"generation.max_new_tokens": 8},
    ]
    generation = ASKED | {"max_new_tokens": 4}
    plan = study_of(tmp_path, "gpt2", "text", generation=generation, configs=arms)
    run_whole(plan, tmp_path / "out")
    with Store(tmp_path / "out") as store:
        said = answers_by_label(store)
        assert {run.state for run in store.runs()} == {"done"}
    for short, long in zip(said["full/seed-0"], said["full-long/seed-0"], strict=True):
        assert short.ids == long.ids[:4]
    base = Bases(plan.spec.model, "CAUSAL_LM", None, 0, torch.device("cpu"), "eager")
    prompts = plan.questions[plan.arms[1].generation]
    spoken = [(q.ids, one.ids) for q, one in zip(prompts, said["full/seed-0"], strict=True)]
    rated = [one.measures["base_perplexity"] for one in said["full/seed-0"]]
    expected = perplexities(Untouched(base.frozen("none").model), spoken, task_of("gpt2"))
    assert rated == pytest.approx(expected, rel=1e-6)


def test_sampling_and_beams_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        asked(SAMPLED | {"num_beams": 2})


def test_a_failing_generation_costs_no_training(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no answer today")

    monkeypatch.setattr("rankwise.study.answering.generate", fails)
    plan = study_of(tmp_path, "gpt2", "text", generation=ASKED)
    run_whole(plan, tmp_path / "out")
    with Store(tmp_path / "out") as store:
        (run,) = store.runs()
        assert run.state == "done"
        assert store.evaluations(run.id, "test")
        said = [sentence for kind, sentence in map(remark, store.facts()) if kind != "data"]
        assert f"no answers of {plan.runs[0].id}: no answer today" in said
        assert store.answers() == ()
