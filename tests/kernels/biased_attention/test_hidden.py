"""What a query may not see has no influence on it, even where it is no finite number: padding that nobody filled in."""

from typing import Any

import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels.biased_attention import fused

pytestmark = pytest.mark.skipif(not fused.level(), reason="no compiled kernel")

ENCODINGS = {
    "none": lambda: None,
    "alibi": lambda: posenc.ALiBi(num_heads=4),
    "fire": lambda: posenc.FIRE(num_heads=4, threshold=16.0),
    "cope": lambda: posenc.CoPE(num_heads=4, head_dim=16, length=8),
    "fox": lambda: posenc.Forgetting(num_heads=4, dim=8),
}


def hidden_tokens(way: str, n: int) -> tuple[slice, slice, dict[str, Any]]:
    """Tokens that are spoiled, the queries that see none of them, and the options that hide them."""
    bad, seen = slice(n - 3, n), slice(0, n - 3)
    if way == "order":
        return bad, seen, {"causal": True}
    if way == "window":
        return slice(0, 2), slice(6, n), {"causal": True, "window": 5}
    if way == "documents":
        return bad, seen, {"causal": True, "documents": (torch.arange(n) >= n - 3).long()}
    mask = (torch.arange(n) < n - 3).expand(n, n)
    return (
        bad,
        seen,
        {"causal": True, "mask": mask if way == "mask" else torch.zeros(n, n).masked_fill(~mask, -torch.inf)},
    )


def inputs(name: str, n: int, dtype: torch.dtype = torch.float32) -> tuple[Any, list[Tensor], dict[str, Any]]:
    torch.manual_seed(n)
    encoding: Any = ENCODINGS[name]()
    for parameter in [] if encoding is None else encoding.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    qkv = [torch.randn(2, heads, n, 16).to(dtype) for heads in (4, 2, 2)]
    state = {"state": encoding.carry(torch.randn(2, n, 8)).detach()} if name == "fox" else {}
    return encoding, qkv, state


@pytest.mark.parametrize("bad_number", [torch.nan, torch.inf])
@pytest.mark.parametrize("way", ["order", "window", "documents", "mask", "float mask"])
@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("n", [7, 70, 300])
def test_keys_and_values_that_are_hidden_change_nothing(n: int, name: str, way: str, bad_number: float) -> None:
    encoding, qkv, state = inputs(name, n)
    bad, seen, options = hidden_tokens(way, n)
    results = []
    for number in (0.0, bad_number):
        q, k, v = (x.clone() for x in qkv)
        k[:, :, bad] = v[:, :, bad] = number
        leaves = [x.requires_grad_() for x in (q, k, v)]
        y = posenc.attention(q, k, v, encoding, **options, **state, implementation="cpu")[:, :, seen]
        learned = [] if encoding is None or name == "fox" else list(encoding.parameters())
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves + learned)))
    for expected, got in zip(*results, strict=True):
        assert bool(got.isfinite().all())
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["documents", "mask", "float mask"])
def test_one_query_alone(way: str, dtype: torch.dtype) -> None:
    """A step of decoding on a cache of which a part was not filled in."""
    encoding, (q, k, v), _ = inputs("alibi", 200, dtype)
    unused = slice(50, 90)
    used = torch.ones(200, dtype=torch.bool)
    used[unused] = False
    mask = torch.zeros(200).masked_fill(~used, -torch.inf)
    options = {"documents": {"documents": used.long()}, "mask": {"mask": used}, "float mask": {"mask": mask}}[way]
    y = []
    for number in (0.0, torch.nan):
        k[:, :, unused] = v[:, :, unused] = number
        y.append(posenc.attention(q[:, :, -1:], k, v, encoding, causal=True, **options, implementation="cpu"))
    torch.testing.assert_close(y[1], y[0])


def test_what_is_seen_comes_through() -> None:
    q, k, v = (torch.randn(1, 2, 80, 16) for _ in range(3))
    k[0, 0, 40, 3], v[0, 1, 50, 2] = torch.nan, torch.inf
    y = posenc.attention(q, k, v, posenc.ALiBi(num_heads=2), causal=True, implementation="cpu")
    assert bool(y[0, 0, 40:].isnan().all())
    assert bool(y[0, 0, :40].isfinite().all())
    assert bool(y[0, 1, 50:, 2].isinf().all())
    assert bool(y[0, 1, :50].isfinite().all())
    assert bool(y[0, 1, :, 3:].isfinite().all())
