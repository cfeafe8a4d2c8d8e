"""RIFLEx against the numbers of the paper and of its authors' code."""

import math

import numpy as np
import pytest

from posenc.frequencies import Geometric, RIFLEx

# b, d, and the latent frame at which videos repeat; then k and its period in frames. HunyuanVideo's are in the
# docstring of identify_k in thu-ml/RIFLEx, CogVideoX's are the defaults of its script.
MODELS = {"HunyuanVideo": (256.0, 16, 48, 4, 50), "CogVideoX": (10_000.0, 16, 20, 2, 20)}


@pytest.mark.parametrize("model", MODELS)
def test_the_pair_that_repeats_is_found(model: str) -> None:
    base, dim, repeats, k, period = MODELS[model]
    assert RIFLEx.nearest(repeats, rotary_dim=dim, base=base) == k
    assert round(2 * math.pi / Geometric(base).inv_freq(dim)[k - 1]) == period


def test_one_pair_alone_is_slowed_down_and_the_video_fills_nine_tenths_of_its_turn() -> None:
    rates, plain = RIFLEx(4, 66, base=256).inv_freq(16), Geometric(256).inv_freq(16)
    assert np.flatnonzero(rates != plain).tolist() == [3]
    assert rates[3] == pytest.approx(0.9 * 2 * math.pi / 66, rel=1e-15)  # as the authors' line has it
    assert RIFLEx(4, 66, base=256, share=1).inv_freq(16)[3] * 66 == pytest.approx(2 * math.pi)  # as the paper has it


def test_a_short_video_speeds_nothing_up() -> None:
    assert (RIFLEx(4, 20, base=256).inv_freq(16) == Geometric(256).inv_freq(16)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0, "length": 66}, "got k 0, expected the number of a pair, counted from 1"),
        ({"k": 1.5, "length": 66}, "got k 1.5"),
        ({"k": 4, "length": 1}, "got length 1"),
        ({"k": 4, "length": 66, "share": 0}, "got share 0"),
        ({"k": 4, "length": 66, "share": 1.1}, "got share 1.1"),
        ({"k": 4, "length": 66, "base": 1}, "got base 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RIFLEx(**arguments)  # type: ignore[arg-type]


def test_a_pair_that_the_axis_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="got k 9 for 16 channels, expected 1 to 8"):
        RIFLEx(9, 66).inv_freq(16)
