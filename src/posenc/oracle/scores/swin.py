"""Swin's bias: a learned number for each offset of two places in a window of an image."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    table: npt.ArrayLike,
    window: tuple[int, int],
    prefix: int = 0,
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of two places of a window of M rows and N columns.

        b(h, i, j) = table[(y(i) - y(j) + M - 1) (2 N - 1) + x(i) - x(j) + N - 1, h]
        y(p) = p div N,  x(p) = p mod N                     positions count along the rows

    `table` is ((2 M - 1) (2 N - 1), heads) and `window` is (M, N). With `prefix` 1 (BEiT) position 0 is a class token,
    the others are one further on, and the table has three rows more:

        b(h, 0, j) = table[-3, h],  b(h, i, 0) = table[-2, h],  b(h, 0, 0) = table[-1, h]

    Reference: Liu et al., arXiv 2103.14030, section 3.2, equation 4; Bao et al., BEiT, arXiv 2106.08254, whose code has
    the three rows.
    """
    i = np.asarray(q_positions, dtype=np.int64)[..., :, None] - prefix
    j = np.asarray(k_positions, dtype=np.int64)[..., None, :] - prefix
    w = np.asarray(table, dtype=np.float64)
    rows, columns = window
    dy = i // columns - j // columns
    dx = i % columns - j % columns
    row = (dy + rows - 1) * (2 * columns - 1) + dx + columns - 1
    n = len(w)
    if prefix:
        for index in np.ndindex(row.shape):
            from_token, to_token = (np.broadcast_to(each, row.shape)[index] < 0 for each in (i, j))
            if from_token and to_token:
                row[index] = n - 1
            elif to_token:
                row[index] = n - 2
            elif from_token:
                row[index] = n - 3
    return np.moveaxis(w[row], -1, -3)
