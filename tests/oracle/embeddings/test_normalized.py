"""The position as a fraction of the length."""

import numpy as np

from posenc.oracle.embeddings.normalized import codes


def test_every_channel_holds_the_fraction() -> None:
    np.testing.assert_array_equal(codes([0, 1, 3, 4], dim=2, length=4), [[0, 0], [0.25, 0.25], [0.75, 0.75], [1, 1]])


def test_codes_of_a_sequence_stay_below_one() -> None:
    code = codes(np.arange(1000), dim=2, length=1000)
    assert code.min() == 0
    assert code.max() == 0.999


def test_one_code_means_other_positions_at_other_lengths() -> None:
    np.testing.assert_array_equal(codes([5], dim=3, length=10), codes([10], dim=3, length=20))


def test_positions_may_be_batched() -> None:
    assert codes(np.zeros((2, 7)), dim=6, length=7).shape == (2, 7, 6)
