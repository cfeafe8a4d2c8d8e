"""Fourier features: a point of space as cosines and sines along random directions."""

import numpy as np
import numpy.typing as npt


def codes(points: npt.ArrayLike, *, directions: npt.ArrayLike, order: str = "cos_sin") -> npt.NDArray[np.float64]:
    """Cosines and sines of the turns that a point is at along each direction.

        turns(v, r) = sum over c of B[r, c] v[c]            v in `points` (..., coordinates), B = `directions`
        code(v)[r] = cos 2 pi turns, code(v)[r + n] = sin 2 pi turns        n = rows of B; `order` "cos_sin"

    With `order` "sin_cos" the sines come first. The paper draws B from a normal distribution and keeps it.

    Reference: Tancik et al., arXiv 2006.10739, section 6.1, equation for gamma.
    """
    v = np.asarray(points, dtype=np.float64)
    b = np.asarray(directions, dtype=np.float64)
    n = len(b)
    code = np.empty((*v.shape[:-1], 2 * n))
    for r in range(n):
        turns = np.zeros(v.shape[:-1])
        for c in range(v.shape[-1]):
            turns = turns + b[r, c] * v[..., c]
        first, second = {"cos_sin": (np.cos, np.sin), "sin_cos": (np.sin, np.cos)}[order]
        code[..., r] = first(2 * np.pi * turns)
        code[..., r + n] = second(2 * np.pi * turns)
    return code
