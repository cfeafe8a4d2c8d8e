"""The code of a time, against diffusers and by hand."""

import numpy as np
import pytest
import torch

from posenc.oracle.embeddings import sinusoidal
from posenc.oracle.embeddings.timesteps import codes


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shift", "scale", "period"), [(0, 1, 10_000), (1, 1, 10_000), (0.5, 1000, 100)])
@pytest.mark.parametrize("dim", [8, 9])
def test_it_is_that_of_diffusers(flip: bool, shift: float, scale: float, period: int, dim: int) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.tensor([0.0, 0.001, 0.4, 1.0])
    expected = embeddings.get_timestep_embedding(t, dim, flip, shift, scale, period)
    got = codes(t, dim=dim, order="cos_sin" if flip else "sin_cos", shift=shift, scale=scale, max_period=float(period))
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=6e-5 if scale > 1 else 2e-7)


def test_without_a_shift_it_is_the_sinusoidal_code() -> None:
    w = 10_000.0 ** (-np.arange(0, 8, 2) / 8)
    t = np.linspace(0, 999, 7)
    np.testing.assert_allclose(
        codes(t, dim=8, order="sin_cos"), sinusoidal.codes(t, inv_freq=w, order="concatenated"), rtol=0, atol=1e-12
    )


def test_with_shift_1_the_slowest_rate_is_one_over_the_period() -> None:
    t = 10_000 * np.pi / 2
    assert codes(t, dim=6, order="sin_cos", shift=1.0)[2] == pytest.approx(1.0, abs=1e-15)
