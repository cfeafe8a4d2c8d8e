"""The position in base two."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, dim: int) -> npt.NDArray[np.float64]:
    """The bits of the position, the least significant first.

        code(p)[bit] = floor(p / 2^bit) mod 2       bit = 0 .. dim - 1, p in `positions`

    A channel repeats after 2^(bit + 1) tokens. Bits beyond `dim` are dropped.

    Reference: Fleetwood, "You could have designed state of the art positional encoding", 2024, Binary Position
    Encoding.
    """
    p = np.asarray(positions, dtype=np.float64)
    code = np.empty((*p.shape, dim))
    for bit in range(dim):
        # Halving is exact in binary floating point, and unlike 2^bit it cannot overflow.
        code[..., bit] = np.floor(p * 0.5**bit) % 2
    return code
