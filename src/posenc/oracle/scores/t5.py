"""T5's relative bias: one learned number for each bucket of distances, near ones alone and far ones together."""

import numpy as np
import numpy.typing as npt


def bucket(
    distance: npt.ArrayLike, *, num_buckets: int, max_distance: int, direction: str = "causal"
) -> npt.NDArray[np.int64]:
    """The bucket of each distance n = i - j.

        bucket = n                                          for 0 <= n < m, where m = B / 2
        bucket = m + floor((B - m) ln(n / m) / ln(D / m))   for n >= m, and B - 1 at most

    B is `num_buckets` and D is `max_distance`. With `direction` "causal", keys after the query count as distance 0.
    With "both", n is |i - j| and B is half of `num_buckets`: buckets 0 .. B - 1 are for keys at or before the query,
    B .. 2 B - 1 for those after it. A distance that is not whole is rounded down.

    Reference: Raffel et al., arXiv 1910.10683, section 2.1; relative_position_bucket in Mesh TensorFlow.
    """
    n = np.asarray(distance, dtype=np.float64)
    first = np.zeros(n.shape, dtype=np.int64)
    if direction == "both":
        num_buckets = num_buckets // 2
        first[n < 0] = num_buckets
        n = np.abs(n)
    elif direction != "causal":
        raise ValueError(f"t5: direction is {direction!r}, expected 'causal' or 'both'")
    n = np.floor(np.maximum(n, 0))
    m = num_buckets // 2
    far = (num_buckets - m) * np.log(np.maximum(n, m) / m) / np.log(max_distance / m)
    # An edge that is a whole number in exact arithmetic must not be missed by a rounding.
    far = m + np.floor(far + 1e-9).astype(np.int64)
    return first + np.where(n < m, np.floor(n).astype(np.int64), np.minimum(far, num_buckets - 1))


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    table: npt.ArrayLike,
    max_distance: int,
    direction: str = "causal",
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of each query and key.

        b(h, i, j) = table[bucket(i - j), h]                i in `q_positions`, j in `k_positions`

    `table` is (num_buckets, heads). The result is (heads, q_len, k_len), or has a batch dimension before if the
    positions have one. T5 adds it to q k without 1 / sqrt(head_dim).

    Reference: Raffel et al., arXiv 1910.10683, section 2.1.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    w = np.asarray(table, dtype=np.float64)
    b = w[bucket(i - j, num_buckets=len(w), max_distance=max_distance, direction=direction)]
    return np.moveaxis(b, -1, -3)
