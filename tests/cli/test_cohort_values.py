"""Which runs train together, what becomes of those that cannot, and the memory that is foretold.

Models of our own, registered with transformers, show from outside what batches they are given.
"""

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig

from black_box import make_study, random_base, rankwise
from tiny import CONFIGS
from tiny_text import VOCABULARY


class WatchedConfig(BertConfig):
    model_type = "watched"


class Watched(transformers.BertForSequenceClassification):
    """BERT that notes the rows of every training batch and can be told what to do with them."""

    config_class = WatchedConfig
    rows: list[int] = []  # noqa: RUF012  one list for all models of a test
    most = 10**9
    mixing = 0.0
    turned = False
    floor = -float("inf")

    def forward(self, input_ids=None, **given):
        if torch.is_grad_enabled():
            self.rows.append(len(input_ids))
            if len(input_ids) > self.most:
                raise torch.OutOfMemoryError("no more memory")
        if self.turned:
            given = {name: value.flip(0) for name, value in given.items()}
            found = super().forward(input_ids.flip(0), **given)
            found.logits = found.logits.flip(0)
        else:
            found = super().forward(input_ids, **given)
        logits = found.logits + self.mixing * found.logits.mean(0)
        found.logits = logits.masked_fill(logits < self.floor, -float("inf"))
        return found


AutoConfig.register("watched", WatchedConfig)
AutoModelForSequenceClassification.register(WatchedConfig, Watched)

PAIR = {"small": {"lora.r": 2}, "large": {"lora.r": 4}}


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """Makes studies of four runs, of four rows a batch, on such a model."""
    for name, value in {"rows": [], "most": 10**9, "mixing": 0.0, "turned": False}.items():
        monkeypatch.setattr(Watched, name, value)
    monkeypatch.setattr(Watched, "floor", -float("inf"))
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = WatchedConfig(**CONFIGS["bert"], **ids, num_labels=3, initializer_range=0.2)

    def make(name="study", **more):
        torch.manual_seed(0)
        more = {"configurations": PAIR, "seeds": [0, 1], **more}
        return make_study(tmp_path / name, base=Watched(config), **more)

    return make


def losses_of(study):
    return {key: float(row["best_eval_loss"]) for key, row in study.runs().items()}


def test_runs_train_together_unless_max_runs_says_otherwise(watched):
    found = {}
    for most in (None, 3, 1):
        Watched.rows.clear()
        study = watched(f"most-{most}", hardware={"max_runs": most}).run()
        found[most] = losses_of(study)
        plan = [len(cohort) for cohort in study.plan()["cohorts"]]
        assert max(plan) <= (most or 4)
        assert max(Watched.rows) == 4 * max(plan)
        assert (max(plan) == 4) == (most is None)
    assert found[3] == pytest.approx(found[None], abs=1e-5)
    assert found[1] == pytest.approx(found[None], abs=1e-5)


def test_a_model_that_cannot_tell_runs_apart_is_trained_alone_and_the_report_says_so(tmp_path):
    """DeBERTa sends its position embeddings, which are no rows, through the adapted modules."""
    made = {"kind": "deberta-v2", "configurations": PAIR, "seeds": [0, 1]}
    alone = make_study(tmp_path / "alone", hardware={"max_runs": 1}, **made).run()
    study = make_study(tmp_path / "study", **made).run()
    assert losses_of(study) == pytest.approx(losses_of(alone), abs=1e-6)
    assert "trained alone" in (study.out / "report.md").read_text()


def test_a_model_that_takes_its_rows_in_another_order_is_trained_alone(watched, monkeypatch):
    """No shape shows it: a run's rows would be computed with the weights of another run."""
    one = {"configurations": {"one": {}}}
    alone = losses_of(watched("alone", hardware={"max_runs": 1}, **one).run())
    monkeypatch.setattr(Watched, "turned", True)
    Watched.rows.clear()
    study = watched(**one).run()
    assert losses_of(study) == pytest.approx(alone, abs=1e-6)
    assert max(Watched.rows) == 4
    assert "trained alone" in (study.out / "report.md").read_text()


def test_a_model_in_which_rows_meet_is_refused(watched, monkeypatch):
    monkeypatch.setattr(Watched, "mixing", 0.3)
    study = watched()
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert code == 2
    assert "the rows beside it" in err


def test_a_cohort_that_is_too_large_is_trained_in_parts(watched, monkeypatch):
    undisturbed = losses_of(watched("undisturbed").run())
    assert max(Watched.rows) == 16
    Watched.rows.clear()
    monkeypatch.setattr(Watched, "most", 8)
    study = watched().run()
    assert max(Watched.rows) == 16
    assert {row["state"] for row in study.runs().values()} == {"done"}
    assert losses_of(study) == pytest.approx(undisturbed, abs=1e-5)


def test_a_run_that_lacked_memory_is_tried_again_by_the_next_call(watched, monkeypatch):
    undisturbed = losses_of(watched("undisturbed").run())
    monkeypatch.setattr(Watched, "most", 0)
    study = watched().run(code=1)
    assert {row["state"] for row in study.runs().values()} == {"out_of_memory"}
    monkeypatch.setattr(Watched, "most", 10**9)
    study.run()
    assert {row["state"] for row in study.runs().values()} == {"done"}
    assert losses_of(study) == pytest.approx(undisturbed, abs=1e-5)


def test_a_run_whose_validation_loss_is_infinite_is_not_done_and_has_no_place(watched, monkeypatch):
    monkeypatch.setattr(Watched, "floor", -60.0)
    study = watched(
        configurations={
            "calm": {},
            "endless": {"training.learning_rate": 100.0, "training.max_grad_norm": 0},
        },
        training={"max_steps": 1, "eval_steps": 1},
    ).run()
    rows = study.runs()
    for seed in (0, 1):
        assert rows["calm", seed]["state"] == "done"
        assert rows["endless", seed]["last_eval_loss"] == "inf"
        assert rows["endless", seed]["state"] == "diverged"
        assert rows["endless", seed]["test_eval_loss"] == ""
    facts = study.facts()
    assert {arm["arm"] for arm in facts["verdict"]["arms"] if arm["place"]} == {"calm"}
    assert facts["recommendation"]["arm"] == "calm"


# Memory, whose terms are known to the byte but for the activations


def memory(folder, kind="bert", shape="labelled", base=None, **configurations):
    """Facts of `plan` by configuration; every row is of eight tokens, four rows a batch."""
    study = make_study(
        folder, kind, shape, configurations=configurations, base=base, data={"max_length": 8}
    )
    return {arm["name"]: arm for arm in study.plan()["arms"]}


def test_predicted_memory_counts_base_trained_weights_and_activations(tmp_path):
    plan = memory(
        tmp_path,
        common={},
        twice={"training.per_device_train_batch_size": 8},
        rank={"lora.r": 8},
        dropout={"lora.lora_dropout": 0.1},
        full={"method": "full"},
    )
    found = {name: arm["memory_bytes"] for name, arm in plan.items()}
    trained = {name: arm["trainable_params"] for name, arm in plan.items()}
    base = random_base("bert").num_parameters()
    activations = found["twice"] - found["common"]
    assert found["common"] == 4 * base + 16 * trained["common"] + activations
    tokens, modules, width = 4 * 8, 4, 32
    assert found["dropout"] - found["common"] == 4 * tokens * modules * width
    more = 16 * (trained["rank"] - trained["common"])
    assert found["rank"] - found["common"] == more + 4 * tokens * modules * 4
    assert trained["full"] == base
    assert found["full"] > 16 * base


def test_predicted_memory_counts_logits_and_attention(tmp_path):
    layers, tokens = 2, 4 * 8

    def common(name, **more):
        base = random_base("gpt2", **more)
        plan = memory(tmp_path / name, "gpt2", "text", base, common={})
        return plan["common"]["memory_bytes"], base.num_parameters()

    (plain, size), (wide, wider) = common("plain"), common("wide", vocab_size=2 * VOCABULARY)
    assert wide - plain == 4 * (wider - size) + tokens * VOCABULARY * (4 + 8)
    more_heads, _ = common("heads", n_head=4)
    assert more_heads - plain == 4 * tokens * layers * 2 * 8
    relu, _ = common("relu", activation_function="relu")
    assert plain - relu == 4 * tokens * layers * 3 * 4 * 32


def test_what_is_foretold_is_about_what_is_counted_in_training(tmp_path):
    study = make_study(tmp_path, configurations=PAIR | {"drop": {"lora.lora_dropout": 0.1}}).run()
    for (name, _), row in study.runs().items():
        ratio = float(row["probe_memory_bytes"]) / float(row["memory_bytes"])
        assert 0.6 < ratio < 1.2, name


def test_a_limit_of_memory_makes_small_cohorts(tmp_path):
    study = make_study(tmp_path, configurations=PAIR, seeds=[0, 1])
    alone = max(arm["memory_bytes"] for arm in study.plan()["arms"])
    together = study.plan("--set", "hardware.memory_gb=1")["cohorts"]
    assert [len(cohort) for cohort in together] == [4]
    apart = study.plan("--set", f"hardware.memory_gb={alone / 1e9}")["cohorts"]
    assert [len(cohort) for cohort in apart] == [1, 1, 1, 1]
