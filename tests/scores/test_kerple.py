"""KERPLE: the authors' numbers, and limits that a parameter can come back from."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "kerple_bias.json").read_text())["values"]


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_the_bias_is_the_authors(kernel: str) -> None:
    golden = GOLDEN[kernel]
    encoding = posenc.KERPLE(num_heads=3, kernel=kernel).double()
    encoding.load_state_dict({"r1": torch.tensor(golden["r1"]), "r2": torch.tensor(golden["r2"])})
    bias = encoding.bias(torch.tensor([golden["row"]]), torch.arange(golden["row"] + 1))
    torch.testing.assert_close(bias.flatten(), torch.tensor(golden["bias"], dtype=torch.float64), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_a_parameter_below_its_limit_counts_as_the_limit_and_still_learns(kernel: str) -> None:
    encoding, limit = posenc.KERPLE(num_heads=1, kernel=kernel), posenc.KERPLE(num_heads=1, kernel=kernel)
    for module, value in ((encoding, -3.0), (limit, 0.01)):
        torch.nn.init.constant_(module.r1, value)
        torch.nn.init.constant_(module.r2, value)
    i = torch.arange(6)
    assert torch.allclose(encoding.bias(i, i), limit.bias(i, i))
    encoding.bias(i, i).sum().backward()
    assert encoding.r1.grad is not None
    assert encoding.r1.grad.item() < 0


def test_powers_above_two_count_as_two() -> None:
    encoding = posenc.KERPLE(num_heads=1, kernel="power")
    torch.nn.init.constant_(encoding.r1, 1.0)
    torch.nn.init.constant_(encoding.r2, 5.0)
    assert encoding.bias(torch.tensor([3]), torch.tensor([0])).item() == pytest.approx(-9)


def test_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="got kernel 'exp', expected one of"):
        posenc.KERPLE(num_heads=2, kernel="exp")
