"""Values that turn like the keys, and an output that is turned back, as in DeepSeek-V4."""

import pytest
import torch

import posenc


def attended(rope: posenc.RoPE, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first: int) -> torch.Tensor:
    turned_q, turned_k = rope.on_queries_keys(q, k, first)
    turned_v = rope.rotate(v, first, role="key")
    return rope.inverse(posenc.attention(turned_q, turned_k, turned_v, rope, causal=True), first)


def test_the_output_depends_on_distances_alone() -> None:
    rope = posenc.RoPE(16, frequencies=posenc.YaRN(4, trained_length=64))  # its factor is undone
    q, k, v = torch.randn(3, 2, 4, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(attended(rope, q, k, v, 0), attended(rope, q, k, v, 1000))
    one = attended(rope, q[:, :, :1], k[:, :, :1], v[:, :, :1], 7)
    torch.testing.assert_close(one, v[:, :, :1])  # a token that sees itself alone, at a distance of 0


@pytest.mark.transformers_as_pinned
def test_it_is_what_deepseek_v4_computes() -> None:
    from transformers import DeepseekV4Config
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4Attention, DeepseekV4RotaryEmbedding

    sizes = {"hidden_size": 32, "num_attention_heads": 4, "head_dim": 16, "q_lora_rank": 16, "o_lora_rank": 8}
    config = DeepseekV4Config(
        **sizes, o_groups=2, num_hidden_layers=1, layer_types=["sliding_attention"], attn_implementation="eager"
    )
    config.rope_parameters["main"]["partial_rotary_factor"] = 0.25
    layer = DeepseekV4Attention(config, 0).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, positions = torch.randn(2, 9, 32), torch.arange(3, 12)[None]
    tables = DeepseekV4RotaryEmbedding(config)(x, position_ids=positions, layer_type="main")
    mask = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    expected, _ = layer(x, {"main": tables}, positions, mask)

    rope = posenc.RoPE(16, pairing="interleaved", rotary_dim=4, rotary_start=12)
    q = layer.q_b_norm(layer.q_b_proj(layer.q_a_norm(layer.q_a_proj(x))).view(2, 9, 4, 16).transpose(1, 2))
    kv = layer.kv_norm(layer.kv_proj(x)).view(2, 9, 1, 16).transpose(1, 2)
    q, kv = rope.on_queries_keys(q, kv, positions)
    y = rope.inverse(posenc.attention(q, kv, kv, rope, causal=True, sinks=layer.sinks), positions)
    got = layer.o_b_proj(layer.o_a_proj(y.transpose(1, 2).reshape(2, 9, 2, -1)).flatten(2))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
