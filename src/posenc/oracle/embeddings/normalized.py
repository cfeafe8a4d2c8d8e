"""The position as a fraction of the length."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, dim: int, length: float) -> npt.NDArray[np.float64]:
    """The position, as a fraction of the length, on every channel.

        code(p)[channel] = p / N        channel = 0 .. dim - 1, p in `positions`, N = `length` in tokens

    Reference: Fleetwood, "You could have designed state of the art positional encoding", 2024, Integer Position
    Encoding.
    """
    p = np.asarray(positions, dtype=np.float64)
    code = np.empty((*p.shape, dim))
    for channel in range(dim):
        code[..., channel] = p / length
    return code
