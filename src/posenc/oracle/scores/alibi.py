"""ALiBi: a penalty on the scores that grows with the distance, with one slope per head."""

import numpy as np
import numpy.typing as npt


def slopes(num_heads: int) -> npt.NDArray[np.float64]:
    """How much a score loses per token of distance, for each head.

        m(h) = 2^(-8 h / n)                                 h = 1 .. n, n = `num_heads` a power of two
        m(n' + h) = 2^(-8 (2 h - 1) / (2 n'))               h = 1 .. n - n', for any other n, where n' is the largest
                                                            power of two below n and the first n' slopes are those of n'

    The second line takes every other slope of 2 n' heads. The paper gives the first line; the second is the rule of the
    authors' code, so the slopes of 12 heads are not a geometric sequence.

    Reference: Press et al., arXiv 2108.12409, section 3; get_slopes in the authors' repository.
    """
    power = 1
    while 2 * power <= num_heads:
        power = 2 * power
    m = np.empty(num_heads)
    for h in range(1, power + 1):
        m[h - 1] = 2.0 ** (-8 * h / power)
    for h in range(1, num_heads - power + 1):
        m[power + h - 1] = 2.0 ** (-8 * (2 * h - 1) / (2 * power))
    return m


def bias(q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, *, num_heads: int) -> npt.NDArray[np.float64]:
    """The penalty of each head on each query and key, to be added to the scaled scores.

        b(h, i, j) = -m(h) |i - j|                          i in `q_positions`, j in `k_positions`, m as in `slopes`

    The result is (heads, q_len, k_len), or (batch, heads, q_len, k_len) for positions of shape (batch, seq).
    The paper has keys at or before the query only, where |i - j| is i - j; for later keys this is its mirror image.

    Reference: Press et al., arXiv 2108.12409, section 3 and figure 3.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    distance = np.abs(i - j)
    m = slopes(num_heads)
    b = np.empty((*distance.shape[:-2], num_heads, *distance.shape[-2:]))
    for h in range(num_heads):
        b[..., h, :, :] = -m[h] * distance
    return b
