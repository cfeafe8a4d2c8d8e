"""Transformer-XL: each query also has a score with a code of the distance, and each key one with a learned vector."""

import numpy as np
import numpy.typing as npt


def bias(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    weight: npt.ArrayLike,
    u: npt.ArrayLike,
    v: npt.ArrayLike,
    scale: float,
    base: float = 10_000.0,
) -> npt.NDArray[np.float64]:
    """What is added to scale <q(i), k(j)>.

        b(h, i, j) = scale ( <q(i) + v, W R(i - j)> + <u, k(j)> )
        R(n) = (sin(n w(0)), ..., sin(n w(D/2 - 1)), cos(n w(0)), ...)      w(c) = base^(-2 c / D)

    `weight` W is (heads head_dim, D), applied as W x, head h having rows h head_dim ... Vectors `u` and `v` are
    (heads, head_dim). Together with the dot product these are the four terms of the paper.

    Reference: Dai et al., arXiv 1901.02860, section 3.3.
    """
    q, k, u, v, w = (np.asarray(x, dtype=np.float64) for x in (q, k, u, v, weight))
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    batch, heads, q_len, head_dim = q.shape
    width = w.shape[1]
    angle = (i - j)[..., None] * base ** (-2 * np.arange(width // 2) / width)
    r = np.concatenate((np.sin(angle), np.cos(angle)), axis=-1)
    r = np.broadcast_to(r, (batch, *r.shape[-3:]))
    b = np.empty((batch, heads, q_len, k.shape[-2]))
    for h in range(heads):
        codes = r @ w[h * head_dim : (h + 1) * head_dim].T
        shared = k[:, h // (heads // k.shape[1])]
        b[:, h] = np.einsum("bid,bijd->bij", q[:, h] + v[h], codes) + (shared @ u[h])[:, None, :]
    return scale * b
