"""The position as a share of a length."""

import pytest
import torch

import posenc


def test_codes_are_small_up_to_the_length_and_grow_past_it() -> None:
    codes = posenc.Normalized(dim=2, length=100).codes(torch.tensor([0, 50, 100, 200]))
    assert codes[:, 0].tolist() == [0.0, 0.5, 1.0, 2.0]


def test_another_length_gives_one_position_another_code() -> None:
    at = torch.tensor([10])
    assert not torch.equal(posenc.Normalized(dim=2, length=20).codes(at), posenc.Normalized(dim=2, length=40).codes(at))


def test_a_length_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got length 0, expected at least 1"):
        posenc.Normalized(dim=2, length=0)
