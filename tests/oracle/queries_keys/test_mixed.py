"""The oracle of RoPE-Mixed: it contains axial RoPE, and its angles add."""

import numpy as np

from posenc.oracle.queries_keys import axial, mixed


def test_with_one_rate_of_each_pair_at_zero_it_is_axial_rope() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 16))
    where = np.random.default_rng(1).integers(0, 9, (5, 2))
    ladder, none = 100 ** (-np.arange(4) / 4), np.zeros(4)
    rates = np.stack((np.concatenate((ladder, none)), np.concatenate((none, ladder))))[:, None]
    np.testing.assert_allclose(
        mixed.rotate(x, where, rates=rates), axial.rotate(x, where, base=100, layout="interleaved"), atol=1e-14
    )


def test_a_step_along_both_axes_is_one_along_each() -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 1, 8))
    rates = np.random.default_rng(1).standard_normal((2, 2, 4))
    down, right = mixed.rotate(x, [[2, 0]], rates=rates), [[0, 3]]
    np.testing.assert_allclose(
        mixed.rotate(down, right, rates=rates), mixed.rotate(x, [[2, 3]], rates=rates), atol=1e-14
    )
