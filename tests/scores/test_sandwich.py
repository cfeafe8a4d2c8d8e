"""Sandwich: NeMo's numbers, no learned part, and channels that make the same bias."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "sandwich_bias.json").read_text())["values"]


def test_the_bias_is_that_of_nemo() -> None:
    bias = posenc.scores.Sandwich(num_heads=4, code_dim=16).bias(torch.tensor([11]), torch.arange(12))
    torch.testing.assert_close(bias.flatten(), torch.tensor(GOLDEN["bias"]), rtol=0, atol=2e-5)


def test_the_factors_make_the_bias_up_to_a_constant_for_each_head() -> None:
    encoding = posenc.scores.Sandwich(num_heads=4, code_dim=16)
    i, j = torch.arange(2**16, 2**16 + 5), torch.arange(2**16 - 40, 2**16 + 5)
    left, right = encoding.factors(i, j)
    constant = (left.double() @ right.double().transpose(-1, -2)) - encoding.bias(i, j).double()
    expected = torch.tensor(encoding.strengths)[:, None, None] * 8
    torch.testing.assert_close(constant, expected.double().expand_as(constant), rtol=0, atol=1e-5)


def test_an_odd_code_is_refused() -> None:
    with pytest.raises(ValueError, match="got code_dim 15, expected an even number"):
        posenc.scores.Sandwich(num_heads=2, code_dim=15)


def test_given_strengths_are_the_strengths() -> None:
    given = posenc.scores.Sandwich(num_heads=3, code_dim=16, rule=(0.5, 0.0, 0.125))
    assert given.strengths == (0.5, 0.0, 0.125)
    again = posenc.from_dict(given.to_dict())
    assert isinstance(again, posenc.scores.Sandwich)
    assert again.strengths == given.strengths
    where = torch.arange(9)
    plain = posenc.scores.Sandwich(num_heads=1, code_dim=16).bias(where, where)[0] * 8  # whose strength is 1 / 8
    torch.testing.assert_close(given.bias(where, where), torch.stack((plain / 2, plain * 0, plain / 8)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("paper", "got rule 'paper', expected \"nemo\", or one strength for each head"),
        ((0.5,), "got 1 strengths as rule, expected 2, one for each head"),
        ((0.5, -0.25), "got strength -0.25, expected 0 or above"),
    ],
)
def test_strengths_that_do_not_fit_are_refused(rule: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.scores.Sandwich(num_heads=2, rule=rule)  # type: ignore[arg-type]
