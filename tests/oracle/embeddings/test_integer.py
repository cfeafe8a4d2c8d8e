"""The position itself."""

import numpy as np

from posenc.oracle.embeddings.integer import codes


def test_every_channel_holds_the_position() -> None:
    np.testing.assert_array_equal(codes([0, 1, 252], dim=3), [[0, 0, 0], [1, 1, 1], [252, 252, 252]])


def test_positions_may_be_fractional_negative_and_batched() -> None:
    positions = np.array([[-1.5, 0.0], [2.25, 2.0**24 + 1]])
    code = codes(positions, dim=4)
    assert code.shape == (2, 2, 4)
    np.testing.assert_array_equal(code, np.broadcast_to(positions[..., None], (2, 2, 4)))


def test_a_shift_of_the_positions_shifts_the_codes() -> None:
    p = np.arange(20)
    np.testing.assert_array_equal(codes(p + 7, dim=2), codes(p, dim=2) + 7)
