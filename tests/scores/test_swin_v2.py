"""Swin v2: the same output of its window attention, cosine and all, at its own window and a larger one."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import posenc


@pytest.mark.parametrize(("window", "trained"), [((4, 4), None), ((6, 6), (4, 4))])
def test_the_output_is_that_of_the_attention_of_swin_v2(
    window: tuple[int, int], trained: tuple[int, int] | None
) -> None:
    swin_v2 = pytest.importorskip("transformers.models.swinv2.modeling_swinv2")
    config = SimpleNamespace(qkv_bias=True, attention_probs_dropout_prob=0.0)
    module = swin_v2.Swinv2SelfAttention(
        config, dim=12, num_heads=3, window_size=window, pretrained_window_size=list(trained or (0, 0))
    )
    encoding = posenc.scores.SwinV2Bias(num_heads=3, window=window, trained_window=trained)
    encoding.hidden.load_state_dict(module.continuous_position_bias_mlp[0].state_dict())
    encoding.out.load_state_dict(module.continuous_position_bias_mlp[2].state_dict())
    places = window[0] * window[1]
    x = torch.randn(2, places, 12)
    with torch.no_grad():
        (expected,) = module(x)[:1]
        q, k, v = (p(x).unflatten(-1, (3, 4)).transpose(1, 2) for p in (module.query, module.key, module.value))
        q = F.normalize(q, dim=-1) * module.logit_scale.clamp(max=4.6051702).exp()
        y = posenc.attention(q, F.normalize(k, dim=-1), v, encoding, scale=1.0)
    torch.testing.assert_close(y.transpose(1, 2).flatten(2), expected, rtol=1e-5, atol=1e-5)


def test_a_larger_window_agrees_where_the_smaller_one_was() -> None:
    small = posenc.scores.SwinV2Bias(num_heads=2, window=(4, 4))
    large = posenc.scores.SwinV2Bias(num_heads=2, window=(6, 6), trained_window=(4, 4))
    large.load_state_dict(small.state_dict())
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    at_small, at_large = (rows * 4 + columns).flatten(), (rows * 6 + columns).flatten()
    torch.testing.assert_close(large.bias(at_large, at_large), small.bias(at_small, at_small))


def test_no_hidden_units_are_refused() -> None:
    with pytest.raises(ValueError, match="got width 0, expected at least 1"):
        posenc.scores.SwinV2Bias(num_heads=2, width=0)
