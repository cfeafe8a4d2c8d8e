"""The time of a diffusion, against diffusers' own module in all its forms."""

from typing import Any

import numpy as np
import pytest
import torch

from posenc.embeddings import Timesteps
from posenc.oracle.embeddings import timesteps as oracle


@pytest.mark.parametrize("order", ["cos_sin", "sin_cos"])
@pytest.mark.parametrize("dim", [2, 9, 16])
@pytest.mark.parametrize(("shift", "scale", "period"), [(0.0, 1.0, 10_000.0), (0.5, 1000.0, 300.0)])
def test_it_is_the_oracles(order: Any, dim: int, shift: float, scale: float, period: float) -> None:
    encoding = Timesteps(dim, order=order, shift=shift, scale=scale, max_period=period)
    t = torch.rand(2, 5, dtype=torch.float64) * 1000
    expected = oracle.codes(t.numpy(), dim=dim, order=order, shift=shift, scale=scale, max_period=period)
    np.testing.assert_allclose(encoding.codes(t).numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1, 1), (0, 1000)])
def test_it_is_the_module_of_diffusers(flip: bool, shift: int, scale: int) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.Timesteps(64, flip_sin_to_cos=flip, downscale_freq_shift=shift, scale=scale)
    ours = Timesteps(64, order="cos_sin" if flip else "sin_cos", shift=shift, scale=scale)
    t = torch.linspace(0, 1000 / scale, 41)
    # What theirs loses: a time of 1000 is a step of 6e-5 from the next in float32, and a rate is rounded as well.
    torch.testing.assert_close(ours.codes(t).float(), theirs(t), rtol=0, atol=1e-4)
    exact = oracle.codes(t.numpy(), dim=64, order=ours.order, shift=shift, scale=scale)
    assert np.abs(ours.codes(t).numpy() - exact).max() < 1e-9


def test_a_model_reads_one_time_for_each_image() -> None:
    assert Timesteps(320).codes(torch.tensor([981, 981])).shape == (2, 320)
    assert Timesteps(5).codes(torch.tensor(3.0))[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 1}, "got dim 1, expected at least 2"),
        ({"dim": 2, "shift": 1}, "got shift 1 for dim 2, expected below 1"),
        ({"dim": 8, "max_period": 0}, "got max_period 0, expected above 0"),
        ({"dim": 8, "order": "flip"}, "got order 'flip', expected one of"),
        ({"dim": 8, "scale": float("nan")}, "got scale nan, expected"),
    ],
)
def test_a_time_without_a_code_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Timesteps: {message}"):
        Timesteps(**options)
