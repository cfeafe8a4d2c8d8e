"""The position in binary."""

import torch

import posenc


def test_the_digits_are_those_that_python_writes() -> None:
    positions = torch.tensor([0, 1, 5, 252, 2**20 + 3, 2**40 + 1])
    for position, code in zip(positions.tolist(), posenc.Binary(dim=48).codes(positions), strict=True):
        assert "".join(str(int(digit)) for digit in code.flip(0)) == f"{position:048b}"


def test_channel_j_has_a_wavelength_of_two_to_the_j_plus_1() -> None:
    codes = posenc.Binary(dim=5).codes(torch.arange(128))
    for j in range(5):
        assert torch.equal(codes[: -(2 ** (j + 1)), j], codes[2 ** (j + 1) :, j])
        assert not torch.equal(codes[: -(2**j), j], codes[2**j :, j])


def test_neighbours_may_differ_in_every_digit() -> None:
    codes = posenc.Binary(dim=8).codes(torch.tensor([126, 127, 128]))
    assert (codes[0] != codes[1]).sum() == 1
    assert (codes[1] != codes[2]).sum() == 8


def test_of_a_float_position_the_whole_part_is_coded() -> None:
    binary = posenc.Binary(dim=8)
    assert torch.equal(binary.codes(torch.tensor([5.9])), binary.codes(torch.tensor([5])))
