"""Rows of counts that the compiled kernel makes of the queries and a table, where nothing is learned."""

import pytest
import torch
from tests.kernels.biased_attention.test_counting import LIBRARY, at_level, draw, encoding_of
from torch import Tensor

import posenc
from posenc.kernels.biased_attention import counting, fused
from posenc.kernels.biased_attention.content import Content

pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(30))
def test_rows_that_the_kernel_makes_where_nothing_is_learned_are_those_of_by_count(
    seed: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, table, options = draw(seed)
    q, k, v = (x.to(dtype) for x in tensors)
    order = {"causal": True, "window": options.get("window"), "scale": options.get("scale")}
    best = fused.LEVELS.index(fused.level())
    at_level(seed % (best + 1))
    try:
        with torch.no_grad():
            want = posenc.attention(
                q.double(),
                k.double(),
                v.double(),
                encoding_of(table.double(), q.shape[1]),
                implementation="dense",
                **order,
            )
            encoding = encoding_of(table, q.shape[1])
            monkeypatch.setattr(posenc.CoPE, "by_count", "not called")
            got = posenc.attention(q, k, v, encoding, implementation="cpu", **order)
            again = posenc.attention(q, k, v, encoding, **order)
    finally:
        at_level(best)
    assert torch.equal(got, again)
    unit = max(1.0, float(want.abs().max()))
    torch.testing.assert_close(got.double() / unit, want / unit, rtol=0, atol=5e-5 if dtype is torch.float32 else 1e-2)


@pytest.mark.parametrize(
    "by_count",
    [
        torch.zeros(3, 5),
        torch.zeros(0, 4),
        torch.zeros(12),
        torch.zeros(4, 3).mT,
        torch.zeros(3, 4, dtype=torch.bfloat16),
        torch.zeros(1, 4).expand(2**24 + 1, 4),
    ],
)
def test_a_table_of_another_kind_is_refused_before_it_is_read(by_count: Tensor) -> None:
    q = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match="got a table of counts of shape"):
        fused.of_counts(q, q, q, 1.0, by_count, 0)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("queries", [1, 6])
def test_a_table_that_is_no_parameter_learns_in_every_call(named: bool, queries: int) -> None:
    """The second call goes the short way, which knows of parameters alone."""

    class Shared(posenc.ContextualEncoding):
        length, reads_positions, num_heads = 5, False, 2
        outside = (torch.randn(5, 8, requires_grad=True),)

        def by_count(self, q: Tensor, scale: float) -> Tensor:
            return scale * q @ self.outside[0].mT

        def contextual_bias(self, content: Content) -> Tensor:
            return counting.bias(self.by_count(content.q, content.scale), content.scores.sigmoid())

    class Named(Shared):
        @property
        def count_table(self) -> Tensor:
            return self.outside[0]

        by_count = Shared.by_count

    encoding = Named() if named else Shared()
    q, k, v = (torch.randn(1, 2, n, 8) for n in (queries, 9, 9))
    want, first, second = (
        torch.autograd.grad(
            posenc.attention(q, k, v, encoding, causal=True, implementation=name).square().sum(), encoding.outside
        )[0]
        for name in ("dense", "auto", "auto")
    )
    torch.testing.assert_close(first, want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(second, want, rtol=1e-3, atol=1e-4)


def test_a_class_of_your_own_may_name_the_table_of_its_rows() -> None:
    class Mine(posenc.ContextualEncoding):
        length, reads_positions = 5, False

        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.count_table = torch.randn(5, 8, dtype=dtype)

        def by_count(self, q: Tensor, scale: float) -> Tensor:
            return scale * q @ self.count_table.to(q.dtype).mT

        def contextual_bias(self, content: Content) -> Tensor:
            return counting.bias(self.by_count(content.q, content.scale), content.scores.sigmoid())

    class Steeper(Mine):
        def by_count(self, q: Tensor, scale: float) -> Tensor:
            return 3 * super().by_count(q, scale)

    q, k, v = (torch.randn(1, 2, n, 8) for n in (6, 9, 9))
    for encoding in (Mine(torch.float32), Mine(torch.float64), Steeper(torch.float32)):
        for few in (1, 6):
            step = q[:, :, :few]
            got = posenc.attention(step, k, v, encoding, causal=True, implementation="cpu")
            want = posenc.attention(step, k, v, encoding, causal=True, implementation="dense")
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
