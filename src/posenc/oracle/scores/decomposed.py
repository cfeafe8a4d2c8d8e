"""The decomposed bias of MViTv2, ViTDet and SAM: the query times a vector for the rows and one for the columns."""

import numpy as np
import numpy.typing as npt


def bias(
    q: npt.ArrayLike,
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    prefix: int = 0,
) -> npt.NDArray[np.float64]:
    """The unscaled query times the vectors of its distances to the key.

        b(h, i, j) = <q(h, i), R[y(i) - y(j) + m - 1] + C[x(i) - x(j) + n - 1]>         R = `rows`, C = `columns`

    R has 2 m - 1 rows and C has 2 n - 1, for a grid of m x n places that are counted along the rows after the `prefix`:
    y(p) = (p - prefix) div n, x(p) = (p - prefix) mod n. Nothing is added where query or key is of the prefix.

    Reference: Li et al., MViTv2, arXiv 2112.01526, equations 3 and 4.
    """
    r, c = np.asarray(rows, dtype=np.float64), np.asarray(columns, dtype=np.float64)
    m, n = (len(r) + 1) // 2, (len(c) + 1) // 2
    q = np.asarray(q, dtype=np.float64)
    i = np.broadcast_to(np.asarray(q_positions, dtype=np.int64), (len(q), q.shape[-2]))
    j = np.asarray(k_positions, dtype=np.int64)
    j = np.broadcast_to(j, (len(q), j.shape[-1]))
    b = np.zeros((*q.shape[:-1], j.shape[-1]))
    for batch in range(len(q)):
        for s, place in enumerate(i[batch] - prefix):
            for t, other in enumerate(j[batch] - prefix):
                if place >= 0 and other >= 0:
                    vector = r[place // n - other // n + m - 1] + c[place % n - other % n + n - 1]
                    b[batch, :, s, t] = q[batch, :, s] @ vector
    return b
