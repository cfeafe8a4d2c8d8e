"""FoPE: each pair turns by a Fourier series instead of one wave."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    inv_freq: npt.ArrayLike,
    cos_coef: npt.ArrayLike,
    sin_coef: npt.ArrayLike,
    dropped: str = "turned",
    pairing: str = "half",
) -> npt.NDArray[np.float64]:
    """Queries or keys, where the cos and sin of a pair are weighted sums of those of all rates that are kept.

        C(pair) = cos(p w(0)) A(0, pair) + cos(p w(1)) A(1, pair) + ...
        S(pair) = sin(p w(0)) B(0, pair) + sin(p w(1)) B(1, pair) + ...
        y[a], y[b] = x[a] C - x[b] S, x[b] C + x[a] S

    w = `inv_freq`, the rates that are kept, p in `positions`, A = `cos_coef` and B = `sin_coef` of the head, both
    (kv_heads, rates, pairs); head h takes those of key-value head h // (heads / kv_heads). The pairs that are left have
    a frequency of zero: C = S = 1 if `dropped` is "turned", C = 1 and S = 0 if it is "still".

    `x` is (batch, heads, seq, head_dim), `positions` (seq,).

    Reference: Hua et al., arXiv 2412.17739, section 4 and appendix; "turned" is the authors' code.
    """
    x = np.asarray(x, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    of_cos, of_sin = np.asarray(cos_coef, dtype=np.float64), np.asarray(sin_coef, dtype=np.float64)
    kv_heads, n = of_cos.shape[0], x.shape[-1] // 2
    y = np.empty_like(x)
    for head in range(x.shape[1]):
        kv_head = head // (x.shape[1] // kv_heads)
        for pair in range(n):
            a, b = {"half": (pair, pair + n), "interleaved": (2 * pair, 2 * pair + 1)}[pairing]
            if pair < of_cos.shape[2]:
                c = sum(np.cos(p * w[r]) * of_cos[kv_head, r, pair] for r in range(len(w)))
                s = sum(np.sin(p * w[r]) * of_sin[kv_head, r, pair] for r in range(len(w)))
            else:
                c, s = 1.0, {"turned": 1.0, "still": 0.0}[dropped]
            y[:, head, :, a] = x[:, head, :, a] * c - x[:, head, :, b] * s
            y[:, head, :, b] = x[:, head, :, b] * c + x[:, head, :, a] * s
    return y
