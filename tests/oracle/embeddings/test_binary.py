"""The bits of the position, against Python's own."""

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from posenc.oracle.embeddings.binary import codes


def test_252_is_11111100_in_base_two() -> None:
    np.testing.assert_array_equal(codes([252], dim=8)[0, ::-1], [1, 1, 1, 1, 1, 1, 0, 0])


def test_the_least_significant_bit_comes_first() -> None:
    np.testing.assert_array_equal(
        codes([0, 1, 2, 3, 4], dim=3), [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    )


@given(position=st.integers(0, 2**53))
def test_the_bits_are_those_python_prints(position: int) -> None:
    code = codes([position], dim=54)[0]
    assert "".join(str(int(bit)) for bit in code[::-1]) == format(position, "054b")


def test_channel_j_repeats_after_two_to_the_j_plus_one_tokens_and_not_before() -> None:
    code = codes(np.arange(256), dim=6)
    for bit in range(6):
        period = 2 ** (bit + 1)
        np.testing.assert_array_equal(code[period:, bit], code[:-period, bit])
        assert (code[period // 2 :, bit] != code[: -period // 2, bit]).all()


def test_positions_between_integers_are_rounded_down() -> None:
    np.testing.assert_array_equal(codes([5.0, 5.999], dim=4), codes([5, 5], dim=4))


def test_a_code_wider_than_any_position_ends_in_zeros() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code = codes([2**20 - 1], dim=2048)
    np.testing.assert_array_equal(code[0], [1] * 20 + [0] * 2028)


def test_positions_may_be_batched() -> None:
    assert codes(np.zeros((2, 7)), dim=6).shape == (2, 7, 6)
