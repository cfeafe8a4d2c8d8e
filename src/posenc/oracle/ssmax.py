"""Scalable softmax: a learned temperature for each head, which grows with ln n."""

import numpy as np
import numpy.typing as npt


def weights(scores: npt.ArrayLike, *, scale: float) -> npt.NDArray[np.float64]:
    """Attention weights of one query over its n keys.

        weight(u) = n^(scale z(u)) / sum over u' of n^(scale z(u'))         z = `scores` (n,)

    Reference: Nakanishi, arXiv 2501.19399, equation 3.
    """
    z = np.asarray(scores, dtype=np.float64)
    powers = float(len(z)) ** (scale * z)
    return np.asarray(powers / powers.sum())


def temperature(
    positions: npt.ArrayLike, *, scale: npt.ArrayLike, offset: npt.ArrayLike = 0.0
) -> npt.NDArray[np.float64]:
    """The same as a temperature: n^(s z) = exp(s ln(n) z), with n = p + 1 tokens up to the query.

        tau(head, p) = scale(head) ln(p + 1) + offset(head)                 (heads, seq)

    Reference: as above; `offset`: transformers, models/mistral_large4.
    """
    p = np.asarray(positions, dtype=np.float64)
    s, b = np.broadcast_arrays(np.asarray(scale, dtype=np.float64), np.asarray(offset, dtype=np.float64))
    return np.asarray(s[:, None] * np.log(p + 1) + b[:, None])
