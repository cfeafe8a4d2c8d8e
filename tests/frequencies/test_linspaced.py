"""Rates between two ends, against numbers of models that have them."""

import math

import numpy as np
import pytest
from tests import peers

from posenc import AxialRoPE
from posenc.frequencies import Linspaced, Logspaced, Tensor2Tensor


def test_both_ends_are_reached() -> None:
    for rule in (Linspaced(3, 0.5), Logspaced(3, 0.5)):
        rates = rule.inv_freq(64)
        assert (rates[0], rates[-1], len(rates)) == (3, 0.5, 32)
        assert rule.inv_freq(2).tolist() == [3]
    np.testing.assert_allclose(np.diff(Linspaced(1, 9).inv_freq(10)), 2)
    np.testing.assert_allclose(np.diff(np.log2(Logspaced(1, 16).inv_freq(10))), 1)


def test_tensor2tensor_is_one_of_them() -> None:
    np.testing.assert_allclose(Logspaced(1, 1e-4).inv_freq(64), Tensor2Tensor().inv_freq(64), rtol=1e-14)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, -1)])
def test_logarithms_need_rates_above_0(first: float, last: float) -> None:
    with pytest.raises(ValueError, match="expected rates above 0"):
        Logspaced(first, last)
    with pytest.raises(ValueError, match="Linspaced: got last nan"):
        Linspaced(first, math.nan)


@pytest.mark.parametrize("linear", [True, False])
def test_are_the_bands_of_pixels_in_timm(linear: bool) -> None:
    timm = peers.timm("layers.pos_embed_sincos")
    theirs = timm.pixel_freq_bands(16, max_freq=224.0, linear_bands=linear).double().numpy()
    ours = (Linspaced if linear else Logspaced)(math.pi, 112 * math.pi)
    np.testing.assert_allclose(ours.inv_freq(32), theirs, rtol=1e-6)


def test_are_the_rates_of_ltx_whose_whole_width_is_turned_as_one_head() -> None:
    torch = pytest.importorskip("torch")
    ltx = pytest.importorskip("diffusers.models.transformers.transformer_ltx", reason="diffusers is not installed")
    scale = (8 / 25, 32, 32)
    cos, sin = ltx.LTXVideoRotaryPosEmbed(512, theta=100.0)(
        torch.zeros(1, 1, 512), 3, 8, 6, rope_interpolation_scale=scale
    )
    x = torch.randn(1, 144, 512, generator=torch.Generator().manual_seed(0))
    theirs = ltx.apply_rotary_emb(x, (cos, sin))
    where = torch.cartesian_prod(torch.arange(3), torch.arange(8), torch.arange(6)).double()
    where = where * torch.tensor([scale[0] / 20, 32 / 2048, 32 / 2048]) * 2 - 1
    ours = AxialRoPE(
        512,
        axes=3,
        rotary_dim=510,
        rotary_start=2,
        layout="interleaved_alternating",
        frequencies=Logspaced(math.pi / 2, 100 * math.pi / 2),
    )
    torch.testing.assert_close(
        ours.rotate(x[:, None], where[None])[:, 0], theirs, rtol=0, atol=1e-4
    )  # their angles are float32
