"""What a layer of attention takes and refuses when it is built: layouts of rotations, and windows."""

from typing import Any

import numpy as np
import pytest
import torch

import posenc
from posenc.nn import Attention, Transformer
from posenc.positions import grid


@pytest.mark.parametrize("seq_dim", [1, -3, 0])
@pytest.mark.parametrize("composed", [False, True])
def test_a_rotation_for_another_layout_is_refused(seq_dim: int, composed: bool) -> None:
    encoding: posenc.Encoding = posenc.RoPE(8, seq_dim=seq_dim)
    if composed:
        encoding = posenc.Compose(encoding, posenc.ALiBi(num_heads=4))
    with pytest.raises(ValueError, match=rf"Attention: got RoPE with seq_dim={seq_dim}, expected seq_dim=-2"):
        Attention(32, 4, encoding, causal=True)
    with pytest.raises(ValueError, match=f"seq_dim={seq_dim}"):
        Transformer(32, 4, 2, encoding, causal=True)


def test_the_same_layout_counted_from_the_front_is_taken() -> None:
    torch.manual_seed(0)
    layer, x = Attention(32, 4, posenc.RoPE(8, seq_dim=2), causal=True), torch.randn(2, 5, 32)
    same = Attention(32, 4, posenc.RoPE(8), causal=True)
    same.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), same(x))


def test_a_window_may_be_an_integer_of_numpy() -> None:
    window: Any = np.int64(3)
    q = torch.randn(1, 4, 6, 8)
    bias = posenc.ALiBi(num_heads=4)
    for encoding in (None, bias):
        expected = posenc.attention(q, q, q, encoding, causal=True, window=3)
        assert torch.equal(posenc.attention(q, q, q, encoding, causal=True, window=window), expected)
    layer = Attention(32, 4, bias, causal=True, window=window).eval()
    assert type(layer.window) is int
    x, cache = torch.randn(1, 6, 32), layer.new_cache()
    with torch.no_grad():
        steps = [layer(x[:, t : t + 1], cache=cache) for t in range(6)]
        assert torch.allclose(torch.cat(steps, dim=1), layer(x), atol=1e-6)


@pytest.mark.parametrize("window", [True, 2.5])
def test_a_window_that_is_no_whole_number_is_refused_when_the_layer_is_built(window: Any) -> None:
    with pytest.raises(ValueError, match=r"Attention: got window .*, expected a whole number"):
        Attention(32, 4, causal=True, window=window)


def test_sizes_of_grids_may_be_integers_of_numpy() -> None:
    side: Any = np.int64(3)
    assert torch.equal(grid(side, side), grid(3, 3))
    for axes in (np.int64(2), (np.int64(16), np.int64(16))):
        made = posenc.embeddings.SinusoidalGrid(32, axes=axes)  # type: ignore[arg-type]
        assert torch.equal(made.codes(grid(3, 3)), posenc.embeddings.SinusoidalGrid(32).codes(grid(3, 3)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"causal": "no"}, "got causal 'no', expected True or False"),
        ({"encoding": "rope"}, "got 'rope' as encoding, expected an instance of Encoding"),
    ],
)
def test_a_layer_refuses_what_is_of_another_type(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=rf"^Attention: {message}"):
        Attention(32, 4, **given)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("num_heads", 4.0, "a whole number"), ("head_dim", "8", "a whole number"), ("dropout", "0.1", "a finite number")],
)
def test_a_layer_refuses_sizes_that_are_no_numbers(name: str, value: Any, expected: str) -> None:
    sizes: dict[str, Any] = {"num_heads": 4, name: value}
    with pytest.raises(ValueError, match=rf"^Attention: got {name} {value!r}, expected {expected}"):
        Attention(32, **sizes)
