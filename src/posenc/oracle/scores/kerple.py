"""KERPLE: a kernel of the distance, with parameters that each head learns."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike, k_positions: npt.ArrayLike, *, r1: npt.ArrayLike, r2: npt.ArrayLike, kernel: str = "log"
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of each query and key; it is never above 0.

        b(h, i, j) = -r1(h) ln(1 + r2(h) |i - j|)           `kernel` "log": r1, r2 > 0
        b(h, i, j) = -r1(h) |i - j|^r2(h)                   `kernel` "power": r1 > 0 and 0 < r2 <= 2

    The result is (heads, q_len, k_len), or has a batch dimension before if the positions have one.

    Reference: Chi et al., arXiv 2205.09921, equations 4 and 5.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    distance = np.abs(i - j)
    r1, r2 = (np.asarray(r, dtype=np.float64) for r in (r1, r2))
    b = np.empty((*distance.shape[:-2], len(r1), *distance.shape[-2:]))
    for h in range(len(r1)):
        if kernel == "log":
            b[..., h, :, :] = -r1[h] * np.log(1 + r2[h] * distance)
        elif kernel == "power":
            b[..., h, :, :] = -r1[h] * distance ** r2[h]
        else:
            raise ValueError(f"kerple: kernel is {kernel!r}, expected 'log' or 'power'")
    return b
