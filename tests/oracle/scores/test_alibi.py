"""Slopes and penalties, against the authors' code, the paper and BLOOM."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from posenc.oracle.dot_product_attention import attention
from posenc.oracle.scores.alibi import bias, slopes

GOLDEN = Path(__file__).parents[2] / "golden"
AUTHORS_SLOPES = json.loads((GOLDEN / "alibi_slopes.json").read_text())["values"]


@pytest.mark.parametrize("num_heads", [int(n) for n in AUTHORS_SLOPES])
def test_slopes_are_those_of_the_authors_code(num_heads: int) -> None:
    np.testing.assert_allclose(slopes(num_heads), AUTHORS_SLOPES[str(num_heads)], rtol=1e-14)


def test_eight_heads_have_the_slopes_of_the_paper_exactly() -> None:
    np.testing.assert_array_equal(slopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256])


def test_sixteen_heads_interpolate_the_slopes_of_eight() -> None:
    # "geometrically averaging every consecutive pair", the first pair being 1 and 1/2
    eight = np.concatenate([[1], slopes(8)])
    np.testing.assert_allclose(slopes(16)[0::2], np.sqrt(eight[:-1] * eight[1:]), rtol=1e-15)
    np.testing.assert_array_equal(slopes(16)[1::2], slopes(8))


def test_twelve_heads_take_those_of_eight_and_every_other_one_of_sixteen() -> None:
    np.testing.assert_array_equal(slopes(12), [*slopes(8), *slopes(16)[[0, 2, 4, 6]]])
    np.testing.assert_allclose(slopes(12)[8:], [0.7071068, 0.3535534, 0.1767767, 0.0883883], rtol=0, atol=5e-8)


@pytest.mark.parametrize("num_heads", [1, 2, 3, 8, 12, 14, 16, 25, 32, 71, 112])
def test_slopes_are_those_of_bloom(num_heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    by_key = bloom.build_alibi_tensor(torch.ones(1, 9, dtype=torch.int64), num_heads, torch.float32).numpy()
    # BLOOM adds m j instead of -m (i - j). For keys at or before the query the two differ by m i in a whole row, of
    # which softmax takes no notice.
    b = bias(np.arange(9), np.arange(9), num_heads=num_heads)
    for i in range(9):
        np.testing.assert_allclose(
            b[:, i, : i + 1], (by_key - by_key[:, :, i : i + 1])[:, 0, : i + 1], rtol=0, atol=2e-6
        )


def test_the_penalty_is_that_of_figure_3_of_the_paper() -> None:
    b = bias(np.arange(5), np.arange(5), num_heads=8)
    figure = [[0, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [-2, -1, 0, 0, 0], [-3, -2, -1, 0, 0], [-4, -3, -2, -1, 0]]
    for h in range(8):
        np.testing.assert_array_equal(np.tril(b[h]), np.array(figure) * 0.5 ** (h + 1))


def test_the_penalty_is_symmetric_and_blind_to_a_shift() -> None:
    p = np.array([0, 3, 4, 10, 1000])
    b = bias(p, p, num_heads=12)
    np.testing.assert_array_equal(b, b.swapaxes(1, 2))
    np.testing.assert_array_equal(bias(p + 2**20, p + 2**20, num_heads=12), b)


def test_queries_come_before_keys_in_the_shape_and_after_heads() -> None:
    b = bias([7], [5, 6, 7, 8], num_heads=2)
    assert b.shape == (2, 1, 4)
    np.testing.assert_array_equal(b[0, 0], np.array([-2, -1, 0, -1]) / 16)


def test_batched_positions_give_batched_penalties() -> None:
    p = np.array([[0, 1, 2], [0, 0, 5]])
    b = bias(p[:, 1:], p, num_heads=3)
    assert b.shape == (2, 3, 2, 3)
    for row in range(2):
        np.testing.assert_array_equal(b[row], bias(p[row, 1:], p[row], num_heads=3))


def test_causal_attention_cannot_tell_the_penalty_from_slope_times_key_position() -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 2, 4, 9, 8))
    relative = attention(q, k, v, bias=bias(np.arange(9), np.arange(9), num_heads=4), causal=True)
    by_key = attention(q, k, v, bias=slopes(4)[:, None, None] * np.arange(9), causal=True)
    np.testing.assert_allclose(relative, by_key, rtol=0, atol=1e-14)


@pytest.mark.parametrize("num_heads", [2, 6, 8, 12, 14, 71])
def test_the_rule_of_mpt_is_that_of_mpt(num_heads: int) -> None:
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    by_key = mpt.build_mpt_alibi_tensor(num_heads, 9).numpy()[:, 0]
    np.testing.assert_allclose(slopes(num_heads, rule="mpt"), -by_key[:, -2], rtol=1e-6)


def test_the_geometric_rule_is_a_geometric_sequence() -> None:
    m = slopes(12, rule="geometric")
    np.testing.assert_allclose(m[1:] / m[:-1], 2 ** (-8 / 12), rtol=1e-14)
    np.testing.assert_array_equal(slopes(16, rule="geometric"), slopes(16))
