"""The oracle of xPos, by hand and against the paper's numbers."""

import numpy as np
import pytest

from posenc.oracle.queries_keys import rope, xpos

INV_FREQ = 10_000 ** (-np.arange(32) / 32)


def test_a_quarter_turn_at_one_scale_base() -> None:
    turned = xpos.rotate([[1.0, 2.0]], [512], inv_freq=[np.pi / 1024], role="query")
    np.testing.assert_allclose(turned, 0.4 / 1.4 * np.array([[-2.0, 1.0]]), rtol=1e-14)
    turned = xpos.rotate([[1.0, 2.0]], [512], inv_freq=[np.pi / 1024], role="key")
    np.testing.assert_allclose(turned, 1.4 / 0.4 * np.array([[-2.0, 1.0]]), rtol=1e-14)


def test_at_its_centre_it_is_rope() -> None:
    x = np.random.default_rng(0).standard_normal((1, 64))
    for role in ("query", "key"):
        np.testing.assert_array_equal(
            xpos.rotate(x, [7], inv_freq=INV_FREQ, role=role, centre=7), rope.rotate(x, [7], inv_freq=INV_FREQ)
        )


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_a_score_is_that_of_the_paper_s_equation(pairing: str) -> None:
    """sum over pairs of zeta^((i - j) / 512) Re(q conj(k) e^(i w (i - j))), q and k as complex numbers."""
    q, k = np.random.default_rng(0).standard_normal((2, 1, 64))
    halves = (slice(0, 32), slice(32, 64)) if pairing == "half" else (slice(0, None, 2), slice(1, None, 2))
    i, j = 200, 31
    options = {"inv_freq": INV_FREQ, "pairing": pairing}
    score = xpos.rotate(q, [i], role="query", **options) @ xpos.rotate(k, [j], role="key", **options).T
    a, b = (x[0, halves[0]] + 1j * x[0, halves[1]] for x in (q, k))
    zeta = (np.arange(32) / 32 + 0.4) / 1.4
    expected = (zeta ** ((i - j) / 512) * (a * b.conj() * np.exp(1j * INV_FREQ * (i - j))).real).sum()
    np.testing.assert_allclose(score.item(), expected, rtol=1e-12)
