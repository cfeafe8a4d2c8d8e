"""NoPE: no positional encoding at all."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, dim: int) -> npt.NDArray[np.float64]:
    """Nothing is added to the embeddings, and nothing is rotated or biased later.

        code(p)[channel] = 0        channel = 0 .. dim - 1, p in `positions`

    What a model still knows of order it learns through the causal mask.

    Reference: Haviv et al., arXiv 2203.16634; Kazemnejad et al., arXiv 2305.19466, section 2 and theorem 1.
    """
    p = np.asarray(positions, dtype=np.float64)
    return np.zeros((*p.shape, dim))
