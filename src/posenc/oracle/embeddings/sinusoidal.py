"""Sines and cosines of the position, at rates from fast to slow."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, inv_freq: npt.ArrayLike, order: str = "interleaved") -> npt.NDArray[np.float64]:
    """A sine and a cosine of the position for each frequency.

        angle(p, pair) = p w(pair)                          p in `positions`, w = `inv_freq` in radians per token
        code(p)[2 pair]     = sin angle(p, pair)            `order` "interleaved": the paper
        code(p)[2 pair + 1] = cos angle(p, pair)
        code(p)[pair]         = sin angle(p, pair)          `order` "concatenated": tensor2tensor, with n = len(w)
        code(p)[pair + n]     = cos angle(p, pair)

    The paper takes w(pair) = 10000^(-2 pair / dim), with dim = 2 n channels.

    Reference: Vaswani et al., arXiv 1706.03762, section 3.5.
    """
    p = np.asarray(positions, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    n = len(w)
    code = np.empty((*p.shape, 2 * n))
    for pair in range(n):
        if order == "interleaved":
            code[..., 2 * pair] = np.sin(p * w[pair])
            code[..., 2 * pair + 1] = np.cos(p * w[pair])
        elif order == "concatenated":
            code[..., pair] = np.sin(p * w[pair])
            code[..., pair + n] = np.cos(p * w[pair])
        else:
            raise ValueError(f"sinusoidal: order is {order!r}, expected 'interleaved' or 'concatenated'")
    return code
