"""FIRE: a small network of the distance of a key, as a share of the longest distance of the query."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    c: float,
    threshold: float,
    hidden_weight: npt.ArrayLike,
    hidden_bias: npt.ArrayLike,
    out_weight: npt.ArrayLike,
    out_bias: npt.ArrayLike,
    eps: float = 1e-6,
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of each query and key.

        b(h, i, j) = f_h( psi(i - j) / (psi(max(i, L)) + eps) )         psi(x) = ln(1 + |c x|), L = |`threshold`|
        f(x) = W2 relu(W1 x + b1) + b2                                  W1 is (width,), W2 is (heads, width)

    The ratio lies in [0, 1] for every key at or before the query, however long the sequence.

    Reference: Li et al., arXiv 2310.04418, equations 8 and 9.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    w1, b1, w2, b2 = (np.asarray(w, dtype=np.float64) for w in (hidden_weight, hidden_bias, out_weight, out_bias))
    distance = np.log(1 + np.abs(c * (i - j)))
    longest = np.log(1 + np.abs(c * np.maximum(i, np.abs(threshold))))
    share = distance / (longest + eps)
    b = np.empty((*share.shape[:-2], len(b2), *share.shape[-2:]))
    for h in range(len(b2)):
        total = np.full(share.shape, b2[h])
        for n in range(len(b1)):
            total = total + w2[h, n] * np.maximum(w1[n] * share + b1[n], 0)
        b[..., h, :, :] = total
    return b
