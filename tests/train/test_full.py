"""Full fine-tuning goes through the same loop, and gives what a plain torch loop gives."""

import copy

import numpy as np
import pytest
import torch
import transformers

from peft_loop import plain_loop
from rankwise.adapters.memory import footprint
from rankwise.adapters.peft_files import AdapterWriter
from rankwise.spec.arms import Run
from rankwise.train.bank import WholeModel
from rankwise.train.optimizer import make_optimizer
from tiny import CLASSES, CONFIGS, TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

STEPS = 20


def full_run(kind, **changes):
    arm = {"method": "full", "training.learning_rate": 3e-3, **changes}
    (made,) = tiny_arms(kind, [arm], max_steps=STEPS, eval_steps=STEPS)
    return Run(made, 0)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_full_fine_tuning_equals_a_plain_torch_loop(kind, tmp_path):
    base = tiny_model(kind)
    run = full_run(kind, **{"training.weight_decay": 0.1, "training.max_grad_norm": 0.3})
    cohort, told = tiny_cohort(kind, [run], tmp_path, base)
    told.train(cohort)
    reference = copy.deepcopy(base).requires_grad_(True)
    examples = tiny_examples(TASKS[kind])
    expected = plain_loop(reference, TASKS[kind], run.arm.training, 0, examples, STEPS)
    np.testing.assert_allclose(told.steps(run), expected, rtol=0, atol=1e-5)
    final = cohort.bank.state_of(0)
    count = footprint(base.requires_grad_(True), None).trainable
    assert count == sum(p.numel() for p in cohort.bank.parameters_of(0).values())
    for name, weight in reference.named_parameters():
        distance = (final[name] - weight).norm()
        assert distance < 1e-3 * weight.norm() + 1e-5, name

    loaded = CLASSES[TASKS[kind]].from_pretrained(tmp_path / "adapters" / run.id).eval()
    ids = torch.arange(3, 15).view(2, 6)
    inputs = {"decoder_input_ids": ids} if kind == "t5" else {}
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids, **inputs).logits, reference(input_ids=ids, **inputs).logits,
            rtol=0, atol=1e-4,
        )  # fmt: skip


def test_only_what_the_base_lacks_is_drawn_anew(tmp_path):
    base = tiny_model("bert")
    lacking = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier")
    drawn = {
        seed: WholeModel(copy.deepcopy(base), torch.float32, seed, lacking).state_of(0)
        for seed in (0, 1)
    }
    kept = dict(base.named_parameters())
    for name, weight in drawn[0].items():
        new = name.startswith(("bert.pooler", "classifier"))
        assert torch.equal(weight, kept[name]) != (new and name.endswith("weight")), name
        assert torch.equal(weight, drawn[1][name]) != (new and name.endswith("weight")), name


def test_lora_and_full_fine_tuning_of_one_seed_start_from_one_head(tmp_path):
    base = transformers.AutoModelForSequenceClassification.from_config(
        transformers.AutoConfig.for_model(
            "roberta", vocab_size=64, hidden_size=32, intermediate_size=48, num_labels=3,
            num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64,
        )
    )  # fmt: skip
    (arm,) = tiny_arms("bert", [{"lora.r": 2}])
    cohort, _ = tiny_cohort("bert", [Run(arm, 3)], tmp_path, base, ("classifier",))
    lora = cohort.bank.state_of(0)
    full = WholeModel(base, torch.float32, 3, ("classifier",)).state_of(0)
    heads = [name for name in full if name.startswith("classifier.")]
    assert len(heads) == 4
    for name in heads:
        torch.testing.assert_close(lora[name], full[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_weight_decay_reaches_the_weights_that_transformers_decays(kind):
    model = tiny_model(kind)
    parameters = dict(model.named_parameters())
    (arm,) = tiny_arms(kind, [{"method": "full"}], weight_decay=0.1)
    optimizer = make_optimizer(arm.training, parameters)
    decayed = {
        id(p) for group in optimizer.param_groups for p in group["params"] if group["weight_decay"]
    }
    found = {name for name, parameter in parameters.items() if id(parameter) in decayed}
    expected = set(transformers.Trainer.get_decay_parameter_names(None, model))
    assert found == expected & parameters.keys()


def test_buffers_that_a_checkpoint_holds_are_written_with_the_trained_weights(tmp_path):
    """Marian adds a buffer to its logits; full fine-tuning must not lose it."""
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
             "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
             "vocab_size": 30, "pad_token_id": 0, "decoder_start_token_id": 0}  # fmt: skip
    model = transformers.MarianMTModel(transformers.MarianConfig(**sizes))
    model.final_logits_bias.copy_(torch.arange(30.0))
    writer = AdapterWriter(tmp_path, "base", "SEQ_2_SEQ_LM", model)
    state = {name: value.detach() * 2 for name, value in model.named_parameters()}
    folder = writer.save("run-1", None, state, {})
    again = transformers.MarianMTModel.from_pretrained(folder)
    assert torch.equal(again.final_logits_bias.flatten(), torch.arange(30.0))
    assert torch.equal(again.lm_head.weight, model.lm_head.weight * 2)
