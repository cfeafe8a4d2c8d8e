"""TUPE: queries and keys made of the positions alone have scores of their own, which are added as a bias."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    table: npt.ArrayLike,
    norm_weight: npt.ArrayLike,
    norm_bias: npt.ArrayLike,
    q_weight: npt.ArrayLike,
    q_bias: npt.ArrayLike,
    k_weight: npt.ArrayLike,
    k_bias: npt.ArrayLike,
    num_heads: int,
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of each query and key.

        b(h, i, j) = <U_Q(h) p(i), U_K(h) p(j)> / sqrt(2 d)         p = layer norm of the table's row, d = dim / heads

    The words' own scores are divided by sqrt(2 d) too, so that the sum keeps the variance of one of them. `q_weight`
    and `k_weight` are (dim, dim), applied as W x + b, and head h has channels h d .. (h + 1) d - 1.

    Reference: Ke et al., arXiv 2006.15595, equation 7; layer norm and biases as in the authors' code.
    """
    p = np.asarray(table, dtype=np.float64)
    p = (p - p.mean(axis=-1, keepdims=True)) / np.sqrt(p.var(axis=-1, keepdims=True) + 1e-5)
    p = p * np.asarray(norm_weight) + np.asarray(norm_bias)
    q = p @ np.asarray(q_weight, dtype=np.float64).T + np.asarray(q_bias)
    k = p @ np.asarray(k_weight, dtype=np.float64).T + np.asarray(k_bias)
    d = p.shape[-1] // num_heads
    i, j = np.asarray(q_positions, dtype=np.int64), np.asarray(k_positions, dtype=np.int64)
    heads = []
    for h in range(num_heads):
        channels = slice(h * d, (h + 1) * d)
        heads.append(q[i][..., channels] @ np.swapaxes(k[j][..., channels], -1, -2) / np.sqrt(2 * d))
    return np.stack(heads, axis=-3)
