"""A sinusoidal code of each coordinate of a patch, side by side."""

import numpy as np
import numpy.typing as npt


def codes(
    positions: npt.ArrayLike,
    *,
    inv_freq: list[npt.ArrayLike],
    layout: str = "concatenated",
    order: tuple[int, ...] | None = None,
) -> npt.NDArray[np.float64]:
    """The sines and cosines of all coordinates.

        angle(p, a, c) = p[a] w(a)[c]                       p in `positions` (..., axes), w = `inv_freq` of each axis

    The channels are those of the axes in `order`, one after the other. Those of an axis with n rates:

        code[2 c] = sin angle, code[2 c + 1] = cos angle    `layout` "interleaved"
        code[c] = sin angle, code[c + n] = cos angle        `layout` "concatenated"

    `layout` "sines_first" has the sines of all axes, and then the cosines of all axes.

    Reference: He et al., Masked autoencoders, arXiv 2111.06377, appendix A.1 (which says only that there are sines and
    cosines); Carion et al., DETR, arXiv 2005.12872, appendix A.4.
    """
    p = np.asarray(positions, dtype=np.float64)
    axes = range(p.shape[-1]) if order is None else order
    sines, cosines, blocks = [], [], []
    for a in axes:
        for w in np.asarray(inv_freq[a], dtype=np.float64):
            sines.append(np.sin(p[..., a] * w))
            cosines.append(np.cos(p[..., a] * w))
        n = len(np.asarray(inv_freq[a]))
        if layout == "interleaved":
            for c in range(n):
                blocks += [sines[-n + c], cosines[-n + c]]
        elif layout == "concatenated":
            blocks += sines[-n:] + cosines[-n:]
        elif layout != "sines_first":
            raise ValueError(
                f"sinusoidal_grid: layout is {layout!r}, expected 'interleaved', 'concatenated' or 'sines_first'"
            )
    return np.stack(sines + cosines if layout == "sines_first" else blocks, axis=-1)
