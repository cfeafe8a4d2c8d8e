"""PoPE: the content of a token sets the magnitude of a channel, and its position sets the angle."""

import numpy as np
import numpy.typing as npt


def polar(
    x: npt.ArrayLike, positions: npt.ArrayLike, *, inv_freq: npt.ArrayLike, phase: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Queries or keys, each channel a magnitude and an angle, written as two numbers.

        mu    = ln(1 + e^x[c])                              never negative
        angle = p w(c)                                      of a query; p in `positions`, w = `inv_freq`
        angle = p w(c) + min(max(phase(head, c), -2 pi), 0) of a key
        y[c], y[c + d] = mu cos angle, mu sin angle         d channels become 2 d

    `x` is (batch, heads, seq, d), `positions` (seq,) and `phase` (kv_heads, d), if given; head h of x has the phase of
    key head h // (heads / kv_heads). The paper takes w(c) = 10000^(-c / d).

    Reference: Gopalakrishnan et al., arXiv 2509.10534; PoPE-pytorch.
    """
    x = np.asarray(x, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    heads, d = x.shape[1], x.shape[-1]
    y = np.empty((*x.shape[:-1], 2 * d))
    for head in range(heads):
        for c in range(d):
            angle = p * w[c]
            if phase is not None:
                delta = np.asarray(phase, dtype=np.float64)
                angle = angle + np.clip(delta[head // (heads // len(delta)), c], -2 * np.pi, 0.0)
            mu = np.logaddexp(0.0, x[:, head, :, c])
            y[:, head, :, c] = mu * np.cos(angle)
            y[:, head, :, c + d] = mu * np.sin(angle)
    return y


def score(
    q: npt.ArrayLike, k: npt.ArrayLike, i: float, j: float, *, inv_freq: npt.ArrayLike, phase: npt.ArrayLike
) -> float:
    """The score of one query at i and one key at j of one head, before it is scaled.

        s = sum over c of  ln(1 + e^q[c]) ln(1 + e^k[c]) cos((j - i) w(c) + phase(c))

    `q`, `k`, `inv_freq` and `phase` are (d,), and the phases lie from -2 pi to 0.

    Reference: Gopalakrishnan et al., arXiv 2509.10534; PoPE-pytorch.
    """
    of_q, of_k = np.log1p(np.exp(np.asarray(q, np.float64))), np.log1p(np.exp(np.asarray(k, np.float64)))
    angle = (j - i) * np.asarray(inv_freq, np.float64) + np.asarray(phase, np.float64)
    return float((of_q * of_k * np.cos(angle)).sum())
