"""Inkling's relative logits: learned functions of the distance, weighted by the input of the query."""

import numpy as np
import numpy.typing as npt


def mixture(
    x: npt.ArrayLike,
    *,
    weight: npt.ArrayLike,
    num_heads: int,
    scale: npt.ArrayLike | None = None,
    clip: float | None = None,
) -> npt.NDArray[np.float64]:
    """r(h, i), how much of each profile a token takes, (batch, heads, seq, rank).

        r(h, i) = W(h) x(i)                                   `weight` is (heads * rank, dim)
        r(h, i) = c u / max(c, |u| + 1e-6), u = g(h) W(h) x(i)    with `clip` c, and `scale` g, (heads, rank)

    Reference: transformers 5.24, models/inkling (r_proj) and models/inkling2 (Inkling2ScaledL2Clip).
    """
    r: npt.NDArray[np.float64] = np.asarray(x, dtype=np.float64) @ np.asarray(weight, dtype=np.float64).T
    r = np.moveaxis(r.reshape(*r.shape[:-1], num_heads, -1), -2, -3)
    if clip is not None:
        u = np.asarray(scale, dtype=np.float64)[:, None, :] * r
        r = clip * u / np.maximum(clip, np.linalg.norm(u, axis=-1, keepdims=True) + 1e-6)
    return r


def bias(
    r: npt.ArrayLike, q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, *, profiles: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """What is added to the scaled scores; `r` is that of the queries, (batch, heads, q_len, rank).

        b(h, i, j) = sum over n of r(h, i, n) P(n, i - j) if 0 <= i - j < E, else 0     `profiles` P is (rank, E)

    Reference: transformers 5.24, models/inkling, InklingRelativeLogits.
    """
    r, profiles = np.asarray(r, dtype=np.float64), np.asarray(profiles, dtype=np.float64)
    b = np.zeros((*r.shape[:-1], len(np.asarray(k_positions))))
    for row, i in enumerate(np.asarray(q_positions)):
        for column, j in enumerate(np.asarray(k_positions)):
            behind = round(float(i - j))
            if 0 <= behind < profiles.shape[1]:
                b[..., row, column] = r[..., row, :] @ profiles[:, behind]
    return b
