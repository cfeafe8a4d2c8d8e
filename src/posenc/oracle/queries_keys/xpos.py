"""xPos: RoPE whose scores also fade with the distance."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    inv_freq: npt.ArrayLike,
    role: str,
    gamma: float = 0.4,
    scale_base: float = 512,
    centre: float = 0,
    pairing: str = "half",
) -> npt.NDArray[np.float64]:
    """Queries or keys, each pair of channels turned by +angle and scaled by a power of its own.

        zeta(pair) = (pair / n + gamma) / (1 + gamma)       n pairs: 0.4 / 1.4 for the fastest, nearly 1 for the slowest
        e          = (p - centre) / scale_base              p in `positions`; the paper's centre is 0
        query:       y = zeta(pair)^(+e) R(p w(pair)) x     w = `inv_freq` in radians per token
        key:         y = zeta(pair)^(-e) R(p w(pair)) x

    `x` is (..., seq, head_dim). The first 2 n channels are changed. A score then has zeta(pair)^((i - j) / scale_base).

    Reference: Sun et al., arXiv 2212.10554, section 3.2 and algorithm 1.
    """
    x = np.asarray(x, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    if p.ndim == 2 and x.ndim == 4:
        p = p[:, None, :]
    n = len(w)
    sign = {"query": +1, "key": -1}[role]
    y = x.copy()
    for pair in range(n):
        a, b = {"half": (pair, pair + n), "interleaved": (2 * pair, 2 * pair + 1)}[pairing]
        zeta = (pair / n + gamma) / (1 + gamma)
        scale = zeta ** (sign * (p - centre) / scale_base)
        angle = p * w[pair]
        y[..., a] = scale * (x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle))
        y[..., b] = scale * (x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle))
    return y
