"""FIRE: the numbers of the code in use, and what makes it hold past the trained length."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "fire_bias.json").read_text())["values"]


def test_the_bias_is_that_of_the_code_in_use() -> None:
    encoding = posenc.FIRE(num_heads=3, width=5, threshold=GOLDEN["threshold"])
    with torch.no_grad():
        encoding.c.fill_(GOLDEN["c"])
        for parameter, name in (
            (encoding.hidden.weight, "hidden_weight"),
            (encoding.hidden.bias, "hidden_bias"),
            (encoding.out.weight, "out_weight"),
            (encoding.out.bias, "out_bias"),
        ):
            parameter.copy_(torch.tensor(GOLDEN[name]).view_as(parameter))
    bias = encoding.bias(torch.arange(7), torch.arange(7))
    torch.testing.assert_close(bias.flatten(), torch.tensor(GOLDEN["bias"]), rtol=0, atol=2e-6)


def test_the_network_is_never_asked_for_more_than_one() -> None:
    """Within [0, 1] a two-layer network of ReLU stays between its values there: far keys of long runs are no news."""
    encoding = posenc.FIRE(num_heads=2, threshold=8)
    short = encoding.bias(torch.tensor([100]), torch.arange(101))
    long = encoding.bias(torch.tensor([2**20]), torch.arange(0, 2**20, 2**12))
    assert bool((long >= short.amin((1, 2), keepdim=True) - 1e-3).all())
    assert bool((long <= short.amax((1, 2), keepdim=True) + 1e-3).all())


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold 0, expected .* a threshold above 0"):
        posenc.FIRE(num_heads=2, threshold=0)
