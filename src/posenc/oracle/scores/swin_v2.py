"""Swin v2's bias: a small network of log-spaced offsets, so that a larger window needs little extrapolation."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    window: tuple[int, int],
    trained_window: tuple[int, int],
    hidden_weight: npt.ArrayLike,
    hidden_bias: npt.ArrayLike,
    out_weight: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of two places of a window of M rows and N columns.

        b(h, i, j) = 16 sigmoid( W2 relu(W1 (u, v) + b1) )(h)
        u = sign(s) log2(1 + |s|) / 3,  s = 8 (y(i) - y(j)) / (M' - 1)                  and v likewise along x
        y(p) = p div N,  x(p) = p mod N                     positions count along the rows

    (M', N') is `trained_window`. W1 is (width, 2), W2 is (heads, width).

    Reference: Liu et al., arXiv 2111.09883, equations 3 and 4; the factors 8, 3 = log2 8 and 16 are the authors' code.
    """
    i = np.asarray(q_positions, dtype=np.int64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.int64)[..., None, :]
    columns = window[1]
    offsets = (i // columns - j // columns, i % columns - j % columns)
    spaced = []
    for offset, side in zip(offsets, trained_window, strict=True):
        s = 8 * offset / max(side - 1, 1)
        spaced.append(np.sign(s) * np.log2(1 + np.abs(s)) / 3)
    w1, b1, w2 = (np.asarray(w, dtype=np.float64) for w in (hidden_weight, hidden_bias, out_weight))
    hidden = np.maximum(spaced[0][..., None] * w1[:, 0] + spaced[1][..., None] * w1[:, 1] + b1, 0)
    b = 16 / (1 + np.exp(-(hidden @ w2.T)))
    return np.moveaxis(b, -1, -3)


def bias_of_the_paper(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    window: tuple[int, int],
    hidden_weight: npt.ArrayLike,
    hidden_bias: npt.ArrayLike,
    out_weight: npt.ArrayLike,
    out_bias: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """The same as the paper writes it, and as timm's form "cr" has it.

        b(h, i, j) = ( W2 relu(W1 (u, v) + b1) + b2 )(h)
        u = sign(s) ln(1 + |s|),  s = y(i) - y(j)                                       and v likewise along x

    Reference: Liu et al., arXiv 2111.09883, equations 3 and 4.
    """
    w1, b1, w2, b2 = (np.asarray(w, dtype=np.float64) for w in (hidden_weight, hidden_bias, out_weight, out_bias))
    n = window[1]
    made = np.empty((len(w2), len(np.asarray(q_positions)), len(np.asarray(k_positions))))
    for row, i in enumerate(np.asarray(q_positions)):
        for column, j in enumerate(np.asarray(k_positions)):
            s = np.array([i // n - j // n, i % n - j % n], dtype=np.float64)
            u = np.where(s < 0, -1, 1) * np.log(1 + np.abs(s))
            made[:, row, column] = w2 @ np.maximum(w1 @ u + b1, 0) + b2
    return made
