"""The reference attention against PyTorch's in float64, against values by hand, and on its edges."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from posenc.oracle.dot_product_attention import attention

Array = npt.NDArray[np.float64]


def random_qkv(
    num_heads: int = 4, num_kv_heads: int = 4, q_len: int = 6, k_len: int = 6, head_dim: int = 8
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, num_heads, q_len, head_dim))
    k = rng.standard_normal((2, num_kv_heads, k_len, head_dim))
    v = rng.standard_normal((2, num_kv_heads, k_len, head_dim))
    return q, k, v


def torch_attention(q: Array, k: Array, v: Array, **kwargs: Any) -> Array:
    return torch.nn.functional.scaled_dot_product_attention(
        torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(v), enable_gqa=True, **kwargs
    ).numpy()


def test_weights_are_the_softmax_of_the_scores() -> None:
    # The scores of the two keys differ by ln 3, so their weights are 1/4 and 3/4.
    y = attention([[[[1.0]]]], [[[[0.0], [math.log(3)]]]], [[[[0.0], [1.0]]]])
    np.testing.assert_allclose(y, [[[[0.75]]]], rtol=1e-15)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_it_equals_pytorch(num_kv_heads: int, scale: float | None, causal: bool) -> None:
    q, k, v = random_qkv(num_kv_heads=num_kv_heads)
    expected = torch_attention(q, k, v, scale=scale, is_causal=causal)
    np.testing.assert_allclose(attention(q, k, v, scale=scale, causal=causal), expected, rtol=0, atol=1e-14)


def test_it_equals_pytorch_with_a_boolean_mask() -> None:
    q, k, v = random_qkv(q_len=5, k_len=9)
    mask = np.random.default_rng(1).random((2, 1, 5, 9)) < 0.5
    mask[..., 0] = True
    expected = torch_attention(q, k, v, attn_mask=torch.from_numpy(mask))
    np.testing.assert_allclose(attention(q, k, v, mask=mask), expected, rtol=0, atol=1e-14)


def test_it_equals_pytorch_with_scores_added_per_head() -> None:
    q, k, v = random_qkv(q_len=5, k_len=9)
    added = np.random.default_rng(1).standard_normal((4, 5, 9))
    expected = torch_attention(q, k, v, attn_mask=torch.from_numpy(added))
    np.testing.assert_allclose(attention(q, k, v, bias=added), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(attention(q, k, v, mask=added), expected, rtol=0, atol=1e-14)


def test_bias_and_mask_and_causal_all_count() -> None:
    q, k, v = random_qkv()
    bias = np.random.default_rng(1).standard_normal((4, 6, 6))
    padding = np.array([True, True, True, True, False, True])
    combined = np.where(np.tril(np.ones((6, 6), dtype=bool)) & padding, bias, -np.inf)
    expected = torch_attention(q, k, v, attn_mask=torch.from_numpy(combined))
    y = attention(q, k, v, bias=bias, mask=padding, causal=True)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)


def test_the_bias_is_not_scaled() -> None:
    zeros = np.zeros((1, 1, 1, 4))
    bias = np.array([[[0.0, math.log(3)]]])
    y = attention(zeros, np.zeros((1, 1, 2, 4)), [[[[0.0], [1.0]]]], bias=bias, scale=0.1)
    np.testing.assert_allclose(y, [[[[0.75]]]], rtol=1e-15)


def test_causal_queries_are_aligned_with_the_last_keys() -> None:
    q, k, v = random_qkv(q_len=9, k_len=9)
    full = attention(q, k, v, causal=True)
    np.testing.assert_allclose(attention(q[:, :, 6:], k, v, causal=True), full[:, :, 6:], rtol=0, atol=1e-14)
    one_step = attention(q[:, :, 4:5], k[:, :, :5], v[:, :, :5], causal=True)
    np.testing.assert_allclose(one_step, full[:, :, 4:5], rtol=0, atol=1e-14)


def test_queries_before_the_first_key_give_zero() -> None:
    q, k, v = random_qkv(q_len=6, k_len=4)
    y = attention(q, k, v, causal=True)
    np.testing.assert_array_equal(y[:, :, :2], 0)
    np.testing.assert_array_equal(y[:, :, 2], v[:, :, 0])


@pytest.mark.parametrize("nothing", [np.zeros((6, 6), dtype=bool), np.full((6, 6), -np.inf)])
def test_a_query_that_sees_no_key_gives_zero(nothing: npt.NDArray[Any]) -> None:
    q, k, v = random_qkv()
    np.testing.assert_array_equal(attention(q, k, v, mask=nothing), np.zeros_like(q))


def test_what_a_masked_slot_holds_does_not_matter() -> None:
    q, k, v = random_qkv()
    mask = np.array([False, True, True, True, True, True])
    clean = attention(q, k, v, mask=mask)
    k[:, :, 0], v[:, :, 0] = np.nan, np.inf
    np.testing.assert_array_equal(attention(q, k, v, mask=mask), clean)


def test_a_nan_that_is_seen_is_not_hidden() -> None:
    q, k, v = random_qkv()
    k[0, 0, 2, 0] = np.nan
    y = attention(q, k, v, causal=True)
    assert np.isnan(y[0, 0, 2:]).all()
    assert np.isfinite(y[0, 0, :2]).all()


def test_large_scores_do_not_overflow() -> None:
    q, k, v = random_qkv()
    y = attention(1e4 * q, 1e4 * k, v)
    winner = (q @ k.swapaxes(-1, -2)).argmax(-1)
    np.testing.assert_allclose(y, np.take_along_axis(v, winner[..., None], axis=2), rtol=0, atol=1e-14)


def test_values_may_have_another_width_than_keys() -> None:
    q, k, v = random_qkv()
    np.testing.assert_allclose(attention(q, k, v[..., :3]), attention(q, k, v)[..., :3], rtol=0, atol=1e-14)


def test_key_value_heads_must_divide_the_query_heads() -> None:
    q, k, v = random_qkv(num_heads=4, num_kv_heads=3)
    with pytest.raises(ValueError, match="3 key-value heads do not divide 4 query heads"):
        attention(q, k, v)
