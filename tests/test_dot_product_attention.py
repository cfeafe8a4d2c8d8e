"""Attention against its oracle, and its refusals."""

import numpy as np
import pytest
import torch

import posenc
from posenc.oracle import dot_product_attention as oracle
from posenc.oracle.scores import alibi
from posenc.testing import assert_matches_oracle


def tensors(
    heads: int = 4, kv_heads: int = 4, q_len: int = 7, k_len: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return random(2, heads, q_len, 16), random(2, kv_heads, k_len, 16), random(2, kv_heads, k_len, 8)


def double(*values: torch.Tensor) -> tuple[np.ndarray, ...]:
    return tuple(value.double().numpy() for value in values)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("q_len", "k_len", "causal"), [(7, 7, False), (7, 7, True), (3, 7, True), (1, 7, True)])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "alibi"])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_attention_matches_its_oracle(
    kv_heads: int, q_len: int, k_len: int, causal: bool, biased: bool, masked: str | None
) -> None:
    q, k, v = tensors(kv_heads=kv_heads, q_len=q_len, k_len=k_len)
    generator = torch.Generator().manual_seed(1)
    mask = {
        None: None,
        "bool": torch.rand(2, 1, q_len, k_len, generator=generator) > 0.3,
        "float": torch.randn(2, 1, q_len, k_len, generator=generator, dtype=torch.float64),
    }[masked]
    positions = np.arange(k_len)
    expected = oracle.attention(
        *double(q, k, v),
        bias=alibi.bias(positions[k_len - q_len :], positions, num_heads=4) if biased else None,
        causal=causal,
        mask=None if mask is None else mask.numpy(),
    )
    encoding = posenc.ALiBi(num_heads=4) if biased else posenc.NoPE()
    actual = posenc.attention(q, k, v, encoding, causal=causal, mask=mask)
    # ALiBi's bias is a float32 number, so with one the result is right to float32's rounding.
    assert_matches_oracle(actual, expected, dtype=torch.float64, scale=1e9 if biased else 10.0)
    if biased:
        torch.testing.assert_close(actual, torch.from_numpy(expected), atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_with_a_bias_is_rounded_once(dtype: torch.dtype) -> None:
    q, k, v = tensors(dtype=dtype)
    positions = np.arange(7) + 300
    expected = oracle.attention(*double(q, k, v), bias=alibi.bias(positions, np.arange(7), num_heads=4))
    actual = posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), q_positions=300)
    assert_matches_oracle(actual, expected, dtype=dtype, scale=150.0)  # the scores are near -150


def test_a_query_that_may_see_nothing_gets_zeros() -> None:
    q, k, v = tensors()
    mask = torch.ones(7, 7, dtype=torch.bool)
    mask[2] = False
    for encoding in (posenc.NoPE(), posenc.ALiBi(num_heads=4)):
        y = posenc.attention(q, k, v, encoding, mask=mask)
        assert bool((y[:, :, 2] == 0).all())
        assert bool(torch.isfinite(y).all())


def test_positions_of_queries_and_keys_are_their_own() -> None:
    q, k, v = tensors(q_len=3)
    q_positions, k_positions = torch.tensor([4, 9, 30]), torch.arange(7) * 3
    expected = oracle.attention(*double(q, k, v), bias=alibi.bias(q_positions, k_positions, num_heads=4))
    actual = posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), q_positions=q_positions, k_positions=k_positions)
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=1e-7, rtol=0)


def test_positions_may_differ_by_row() -> None:
    q, k, v = tensors()
    positions = torch.stack((torch.arange(7), torch.arange(7) * 2))
    encoding = posenc.ALiBi(num_heads=4)
    both = posenc.attention(q, k, v, encoding, q_positions=positions, k_positions=positions, causal=True)
    second = posenc.attention(
        q[1:], k[1:], v[1:], encoding, q_positions=positions[1], k_positions=positions[1], causal=True
    )
    torch.testing.assert_close(both[1:], second)


def test_dropout_drops_and_the_scale_is_honoured() -> None:
    q, k, v = tensors()
    torch.manual_seed(0)
    assert not torch.equal(posenc.attention(q, k, v, dropout_p=0.5), posenc.attention(q, k, v))
    flat = posenc.attention(q, k, v, scale=0.0)
    torch.testing.assert_close(flat, v.mean(dim=2, keepdim=True).expand_as(flat))


@pytest.mark.parametrize("name", ["sinusoidal", "learned", "rope", "alibi"])
def test_attention_is_exact_under_a_shuffle_of_the_cache(name: str) -> None:
    """Keys may lie in the cache in any order, if their positions go with them."""
    options = {"length": 16} if name == "learned" else {}
    encoding = posenc.make(name, dim=64, num_heads=4, **options)
    q, k, v = tensors()
    k_positions = torch.arange(7)
    shuffle = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    q, k = encoding.on_queries_keys(q, k)
    plain = posenc.attention(q, k, v, encoding, q_positions=0, k_positions=k_positions)
    shuffled = posenc.attention(
        q, k[:, :, shuffle], v[:, :, shuffle], encoding, q_positions=0, k_positions=k_positions[shuffle]
    )
    torch.testing.assert_close(shuffled, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": (2, 4, 7)}, r"expected \(batch, heads, seq, head_dim\)"),
        ({"q": (2, 4, 7, 8)}, "one head_dim for q and k"),
        ({"q": (3, 4, 7, 16)}, "one batch size"),
        ({"v": (2, 4, 6, 8)}, "one value for each key"),
        ({"q": (2, 3, 7, 16), "k": (2, 2, 7, 16), "v": (2, 2, 7, 8)}, "3 query heads for 2 key heads"),
        ({"q": (2, 4, 9, 16)}, "9 queries for 7 keys with causal=True"),
        ({"k": (2, 4, 0, 16), "v": (2, 4, 0, 8)}, "7 queries for 0 keys with causal=True"),
        ({"q": (2, 8, 7, 16)}, "q has 8 heads but ALiBi was built for 4; build it with num_heads=8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, tuple[int, ...]], message: str) -> None:
    shapes = {"q": (2, 4, 7, 16), "k": (2, 4, 7, 16), "v": (2, 4, 7, 8)} | change
    q, k, v = (torch.zeros(shapes[name]) for name in "qkv")
    with pytest.raises(ValueError, match=message):
        posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), causal=True)


def test_more_queries_than_keys_need_positions() -> None:
    q, k, v = tensors(q_len=9)
    with pytest.raises(ValueError, match="give the positions of the queries"):
        posenc.attention(q, k, v, posenc.ALiBi(num_heads=4))
    assert posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), q_positions=0).shape == (2, 4, 9, 8)


@pytest.mark.parametrize("encoding", [None, "alibi", "ssmax"])
@pytest.mark.parametrize(
    "dtypes",
    [(torch.float32, torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32, torch.bfloat16),
     (torch.float32, torch.float64, torch.float16)],
)  # fmt: skip
def test_tensors_of_different_dtypes_are_cast_to_the_widest(
    encoding: str | None, dtypes: tuple[torch.dtype, ...]
) -> None:
    """As a cache in half precision has them under queries that are not."""
    pe = {"alibi": posenc.ALiBi(num_heads=4), "ssmax": posenc.SSMax(num_heads=4)}.get(encoding or "")
    q, k, v = (torch.randn(2, 4, n, 8).to(dtype) for n, dtype in zip((3, 9, 9), dtypes, strict=True))
    y = posenc.attention(q, k, v, pe, causal=True)
    wanted = posenc.attention(q.double(), k.double(), v.double(), pe, causal=True)
    assert y.dtype == q.dtype
    torch.testing.assert_close(y.double(), wanted, atol=2e-2 if q.dtype == torch.bfloat16 else 1e-5, rtol=0)
