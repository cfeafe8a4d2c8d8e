"""RoPE-Mixed: complex numbers as in the authors' code, its start, its gradients, its refusals."""

import math

import pytest
import torch

import posenc
from posenc.oracle.queries_keys import mixed as oracle

WHERE = torch.cartesian_prod(torch.arange(4), torch.arange(5))[None]


def test_is_a_product_of_complex_numbers_as_in_the_authors_code() -> None:
    rope = posenc.MixedRoPE(head_dim=16, num_heads=3)
    x = torch.randn(2, 3, 20, 16, dtype=torch.float64)
    along = WHERE[0].double() @ rope.rates.detach().double().permute(1, 0, 2)  # (heads, tokens, pairs)
    turn = torch.polar(torch.ones_like(along), along)
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)
    torch.testing.assert_close(rope.rotate(x, WHERE), expected)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_agrees_with_the_oracle_on_a_grid(kv_heads: int, pairing: str) -> None:
    rope = posenc.MixedRoPE(head_dim=16, num_heads=4, num_kv_heads=kv_heads, pairing=pairing)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 20, 16, dtype=torch.float64)
    expected = oracle.rotate(x.numpy(), WHERE[0].numpy(), rates=rope.rates.detach().double().numpy(), pairing=pairing)
    torch.testing.assert_close(rope.rotate(x, WHERE), torch.from_numpy(expected))


def test_starts_as_an_axial_rope_turned_by_an_angle_of_each_head() -> None:
    rope = posenc.MixedRoPE(head_dim=32, num_heads=6)
    x, y = rope.rates.detach().double()
    lengths = 10 ** (-torch.arange(8) / 8)
    torch.testing.assert_close(x.hypot(y), lengths.repeat(2).expand(6, 16).double(), rtol=1e-6, atol=0)
    first, second = torch.atan2(y, x).split(8, dim=-1)
    torch.testing.assert_close((second - first).remainder(2 * math.pi), torch.full_like(first, math.pi / 2))
    torch.testing.assert_close(first, first[:, :1].expand(6, 8), rtol=0, atol=1e-6)
    assert len(set(first[:, 0].tolist())) == 6


def test_its_rates_have_gradients() -> None:
    rope = posenc.MixedRoPE(head_dim=8, num_heads=2).double()
    rope.forward = rope.rotate  # type: ignore[method-assign]
    x = torch.randn(1, 2, 20, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda rates: torch.func.functional_call(rope, {"rates": rates}, (x, WHERE)),
        (rope.rates.detach().clone().requires_grad_(),),
    )


def test_other_layouts_give_the_same() -> None:
    rope = posenc.MixedRoPE(head_dim=8, num_heads=2)
    other = posenc.MixedRoPE(head_dim=8, num_heads=2, seq_dim=-3)
    other.load_state_dict(rope.state_dict())
    x = torch.randn(2, 2, 20, 8)
    assert torch.equal(other.rotate(x.transpose(1, 2), WHERE).transpose(1, 2), rope.rotate(x, WHERE))
    assert torch.equal(rope.rotate(x[0], WHERE), rope.rotate(x, WHERE)[0])
    assert torch.equal(other.rotate(x[0].transpose(0, 1), WHERE).transpose(0, 1), rope.rotate(x, WHERE)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 10, "num_heads": 2}, "got 10 rotated channels, expected a multiple of 4.*use rotary_dim=8"),
        ({"head_dim": 8, "num_heads": 3, "num_kv_heads": 2}, "got num_heads 3 and num_kv_heads 2"),
        ({"head_dim": 8, "num_heads": 0}, "got num_heads 0"),
        ({"head_dim": 8, "num_heads": 2, "base": 1}, "got base 1"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.MixedRoPE(**options)  # type: ignore[arg-type]


def test_heads_without_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 heads, expected a multiple of 2"):
        posenc.MixedRoPE(head_dim=8, num_heads=2).rotate(torch.zeros(1, 3, 20, 8), WHERE)


@pytest.mark.parametrize("axes", [1, 3])
def test_any_number_of_coordinates_agrees_with_the_oracle(axes: int) -> None:
    rope = posenc.MixedRoPE(head_dim=16, num_heads=4, num_kv_heads=2, axes=axes)
    x = torch.randn(2, 4, 20, 16, dtype=torch.float64)
    where = torch.randn(1, 20, axes, dtype=torch.float64)
    expected = oracle.rotate(x.numpy(), where[0].numpy(), rates=rope.rates.detach().double().numpy())
    torch.testing.assert_close(rope.rotate(x, where), torch.from_numpy(expected))


def test_three_axes_start_as_an_axial_rope_turned_by_a_rotation_of_each_head() -> None:
    """64 pairs: 22 along the first direction, 21 along each of the others, at right angles."""
    rope = posenc.MixedRoPE(head_dim=128, num_heads=5, axes=3)
    rates = rope.rates.detach().double().permute(1, 2, 0)  # (heads, pairs, axes)
    lengths = torch.cat([10 ** (-torch.arange(n, dtype=torch.float64) / n) for n in (22, 21, 21)])
    torch.testing.assert_close(rates.norm(dim=-1), lengths.expand(5, 64), rtol=1e-6, atol=0)
    unit = rates / rates.norm(dim=-1, keepdim=True)
    frame = unit[:, [0, 22, 43]]
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).double().expand(5, 3, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(5).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(unit[:, :22], unit[:, :1].expand(5, 22, 3), rtol=0, atol=1e-6)
    assert len(set(unit[:, 0, 0].tolist())) == 5


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_three_axes_are_mochi() -> None:
    mochi = pytest.importorskip("diffusers.models.transformers.transformer_mochi", reason="diffusers is not installed")
    module = mochi.MochiRoPE()
    rope = posenc.MixedRoPE(head_dim=128, num_heads=4, axes=3)
    cos, sin = module(rope.rates.detach(), 3, 8, 6, dtype=torch.float32)
    x = torch.randn(1, 4, 144, 128)
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos.transpose(0, 1), sin.transpose(0, 1)
    theirs = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
    where = module._get_positions(3, 8, 6, dtype=torch.float32)[None]
    torch.testing.assert_close(rope.rotate(x, where), theirs, rtol=0, atol=2e-4)  # their angles are float32


def test_axes_that_do_not_fit_are_refused() -> None:
    for axes in (0, 5):
        with pytest.raises(ValueError, match=f"got 8 rotated channels for {axes} axes"):
            posenc.MixedRoPE(head_dim=8, num_heads=2, axes=axes)
