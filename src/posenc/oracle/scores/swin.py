"""Swin's bias: a learned number for each offset of two places in a window of an image."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, *, table: npt.ArrayLike, window: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of two places of a window of M rows and N columns.

        b(h, i, j) = table[(y(i) - y(j) + M - 1) (2 N - 1) + x(i) - x(j) + N - 1, h]
        y(p) = p div N,  x(p) = p mod N                     positions count along the rows

    `table` is ((2 M - 1) (2 N - 1), heads) and `window` is (M, N).

    Reference: Liu et al., arXiv 2103.14030, section 3.2, equation 4.
    """
    i = np.asarray(q_positions, dtype=np.int64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.int64)[..., None, :]
    rows, columns = window
    dy = i // columns - j // columns
    dx = i % columns - j % columns
    b = np.asarray(table, dtype=np.float64)[(dy + rows - 1) * (2 * columns - 1) + dx + columns - 1]
    return np.moveaxis(b, -1, -3)
