"""No positional encoding: what attention can and cannot know of order."""

import numpy as np

from posenc.oracle import none
from posenc.oracle.dot_product_attention import attention


def test_every_code_is_zero_and_has_the_shape_of_the_positions() -> None:
    np.testing.assert_array_equal(none.codes([0, 5, 2**20], dim=4), np.zeros((3, 4)))
    assert none.codes(np.zeros((2, 7)), dim=6).shape == (2, 7, 6)
    assert none.codes([0], dim=1).dtype == np.float64


def test_without_codes_permuting_the_tokens_only_permutes_the_outputs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 7, 4))
    order = rng.permutation(7)
    x = x + none.codes(np.arange(7), dim=4)
    y = attention(x, x, x)
    shuffled = x[:, :, order]
    np.testing.assert_allclose(attention(shuffled, shuffled, shuffled), y[:, :, order], rtol=0, atol=1e-14)


def test_the_causal_mask_alone_tells_the_position() -> None:
    # Kazemnejad et al., theorem 1: attend uniformly, let only the first token carry a value, and token t reads 1 / t.
    queries = keys = np.zeros((1, 1, 50, 2))
    values = np.zeros((1, 1, 50, 1))
    values[0, 0, 0, 0] = 1
    y = attention(queries, keys, values, causal=True)
    np.testing.assert_allclose(1 / y[0, 0, :, 0], np.arange(1, 51), rtol=1e-14)
