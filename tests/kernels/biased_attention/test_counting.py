"""A bias read at a count in the compiled kernel: CoPE against its formula, settled tiles, and counts at their edges."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import fused
from posenc.kernels.biased_attention.content import Content
from posenc.oracle.dot_product_attention import attention as oracle
from posenc.oracle.scores import cope

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)


def draw(seed: int) -> tuple[list[Tensor], Tensor, dict[str, Any]]:
    """q, k, v, a table, and options: rows of one count to more than there are keys."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        numbers: Tensor = torch.randn(shape, generator=generator)
        return numbers

    batch, kv_heads = pick.choice((1, 2)), pick.choice((1, 2))
    heads = kv_heads * pick.choice((1, 3))
    q_len = pick.choice((1, 2, 4, 5, 17, 63, 64, 65, 130, 200))
    k_len = q_len + pick.choice((0, 0, 1, 60, 127, 300))
    dim, value_dim = pick.choice((8, 16, 24, 64)), pick.choice((8, 33, 64))
    tensors = [normal(batch, heads, q_len, dim), normal(batch, kv_heads, k_len, dim)]
    tensors.append(normal(batch, kv_heads, k_len, value_dim))
    length = pick.choice((1, 2, 3, 10, 64, 64, 600))
    # neighbouring rows of a table differ little, or the derivative of a count would leap at every whole number
    table = normal(length, dim).cumsum(0) * min(0.3, 2 / length)
    options: dict[str, Any] = {"causal": True}
    if pick.random() < 0.3:
        options["window"] = pick.choice((1, 7, 64, 100))
    if pick.random() < 0.4:
        mask = normal(q_len, k_len)
        options["mask"] = mask if pick.random() < 0.5 else mask > -1
    if pick.random() < 0.2:
        options["sinks"] = normal(heads)
    if pick.random() < 0.2:
        options["documents"] = torch.randint(3, (batch, k_len), generator=generator).sort(-1).values
    if pick.random() < 0.2:
        options["scale"] = pick.choice((-0.2, 0.0, 1.0))
    return tensors, table, options


def encoding_of(table: Tensor, heads: int) -> posenc.CoPE:
    encoding = posenc.CoPE(num_heads=heads, head_dim=table.shape[1], length=table.shape[0]).to(table.dtype)
    with torch.no_grad():
        encoding.table.copy_(table)
    return encoding


def run(tensors: list[Tensor], table: Tensor, options: dict[str, Any], dtype: torch.dtype, name: str) -> list[Tensor]:
    """The output, and the gradients of q, k, v and the table."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
    encoding = encoding_of(table.double() if dtype == torch.float64 else table, leaves[0].shape[1])
    options = {
        what: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for what, x in options.items()
    }
    y = posenc.attention(*leaves, encoding, implementation=name, **options)
    torch.manual_seed(0)
    grads = torch.autograd.grad(y, [*leaves, encoding.table], torch.randn(y.shape).to(y.dtype))
    return [y.detach(), *grads]


def at_level(wanted: int) -> int:
    assert LIBRARY.handle is not None
    level: int = LIBRARY.handle.posenc_attention_set_level(wanted)
    return level


@pytest.mark.parametrize("seed", range(60))
def test_any_call_and_its_gradients_are_those_of_float64(seed: int) -> None:
    best = fused.LEVELS.index(fused.level())
    at_level(seed % (best + 1))
    try:
        got = run(*draw(seed), torch.float32, "cpu")
    finally:
        at_level(best)
    for one, other in zip(got, run(*draw(seed), torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other / unit, rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_on_the_way_out(dtype: torch.dtype) -> None:
    tensors, table, options = draw(11)
    tensors = [x.to(dtype) for x in tensors]
    got = run(tensors, table, options, dtype, "cpu")
    assert [x.dtype for x in got] == [dtype] * 4 + [torch.float32]
    for one, other in zip(got, run(tensors, table, options, torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other / unit, rtol=0, atol=1e-2)


@pytest.mark.parametrize("length", [1, 2, 9, 300])
def test_it_is_the_papers_formula(length: int) -> None:
    torch.manual_seed(length)
    q, k, v = (torch.randn(2, 2, 150, 16) for _ in range(3))
    table = torch.randn(length, 16)
    y = posenc.attention(q, k, v, encoding_of(table, 2), causal=True, implementation="cpu")
    seen = np.tril(np.ones((150, 150), dtype=bool))
    scores = np.where(seen, (q.double() @ k.double().mT).numpy() / 4, -np.inf)
    added = cope.bias(q.double().numpy(), scores, table=table.numpy(), scale=0.25)
    np.testing.assert_allclose(y.detach().numpy(), oracle(q, k, v, bias=added, mask=seen), rtol=0, atol=2e-5)


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_gates_that_are_open_or_closed_count_whole_tokens(gate: float) -> None:
    """All scores are the same and huge, so softmax sees the row of counts alone: at the distance, or at 0."""
    torch.manual_seed(0)
    q = torch.full((1, 1, 200, 4), 30.0)
    k = q * (2 * gate - 1)
    v, table = torch.randn(1, 1, 200, 8), torch.randn(150, 4) / 30
    table[:, 0] += 1 - table.sum(1)  # and so no two counts are told apart by rounding alone
    table[:, 1] += torch.linspace(0, 0.1, 150)
    for rows in (slice(0, 200), slice(199, 200)):
        leaves = [x.clone().requires_grad_() for x in (q[:, :, rows], k, v)]
        y = posenc.attention(*leaves, encoding_of(table, 1), causal=True, implementation="cpu")
        t, u = torch.arange(200)[rows, None], torch.arange(200)
        count = (t - u + 1).clamp(0, 149) * int(gate)
        added = (0.5 * q @ table.T)[0, 0, 0].double()[count].masked_fill(u > t, -torch.inf)
        torch.testing.assert_close(y[0, 0].double(), added.softmax(-1) @ v[0, 0].double(), rtol=1e-3, atol=1e-4)
        assert all(bool(x.isfinite().all()) for x in torch.autograd.grad(y.sum(), leaves))


@pytest.mark.parametrize("length", [6, 64, 400])
def test_decoding_step_by_step_is_the_whole_pass(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, n, 32) for n in (300, 300, 300))
    encoding = encoding_of(torch.randn(length, 32), 4)
    whole = posenc.attention(q, k, v, encoding, causal=True, implementation="cpu")
    for stop in (1, 2, 129, 130, 300):
        for few in {1, min(3, stop)}:
            rows = slice(stop - few, stop)
            step = posenc.attention(
                q[:, :, rows], k[:, :, :stop], v[:, :, :stop], encoding, causal=True, implementation="cpu"
            )
            torch.testing.assert_close(step, whole[:, :, rows], rtol=1e-4, atol=2e-5)


def test_queries_that_see_nothing_give_zeros_and_no_gradient() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(1, 2, n, 8) for n in (70, 200, 200)]
    mask = torch.rand(70, 200) > 0.5
    mask[[0, 13, 69]] = False
    table = torch.randn(7, 8)
    got = run(tensors, table, {"causal": True, "mask": mask}, torch.float32, "cpu")
    for one, other in zip(
        got, run(tensors, table, {"causal": True, "mask": mask}, torch.float64, "dense"), strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    assert bool((got[0][:, :, [0, 13, 69]] == 0).all())
    assert bool((got[1][:, :, [0, 13, 69]] == 0).all())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["query", "key", "table"])
@pytest.mark.parametrize("queries", [150, 1])
def test_what_is_no_number_comes_out_where_the_reference_has_it(bad: float, where: str, queries: int) -> None:
    """And nothing is read at a count that is no number. The spoilt key is the first, which no query comes before."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 8) for n in (queries, 150, 150))
    table = torch.randn(5, 8)
    spoilt = {"query": q[0, 0, 0], "key": k[0, 0, 0], "table": table[2]}[where]
    spoilt[1] = bad
    got, want = (run([q, k, v], table, {"causal": True}, torch.float32, name) for name in ("cpu", "dense"))
    y, expected = got[0][:, :, 1 - queries :], want[0][:, :, 1 - queries :]  # the first query may see -inf alone
    assert torch.equal(y.isnan(), expected.isnan())
    fine = ~expected.isnan()
    torch.testing.assert_close(y[fine], expected[fine], rtol=1e-4, atol=1e-5)
    if where != "table":  # of which every query's gradient is a part
        assert bool(got[1][0, 1].isfinite().all())


def test_small_gates_are_not_lost_in_a_count_of_many() -> None:
    """Gates of 1/30 000, which a count of 500 in float32 would round to a third less or more."""
    torch.manual_seed(0)
    q, k, v = torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 12_000, 8), torch.zeros(1, 1, 12_000, 1)
    q[..., 0], q[..., 1] = 1.0, 1.0
    k[..., 0] = -11.0
    k[:, :, -500:, 0] = 40.0
    v[:, :, 0] = 12_000.0
    table = torch.zeros(1000, 8)
    table[:, 1] = torch.arange(1000.0)
    order: dict[str, Any] = {"causal": True, "scale": 1.0}
    for few in (1, 8):  # a row by itself, and a tile
        y = posenc.attention(q.expand(-1, -1, few, -1), k, v, encoding_of(table, 1), implementation="cpu", **order)
        want = posenc.attention(
            q.double().expand(-1, -1, few, -1), k.double(), v.double(), encoding_of(table.double(), 1),
            implementation="dense", **order,
        )  # fmt: skip
        torch.testing.assert_close(y.double(), want, rtol=1e-3, atol=1e-3)


def test_a_tile_that_is_settled_has_the_last_entry() -> None:
    """300 keys with open gates are more than the row has: a key 200 tokens away has its end, to the bit."""
    torch.manual_seed(0)
    q = torch.full((1, 1, 300, 4), 5.0)
    v, table = torch.eye(300).expand(1, 1, -1, -1), torch.randn(64, 4)
    y = posenc.attention(q, q, v, encoding_of(table, 1), causal=True, implementation="cpu")[0, 0]
    assert bool((y[299, :170] == y[299, 0]).all())
    assert bool((y[299, 240:] != y[299, 0]).all())


def test_a_second_derivative_is_that_of_the_reference() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3))
    encoding = encoding_of(torch.randn(6, 4), 2)

    def penalty(implementation: str) -> list[Tensor]:
        y = posenc.attention(q, k, v, encoding, causal=True, implementation=implementation)
        first = torch.autograd.grad(y.square().sum(), (q, encoding.table), create_graph=True)
        return list(torch.autograd.grad(sum(x.square().sum() for x in first), (q, k, v, encoding.table)))

    for got, want in zip(penalty("cpu"), penalty("dense"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("which", ["q", "k", "v", "table", "sinks"])
def test_each_may_learn_alone(which: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 8) for n in (70, 140, 140))
    encoding, sinks = encoding_of(torch.randn(20, 8), 2), torch.randn(2)
    encoding.table.requires_grad_(which == "table")
    leaf = {"q": q, "k": k, "v": v, "table": encoding.table, "sinks": sinks}[which].requires_grad_()
    got, want = (
        torch.autograd.grad(
            posenc.attention(q, k, v, encoding, causal=True, sinks=sinks, implementation=name).square().sum(), leaf
        )[0]
        for name in ("cpu", "dense")
    )
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def test_autocast_does_not_reach_the_rows() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 40, 8)
    encoding = encoding_of(100 + torch.randn(9, 8), 2)
    want = posenc.attention(q, q, q, encoding, causal=True, implementation="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = posenc.attention(q, q, q, encoding, causal=True, implementation="cpu")
    assert torch.equal(got, want)


def test_a_class_that_changes_what_is_added_is_not_taken_for_its_parent() -> None:
    class Doubled(posenc.CoPE):  # type: ignore[misc]  # a final class says what it is for, and Python lets it pass
        def contextual_bias(self, content: Content) -> Tensor:
            return 2 * super().contextual_bias(content)

    class Adding(posenc.CoPE):  # type: ignore[misc]
        def on_values(self, weights: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            return weights.sum(-1, keepdim=True)

    class Steeper(posenc.CoPE):  # type: ignore[misc]
        """Another row, from which the parent makes the bias too."""

        def by_count(self, q: Tensor, scale: float) -> Tensor:
            return 3 * super().by_count(q, scale)

    class Counting(posenc.ContextualEncoding):
        """A class of somebody else's, with a row that is the same for all queries."""

        num_heads, length, reads_positions = 2, 3, False

        def by_count(self, q: Tensor, scale: float) -> Tensor:
            return torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64).expand(1, 1, q.shape[2], 3)

        def contextual_bias(self, content: Content) -> Tensor:
            p = content.scores.sigmoid().flip(-1).cumsum(-1).flip(-1).clamp(max=2)
            return torch.where(p < 1, p, 3 - 2 * p)

    q = torch.randn(1, 2, 9, 8)
    for encoding, name in (
        *((cls(2, 8), "dense") for cls in (Doubled, Adding)),
        (Steeper(2, 8), "cpu"),
        (Counting(), "cpu"),
    ):
        for parameter in encoding.parameters():
            torch.nn.init.normal_(parameter)
        assert posenc.explain(posenc.attention, q, q, q, encoding, causal=True).implementation == name
        y = posenc.attention(q, q, q, encoding, causal=True)
        torch.testing.assert_close(y, posenc.attention(q, q, q, encoding, causal=True, implementation="dense"))


def test_what_the_kernel_does_not_take_is_refused_in_words() -> None:
    q = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match="CoPE counts the keys up to the query, which it does only in causal calls"):
        posenc.attention(q, q, q, posenc.CoPE(2, 4), implementation="cpu")
    with pytest.raises(ValueError, match="q has head_dim 4 but this encoding was built for head_dim 8"):
        posenc.attention(q, q, q, posenc.CoPE(2, 8), causal=True, implementation="cpu")
    many = torch.zeros(1, 2, 1, 4).expand(1, 2, 2**14, 4)
    long = posenc.CoPE(2, 4, length=2**14)
    with pytest.raises(ValueError, match=r"the products of all queries with all counts of CoPE take 2\.0 GiB"):
        posenc.attention(many, many, many, long, causal=True, implementation="cpu")
    scaled = posenc.Compose(posenc.CoPE(2, 4), posenc.SSMax(num_heads=2))
    assert posenc.explain(posenc.attention, q, q, q, scaled, causal=True).implementation == "dense"


@pytest.mark.parametrize(
    "counted",
    [
        torch.zeros(1, 2, 5, 0),
        torch.zeros(1, 2, 4, 3),
        torch.zeros(1, 1, 5, 3),
        torch.zeros(1, 2, 5, 3, dtype=torch.float64),
        torch.zeros(1, 2, 3, 5).mT,
        torch.zeros(1, 2, 15),
        torch.zeros(1, 2, 5, 1).expand(1, 2, 5, 2**24 + 1),
    ],
)
def test_rows_of_another_kind_are_refused_before_they_are_read(counted: Tensor) -> None:
    q = torch.zeros(1, 2, 5, 4)
    rest = (True, 0, None, None, None, True, None, None, None)
    with pytest.raises(ValueError, match="got counted of shape"):
        torch.ops.posenc._attention(q, q, q, 1.0, None, 0, *rest, counted)
    fine, table, fades = torch.zeros(1, 2, 5, 3), torch.zeros(2, 9), torch.zeros(1, 2, 5, dtype=torch.float64)
    for bias, causal, faded in ((table, True, None), (None, False, None), (None, True, fades)):
        with pytest.raises(ValueError, match="expected it in a causal call, alone"):
            torch.ops.posenc._attention(
                q, q, q, 1.0, bias, 4, causal, 0, None, None, None, True, faded, None, None, fine
            )


def test_a_step_of_decoding_far_from_the_start_reads_the_last_entry() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 16) for n in (1, 5000, 5000))
    encoding = encoding_of(torch.randn(64, 16), 2)
    got = posenc.attention(q, k, v, encoding, causal=True, implementation="cpu")
    scores = (q.double() @ k.double().mT) / 4
    counts = scores.sigmoid().flip(-1).cumsum(-1).flip(-1).clamp(max=63)
    rows = F.linear(q.double(), encoding.table.detach().double()) / 4
    low = counts.long()
    high = (low + 1).clamp(max=63)
    added = rows.gather(-1, low).lerp(rows.gather(-1, high), counts - low)
    torch.testing.assert_close(got.double(), (scores + added).softmax(-1) @ v.double(), rtol=1e-4, atol=1e-5)
