"""What a module computes is told from its name."""

import pytest

from rankwise.base.modules import role_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.3.self_attn.qkv_proj", "qkv"),
        ("model.layers.3.mlp.gate_up_proj", "mlp"),
        ("model.layers.3.mlp.shared_expert.gate_proj", "mlp"),
        ("model.layers.3.mlp.shared_expert_gate", "other"),
        ("model.layers.3.self_attn.q_a_proj", "query"),
        ("model.layers.0.attn.Wqkv", "qkv"),
        ("model.layers.0.attn.Wo", "attention-out"),
        ("model.layers.0.mlp.Wo", "mlp"),
        ("transformer.h.0.self_attention.query_key_value", "qkv"),
        ("transformer.h.0.mlp.dense_4h_to_h", "mlp"),
        ("transformer.h.0.attn.attention.k_proj", "key"),
        ("encoder.block.0.layer.0.SelfAttention.o", "attention-out"),
        ("decoder.block.0.layer.1.EncDecAttention.v", "value"),
        ("longformer.encoder.layer.0.attention.self.query_global", "other"),
        ("bert.encoder.layer.11.attention.output.dense", "attention-out"),
        ("bert.encoder.layer.11.output.dense", "mlp"),
        ("bert.pooler.dense", "other"),
        ("backbone.layers.0.mixer.in_proj", "other"),
        ("lm_head", "other"),
    ],
)
def test_the_role_of_a_module(name, role):
    assert role_of(name) == role
