"""One learned row for each patch of an image, after those of the tokens that stand before the patches."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, table: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The row of a place: 0 to prefix - 1 come before the patches, which follow row by row.

        code(p) = table[p]                                  p in `positions`

    The patch at row y and column x of (rows, columns) patches is place prefix + y columns + x.

    Reference: Dosovitskiy et al., arXiv 2010.11929, equation 1.
    """
    rows = np.asarray(table, dtype=np.float64)
    p = np.asarray(positions, dtype=np.float64)
    code = np.empty((*p.shape, rows.shape[1]))
    for index, place in np.ndenumerate(p):
        code[index] = rows[int(place)]
    return code


def resized(
    table: npt.ArrayLike,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    prefix: int = 0,
    mode: str = "bicubic",
    antialias: bool = False,
    align_corners: bool = False,
    offset: float = 0.0,
) -> npt.NDArray[np.float64]:
    """The patches' rows read anew on another grid, those of the prefix kept: the same along y as along x.

        new(r, c) = sum over y, x of weight_y(r, y) weight_x(c, x) old(y, x)

    Reference: Dosovitskiy et al., arXiv 2010.11929, section 3.2, who do not say how they interpolate.
    """
    rows = np.asarray(table, dtype=np.float64)
    old = rows[prefix:].reshape(*grid, -1)
    options = {"mode": mode, "antialias": antialias, "align_corners": align_corners, "offset": offset}
    new = np.zeros((*size, old.shape[-1]))
    for r, along_y in enumerate(weights(grid[0], size[0], **options)):  # type: ignore[arg-type]
        for c, along_x in enumerate(weights(grid[1], size[1], **options)):  # type: ignore[arg-type]
            for y in np.flatnonzero(along_y):
                for x in np.flatnonzero(along_x):
                    new[r, c] += along_y[y] * along_x[x] * old[y, x]
    return np.concatenate((rows[:prefix], new.reshape(-1, old.shape[-1])))


def weights(
    old: int, new: int, *, mode: str, antialias: bool, align_corners: bool, offset: float
) -> npt.NDArray[np.float64]:
    """What each of the `new` places along an axis takes of each of the `old` ones, (new, old).

        step = old / (new + offset)                         old patches for a new one
        at(r) = (r + 1/2) step - 1/2                        the centre of new patch r, in old patches
        at(r) = r (old - 1) / (new - 1)                     `align_corners`: first on first, last on last
        weight(r, x) = f(at(r) - x)                         past an edge, the patch at the edge stands in
        weight(r, x) = f((at(r) - x) / s) / sum over x      `antialias`, s = max(step, 1), of the patches that there are

    f is the triangle 1 - |t| for "bilinear", and for "bicubic" Keys's piecewise cubic with a = -3/4, or a = -1/2 with
    `antialias`. Without `antialias`, "bilinear" reads nothing before the first centre: at(r) is at least 0.

    Reference: Keys, Cubic convolution interpolation for digital image processing, 1981, equation 4 (a = -1/2 is his
    choice; -3/4 is PyTorch's and OpenCV's).
    """
    step = old / (new + offset)
    stretch = max(step, 1.0) if antialias else 1.0
    reach = {"bilinear": 1, "bicubic": 2}[mode]
    w = np.zeros((new, old))
    for r in range(new):
        at = (r + 0.5) * step - 0.5
        if align_corners:
            at = r * (old - 1) / (new - 1) if new > 1 else 0.0
        if mode == "bilinear" and not antialias:
            at = max(at, 0.0)
        for x in range(int(np.floor(at - reach * stretch)), int(np.ceil(at + reach * stretch)) + 1):
            share = _f((at - x) / stretch, mode=mode, a=-0.5 if antialias else -0.75)
            if antialias and 0 <= x < old:
                w[r, x] += share
            elif not antialias:
                w[r, min(max(x, 0), old - 1)] += share
    return w / w.sum(axis=1, keepdims=True) if antialias else w


def _f(t: float, *, mode: str, a: float) -> float:
    t = abs(t)
    if mode == "bilinear":
        return max(1.0 - t, 0.0)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0
