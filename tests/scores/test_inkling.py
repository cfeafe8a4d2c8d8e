"""Inkling's relative logits: whole attention layers of two released models, decoding, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

import posenc
from posenc.scores import InklingBias

LENGTH, EXTENT = 9, 4


def randomize(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)


def causal() -> Tensor:
    return torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("floor", [None, 3])
@pytest.mark.parametrize("implementation", ["dense", "blocks"])
def test_attention_of_inkling(implementation: Any, floor: int | None) -> None:
    modeling = pytest.importorskip("transformers.models.inkling.modeling_inkling")
    config = modeling.InklingTextConfig(
        hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=8, d_rel=3, rel_extent=EXTENT,
        num_hidden_layers=1, layer_types=["hybrid"], log_scaling_n_floor=floor, log_scaling_alpha=0.5,
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = modeling.InklingAttention(config, 0).eval()
    randomize(layer)
    x = torch.randn(2, LENGTH, 24)

    bias = InklingBias(24, 4, rank=3, extent=EXTENT)
    with torch.no_grad():
        bias.mix.weight.copy_(layer.r_proj.weight)
        bias.profiles.copy_(layer.rel_logits_proj.proj)
    encoding: posenc.Encoding = bias
    if floor is not None:
        encoding = posenc.Compose(bias, posenc.Temperature("inkling", length=floor, strength=0.5))

    def heads(y: Tensor, norm: Any = None) -> Tensor:
        split = y.view(2, LENGTH, -1, 8)
        return (split if norm is None else norm(split)).transpose(1, 2)

    with torch.no_grad():
        theirs, _ = layer(x, causal())
        without = posenc.attention  # the same call without the bias must differ
        q, k = heads(layer.q_proj(x), layer.q_norm), heads(layer.k_sconv(layer.k_proj(x)), layer.k_norm)
        v = heads(layer.v_sconv(layer.v_proj(x)))
        y = posenc.attention(
            q, k, v, encoding, causal=True, state=encoding.carry(x), scale=1 / 8, implementation=implementation
        )
        ours = layer.o_proj(y.transpose(1, 2).reshape(2, LENGTH, -1))
        plain = layer.o_proj(without(q, k, v, causal=True, scale=1 / 8).transpose(1, 2).reshape(2, LENGTH, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (plain - theirs).abs().max() > 0.1


@pytest.mark.transformers_as_pinned
def test_the_bias_of_a_global_layer_of_inkling_2() -> None:
    modeling = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    config = modeling.Inkling2TextConfig(
        hidden_size=24, d_rel=3, rel_l2_clip_threshold=0.7, log_scaling_n_floor=3, log_scaling_alpha=0.5
    )
    module = modeling.Inkling2RelativePositionBias(config, 4, EXTENT, log_scaling=True)
    randomize(module)
    bias = InklingBias(24, 4, rank=3, extent=EXTENT, clip=0.7)
    bias.load_state_dict({"mix.weight": module.linear.weight, "profiles": module.proj, "scale": module.norm.scale})
    encoding = posenc.Compose(bias, posenc.Temperature("inkling", length=3, strength=0.5))
    x, q = torch.randn(2, LENGTH, 24), torch.zeros(2, 4, LENGTH, 8)
    places = torch.arange(LENGTH)
    with torch.no_grad():
        ours = encoding.on_scores(torch.zeros(2, 4, LENGTH, LENGTH), places, places, q=q, k=q, state=bias.carry(x))
        theirs = module(x, places[:, None] - places, places[None])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_layer_decodes_with_the_state_in_its_cache() -> None:
    encoding = InklingBias(32, 4, rank=3, extent=EXTENT, clip=1.0)
    randomize(encoding)
    for window in (None, 3):
        layer = posenc.nn.Attention(32, 4, encoding, causal=True, window=window).eval()
        cache, x = layer.new_cache(), torch.randn(2, LENGTH, 32)
        with torch.no_grad():
            parts = [layer(part, cache=cache) for part in x.split((4, 1, 3, 1), dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), layer(x), rtol=1e-4, atol=1e-5)


def test_keys_beyond_the_extent_and_ahead_get_no_bias() -> None:
    encoding = InklingBias(8, 2, rank=1, extent=2)
    torch.nn.init.ones_(encoding.mix.weight)
    torch.nn.init.ones_(encoding.profiles)
    q, state = torch.zeros(1, 2, 4, 4), encoding.carry(torch.full((1, 4, 8), 0.5))
    bias = encoding.on_scores(torch.zeros(1, 2, 4, 4), None, None, q=q, k=q, state=state)
    expected = torch.tensor([[4.0, 0, 0, 0], [4, 4, 0, 0], [0, 4, 4, 0], [0, 0, 4, 4]])
    torch.testing.assert_close(bias, expected.expand(1, 2, 4, 4))


def test_what_does_not_fit_is_refused() -> None:
    encoding, q = InklingBias(6, 3, rank=2), torch.zeros(1, 3, 4, 2)
    with pytest.raises(ValueError, match=r"got no state, .* state=encoding.carry\(x, state\)"):
        posenc.attention(q, q, q, encoding, causal=True)
    with pytest.raises(ValueError, match=r"got x of shape \(1, 4, 5\), expected \(batch, seq, 6\)"):
        encoding.carry(torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match=r"got a state of shape \(1, 3, 4\), expected \(1, 3, 2, "):
        encoding.carry(torch.zeros(1, 4, 6), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="got clip 0, expected a number above 0"):
        InklingBias(6, 3, clip=0)
    with pytest.raises(ValueError, match="extent 0, expected at least 1"):
        InklingBias(6, 3, extent=0)
