"""A bias that fades from token to token in the compiled kernel: FoX against its formula, and skipped blocks."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import fused
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.biased_attention.problem import Problem
from posenc.oracle.dot_product_attention import attention as oracle
from posenc.oracle.scores import forgetting

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)


def draw(seed: int) -> tuple[list[Tensor], Tensor, dict[str, Any]]:
    """q, k, v, a state, and options: gates that forget at once or hardly, and states that rise too."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        numbers: Tensor = torch.randn(shape, generator=generator, dtype=dtype)
        return numbers

    batch, kv_heads = pick.choice((1, 2)), pick.choice((1, 2))
    heads = kv_heads * pick.choice((1, 3))
    q_len = pick.choice((1, 2, 4, 5, 17, 63, 64, 65, 130, 200))
    k_len = q_len + pick.choice((0, 0, 1, 60, 127, 300))
    dim, value_dim = pick.choice((8, 16, 24, 64)), pick.choice((8, 33, 64))
    tensors = [normal(batch, heads, q_len, dim), normal(batch, kv_heads, k_len, dim)]
    tensors.append(normal(batch, kv_heads, k_len, value_dim))
    logits = 2 * normal(batch, heads, k_len, dtype=torch.float64) + pick.choice((-2, 0, 4))
    state = torch.nn.functional.logsigmoid(logits).cumsum(-1) if pick.random() < 0.7 else 5 * logits
    if pick.random() < 0.2:
        state = state[:1, :1]  # the same for all
    options: dict[str, Any] = {"causal": pick.random() < 0.6, "state": state}
    if pick.random() < 0.3:
        options["window"] = pick.choice((1, 7, 64, 100))
    if pick.random() < 0.3:
        mask = normal(q_len, k_len)
        options["mask"] = mask if pick.random() < 0.3 else mask > -1
    if pick.random() < 0.2:
        options["sinks"] = normal(heads)
    if pick.random() < 0.2:
        options["documents"] = torch.randint(3, (batch, k_len), generator=generator).sort(-1).values
    return tensors, state, options


def run(tensors: list[Tensor], state: Tensor, options: dict[str, Any], dtype: torch.dtype, name: str) -> list[Tensor]:
    """The output, and the gradients of q, k, v and the state."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
    leaf = state.detach().clone().requires_grad_()
    options = {
        what: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for what, x in options.items()
    }
    encoding = posenc.Forgetting(dim=1, num_heads=tensors[0].shape[1])
    y = posenc.attention(*leaves, encoding, implementation=name, **options | {"state": leaf})
    torch.manual_seed(0)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, leaf], torch.randn(y.shape).to(y.dtype))]


@pytest.mark.parametrize("seed", range(40))
def test_any_call_and_its_gradients_are_those_of_float64(seed: int) -> None:
    handle = LIBRARY.handle
    assert handle is not None
    best = handle.posenc_attention_level()
    handle.posenc_attention_set_level(seed % (best + 1))
    try:
        got = run(*draw(seed), torch.float32, "cpu")
    finally:
        handle.posenc_attention_set_level(best)
    for one, other in zip(got, run(*draw(seed), torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other / unit, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_on_the_way_out(dtype: torch.dtype) -> None:
    tensors, state, options = draw(3)
    tensors = [x.to(dtype) for x in tensors]
    got = run(tensors, state, options, dtype, "cpu")
    assert [x.dtype for x in got] == [dtype] * 4 + [torch.float64]
    for one, other in zip(got, run(tensors, state, options, torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other / unit, rtol=0, atol=2e-2)


def test_the_gates_and_their_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    fox = posenc.Forgetting(dim=12, num_heads=2)
    x = torch.randn(2, 150, 12)
    q, k, v = (torch.randn(2, 2, 150, 16) for _ in range(3))
    y = posenc.attention(q, k, v, fox, causal=True, state=fox.carry(x), implementation="cpu")
    gates = forgetting.log_gates(x, weight=fox.gate.weight.detach(), offset=fox.gate.bias.detach())
    seen = np.tril(np.ones((150, 150), dtype=bool))
    expected = oracle(q, k, v, bias=forgetting.bias(gates), mask=seen)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=2e-6)
    got = torch.autograd.grad(y.square().sum(), list(fox.parameters()))
    fox.double()
    y = posenc.attention(
        *(t.double() for t in (q, k, v)), fox, causal=True, state=fox.carry(x.double()), implementation="dense"
    )
    for one, other in zip(got, torch.autograd.grad(y.square().sum(), list(fox.parameters())), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gate", [-1.0, 2.0, 5.0])
@pytest.mark.parametrize("options", [{"causal": True}, {}, {"causal": True, "window": 700}])
def test_skipping_changes_no_bit(gate: float, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 2, 1500, 32, requires_grad=True) for _ in range(3))
    state = torch.nn.functional.logsigmoid(gate + torch.randn(1, 2, 1500, dtype=torch.float64)).cumsum(-1)
    state.requires_grad_()
    fox = posenc.Forgetting(dim=1, num_heads=2)
    results = []
    for skip in (True, False):
        problem = Problem(q, k, v, 32**-0.5, encoding=fox, contextual=True, state=state, **options)
        y = fused.run(problem, skip=skip)
        results.append([y, *torch.autograd.grad(y.square().sum(), (q, k, v, state))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_long_past_changes_nothing() -> None:
    """After a million tokens the sums are near -10**6, of which float32 keeps no sixteenth."""
    tensors, state, options = draw(7)
    near = run(tensors, state, options, torch.float32, "cpu")
    far = run(tensors, state - 2.0**20, options, torch.float32, "cpu")
    for one, other in zip(near, far, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_has_faded_is_not_looked_at_and_not_a_number_is_passed_on() -> None:
    fox = posenc.Forgetting(dim=1, num_heads=2)
    q = torch.zeros(1, 2, 1024, 16)
    v = torch.ones(1, 2, 1024, 16)
    v[:, :, :128] = torch.nan
    state = torch.stack((-torch.arange(1024.0), -1e-3 * torch.arange(1024.0)))[None].double()
    y = posenc.attention(q, q, v, fox, causal=True, state=state, implementation="cpu")
    assert not bool(y[:, 0, 300:].isnan().any())  # 128 tokens away a weight is exp(-128)
    assert bool(y[:, 1].isnan().all())
    state[0, 0, 5] = torch.nan  # of one key: all later queries see it
    y = posenc.attention(q, q, torch.ones_like(v), fox, causal=True, state=state, implementation="cpu")
    assert bool(y[:, 0, 5:].isnan().all())


def test_a_class_that_changes_what_is_added_is_not_taken_for_its_parent() -> None:
    class Doubled(posenc.Forgetting):  # type: ignore[misc]  # a final class says what it is for, and Python lets it pass
        def contextual_bias(self, content: Content) -> Tensor:
            return 2 * super().contextual_bias(content)

    class Adding(posenc.Forgetting):  # type: ignore[misc]
        def on_values(self, weights: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            return weights.sum(-1, keepdim=True)

    class Falling(posenc.ContextualEncoding):
        """A class of somebody else's with both."""

        num_heads = 2

        def fades(self, state: Tensor) -> Tensor:
            return 3 * state

        def contextual_bias(self, content: Content) -> Tensor:
            assert content.q_state is not None
            assert content.k_state is not None
            return 3 * (content.q_state[..., :, None] - content.k_state[..., None, :]).clamp(max=0)

    q = torch.randn(1, 2, 9, 8)
    for encoding, name in ((Doubled(1, 2), "dense"), (Adding(1, 2), "dense"), (Falling(), "cpu")):
        options: dict[str, Any] = {"causal": True, "state": -torch.rand(1, 2, 9).cumsum(-1)}
        assert posenc.explain(posenc.attention, q, q, q, encoding, **options).implementation == name
        y = posenc.attention(q, q, q, encoding, **options)
        torch.testing.assert_close(y, posenc.attention(q, q, q, encoding, implementation="dense", **options))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "Forgetting got no state"),
        (torch.zeros(2, 2, 5), r"the state of Forgetting is not \(batch, heads, k_len\)"),
        (torch.zeros(1, 1, 2, 5), r"the state of Forgetting is not \(batch, heads, k_len\)"),
        (torch.zeros(1, 2, 5, device="meta"), "the state of Forgetting is no plain tensor on the CPU"),
    ],
)
def test_a_state_that_the_kernel_cannot_read_is_refused_by_name(state: Tensor | None, reason: str) -> None:
    q = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match=f"cannot take this call: {reason}"):
        posenc.attention(q, q, q, posenc.Forgetting(1, 2), causal=True, state=state, implementation="cpu")


def test_a_second_derivative_is_that_of_the_reference() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3))
    state = (-torch.rand(1, 2, 9, dtype=torch.float64)).cumsum(-1).requires_grad_()

    def penalty(implementation: str) -> list[Tensor]:
        y = posenc.attention(q, k, v, posenc.Forgetting(1, 2), causal=True, state=state, implementation=implementation)
        first = torch.autograd.grad(y.square().sum(), (q, state), create_graph=True)
        return list(torch.autograd.grad(sum(x.square().sum() for x in first), (q, k, v, state)))

    for got, want in zip(penalty("cpu"), penalty("dense"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_gates_alone_may_learn() -> None:
    q = torch.randn(1, 2, 9, 4)
    fox = posenc.Forgetting(dim=3, num_heads=2)
    x = torch.randn(1, 9, 3)
    got, want = (
        torch.autograd.grad(
            posenc.attention(q, q, q, fox, causal=True, state=fox.carry(x), implementation=name).square().sum(),
            fox.gate.weight,
        )
        for name in ("cpu", "dense")
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
