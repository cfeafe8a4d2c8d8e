"""The code of a grid, against the code of a line and against Hugging Face's RT-DETR."""

import numpy as np
import pytest

from posenc.oracle.embeddings import sinusoidal
from posenc.oracle.embeddings.sinusoidal_grid import codes

W = 10_000.0 ** (-np.arange(0, 8, 2) / 8)
P = np.random.default_rng(0).normal(size=(3, 5, 2)) * 30


def test_each_axis_has_the_code_of_a_line() -> None:
    for layout in ("concatenated", "interleaved"):
        y, x = (sinusoidal.codes(P[..., a], inv_freq=W, order=layout) for a in (0, 1))
        np.testing.assert_array_equal(codes(P, inv_freq=[W, W], layout=layout), np.concatenate((y, x), axis=-1))
        np.testing.assert_array_equal(
            codes(P, inv_freq=[W, W], layout=layout, order=(1, 0)), np.concatenate((x, y), axis=-1)
        )


def test_sines_first_by_hand() -> None:
    got = codes([[1.0, 2.0]], inv_freq=[[1.0], [0.5, 0.25]], layout="sines_first")[0]
    np.testing.assert_allclose(
        got, [np.sin(1), np.sin(1), np.sin(0.5), np.cos(1), np.cos(1), np.cos(0.5)], rtol=0, atol=1e-16
    )


@pytest.mark.transformers_as_pinned
def test_it_is_the_grid_of_rt_detr() -> None:
    module = pytest.importorskip("transformers.models.rt_detr.modeling_rt_detr")
    expected = module.build_2d_sinusoidal_position_embedding(3, 4, embed_dim=16).numpy()
    places = np.array([[y, x] for y in range(3) for x in range(4)])
    np.testing.assert_allclose(codes(places, inv_freq=[W, W]), expected, rtol=0, atol=6e-8)


def test_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout is 'half', expected"):
        codes(P, inv_freq=[W, W], layout="half")
