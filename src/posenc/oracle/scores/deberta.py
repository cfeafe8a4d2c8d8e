"""DeBERTa: scores of a query with a distance and of a key with a distance; none of a distance with a distance."""

import numpy as np
import numpy.typing as npt


def bucket(distance: npt.ArrayLike, *, span: int, max_distance: int | None = None) -> npt.NDArray[np.int64]:
    """The row of the table for each distance n = i - j.

        row = clip(n + span, 0, 2 span - 1)                                         v1: `max_distance` None
        row = clip(sign(n) g(|n|) + span, 0, 2 span - 1)                            v2
        g(n) = n                                                        for n <= m = span / 2
        g(n) = m + ceil( ln(n / m) / ln((D - 1) / m) (m - 1) )          beyond, D = `max_distance`

    Reference: He et al., arXiv 2006.03654, equation 3; make_log_bucket_position in the authors' DeBERTa v2.
    """
    n = np.asarray(distance, dtype=np.int64)
    if max_distance is not None:
        m = span // 2
        far = np.log(np.maximum(np.abs(n), m) / m) / np.log((max_distance - 1) / m) * (m - 1)
        far = m + np.ceil(far - 1e-9).astype(np.int64)  # an exact edge must not be missed by a rounding
        n = np.where(np.abs(n) <= m, n, np.sign(n) * far)
    return np.clip(n + span, 0, 2 * span - 1)


def bias(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    q_table: npt.ArrayLike,
    k_table: npt.ArrayLike,
    scale: float,
    max_distance: int | None = None,
) -> npt.NDArray[np.float64]:
    """What is added to scale <q(i), k(j)>, where scale is 1 / sqrt(3 head_dim).

        b(h, i, j) = scale ( <q(i), K_r[row(i - j)]> + <k(j), Q_r[row(i - j)]> )

    `q_table` and `k_table` are Q_r and K_r, (heads, 2 span, head_dim). The paper writes delta(j, i) in the second term
    and takes its row of Q_r; with the sign of the authors' code, that is row(i - j) again.

    Reference: He et al., arXiv 2006.03654, equation 4.
    """
    q, k, qr, kr = (np.asarray(x, dtype=np.float64) for x in (q, k, q_table, k_table))
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    rows = bucket(np.rint(i - j), span=qr.shape[1] // 2, max_distance=max_distance)
    rows = np.broadcast_to(rows, (q.shape[0], *rows.shape[-2:]))
    b = np.empty((*q.shape[:3], k.shape[-2]))
    for h in range(q.shape[1]):
        shared = k[:, h // (q.shape[1] // k.shape[1])]
        b[:, h] = np.einsum("bid,bijd->bij", q[:, h], kr[h][rows]) + np.einsum("bjd,bijd->bij", shared, qr[h][rows])
    return scale * b
