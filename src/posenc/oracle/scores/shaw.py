"""Shaw's relative positions: a learned vector of each clipped distance is added to the keys, another to the values."""

import numpy as np
import numpy.typing as npt


def _rows(
    q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, table: npt.ArrayLike, beyond: str
) -> npt.NDArray[np.float64]:
    """a(i, j), (..., q_len, k_len, head_dim): the table's row for j - i, and the last row or zeros beyond it."""
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    n = np.rint(j - i).astype(np.int64)
    w = np.asarray(table, dtype=np.float64)
    reach = (len(w) - 1) // 2
    a = w[np.clip(n, -reach, reach) + reach]
    if beyond == "nothing":
        a = a * (np.abs(n) <= reach)[..., None]
    elif beyond != "last":
        raise ValueError(f"shaw: beyond is {beyond!r}, expected 'last' or 'nothing'")
    return a


def bias(
    q: npt.ArrayLike,
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    table: npt.ArrayLike,
    scale: float,
    beyond: str = "last",
) -> npt.NDArray[np.float64]:
    """What the keys' vectors add to the scaled scores.

        b(h, i, j) = scale <q(h, i), a(j - i)>              a = `table`, (2 r + 1, head_dim)

    j - i is rounded and clipped to [-r, r].

    The paper repeats the last row beyond r; VITS, the speech model, puts nothing there.

    Reference: Shaw et al., arXiv 1803.02155, equations 2 and 4.
    """
    a = _rows(q_positions, k_positions, table, beyond)
    q = np.asarray(q, dtype=np.float64)
    if a.ndim == 3:
        a = a[None]
    b: npt.NDArray[np.float64] = scale * np.einsum("bhid,bijd->bhij", q, np.broadcast_to(a, (q.shape[0], *a.shape[1:])))
    return b


def values(
    weights: npt.ArrayLike,
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    table: npt.ArrayLike,
    beyond: str = "last",
) -> npt.NDArray[np.float64]:
    """What the values' vectors add to the output.

        z(h, i) = sum over j of weight(h, i, j) a(j - i)

    Reference: Shaw et al., arXiv 1803.02155, equations 1 and 3.
    """
    a = _rows(q_positions, k_positions, table, beyond)
    w = np.asarray(weights, dtype=np.float64)
    if a.ndim == 3:
        a = a[None]
    z: npt.NDArray[np.float64] = np.einsum("bhij,bijd->bhid", w, np.broadcast_to(a, (w.shape[0], *a.shape[1:])))
    return z
