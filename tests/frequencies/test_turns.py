"""Rates in turns, against DINOv3 as transformers and timm have it."""

import math

import numpy as np
import pytest
import torch
from tests import peers

from posenc import AxialRoPE, Geometric, YaRN, positions
from posenc.frequencies import NTK, DynamicNTK, Frequencies, LearnedRates, Logspaced, Turns


def test_a_rate_of_one_is_a_whole_turn() -> None:
    assert Turns(Geometric(100)).inv_freq(8)[0] == 2 * math.pi
    np.testing.assert_allclose(Turns(NTK(2)).inv_freq(64) / NTK(2).inv_freq(64), 2 * math.pi, rtol=1e-15)
    rule = Turns(Turns(Geometric()))
    assert Frequencies.from_dict(rule.to_dict()) == rule


def test_factors_are_those_of_the_rule() -> None:
    inner = YaRN(4, trained_length=4096)
    assert inner.attention_factor > 1
    assert Turns(inner).attention_factor == inner.attention_factor


@pytest.mark.parametrize("rule", [LearnedRates(), DynamicNTK(2, trained_length=64)])
def test_rates_that_change_are_refused(rule: Frequencies) -> None:
    with pytest.raises(ValueError, match="expected a rule with fixed rates"):
        Turns(rule)


def test_a_class_is_no_rule() -> None:
    with pytest.raises(TypeError, match=r"make one: Geometric\(\.\.\.\)"):
        Turns(Geometric)  # type: ignore[arg-type]


def test_is_dinov3_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.dinov3_vit.modeling_dinov3_vit")
    config = transformers.DINOv3ViTConfig(hidden_size=64, num_attention_heads=2, patch_size=8)
    cos, sin = module.DINOv3ViTRopePositionEmbedding(config).eval()(torch.zeros(1, 3, 64, 48))
    rope = AxialRoPE(32, frequencies=Turns(Geometric(100)))
    angle, _ = rope.phases(positions.grid(8, 6, unit="centred"))
    torch.testing.assert_close(torch.cat((angle, angle), -1)[0].cos(), cos.double(), atol=3e-6, rtol=0)
    torch.testing.assert_close(torch.cat((angle, angle), -1)[0].sin(), sin.double(), atol=3e-6, rtol=0)


@pytest.mark.parametrize(
    "periods", [{"temperature": 100.0}, {"temperature": None, "min_period": 0.1, "max_period": 10}]
)
def test_is_dinov3_of_timm(periods: dict[str, float]) -> None:
    timm = peers.timm("layers.pos_embed_sincos")
    module = timm.RotaryEmbeddingDinoV3(32, **periods)
    rule = Geometric(100) if "min_period" not in periods else Logspaced(1 / 0.1, 1 / 10)
    rope = AxialRoPE(32, frequencies=Turns(rule))
    x = torch.randn(1, 2, 48, 32, generator=torch.Generator().manual_seed(0))
    theirs = timm.apply_rot_embed_cat(x, module.get_embed([8, 6]), half=True)
    # 2e-6 of the largest angle, 2 pi / 0.1, is what float32 costs their tables
    torch.testing.assert_close(rope.rotate(x, positions.grid(8, 6, unit="centred")), theirs, atol=2e-4, rtol=0)
