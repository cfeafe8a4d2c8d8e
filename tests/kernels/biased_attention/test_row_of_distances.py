"""Where a bias is a row of distances: below FIRE's threshold, and for one query of any encoding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import fused

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)

ENCODINGS: dict[str, Callable[[], posenc.Encoding]] = {
    "fire": lambda: posenc.FIRE(num_heads=2, threshold=40.0),
    "fire in float64": lambda: posenc.FIRE(num_heads=2, threshold=40.0).double(),
    "tupe": lambda: posenc.scores.TUPE(dim=16, num_heads=2, length=100),
    "t5 with a temperature": lambda: posenc.Compose(posenc.T5Bias(num_heads=2), posenc.SSMax(num_heads=2)),
}
BELOW = [(40, 40, 0), (30, 30, 10), (20, 30, 3), (1, 30, 0)]  # queries, keys, position of the first key
ONE_QUERY = [(1, 60, 0), (1, 30, 37), (1, 1, 50)]


def run(
    encoding: posenc.Encoding, shape: tuple[int, int, int], implementation: Any, **options: Any
) -> tuple[Tensor, list[Tensor]]:
    q_len, k_len, start = shape
    torch.manual_seed(1)
    tensors = [torch.randn(2, 2, n, 8, requires_grad=True) for n in (q_len, k_len, k_len)]
    y = posenc.attention(*tensors, encoding, k_positions=start, implementation=implementation, **options)
    wanted = [*tensors, *(x for x in encoding.parameters() if x.requires_grad)]
    gradients = torch.autograd.grad(y, wanted, torch.randn(y.shape), materialize_grads=True)
    return y.detach(), list(gradients)


@pytest.mark.parametrize("options", [{}, {"window": 7}, {"causal": False}], ids=str)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in ("fire", "fire in float64") for shape in BELOW),
        *((name, shape) for name in ENCODINGS for shape in ONE_QUERY),
    ],
)
def test_the_row_gives_what_the_matrix_gives_with_the_same_gradients(
    name: str, shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    encoding = ENCODINGS[name]()
    options = {"causal": True} | options
    y, gradients = run(encoding, shape, "cpu", **options)
    expected, expected_gradients = run(encoding, shape, "dense", **options)
    torch.testing.assert_close(y, expected, rtol=2e-6, atol=2e-6)
    for got, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_row_of_fire_is_kept_up_to_its_threshold_and_made_anew_when_that_moves() -> None:
    torch.manual_seed(0)
    fire = posenc.FIRE(num_heads=2, threshold=40.0)
    q = k = v = torch.randn(1, 2, 39, 8)
    with torch.no_grad():
        for multiplier in (1.0, 0.99, 2.0, -1.5):
            fire.threshold_multiplier.fill_(multiplier)
            for k_len in (5, 39, 20):
                step = (q[:, :, :1], k[:, :, :k_len], v[:, :, :k_len])
                got = posenc.attention(*step, fire, causal=True)
                torch.testing.assert_close(got, posenc.attention(*step, fire, causal=True, implementation="dense"))
