"""The position itself, as a number."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, dim: int) -> npt.NDArray[np.float64]:
    """The position on every channel.

        code(p)[channel] = p        channel = 0 .. dim - 1, p in `positions`

    Reference: Fleetwood, "You could have designed state of the art positional encoding", 2024, Integer Position
    Encoding.
    """
    p = np.asarray(positions, dtype=np.float64)
    code = np.empty((*p.shape, dim))
    for channel in range(dim):
        code[..., channel] = p
    return code
