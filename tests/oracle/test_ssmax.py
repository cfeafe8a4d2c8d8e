"""The oracle of scalable softmax: powers of n are a softmax with a temperature."""

import numpy as np

from posenc.oracle.ssmax import temperature, weights


def test_powers_of_n_are_a_softmax_with_s_ln_n() -> None:
    z = np.random.default_rng(0).standard_normal(9)
    warm = np.exp(temperature([8], scale=[0.43])[0, 0] * z)
    np.testing.assert_allclose(weights(z, scale=0.43), warm / warm.sum(), rtol=1e-14)


def test_a_score_that_is_larger_by_one_over_s_holds_its_weight_as_n_grows() -> None:
    """Attention to one token of score 1 / s among n - 1 of score 0 is n / (n + n - 1): it does not fade."""
    for n in (10, 1000, 100_000):
        z = np.zeros(n)
        z[0] = 1 / 0.43
        np.testing.assert_allclose(weights(z, scale=0.43)[0], n / (2 * n - 1), rtol=1e-12)


def test_heads_have_scales_and_offsets_of_their_own() -> None:
    tau = temperature([0, np.e - 1], scale=[1.0, 2.0], offset=[0.5, 0.0])
    np.testing.assert_allclose(tau, [[0.5, 1.5], [0.0, 2.0]])
