import numpy as np
import pytest

from posenc.frequencies import Geometric, Linear


@pytest.mark.parametrize(("factor", "base"), [(1.0, 1e4), (4.0, 1e4), (2.5, 5e5)])
def test_agrees_with_transformers(factor, base, agrees_with_transformers):
    agrees_with_transformers(Linear(factor, base=base), "linear", {"factor": factor}, base=base)


def test_factor_one_is_the_plain_rule():
    assert (Linear(1, base=500).inv_freq(64) == Geometric(500).inv_freq(64)).all()


def test_is_the_same_as_dividing_the_positions():
    positions = np.arange(100)[:, None]
    np.testing.assert_allclose(positions * Linear(4).inv_freq(64), positions / 4 * Geometric().inv_freq(64), rtol=1e-15)
