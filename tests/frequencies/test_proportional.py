import numpy as np
import pytest

from posenc.frequencies import Geometric, Proportional


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_agrees_with_transformers(share, factor, agrees_with_transformers):
    rule = Proportional(share, base=1e6, factor=factor)
    agrees_with_transformers(rule, "proportional", {"partial_rotary_factor": share, "factor": factor}, base=1e6)


def test_its_ends_are_rope_and_no_rotation():
    assert (Proportional(1.0).inv_freq(64) == Geometric().inv_freq(64)).all()
    assert (Proportional(0.0).inv_freq(64) == 0).all()


def test_the_rates_left_are_those_of_the_whole_head():
    rates = Proportional(0.25).inv_freq(128)
    assert (rates[:16] == Geometric().inv_freq(128)[:16]).all()
    assert not np.allclose(rates[:16], Geometric().inv_freq(32))  # which is what partial rotation has
    assert (rates[16:] == 0).all()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_of_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=r"Proportional: got share .*, expected 0 to 1"):
        Proportional(share)
