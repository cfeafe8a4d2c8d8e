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


def resized_geometrically(
    table: npt.ArrayLike, *, window: tuple[int, int], size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """The table of offsets for another window, as BEiT reads it: finely near 0, coarsely far from it.

    The old offset k of a side of N stands at x(k) of the new side of N':

        x(k) = (q^k - 1) / (q - 1),  x(-k) = -x(k),        x(N - 1) = N' - 1 by the choice of q, 1.01 <= q <= 1.5

    Between these places the numbers are read linearly, along one side after the other; beyond them they are the last.

    Reference: microsoft/unilm, beit/run_class_finetuning.py; timm, layers/pos_embed_rel.py, resize_rel_pos_bias_table.
    """
    sides = [(2 * old - 1, 2 * new - 1) for old, new in zip(window, size, strict=True)]
    image = np.asarray(table, dtype=np.float64).reshape(*(old for old, _ in sides), -1)
    for axis, (old, new) in enumerate(sides):
        n, reach = old // 2, new // 2
        places = np.zeros(1)
        if n:  # 1 + q + ... + q^(n - 1) = reach
            roots = np.roots([1] * (n - 1) + [1 - reach]) if n > 1 else np.array([1.0])
            q = float(np.clip(max(roots[abs(roots.imag) < 1e-9].real, default=1.0), 1.01, 1.5))
            positive = (q ** np.arange(1, n + 1) - 1) / (q - 1)
            places = np.concatenate((-positive[::-1], [0], positive))
        wanted = np.arange(-reach, reach + 1)
        lines = np.moveaxis(image, axis, -1)
        read = [np.interp(wanted, places, line) for line in lines.reshape(-1, old)]
        image = np.moveaxis(np.reshape(read, (*lines.shape[:-1], new)), -1, axis)
    return image.reshape(-1, image.shape[-1])
