"""Softmax attention, one query at a time."""

import numpy as np
import numpy.typing as npt


def attention(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    bias: npt.ArrayLike | None = None,
    causal: bool = False,
    mask: npt.ArrayLike | None = None,
    scale: float | None = None,
) -> npt.NDArray[np.float64]:
    """Every query takes the mean of the values it can see, weighted by the softmax of its scores.

        score(t, u) = scale <q(t), k(u)> + bias(t, u)       scale = 1 / sqrt(head_dim) unless given
        weight(t, u) = exp score(t, u) / sum over the keys u' that t sees of exp score(t, u')
        y(t) = sum over the keys u that t sees of weight(t, u) v(u)

    `q` is (batch, heads, q_len, head_dim), `k` and `v` are (batch, kv_heads, k_len, head_dim), and head h reads
    key-value head h // (heads / kv_heads). `bias` and `mask` broadcast to (batch, heads, q_len, k_len). The bias is not
    multiplied by `scale`. A boolean `mask` is True where the query sees the key; a float one is added to the scores.
    `causal` aligns the last query with the last key: query t sees the keys 0 .. k_len - q_len + t.
    A query that sees no key gives 0.

    Reference: Vaswani et al., arXiv 1706.03762, equation 1; shared key-value heads: Ainslie et al., arXiv 2305.13245,
    section 2.2; bias outside the scale: Press et al., arXiv 2108.12409, section 3.
    """
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    batch, num_heads, q_len, head_dim = q.shape
    num_kv_heads, k_len = k.shape[1:3]
    if num_heads % num_kv_heads != 0:
        raise ValueError(f"attention: {num_kv_heads} key-value heads do not divide {num_heads} query heads")
    queries_per_key = num_heads // num_kv_heads
    if scale is None:
        scale = 1 / np.sqrt(head_dim)

    added = np.zeros((batch, num_heads, q_len, k_len))
    sees = np.ones((batch, num_heads, q_len, k_len), dtype=bool)
    if bias is not None:
        added = added + np.asarray(bias, dtype=np.float64)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype == bool:
            sees = sees & mask
        else:
            added = added + mask
    if causal:
        last_seen = k_len - q_len + np.arange(q_len)
        sees = sees & (np.arange(k_len) <= last_seen[:, None])
    # A score of minus infinity is another way to say "not seen". Such keys are left out of the sums below rather than
    # weighted by 0, so that whatever a padded slot holds, NaN included, stays out of the result.
    sees = sees & (added != -np.inf)

    y = np.zeros((batch, num_heads, q_len, v.shape[-1]))
    for b in range(batch):
        for h in range(num_heads):
            for t in range(q_len):
                seen = sees[b, h, t]
                if not seen.any():
                    continue
                keys = k[b, h // queries_per_key, seen]
                values = v[b, h // queries_per_key, seen]
                score = scale * keys @ q[b, h, t] + added[b, h, t, seen]
                # Subtracting the largest score changes no weight and keeps exp from overflowing.
                weight = np.exp(score - score.max())
                weight = weight / weight.sum()
                y[b, h, t] = weight @ values
    return y
