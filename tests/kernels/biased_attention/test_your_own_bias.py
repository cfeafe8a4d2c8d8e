"""A bias of a class of your own that broadcasts, or has other numbers than floats, in every implementation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import posenc

FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "with a batch of one": lambda bias: bias.expand(1, 4, *bias.shape),
    "of one head": lambda bias: bias[None],
    "without heads": lambda bias: bias,
    "whole numbers": lambda bias: bias.long().expand(4, *bias.shape),
    "bfloat16": lambda bias: bias.bfloat16().expand(4, *bias.shape),
}


class Own(posenc.ScoreEncoding):
    def __init__(self, form: str, *, relative: bool) -> None:
        super().__init__()
        self.num_heads, self.form, self.relative = 4, form, relative

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return FORMS[self.form](-(q_positions[:, None] - k_positions).abs().float() / 4)


@pytest.mark.parametrize("implementation", ["auto", "blocks", pytest.param("flex", marks=pytest.mark.slow)])
@pytest.mark.parametrize("q_len", [1, 5])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_read_as_the_reference_reads_it(form: str, relative: bool, q_len: int, implementation: Any) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8) for n in (q_len, 9, 9))
    encoding = Own(form, relative=relative)
    y = posenc.attention(q, k, v, encoding, causal=True, implementation=implementation)
    expected = posenc.attention(q, k, v, encoding, causal=True, implementation="dense")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6)
