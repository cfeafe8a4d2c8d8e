"""RoPE: rotate each pair of channels by an angle that grows with the position."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike, positions: npt.ArrayLike, *, inv_freq: npt.ArrayLike, pairing: str = "half"
) -> npt.NDArray[np.float64]:
    """Queries or keys, each pair of channels turned by +angle.

        angle(p, pair) = p w(pair)                          p in `positions`, w = `inv_freq` in radians per token
        y[a] = x[a] cos angle - x[b] sin angle
        y[b] = x[a] sin angle + x[b] cos angle
        (a, b) = (pair, pair + n)                           `pairing` "half": GPT-NeoX, with n = len(w)
        (a, b) = (2 pair, 2 pair + 1)                       `pairing` "interleaved": the paper

    `x` is (..., seq, head_dim). The first 2 n channels are rotated and the others pass through. `positions` is (seq,),
    or (batch, seq) and then the same for all heads. The paper takes w(pair) = 10000^(-2 pair / head_dim).

    Reference: Su et al., arXiv 2104.09864, equations 13 to 15 and 34.
    """
    x = np.asarray(x, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    if p.ndim == 2 and x.ndim == 4:
        p = p[:, None, :]
    n = len(w)
    y = x.copy()
    for pair in range(n):
        if pairing == "half":
            a, b = pair, pair + n
        elif pairing == "interleaved":
            a, b = 2 * pair, 2 * pair + 1
        else:
            raise ValueError(f"rope: pairing is {pairing!r}, expected 'half' or 'interleaved'")
        angle = p * w[pair]
        y[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        y[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
    return y


def matrix(position: float, *, inv_freq: npt.ArrayLike, pairing: str = "half") -> npt.NDArray[np.float64]:
    """The rotation of one position as a matrix R(p), so that y = R(p) x.

        R[a, a] = cos angle     R[a, b] = -sin angle        angle = p w(pair), p = `position`, w = `inv_freq`
        R[b, a] = sin angle     R[b, b] =  cos angle        (a, b) as `pairing` says, and 0 elsewhere

    R(i)^T R(j) = R(j - i): a score <R(i) q, R(j) k> depends on i and j through j - i alone.

    Reference: Su et al., arXiv 2104.09864, equations 15 and 16.
    """
    w = np.asarray(inv_freq, dtype=np.float64)
    n = len(w)
    rotation = np.zeros((2 * n, 2 * n))
    for pair in range(n):
        if pairing == "half":
            a, b = pair, pair + n
        elif pairing == "interleaved":
            a, b = 2 * pair, 2 * pair + 1
        else:
            raise ValueError(f"rope: pairing is {pairing!r}, expected 'half' or 'interleaved'")
        angle = position * w[pair]
        rotation[a, a] = np.cos(angle)
        rotation[a, b] = -np.sin(angle)
        rotation[b, a] = np.sin(angle)
        rotation[b, b] = np.cos(angle)
    return rotation
