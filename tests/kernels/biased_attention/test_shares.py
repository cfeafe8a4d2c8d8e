"""A bias that a small network makes of a share in the compiled kernel: FIRE past its threshold."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import fused
from posenc.oracle.dot_product_attention import attention as oracle
from posenc.oracle.scores import fire as fire_oracle

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)


def draw(seed: int) -> tuple[list[Tensor], posenc.FIRE, dict[str, Any]]:
    """q, k, v, a network whose units go on and off at any share, and options."""
    pick, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    batch, kv_heads = pick.choice((1, 2)), pick.choice((1, 2))
    heads = kv_heads * pick.choice((1, 3))
    q_len = pick.choice((2, 4, 5, 17, 63, 64, 65, 130, 200))
    k_len = q_len + pick.choice((0, 0, 1, 60, 127, 300))
    dim, value_dim = pick.choice((8, 16, 24, 64)), pick.choice((8, 33, 64))
    tensors = [normal(batch, heads, q_len, dim), normal(batch, kv_heads, k_len, dim)]
    tensors.append(normal(batch, kv_heads, k_len, value_dim))
    fire = posenc.FIRE(num_heads=heads, width=pick.choice((1, 7, 32, 127)), threshold=pick.choice((0.5, 2.0, 40.0)))
    with torch.no_grad():
        fire.c.copy_(pick.choice((0.1, -3.0, 0.02)) * torch.ones(1))
        fire.threshold_multiplier.copy_(pick.choice((1.0, -1.5)) * torch.ones(1))
        fire.hidden.weight.copy_(2 * normal(fire.width, 1))
        fire.hidden.bias.copy_(normal(fire.width))
        fire.out.weight.copy_(normal(heads, fire.width))
        fire.out.bias.copy_(normal(heads))
    options: dict[str, Any] = {"causal": pick.random() < 0.6, "k_positions": pick.choice((0, 7, 1000))}
    if pick.random() < 0.3:
        options["window"] = pick.choice((1, 7, 64, 100))
    if pick.random() < 0.3:
        mask = normal(q_len, k_len)
        options["mask"] = mask if pick.random() < 0.3 else mask > -1
    if pick.random() < 0.2:
        options["sinks"] = normal(heads)
    if pick.random() < 0.2:
        options["documents"] = torch.randint(3, (batch, k_len), generator=generator).sort(-1).values
    return tensors, fire, options


def run(
    tensors: list[Tensor], fire: posenc.FIRE, options: dict[str, Any], dtype: torch.dtype, name: Any
) -> list[Tensor]:
    """The output, and the gradients of q, k, v and all that is learned."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
    options = {
        what: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for what, x in options.items()
    }
    y = posenc.attention(*leaves, fire, implementation=name, **options)
    torch.manual_seed(0)
    gradient = torch.randn(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *fire.parameters()], gradient, materialize_grads=True)]


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
    tensors, fire, options = draw(seed)
    for one, other in zip(got, run(tensors, fire.double(), options, torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other / unit, rtol=0, atol=1e-4)


def test_the_numbers_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    fire = posenc.FIRE(num_heads=3, threshold=20.0)
    q, k, v = (torch.randn(2, 3, 150, 16) for _ in range(3))
    with torch.no_grad():
        y = posenc.attention(q, k, v, fire, causal=True, implementation="cpu")
    at, weight = np.arange(150), {name: x.detach().double().numpy() for name, x in fire.named_parameters()}
    bias = fire_oracle.bias(
        *(at, at),
        c=weight["c"][0],
        threshold=20.0 * weight["threshold_multiplier"][0],
        hidden_weight=weight["hidden.weight"][:, 0],
        hidden_bias=weight["hidden.bias"],
        out_weight=weight["out.weight"],
        out_bias=weight["out.bias"],
    )
    expected = oracle(q, k, v, bias=bias, mask=np.tril(np.ones((150, 150), dtype=bool)))
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_on_the_way_out(dtype: torch.dtype) -> None:
    tensors, fire, options = draw(3)
    tensors = [x.to(dtype) for x in tensors]
    got = run(tensors, fire, options, dtype, "cpu")
    assert [x.dtype for x in got[:4]] == [dtype] * 4
    for one, other in zip(got, run(tensors, fire, options, torch.float64, "dense"), strict=True):
        unit = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double() / unit, other.double() / unit, rtol=0, atol=4e-2)


def test_steps_of_decoding_are_the_rows_of_one_pass_though_what_they_read_is_kept_and_learned_between() -> None:
    torch.manual_seed(0)
    fire = posenc.FIRE(num_heads=2, threshold=10.0)
    q, k, v = (torch.randn(1, 2, 150, 16) for _ in range(3))
    for first in (0, 1000):  # the key's position: what is known of the queries' is from 0 on
        with torch.no_grad():
            fire.c.mul_(1.1)
            fire.out.weight.add_(0.1)
            y = posenc.attention(q, k, v, fire, causal=True, k_positions=first, implementation="dense")
            for at in (1, 9, 70, 71, 140, 149):
                step = (q[:, :, at : at + 1], k[:, :, : at + 1], v[:, :, : at + 1])
                options: Any = {"causal": True, "q_positions": first + at, "k_positions": first}
                got = posenc.attention(*step, fire, implementation="cpu", **options)
                torch.testing.assert_close(got, y[:, :, at : at + 1], rtol=1e-5, atol=1e-5)


def test_a_second_derivative_is_that_of_the_reference() -> None:
    torch.manual_seed(0)
    fire = posenc.FIRE(num_heads=2, width=5, threshold=3.0)
    inputs = [torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3)]
    results = []
    for name in ("cpu", "dense"):
        y = posenc.attention(*inputs, fire, causal=True, implementation=name)
        wanted = [*inputs, *fire.parameters()]
        first = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in first), wanted))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("which", range(6))
def test_one_parameter_may_learn_alone(which: int) -> None:
    torch.manual_seed(0)
    fire = posenc.FIRE(num_heads=2, width=5, threshold=3.0).requires_grad_(False)
    q, k, v = (torch.randn(1, 2, 70, 16) for _ in range(3))
    alone = list(fire.parameters())[which].requires_grad_()
    got, want = (
        torch.autograd.grad(posenc.attention(q, k, v, fire, causal=True, implementation=name).square().sum(), alone)
        for name in ("cpu", "dense")
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_not_a_number_is_passed_on_as_the_reference_does() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 70, 16) for _ in range(3))
    for which in range(5):
        fire = posenc.FIRE(num_heads=2, width=4, threshold=10.0)
        with torch.no_grad():
            list(fire.parameters())[which].view(-1)[0] = torch.nan
            y = posenc.attention(q, k, v, fire, causal=True, implementation="dense")
            got = posenc.attention(q, k, v, fire, causal=True, implementation="cpu" if which != 1 else "auto")
        assert torch.equal(got.isnan(), y.isnan()), which
        assert bool(y.isnan().any())


def test_a_class_that_changes_the_bias_is_not_taken_for_its_parent_nor_a_network_that_is_too_wide() -> None:
    class Doubled(posenc.FIRE):  # type: ignore[misc]  # a final class says what it is for, and Python lets it pass
        def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            return 2 * super().bias(q_positions, k_positions)

    class Squared(posenc.FIRE):  # type: ignore[misc]
        def stretched(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            return super().stretched(q_positions, k_positions).square()

    q = torch.randn(1, 2, 50, 8)
    wide = posenc.FIRE(num_heads=2, threshold=10.0, width=128)
    for encoding, name in ((Doubled(2, threshold=10.0), "dense"), (Squared(2, threshold=10.0), "cpu"), (wide, "dense")):
        assert posenc.explain(posenc.attention, q, q, q, encoding, causal=True).implementation == name
        y = posenc.attention(q, q, q, encoding, causal=True)
        torch.testing.assert_close(y, posenc.attention(q, q, q, encoding, causal=True, implementation="dense"))
    with pytest.raises(
        ValueError, match='implementation="cpu" cannot take this call: FIRE gives no bias of the distan'
    ):
        posenc.attention(q, q, q, wide, causal=True, implementation="cpu")
