"""LeViT's attention bias: a learned number for each pair of distances along the two axes."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, *, table: npt.ArrayLike, grid: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """The table's number for the distances of two places.

        b(h, i, j) = table[h, |y(i) - y(j)| n + |x(i) - x(j)|]          y(p) = p div n, x(p) = p mod n

    i and j number the places of the `grid` of m x n along the rows.

    Reference: Graham et al., arXiv 2104.01136, equation 1.
    """
    i = np.asarray(q_positions, dtype=np.int64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.int64)[..., None, :]
    w = np.asarray(table, dtype=np.float64)
    n = grid[1]
    dy = np.abs(i // n - j // n)
    dx = np.abs(i % n - j % n)
    return np.moveaxis(w.T[dy * n + dx], -1, -3)
